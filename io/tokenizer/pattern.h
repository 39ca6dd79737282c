/* pattern.h - the split patterns of tokenizer.json, which are written for Oniguruma, compiled by PCRE2.
 *
 * What both engines read alike is passed on; \s and \S become the exact list of white space (PCRE2 includes
 * U+180E, Oniguruma does not); everything whose meaning differs is refused by name. */
#ifndef P4_TOK_PATTERN_H
#define P4_TOK_PATTERN_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "io/tokenizer/buffer.h"

/* Compiles a pattern, or with `literal` a plain string. `source` and `where` name the file and the place in
 * messages. The caller frees *code with pcre2_code_free. Local. */
p4_rc p4_tok_pattern_compile(pcre2_code **code, p4_tok_text pattern, bool literal, const char *source,
                             const char *where);
extern const char *const p4_tok_pattern_gpt2;

#endif
