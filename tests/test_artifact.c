/* The packed model: round trips in both encodings, damaged and hostile files, a full disk. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/h5/artifact.h"
#include "io/h5/read.h"
#include "io/h5/write.h"
#include "src/leaf/rng.h"

static char directory[P4_PATH_BYTES];

static char *in_directory(const char *name)
{
    static char path[2 * P4_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static const p4_artifact_info info = {.producer = "phase4 test",
                                      .model_type = "gpt2",
                                      .model_json = "{\"model_type\": \"gpt2\", \"note\": \"\xc3\xa9\"}",
                                      .phase4_json = "{\"seed\": 42}",
                                      .tokenizer_json = "{}"};

static p4_artifact_tensor tensor_of(const char *name, int64_t rows, int64_t cols, p4_packing encoding)
{
    p4_artifact_tensor tensor = {
        .ternary = true, .rows = rows, .cols = cols, .encoding = encoding, .method = "exact"};
    snprintf(tensor.name, sizeof tensor.name, "%s", name);
    return tensor;
}

/* Random content that is legal for the tensor; the caller frees both. */
static uint8_t *fill(const p4_artifact_tensor *tensor, uint16_t **scale, uint64_t stream)
{
    p4_rng rng = {.seed = 7, .stream = stream};
    int64_t count = tensor->rows * p4_artifact_row_bytes(tensor);
    uint8_t *bytes = p4_alloc((size_t)count, 1);
    *scale = p4_alloc((size_t)tensor->rows, sizeof **scale);
    for (int64_t i = 0; i < count; i++) {
        uint64_t value = p4_rng_below(&rng, tensor->encoding == P4_PACKING_BASE3X5 ? 243 : 256);
        if (tensor->ternary && tensor->encoding == P4_PACKING_2BIT) {
            value &= ~(value >> 1 & value & 0x55) & 0xff; /* no code 3 */
        }
        bytes[i] = (uint8_t)value;
    }
    for (int64_t r = 0; r < tensor->rows; r++) {
        (*scale)[r] = p4_f32_to_f16((float)(0.01 + p4_rng_uniform(&rng)));
    }
    return bytes;
}

static p4_rc append_all(p4_artifact *artifact, const p4_artifact_tensor *tensor, const uint8_t *bytes,
                        const uint16_t *scale, int64_t piece_rows)
{
    p4_rc rc = p4_artifact_begin(artifact, tensor);
    for (int64_t row = 0; rc == P4_OK && row < tensor->rows; row += piece_rows) {
        int64_t rows = p4_min_i64(piece_rows, tensor->rows - row);
        rc = p4_artifact_append(artifact, bytes + row * p4_artifact_row_bytes(tensor),
                                tensor->ternary ? scale + row : NULL, rows);
    }
    return rc;
}

enum { CASES = 7 };
static void make_cases(p4_artifact_tensor cases[CASES])
{
    cases[0] = tensor_of("a.weight", 7, 13, P4_PACKING_BASE3X5);
    cases[1] = tensor_of("b.weight", 7, 13, P4_PACKING_2BIT);
    cases[2] = tensor_of("c.big", 5001, 2047, P4_PACKING_BASE3X5); /* several chunks, the last one partial */
    cases[3] = tensor_of("d.conv1d", 96, 32, P4_PACKING_2BIT);
    cases[3].transposed = true;
    cases[4] = tensor_of("e.vector", 1, 11, P4_PACKING_BASE3X5);
    cases[4].vector = true;
    cases[5] = tensor_of("f.embed", 1500, 777, P4_PACKING_BASE3X5);
    cases[5].ternary = false;
    cases[6] = tensor_of("g.norm", 1, 777, P4_PACKING_BASE3X5);
    cases[6].ternary = false;
    cases[6].vector = true;
}

static void put_extras(p4_artifact *artifact)
{
    const float squares[3] = {0.5f, 1.5f, 2.5f};
    p4_evaluation pre = {.loss = 2.5, .perplexity = exp(2.5), .accuracy = 0.4, .kl = NAN, .tokens = 1000};
    p4_training_point points[2] = {
        {.step = 10, .loss = 3.0, .lr = 1e-3, .grad_norm = 1.5, .tokens_per_s = 100.0},
        {.step = 20, .loss = 2.0, .lr = 5e-4, .grad_norm = NAN, .tokens_per_s = 200.0}};
    p4_artifact_module module = {"h.0.attn", 0.1, 1.2, -3.0, 4.0, squares, 3};
    p4_artifact_layer layer = {"a.weight", 0.19, 0.46, 0.01, 0.9};
    EXPECT_OK(p4_artifact_put_evaluation(artifact, NULL, "pre", &pre));
    EXPECT_OK(p4_artifact_put_training(artifact, points, 2));
    EXPECT_OK(p4_artifact_put_training(artifact, points, 0));
    EXPECT_OK(p4_artifact_put_calibration(artifact, &module));
    EXPECT_OK(p4_artifact_put_layer(artifact, &layer));
}

static void write_all(const char *path)
{
    p4_artifact *artifact = NULL;
    p4_artifact_tensor cases[CASES];
    make_cases(cases);
    EXPECT_OK(p4_artifact_open(&artifact, path, &info));
    EXPECT(!p4_file_exists(path), "the file is there before it is complete");
    for (int i = 0; i < CASES; i++) {
        uint16_t *scale;
        uint8_t *bytes = fill(&cases[i], &scale, (uint64_t)i);
        EXPECT_OK(append_all(artifact, &cases[i], bytes, scale, 100));
        free(bytes);
        free(scale);
    }
    put_extras(artifact);
    EXPECT_OK(p4_artifact_close(artifact, true));
    EXPECT(p4_file_exists(path), "no file");
}

static void check_tensor(p4_artifact_reader *reader, const p4_artifact_tensor *want, uint64_t stream)
{
    uint16_t *scale;
    uint8_t *bytes = fill(want, &scale, stream);
    int64_t row_bytes = p4_artifact_row_bytes(want);
    uint8_t *got = p4_alloc((size_t)(want->rows * row_bytes), 1);
    uint16_t *got_scale = p4_alloc((size_t)want->rows, sizeof *got_scale);
    const p4_artifact_tensor *found = p4_artifact_reader_find(reader, want->name);
    EXPECT(found != NULL, "%s is not there", want->name);
    if (found != NULL) {
        EXPECT(found->ternary == want->ternary && found->vector == want->vector &&
                   found->transposed == want->transposed && found->rows == want->rows &&
                   found->cols == want->cols,
               "%s came back with another form", want->name);
        EXPECT(!want->ternary || found->encoding == want->encoding, "%s came back with another encoding",
               want->name);
        for (int64_t row = 0; row < want->rows; row += 1000) {
            int64_t rows = p4_min_i64(1000, want->rows - row);
            EXPECT_OK(p4_artifact_read(reader, found, got + row * row_bytes,
                                       want->ternary ? got_scale + row : NULL, row, rows));
        }
        EXPECT(memcmp(got, bytes, (size_t)(want->rows * row_bytes)) == 0, "bytes of %s differ", want->name);
        EXPECT(!want->ternary || memcmp(got_scale, scale, (size_t)want->rows * sizeof *scale) == 0,
               "scales of %s differ", want->name);
        EXPECT_REFUSED(p4_artifact_read(reader, found, got, NULL, 1, want->rows), "were asked for");
    }
    free(bytes);
    free(scale);
    free(got);
    free(got_scale);
}

static void check_extras(p4_artifact_reader *reader)
{
    char *text = NULL;
    double value = 0.0;
    EXPECT_OK(p4_artifact_read_text(reader, "config/model_json", &text));
    EXPECT(text != NULL && strcmp(text, info.model_json) == 0, "got %s", text != NULL ? text : "nothing");
    free(text);
    EXPECT_OK(p4_artifact_read_text(reader, "tokenizer/absent", &text));
    EXPECT(text == NULL, "a text that is not there");
    EXPECT_OK(p4_artifact_read_number(reader, "metrics/pre", "loss", &value));
    EXPECT_NEAR(value, 2.5, 0.0);
    EXPECT_OK(p4_artifact_read_number(reader, "metrics/pre", "tokens", &value));
    EXPECT_NEAR(value, 1000.0, 0.0);
    EXPECT_OK(p4_artifact_read_number(reader, "metrics/pre", "kl", &value));
    EXPECT(isnan(value), "an unmeasured number is there: %g", value);
    EXPECT_OK(p4_artifact_read_number(reader, "layers/a.weight", "sparsity", &value));
    EXPECT_NEAR(value, 0.46, 0.0);
    EXPECT_OK(p4_artifact_read_number(reader, "calibration/h.0.attn", "min", &value));
    EXPECT_NEAR(value, -3.0, 0.0);
}

static void check_curve(const char *path)
{
    p4_h5_file file;
    p4_h5_shape shape;
    double grad_norm[2];
    int64_t step[2];
    EXPECT_OK(p4_h5_open(&file, path));
    EXPECT_OK(p4_h5_describe(&file, "metrics/training/step", &shape));
    EXPECT(shape.type == P4_H5_I64 && shape.rank == 1 && shape.dims[0] == 2, "step is of another shape");
    EXPECT_OK(p4_h5_read_rows(&file, "metrics/training/step", &shape, step, 0, 2));
    EXPECT(step[0] == 10 && step[1] == 20, "steps %lld %lld", (long long)step[0], (long long)step[1]);
    EXPECT_OK(p4_h5_describe(&file, "metrics/training/grad_norm", &shape));
    EXPECT_OK(p4_h5_read_rows(&file, "metrics/training/grad_norm", &shape, grad_norm, 0, 2));
    EXPECT(grad_norm[0] == 1.5 && isnan(grad_norm[1]), "norms %g %g", grad_norm[0], grad_norm[1]);
    EXPECT_REFUSED(p4_h5_describe(&file, "metrics/training/absent", &shape),
                   "has no metrics/training/absent");
    p4_h5_close(&file, false);
}

static void test_round_trip(void)
{
    const char *path = in_directory("model.h5");
    p4_artifact_reader *reader = NULL;
    p4_artifact_tensor cases[CASES];
    make_cases(cases);
    write_all(path);
    EXPECT_OK(p4_artifact_reader_open(&reader, path));
    if (reader != NULL) {
        EXPECT(p4_artifact_reader_count(reader) == CASES, "%lld tensors",
               (long long)p4_artifact_reader_count(reader));
        EXPECT(p4_artifact_reader_find(reader, "absent") == NULL, "found what is not there");
        for (int i = 0; i < CASES; i++) {
            EXPECT(strcmp(p4_artifact_reader_tensor(reader, i)->name, cases[i].name) == 0, "order");
            check_tensor(reader, &cases[i], (uint64_t)i);
        }
        check_extras(reader);
    }
    p4_artifact_reader_close(reader);
    check_curve(path);
}

/* A started artifact with one tensor of 4 x 10 open. */
static p4_artifact *start_one(const char *path)
{
    p4_artifact *artifact = NULL;
    p4_artifact_tensor tensor = tensor_of("w", 4, 10, P4_PACKING_BASE3X5);
    EXPECT_OK(p4_artifact_open(&artifact, path, &info));
    EXPECT_OK(p4_artifact_begin(artifact, &tensor));
    return artifact;
}

static void test_misuse(void)
{
    const char *path = in_directory("misuse.h5");
    const uint8_t bytes[8] = {0};
    const uint16_t scale[4] = {0};
    p4_artifact_tensor tensor = tensor_of("w", 4, 10, P4_PACKING_BASE3X5);
    p4_artifact *artifact = start_one(path);
    EXPECT_REFUSED(p4_artifact_append(artifact, bytes, scale, 5), "5 more rows were given for w");
    EXPECT_OK(p4_artifact_append(artifact, bytes, scale, 3));
    EXPECT_REFUSED(p4_artifact_begin(artifact, &tensor), "3 of 4 rows of w were given");
    EXPECT_OK(p4_artifact_close(artifact, false));
    EXPECT(!p4_file_exists(path) && !p4_file_exists(in_directory("misuse.h5.tmp")),
           "a dropped artifact is there");

    artifact = start_one(path = in_directory("misuse.h5"));
    EXPECT_OK(p4_artifact_append(artifact, bytes, scale, 3));
    EXPECT_REFUSED(p4_artifact_close(artifact, true), "3 of 4 rows of w were given");
    EXPECT(!p4_file_exists(path), "an incomplete artifact is there");

    artifact = start_one(path);
    EXPECT_OK(p4_artifact_append(artifact, bytes, scale, 4));
    EXPECT_REFUSED(p4_artifact_begin(artifact, &tensor), "name already exists");
    snprintf(tensor.name, sizeof tensor.name, "a/b");
    EXPECT_REFUSED(p4_artifact_begin(artifact, &tensor), "cannot be a name");
    snprintf(tensor.name, sizeof tensor.name, "empty");
    tensor.rows = 0;
    EXPECT_REFUSED(p4_artifact_begin(artifact, &tensor), "has the shape [0, 10]");
    EXPECT_OK(p4_artifact_close(artifact, false));
    EXPECT_REFUSED(p4_artifact_open(&artifact, in_directory("absent/model.h5"), &info),
                   "No such file or directory");
    EXPECT(artifact == NULL, "an artifact that was not opened");
    EXPECT_OK(p4_artifact_close(NULL, true));
}

static long read_file(const char *path, unsigned char **bytes)
{
    FILE *file = fopen(path, "rb");
    fseek(file, 0, SEEK_END);
    long count = ftell(file);
    rewind(file);
    *bytes = p4_alloc((size_t)count, 1);
    EXPECT(fread(*bytes, 1, (size_t)count, file) == (size_t)count, "read %s", path);
    fclose(file);
    return count;
}

/* Opens and reads all; the first failure, or P4_OK. */
static p4_rc read_everything(const char *path)
{
    p4_artifact_reader *reader = NULL;
    p4_rc rc = p4_artifact_reader_open(&reader, path);
    for (int64_t i = 0; rc == P4_OK && i < p4_artifact_reader_count(reader); i++) {
        const p4_artifact_tensor *tensor = p4_artifact_reader_tensor(reader, i);
        uint8_t *bytes = p4_alloc((size_t)tensor->rows, (size_t)p4_artifact_row_bytes(tensor));
        uint16_t *scale = p4_alloc((size_t)tensor->rows, sizeof *scale);
        rc = p4_artifact_read(reader, tensor, bytes, tensor->ternary ? scale : NULL, 0, tensor->rows);
        free(bytes);
        free(scale);
    }
    p4_artifact_reader_close(reader);
    return rc;
}

static void test_damage(void)
{
    unsigned char *bytes;
    char whole[2 * P4_PATH_BYTES];
    snprintf(whole, sizeof whole, "%s", in_directory("model.h5"));
    const char *path = in_directory("damaged.h5");
    long count = read_file(whole, &bytes);
    const long cuts[] = {0, 1, 100, count / 3, count - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        EXPECT_OK(p4_atomic_write_all(path, bytes, (size_t)cuts[i]));
        EXPECT_REFUSED(read_everything(path), "damaged.h5: cannot open as an HDF5 file");
    }
    /* A flipped bit in the packed rows of c.big is found by its checksum. Its first row is searched for. */
    p4_artifact_tensor cases[CASES];
    uint16_t *scale;
    make_cases(cases);
    uint8_t *content = fill(&cases[2], &scale, 2);
    const unsigned char *at = NULL;
    for (long i = 0; at == NULL && i + 64 < count; i++) {
        at = memcmp(bytes + i, content, 64) == 0 ? bytes + i : NULL;
    }
    EXPECT(at != NULL, "the rows are not in the file as they were given");
    if (at != NULL) {
        bytes[at - bytes + 1000] ^= 4;
        EXPECT_OK(p4_atomic_write_all(path, bytes, (size_t)count));
        EXPECT_REFUSED(read_everything(path), "damaged.h5: cannot read tensors/c.big/packed");
    }
    /* Where an attribute's name is damaged, the file lacks the attribute. */
    for (long i = 0; i + 14 < count; i++) {
        bytes[i] ^= memcmp(bytes + i, "trits_per_byte", 14) == 0 ? 4 : 0;
    }
    EXPECT_OK(p4_atomic_write_all(path, bytes, (size_t)count));
    EXPECT_REFUSED(read_everything(path), "is damaged, or was not written by this program: tensors/a.weight");
    EXPECT_REFUSED(read_everything(in_directory("absent.h5")), "No such file or directory");
    free(content);
    free(scale);
    free(bytes);
}

/* A file that differs from a good one in one thing. */
typedef struct hostile {
    const char *format, *expected;
    int64_t version, trits, shape[2], packed[2], scale_rows, transposed;
    uint8_t byte;
    uint16_t scale_bits;
    bool with_data, without_scale;
} hostile;

static const hostile good = {.format = "format",
                             .trits = 5,
                             .version = 1,
                             .shape = {4, 10},
                             .packed = {4, 2},
                             .scale_rows = 4,
                             .byte = 242,
                             .scale_bits = 0x3c00};

static void write_hostile(const char *path, const hostile *h)
{
    p4_atomic_file atomic;
    p4_h5_file file;
    p4_h5_rows rows;
    uint8_t bytes[64];
    uint16_t scale[16];
    memset(bytes, h->byte, sizeof bytes);
    for (int i = 0; i < 16; i++) {
        scale[i] = h->scale_bits;
    }
    EXPECT_OK(p4_atomic_open(&atomic, path));
    EXPECT_OK(p4_h5_create(&file, &atomic));
    EXPECT_OK(p4_h5_put_text_attr(&file, "/", h->format, "phase4-ternary"));
    EXPECT_OK(p4_h5_put_i64_attr(&file, "/", "format_version", h->version));
    EXPECT_OK(p4_h5_rows_create(&rows, &file, "tensors/w/packed", P4_H5_U8, 2, h->packed));
    if (h->packed[0] * h->packed[1] <= 64) { /* a shape larger than that stays without data */
        EXPECT_OK(p4_h5_rows_append(&rows, bytes, h->packed[0]));
    }
    EXPECT_OK(p4_h5_rows_close(&rows));
    EXPECT_OK(p4_h5_put_i64_attr(&file, "tensors/w/packed", "trits_per_byte", h->trits));
    EXPECT_OK(p4_h5_put_i64s_attr(&file, "tensors/w/packed", "shape", h->shape, 2));
    EXPECT_OK(p4_h5_put_i64_attr(&file, "tensors/w/packed", "transposed", h->transposed));
    if (!h->without_scale) {
        EXPECT_OK(p4_h5_put_vector(&file, "tensors/w/scale", P4_H5_F16, scale, h->scale_rows));
    }
    if (h->with_data) {
        EXPECT_OK(p4_h5_put_vector(&file, "tensors/w/data", P4_H5_F16, scale, 4));
    }
    EXPECT_OK(p4_h5_close(&file, true));
    EXPECT_OK(p4_atomic_close(&atomic, true));
}

static void test_hostile(void)
{
    const char *path = in_directory("hostile.h5");
    hostile cases[14];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cases[i] = good;
    }
    cases[0].format = "formal", cases[0].expected = "not a packed model";
    cases[1].version = 2, cases[1].expected = "format version 2";
    cases[2].trits = 6, cases[2].expected = "has 6 trits a byte";
    cases[3].shape[1] = 11, cases[3].expected = "is not uint8 [4, 3]";
    cases[4].shape[0] = 5, cases[4].expected = "is not uint8 [5, 2]";
    cases[5].shape[1] = -10, cases[5].expected = "says its shape is [4, -10]";
    cases[6].scale_rows = 3, cases[6].expected = "tensors/w/scale is not float16 [4]";
    cases[7].byte = 243, cases[7].expected = "byte 0 of row 0 of w is 243";
    cases[8].scale_bits = 0x7e00, cases[8].expected = "scale 0 of w is not finite";
    cases[9].transposed = 2, cases[9].expected = "transposed of tensors/w is 2";
    cases[10].with_data = true, cases[10].expected = "it holds both";
    cases[11].without_scale = true, cases[11].expected = "has no tensors/w/scale";
    cases[12].shape[0] = cases[12].packed[0] = INT64_C(1) << 61,
    cases[12].expected = "the file has only 0 for it";
    cases[13].shape[1] = INT64_MAX, cases[13].expected = "is not uint8 [4, 1844674407370955162]";
    write_hostile(path, &good);
    EXPECT_OK(read_everything(path));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_hostile(path, &cases[i]);
        EXPECT_REFUSED(read_everything(path), cases[i].expected);
    }
    hostile two_bit = good;
    two_bit.trits = 4, two_bit.shape[1] = 8, two_bit.byte = 0xaa;
    write_hostile(path, &two_bit);
    EXPECT_OK(read_everything(path));
    two_bit.byte = 0x0c;
    write_hostile(path, &two_bit);
    EXPECT_REFUSED(read_everything(path), "which holds no 2bit trits");
}

/* Overwritten bytes anywhere end in an error or do no harm. The small file is mostly HDF5's own structures.
 */
static void test_overwritten_bytes(void)
{
    enum { TRIES = 150 };
    const char *path = in_directory("overwritten.h5");
    unsigned char *bytes;
    p4_rng rng = {.seed = 11};
    int refused = 0;
    write_hostile(path, &good);
    long count = read_file(path, &bytes);
    for (int i = 0; i < TRIES; i++) {
        unsigned char *at = bytes + p4_rng_below(&rng, (uint64_t)count), old = *at;
        *at = (unsigned char)p4_rng_u64(&rng);
        EXPECT_OK(p4_atomic_write_all(path, bytes, (size_t)count));
        refused += read_everything(path) != P4_OK;
        p4_error_clear();
        *at = old;
    }
    EXPECT(refused > TRIES / 10, "%d of %d damaged files were refused", refused, TRIES);
    free(bytes);
}

/* A file size limit makes writes fail as a full disk does (EFBIG in the place of ENOSPC). */
static void set_limit(rlim_t bytes)
{
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    EXPECT(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
}

static void test_full_disk(void)
{
    char path[2 * P4_PATH_BYTES], temp[2 * P4_PATH_BYTES];
    snprintf(path, sizeof path, "%s", in_directory("full.h5"));
    snprintf(temp, sizeof temp, "%s", in_directory("full.h5.tmp"));
    p4_artifact_tensor tensor = tensor_of("w", 3000, 5000, P4_PACKING_BASE3X5);
    p4_artifact_tensor small = tensor_of("small", 30, 50, P4_PACKING_BASE3X5);
    uint16_t *scale;
    uint8_t *bytes = fill(&tensor, &scale, 0);
    signal(SIGXFSZ, SIG_IGN);
    const rlim_t limits[] = {100, 1000, 20000, 300000, 1500000, 2900000};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        p4_artifact *artifact = NULL;
        p4_error_clear();
        set_limit(limits[i]);
        p4_rc rc = p4_artifact_open(&artifact, path, &info);
        rc = rc != P4_OK ? rc : append_all(artifact, &small, bytes, scale, 7);
        rc = rc != P4_OK ? rc : append_all(artifact, &tensor, bytes, scale, 100);
        p4_rc closed = p4_artifact_close(artifact, rc == P4_OK);
        set_limit(RLIM_INFINITY);
        EXPECT(rc != P4_OK || closed != P4_OK, "a limit of %llu bytes was not noticed",
               (unsigned long long)limits[i]);
        EXPECT(strstr(p4_last_error(), "full.h5: cannot") != NULL &&
                   strstr(p4_last_error(), "File too large") != NULL,
               "message \"%s\"", p4_last_error());
        EXPECT(!p4_file_exists(path) && !p4_file_exists(temp),
               "something is left of a file that could not be written");
    }
    p4_error_clear();
    write_all(path); /* the library still works after that */
    free(bytes);
    free(scale);
}

int main(void)
{
    snprintf(directory, sizeof directory, "%s/phase4_artifact_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(directory) != NULL, "mkdtemp: %s", strerror(errno));
    test_round_trip();
    test_misuse();
    test_damage();
    test_hostile();
    test_overwritten_bytes();
    test_full_disk();
    EXPECT_OK(p4_remove_tree(directory));
    return TEST_END();
}
