/* atomic_file.h - files and directories that appear under their name only when they are complete.
 *
 * The bytes are written to "<path>.tmp" beside the target; closing syncs them, renames the file and syncs the
 * directory. A run that is killed leaves at most a .tmp, which the next run replaces; io/out/directory.h
 * makes sure that no file of somebody else has that name. */
#ifndef P4_ATOMIC_FILE_H
#define P4_ATOMIC_FILE_H

#include "src/leaf/base.h"

typedef struct p4_atomic_file {
    int fd;                        /* -1: not open */
    char *path;                    /* the final name */
    char *temp_path;               /* where the bytes are until then */
    bool kept;                     /* the name is the final one already (p4_atomic_keep) */
    _Atomic int64_t written_bytes; /* by p4_atomic_write */
    _Atomic int64_t begun_bytes;   /* of them, those whose writeback has been started */
} p4_atomic_file;

/* Records "PATH: cannot ACTION: reason of errno" (with advice when the disk is full) and returns P4_E_INPUT.
 * Local. */
p4_rc p4_fail_errno(const char *path, const char *action);

/* Starts writeback of bytes [from, to) of a file if they are enough to be worth a call. Returns the end of
 * what was started, from or to. Advice: it cannot fail. Local. */
int64_t p4_begin_writeback(int fd, int64_t from, int64_t to);

/* Starts a file. p4_atomic_close must follow, also after a failed write. Local. */
p4_rc p4_atomic_open(p4_atomic_file *file, const char *path);
p4_rc p4_atomic_write(p4_atomic_file *file, const void *bytes, size_t byte_count);
/* Starts writeback of what was written, without waiting, so that the sync at the close is short. A thread
 * other than the writing one may call it. Local. */
void p4_atomic_begin_sync(p4_atomic_file *file);
/* The file appears under its name with what is written so far, synced, and replaces an older one; more may be
 * written to it. For a file whose content says how much of it counts: it stays also where the close is not
 * ok. Local. */
p4_rc p4_atomic_keep(p4_atomic_file *file);
/* ok: the file appears under its name and replaces an older one; otherwise, or if that fails, nothing of it
 * is left. Does nothing if no file is open. Local. */
p4_rc p4_atomic_close(p4_atomic_file *file, bool ok);
/* Opens, writes and closes. Local. */
p4_rc p4_atomic_write_all(const char *path, const void *bytes, size_t byte_count);

/* "<path>.tmp", heap: where a directory is filled before p4_publish_directory. NULL when memory is out. */
char *p4_temp_path(const char *path);
/* Renames the finished directory temp_path to path; an older directory there is removed with its content once
 * the new one is in place. The files must have been synced by their writers. Where the file system cannot
 * exchange two names, the older one is "<path>.old" for a moment, or another name that is free. Local. */
p4_rc p4_publish_directory(const char *temp_path, const char *path);

/* mkdir -p; the message names a component that is not a directory. Local. */
p4_rc p4_make_directories(const char *path);
/* Removes a file, or a directory with its content, without following symbolic links; it may be absent. Local.
 */
p4_rc p4_remove_tree(const char *path);

#endif
