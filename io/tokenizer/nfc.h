/* nfc.h - Unicode normalization form C in linear time. Local. */
#ifndef P4_TOK_NFC_H
#define P4_TOK_NFC_H

#include "io/tokenizer/buffer.h"

typedef struct p4_tok_points { /* scratch memory; zeroed at first */
    int32_t *points;
    size_t capacity;
} p4_tok_points;

/* *text, which is valid UTF-8, in form C: where it is already, or in `buffer`. */
p4_rc p4_tok_nfc(p4_tok_text *text, p4_tok_buffer *buffer, p4_tok_points *scratch);
void p4_tok_points_free(p4_tok_points *scratch);

#endif
