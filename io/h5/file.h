/* file.h - an open HDF5 file: what reading (read.h) and writing (write.h) share. A thin layer over serial
 * HDF5 (1.10.7 or later), which only io/h5 includes.
 *
 * Objects are named by their path inside the file ("tensors/NAME/packed"). A failure is one message: the
 * file, what was being done, HDF5's innermost reason. Opening or creating a file switches HDF5's own error
 * printing off. Like HDF5 itself this is not thread-safe: one thread of a process uses it. Everything in
 * io/h5 is Local. */
#ifndef P4_H5_FILE_H
#define P4_H5_FILE_H

#include "src/leaf/base.h"

enum { P4_H5_MAX_RANK = 4, P4_H5_FOUND_BYTES = 512 };

typedef enum p4_h5_type {
    P4_H5_U8,
    P4_H5_U16,
    P4_H5_F16,
    P4_H5_F32,
    P4_H5_F64,
    P4_H5_I64,
    P4_H5_OTHER
} p4_h5_type;
int64_t p4_h5_type_bytes(p4_h5_type type); /* 0 for P4_H5_OTHER */

typedef struct p4_h5_file {
    int64_t id;             /* -1: not open */
    const char *path;       /* names the file in messages; the caller keeps it alive */
    int fd;                 /* writing: the atomic file's, which owns it; -1: the file is in memory */
    int64_t reserved_bytes; /* writing: disk space that is reserved for the file */
    int64_t cached_bytes; /* writing: at most this much was passed to HDF5 without a place in the file yet */
    int64_t begun_bytes;  /* writing: the first so many are on their way to the disk */
    char *found;          /* reading: the last path that p4_h5_exists found, heap [P4_H5_FOUND_BYTES] */
} p4_h5_file;

/* "1.10.8": of the library that runs. */
enum { P4_H5_VERSION_BYTES = 32 };
char *p4_h5_version(char text[P4_H5_VERSION_BYTES]);

/* For programs, before anything else of io/h5: HDF5 closes nothing when the process exits. Its exit handler
 * crashes on a file whose close failed because the disk took no more; here every file is closed by its user.
 */
void p4_h5_leave_exit_alone(void);

bool p4_h5_exists(const p4_h5_file *file, const char *name); /* reached through hard links only */
/* ok: everything must be written and no object still open, or this fails; otherwise the file is left as it
 * is. It is closed in either case. */
p4_rc p4_h5_close(p4_h5_file *file, bool ok);

#endif
