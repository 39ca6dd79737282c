/* Token files: llm.c's (a header of 256 int32, then ids) and nanoGPT's and llama2.c's (uint16 ids and nothing
 * else). */
#include "io/file/files.h"
#include "io/text/dataset_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEADER_BYTES = 1024, CHUNK_IDS = 1 << 14, ENOUGH_IDS = 1 << 18 };

typedef struct token_form {
    const char *name;
    uint32_t magic, version;
    int id_bytes;
} token_form;

static const token_form llmc_forms[] = {{"llm.c GPT-2", 20240520, 1, 2}, {"llm.c Llama-3", 20240801, 7, 4}};
static const token_form raw_form = {"raw uint16", 0, 0, 2};
static const uint32_t llmc_choices_magic = 20240522;

static uint32_t little_u32(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Reads exactly `bytes`. */
static p4_rc read_exactly(int fd, const char *path, unsigned char *to, size_t bytes)
{
    while (bytes > 0) {
        ssize_t got = read(fd, to, bytes);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return FAIL("%s: cannot be read: %s", path,
                        got == 0 ? "it became shorter meanwhile" : strerror(errno));
        }
        to += got;
        bytes -= (size_t)got;
    }
    return P4_OK;
}

/* An llm.c file holds exactly the tokens that its header counts. */
static p4_rc check_header(const char *path, const token_form *form, int fd, int64_t file_bytes,
                          int64_t *count)
{
    p4_rc rc = P4_OK;
    unsigned char header[HEADER_BYTES];
    CHECK(file_bytes >= HEADER_BYTES, "%s: %lld bytes are too few for the %d-byte header of a %s token file",
          path, (long long)file_bytes, HEADER_BYTES, form->name);
    TRY(read_exactly(fd, path, header, sizeof header));
    uint32_t version = little_u32(header + 4);
    CHECK(version == form->version, "%s: %s token file of version %u, expected version %u", path, form->name,
          version, form->version);
    *count = little_u32(header + 8);
    int64_t expected = HEADER_BYTES + *count * form->id_bytes;
    CHECK(file_bytes == expected,
          "%s: the header counts %lld tokens of %d bytes, so the file must have %lld bytes; it has %lld",
          path, (long long)*count, form->id_bytes, (long long)expected, (long long)file_bytes);
done:
    return rc;
}

static p4_rc check_raw(const p4_filling *filling, const char *path, int64_t file_bytes, int64_t *count)
{
    p4_rc rc = P4_OK;
    CHECK(file_bytes % 2 == 0, "%s: %lld bytes, an odd number: expected uint16 token ids", path,
          (long long)file_bytes);
    CHECK(filling->vocab <= 65536,
          "%s: uint16 token ids cannot come from this model's tokenizer: its vocabulary holds %lld ids", path,
          (long long)filling->vocab);
    *count = file_bytes / 2;
done:
    return rc;
}

/* Finds the form by the first four bytes, checks all sizes and leaves `fd` at the first id. */
static p4_rc find_form(const p4_filling *filling, const char *path, int fd, int64_t file_bytes,
                       const token_form **form, int64_t *count)
{
    p4_rc rc = P4_OK;
    unsigned char first[4] = {0};
    TRY(read_exactly(fd, path, first, file_bytes >= 4 ? 4 : 0));
    CHECK(lseek(fd, 0, SEEK_SET) == 0, "%s: cannot be rewound: %s", path, strerror(errno));
    uint32_t magic = little_u32(first);
    CHECK(magic != llmc_choices_magic,
          "%s: is an llm.c multiple-choice file; expected tokens of running text (magic %u or %u, or raw "
          "uint16)",
          path, llmc_forms[0].magic, llmc_forms[1].magic);
    *form = &raw_form;
    for (size_t i = 0; i < sizeof llmc_forms / sizeof llmc_forms[0]; i++) {
        *form = magic == llmc_forms[i].magic ? &llmc_forms[i] : *form;
    }
    TRY(*form == &raw_form ? check_raw(filling, path, file_bytes, count)
                           : check_header(path, *form, fd, file_bytes, count));
done:
    return rc;
}

/* Ids of either width, little-endian in the file; one beyond int32 becomes -1, which no vocabulary holds. */
static void widen(int32_t *ids, const unsigned char *bytes, int64_t count, int id_bytes)
{
    for (int64_t i = 0; i < count; i++) {
        const unsigned char *at = bytes + i * id_bytes;
        uint32_t id = id_bytes == 2 ? (uint32_t)at[0] | (uint32_t)at[1] << 8 : little_u32(at);
        ids[i] = id <= INT32_MAX ? (int32_t)id : -1;
    }
}

static int64_t count_id(const int32_t *ids, int64_t count, int32_t id)
{
    int64_t found = 0;
    for (int64_t i = 0; i < count; i++) {
        found += ids[i] == id;
    }
    return found;
}

p4_rc p4_token_file_read(p4_filling *filling, const char *path)
{
    p4_rc rc = P4_OK;
    int32_t *ids = p4_alloc(CHUNK_IDS, sizeof *ids);
    unsigned char *bytes = p4_alloc(CHUNK_IDS, sizeof(uint32_t));
    int fd = -1;
    uint64_t file_bytes;
    const token_form *form = NULL;
    int64_t count = 0, ends = 0, read = 0;
    if (ids == NULL || bytes == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    TRY(p4_file_open(&fd, &file_bytes, path));
    TRY(find_form(filling, path, fd, (int64_t)file_bytes, &form, &count));
    while (read < count && !p4_filling_full(filling)) {
        int64_t part = p4_min_i64(count - read, CHUNK_IDS), bad;
        part = p4_min_i64(part, filling->limit_ids - filling->used);
        TRY(read_exactly(fd, path, bytes, (size_t)(part * form->id_bytes)));
        widen(ids, bytes, part, form->id_bytes);
        TRY(p4_filling_add(filling, ids, part, &bad));
        CHECK(bad < 0, "%s: token %lld (%s ids) is %u; the model's vocabulary holds 0 to %lld", path,
              (long long)(read + bad), form->name,
              form->id_bytes == 2 ? (unsigned)ids[bad] : little_u32(bytes + bad * form->id_bytes),
              (long long)filling->vocab - 1);
        ends += count_id(ids, part, filling->end_id);
        read += part;
    }
    filling->windows->documents += ends;
    if (filling->end_id >= 0 && ends == 0 && read >= ENOUGH_IDS) {
        WARN("%s: no end-of-text id %d among %lld tokens: was it made with this model's tokenizer?", path,
             (int)filling->end_id, (long long)read);
    }
done:
    if (fd >= 0) {
        close(fd);
    }
    free(ids);
    free(bytes);
    return rc;
}
