#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/hf/safetensors.h"
#include "io/json/write.h"

enum { MAX_RANK = sizeof((p4_safetensors_entry *)0)->shape / sizeof(int64_t) };

struct p4_safetensors_writer {
    p4_atomic_file file;
    char *path;
    uint64_t written, total; /* bytes of tensor data */
};

static cJSON *whole_number(int64_t value)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRId64, value); /* exact: a double holds 53 bits */
    return cJSON_CreateRaw(digits);
}

static uint64_t element_bytes(const p4_safetensors_entry *entry)
{
    return entry->whole != NULL ? strtoull(entry->whole + 1, NULL, 10) / 8
                                : (uint64_t)p4_dtype_bytes(entry->dtype);
}

/* One entry of the header; *at moves on by the tensor's bytes. *complete: false when memory runs out. */
static p4_rc put_entry(cJSON *header, const char *path, const p4_safetensors_entry *entry, uint64_t *at,
                       bool *complete)
{
    uint64_t bytes = element_bytes(entry), begin = *at;
    bool fits = bytes > 0 && entry->rank >= 0 && entry->rank <= MAX_RANK;
    cJSON *object = cJSON_AddObjectToObject(header, entry->name);
    const char *type = entry->whole != NULL ? entry->whole : p4_dtype_name(entry->dtype);
    bool ok = cJSON_AddStringToObject(object, "dtype", type) != NULL;
    cJSON *shape = cJSON_AddArrayToObject(object, "shape");
    for (int i = 0; fits && i < entry->rank; i++) {
        fits = entry->shape[i] >= 0 && p4_mul3(&bytes, bytes, (uint64_t)entry->shape[i], 1);
        ok = ok && cJSON_AddItemToArray(shape, whole_number(entry->shape[i]));
    }
    if (!fits || __builtin_add_overflow(begin, bytes, at) || *at > INT64_MAX) {
        return FAULT("%s: tensor \"%s\" cannot be written: shape or dtype out of range", path, entry->name);
    }
    cJSON *offsets = cJSON_AddArrayToObject(object, "data_offsets");
    *complete = *complete && ok && cJSON_AddItemToArray(offsets, whole_number((int64_t)begin)) &&
                cJSON_AddItemToArray(offsets, whole_number((int64_t)*at));
    return P4_OK;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static p4_rc refuse_duplicates(const char *path, const p4_safetensors_entry *entries, int64_t count)
{
    p4_rc rc = P4_OK;
    const char **names = p4_alloc((size_t)count, sizeof *names);
    if (names == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < count; i++) {
        names[i] = entries[i].name;
    }
    qsort(names, (size_t)count, sizeof *names, compare_strings);
    for (int64_t i = 1; i < count && rc == P4_OK; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            rc = FAULT("%s: tensor \"%s\" is declared twice", path, names[i]);
        }
    }
    free(names);
    return rc;
}

/* The JSON as one heap line. Tools that read PyTorch models expect the format in the metadata. */
static p4_rc make_header(p4_safetensors_writer *writer, char **text, const p4_safetensors_entry *entries,
                         int64_t count)
{
    p4_rc rc = P4_OK;
    cJSON *header = cJSON_CreateObject();
    bool complete =
        cJSON_AddStringToObject(cJSON_AddObjectToObject(header, "__metadata__"), "format", "pt") != NULL;
    for (int64_t i = 0; i < count && rc == P4_OK; i++) {
        rc = put_entry(header, writer->path, &entries[i], &writer->total, &complete);
    }
    *text = p4_json_print(header, complete && rc == P4_OK, false);
    return rc == P4_OK && *text == NULL ? P4_E_SYSTEM : rc;
}

/* The header is padded with spaces so that the data begins at a multiple of 8. */
static p4_rc write_header(p4_safetensors_writer *writer, const p4_safetensors_entry *entries, int64_t count)
{
    p4_rc rc = P4_OK;
    char *text = NULL;
    uint8_t prefix[8];
    TRY(make_header(writer, &text, entries, count));
    size_t text_bytes = strlen(text) - 1; /* without the newline */
    size_t bytes = (text_bytes + 7) / 8 * 8;
    CHECK(bytes <= P4_SAFETENSORS_HEADER_LIMIT, "%s: a header of %zu bytes, at most %d are allowed",
          writer->path, bytes, P4_SAFETENSORS_HEADER_LIMIT);
    for (int i = 0; i < 8; i++) {
        prefix[i] = (uint8_t)((uint64_t)bytes >> 8 * i);
    }
    TRY(p4_atomic_write(&writer->file, prefix, sizeof prefix));
    TRY(p4_atomic_write(&writer->file, text, text_bytes));
    TRY(p4_atomic_write(&writer->file, "        ", bytes - text_bytes));
done:
    free(text);
    return rc;
}

p4_rc p4_safetensors_writer_open(p4_safetensors_writer **writer, const char *path,
                                 const p4_safetensors_entry *entries, int64_t count)
{
    p4_rc rc = P4_OK;
    p4_safetensors_writer *w = p4_alloc(1, sizeof *w);
    *writer = NULL;
    if (w == NULL) {
        return P4_E_SYSTEM;
    }
    w->file.fd = -1;
    w->path = p4_strdup(path);
    if (w->path == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    TRY(refuse_duplicates(path, entries, count));
    TRY(p4_atomic_open(&w->file, path));
    TRY(write_header(w, entries, count));
    *writer = w;
done:
    if (rc != P4_OK) {
        p4_safetensors_writer_close(w, false);
    }
    return rc;
}

p4_rc p4_safetensors_writer_append(p4_safetensors_writer *writer, const void *bytes, uint64_t byte_count)
{
    if (byte_count > writer->total - writer->written) {
        return FAULT("%s: %llu bytes more than were declared", writer->path,
                     (unsigned long long)(byte_count - (writer->total - writer->written)));
    }
    writer->written += byte_count;
    return p4_atomic_write(&writer->file, bytes, (size_t)byte_count);
}

void p4_safetensors_writer_begin_sync(p4_safetensors_writer *writer)
{
    p4_atomic_begin_sync(&writer->file);
}

p4_rc p4_safetensors_writer_close(p4_safetensors_writer *writer, bool ok)
{
    p4_rc rc = P4_OK;
    if (writer == NULL) {
        return P4_OK;
    }
    if (ok && writer->written != writer->total) {
        rc = FAULT("%s: %llu of %llu bytes were written", writer->path, (unsigned long long)writer->written,
                   (unsigned long long)writer->total);
    }
    p4_rc closed = p4_atomic_close(&writer->file, ok && rc == P4_OK);
    free(writer->path);
    free(writer);
    return rc != P4_OK ? rc : closed;
}
