/* arrays.h - files of named arrays: the parts of a checkpoint. An array has two dimensions and one type, and
 * lies under its name ("tensors/model.norm.weight/master") in chunks with checksums. What one group of ranks
 * wrote into several files, another reads by name from all of them. Everything is Local; like io/h5 as a
 * whole, one thread of a process uses it at a time. */
#ifndef P4_H5_ARRAYS_H
#define P4_H5_ARRAYS_H

#include "io/h5/file.h"

/* ---- writing one file ---- */

typedef struct p4_arrays_writer p4_arrays_writer;
/* Starts the file under a temporary name. p4_arrays_finish must follow. */
p4_rc p4_arrays_create(p4_arrays_writer **writer, const char *path);
/* The same in memory: nothing is written, and path only names the file in messages; the caller keeps it
 * alive. */
p4_rc p4_arrays_create_image(p4_arrays_writer **writer, const char *path);
/* What the file would hold, valid until p4_arrays_finish. No array follows. */
p4_rc p4_arrays_image(p4_arrays_writer *writer, const void **bytes, int64_t *byte_count);
/* values [rows, cols], each at least 1. A name occurs once. */
p4_rc p4_arrays_put(p4_arrays_writer *writer, const char *name, p4_h5_type type, int64_t rows, int64_t cols,
                    const void *values);
/* Arrays written so far. */
int64_t p4_arrays_written(const p4_arrays_writer *writer);
/* ok: the file, unless it is in memory, appears under its name, complete and synced; otherwise, or if that
 * fails, nothing is left. Frees the writer in either case; NULL does nothing. */
p4_rc p4_arrays_finish(p4_arrays_writer *writer, bool ok);

/* ---- reading several files as one ---- */

typedef struct p4_arrays p4_arrays;
/* Opens `count` files; the first that cannot be opened is named. */
p4_rc p4_arrays_open(p4_arrays **arrays, char *const *paths, int64_t count);
void p4_arrays_close(p4_arrays *arrays); /* NULL does nothing. */

typedef struct p4_array_form {
    p4_h5_type type;
    int64_t rows, cols;
} p4_array_form;
bool p4_arrays_have(const p4_arrays *arrays, const char *name);
/* The form of an array that is there. P4_E_INPUT: it is in none of the files, or is not an array. */
p4_rc p4_arrays_describe(const p4_arrays *arrays, const char *name, p4_array_form *form);
/* The whole array, whose form must be this one. P4_E_INPUT names the file and the array: it is missing, has
 * another form, or fails its checksum. */
p4_rc p4_arrays_read(const p4_arrays *arrays, const char *name, p4_h5_type type, int64_t rows, int64_t cols,
                     void *values);
/* Reads every array of file `index` and so compares every checksum. */
p4_rc p4_arrays_verify(const p4_arrays *arrays, int64_t index);

#endif
