/* write.h - writing an HDF5 file.
 *
 * HDF5 does not survive a write that fails: objects stay half closed, and the process crashes when it ends.
 * So disk space is reserved before each call that needs some, and a full disk is an ordinary error before
 * HDF5 runs into it. */
#ifndef P4_H5_WRITE_H
#define P4_H5_WRITE_H

#include "io/file/atomic_file.h"
#include "io/h5/file.h"

/* Starts an HDF5 file in a newly opened atomic file, readable by every HDF5 from 1.8 on. p4_h5_close must
 * follow, and only then p4_atomic_close. */
p4_rc p4_h5_create(p4_h5_file *file, p4_atomic_file *atomic);

/* The same in memory, under the name that messages give it; the caller keeps path alive. */
p4_rc p4_h5_create_image(p4_h5_file *file, const char *path);
/* What that file holds so far, complete: valid until anything else is done with it. */
p4_rc p4_h5_image(p4_h5_file *file, const void **bytes, int64_t *byte_count);

p4_rc p4_h5_group(p4_h5_file *file, const char *name); /* with its parents; it may exist */
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

/* A dataset of shape[0] rows that arrive in order, in pieces: chunks of whole rows near 1 MiB, each with a
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
p4_rc p4_h5_rows_close(p4_h5_rows *rows); /* the caller checks that all rows arrived */

#endif
