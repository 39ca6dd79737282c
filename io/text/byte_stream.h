/* byte_stream.h - the bytes of a file behind any layers of gzip, zstd, xz, bzip2 and tar, pulled piece by
 * piece. Layers are recognized by content. Used by the dataset readers only. */
#ifndef P4_BYTE_STREAM_H
#define P4_BYTE_STREAM_H

#include "src/leaf/base.h"

enum { P4_STREAM_BUFFER_BYTES = 1 << 16 };

/* A stream that the reader pulls from: `buffer` holds the bytes [start, end) that were produced and not yet
 * skipped. A decoder owns the stream below it. `name` says where the bytes come from, for messages: "a.tar:
 * member b.xz: member c.txt". */
typedef struct p4_stream p4_stream;
struct p4_stream {
    p4_rc (*produce)(p4_stream *stream, char *to, size_t capacity, size_t *count); /* *count 0: the end */
    void (*release)(p4_stream *stream); /* frees `state`; may be NULL */
    void *state;
    p4_stream *below;
    char *name;
    char *buffer;
    size_t start, end;
    bool ended;
};

/* A regular file as it is. The caller closes. Local. */
p4_rc p4_stream_open(p4_stream **stream, const char *path);
/* An empty stream with a buffer and a copy of `name`: for the layers' own constructors. Local. */
p4_rc p4_stream_create(p4_stream **stream, const char *name);
void p4_stream_close(p4_stream *stream);

/* *bytes: at least `want` bytes that come next (at most P4_STREAM_BUFFER_BYTES may be asked for), fewer only
 * at the end; valid until the next call. Nothing is consumed. Local. */
p4_rc p4_stream_peek(p4_stream *stream, size_t want, const char **bytes, size_t *count);
void p4_stream_skip(p4_stream *stream, size_t count); /* consumes bytes that peek has shown */

/* Whether these are the bytes of a file as they are stored, so that p4_stream_seek may be called. Local. */
bool p4_stream_is_file(const p4_stream *stream);
/* Goes on at byte `offset` of the file; behind its end there are no more bytes. Local. */
p4_rc p4_stream_seek(p4_stream *stream, int64_t offset);

/* ---- decompress.c ---- */

/* Replaces *stream by its decompressed form as long as its content is gzip or zstd, one layer at a time.
 * *layers is reduced by their number; a file with more layers than that is refused. Local. */
p4_rc p4_stream_decompress(p4_stream **stream, int *layers);

/* Whether the content is compressed, by gzip, zstd, xz or bzip2. Nothing is consumed. Local. */
p4_rc p4_stream_is_packed(p4_stream *stream, bool *packed);

/* ---- archive_stream.c ---- */

/* Whether a file begins like that. */
bool p4_bytes_are_xz(const char *bytes, size_t count);
bool p4_bytes_are_bzip2(const char *bytes, size_t count); /* needs 10 bytes */

/* Content that begins with an xz or bzip2 header, or is a tar archive: read through p4_archive. Local. */
p4_rc p4_stream_is_archive(p4_stream *stream, bool *archive);

/* The members of a tar archive (also inside xz or bzip2), or the one content of an xz or bzip2 file. */
typedef struct p4_archive p4_archive;
/* Takes ownership of `below`, also when it fails. Local. */
p4_rc p4_archive_open(p4_archive **archive, p4_stream *below);
/* *member: the bytes of the next regular file, NULL at the end. The caller closes it before the next call.
 * Local. */
p4_rc p4_archive_next(p4_archive *archive, p4_stream **member);
/* Known once a member was given; false: the one content of an xz or bzip2 file. Local. */
bool p4_archive_is_tar(const p4_archive *archive);
void p4_archive_close(p4_archive *archive);

#endif
