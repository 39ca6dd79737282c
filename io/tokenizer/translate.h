/* translate.h - a pattern written for Oniguruma, the reference's engine, as one for PCRE2 that matches the
 * same text.
 *
 * What both engines read alike is passed on. What they read differently is rewritten: \s \S \w \W \b \h (the
 * exact characters), \v, intervals with a + behind them, (?m: ...), ^ and $, and classes that hold classes or
 * &&, which become look-aheads and alternatives. The rest is refused by name. */
#ifndef P4_TOK_TRANSLATE_H
#define P4_TOK_TRANSLATE_H

#include "io/tokenizer/buffer.h"

/* Members of a class: white space, to which PCRE2's \s adds U+180E; word characters (UTS 18). */
#define P4_TOK_SPACES                                                                                        \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"
#define P4_TOK_WORDS                                                                                 \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}" \
    "\\x{1f170}-\\x{1f189}"

/* Appends the translation to `out`. `source` and `where` name the file and the place in messages. Local. */
p4_rc p4_tok_translate(p4_tok_buffer *out, p4_tok_text pattern, const char *source, const char *where);

#endif
