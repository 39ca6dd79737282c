#include "io/h5/arrays.h"

#include <stdlib.h>
#include <string.h>

#include "io/h5/read.h"
#include "io/h5/write.h"

enum {
    VERIFIED_BYTES = 4 << 20, /* of whole rows at a time, unless one row is more */
    MAX_DEPTH = 8,            /* of groups: names have three parts */
};

/* ---- writing ---- */

struct p4_arrays_writer {
    p4_atomic_file atomic;
    p4_h5_file file;
    int64_t written;
};

p4_rc p4_arrays_create(p4_arrays_writer **writer, const char *path)
{
    p4_rc rc = P4_OK;
    p4_arrays_writer *made = *writer = p4_alloc(1, sizeof *made);
    if (made == NULL) {
        return P4_E_SYSTEM;
    }
    made->atomic.fd = -1;
    made->file.id = -1;
    TRY(p4_atomic_open(&made->atomic, path));
    TRY(p4_h5_create(&made->file, &made->atomic));
done:
    if (rc != P4_OK) {
        p4_arrays_finish(made, false);
        *writer = NULL;
    }
    return rc;
}

p4_rc p4_arrays_create_image(p4_arrays_writer **writer, const char *path)
{
    p4_arrays_writer *made = *writer = p4_alloc(1, sizeof *made);
    if (made == NULL) {
        return P4_E_SYSTEM;
    }
    made->atomic.fd = -1; /* none is open */
    p4_rc rc = p4_h5_create_image(&made->file, path);
    if (rc != P4_OK) {
        free(made);
        *writer = NULL;
    }
    return rc;
}

p4_rc p4_arrays_image(p4_arrays_writer *writer, const void **bytes, int64_t *byte_count)
{
    return p4_h5_image(&writer->file, bytes, byte_count);
}

p4_rc p4_arrays_put(p4_arrays_writer *writer, const char *name, p4_h5_type type, int64_t rows, int64_t cols,
                    const void *values)
{
    const int64_t shape[2] = {rows, cols};
    p4_h5_rows array;
    p4_rc rc = p4_h5_rows_create(&array, &writer->file, name, type, 2, shape);
    if (rc == P4_OK) {
        rc = p4_h5_rows_append(&array, values, rows);
        p4_rc closed = p4_h5_rows_close(&array);
        rc = rc != P4_OK ? rc : closed;
    }
    writer->written += rc == P4_OK;
    return rc;
}

int64_t p4_arrays_written(const p4_arrays_writer *writer)
{
    return writer->written;
}

p4_rc p4_arrays_finish(p4_arrays_writer *writer, bool ok)
{
    if (writer == NULL) {
        return P4_OK;
    }
    p4_rc rc = p4_h5_close(&writer->file, ok);
    p4_rc closed = p4_atomic_close(&writer->atomic, ok && rc == P4_OK);
    free(writer);
    return rc != P4_OK ? rc : closed;
}

/* ---- reading ---- */

struct p4_arrays {
    p4_h5_file *files; /* [count] */
    char **paths;      /* [count], which the files name in messages */
    int64_t count;
};

p4_rc p4_arrays_open(p4_arrays **arrays, char *const *paths, int64_t count)
{
    p4_rc rc = P4_OK;
    p4_arrays *made = *arrays = p4_alloc(1, sizeof *made);
    if (made == NULL) {
        return P4_E_SYSTEM;
    }
    made->files = p4_alloc((size_t)count, sizeof *made->files);
    made->paths = p4_alloc((size_t)count, sizeof *made->paths);
    TRY(made->files != NULL && made->paths != NULL ? P4_OK : P4_E_SYSTEM);
    for (; made->count < count; made->count++) {
        char *path = made->paths[made->count] = p4_strdup(paths[made->count]);
        TRY(path != NULL ? p4_h5_open(&made->files[made->count], path) : P4_E_SYSTEM);
    }
done:
    if (rc != P4_OK) {
        if (made->paths != NULL && made->count < count) {
            free(made->paths[made->count]);
        }
        p4_arrays_close(made);
        *arrays = NULL;
    }
    return rc;
}

void p4_arrays_close(p4_arrays *arrays)
{
    for (int64_t i = 0; arrays != NULL && i < arrays->count; i++) {
        (void)p4_h5_close(&arrays->files[i], false); /* nothing was written */
        free(arrays->paths[i]);
    }
    if (arrays != NULL) {
        free(arrays->files);
        free(arrays->paths);
        free(arrays);
    }
}

/* The file that has the array; NULL: none has. */
static const p4_h5_file *file_of(const p4_arrays *arrays, const char *name)
{
    for (int64_t i = 0; i < arrays->count; i++) {
        if (p4_h5_exists(&arrays->files[i], name)) {
            return &arrays->files[i];
        }
    }
    return NULL;
}

bool p4_arrays_have(const p4_arrays *arrays, const char *name)
{
    return file_of(arrays, name) != NULL;
}

static p4_rc find(const p4_arrays *arrays, const char *name, const p4_h5_file **file, p4_h5_shape *shape)
{
    p4_rc rc = P4_OK;
    *file = file_of(arrays, name);
    CHECK(*file != NULL, "%s: this file and the other parts have no array %s",
          arrays->count > 0 ? arrays->paths[0] : "a checkpoint without parts", name);
    TRY(p4_h5_describe(*file, name, shape));
    CHECK(shape->rank == 2, "%s: %s has %d dimensions, expected 2", (*file)->path, name, shape->rank);
done:
    return rc;
}

p4_rc p4_arrays_describe(const p4_arrays *arrays, const char *name, p4_array_form *form)
{
    const p4_h5_file *file;
    p4_h5_shape shape;
    p4_rc rc = find(arrays, name, &file, &shape);
    if (rc == P4_OK) {
        *form = (p4_array_form){.type = shape.type, .rows = shape.dims[0], .cols = shape.dims[1]};
    }
    return rc;
}

p4_rc p4_arrays_read(const p4_arrays *arrays, const char *name, p4_h5_type type, int64_t rows, int64_t cols,
                     void *values)
{
    p4_rc rc = P4_OK;
    const p4_h5_file *file;
    p4_h5_shape shape;
    TRY(find(arrays, name, &file, &shape));
    CHECK(shape.type == type && shape.dims[0] == rows && shape.dims[1] == cols,
          "%s: %s is [%lld, %lld] of %lld bytes each, expected [%lld, %lld] of %lld", file->path, name,
          (long long)shape.dims[0], (long long)shape.dims[1], (long long)p4_h5_type_bytes(shape.type),
          (long long)rows, (long long)cols, (long long)p4_h5_type_bytes(type));
    TRY(p4_h5_read_rows(file, name, &shape, values, 0, rows));
done:
    return rc;
}

static p4_rc verify_array(const p4_h5_file *file, const char *name)
{
    p4_rc rc = P4_OK;
    p4_h5_shape shape;
    char *buffer = NULL;
    TRY(p4_h5_describe(file, name, &shape));
    int64_t block = p4_min_i64(shape.dims[0], p4_max_i64(1, VERIFIED_BYTES / shape.row_bytes));
    buffer = p4_alloc((size_t)block, (size_t)shape.row_bytes);
    TRY(buffer != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t row = 0; row < shape.dims[0]; row += block) {
        TRY(p4_h5_read_rows(file, name, &shape, buffer, row, p4_min_i64(block, shape.dims[0] - row)));
    }
done:
    free(buffer);
    return rc;
}

/* Everything below a group; recursion ends at MAX_DEPTH. */
static p4_rc verify_group(const p4_h5_file *file, const char *group, int depth)
{
    p4_rc rc = P4_OK;
    p4_h5_names names;
    char *path = NULL;
    CHECK(depth <= MAX_DEPTH, "%s: groups lie more than %d deep", file->path, (int)MAX_DEPTH);
    TRY(p4_h5_list(file, group, &names));
    for (int64_t i = 0; rc == P4_OK && i < names.count; i++) {
        path =
            strcmp(group, "/") == 0 ? p4_strdup(names.names[i]) : p4_format("%s/%s", group, names.names[i]);
        rc = path == NULL                 ? P4_E_SYSTEM
             : p4_h5_is_group(file, path) ? verify_group(file, path, depth + 1)
                                          : verify_array(file, path);
        free(path);
    }
    p4_h5_names_free(&names);
done:
    return rc;
}

p4_rc p4_arrays_verify(const p4_arrays *arrays, int64_t index)
{
    return verify_group(&arrays->files[index], "/", 0);
}
