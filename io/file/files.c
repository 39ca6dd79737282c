#include "io/file/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file/atomic_file.h"

enum { COPY_BYTES = 1 << 18 };

/* Git stores a large file as a few lines that name it, until "git lfs pull" fetches it. */
static p4_rc refuse_lfs_pointer(int fd, const char *path, off_t bytes)
{
    static const char first_line[] = "version https://git-lfs.github.com/spec/";
    enum { POINTER_BYTES_MAX = 1024, FIRST_BYTES = sizeof first_line - 1 };
    char found[FIRST_BYTES];
    bool pointer = bytes < POINTER_BYTES_MAX && pread(fd, found, FIRST_BYTES, 0) == FIRST_BYTES &&
                   memcmp(found, first_line, FIRST_BYTES) == 0;
    return pointer
               ? FAIL("%s: a git-lfs pointer, not the file itself; run \"git lfs pull\" in its repository",
                      path)
               : P4_OK;
}

p4_rc p4_file_open(int *fd, uint64_t *bytes, const char *path)
{
    p4_rc rc = P4_OK;
    struct stat status;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    CHECK(*fd >= 0, "%s: cannot open: %s", path, strerror(errno));
    CHECK(fstat(*fd, &status) == 0, "%s: cannot examine: %s", path, strerror(errno));
    CHECK(S_ISREG(status.st_mode), "%s: not a regular file", path);
    TRY(refuse_lfs_pointer(*fd, path, status.st_size));
    *bytes = (uint64_t)status.st_size;
done:
    if (rc != P4_OK && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return rc;
}

/* Up to `count` bytes; less only at the end of the file. */
static p4_rc read_some(int fd, const char *path, void *to, size_t count, size_t *got)
{
    *got = 0;
    while (*got < count) {
        ssize_t piece = read(fd, (char *)to + *got, count - *got);
        if (piece < 0 && errno == EINTR) {
            continue;
        }
        if (piece < 0) {
            return FAIL("%s: cannot read: %s", path, strerror(errno));
        }
        if (piece == 0) {
            break;
        }
        *got += (size_t)piece;
    }
    return P4_OK;
}

p4_rc p4_file_read(char **text, size_t *bytes, const char *path, size_t limit_bytes)
{
    p4_rc rc = P4_OK;
    int fd = -1;
    uint64_t file_bytes;
    *text = NULL;
    TRY(p4_file_open(&fd, &file_bytes, path));
    CHECK(file_bytes <= limit_bytes, "%s: %llu bytes, expected at most %zu", path,
          (unsigned long long)file_bytes, limit_bytes);
    *text = p4_alloc((size_t)file_bytes + 1, 1);
    if (*text == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    TRY(read_some(fd, path, *text, (size_t)file_bytes, bytes));
    const char *nul = memchr(*text, '\0', *bytes);
    CHECK(nul == NULL, "%s: byte %td is NUL, expected text", path, nul - *text);
done:
    if (fd >= 0) {
        close(fd);
    }
    if (rc != P4_OK) {
        free(*text);
        *text = NULL;
    }
    return rc;
}

p4_rc p4_file_copy(const char *to, const char *from)
{
    p4_rc rc = P4_OK;
    int fd = -1;
    uint64_t bytes;
    size_t got;
    p4_atomic_file out = {.fd = -1};
    char *buffer = p4_alloc(COPY_BYTES, 1);
    if (buffer == NULL) {
        return P4_E_SYSTEM;
    }
    TRY(p4_file_open(&fd, &bytes, from));
    TRY(p4_atomic_open(&out, to));
    do {
        TRY(read_some(fd, from, buffer, COPY_BYTES, &got));
        TRY(p4_atomic_write(&out, buffer, got));
    } while (got == COPY_BYTES);
done:
    if (fd >= 0) {
        close(fd);
    }
    free(buffer);
    p4_rc closed = p4_atomic_close(&out, rc == P4_OK);
    return rc != P4_OK ? rc : closed;
}

bool p4_file_exists(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

bool p4_directory_exists(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

p4_rc p4_dir_list(char ***names, int64_t *count, const char *path)
{
    p4_rc rc = P4_OK;
    struct dirent *entry;
    int64_t capacity = 0;
    *names = NULL;
    *count = 0;
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return FAIL("%s: cannot list this directory: %s", path, strerror(errno));
    }
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        char **grown = p4_grow(*names, *count, &capacity, sizeof *grown), *name = p4_strdup(entry->d_name);
        *names = grown != NULL ? grown : *names;
        if (grown == NULL || name == NULL) {
            free(name);
            rc = P4_E_SYSTEM;
            goto done;
        }
        grown[(*count)++] = name;
    }
    if (*count > 0) {
        qsort(*names, (size_t)*count, sizeof **names, compare_names);
    }
done:
    closedir(dir);
    if (rc != P4_OK) {
        p4_names_free(*names, *count);
        *names = NULL;
        *count = 0;
    }
    return rc;
}

p4_rc p4_file_find(bool *there, const char *path)
{
    struct stat status;
    const bool found = stat(path, &status) == 0;
    *there = found && S_ISREG(status.st_mode);
    return found || errno == ENOENT || errno == ENOTDIR ? P4_OK : p4_fail_errno(path, "examine");
}

p4_rc p4_file_bytes(int64_t *bytes, const char *path)
{
    struct stat status;
    *bytes = 0;
    if (stat(path, &status) != 0) {
        return p4_fail_errno(path, "examine");
    }
    *bytes = (int64_t)status.st_size;
    return P4_OK;
}

static p4_rc add_bytes(double *bytes, const char *path)
{
    int64_t more;
    p4_rc rc = p4_file_bytes(&more, path);
    *bytes += (double)more;
    return rc;
}

p4_rc p4_path_bytes(double *bytes, const char *path)
{
    p4_rc rc = P4_OK;
    char **names = NULL;
    int64_t count = 0;
    *bytes = 0;
    if (!p4_directory_exists(path)) {
        return add_bytes(bytes, path);
    }
    TRY(p4_dir_list(&names, &count, path));
    for (int64_t i = 0; i < count; i++) {
        char *file = p4_format("%s/%s", path, names[i]);
        rc = file != NULL ? add_bytes(bytes, file) : P4_E_SYSTEM;
        free(file);
        TRY(rc);
    }
done:
    p4_names_free(names, count);
    return rc;
}

void p4_names_free(char **names, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        free(names[i]);
    }
    free(names);
}
