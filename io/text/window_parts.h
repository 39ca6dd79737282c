/* window_parts.h - which documents the tokens of windows are of. What is measured on each document alone
 * (jobs/train/bootstrap.h) is summed over these parts.
 *
 * The documents of text are known from reading it. In a file of token ids a document ends with the
 * end-of-text id; where the tokenizer has no such id the file is one document. Windows of token ids that are
 * more than P4_DOCUMENT_SEARCH_TOKENS apart count as windows of different documents. */
#ifndef P4_WINDOW_PARTS_H
#define P4_WINDOW_PARTS_H

#include "io/text/dataset.h"
#include "io/text/token_stream.h"

enum { P4_DOCUMENT_SEARCH_TOKENS = 1 << 16 };

/* The tokens of one document of text in a stream. */
typedef struct p4_document_span {
    int64_t first, tokens;
    int64_t bytes, words; /* of its text */
} p4_document_span;

/* A stream, and what is known of its documents. */
typedef struct p4_document_map {
    const p4_token_stream *stream;
    int32_t end_id;                /* -1: none */
    const p4_document_span *spans; /* [span_count] in the order of the stream; elsewhere end_id separates */
    int64_t span_count;
} p4_document_map;

/* Sets the parts of windows that begin at tokens begins[count] of the stream, which rise. Local. */
p4_rc p4_window_parts_find(p4_windows *windows, const p4_document_map *map, const int64_t *begins);
/* Divides the parts of `from` among two sets of windows: picks[pick_count], which rise, become the windows
 * 0, 1, ... of `to`; the rest that of `rest` (NULL: nobody's). Local. */
p4_rc p4_window_parts_divide(const p4_windows *from, const int64_t *picks, int64_t pick_count, p4_windows *to,
                             p4_windows *rest);

/* How much text the predicted tokens of the windows stand for: of each document the part that they are of its
 * tokens. NaN: not known, where a document came as token ids. */
typedef struct p4_text_share {
    double bytes, words;
} p4_text_share;
p4_text_share p4_window_parts_text(const p4_windows *windows);

#endif
