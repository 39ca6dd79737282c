/* Rows of a packed model read from its chunks: as HDF5 reads them, with the same checksums and messages. */
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/h5/artifact.h"
#include "io/h5/chunks.h"
#include "io/h5/fletcher32.h"
#include "io/h5/write.h"
#include "src/leaf/parallel.h"
#include "src/leaf/rng.h"

static char directory[P4_PATH_BYTES];

static char *in_directory(const char *name)
{
    static char path[2 * P4_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* ---- checksums ---- */

typedef enum content { ZEROS, ONES, RANDOM, CONTENTS } content;

static uint8_t *bytes_of(content kind, int64_t count)
{
    p4_rng rng = {.seed = 5, .stream = (uint64_t)count};
    uint8_t *bytes = p4_alloc((size_t)count, 1);
    for (int64_t i = 0; i < count; i++) {
        bytes[i] = kind == ZEROS ? 0 : kind == ONES ? 255 : (uint8_t)p4_rng_u64(&rng);
    }
    return bytes;
}

/* One chunk of so many bytes, written by HDF5 with its checksum, which ours must be. */
static void check_sum(int64_t count, content kind)
{
    const char *path = in_directory("sum.h5");
    const int64_t shape[2] = {1, count};
    p4_atomic_file atomic;
    p4_h5_file file;
    p4_h5_rows rows;
    p4_h5_shape found;
    p4_h5_chunks chunks;
    uint8_t *bytes = bytes_of(kind, count), *got = p4_alloc((size_t)count + P4_FLETCHER32_BYTES, 1);
    EXPECT_OK(p4_atomic_open(&atomic, path));
    EXPECT_OK(p4_h5_create(&file, &atomic));
    EXPECT_OK(p4_h5_rows_create(&rows, &file, "a", P4_H5_U8, 2, shape));
    EXPECT_OK(p4_h5_rows_append(&rows, bytes, 1));
    EXPECT_OK(p4_h5_rows_close(&rows));
    EXPECT_OK(p4_h5_close(&file, true));
    EXPECT_OK(p4_atomic_close(&atomic, true));
    EXPECT_OK(p4_h5_open(&file, path));
    EXPECT_OK(p4_h5_describe(&file, "a", &found));
    EXPECT_OK(p4_h5_chunks_find(&chunks, &file, "a", &found));
    EXPECT(chunks.count == 1 && chunks.rows == 1 && chunks.bytes == count, "%d chunks of %d rows",
           (int)chunks.count, (int)chunks.rows);
    EXPECT_OK(p4_h5_chunks_read(&chunks, got, 0, 1));
    EXPECT(memcmp(got, bytes, (size_t)count) == 0, "%d bytes differ", (int)count);
    got[count / 2] ^= 16;
    p4_fletcher32 sums = {0};
    p4_fletcher32_add(&sums, got, count);
    EXPECT(!p4_fletcher32_matches(&sums, got + count), "a bit of %d bytes is not noticed", (int)count);
    p4_h5_chunks_free(&chunks);
    EXPECT_OK(p4_h5_close(&file, false));
    free(bytes);
    free(got);
}

static void test_checksums(void)
{
    static const int64_t counts[] = {1, 2, 3, 4, 31, 719, 720, 721, 4095, 4096, 4097, 12289, 300001, 1048576};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (content kind = ZEROS; kind < CONTENTS; kind++) {
            check_sum(counts[i], kind);
        }
    }
}

/* ---- rows ---- */

enum { ROWS = 5001, COLS = 2047, NORM = 700001 };

static void write_model(const char *path)
{
    static const p4_artifact_info info = {
        .producer = "test", .model_type = "llama", .model_json = "{}", .phase4_json = "{}"};
    p4_artifact *artifact;
    p4_artifact_tensor base3 = {.name = "a", .ternary = true, .rows = ROWS, .cols = COLS, .method = "exact"};
    p4_artifact_tensor two_bit = {.name = "b", .ternary = true, .rows = ROWS, .cols = COLS};
    p4_artifact_tensor half = {.name = "c", .rows = ROWS, .cols = COLS};
    p4_artifact_tensor vector = {.name = "d", .vector = true, .rows = 1, .cols = NORM};
    base3.encoding = P4_PACKING_BASE3X5, two_bit.encoding = P4_PACKING_2BIT;
    const p4_artifact_tensor *all[] = {&base3, &two_bit, &half, &vector};
    EXPECT_OK(p4_artifact_open(&artifact, path, &info));
    for (int i = 0; i < 4; i++) {
        const p4_artifact_tensor *t = all[i];
        uint8_t *bytes = bytes_of(RANDOM, t->rows * p4_artifact_row_bytes(t));
        uint16_t *scale = p4_alloc((size_t)t->rows, sizeof *scale);
        for (int64_t k = 0; k < t->rows * p4_artifact_row_bytes(t); k++) {
            bytes[k] = i == 0 ? bytes[k] % 243 : i == 1 ? bytes[k] & 0xaa : bytes[k];
        }
        EXPECT_OK(p4_artifact_begin(artifact, t));
        EXPECT_OK(p4_artifact_append(artifact, bytes, t->ternary ? scale : NULL, t->rows));
        free(bytes);
        free(scale);
    }
    EXPECT_OK(p4_artifact_close(artifact, true));
}

/* All rows of a tensor in pieces, by several threads, against what HDF5 reads. */
typedef struct comparison {
    p4_artifact_reader *reader;
    const p4_artifact_tensor *tensor;
    int64_t piece;
    const uint8_t *want;
    p4_space spaces[3];
} comparison;

static p4_rc compare_piece(void *user, int64_t item, int worker)
{
    p4_rc rc = P4_OK;
    comparison *c = user;
    const void *rows;
    int64_t first = item * c->piece, count = p4_min_i64(c->piece, c->tensor->rows - first);
    int64_t row_bytes = p4_artifact_row_bytes(c->tensor);
    TRY(p4_artifact_rows(c->reader, c->tensor, &c->spaces[worker], &rows, first, count));
    CHECK(memcmp(rows, c->want + first * row_bytes, (size_t)(count * row_bytes)) == 0,
          "rows %d to %d of %s differ", (int)first, (int)(first + count), c->tensor->name);
done:
    return rc;
}

static void compare(p4_artifact_reader *reader, const p4_artifact_tensor *tensor)
{
    int64_t chunk, bytes = tensor->rows * p4_artifact_row_bytes(tensor);
    uint8_t *want = p4_alloc((size_t)bytes, 1);
    EXPECT_OK(p4_artifact_read(reader, tensor, want, NULL, 0, tensor->rows));
    EXPECT_OK(p4_artifact_chunk_rows(reader, tensor, &chunk));
    EXPECT(tensor->vector ? chunk == 0 : chunk > 0 && chunk < ROWS, "%s has chunks of %d rows", tensor->name,
           (int)chunk);
    const int64_t pieces[] = {chunk, 700, ROWS};
    for (int i = tensor->vector; i < 3; i++) {
        comparison c = {.reader = reader, .tensor = tensor, .piece = pieces[i], .want = want};
        EXPECT_OK(p4_parallel(3, p4_ceil_div(tensor->rows, c.piece), compare_piece, NULL, &c));
        for (int k = 0; k < 3; k++) {
            p4_space_free(&c.spaces[k]);
        }
    }
    free(want);
}

static void test_rows(void)
{
    p4_artifact_reader *reader;
    p4_space space = {0};
    const void *rows;
    write_model(in_directory("model.h5"));
    EXPECT_OK(p4_artifact_reader_open(&reader, in_directory("model.h5")));
    for (int64_t i = 0; i < p4_artifact_reader_count(reader); i++) {
        compare(reader, p4_artifact_reader_tensor(reader, i));
    }
    const p4_artifact_tensor *first = p4_artifact_reader_tensor(reader, 0);
    EXPECT_REFUSED(p4_artifact_rows(reader, first, &space, &rows, 1, ROWS), "were asked for");
    p4_artifact_reader_close(reader);
    p4_space_free(&space);
}

/* Both ways of reading end with the same message, and a file that is cut off while it is read with one. */
static void test_damage(void)
{
    char by_hdf5[1024], *path = in_directory("model.h5");
    p4_artifact_reader *reader;
    p4_space space = {0};
    const void *rows;
    uint8_t *all = p4_alloc((size_t)ROWS, (COLS + 4) / 5), last;
    EXPECT_OK(p4_artifact_reader_open(&reader, path));
    const p4_artifact_tensor *first = p4_artifact_reader_tensor(reader, 0);
    EXPECT_OK(p4_artifact_rows(reader, first, &space, &rows, ROWS - 1, 1));
    p4_h5_file file;
    p4_h5_shape shape;
    p4_h5_chunks chunks;
    EXPECT_OK(p4_h5_open(&file, path));
    EXPECT_OK(p4_h5_describe(&file, "tensors/a/packed", &shape));
    EXPECT_OK(p4_h5_chunks_find(&chunks, &file, "tensors/a/packed", &shape));
    off_t at = (off_t)chunks.places[1] + 1000;
    FILE *stream = fopen(path, "r+b");
    EXPECT(stream != NULL && fseeko(stream, at, SEEK_SET) == 0 && fread(&last, 1, 1, stream) == 1, "read");
    last = (uint8_t)(last == 0 ? 1 : last - 1); /* trits still */
    EXPECT(fseeko(stream, at, SEEK_SET) == 0 && fwrite(&last, 1, 1, stream) == 1 && fclose(stream) == 0,
           "write");
    EXPECT(p4_artifact_read(reader, first, all, NULL, 0, ROWS) != P4_OK, "the damage is not noticed");
    snprintf(by_hdf5, sizeof by_hdf5, "%s", p4_last_error());
    EXPECT_REFUSED(p4_artifact_rows(reader, first, &space, &rows, 0, ROWS), by_hdf5);
    EXPECT(strstr(by_hdf5, "model.h5: cannot read tensors/a/packed: ") != NULL, "message \"%s\"", by_hdf5);
    EXPECT_OK(p4_artifact_rows(reader, first, &space, &rows, 0, 1)); /* the first chunk is whole */
    EXPECT(truncate(path, at) == 0, "truncate");
    EXPECT_REFUSED(p4_artifact_rows(reader, first, &space, &rows, 0, ROWS),
                   "model.h5: cannot read tensors/a/packed: the file became shorter");
    p4_h5_chunks_free(&chunks);
    EXPECT_OK(p4_h5_close(&file, false));
    p4_artifact_reader_close(reader);
    p4_space_free(&space);
    free(all);
}

/* Data that other programs stored in another way: in one piece, without a checksum. */
static void test_other_layout(void)
{
    enum { COUNT = 1000 };
    const char *path = in_directory("other.h5");
    p4_atomic_file atomic;
    p4_h5_file file;
    p4_artifact_reader *reader;
    p4_space space = {0};
    const void *rows = NULL;
    int64_t chunk = -1;
    uint8_t *bytes = bytes_of(RANDOM, 2 * COUNT);
    EXPECT_OK(p4_atomic_open(&atomic, path));
    EXPECT_OK(p4_h5_create(&file, &atomic));
    EXPECT_OK(p4_h5_put_text_attr(&file, "/", "format", "phase4-ternary"));
    EXPECT_OK(p4_h5_put_i64_attr(&file, "/", "format_version", 1));
    EXPECT_OK(p4_h5_put_vector(&file, "tensors/n/data", P4_H5_F16, bytes, COUNT));
    EXPECT_OK(p4_h5_put_i64_attr(&file, "tensors/n/data", "transposed", 0));
    EXPECT_OK(p4_h5_close(&file, true));
    EXPECT_OK(p4_atomic_close(&atomic, true));
    EXPECT_OK(p4_artifact_reader_open(&reader, path));
    const p4_artifact_tensor *t = p4_artifact_reader_tensor(reader, 0);
    EXPECT_OK(p4_artifact_chunk_rows(reader, t, &chunk));
    EXPECT_OK(p4_artifact_rows(reader, t, &space, &rows, 0, 1));
    EXPECT(chunk == 0 && memcmp(rows, bytes, 2 * COUNT) == 0, "the vector differs");
    p4_artifact_reader_close(reader);
    p4_space_free(&space);
    free(bytes);
}

int main(void)
{
    snprintf(directory, sizeof directory, "%s/phase4_rows_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(directory) != NULL, "mkdtemp: %s", directory);
    test_checksums();
    test_rows();
    test_damage();
    test_other_layout();
    EXPECT_OK(p4_remove_tree(directory));
    return TEST_END();
}
