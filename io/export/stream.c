#include "io/export/stream.h"

#include <stdlib.h>
#include <string.h>

#include "src/leaf/parallel.h"

enum { PIECE_BYTES = 1 << 20, PADDING_MAX = 64 };

typedef struct piece { /* rows of a part */
    int64_t part, first, rows;
} piece;

typedef struct buffer { /* of one piece; grows at its first uses */
    p4_space bytes;
    const void *made; /* the piece's bytes: there, or somewhere else */
    p4_export_space spaces[P4_STREAM_SPACES];
} buffer;

typedef struct work {
    const p4_stream *stream;
    piece *pieces;
    buffer *buffers;
} work;

/* Lists the pieces and returns their count; `pieces` may be NULL. */
static int64_t cut(const p4_stream *stream, piece *pieces)
{
    int64_t count = 0;
    for (int64_t t = 0; t < stream->count; t++) {
        const p4_stream_part *part = &stream->parts[t];
        int64_t wanted = p4_max_i64(1, PIECE_BYTES / p4_max_i64(1, part->row_bytes));
        int64_t step = part->step > 0 ? p4_max_i64(1, wanted / part->step) * part->step : wanted;
        for (int64_t first = 0; first < part->rows; first += step, count++) {
            if (pieces != NULL) {
                pieces[count] = (piece){t, first, p4_min_i64(step, part->rows - first)};
            }
        }
    }
    return count;
}

static p4_rc make(void *user, int64_t item, int buffer_index)
{
    p4_rc rc = P4_OK;
    work *w = user;
    buffer *b = &w->buffers[buffer_index];
    const piece *at = &w->pieces[item];
    const p4_stream *stream = w->stream;
    TRY(stream->source->go_on != NULL ? stream->source->go_on(stream->source->user) : P4_OK);
    TRY(p4_space_need(&b->bytes, (size_t)(at->rows * stream->parts[at->part].row_bytes) + PADDING_MAX));
    b->made = b->bytes.data;
    TRY(stream->fill(stream->user, b->spaces, b->bytes.data, &b->made, at->part, at->first, at->rows));
done:
    return rc;
}

static p4_rc append(void *user, int64_t item, int buffer_index)
{
    p4_rc rc = P4_OK;
    work *w = user;
    const p4_stream *stream = w->stream;
    const piece *at = &w->pieces[item];
    const p4_stream_part *part = &stream->parts[at->part];
    const buffer *b = &w->buffers[buffer_index];
    size_t bytes = (size_t)(at->rows * part->row_bytes);
    uint8_t *behind = (uint8_t *)b->bytes.data + bytes;
    int64_t padding = at->first + at->rows == part->rows ? part->padding : 0;
    memset(behind, 0, (size_t)padding);
    memcpy(behind, part->tail, (size_t)p4_min_i64(sizeof part->tail, padding));
    if (b->made == b->bytes.data) { /* one write */
        return stream->append(stream->user, b->made, bytes + (size_t)padding);
    }
    TRY(stream->append(stream->user, b->made, bytes));
    TRY(stream->append(stream->user, behind, (size_t)padding));
done:
    return rc;
}

p4_rc p4_stream_run(const p4_stream *stream)
{
    p4_rc rc = P4_OK;
    work w = {.stream = stream};
    int64_t count = cut(stream, NULL);
    int threads = stream->source->threads, buffers = p4_parallel_buffers(threads, count, true);
    w.pieces = p4_alloc((size_t)count, sizeof *w.pieces);
    w.buffers = p4_alloc((size_t)buffers, sizeof *w.buffers);
    if (w.pieces == NULL || w.buffers == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    cut(stream, w.pieces);
    rc = p4_parallel(threads, count, make, append, &w);
done:
    for (int i = 0; w.buffers != NULL && i < buffers; i++) {
        p4_space_free(&w.buffers[i].bytes);
        for (int k = 0; k < P4_STREAM_SPACES; k++) {
            p4_export_space_free(&w.buffers[i].spaces[k]);
        }
    }
    free(w.buffers);
    free(w.pieces);
    return rc;
}
