/* byte_alphabet.h - the characters that byte-level vocabularies (GPT-2's and those after it) write for bytes.
 * Local. */
#ifndef P4_TOK_BYTE_ALPHABET_H
#define P4_TOK_BYTE_ALPHABET_H

#include "src/leaf/base.h"

/* The character for a byte, one or two bytes of UTF-8, into `to`; their count. */
size_t p4_tok_byte_char(unsigned char byte, char to[4]);
/* The inverse: the byte of the character at the start of valid text, and its length; false at the end of the
 * text and for a character outside the alphabet. */
bool p4_tok_char_byte(const char *data, size_t bytes, unsigned char *byte, size_t *length);

#endif
