/* pattern.h - the split patterns of tokenizer.json, which are written for Oniguruma, compiled by PCRE2. */
#ifndef P4_TOK_PATTERN_H
#define P4_TOK_PATTERN_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "io/tokenizer/buffer.h"

typedef enum p4_tok_syntax {
    P4_TOK_ONIGURUMA, /* of a tokenizer.json */
    P4_TOK_PCRE2,     /* of this program's own */
    P4_TOK_LITERAL    /* a plain string */
} p4_tok_syntax;

/* Compiles a pattern. `source` and `where` name the file and the place in messages. The caller frees *code
 * with pcre2_code_free. Local. */
p4_rc p4_tok_pattern_compile(pcre2_code **code, p4_tok_text pattern, p4_tok_syntax syntax, const char *source,
                             const char *where);
extern const char *const p4_tok_pattern_gpt2;

#endif
