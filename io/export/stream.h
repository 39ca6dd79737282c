/* stream.h - many tensors, one after another, into one file: pieces are made by several threads and written
 * in order. */
#ifndef P4_EXPORT_STREAM_H
#define P4_EXPORT_STREAM_H

#include "io/export/source.h"

enum { P4_STREAM_SPACES = 4 };

typedef struct p4_stream_part { /* a tensor */
    int64_t rows, row_bytes;
    int64_t step;    /* a piece begins at a multiple of these rows (p4_export_step); 0: any */
    int64_t padding; /* bytes behind the last row, less than 64 */
    uint8_t tail[4]; /* the first of them; the others are 0 */
} p4_stream_part;

typedef struct p4_stream {
    const p4_export_source *source;
    const p4_stream_part *parts;
    int64_t count;
    /* Makes rows [first, first + rows) of part `part` in `to`, or sets *made, which is `to`, to where they
     * are: in memory of the source or of `spaces` [P4_STREAM_SPACES]. Called by several threads at once, each
     * with spaces of its own. */
    p4_rc (*fill)(void *user, p4_export_space *spaces, uint8_t *to, const void **made, int64_t part,
                  int64_t first, int64_t rows);
    p4_rc (*append)(void *user, const void *bytes, size_t byte_count); /* to the file */
    void *user;
} p4_stream;

/* Local. */
p4_rc p4_stream_run(const p4_stream *stream);

#endif
