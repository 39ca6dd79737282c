#include "io/text/token_stream.h"

#include <stdlib.h>
#include <string.h>

p4_rc p4_token_stream_add(p4_token_stream *stream, const void *ids, int id_bytes, int64_t count)
{
    p4_token_part *parts = p4_grow(stream->parts, stream->part_count, &stream->capacity, sizeof *parts);
    if (parts == NULL) {
        return P4_E_SYSTEM;
    }
    stream->parts = parts;
    parts[stream->part_count++] = (p4_token_part){ids, id_bytes, stream->count, count};
    stream->count += count;
    return P4_OK;
}

int64_t p4_token_stream_find(const p4_token_stream *stream, int64_t at)
{
    int64_t low = 0, high = stream->part_count; /* the part lies in [low, high) */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (stream->parts[middle].first <= at) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low; /* of the parts that begin there, the last one: those before it are empty */
}

void p4_token_stream_read(const p4_token_stream *stream, int32_t *ids, int64_t first, int64_t count)
{
    const int64_t end = first + count;
    for (int64_t p = p4_token_stream_find(stream, first); first < end; p++) {
        const p4_token_part *part = &stream->parts[p];
        int64_t from = first - part->first, to = p4_min_i64(end - part->first, part->count);
        if (part->id_bytes == 2) {
            for (int64_t i = from; i < to; i++) {
                *ids++ = ((const uint16_t *)part->ids)[i];
            }
        } else if (to > from) {
            memcpy(ids, (const int32_t *)part->ids + from, (size_t)(to - from) * sizeof *ids);
            ids += to - from;
        }
        first = p4_max_i64(first, part->first + to);
    }
}

void p4_token_stream_free(p4_token_stream *stream)
{
    free(stream->parts);
    *stream = (p4_token_stream){.parts = NULL};
}
