#include "io/file/fingerprint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"

enum { BLOCK_BYTES = 1 << 20, BLOCKS = 16 };

/* *crc goes on over [offset, offset + count) of the file; count <= BLOCK_BYTES. */
static p4_rc add_block(uLong *crc, int fd, const char *path, off_t offset, size_t count, Bytef *buffer)
{
    while (count > 0) {
        ssize_t got = pread(fd, buffer, count, offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return p4_fail_errno(path, "read");
        }
        if (got == 0) {
            return FAIL("%s: became shorter while it was read", path);
        }
        *crc = crc32(*crc, buffer, (uInt)got);
        offset += got;
        count -= (size_t)got;
    }
    return P4_OK;
}

static bool is_sampled(int64_t bytes)
{
    return bytes > (int64_t)BLOCKS * BLOCK_BYTES;
}

/* Of an open file of `end` bytes. */
static p4_rc read_fingerprint(char fingerprint[P4_FINGERPRINT_BYTES], int fd, int64_t end, const char *path)
{
    p4_rc rc = P4_OK;
    uLong crc = crc32(0, Z_NULL, 0);
    Bytef *buffer = p4_alloc(BLOCK_BYTES, 1);
    TRY(buffer != NULL ? P4_OK : P4_E_SYSTEM);
    bool whole = !is_sampled(end);
    int64_t stride = whole ? BLOCK_BYTES : (end - BLOCK_BYTES) / (BLOCKS - 1);
    for (int64_t i = 0; i < BLOCKS; i++) {
        int64_t offset = !whole && i == BLOCKS - 1 ? end - BLOCK_BYTES : i * stride;
        int64_t count = p4_min_i64(BLOCK_BYTES, end - offset);
        if (count > 0) {
            TRY(add_block(&crc, fd, path, offset, (size_t)count, buffer));
        }
    }
    snprintf(fingerprint, P4_FINGERPRINT_BYTES, "%s:%08lx:%" PRId64, whole ? "crc32" : "crc32x16", crc, end);
done:
    free(buffer);
    return rc;
}

p4_rc p4_fingerprint_file(char fingerprint[P4_FINGERPRINT_BYTES], const char *path)
{
    int fd = -1;
    uint64_t bytes = 0;
    p4_rc rc = p4_file_open(&fd, &bytes, path);
    if (rc == P4_OK) {
        rc = read_fingerprint(fingerprint, fd, (int64_t)bytes, path);
        close(fd);
    }
    return rc;
}

p4_rc p4_fingerprint_version(char version[P4_FILE_VERSION_BYTES], const char *path)
{
    p4_rc rc = P4_OK;
    int fd = -1;
    uint64_t bytes = 0;
    struct stat status;
    char fingerprint[P4_FINGERPRINT_BYTES];
    TRY(p4_file_open(&fd, &bytes, path));
    if (fstat(fd, &status) != 0) { /* before the content is read: a later write has a later time */
        rc = p4_fail_errno(path, "read its time of change");
        goto done;
    }
    TRY(read_fingerprint(fingerprint, fd, (int64_t)bytes, path));
    snprintf(version, P4_FILE_VERSION_BYTES, "%s", fingerprint);
    if (is_sampled((int64_t)bytes)) {
        snprintf(version, P4_FILE_VERSION_BYTES, "%s:%" PRIdMAX ".%09ld:%" PRIuMAX, fingerprint,
                 (intmax_t)status.st_mtim.tv_sec, status.st_mtim.tv_nsec, (uintmax_t)status.st_ino);
    }
done:
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

void p4_fingerprint_bytes(char fingerprint[P4_FINGERPRINT_BYTES], const void *bytes, size_t count)
{
    uLong crc = crc32_z(crc32(0, Z_NULL, 0), bytes, count);
    snprintf(fingerprint, P4_FINGERPRINT_BYTES, "crc32:%08lx:%zu", crc, count);
}

void p4_fingerprint_text(char fingerprint[P4_FINGERPRINT_BYTES], const char *text)
{
    p4_fingerprint_bytes(fingerprint, text, strlen(text));
}
