/* record_file.h - records of one length in a file that one process writes, once and in order, and that others
 * map. */
#ifndef P4_RECORD_FILE_H
#define P4_RECORD_FILE_H

#include "io/file/atomic_file.h"

typedef struct p4_record_layout {
    int64_t count, record_bytes;
    uint64_t key; /* drawn for this file: another one under its name is recognized */
} p4_record_layout;

typedef struct p4_record_file {
    const char *records; /* [count][record_bytes]; 64-byte aligned; the mapping's */
    p4_record_layout layout;
    void *mapping;
    size_t mapping_bytes;
} p4_record_file;

/* Starts a file: layout.count records follow by p4_atomic_write. p4_atomic_close must follow, also after an
 * error. Local. */
p4_rc p4_record_file_begin(p4_atomic_file *file, const char *path, const p4_record_layout *layout);
/* Maps a file of this layout. P4_E_INPUT names the path and what was found. The caller closes. Local. */
p4_rc p4_record_file_map(p4_record_file *file, const char *path, const p4_record_layout *layout);
void p4_record_file_close(p4_record_file *file); /* Also of zeros. Local. */
const char *p4_record_at(const p4_record_file *file, int64_t record);

#endif
