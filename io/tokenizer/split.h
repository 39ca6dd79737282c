/* split.h - the pre-tokenizer of tokenizer.json: a text is split into the pieces that the model encodes one
 * by one. */
#ifndef P4_TOK_SPLIT_H
#define P4_TOK_SPLIT_H

#include "io/tokenizer/bpe.h"
#include "io/tokenizer/match.h"
#include "io/tokenizer/normalize.h"

typedef enum p4_tok_action {
    P4_TOK_PREFIX,     /* `to` before a piece unless it begins with it */
    P4_TOK_SUBSTITUTE, /* every `from` by `to` */
    P4_TOK_MAP_BYTES,  /* every byte by its character of the byte alphabet */
    P4_TOK_SPLIT       /* pieces at the matches of `pattern` */
} p4_tok_action;

typedef enum p4_tok_behavior { /* what becomes of a match */
                               P4_TOK_ISOLATED,
                               P4_TOK_REMOVED,
                               P4_TOK_CONTIGUOUS,
                               P4_TOK_WITH_PREVIOUS,
                               P4_TOK_WITH_NEXT
} p4_tok_behavior;

typedef struct p4_tok_split_step {
    p4_tok_action action;
    p4_tok_text from, to;
    bool first_only; /* PREFIX: only the piece at the very start of the document */
    p4_tok_behavior behavior;
    bool invert; /* SPLIT: what lies between the matches is the delimiter */
    pcre2_code *pattern;
} p4_tok_split_step;

typedef struct p4_tok_splitter {
    p4_tok_split_step step[P4_TOK_STEPS_MAX];
    int count;
} p4_tok_splitter;
void p4_tok_splitter_free(p4_tok_splitter *splitter);

typedef struct p4_tok_split_scratch {
    p4_tok_matcher matcher;
    p4_tok_buffer step[P4_TOK_STEPS_MAX];
} p4_tok_split_scratch; /* zeroed at first */
void p4_tok_split_scratch_free(p4_tok_split_scratch *scratch);

/* Where the pieces go: `bpe` encodes them and appends to `ids`. */
typedef struct p4_tok_sink {
    const p4_tok_bpe *bpe;
    p4_tok_bpe_scratch *scratch;
    p4_ids *ids;
} p4_tok_sink;

/* Splits a text of valid UTF-8 and encodes its pieces. at_start: it begins where the document does. Local. */
p4_rc p4_tok_split(const p4_tok_splitter *splitter, p4_tok_split_scratch *scratch, p4_tok_text text,
                   bool at_start, const p4_tok_sink *sink);

#endif
