/* hdf5_calls.h - helpers around calls of HDF5, for io/h5/read.c and write.c; implemented by file.c. HDF5's
 * ids are held as int64_t, which hid_t is since 1.10. */
#ifndef P4_HDF5_CALLS_H
#define P4_HDF5_CALLS_H

#include "io/h5/file.h"

/* "PATH: cannot ACTION OBJECT: innermost reason". To be called directly after the HDF5 call that failed. */
p4_rc p4_h5_fail(const p4_h5_file *file, const char *action, const char *object);
void p4_h5_silence(void);
void p4_h5_release(int64_t id); /* any kind of id; a negative one is ignored */
/* A file access property list without file locks, which parallel file systems often lack. Negative: failed.
 */
int64_t p4_h5_file_access(void);
/* The stored type, which is the memory type too (little-endian). The caller releases it; negative: failed. */
int64_t p4_h5_type_create(p4_h5_type type);

/* As TRY, by whether the HDF5 call succeeded. */
#define H5_TRY(success, file, action, object)            \
    do {                                                 \
        if (!(success)) {                                \
            rc = p4_h5_fail((file), (action), (object)); \
            goto done;                                   \
        }                                                \
    } while (0)

#endif
