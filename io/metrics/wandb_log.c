#include "io/metrics/wandb_log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "io/file/atomic_file.h"

enum { BLOCK_BYTES = 32768, HEADER_BYTES = 7, FULL = 1, FIRST = 2, MIDDLE = 3, LAST = 4 };
static const unsigned char file_header[HEADER_BYTES] = {':', 'W', '&', 'B', 0xE1, 0xBE, 0};

static p4_rc write_whole(int fd, const char *path, const unsigned char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t written = write(fd, bytes, count);
        if (written <= 0) {
            return p4_fail_errno(path, "write");
        }
        bytes += written;
        count -= (size_t)written;
    }
    return P4_OK;
}

p4_rc p4_wandb_log_open(p4_wandb_log *log, const char *path)
{
    p4_rc rc = P4_OK;
    *log = (p4_wandb_log){.fd = -1, .path = p4_strdup(path)};
    TRY(log->path != NULL ? P4_OK : P4_E_SYSTEM);
    log->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    TRY(log->fd >= 0 ? P4_OK : p4_fail_errno(path, "create the file"));
    TRY(write_whole(log->fd, path, file_header, sizeof file_header));
    log->bytes = HEADER_BYTES;
done:
    return rc;
}

/* A chunk: CRC of type and data, length, type, data. Returns the bytes that it takes. */
static size_t put_chunk(unsigned char *to, int type, const unsigned char *data, size_t count)
{
    to[4] = (unsigned char)(count & 0xFF);
    to[5] = (unsigned char)(count >> 8);
    to[6] = (unsigned char)type;
    if (count > 0) { /* data may then be NULL */
        memcpy(to + HEADER_BYTES, data, count);
    }
    uLong crc = crc32(0, to + 6, (uInt)(count + 1));
    for (int i = 0; i < 4; i++) {
        to[i] = (unsigned char)(crc >> (8 * i) & 0xFF);
    }
    return HEADER_BYTES + count;
}

p4_rc p4_wandb_log_write(p4_wandb_log *log, const void *record, size_t record_bytes)
{
    const unsigned char *data = record;
    size_t blocks = record_bytes / (BLOCK_BYTES - HEADER_BYTES) + 3, used = 0, left = record_bytes;
    unsigned char *chunks = p4_alloc(blocks, BLOCK_BYTES); /* zeroed, as the rest of a block must be */
    if (chunks == NULL) {
        return P4_E_SYSTEM;
    }
    for (bool begun = false; !begun || left > 0; begun = true) {
        size_t room = BLOCK_BYTES - ((size_t)log->bytes + used) % BLOCK_BYTES;
        if (room < HEADER_BYTES) {
            used += room;
            room = BLOCK_BYTES;
        }
        size_t count = left < room - HEADER_BYTES ? left : room - HEADER_BYTES;
        bool last = count == left;
        used += put_chunk(chunks + used, begun ? (last ? LAST : MIDDLE) : (last ? FULL : FIRST), data, count);
        data += count;
        left -= count;
    }
    p4_rc rc = write_whole(log->fd, log->path, chunks, used);
    if (rc == P4_OK) {
        log->bytes += (int64_t)used;
    } else if (ftruncate(log->fd, (off_t)log->bytes) != 0) {
        INFO("%s: ends with a part of a record, which readers pass over", log->path);
    }
    free(chunks);
    return rc;
}

p4_rc p4_wandb_log_close(p4_wandb_log *log)
{
    p4_rc rc = P4_OK;
    if (log->path != NULL && log->fd >= 0 && close(log->fd) != 0) {
        rc = p4_fail_errno(log->path, "write");
    }
    free(log->path);
    *log = (p4_wandb_log){.fd = -1};
    return rc;
}
