#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "io/h5/artifact.h"
#include "io/h5/chunks.h"
#include "io/h5/fletcher32.h"

#define DAMAGED "is damaged, or was not written by this program"

enum { OBJECT_NAME_BYTES = P4_TENSOR_NAME_BYTES + 32 };

typedef struct stored_tensor {
    p4_artifact_tensor
        tensor; /* first: a p4_artifact_tensor handed out is found again as its stored_tensor */
    p4_h5_shape values, scale;
    p4_h5_chunks chunks; /* of its values; found at first use */
    bool has_chunks;
} stored_tensor;

struct p4_artifact_reader {
    char *path;
    p4_h5_file file;
    int64_t count;
    stored_tensor *tensors; /* sorted by name */
    pthread_mutex_t lock;   /* of HDF5, where several threads read */
};

static void join(char to[OBJECT_NAME_BYTES], const char *name, const char *part)
{
    snprintf(to, OBJECT_NAME_BYTES, "tensors/%s/%s", name, part);
}

/* An attribute that is one whole number. */
static p4_rc read_i64(const p4_h5_file *file, const char *object, const char *key, int64_t *value)
{
    int count = 0;
    return p4_h5_read_i64s_attr(file, object, key, value, 1, &count);
}

/* Encoding and shape of a packed tensor. */
static p4_rc read_packing(p4_artifact_tensor *tensor, const p4_h5_file *file, const char *packed)
{
    p4_rc rc = P4_OK;
    int64_t shape[2], trits = 0;
    int rank = 0;
    TRY(read_i64(file, packed, "trits_per_byte", &trits));
    CHECK(trits == 5 || trits == 4, "%s: %s has %lld trits a byte, expected 5 (base3x5) or 4 (2bit)",
          file->path, packed, (long long)trits);
    tensor->encoding = trits == 5 ? P4_PACKING_BASE3X5 : P4_PACKING_2BIT;
    TRY(p4_h5_read_i64s_attr(file, packed, "shape", shape, 2, &rank));
    tensor->vector = rank == 1;
    tensor->rows = rank == 1 ? 1 : shape[0];
    tensor->cols = shape[rank - 1];
    CHECK(tensor->rows > 0 && tensor->cols > 0, "%s: %s says its shape is [%lld, %lld]", file->path, packed,
          (long long)tensor->rows, (long long)tensor->cols);
done:
    return rc;
}

/* From the shape: [rows], [rows, groups] or [1]. */
static p4_rc read_scale_group(stored_tensor *stored, const p4_h5_file *file, const char *scale)
{
    p4_rc rc = P4_OK;
    p4_artifact_tensor *tensor = &stored->tensor;
    const p4_h5_shape *s = &stored->scale;
    bool one = s->rank == 1 && s->dims[0] == 1 && tensor->rows > 1;
    bool by_row = s->rank == 1 && s->dims[0] == tensor->rows;
    bool grouped = s->rank == 2 && s->dims[0] == tensor->rows && s->dims[1] > 1 &&
                   tensor->cols % s->dims[1] == 0 && tensor->cols / s->dims[1] % 4 == 0;
    CHECK(s->type == P4_H5_F16 && (by_row || grouped || (one && tensor->cols % 4 == 0)),
          "%s: %s is not float16 [%lld], [1], or [%lld, G] with G parts of a row in whole bytes of codes",
          file->path, scale, (long long)tensor->rows, (long long)tensor->rows);
    tensor->scale_group = grouped ? tensor->cols / s->dims[1] : one ? tensor->rows * tensor->cols : 0;
done:
    return rc;
}

static p4_rc describe_ternary(stored_tensor *stored, const p4_h5_file *file, const char *packed)
{
    p4_rc rc = P4_OK;
    p4_artifact_tensor *tensor = &stored->tensor;
    char scale[OBJECT_NAME_BYTES];
    join(scale, tensor->name, "scale");
    TRY(read_packing(tensor, file, packed));
    TRY(p4_h5_describe(file, packed, &stored->values));
    /* Compared without computing with the file's cols, which could overflow. */
    int64_t each = tensor->encoding == P4_PACKING_BASE3X5 ? 5 : 4;
    int64_t row_bytes = tensor->cols / each + (tensor->cols % each != 0);
    CHECK(stored->values.type == P4_H5_U8 && stored->values.rank == 2 &&
              stored->values.dims[0] == tensor->rows && stored->values.dims[1] == row_bytes,
          "%s: %s is not uint8 [%lld, %lld], which its shape and encoding call for", file->path, packed,
          (long long)tensor->rows, (long long)row_bytes);
    TRY(p4_h5_describe(file, scale, &stored->scale));
    TRY(read_scale_group(stored, file, scale));
done:
    return rc;
}

static p4_rc describe_preserved(stored_tensor *stored, const p4_h5_file *file, const char *data)
{
    p4_rc rc = P4_OK;
    p4_artifact_tensor *tensor = &stored->tensor;
    TRY(p4_h5_describe(file, data, &stored->values));
    CHECK(stored->values.type == P4_H5_F16 && stored->values.rank <= 2,
          "%s: %s is not float16 of one or two dimensions", file->path, data);
    tensor->vector = stored->values.rank == 1;
    tensor->rows = tensor->vector ? 1 : stored->values.dims[0];
    tensor->cols = stored->values.dims[stored->values.rank - 1];
done:
    return rc;
}

static p4_rc describe(stored_tensor *stored, const p4_h5_file *file, const char *name)
{
    p4_rc rc = P4_OK;
    char packed[OBJECT_NAME_BYTES], data[OBJECT_NAME_BYTES];
    int64_t transposed = 0;
    CHECK(strlen(name) < P4_TENSOR_NAME_BYTES,
          "%s: the tensor name \"%.40s...\" has %zu bytes, at most %d are expected", file->path, name,
          strlen(name), P4_TENSOR_NAME_BYTES - 1);
    strcpy(stored->tensor.name, name);
    join(packed, name, "packed");
    join(data, name, "data");
    bool has_packed = p4_h5_exists(file, packed), has_data = p4_h5_exists(file, data);
    CHECK(has_packed != has_data, "%s: tensors/%s should hold either packed and scale or data, it holds %s",
          file->path, name, has_packed ? "both" : "neither");
    stored->tensor.ternary = has_packed;
    TRY(has_packed ? describe_ternary(stored, file, packed) : describe_preserved(stored, file, data));
    TRY(read_i64(file, has_packed ? packed : data, "transposed", &transposed));
    CHECK(transposed == 0 || transposed == 1, "%s: transposed of tensors/%s is %lld, expected 0 or 1",
          file->path, name, (long long)transposed);
    stored->tensor.transposed = transposed == 1;
done:
    return rc;
}

static p4_rc check_version(const p4_h5_file *file)
{
    p4_rc rc = P4_OK;
    int64_t version = 0;
    CHECK(p4_h5_has_attr(file, "/", "format") && p4_h5_has_attr(file, "/", "format_version"),
          "%s: is an HDF5 file, but not a packed model: it lacks the attributes format and format_version",
          file->path);
    TRY(read_i64(file, "/", "format_version", &version));
    CHECK(version == 1, "%s: is of format version %lld, this program reads 1", file->path,
          (long long)version);
done:
    return rc;
}

p4_rc p4_artifact_damaged(p4_rc rc, const char *path)
{
    char why[512];
    size_t length = strlen(path);
    const char *message = p4_last_error();
    if (rc != P4_E_INPUT || strstr(message, DAMAGED) != NULL) {
        return rc;
    }
    bool named = strncmp(message, path, length) == 0 && strncmp(message + length, ": ", 2) == 0;
    snprintf(why, sizeof why, "%s", message + (named ? length + 2 : 0));
    p4_error_clear();
    return FAIL("%s: " DAMAGED ": %s", path, why);
}

p4_rc p4_artifact_reader_open(p4_artifact_reader **reader, const char *path)
{
    p4_rc rc = P4_E_SYSTEM;
    p4_h5_names names = {0};
    p4_artifact_reader *made = p4_alloc(1, sizeof *made);
    *reader = NULL;
    if (made == NULL) {
        goto done;
    }
    made->file.id = -1;
    pthread_mutex_init(&made->lock, NULL);
    made->path = p4_strdup(path);
    if (made->path == NULL) {
        goto done;
    }
    TRY(p4_h5_open(&made->file, made->path));
    TRY(check_version(&made->file));
    TRY(p4_artifact_damaged(p4_h5_list(&made->file, "tensors", &names), made->path));
    made->tensors = p4_alloc((size_t)names.count, sizeof *made->tensors);
    if (made->tensors == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (; made->count < names.count; made->count++) {
        TRY(p4_artifact_damaged(describe(&made->tensors[made->count], &made->file, names.names[made->count]),
                                made->path));
    }
    *reader = made;
    made = NULL;
done:
    p4_h5_names_free(&names);
    p4_artifact_reader_close(made);
    return rc;
}

void p4_artifact_reader_close(p4_artifact_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    p4_h5_close(&reader->file, false);
    for (int64_t i = 0; reader->tensors != NULL && i < reader->count; i++) {
        p4_h5_chunks_free(&reader->tensors[i].chunks);
    }
    pthread_mutex_destroy(&reader->lock);
    free(reader->tensors);
    free(reader->path);
    free(reader);
}

int64_t p4_artifact_reader_count(const p4_artifact_reader *reader)
{
    return reader->count;
}

const p4_artifact_tensor *p4_artifact_reader_tensor(const p4_artifact_reader *reader, int64_t index)
{
    return &reader->tensors[index].tensor;
}

static int compare_name(const void *name, const void *stored)
{
    return strcmp(name, ((const stored_tensor *)stored)->tensor.name);
}

const p4_artifact_tensor *p4_artifact_reader_find(const p4_artifact_reader *reader, const char *name)
{
    const stored_tensor *found =
        bsearch(name, reader->tensors, (size_t)reader->count, sizeof *reader->tensors, compare_name);
    return found != NULL ? &found->tensor : NULL;
}

/* Five base-3 digits reach 242; of a 2-bit code only 0, 1 and 2 mean something. */
static inline bool is_trits(p4_packing encoding, uint8_t byte)
{
    return encoding == P4_PACKING_BASE3X5 ? byte <= 242 : (byte & byte >> 1 & 0x55) == 0;
}

/* Without a way out of the loop, so that the compiler makes vectors of it. */
static bool are_trits(p4_packing encoding, const uint8_t *bytes, int64_t count)
{
    uint8_t bad = 0;
    for (int64_t i = 0; encoding == P4_PACKING_BASE3X5 && i < count; i++) {
        bad |= !is_trits(P4_PACKING_BASE3X5, bytes[i]);
    }
    for (int64_t i = 0; encoding != P4_PACKING_BASE3X5 && i < count; i++) {
        bad |= !is_trits(P4_PACKING_2BIT, bytes[i]);
    }
    return bad == 0;
}

static p4_rc check_rows(const p4_artifact_reader *reader, const p4_artifact_tensor *tensor,
                        const uint8_t *bytes, int64_t first_row, int64_t row_count)
{
    int64_t row_bytes = p4_artifact_row_bytes(tensor);
    if (are_trits(tensor->encoding, bytes, row_count * row_bytes)) {
        return P4_OK;
    }
    int64_t i = 0;
    while (is_trits(tensor->encoding, bytes[i])) {
        i++;
    }
    return FAIL("%s: byte %lld of row %lld of %s is %u, which holds no %s trits", reader->path,
                (long long)(i % row_bytes), (long long)(first_row + i / row_bytes), tensor->name, bytes[i],
                p4_packing_name(tensor->encoding));
}

/* The scales of these rows. */
static p4_rc read_scales(const p4_artifact_reader *reader, const stored_tensor *stored, uint16_t *scale,
                         int64_t first_row, int64_t row_count)
{
    p4_rc rc = P4_OK;
    const p4_artifact_tensor *tensor = &stored->tensor;
    char name[OBJECT_NAME_BYTES];
    join(name, tensor->name, "scale");
    bool one = tensor->scale_group > tensor->cols;
    TRY(p4_h5_read_rows(&reader->file, name, &stored->scale, scale, one ? 0 : first_row,
                        one ? 1 : row_count));
    int64_t scales = p4_artifact_scales(tensor, row_count), first = p4_artifact_scale_at(tensor, first_row);
    for (int64_t r = 0; r < scales; r++) {
        CHECK((scale[r] & 0x7c00u) != 0x7c00u, "%s: scale %lld of %s is not finite", reader->path,
              (long long)(first + r), tensor->name);
    }
done:
    return rc;
}

p4_rc p4_artifact_read_scales(p4_artifact_reader *reader, const p4_artifact_tensor *tensor, uint16_t *scale)
{
    return read_scales(reader, (const stored_tensor *)tensor, scale, 0, tensor->rows);
}

/* What rows of a tensor are in its dataset: that of a vector counts elements. */
static int64_t stored_rows(const p4_artifact_tensor *tensor, int64_t rows)
{
    return tensor->vector && !tensor->ternary ? rows * tensor->cols : rows;
}

static void name_values(char name[OBJECT_NAME_BYTES], const p4_artifact_tensor *tensor)
{
    join(name, tensor->name, tensor->ternary ? "packed" : "data");
}

static p4_rc read_values(const p4_artifact_reader *reader, const stored_tensor *stored, void *bytes,
                         int64_t first_row, int64_t row_count)
{
    const p4_artifact_tensor *tensor = &stored->tensor;
    char name[OBJECT_NAME_BYTES];
    name_values(name, tensor);
    return p4_h5_read_rows(&reader->file, name, &stored->values, bytes, stored_rows(tensor, first_row),
                           stored_rows(tensor, row_count));
}

p4_rc p4_artifact_read(p4_artifact_reader *reader, const p4_artifact_tensor *tensor, void *bytes,
                       uint16_t *scale, int64_t first_row, int64_t row_count)
{
    p4_rc rc = P4_OK;
    const stored_tensor *stored = (const stored_tensor *)tensor;
    TRY(read_values(reader, stored, bytes, first_row, row_count));
    if (tensor->ternary) {
        TRY(check_rows(reader, tensor, bytes, first_row, row_count));
    }
    if (tensor->ternary && scale != NULL) {
        TRY(read_scales(reader, stored, scale, first_row, row_count));
    }
done:
    return rc;
}

/* Called with the lock held. */
static p4_rc find_chunks(const p4_artifact_reader *reader, stored_tensor *stored)
{
    p4_rc rc = P4_OK;
    char name[OBJECT_NAME_BYTES];
    name_values(name, &stored->tensor);
    if (!stored->has_chunks) {
        TRY(p4_h5_chunks_find(&stored->chunks, &reader->file, name, &stored->values));
        stored->has_chunks = true;
    }
done:
    return rc;
}

static stored_tensor *own(p4_artifact_reader *reader, const p4_artifact_tensor *tensor)
{
    return &reader->tensors[(const stored_tensor *)tensor - reader->tensors];
}

p4_rc p4_artifact_chunk_rows(p4_artifact_reader *reader, const p4_artifact_tensor *tensor, int64_t *rows)
{
    stored_tensor *stored = own(reader, tensor);
    pthread_mutex_lock(&reader->lock);
    p4_rc rc = find_chunks(reader, stored);
    pthread_mutex_unlock(&reader->lock);
    *rows = rc != P4_OK || stored_rows(tensor, 1) > 1 ? 0 : stored->chunks.rows;
    return rc;
}

/* Rows [first, first + rows) of the dataset, with the chunks that they lie in. */
static p4_rc read_chunks(const stored_tensor *stored, p4_space *space, const uint8_t **at, int64_t first,
                         int64_t rows)
{
    p4_rc rc = P4_OK;
    const p4_h5_chunks *c = &stored->chunks;
    int64_t from = first / c->rows, count = (first + rows - 1) / c->rows + 1 - from;
    TRY(p4_space_need(space, (size_t)(count * c->bytes) + P4_FLETCHER32_BYTES));
    TRY(p4_h5_chunks_read(c, space->data, from, count));
    *at = (const uint8_t *)space->data + (first - from * c->rows) * stored->values.row_bytes;
done:
    return rc;
}

p4_rc p4_artifact_rows(p4_artifact_reader *reader, const p4_artifact_tensor *tensor, p4_space *space,
                       const void **rows, int64_t first_row, int64_t row_count)
{
    p4_rc rc = P4_OK;
    stored_tensor *stored = own(reader, tensor);
    const uint8_t *at = NULL;
    if (first_row < 0 || row_count < 1 || first_row > tensor->rows - row_count) {
        return FAULT("%s: rows %lld to %lld of %s were asked for, it has %lld", reader->path,
                     (long long)first_row, (long long)(first_row + row_count - 1), tensor->name,
                     (long long)tensor->rows);
    }
    pthread_mutex_lock(&reader->lock);
    rc = find_chunks(reader, stored);
    if (rc == P4_OK && stored->chunks.count == 0) {
        rc = p4_space_need(space, (size_t)(row_count * p4_artifact_row_bytes(tensor)));
        rc = rc == P4_OK ? read_values(reader, stored, space->data, first_row, row_count) : rc;
        at = space->data;
    }
    pthread_mutex_unlock(&reader->lock);
    TRY(rc);
    if (at == NULL) {
        TRY(read_chunks(stored, space, &at, stored_rows(tensor, first_row), stored_rows(tensor, row_count)));
    }
    TRY(tensor->ternary ? check_rows(reader, tensor, at, first_row, row_count) : P4_OK);
    *rows = at;
done:
    return rc;
}

p4_rc p4_artifact_read_text(p4_artifact_reader *reader, const char *name, char **text)
{
    *text = NULL;
    return p4_h5_exists(&reader->file, name) ? p4_h5_read_text(&reader->file, name, text) : P4_OK;
}

p4_rc p4_artifact_read_number(p4_artifact_reader *reader, const char *group, const char *key, double *value)
{
    *value = NAN;
    if (!p4_h5_has_attr(&reader->file, group, key)) {
        return P4_OK;
    }
    return p4_h5_read_f64_attr(&reader->file, group, key, value);
}
