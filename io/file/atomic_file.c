#define _GNU_SOURCE /* sync_file_range, renameat2 */
#include "io/file/atomic_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    WRITEBACK_BYTES = 8 << 20, /* the least for which writeback is started */
    FREE_NAMES = 100,
};

p4_rc p4_fail_errno(const char *path, const char *action)
{
    int reason = errno;
    const char *advice = reason == ENOSPC   ? " (the disk is full)"
                         : reason == EDQUOT ? " (your quota on this file system is used up)"
                         : reason == EROFS  ? " (the file system is mounted read-only)"
                                            : "";
    return FAIL("%s: cannot %s: %s%s", path, action, strerror(reason), advice);
}

char *p4_temp_path(const char *path)
{
    return p4_format("%s.tmp", path);
}

/* The directory that holds `path`, heap. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return p4_strdup(".");
    }
    return slash == path ? p4_strdup("/") : p4_format("%.*s", (int)(slash - path), path);
}

/* Makes a rename inside the directory of `path` durable. */
static p4_rc sync_parent(const char *path)
{
    p4_rc rc = P4_OK;
    int fd = -1;
    char *parent = parent_of(path);
    if (parent == NULL) {
        return P4_E_SYSTEM;
    }
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some network file systems cannot sync a directory (EINVAL, ENOTSUP); there the rename must do. A
     * directory that may be written but not listed (EACCES) is no error either. */
    if (fd < 0 && errno != EACCES) {
        rc = p4_fail_errno(parent, "open the directory");
    } else if (fd >= 0 && fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) {
        rc = p4_fail_errno(parent, "sync the directory");
    }
    if (fd >= 0) {
        close(fd);
    }
    free(parent);
    return rc;
}

static void forget(p4_atomic_file *file)
{
    if (file->fd >= 0) {
        close(file->fd);
    }
    free(file->path);
    free(file->temp_path);
    *file = (p4_atomic_file){.fd = -1};
}

/* Some reasons, such as a read-only file system, are given whether or not there is an older file. */
static p4_rc fail_unlink(const p4_atomic_file *file)
{
    struct stat status;
    int reason = errno;
    bool older = lstat(file->temp_path, &status) == 0;
    errno = reason;
    return older ? p4_fail_errno(file->temp_path, "replace an older temporary file")
                 : p4_fail_errno(file->path, "write");
}

p4_rc p4_atomic_open(p4_atomic_file *file, const char *path)
{
    p4_rc rc = P4_OK;
    *file = (p4_atomic_file){.fd = -1, .path = p4_strdup(path), .temp_path = p4_temp_path(path)};
    if (file->path == NULL || file->temp_path == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    /* A killed run's file is removed first; O_EXCL follows no link that somebody else put there. */
    if (unlink(file->temp_path) != 0 && errno != ENOENT) {
        rc = fail_unlink(file);
        goto done;
    }
    file->fd = open(file->temp_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file->fd < 0) {
        rc = p4_fail_errno(path, "create the file");
    }
done:
    if (rc != P4_OK) {
        forget(file);
    }
    return rc;
}

p4_rc p4_atomic_write(p4_atomic_file *file, const void *bytes, size_t byte_count)
{
    const char *from = bytes;
    while (byte_count > 0) {
        ssize_t written = write(file->fd, from, byte_count);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return p4_fail_errno(file->path, "write");
        }
        from += written;
        byte_count -= (size_t)written;
        file->written_bytes += written;
    }
    return P4_OK;
}

int64_t p4_begin_writeback(int fd, int64_t from, int64_t to)
{
    if (to - from < WRITEBACK_BYTES) {
        return from;
    }
    (void)sync_file_range(fd, from, to - from, SYNC_FILE_RANGE_WRITE);
    return to;
}

void p4_atomic_begin_sync(p4_atomic_file *file)
{
    int64_t from = file->begun_bytes, to = file->written_bytes;
    /* One of several threads gets the range. */
    if (to - from >= WRITEBACK_BYTES && atomic_compare_exchange_strong(&file->begun_bytes, &from, to)) {
        (void)p4_begin_writeback(file->fd, from, to);
    }
}

/* Under the final name, for good. */
static p4_rc put_in_place(p4_atomic_file *file)
{
    if (!file->kept && rename(file->temp_path, file->path) != 0) {
        return p4_fail_errno(file->path, "put the finished file in place");
    }
    file->kept = true;
    return sync_parent(file->path);
}

p4_rc p4_atomic_keep(p4_atomic_file *file)
{
    return fsync(file->fd) == 0 ? put_in_place(file) : p4_fail_errno(file->path, "write");
}

p4_rc p4_atomic_close(p4_atomic_file *file, bool ok)
{
    p4_rc rc = P4_OK;
    if (file->path == NULL) {
        return P4_OK;
    }
    if (ok && fsync(file->fd) != 0) {
        rc = p4_fail_errno(file->path, "write");
    }
    if (close(file->fd) != 0 && ok && rc == P4_OK) { /* network file systems report a full disk here */
        rc = p4_fail_errno(file->path, "write");
    }
    file->fd = -1;
    rc = ok && rc == P4_OK ? put_in_place(file) : rc;
    if (!file->kept) {
        unlink(file->temp_path);
    }
    forget(file);
    return rc;
}

p4_rc p4_atomic_write_all(const char *path, const void *bytes, size_t byte_count)
{
    p4_atomic_file file;
    p4_rc rc = p4_atomic_open(&file, path);
    if (rc == P4_OK) {
        rc = p4_atomic_write(&file, bytes, byte_count);
        p4_rc closed = p4_atomic_close(&file, rc == P4_OK);
        rc = rc != P4_OK ? rc : closed;
    }
    return rc;
}

/* A name beside `path` that nobody has, heap. */
static p4_rc free_name(char **name, const char *path)
{
    struct stat status;
    for (int i = 0; i < FREE_NAMES; i++) {
        *name = i == 0 ? p4_format("%s.old", path) : p4_format("%s.old%d", path, i);
        if (*name == NULL) {
            return P4_E_SYSTEM;
        }
        if (lstat(*name, &status) != 0) {
            return P4_OK;
        }
        free(*name);
    }
    *name = NULL;
    return FAIL("%s.old: exists, and so do %d more such names: remove them", path, FREE_NAMES - 1);
}

/* Two renames, where the file system cannot exchange: a directory cannot be renamed over one that holds
 * files. */
static p4_rc replace_directory(const char *temp_path, const char *path)
{
    p4_rc rc = P4_OK;
    char *old_path = NULL;
    TRY(free_name(&old_path, path));
    bool moved = rename(path, old_path) == 0;
    if (!moved && errno != ENOENT) {
        rc = p4_fail_errno(path, "move the older directory aside");
        goto done;
    }
    if (rename(temp_path, path) != 0) {
        rc = p4_fail_errno(path, "put the finished directory in place");
        if (moved && rename(old_path, path) != 0) {
            WARN("%s: the older directory is now %s", path, old_path);
        }
        goto done;
    }
    TRY(sync_parent(path));
    rc = moved ? p4_remove_tree(old_path) : P4_OK;
done:
    free(old_path);
    return rc;
}

p4_rc p4_publish_directory(const char *temp_path, const char *path)
{
    p4_rc rc = P4_OK;
    if (renameat2(AT_FDCWD, temp_path, AT_FDCWD, path, RENAME_EXCHANGE) != 0) {
        return replace_directory(temp_path, path);
    }
    TRY(sync_parent(path));
    rc = p4_remove_tree(temp_path);
done:
    return rc;
}

/* Makes one directory unless it is there. */
static p4_rc make_directory(const char *path)
{
    struct stat status;
    if (mkdir(path, 0777) == 0) {
        return P4_OK;
    }
    int reason = errno;
    if (stat(path, &status) == 0) {
        return S_ISDIR(status.st_mode) ? P4_OK : FAIL("%s: is a file where a directory is needed", path);
    }
    errno = reason;
    return reason == EEXIST ? FAIL("%s: is a symbolic link to nothing where a directory is needed", path)
                            : p4_fail_errno(path, "create the directory");
}

p4_rc p4_make_directories(const char *path)
{
    p4_rc rc = P4_OK;
    char *partial = p4_strdup(path);
    if (partial == NULL) {
        return P4_E_SYSTEM;
    }
    for (char *at = partial; rc == P4_OK && *at != '\0'; at++) {
        if (*at == '/' && at > partial && at[-1] != '/') {
            *at = '\0';
            rc = make_directory(partial);
            *at = '/';
        }
    }
    if (rc == P4_OK) {
        rc = make_directory(partial);
    }
    free(partial);
    return rc;
}

/* Empties the directory behind fd; -1 with errno on failure. Takes the descriptor. Recursion ends at PATH_MAX
 * / 2. */
static int empty_directory(int fd)
{
    int failed = 0;
    DIR *directory = fdopendir(fd);
    if (directory == NULL) {
        close(fd);
        return -1;
    }
    for (struct dirent *entry; failed == 0 && (entry = readdir(directory)) != NULL;) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || unlinkat(fd, name, 0) == 0) {
            continue;
        }
        int inner = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        failed = inner < 0 || empty_directory(inner) != 0 || unlinkat(fd, name, AT_REMOVEDIR) != 0 ? -1 : 0;
    }
    int reason = errno;
    closedir(directory);
    errno = reason;
    return failed;
}

p4_rc p4_remove_tree(const char *path)
{
    if (unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR) {
        return P4_OK;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) { /* unlink says of a read-only file system first that it is one */
        return P4_OK;
    }
    if (fd < 0 || empty_directory(fd) != 0 || rmdir(path) != 0) {
        return p4_fail_errno(path, "remove");
    }
    return P4_OK;
}
