/* h5.h - the thin layer over serial HDF5 (>= 1.10.7); hdf5.h is included by io/h5*.c only.
 *
 * Objects are named by their path inside the file ("tensors/NAME/packed"). Each failure is one message: the
 * file, what was being done, HDF5's innermost reason. HDF5's own error printing is switched off by the first
 * open or create. Not thread-safe, as HDF5 is not: one thread of a process uses it. Everything here is Local.
 */
#ifndef P4_H5_H
#define P4_H5_H

#include "io/file/atomic_file.h"

enum { P4_H5_MAX_RANK = 4 };

typedef enum p4_h5_type { P4_H5_U8, P4_H5_F16, P4_H5_F32, P4_H5_F64, P4_H5_I64, P4_H5_OTHER } p4_h5_type;
int64_t p4_h5_type_bytes(p4_h5_type type); /* 0 for P4_H5_OTHER */

typedef struct p4_h5_file {
    int64_t id;             /* -1: not open */
    const char *path;       /* names the file in messages; the caller keeps it alive */
    int fd;                 /* writing: the atomic file's, which owns it */
    int64_t reserved_bytes; /* writing: disk space that is ours */
    int64_t cached_bytes;   /* writing: at most so much is given but has no place in the file yet */
    int64_t begun_bytes;    /* writing: the first so many are on their way to the disk */
} p4_h5_file;

/* ---- writing ----
 * HDF5 does not survive a write that fails: objects stay half closed and the process crashes at its end. So
 * disk space is reserved before each call that needs some, and a full disk is an ordinary error before HDF5
 * meets it. */

/* Starts an HDF5 file in a newly opened atomic file, readable by every HDF5 from 1.8 on. p4_h5_close must
 * follow, and only then p4_atomic_close. */
p4_rc p4_h5_create(p4_h5_file *file, p4_atomic_file *atomic);
/* ok: everything must be written and nothing still open, or this fails; otherwise the file is left as it is.
 * Closed in either case. */
p4_rc p4_h5_close(p4_h5_file *file, bool ok);

p4_rc p4_h5_group(p4_h5_file *file, const char *name); /* with its parents; being there already is fine */
/* Attributes of the group or dataset `object` ("/": the root). */
p4_rc p4_h5_put_text_attr(p4_h5_file *file, const char *object, const char *key, const char *text);
p4_rc p4_h5_put_f64_attr(p4_h5_file *file, const char *object, const char *key, double value);
p4_rc p4_h5_put_i64_attr(p4_h5_file *file, const char *object, const char *key, int64_t value);
p4_rc p4_h5_put_i64s_attr(p4_h5_file *file, const char *object, const char *key, const int64_t *values,
                          int count);
/* A scalar UTF-8 string dataset of exactly the text's bytes. */
p4_rc p4_h5_put_text(p4_h5_file *file, const char *name, const char *text);
/* A whole 1-D dataset. */
p4_rc p4_h5_put_vector(p4_h5_file *file, const char *name, p4_h5_type type, const void *values,
                       int64_t count);

/* A dataset of shape[0] rows that come in order, in pieces: chunks of whole rows near 1 MiB, each with a
 * Fletcher32 checksum. `file` must outlive it. */
typedef struct p4_h5_rows {
    p4_h5_file *file;
    const char *name; /* for messages: valid until the close */
    int64_t id;       /* -1: not open */
    p4_h5_type type;
    int rank;
    int64_t shape[P4_H5_MAX_RANK];
    int64_t rows_done, cached_bytes;
} p4_h5_rows;
p4_rc p4_h5_rows_create(p4_h5_rows *rows, p4_h5_file *file, const char *name, p4_h5_type type, int rank,
                        const int64_t *shape);
p4_rc p4_h5_rows_append(p4_h5_rows *rows, const void *values, int64_t row_count);
p4_rc p4_h5_rows_close(p4_h5_rows *rows); /* that all rows came is the caller's check */

/* ---- reading ----
 * Nothing in a file is trusted: only hard links are followed, sizes are checked before use. Strings of
 * variable length, which the attributes are, are not read at all: HDF5 1.10 reads outside its memory when
 * their heap is damaged. */

p4_rc p4_h5_open(p4_h5_file *file, const char *path);
bool p4_h5_exists(const p4_h5_file *file, const char *name); /* reached through hard links only */

typedef struct p4_h5_shape {
    p4_h5_type type;
    int rank;
    int64_t dims[P4_H5_MAX_RANK]; /* each >= 1 */
    int64_t row_bytes;            /* of one index of dims[0]; dims[0] * row_bytes fits */
} p4_h5_shape;
/* Type and shape of a numeric dataset. Refused: rank 0 or above 4, an empty dimension, data kept in other
 * files, dimensions that promise more than the file holds. */
p4_rc p4_h5_describe(const p4_h5_file *file, const char *name, p4_h5_shape *shape);
/* rows [first_row, first_row + row_count) of a dataset that p4_h5_describe accepted, in the type it has. */
p4_rc p4_h5_read_rows(const p4_h5_file *file, const char *name, const p4_h5_shape *shape, void *values,
                      int64_t first_row, int64_t row_count);
/* A scalar string dataset as p4_h5_put_text writes it. The caller frees *text. */
p4_rc p4_h5_read_text(const p4_h5_file *file, const char *name, char **text);
bool p4_h5_has_attr(const p4_h5_file *file, const char *object, const char *key);
/* Attributes: absent, of another kind or too long for the buffer is an error. */
p4_rc p4_h5_read_f64_attr(const p4_h5_file *file, const char *object, const char *key, double *value);
p4_rc p4_h5_read_i64s_attr(const p4_h5_file *file, const char *object, const char *key, int64_t *values,
                           int max_count, int *count);
/* The names in a group, sorted; p4_h5_names_free frees them. */
typedef struct p4_h5_names {
    int64_t count, capacity;
    char **names;
} p4_h5_names;
p4_rc p4_h5_list(const p4_h5_file *file, const char *group, p4_h5_names *names);
void p4_h5_names_free(p4_h5_names *names);

#endif
