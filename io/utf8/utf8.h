/* utf8.h - walking through UTF-8 text, by utf8proc. */
#ifndef P4_UTF8_H
#define P4_UTF8_H

#include <utf8proc.h>

#include "src/leaf/base.h"

#define P4_UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* The length of the valid text at the start of `data`. Local. */
size_t p4_utf8_valid_bytes(const char *data, size_t bytes);
/* The offset of the last character of valid text that is not empty. Local. */
size_t p4_utf8_last(const char *data, size_t bytes);

/* The length of the part to be replaced by one U+FFFD at the start of `data`, where no character stands: the
 * longest that begins some character (Unicode 15, 3.9, as Python's errors="replace"). bytes > 0. Local. */
size_t p4_utf8_broken(const char *data, size_t bytes);

/* The two that follow are called for every character of a text; most are ASCII and need no call of the
 * library. */

/* The length of the character at the start of `data`, or, with *valid false, of what p4_utf8_broken says.
 * bytes > 0. Local. */
static inline size_t p4_utf8_next(const char *data, size_t bytes, bool *valid)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t length = 1;
    if ((unsigned char)data[0] >= 0x80) {
        length = utf8proc_iterate((const utf8proc_uint8_t *)data, (utf8proc_ssize_t)bytes, &c);
    }
    *valid = length > 0;
    return *valid ? (size_t)length : p4_utf8_broken(data, bytes);
}

/* The code point at the start of valid text that is not empty, and its length. Local. */
static inline int32_t p4_utf8_decode(const char *data, size_t bytes, size_t *length)
{
    utf8proc_int32_t c = data[0];
    *length = 1;
    if ((unsigned char)data[0] >= 0x80) {
        *length = (size_t)utf8proc_iterate((const utf8proc_uint8_t *)data, (utf8proc_ssize_t)bytes, &c);
    }
    return c;
}

#endif
