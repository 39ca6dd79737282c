/* unicode.h - text made valid, and the character classes that added tokens ask for. All Local. */
#ifndef P4_TOK_UNICODE_H
#define P4_TOK_UNICODE_H

#include "io/tokenizer/buffer.h"

/* Makes *text valid UTF-8: its invalid parts become U+FFFD in a copy in `buffer`; a valid text stays where it
 * is. *replaced grows by the number of invalid bytes. */
p4_rc p4_tok_clean(p4_tok_text *text, p4_tok_buffer *buffer, int64_t *replaced);

/* Of valid text: the bytes of white space at its end or start; whether it ends or starts with a word
 * character. */
size_t p4_tok_space_at_end(const char *data, size_t bytes);
size_t p4_tok_space_at_start(const char *data, size_t bytes);
bool p4_tok_word_at_end(const char *data, size_t bytes);
bool p4_tok_word_at_start(const char *data, size_t bytes);

#endif
