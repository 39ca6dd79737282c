/* atomic_file.h - files and directories that appear under their name only when complete.
 *
 * The bytes go to "<path>.tmp" beside the target; finishing syncs them, renames, and syncs the directory. A
 * killed run leaves at most a .tmp, which the next run replaces. */
#ifndef P4_ATOMIC_FILE_H
#define P4_ATOMIC_FILE_H

#include "src/leaf/base.h"

typedef struct p4_atomic_file {
    int fd;                        /* -1: not open */
    char *path;                    /* the final name */
    char *temp_path;               /* where the bytes are until then */
    _Atomic int64_t written_bytes; /* by p4_atomic_write */
    _Atomic int64_t begun_bytes;   /* of them, those on their way to the disk */
} p4_atomic_file;

/* Records "PATH: cannot ACTION: reason of errno" (with advice when the disk is full) and returns P4_E_INPUT.
 * Local. */
p4_rc p4_fail_errno(const char *path, const char *action);

/* Where bytes [from, to) of a file are, if they are worth a call, lets the disk begin with them; returns up
 * to where it was asked for. Advice: nothing can fail. Local. */
int64_t p4_begin_writeback(int fd, int64_t from, int64_t to);

/* Starts a file. p4_atomic_close must follow, also after a failed write. Local. */
p4_rc p4_atomic_open(p4_atomic_file *file, const char *path);
p4_rc p4_atomic_write(p4_atomic_file *file, const void *bytes, size_t byte_count);
/* Lets the disk begin with what was written and waits for nothing, so that the sync at the close has little
 * left to wait for. Another thread may call it than the one that writes. Local. */
void p4_atomic_begin_sync(p4_atomic_file *file);
/* ok: the file appears under its name, replacing an older one; otherwise, or when that fails, nothing is left
 * of it. Without an open file it does nothing. Local. */
p4_rc p4_atomic_close(p4_atomic_file *file, bool ok);
/* All of it at once. Local. */
p4_rc p4_atomic_write_all(const char *path, const void *bytes, size_t byte_count);

/* "<path>.tmp", heap: where a directory is filled before p4_publish_directory. NULL when memory is out. */
char *p4_temp_path(const char *path);
/* Puts the finished directory temp_path in the place of path; an older directory there is removed with its
 * content once the new one stands. Its files must have been synced by their writers. Local. */
p4_rc p4_publish_directory(const char *temp_path, const char *path);

/* mkdir -p; a component that is not a directory is named. Local. */
p4_rc p4_make_directories(const char *path);
/* Removes a file or a directory with everything in it, following no symbolic link; absent is fine. Local. */
p4_rc p4_remove_tree(const char *path);

#endif
