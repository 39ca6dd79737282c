/* h5_internal.h - shared by io/h5/h5.c and io/h5/h5_read.c. HDF5's ids travel as int64_t, which hid_t is
 * since 1.10. */
#ifndef P4_H5_INTERNAL_H
#define P4_H5_INTERNAL_H

#include "io/h5/h5.h"

/* "PATH: cannot ACTION OBJECT: innermost reason". Called directly after the HDF5 call that failed, before any
 * other. */
p4_rc p4_h5_fail(const p4_h5_file *file, const char *action, const char *object);
void p4_h5_silence(void);
void p4_h5_release(int64_t id); /* any id of ours, or negative */
/* A file access property list: no file locks (parallel file systems often have none). Negative: failed. */
int64_t p4_h5_file_access(void);
/* The stored type, which is the memory type too (little-endian). The caller releases it; negative: failed. */
int64_t p4_h5_type_create(p4_h5_type type);

/* rc and done: as TRY. The HDF5 call's success decides. */
#define H5_TRY(success, file, action, object)            \
    do {                                                 \
        if (!(success)) {                                \
            rc = p4_h5_fail((file), (action), (object)); \
            goto done;                                   \
        }                                                \
    } while (0)

#endif
