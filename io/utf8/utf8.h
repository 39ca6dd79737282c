/* utf8.h - walking through UTF-8 text, by utf8proc. */
#ifndef P4_UTF8_H
#define P4_UTF8_H

#include "src/leaf/base.h"

#define P4_UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* The length of the character at the start of `data`; where there is none, *valid is false and the length is
 * that of the part to be replaced by one U+FFFD: the longest that begins some character (Unicode 15, 3.9, as
 * Python's errors="replace"). bytes > 0. Local. */
size_t p4_utf8_next(const char *data, size_t bytes, bool *valid);
/* The length of the valid text at the start of `data`. Local. */
size_t p4_utf8_valid_bytes(const char *data, size_t bytes);
/* The code point at the start of valid text that is not empty, and its length. Local. */
int32_t p4_utf8_decode(const char *data, size_t bytes, size_t *length);
/* The offset of the last character of valid text that is not empty. Local. */
size_t p4_utf8_last(const char *data, size_t bytes);

#endif
