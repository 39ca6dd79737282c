/* normalize.h - the normalizer of tokenizer.json: what happens to a text before it is split. */
#ifndef P4_TOK_NORMALIZE_H
#define P4_TOK_NORMALIZE_H

#include "io/tokenizer/buffer.h"
#include "io/tokenizer/nfc.h"

typedef enum p4_tok_normal {
    P4_TOK_NFC,
    P4_TOK_PREPEND, /* `to` before a text that is not empty */
    P4_TOK_REPLACE  /* every `from` by `to` */
} p4_tok_normal;

typedef struct p4_tok_normal_step {
    p4_tok_normal action;
    p4_tok_text from, to;
} p4_tok_normal_step;

typedef struct p4_tok_normalizer {
    p4_tok_normal_step step[P4_TOK_STEPS_MAX];
    int count;
} p4_tok_normalizer;

typedef struct p4_tok_normal_scratch { /* zeroed at first */
    p4_tok_buffer buffer[2];
    p4_tok_points points;
} p4_tok_normal_scratch;

/* *text, which is valid UTF-8, normalized: where it is already, or in a buffer of the scratch memory until
 * the next call. `source` names the file in messages. Local. */
p4_rc p4_tok_normalize(const p4_tok_normalizer *normalizer, p4_tok_normal_scratch *scratch, p4_tok_text *text,
                       const char *source);
void p4_tok_normal_scratch_free(p4_tok_normal_scratch *scratch);

#endif
