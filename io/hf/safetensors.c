#include "io/hf/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>

#include "io/file/files.h"
#include "src/leaf/mapped.h"

enum { PREFIX_BYTES = 8, MAX_RANK = sizeof((p4_safetensor *)0)->shape / sizeof(int64_t) };

/* The element types of the format, and their width. The first three are p4_dtype's, in its order. */
enum { FLOAT_TYPES = 3 };
static const struct {
    const char *name;
    uint32_t bits;
} dtypes[] = {
    {"F32", 32},        {"F16", 16},    {"BF16", 16},   {"BOOL", 8},    {"U8", 8},      {"I8", 8},
    {"U16", 16},        {"I16", 16},    {"U32", 32},    {"I32", 32},    {"U64", 64},    {"I64", 64},
    {"F64", 64},        {"C64", 64},    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
};

/* The header is scanned here and not parsed by cJSON: it may have 100 MB, for which a tree would take
 * gigabytes, and its integers have 64 bits. One pass, no recursion, no memory beyond the names and one struct
 * a tensor. */
typedef struct scanner {
    const char *path;
    const uint8_t *first, *at, *end;
    char *text; /* where the next decoded string goes; decoded text is never longer than the header */
} scanner;

static p4_rc P4_PRINTF(2, 3) bad(const scanner *scan, const char *format, ...)
{
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return FAIL("%s: header, byte %td: %s", scan->path, scan->at - scan->first + PREFIX_BYTES, what);
}

static void skip_space(scanner *scan)
{
    while (scan->at < scan->end && memchr(" \t\r\n", *scan->at, 4) != NULL) {
        scan->at++;
    }
}

static bool take(scanner *scan, char wanted)
{
    skip_space(scan);
    bool found = scan->at < scan->end && *scan->at == (uint8_t)wanted;
    scan->at += found;
    return found;
}

static p4_rc expect(scanner *scan, char wanted)
{
    if (take(scan, wanted)) {
        return P4_OK;
    }
    if (scan->at == scan->end) {
        return bad(scan, "the header ends, expected '%c'", wanted);
    }
    return bad(scan, "found '%c', expected '%c'", *scan->at >= ' ' && *scan->at < 127 ? *scan->at : '?',
               wanted);
}

static int hex4(const scanner *scan, const uint8_t *at)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int c = at + i < scan->end ? at[i] : 0;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            return -1;
        }
        value = value << 4 | digit;
    }
    return value;
}

/* What follows a backslash. NUL, which would end the C string, and lone surrogates are refused. */
static p4_rc escape(scanner *scan)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *simple = scan->at < scan->end && *scan->at != '\0' ? strchr(from, *scan->at) : NULL;
    if (simple != NULL) {
        *scan->text++ = to[simple - from];
        scan->at++;
        return P4_OK;
    }
    int code = scan->at < scan->end && *scan->at == 'u' ? hex4(scan, scan->at + 1) : -1;
    int taken = 5;
    if (code >= 0xd800 && code < 0xdc00 && scan->end - scan->at > 7 && scan->at[5] == '\\' &&
        scan->at[6] == 'u') {
        int low = hex4(scan, scan->at + 7);
        code = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00)) : -1;
        taken = 11;
    }
    if (code <= 0 || (code >= 0xd800 && code < 0xe000)) {
        return bad(scan, "bad escape in a string");
    }
    scan->text += utf8proc_encode_char(code, (utf8proc_uint8_t *)scan->text);
    scan->at += taken;
    return P4_OK;
}

/* Decodes a string; *text is NUL-terminated and stays valid as long as the file's names. */
static p4_rc string(scanner *scan, char **text)
{
    p4_rc rc = P4_OK;
    utf8proc_int32_t code;
    TRY(expect(scan, '"'));
    *text = scan->text;
    while (scan->at < scan->end && *scan->at != '"') {
        if (*scan->at == '\\') {
            scan->at++;
            TRY(escape(scan));
            continue;
        }
        utf8proc_ssize_t length = utf8proc_iterate(scan->at, scan->end - scan->at, &code);
        if (length <= 0 || code < 0x20) {
            rc = bad(scan, "not UTF-8 text, or a control character in a string");
            goto done;
        }
        memcpy(scan->text, scan->at, (size_t)length);
        scan->text += length;
        scan->at += length;
    }
    TRY(expect(scan, '"'));
    *scan->text++ = '\0';
done:
    return rc;
}

static p4_rc integer(scanner *scan, uint64_t *value)
{
    skip_space(scan);
    const uint8_t *start = scan->at;
    *value = 0;
    while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9') {
        uint64_t digit = (uint64_t)(*scan->at - '0');
        if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, digit, value) ||
            *value > INT64_MAX) {
            return bad(scan, "a number beyond 63 bits");
        }
        scan->at++;
    }
    if (scan->at == start || (*start == '0' && scan->at - start > 1)) {
        return bad(scan, "expected a whole number of 0 or more");
    }
    return P4_OK;
}

/* "[a, b, ...]" of at most `most` numbers. */
static p4_rc numbers(scanner *scan, uint64_t *values, int most, int *count)
{
    p4_rc rc = P4_OK;
    *count = 0;
    TRY(expect(scan, '['));
    if (take(scan, ']')) {
        return P4_OK;
    }
    do {
        if (*count == most) {
            return bad(scan, "a list of more than %d numbers", most);
        }
        TRY(integer(scan, &values[*count]));
        ++*count;
    } while (take(scan, ','));
    TRY(expect(scan, ']'));
done:
    return rc;
}

static p4_rc set_dtype(scanner *scan, p4_safetensor *tensor, uint32_t *bits, const char *name)
{
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
        if (strcmp(dtypes[d].name, name) == 0) {
            memcpy(tensor->dtype_name, name, strlen(name) + 1);
            tensor->is_float = d < FLOAT_TYPES;
            tensor->dtype = tensor->is_float ? (p4_dtype)d : P4_F32;
            *bits = dtypes[d].bits;
            return P4_OK;
        }
    }
    return bad(scan, "tensor \"%.80s\" has the unknown dtype \"%.32s\"", tensor->name, name);
}

/* shape x dtype must be exactly the bytes of the range. */
static p4_rc set_range(scanner *scan, p4_safetensor *tensor, uint32_t bits, const uint64_t range[2])
{
    uint64_t total = bits;
    bool fits = range[0] <= range[1], empty = false;
    for (int i = 0; i < tensor->rank; i++) {
        empty = empty || tensor->shape[i] == 0;
    }
    for (int i = 0; i < tensor->rank && !empty; i++) {
        fits = fits && p4_mul3(&total, total, (uint64_t)tensor->shape[i], 1);
    }
    total = empty ? 0 : total;
    if (!fits || total % 8 != 0 || total / 8 != range[1] - range[0]) {
        return bad(scan, "tensor \"%.80s\": shape and %s do not make the bytes [%llu, %llu)", tensor->name,
                   tensor->dtype_name, (unsigned long long)range[0], (unsigned long long)range[1]);
    }
    tensor->offset = range[0];
    tensor->bytes = range[1] - range[0];
    return P4_OK;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]} in any order. */
static p4_rc entry(scanner *scan, p4_safetensor *tensor)
{
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    p4_rc rc = P4_OK;
    uint64_t shape[MAX_RANK], range[2];
    uint32_t bits = 0;
    int range_count = 0;
    bool seen[3] = {false};
    TRY(expect(scan, '{'));
    do {
        char *key, *scratch = scan->text;
        size_t k = 0;
        TRY(string(scan, &key));
        while (k < 3 && strcmp(key, keys[k]) != 0) {
            k++;
        }
        if (k == 3 || seen[k]) {
            return bad(scan, "tensor \"%.80s\": %s key \"%.32s\"", tensor->name,
                       k == 3 ? "unknown" : "repeated", key);
        }
        seen[k] = true;
        TRY(expect(scan, ':'));
        if (k == 0) {
            TRY(string(scan, &key));
            TRY(set_dtype(scan, tensor, &bits, key));
        } else if (k == 1) {
            TRY(numbers(scan, shape, MAX_RANK, &tensor->rank));
        } else {
            TRY(numbers(scan, range, 2, &range_count));
        }
        scan->text = scratch;
    } while (take(scan, ','));
    TRY(expect(scan, '}'));
    if (!seen[0] || !seen[1] || range_count != 2) {
        return bad(scan, "tensor \"%.80s\" lacks dtype, shape or two data_offsets", tensor->name);
    }
    for (int i = 0; i < tensor->rank; i++) {
        tensor->shape[i] = (int64_t)shape[i];
    }
    TRY(set_range(scan, tensor, bits, range));
done:
    return rc;
}

/* {"text": "text", ...}: checked and discarded. */
static p4_rc metadata(scanner *scan)
{
    p4_rc rc = P4_OK;
    char *text, *scratch = scan->text;
    TRY(expect(scan, '{'));
    if (take(scan, '}')) {
        return P4_OK;
    }
    do {
        TRY(string(scan, &text));
        TRY(expect(scan, ':'));
        TRY(string(scan, &text));
        scan->text = scratch;
    } while (take(scan, ','));
    TRY(expect(scan, '}'));
done:
    return rc;
}

static p4_rc add_tensor(p4_safetensors *file, int64_t *capacity, p4_safetensor **added)
{
    p4_safetensor *tensors = p4_grow(file->tensors, file->count, capacity, sizeof *tensors);
    if (tensors == NULL) {
        return P4_E_SYSTEM;
    }
    file->tensors = tensors;
    *added = &tensors[file->count++];
    **added = (p4_safetensor){0};
    return P4_OK;
}

static p4_rc header(scanner *scan, p4_safetensors *file)
{
    p4_rc rc = P4_OK;
    int64_t capacity = 0;
    bool has_metadata = false;
    TRY(expect(scan, '{'));
    if (!take(scan, '}')) {
        do {
            char *name;
            p4_safetensor *tensor;
            TRY(string(scan, &name));
            TRY(expect(scan, ':'));
            if (strcmp(name, "__metadata__") == 0) {
                if (has_metadata) {
                    return bad(scan, "__metadata__ appears twice");
                }
                has_metadata = true;
                TRY(metadata(scan));
                continue;
            }
            TRY(add_tensor(file, &capacity, &tensor));
            tensor->name = name;
            TRY(entry(scan, tensor));
        } while (take(scan, ','));
        TRY(expect(scan, '}'));
    }
    skip_space(scan);
    if (scan->at != scan->end) {
        rc = bad(scan, "text after the header's object");
    }
done:
    return rc;
}

static int compare_offsets(const void *a, const void *b)
{
    const p4_safetensor *x = a, *y = b;
    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int compare_tensor_names(const void *a, const void *b)
{
    return strcmp(((const p4_safetensor *)a)->name, ((const p4_safetensor *)b)->name);
}

/* The tensors must tile the data exactly; then they are sorted by name, and no name may come twice. */
static p4_rc check_layout(p4_safetensors *file, const uint8_t *data, uint64_t data_bytes)
{
    p4_rc rc = P4_OK;
    uint64_t at = 0;
    if (file->count > 0) {
        qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, compare_offsets);
    }
    for (int64_t i = 0; i < file->count; i++) {
        p4_safetensor *tensor = &file->tensors[i];
        CHECK(tensor->offset == at,
              "%s: tensor \"%.80s\" begins at data byte %llu, expected %llu (a hole or an overlap)",
              file->path, tensor->name, (unsigned long long)tensor->offset, (unsigned long long)at);
        CHECK(tensor->bytes <= data_bytes - at,
              "%s: tensor \"%.80s\" ends at data byte %llu, the file has %llu: truncated file", file->path,
              tensor->name, (unsigned long long)(at + tensor->bytes), (unsigned long long)data_bytes);
        tensor->data = data + at;
        at += tensor->bytes;
    }
    CHECK(at == data_bytes, "%s: %llu bytes after the last tensor", file->path,
          (unsigned long long)(data_bytes - at));
    if (file->count > 0) {
        qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, compare_tensor_names);
    }
    for (int64_t i = 1; i < file->count; i++) {
        CHECK(strcmp(file->tensors[i - 1].name, file->tensors[i].name) != 0,
              "%s: tensor \"%.80s\" appears twice", file->path, file->tensors[i].name);
    }
done:
    return rc;
}

static p4_rc parse(p4_safetensors *file, const uint8_t *bytes, uint64_t byte_count)
{
    p4_rc rc = P4_OK;
    uint64_t header_bytes = 0;
    CHECK(byte_count >= PREFIX_BYTES, "%s: %llu bytes, too short for a safetensors file", file->path,
          (unsigned long long)byte_count);
    for (int i = 0; i < PREFIX_BYTES; i++) {
        header_bytes |= (uint64_t)bytes[i] << 8 * i;
    }
    CHECK(header_bytes <= P4_SAFETENSORS_HEADER_LIMIT, "%s: header length %llu, expected at most %d",
          file->path, (unsigned long long)header_bytes, P4_SAFETENSORS_HEADER_LIMIT);
    CHECK(header_bytes <= byte_count - PREFIX_BYTES,
          "%s: header length %llu, but the file has %llu bytes: truncated file", file->path,
          (unsigned long long)header_bytes, (unsigned long long)byte_count);
    CHECK(header_bytes > 0 && bytes[PREFIX_BYTES] == '{', "%s: the header does not begin with '{'",
          file->path);
    file->names = p4_alloc((size_t)header_bytes + 1, 1);
    if (file->names == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    const uint8_t *first = bytes + PREFIX_BYTES;
    scanner scan = {file->path, first, first, first + header_bytes, file->names};
    TRY(header(&scan, file));
    TRY(check_layout(file, scan.end, byte_count - PREFIX_BYTES - header_bytes));
done:
    return rc;
}

p4_rc p4_safetensors_parse(p4_safetensors *file, const char *path, const void *bytes, uint64_t byte_count)
{
    *file = (p4_safetensors){.path = p4_strdup(path)};
    p4_rc rc = file->path == NULL ? P4_E_SYSTEM : parse(file, bytes, byte_count);
    if (rc != P4_OK) {
        p4_safetensors_close(file);
    }
    return rc;
}

p4_rc p4_safetensors_open(p4_safetensors *file, const char *path)
{
    p4_rc rc = P4_OK;
    int fd = -1;
    uint64_t bytes;
    *file = (p4_safetensors){.path = p4_strdup(path)};
    if (file->path == NULL) {
        return P4_E_SYSTEM;
    }
    TRY(p4_file_open(&fd, &bytes, path));
    CHECK(bytes >= PREFIX_BYTES, "%s: %llu bytes, too short for a safetensors file", path,
          (unsigned long long)bytes);
    TRY(p4_map_file(&file->mapping, fd, bytes, path));
    file->mapping_bytes = bytes;
    TRY(parse(file, file->mapping, bytes));
done:
    if (fd >= 0) {
        close(fd);
    }
    if (rc != P4_OK) {
        p4_safetensors_close(file);
    }
    return rc;
}

void p4_safetensors_close(p4_safetensors *file)
{
    p4_unmap_file(file->mapping, file->mapping_bytes);
    free(file->path);
    free(file->tensors);
    free(file->names);
    *file = (p4_safetensors){0};
}

const p4_safetensor *p4_safetensors_find(const p4_safetensors *file, const char *name)
{
    p4_safetensor key = {.name = name};
    return file->count == 0
               ? NULL
               : bsearch(&key, file->tensors, (size_t)file->count, sizeof key, compare_tensor_names);
}
