/* match.h - running a compiled pattern (pattern.h) over a text. All Local. */
#ifndef P4_TOK_MATCH_H
#define P4_TOK_MATCH_H

#include "io/tokenizer/pattern.h"

typedef struct p4_tok_matcher { /* scratch memory; zeroed at first */
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack; /* NULL: this PCRE2 has no just-in-time compiler */
} p4_tok_matcher;

/* Gets ready for a text: published patterns take a step or two a byte; one that needs far more is stopped
 * with an error. */
p4_rc p4_tok_matcher_start(p4_tok_matcher *matcher, size_t text_bytes);
/* The next match at or after byte `from`; *start = *stop = text.bytes when there is none. `source` names the
 * file in messages. */
p4_rc p4_tok_match(p4_tok_matcher *matcher, const pcre2_code *pattern, p4_tok_text text, size_t from,
                   size_t *start, size_t *stop, const char *source);
void p4_tok_matcher_free(p4_tok_matcher *matcher);

#endif
