#include "io/text/token_file.h"

#include "io/file/files.h"
#include "src/leaf/mapped.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEADER_BYTES = 1024, ENOUGH_IDS = 1 << 18, CHECKED_IDS = 1 << 22 /* at a time */ };

typedef struct token_form {
    const char *name;
    uint32_t magic, version;
    int id_bytes;
} token_form;

static const token_form llmc_forms[] = {{"llm.c GPT-2", 20240520, 1, 2}, {"llm.c Llama-3", 20240801, 7, 4}};
static const token_form raw_form = {"raw uint16", 0, 0, 2};
static const uint32_t llmc_choices_magic = 20240522;

/* Number i of a file that begins with little-endian int32s. */
static uint32_t header_u32(const void *header, size_t i)
{
    uint32_t value;
    memcpy(&value, (const char *)header + 4 * i, sizeof value);
    return value;
}

/* An llm.c file holds exactly the tokens that its header counts. */
static p4_rc read_header(p4_token_file *file, const token_form *form)
{
    p4_rc rc = P4_OK;
    const int64_t bytes = (int64_t)file->mapping_bytes;
    CHECK(bytes >= HEADER_BYTES, "%s: %lld bytes are too few for the %d-byte header of a %s token file",
          file->path, (long long)bytes, HEADER_BYTES, form->name);
    uint32_t version = header_u32(file->mapping, 1);
    CHECK(version == form->version, "%s: %s token file of version %u, expected version %u", file->path,
          form->name, version, form->version);
    file->count = header_u32(file->mapping, 2);
    int64_t expected = HEADER_BYTES + file->count * form->id_bytes;
    CHECK(bytes == expected,
          "%s: the header counts %lld tokens of %d bytes, so the file must have %lld bytes; it has %lld",
          file->path, (long long)file->count, form->id_bytes, (long long)expected, (long long)bytes);
    file->ids = (const char *)file->mapping + HEADER_BYTES;
done:
    return rc;
}

static p4_rc read_raw(p4_token_file *file, int64_t vocab)
{
    p4_rc rc = P4_OK;
    CHECK(file->mapping_bytes % 2 == 0, "%s: %lld bytes, an odd number: expected uint16 token ids",
          file->path, (long long)file->mapping_bytes);
    CHECK(vocab <= 65536,
          "%s: uint16 token ids cannot come from this model's tokenizer: its vocabulary holds %lld ids",
          file->path, (long long)vocab);
    file->count = (int64_t)file->mapping_bytes / 2;
    file->ids = file->mapping;
done:
    return rc;
}

static p4_rc find_form(p4_token_file *file, int64_t vocab)
{
    p4_rc rc = P4_OK;
    uint32_t magic = file->mapping_bytes >= 4 ? header_u32(file->mapping, 0) : 0;
    const token_form *form = &raw_form;
    CHECK(magic != llmc_choices_magic,
          "%s: is an llm.c multiple-choice file; expected tokens of running text (magic %u or %u, or raw "
          "uint16)",
          file->path, llmc_forms[0].magic, llmc_forms[1].magic);
    for (size_t i = 0; i < sizeof llmc_forms / sizeof llmc_forms[0]; i++) {
        form = magic == llmc_forms[i].magic ? &llmc_forms[i] : form;
    }
    file->form = form->name;
    file->id_bytes = form->id_bytes;
    TRY(form == &raw_form ? read_raw(file, vocab) : read_header(file, form));
done:
    return rc;
}

/* Maps the whole file. */
static p4_rc map(p4_token_file *file, const char *path)
{
    p4_rc rc = P4_OK;
    int fd = -1;
    uint64_t bytes;
    *file = (p4_token_file){.path = p4_strdup(path)};
    TRY(file->path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_file_open(&fd, &bytes, path));
    if (bytes > 0) { /* an empty file cannot be mapped */
        TRY(p4_map_file(&file->mapping, fd, bytes, path));
        file->mapping_bytes = (size_t)bytes;
    }
done:
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

p4_rc p4_token_file_open(p4_token_file *file, const char *path, int64_t vocab)
{
    p4_rc rc = P4_OK;
    TRY(map(file, path));
    TRY(find_form(file, vocab));
done:
    if (rc != P4_OK) {
        p4_token_file_close(file);
    }
    return rc;
}

p4_rc p4_token_file_map(p4_token_file *file, const char *path, const char *form, int64_t ids_at, int id_bytes,
                        int64_t count)
{
    p4_rc rc = P4_OK;
    TRY(map(file, path));
    CHECK((int64_t)file->mapping_bytes >= ids_at + count * id_bytes,
          "%s: has %lld bytes, expected %lld tokens of %d bytes from byte %lld on", path,
          (long long)file->mapping_bytes, (long long)count, id_bytes, (long long)ids_at);
    file->form = form;
    file->ids = (const char *)file->mapping + ids_at;
    file->count = count;
    file->id_bytes = id_bytes;
done:
    if (rc != P4_OK) {
        p4_token_file_close(file);
    }
    return rc;
}

static uint32_t id_at(const p4_token_file *file, int64_t at)
{
    return file->id_bytes == 2 ? ((const uint16_t *)file->ids)[at] : ((const uint32_t *)file->ids)[at];
}

p4_rc p4_token_file_refuse_id(const p4_token_file *file, int64_t at, int64_t vocab)
{
    return FAIL("%s: token %lld (%s ids) is %u; the model's vocabulary holds 0 to %lld", file->path,
                (long long)at, file->form, id_at(file, at), (long long)vocab - 1);
}

void p4_token_file_warn_of_ends(const p4_token_file *file, int32_t end_id, int64_t ends, int64_t count)
{
    if (end_id >= 0 && ends == 0 && count >= ENOUGH_IDS) {
        WARN("warning: %s: no end-of-text id %d among %lld tokens: was it made with this model's tokenizer?",
             file->path, (int)end_id, (long long)count);
    }
}

p4_rc p4_token_file_check(const p4_token_file *file, int64_t first, int64_t count, int64_t vocab,
                          int32_t end_id, int64_t *ends)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int64_t from = first, end = first + count; from < end; from += CHECKED_IDS) {
        int64_t to = p4_min_i64(end, from + CHECKED_IDS);
        for (int64_t i = from; i < to; i++) {
            uint32_t id = id_at(file, i);
            if (id >= vocab) {
                return p4_token_file_refuse_id(file, i, vocab);
            }
            *ends += (int64_t)id == end_id;
        }
        uintptr_t low = (uintptr_t)file->ids + (uintptr_t)(from * file->id_bytes);
        uintptr_t high = (uintptr_t)file->ids + (uintptr_t)(to * file->id_bytes);
        low -= low % page;
        (void)madvise((void *)low, high - low, MADV_DONTNEED); /* advice: the page cache keeps them */
    }
    return P4_OK;
}

void p4_token_file_close(p4_token_file *file)
{
    p4_unmap_file(file->mapping, file->mapping_bytes);
    free(file->path);
    *file = (p4_token_file){.path = NULL};
}
