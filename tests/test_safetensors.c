/* The safetensors reader against hostile headers, and the writer read back. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/hf/safetensors.h"

/* "length | header | data_bytes zeros" on the heap, exactly as long as it says so that ASan sees a read
 * beyond. */
static uint8_t *file_of(const char *header, uint64_t length, uint64_t data_bytes, uint64_t *byte_count)
{
    size_t header_bytes = strlen(header);
    *byte_count = 8 + header_bytes + data_bytes;
    uint8_t *bytes = calloc(*byte_count, 1);
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(length >> 8 * i);
    }
    memcpy(bytes + 8, header, header_bytes);
    return bytes;
}

/* accepted: NULL; else what the message must hold. */
static void check_header(const char *header, uint64_t length, uint64_t data_bytes, const char *refusal)
{
    p4_safetensors file;
    uint64_t byte_count;
    uint8_t *bytes = file_of(header, length, data_bytes, &byte_count);
    p4_error_clear();
    p4_rc rc = p4_safetensors_parse(&file, "case", bytes, byte_count);
    if (refusal == NULL) {
        EXPECT(rc == P4_OK, "%s: %s", header, p4_last_error());
        p4_safetensors_close(&file);
    } else {
        EXPECT(rc == P4_E_INPUT, "%s: accepted", header);
        EXPECT(strstr(p4_last_error(), refusal) != NULL && strncmp(p4_last_error(), "case: ", 6) == 0,
               "%s: message \"%s\" lacks \"%s\"", header, p4_last_error(), refusal);
    }
    p4_error_clear();
    free(bytes);
}

#define T(name, dtype, shape, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #from "," #to "]}"

static const struct {
    const char *header;
    uint64_t data_bytes;
    const char *refusal;
} cases[] = {
    {"{}", 0, NULL},
    {"{}   ", 0, NULL},
    {"{\"__metadata__\":{\"format\":\"pt\",\"a\":\"\"}}", 0, NULL},
    {"{" T("a", "F32", "2,3", 0, 24) "}", 24, NULL},
    {"{ " T("b", "F16", "", 4, 6) " , " T("a", "BF16", "2", 0, 4) "\n}", 6, NULL},
    {"{" T("a", "F32", "0,7", 0, 0) "," T("b", "U8", "3", 0, 3) "," T("c", "F64", "5,0", 3, 3) "}", 3, NULL},
    {"{" T("a", "F4", "4", 0, 2) "," T("b", "F6_E2M3", "4", 2, 5) "," T("c", "BOOL", "", 5, 6) "}", 6, NULL},
    {"{" T("a", "F32", "9223372036854775807,0", 0, 0) "}", 0, NULL},
    {"{" T("\\u00e9\\ud83d\\ude00\\n\\\"", "U8", "1", 0, 1) "}", 1, NULL},
    {"{\"a\":{\"data_offsets\":[0,1],\"shape\":[1],\"dtype\":\"I8\"}}", 1, NULL},
    /* layout */
    {"{" T("a", "F32", "1", 4, 8) "}", 8, "a hole or an overlap"},
    {"{" T("a", "U8", "4", 0, 4) "," T("b", "U8", "4", 5, 9) "}", 9, "a hole or an overlap"},
    {"{" T("a", "U8", "4", 0, 4) "," T("b", "U8", "4", 2, 6) "}", 6, "a hole or an overlap"},
    {"{" T("a", "U8", "4", 0, 4) "," T("b", "U8", "4", 0, 4) "}", 4, "a hole or an overlap"},
    {"{" T("a", "F32", "2,3", 0, 24) "}", 25, "1 bytes after the last tensor"},
    {"{" T("a", "F32", "2,3", 0, 24) "}", 23, "truncated"},
    {"{}", 1, "1 bytes after the last tensor"},
    {"{" T("a", "U8", "1152921504606846975", 0, 1152921504606846975) "}", 8, "truncated"},
    {"{" T("a", "U8", "1", 0, 1) "," T("a", "U8", "1", 1, 2) "}", 2, "\"a\" appears twice"},
    {"{" T("a", "U8", "1", 0, 1) "," T("\\u0061", "U8", "1", 1, 2) "}", 2, "\"a\" appears twice"},
    /* shape against bytes */
    {"{" T("a", "F32", "2,3", 0, 20) "}", 20, "do not make the bytes"},
    {"{" T("a", "F32", "2", 8, 0) "}", 8, "do not make the bytes"},
    {"{" T("a", "F4", "3", 0, 1) "}", 1, "do not make the bytes"},
    {"{" T("a", "F32", "4611686018427387904,4", 0, 0) "}", 0, "do not make the bytes"},
    {"{" T("a", "U8", "9223372036854775807,2", 0, 0) "}", 0, "do not make the bytes"},
    {"{" T("a", "F32", "9223372036854775808", 0, 0) "}", 0, "beyond 63 bits"},
    {"{" T("a", "F32", "99999999999999999999999", 0, 0) "}", 0, "beyond 63 bits"},
    {"{" T("a", "F32", "-1", 0, 0) "}", 0, "whole number"},
    {"{" T("a", "F32", "1.0", 0, 4) "}", 4, "found '.'"},
    {"{" T("a", "F32", "01", 0, 4) "}", 4, "whole number"},
    {"{" T("a", "F32", "1e0", 0, 4) "}", 4, "found 'e'"},
    {"{" T("a", "F32", "1,1,1,1,1,1,1,1,1", 0, 4) "}", 4, "more than 8"},
    /* entries */
    {"{" T("a", "F33", "1", 0, 4) "}", 4, "unknown dtype \"F33\""},
    {"{" T("a", "f32", "1", 0, 4) "}", 4, "unknown dtype"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "lacks"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "lacks"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "lacks"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "lacks"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "more than 2"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "repeated key \"shape\""},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"x\":1,\"data_offsets\":[0,4]}}", 4, "unknown key \"x\""},
    {"{\"a\":{}}", 0, "expected '\"'"},
    {"{\"a\":[]}", 0, "expected '{'"},
    {"{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "expected '\"'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "expected '['"},
    /* metadata */
    {"{\"__metadata__\":{\"a\":1}}", 0, "expected '\"'"},
    {"{\"__metadata__\":[]}", 0, "expected '{'"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "appears twice"},
    /* text */
    {"[]", 0, "begin with '{'"},
    {" {}", 0, "begin with '{'"},
    {"{", 0, "the header ends"},
    {"{\"a", 0, "the header ends"},
    {"{\"a\\", 0, "bad escape"},
    {"{\"a\\u00", 0, "bad escape"},
    {"{\"a\\u0000\":{}}", 0, "bad escape"},
    {"{\"a\\ud800\":{}}", 0, "bad escape"},
    {"{\"a\\ud800\\u0041\":{}}", 0, "bad escape"},
    {"{\"a\\x\":{}}", 0, "bad escape"},
    {"{\"a\xff\":{}}", 0, "not UTF-8"},
    {"{\"a\xc0\x80\":{}}", 0, "not UTF-8"},
    {"{\"a\xed\xa0\x80\":{}}", 0, "not UTF-8"},
    {"{\"a\xe2\x82", 0, "not UTF-8"},
    {"{\"a\tb\":{}}", 0, "control character"},
    {"{},", 0, "text after"},
    {"{}{}", 0, "text after"},
    {"{" T("a", "U8", "1", 0, 1) ",}", 1, "expected '\"'"},
    {"{" T("a", "U8", "1,", 0, 1) "}", 1, "whole number"},
    {"{" T("a", "U8", "1", 0, 1) " " T("b", "U8", "1", 1, 2) "}", 2, "expected '}'"},
};

static void test_headers(void)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_header(cases[i].header, strlen(cases[i].header), cases[i].data_bytes, cases[i].refusal);
    }
    check_header("{}", 3, 0, "truncated");
    check_header("{}", 0, 0, "begin with '{'");
    check_header("{}", 100000001, 0, "at most 100000000");
    check_header("{}", UINT64_MAX, 0, "at most 100000000");
    check_header("{}", 1, 0, "the header ends");
    p4_safetensors file;
    EXPECT_REFUSED(p4_safetensors_parse(&file, "short", "1234567", 7), "too short");
    char *deep = malloc(2000001);
    memset(deep, '[', 2000000);
    deep[2000000] = '\0';
    memcpy(deep, "{\"a\":", 5);
    check_header(deep, 2000000, 0, "expected '{'");
    free(deep);
}

static void test_values(void)
{
    static const char header[] = "{" T("m", "BF16", "2,1", 0, 4) "," T("\\u00e9", "F32", "", 8, 12) "," T(
        "mask", "BOOL", "1,1,2,2", 4, 8) "}";
    uint64_t byte_count;
    uint8_t *bytes = file_of(header, strlen(header), 12, &byte_count);
    p4_safetensors file;
    EXPECT_OK(p4_safetensors_parse(&file, "values", bytes, byte_count));
    EXPECT(file.count == 3, "%lld tensors", (long long)file.count);
    const p4_safetensor *m = p4_safetensors_find(&file, "m"), *mask = p4_safetensors_find(&file, "mask");
    const p4_safetensor *e = p4_safetensors_find(&file, "\xc3\xa9");
    EXPECT(m != NULL && m->is_float && m->dtype == P4_BF16 && m->rank == 2 && m->shape[0] == 2 &&
               m->shape[1] == 1 && m->bytes == 4 && m->data == bytes + byte_count - 12,
           "m");
    EXPECT(mask != NULL && !mask->is_float && mask->rank == 4 && strcmp(mask->dtype_name, "BOOL") == 0,
           "mask");
    EXPECT(e != NULL && e->rank == 0 && e->data == bytes + byte_count - 4 && e->offset == 8,
           "escaped name, rank 0");
    EXPECT(p4_safetensors_find(&file, "x") == NULL && p4_safetensors_find(&file, "") == NULL, "absent names");
    p4_safetensors_close(&file);
    free(bytes);
}

static void test_open(const char *directory)
{
    p4_safetensors file;
    char path[256];
    EXPECT_REFUSED(p4_safetensors_open(&file, directory), "not a regular file");
    snprintf(path, sizeof path, "%s/absent", directory);
    EXPECT_REFUSED(p4_safetensors_open(&file, path), "cannot open: No such file");
    EXPECT_OK(p4_atomic_write_all(path, "", 0));
    EXPECT_REFUSED(p4_safetensors_open(&file, path), "too short");
    snprintf(path, sizeof path, "%s/pipe", directory);
    EXPECT(mkfifo(path, 0600) == 0, "mkfifo");
    EXPECT_REFUSED(p4_safetensors_open(&file, path), "not a regular file");
}

static const p4_safetensors_entry entries[] = {
    {.name = "b \"quoted\\\" \x01", .dtype = P4_F32, .rank = 2, .shape = {2, 3}},
    {.name = "a", .dtype = P4_F16, .rank = 1, .shape = {5}},
    {.name = "scalar", .dtype = P4_BF16, .rank = 0},
    {.name = "none", .dtype = P4_F32, .rank = 3, .shape = {4, 0, 2}},
};
enum { ENTRIES = sizeof entries / sizeof entries[0], DATA_BYTES = 24 + 10 + 2 };

static void test_writer(const char *directory)
{
    char path[256], temporary[300];
    uint8_t data[DATA_BYTES];
    p4_safetensors_writer *writer;
    p4_safetensors file;
    snprintf(path, sizeof path, "%s/written.safetensors", directory);
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    for (int i = 0; i < DATA_BYTES; i++) {
        data[i] = (uint8_t)(i * 7);
    }
    EXPECT_OK(p4_safetensors_writer_open(&writer, path, entries, ENTRIES));
    EXPECT(access(path, F_OK) != 0, "the file appeared before it was complete");
    EXPECT_OK(p4_safetensors_writer_append(writer, data, 1));
    EXPECT_OK(p4_safetensors_writer_append(writer, data + 1, DATA_BYTES - 1));
    EXPECT_OK(p4_safetensors_writer_close(writer, true));
    EXPECT_OK(p4_safetensors_open(&file, path));
    EXPECT(file.count == ENTRIES, "%lld tensors", (long long)file.count);
    EXPECT((uintptr_t)p4_safetensors_find(&file, entries[0].name)->data % 8 == 0, "data begins unaligned");
    for (int e = 0, at = 0; e < ENTRIES; e++) {
        const p4_safetensor *tensor = p4_safetensors_find(&file, entries[e].name);
        EXPECT(tensor != NULL && tensor->dtype == entries[e].dtype && tensor->rank == entries[e].rank &&
                   memcmp(tensor->shape, entries[e].shape, (size_t)tensor->rank * sizeof(int64_t)) == 0 &&
                   memcmp(tensor->data, data + at, tensor->bytes) == 0,
               "%s", entries[e].name);
        at += (int)tensor->bytes;
    }
    p4_safetensors_close(&file);

    /* what is not complete leaves the old file alone and nothing behind */
    EXPECT_OK(p4_safetensors_writer_open(&writer, path, entries, 1));
    EXPECT_REFUSED(p4_safetensors_writer_append(writer, data, 25), "1 bytes more");
    EXPECT_OK(p4_safetensors_writer_append(writer, data, 23));
    EXPECT_REFUSED(p4_safetensors_writer_close(writer, true), "23 of 24 bytes");
    EXPECT(access(temporary, F_OK) != 0, "the temporary file stayed");
    EXPECT_OK(p4_safetensors_writer_open(&writer, path, entries, 1));
    EXPECT_OK(p4_safetensors_writer_close(writer, false));
    EXPECT(access(temporary, F_OK) != 0, "the temporary file stayed");
    EXPECT_OK(p4_safetensors_open(&file, path));
    EXPECT(file.count == ENTRIES, "the old file is gone");
    p4_safetensors_close(&file);
}

static void test_writer_refusals(const char *directory)
{
    char path[256];
    p4_safetensors_writer *writer;
    const p4_safetensors_entry twice[] = {entries[1], entries[2], entries[1]};
    const p4_safetensors_entry huge = {.name = "h", .dtype = P4_F32, .rank = 2, .shape = {INT64_MAX / 8, 16}};
    const p4_safetensors_entry ternary = {.name = "t", .dtype = P4_TERNARY, .rank = 1, .shape = {4}};
    snprintf(path, sizeof path, "%s/no/such/place", directory);
    EXPECT_REFUSED(p4_safetensors_writer_open(&writer, path, entries, 1), "cannot create");
    snprintf(path, sizeof path, "%s/refused", directory);
    EXPECT_REFUSED(p4_safetensors_writer_open(&writer, path, twice, 3), "declared twice");
    EXPECT_REFUSED(p4_safetensors_writer_open(&writer, path, &huge, 1), "out of range");
    EXPECT_REFUSED(p4_safetensors_writer_open(&writer, path, &ternary, 1), "out of range");
    EXPECT(access(path, F_OK) != 0, "a refused file was made");
}

int main(void)
{
    char directory[] = "/tmp/phase4-safetensors.XXXXXX";
    EXPECT(mkdtemp(directory) != NULL, "mkdtemp");
    test_headers();
    test_values();
    test_open(directory);
    test_writer(directory);
    test_writer_refusals(directory);
    EXPECT_OK(p4_remove_tree(directory));
    return TEST_END();
}
