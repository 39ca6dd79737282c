#include "io/text/token_cache.h"

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/file/fingerprint.h"
#include "io/text/dataset_parts.h"
#include "src/leaf/hash.h"
#include "src/leaf/mapped.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

enum { VERSION = 1, ALIGN = 64, BUFFER_BYTES = 1 << 16, CHECKED_BYTES = 16 << 20 /* at a time */ };

/* The first bytes of a file; little-endian, like all numbers in it. The key follows, padded with zeros to a
 * multiple of ALIGN, then the ids, padded likewise, then text_count int64. */
typedef struct header {
    char magic[8];
    uint32_t version, id_bytes;
    int64_t key_bytes, token_count, text_count;
    uint32_t padding;
    uint32_t crc; /* CRC-32 of what follows the header, then of the header before this field */
} header;
_Static_assert(sizeof(header) == 48, "the header has no gaps");

static const char magic[8] = {'P', '4', 'T', 'O', 'K', 'E', 'N', 'S'};

static int64_t padded(int64_t bytes)
{
    return p4_ceil_div(bytes, ALIGN) * ALIGN;
}

/* Byte of the file at which the ids begin. */
static int64_t ids_at(const header *h)
{
    return padded((int64_t)sizeof *h + h->key_bytes);
}

static uint32_t header_crc(uLong crc, const header *h)
{
    return (uint32_t)crc32_z(crc, (const Bytef *)h, offsetof(header, crc));
}

/* ---- the key ---- */

/* The line of a text. */
static p4_rc say_text(FILE *to, const char *path, const p4_draw *draw)
{
    static const char *const kinds[] = {
        [P4_DATA_OTHER] = "other",       [P4_DATA_TEXT] = "text",       [P4_DATA_JSONL] = "jsonl",
        [P4_DATA_ARTICLES] = "articles", [P4_DATA_ARCHIVE] = "archive", [P4_DATA_TABLE] = "table"};
    p4_data_kind kind = p4_data_kind_of(path);
    char version[P4_FILE_VERSION_BYTES];
    if (kind == P4_DATA_TOKENS) {
        fprintf(to, "a token file\n");
        return P4_OK;
    }
    p4_rc rc = p4_fingerprint_version(version, path);
    if (rc != P4_OK) {
        return rc;
    }
    fprintf(to, "%s %s", kinds[kind], version);
    if (draw != NULL) {
        fprintf(to, ", a block of %lld bytes of each %.17g by %" PRIu64 " and %" PRIx64,
                (long long)draw->block_bytes, draw->stride, draw->seed, draw->stream);
    }
    fprintf(to, "\n");
    return P4_OK;
}

p4_rc p4_token_cache_key(char **key, const p4_texts *texts, const p4_windowing *how)
{
    p4_rc rc = P4_OK;
    size_t bytes;
    char fingerprint[P4_FINGERPRINT_BYTES] = "none";
    *key = NULL;
    FILE *to = open_memstream(key, &bytes);
    if (to == NULL) {
        return FAULT("out of memory");
    }
    if (how->tokenizer != NULL) {
        p4_fingerprint_text(fingerprint, p4_tokenizer_json(how->tokenizer));
    }
    fprintf(to, "phase4 %s tokens\ntokenizer %s\nvocabulary %lld, end of text %d\n", P4_VERSION, fingerprint,
            (long long)how->vocab, (int)how->end_id);
    if (how->json.opt_field != NULL && how->json.opt_field[0] != '\0') {
        fprintf(to, "field %s\n", how->json.opt_field);
    }
    if (how->json.chat != NULL) {
        fprintf(to, "conversations %s\n", p4_chat_description(how->json.chat));
    }
    for (int64_t i = 0; i < texts->count; i++) {
        TRY(say_text(to, texts->paths[i], texts->draws != NULL ? &texts->draws[i] : NULL));
    }
done:
    if (fclose(to) != 0 && rc == P4_OK) {
        rc = FAULT("out of memory");
    }
    if (rc != P4_OK) {
        free(*key);
        *key = NULL;
    }
    return rc;
}

char *p4_token_cache_path(const char *folder, const char *key)
{
    return p4_format("%s/tokens-%016" PRIx64 ".p4tokens", folder, p4_hash(P4_HASH_START, key, strlen(key)));
}

/* ---- writing ---- */

typedef struct writer {
    p4_atomic_file file;
    header head;
    uLong crc;
    int64_t *counts;
    unsigned char *buffer;
    size_t used;
} writer;

static p4_rc flush(writer *w)
{
    p4_rc rc = p4_atomic_write(&w->file, w->buffer, w->used);
    w->crc = crc32_z(w->crc, w->buffer, w->used);
    w->used = 0;
    return rc;
}

static p4_rc put(writer *w, const void *bytes, size_t count)
{
    for (const char *from = bytes; count > 0;) {
        size_t part = count < BUFFER_BYTES - w->used ? count : BUFFER_BYTES - w->used;
        memcpy(w->buffer + w->used, from, part);
        w->used += part;
        from += part;
        count -= part;
        p4_rc rc = w->used == BUFFER_BYTES ? flush(w) : P4_OK;
        if (rc != P4_OK) {
            return rc;
        }
    }
    return P4_OK;
}

/* Zeros after `bytes` bytes, up to a multiple of ALIGN. */
static p4_rc pad(writer *w, int64_t bytes)
{
    static const char zeros[ALIGN];
    return put(w, zeros, (size_t)(padded(bytes) - bytes));
}

static p4_rc put_ids(void *user, int64_t source, const int32_t *ids, int64_t count)
{
    writer *w = user;
    uint16_t narrow[1024];
    w->counts[source] += count;
    w->head.token_count += count;
    if (w->head.id_bytes == 4) {
        return put(w, ids, (size_t)count * sizeof *ids);
    }
    for (int64_t from = 0; from < count; from += 1024) {
        int64_t part = p4_min_i64(count - from, 1024);
        for (int64_t i = 0; i < part; i++) {
            narrow[i] = (uint16_t)ids[from + i];
        }
        p4_rc rc = put(w, narrow, (size_t)part * sizeof *narrow);
        if (rc != P4_OK) {
            return rc;
        }
    }
    return P4_OK;
}

static p4_rc begin(writer *w, const char *path, const char *key)
{
    p4_rc rc = P4_OK;
    static const header none;
    w->crc = crc32(0, Z_NULL, 0);
    w->buffer = p4_alloc(BUFFER_BYTES, 1);
    w->counts = p4_alloc((size_t)w->head.text_count, sizeof *w->counts);
    TRY(w->buffer != NULL && w->counts != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_atomic_open(&w->file, path));
    TRY(p4_atomic_write(&w->file, &none, sizeof none)); /* a file that ends here is none */
    w->head.key_bytes = (int64_t)strlen(key);
    TRY(put(w, key, (size_t)w->head.key_bytes));
    TRY(pad(w, (int64_t)sizeof w->head + w->head.key_bytes));
done:
    return rc;
}

static p4_rc end(writer *w)
{
    p4_rc rc = P4_OK;
    TRY(pad(w, w->head.token_count * w->head.id_bytes));
    TRY(put(w, w->counts, (size_t)w->head.text_count * sizeof *w->counts));
    TRY(flush(w));
    memcpy(w->head.magic, magic, sizeof magic);
    w->head.version = VERSION;
    w->head.crc = header_crc(w->crc, &w->head);
    if (pwrite(w->file.fd, &w->head, sizeof w->head, 0) != (ssize_t)sizeof w->head) {
        rc = p4_fail_errno(w->file.path, "write");
    }
done:
    return rc;
}

p4_rc p4_token_cache_make(const char *path, const char *key, const p4_texts *texts, const p4_windowing *how,
                          p4_text_counts *counts)
{
    p4_rc rc = P4_OK;
    writer w = {.file = {.fd = -1},
                .head = {.id_bytes = how->vocab <= 65536 ? 2 : 4, .text_count = texts->count}};
    TRY(begin(&w, path, key));
    TRY(p4_tokenize(texts, how, put_ids, &w, counts));
    TRY(end(&w));
done:;
    p4_rc closed = p4_atomic_close(&w.file, rc == P4_OK);
    free(w.counts);
    free(w.buffer);
    return rc != P4_OK ? rc : closed;
}

/* ---- reading ---- */

/* The checksum of the mapping, which leaves none of its pages in this process. */
static uint32_t checksum(const p4_token_cache *cache, const header *h)
{
    uLong crc = crc32(0, Z_NULL, 0);
    for (size_t from = 0; from < cache->mapping_bytes; from += CHECKED_BYTES) {
        size_t bytes =
            cache->mapping_bytes - from < CHECKED_BYTES ? cache->mapping_bytes - from : CHECKED_BYTES;
        size_t skip = from == 0 ? sizeof *h : 0;
        crc = crc32_z(crc, (const Bytef *)cache->mapping + from + skip, bytes - skip);
        (void)madvise((char *)cache->mapping + from, bytes, MADV_DONTNEED); /* advice */
    }
    return header_crc(crc, h);
}

/* What is wrong with the file; NULL: nothing. */
static const char *find_fault(p4_token_cache *cache, const char *key)
{
    const header *h = cache->mapping;
    const int64_t bytes = (int64_t)cache->mapping_bytes;
    if (bytes < (int64_t)sizeof *h || memcmp(h->magic, magic, sizeof magic) != 0) {
        return "it is no token cache, or one that was cut off";
    }
    if (h->version != VERSION) {
        return "it is of another version";
    }
    if ((h->id_bytes != 2 && h->id_bytes != 4) || h->key_bytes < 0 || h->key_bytes > bytes ||
        h->token_count < 0 || h->token_count > bytes || h->text_count < 0 || h->text_count > bytes ||
        bytes != ids_at(h) + padded(h->token_count * h->id_bytes) + 8 * h->text_count) {
        return "its length is not what its header says";
    }
    int64_t tokens = 0;
    for (int64_t i = 0; i < h->text_count; i++) {
        int64_t count = ((const int64_t *)cache->mapping + bytes / 8 - h->text_count)[i];
        if (count < 0 || count > h->token_count - tokens) {
            return "its texts have more tokens than it holds";
        }
        tokens += count;
    }
    if (h->key_bytes != (int64_t)strlen(key) || memcmp(h + 1, key, strlen(key)) != 0) {
        return "it was made with another tokenizer or of other text";
    }
    return checksum(cache, h) != h->crc ? "its checksum is wrong" : NULL;
}

p4_rc p4_token_cache_open(p4_token_cache *cache, const char *path, const char *key, bool *found)
{
    p4_rc rc = P4_OK;
    int fd = -1;
    uint64_t bytes = 0;
    const char *fault = NULL;
    *cache = (p4_token_cache){.ids = NULL};
    *found = p4_file_exists(path);
    if (!*found) {
        return P4_OK;
    }
    TRY(p4_file_open(&fd, &bytes, path));
    if (bytes > 0) {
        TRY(p4_map_file(&cache->mapping, fd, bytes, path));
        cache->mapping_bytes = (size_t)bytes;
    }
    fault = find_fault(cache, key);
    if (fault != NULL) {
        WARN("warning: %s is not used: %s; the text is tokenized again", path, fault);
        *found = false;
        goto done;
    }
    const header *h = cache->mapping;
    cache->id_bytes = (int)h->id_bytes;
    cache->count = h->token_count;
    cache->ids_at = ids_at(h);
    cache->ids = (const char *)cache->mapping + cache->ids_at;
    cache->text_count = h->text_count;
    cache->counts = (const int64_t *)cache->mapping + (int64_t)(bytes / 8) - h->text_count;
done:
    if (fd >= 0) {
        close(fd);
    }
    if (rc != P4_OK || !*found) {
        p4_token_cache_close(cache);
    }
    return rc;
}

void p4_token_cache_close(p4_token_cache *cache)
{
    p4_unmap_file(cache->mapping, cache->mapping_bytes);
    *cache = (p4_token_cache){.ids = NULL};
}
