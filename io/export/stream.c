#include "io/export/stream.h"

#include <stdlib.h>
#include <string.h>

#include "src/leaf/parallel.h"

enum { PIECE_BYTES = 1 << 20, PADDING_MAX = 64 };

typedef struct piece { /* rows of a part */
    int64_t part, first, rows;
} piece;

typedef struct work {
    const p4_stream *stream;
    piece *pieces;
    uint8_t **buffers; /* allocated at first use, of buffer_bytes */
    size_t buffer_bytes;
} work;

/* Lists the pieces and returns their count; `pieces` may be NULL. *most: bytes of the largest. */
static int64_t cut(const p4_stream *stream, piece *pieces, size_t *most)
{
    int64_t count = 0;
    *most = 0;
    for (int64_t t = 0; t < stream->count; t++) {
        const p4_stream_part *part = &stream->parts[t];
        int64_t step = p4_max_i64(1, PIECE_BYTES / p4_max_i64(1, part->row_bytes));
        for (int64_t first = 0; first < part->rows; first += step, count++) {
            int64_t rows = p4_min_i64(step, part->rows - first);
            size_t bytes = (size_t)(rows * part->row_bytes) + PADDING_MAX;
            *most = bytes > *most ? bytes : *most;
            if (pieces != NULL) {
                pieces[count] = (piece){t, first, rows};
            }
        }
    }
    return count;
}

static p4_rc make(void *user, int64_t item, int buffer)
{
    work *w = user;
    const piece *at = &w->pieces[item];
    const p4_export_source *source = w->stream->source;
    p4_rc rc = source->go_on != NULL ? source->go_on(source->user) : P4_OK;
    if (rc == P4_OK && w->buffers[buffer] == NULL) {
        w->buffers[buffer] = p4_alloc(w->buffer_bytes, 1);
        rc = w->buffers[buffer] == NULL ? P4_E_SYSTEM : P4_OK;
    }
    return rc != P4_OK ? rc
                       : w->stream->fill(w->stream->user, w->buffers[buffer], at->part, at->first, at->rows);
}

static p4_rc append(void *user, int64_t item, int buffer)
{
    work *w = user;
    const piece *at = &w->pieces[item];
    const p4_stream_part *part = &w->stream->parts[at->part];
    size_t bytes = (size_t)(at->rows * part->row_bytes);
    if (at->first + at->rows == part->rows) {
        memset(w->buffers[buffer] + bytes, 0, (size_t)part->padding);
        memcpy(w->buffers[buffer] + bytes, part->tail, (size_t)p4_min_i64(sizeof part->tail, part->padding));
        bytes += (size_t)part->padding;
    }
    return w->stream->append(w->stream->user, w->buffers[buffer], bytes);
}

p4_rc p4_stream_run(const p4_stream *stream)
{
    p4_rc rc = P4_OK;
    work w = {.stream = stream};
    int64_t count = cut(stream, NULL, &w.buffer_bytes);
    int threads = stream->source->threads, buffers = p4_parallel_buffers(threads, count, true);
    w.pieces = p4_alloc((size_t)count, sizeof *w.pieces);
    w.buffers = p4_alloc((size_t)buffers, sizeof *w.buffers);
    if (w.pieces == NULL || w.buffers == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    cut(stream, w.pieces, &w.buffer_bytes);
    rc = p4_parallel(threads, count, make, append, &w);
done:
    for (int i = 0; w.buffers != NULL && i < buffers; i++) {
        free(w.buffers[i]);
    }
    free(w.buffers);
    free(w.pieces);
    return rc;
}
