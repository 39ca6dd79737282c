/* read.h - reading an HDF5 file of which nothing is trusted: only hard links are followed, and sizes are
 * checked before use. Strings of variable length, which the attributes are, are never read: HDF5 1.10 reads
 * outside its memory when their heap is damaged. */
#ifndef P4_H5_READ_H
#define P4_H5_READ_H

#include "io/h5/file.h"

p4_rc p4_h5_open(p4_h5_file *file, const char *path);

bool p4_h5_is_group(const p4_h5_file *file, const char *name); /* reached through hard links only */

typedef struct p4_h5_shape {
    p4_h5_type type;
    int rank;
    int64_t dims[P4_H5_MAX_RANK]; /* each >= 1 */
    int64_t row_bytes;            /* of one index of dims[0]; dims[0] * row_bytes fits */
} p4_h5_shape;
/* Type and shape of a numeric dataset. Refused: rank 0 or above 4, an empty dimension, data in other files,
 * dimensions for which the file does not hold the data. */
p4_rc p4_h5_describe(const p4_h5_file *file, const char *name, p4_h5_shape *shape);
/* Rows [first_row, first_row + row_count) of a dataset that p4_h5_describe accepted, in its own type. */
p4_rc p4_h5_read_rows(const p4_h5_file *file, const char *name, const p4_h5_shape *shape, void *values,
                      int64_t first_row, int64_t row_count);
/* A scalar string dataset as p4_h5_put_text writes it. The caller frees *text. */
p4_rc p4_h5_read_text(const p4_h5_file *file, const char *name, char **text);

bool p4_h5_has_attr(const p4_h5_file *file, const char *object, const char *key);
/* Attributes; one that is absent, of another kind or too long for the buffer is an error. */
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
