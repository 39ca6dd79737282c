/* forms.h - the Unicode normalization forms C, D, KC and KD in linear time. Local. */
#ifndef P4_TOK_FORMS_H
#define P4_TOK_FORMS_H

#include "io/tokenizer/buffer.h"

typedef struct p4_tok_form {
    bool composed;   /* C and KC: what was decomposed is composed again */
    bool compatible; /* KC and KD: compatibility mappings too */
} p4_tok_form;

typedef struct p4_tok_points { /* scratch memory; zeroed at first */
    int32_t *points;
    size_t capacity;
} p4_tok_points;

/* *text, which is valid UTF-8, in a normalization form: where it is already, or in `buffer`. */
p4_rc p4_tok_normal_form(p4_tok_text *text, p4_tok_form form, p4_tok_buffer *buffer, p4_tok_points *scratch);
void p4_tok_points_free(p4_tok_points *scratch);

#endif
