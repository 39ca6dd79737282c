#include "io/text/byte_stream.h"

#include "io/file/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

p4_rc p4_stream_create(p4_stream **stream, const char *name)
{
    p4_stream *made = p4_alloc(1, sizeof *made);
    if (made != NULL) {
        made->name = p4_strdup(name);
        made->buffer = p4_alloc(P4_STREAM_BUFFER_BYTES, 1);
    }
    if (made == NULL || made->name == NULL || made->buffer == NULL) {
        p4_stream_close(made);
        return P4_E_SYSTEM;
    }
    *stream = made;
    return P4_OK;
}

void p4_stream_close(p4_stream *stream)
{
    while (stream != NULL) {
        p4_stream *below = stream->below;
        if (stream->release != NULL) {
            stream->release(stream);
        }
        free(stream->name);
        free(stream->buffer);
        free(stream);
        stream = below;
    }
}

p4_rc p4_stream_peek(p4_stream *stream, size_t want, const char **bytes, size_t *count)
{
    if (stream->end - stream->start < want && stream->start > 0) {
        memmove(stream->buffer, stream->buffer + stream->start, stream->end - stream->start);
        stream->end -= stream->start;
        stream->start = 0;
    }
    while (stream->end - stream->start < want && !stream->ended) {
        size_t produced = 0;
        p4_rc rc = stream->produce(stream, stream->buffer + stream->end, P4_STREAM_BUFFER_BYTES - stream->end,
                                   &produced);
        if (rc != P4_OK) {
            return rc;
        }
        stream->end += produced;
        stream->ended = produced == 0;
    }
    *bytes = stream->buffer + stream->start;
    *count = stream->end - stream->start;
    return P4_OK;
}

void p4_stream_skip(p4_stream *stream, size_t count)
{
    stream->start += count;
    if (stream->start == stream->end) {
        stream->start = stream->end = 0;
    }
}

/* ---- a file ---- */

static p4_rc produce_file(p4_stream *stream, char *to, size_t capacity, size_t *count)
{
    const int *fd = stream->state;
    ssize_t got;
    do {
        got = read(*fd, to, capacity);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return FAIL("%s: cannot be read: %s", stream->name, strerror(errno));
    }
    *count = (size_t)got;
    return P4_OK;
}

static void release_file(p4_stream *stream)
{
    int *fd = stream->state;
    if (*fd >= 0) {
        close(*fd);
    }
    free(fd);
}

p4_rc p4_stream_open(p4_stream **stream, const char *path)
{
    p4_rc rc = P4_OK;
    p4_stream *made = NULL;
    TRY(p4_stream_create(&made, path));
    int *fd = p4_alloc(1, sizeof *fd);
    if (fd == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    *fd = -1;
    made->state = fd;
    made->produce = produce_file;
    made->release = release_file;
    uint64_t file_bytes;
    TRY(p4_file_open(fd, &file_bytes, path));
done:
    if (rc == P4_OK) {
        *stream = made;
    } else {
        p4_stream_close(made);
    }
    return rc;
}

bool p4_stream_is_file(const p4_stream *stream)
{
    return stream->produce == produce_file;
}

p4_rc p4_stream_seek(p4_stream *stream, int64_t offset)
{
    const int *fd = stream->state;
    if (lseek(*fd, offset, SEEK_SET) != offset) {
        return FAIL("%s: cannot seek to byte %lld: %s", stream->name, (long long)offset, strerror(errno));
    }
    stream->start = stream->end = 0;
    stream->ended = false;
    return P4_OK;
}
