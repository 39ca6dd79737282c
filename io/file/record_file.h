/* record_file.h - records of one length in a file that one process writes, once and in order, and that others
 * map. The file says how many of its records count. */
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
/* The `count` records that are written are there under the file's name for a process that continues, whatever
 * becomes of this one; more may follow. Local. */
p4_rc p4_record_file_keep(p4_atomic_file *file, const p4_record_layout *layout, int64_t count);
/* Closes the file, which holds `count` records, as many as announced or fewer. Local. */
p4_rc p4_record_file_finish(p4_atomic_file *file, const p4_record_layout *layout, int64_t count);
/* How many records of this layout, with its key, a file has: up to layout->count. 0: there is none, or it is
 * another file. Local. */
int64_t p4_record_file_count(const char *path, const p4_record_layout *layout);
/* Maps a file of this layout. P4_E_INPUT names the path and what was found. The caller closes. Local. */
p4_rc p4_record_file_map(p4_record_file *file, const char *path, const p4_record_layout *layout);
void p4_record_file_close(p4_record_file *file); /* Also of zeros. Local. */
const char *p4_record_at(const p4_record_file *file, int64_t record);

#endif
