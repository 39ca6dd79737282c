#include "io/text/window_parts.h"

#include <stdlib.h>

enum { SEARCHED = 1 << 24 }; /* tokens before a window in which the beginning of its document is looked for */

static int32_t token_at(const p4_token_part *part, int64_t at)
{
    int64_t i = at - part->first;
    return part->id_bytes == 2 ? ((const uint16_t *)part->ids)[i] : ((const int32_t *)part->ids)[i];
}

/* The document of text that holds token `at`; NULL: it lies in a file of token ids. */
static const p4_document_span *span_of(const p4_document_map *map, int64_t at)
{
    int64_t low = 0,
            high = map->span_count; /* the last that begins at or before `at`: others there are empty */
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (map->spans[middle].first <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const p4_document_span *span = low > 0 ? &map->spans[low - 1] : NULL;
    return span != NULL && at < span->first + span->tokens ? span : NULL;
}

/* Where the document of token `at` begins. Where that is too far away: `at`, as if it began there. */
static int64_t begin_of(const p4_document_map *map, int64_t at)
{
    const p4_document_span *span = span_of(map, at);
    if (span != NULL) {
        return span->first;
    }
    const p4_token_part *part = &map->stream->parts[p4_token_stream_find(map->stream, at)];
    if (map->end_id < 0) {
        return part->first;
    }
    int64_t lowest = p4_max_i64(part->first, at - SEARCHED), begin = at;
    while (begin > lowest && token_at(part, begin - 1) != map->end_id) {
        begin--;
    }
    return begin > lowest || lowest == part->first ? begin : at;
}

/* Where the document of token `at` ends, at most `limit`. */
static int64_t end_of(const p4_document_map *map, int64_t at, int64_t limit)
{
    const p4_document_span *span = span_of(map, at);
    if (span != NULL) {
        return p4_min_i64(limit, span->first + span->tokens);
    }
    const p4_token_part *part = &map->stream->parts[p4_token_stream_find(map->stream, at)];
    limit = p4_min_i64(limit, part->first + part->count);
    while (at < limit && (map->end_id < 0 || token_at(part, at) != map->end_id)) {
        at++;
    }
    return p4_min_i64(limit, at + 1);
}

static p4_rc add_part(p4_windows *windows, int64_t *capacity, p4_window_part part)
{
    if (windows->part_count == *capacity) {
        int64_t grown_to = p4_max_i64(64, 2 * *capacity);
        p4_window_part *grown = p4_resize(windows->parts, (size_t)grown_to, sizeof *grown);
        if (grown == NULL) {
            return P4_E_SYSTEM;
        }
        windows->parts = grown;
        *capacity = grown_to;
    }
    windows->parts[windows->part_count++] = part;
    return P4_OK;
}

p4_rc p4_window_parts_find(p4_windows *windows, const p4_document_map *map, const int64_t *begins)
{
    p4_rc rc = P4_OK;
    const int64_t T = windows->T;
    int64_t capacity = 0, last = -1; /* where the document of the last part begins */
    for (int64_t i = 0; i < windows->count; i++) {
        for (int64_t from = 1, to; from < T; from = to) {
            int64_t begin = from == 1 ? begin_of(map, begins[i] + 1) : begins[i] + from;
            to = end_of(map, begins[i] + from, begins[i] + T) - begins[i];
            windows->part_documents += begin != last;
            last = begin;
            TRY(add_part(windows, &capacity,
                         (p4_window_part){
                             .window = i, .document = windows->part_documents - 1, .from = from, .to = to}));
        }
    }
done:
    return rc;
}

/* Adds a part of the document `number` of `from`; *last: the document added last, by that number. */
static p4_rc take_part(p4_windows *to, int64_t *capacity, int64_t *last, p4_window_part part, int64_t number)
{
    to->part_documents += number != *last;
    *last = number;
    part.document = to->part_documents - 1;
    return add_part(to, capacity, part);
}

p4_rc p4_window_parts_divide(const p4_windows *from, const int64_t *picks, int64_t pick_count, p4_windows *to,
                             p4_windows *rest)
{
    p4_rc rc = P4_OK;
    int64_t capacity[2] = {0, 0}, last[2] = {-1, -1}, picked = 0;
    for (int64_t i = 0; i < from->part_count; i++) {
        p4_window_part part = from->parts[i];
        while (picked < pick_count && picks[picked] < part.window) {
            picked++;
        }
        bool is_picked = picked < pick_count && picks[picked] == part.window;
        if (is_picked) {
            part.window = picked;
            TRY(take_part(to, &capacity[0], &last[0], part, from->parts[i].document));
        } else if (rest != NULL) {
            part.window -= picked;
            TRY(take_part(rest, &capacity[1], &last[1], part, from->parts[i].document));
        }
    }
done:
    return rc;
}
