#include "io/text/window_parts.h"

#include <math.h>
#include <stdlib.h>

/* Windows of token ids that are further apart count as windows of different documents: nobody reads gigabytes
 * of ids to find one that may not be there. */
enum { SEARCHED = P4_DOCUMENT_SEARCH_TOKENS };

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

/* Windows whose parts and documents grow. */
typedef struct builder {
    p4_windows *windows;
    int64_t part_capacity, text_capacity;
    int64_t last;     /* what tells the document of the last part from others; -1: none */
    int64_t last_end; /* the token of the stream behind that part */
} builder;

static p4_rc add_part(builder *b, p4_window_part part)
{
    p4_windows *w = b->windows;
    p4_window_part *parts = p4_grow(w->parts, w->part_count, &b->part_capacity, sizeof *parts);
    if (parts == NULL) {
        return P4_E_SYSTEM;
    }
    w->parts = parts;
    part.document = w->part_documents - 1;
    w->parts[w->part_count++] = part;
    return P4_OK;
}

/* `text` is the document `key`, which the parts that are added next are of. */
static p4_rc begin_document(builder *b, int64_t key, const p4_document_text *text)
{
    p4_windows *w = b->windows;
    if (key == b->last) {
        return P4_OK;
    }
    p4_document_text *texts = p4_grow(w->texts, w->part_documents, &b->text_capacity, sizeof *texts);
    if (texts == NULL) {
        return P4_E_SYSTEM;
    }
    w->texts = texts;
    b->last = key;
    w->texts[w->part_documents++] = *text;
    return P4_OK;
}

/* What tells the document of token `at` from that of the last part. */
static int64_t key_of(const builder *b, const p4_document_map *map, int64_t at)
{
    const p4_document_span *span = span_of(map, at);
    if (span != NULL) {
        return span->first;
    }
    const p4_token_part *part = &map->stream->parts[p4_token_stream_find(map->stream, at)];
    if (map->end_id < 0) {
        return part->first;
    }
    int64_t from = b->last_end - 1; /* the last part's last token may be the one that ends the document */
    if (b->last < 0 || from < part->first || at - from > SEARCHED) {
        return at;
    }
    while (from < at && token_at(part, from) != map->end_id) {
        from++;
    }
    return from < at ? at : b->last;
}

/* The document of token `at` as text. */
static p4_document_text text_of(const p4_document_map *map, int64_t at)
{
    const p4_document_span *span = span_of(map, at);
    return span != NULL
               ? (p4_document_text){.tokens = span->tokens, .bytes = span->bytes, .words = span->words}
               : (p4_document_text){.tokens = -1, .bytes = -1, .words = -1};
}

p4_rc p4_window_parts_find(p4_windows *windows, const p4_document_map *map, const int64_t *begins)
{
    p4_rc rc = P4_OK;
    const int64_t T = windows->T;
    builder b = {.windows = windows, .last = -1};
    for (int64_t i = 0; i < windows->count; i++) {
        const int64_t first = p4_window_first(windows, i);
        for (int64_t from = first, to; from < T; from = to) {
            int64_t at = begins[i] + from;
            p4_document_text text = text_of(map, at);
            to = end_of(map, at, begins[i] + T) - begins[i];
            TRY(begin_document(&b, key_of(&b, map, at), &text));
            b.last_end = begins[i] + to;
            TRY(add_part(&b, (p4_window_part){.window = i, .from = from, .to = to}));
        }
    }
done:
    return rc;
}

p4_rc p4_window_parts_divide(const p4_windows *from, const int64_t *picks, int64_t pick_count, p4_windows *to,
                             p4_windows *rest)
{
    p4_rc rc = P4_OK;
    builder picked = {.windows = to, .last = -1}, others = {.windows = rest, .last = -1};
    int64_t pick = 0;
    for (int64_t i = 0; i < from->part_count; i++) {
        p4_window_part part = from->parts[i];
        while (pick < pick_count && picks[pick] < part.window) {
            pick++;
        }
        bool is_picked = pick < pick_count && picks[pick] == part.window;
        builder *b = is_picked ? &picked : &others;
        if (b->windows != NULL) {
            part.window = is_picked ? pick : part.window - pick;
            TRY(begin_document(b, part.document, &from->texts[part.document]));
            TRY(add_part(b, part));
        }
    }
done:
    return rc;
}

p4_text_share p4_window_parts_text(const p4_windows *windows)
{
    p4_text_share share = {0};
    for (int64_t i = 0; i < windows->part_count; i++) {
        const p4_window_part *part = &windows->parts[i];
        const p4_document_text *text = &windows->texts[part->document];
        double fraction = (double)(part->to - part->from) / (double)text->tokens;
        share.bytes += text->tokens > 0 ? fraction * (double)text->bytes : (double)NAN;
        share.words += text->tokens > 0 ? fraction * (double)text->words : (double)NAN;
    }
    return share;
}
