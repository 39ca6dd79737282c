/* normalize.h - the normalizer of tokenizer.json: what happens to a text before it is split. */
#ifndef P4_TOK_NORMALIZE_H
#define P4_TOK_NORMALIZE_H

#include "io/tokenizer/charsmap.h"
#include "io/tokenizer/forms.h"
#include "io/tokenizer/match.h"

typedef enum p4_tok_normal {
    P4_TOK_NFC,
    P4_TOK_NFD,
    P4_TOK_NFKC,
    P4_TOK_NFKD,
    P4_TOK_PREPEND,       /* `to` before a text that is not empty */
    P4_TOK_REPLACE,       /* every `from`, or every match of `pattern`, by `to` */
    P4_TOK_LOWERCASE,     /* character by character */
    P4_TOK_STRIP,         /* white space at the ends */
    P4_TOK_STRIP_ACCENTS, /* marks */
    P4_TOK_PRECOMPILED    /* charsmap */
} p4_tok_normal;

typedef struct p4_tok_normal_step {
    p4_tok_normal action;
    p4_tok_text from, to;
    pcre2_code *pattern; /* NULL: `from` is replaced */
    bool strips_left, strips_right;
    p4_tok_charsmap charsmap;
} p4_tok_normal_step;

typedef struct p4_tok_normalizer {
    p4_tok_normal_step step[P4_TOK_STEPS_MAX];
    int count;
} p4_tok_normalizer;
void p4_tok_normalizer_free(p4_tok_normalizer *normalizer);

typedef struct p4_tok_normal_scratch { /* zeroed at first */
    p4_tok_buffer buffer[2];
    p4_tok_points points;
    p4_tok_matcher matcher;
} p4_tok_normal_scratch;

/* *text, which is valid UTF-8, normalized: where it is already, or in a buffer of the scratch memory until
 * the next call. `source` names the file in messages. Local. */
p4_rc p4_tok_normalize(const p4_tok_normalizer *normalizer, p4_tok_normal_scratch *scratch, p4_tok_text *text,
                       const char *source);
void p4_tok_normal_scratch_free(p4_tok_normal_scratch *scratch);

#endif
