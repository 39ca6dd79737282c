#include "io/text/words.h"

#include <string.h>

/* The length of the white space of Python's str at the start of `text`; 0: something else stands there. */
static size_t white_bytes(const unsigned char *text, size_t bytes)
{
    static const char *const wide[] = {"\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\xa8",
                                       "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    unsigned char c = text[0];
    if (c < 0x80) {
        return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
    }
    for (size_t i = 0; c <= 0xe3 && i < sizeof wide / sizeof wide[0]; i++) {
        size_t length = strlen(wide[i]);
        if (bytes >= length && memcmp(text, wide[i], length) == 0) {
            return length;
        }
    }
    bool spaces = bytes >= 3 && memcmp(text, "\xe2\x80", 2) == 0 && text[2] >= 0x80 && text[2] <= 0x8a;
    return spaces ? 3 : 0;
}

p4_white_runs p4_white_runs_count(const char *text, size_t bytes)
{
    p4_white_runs runs = {0};
    for (size_t at = 0; at < bytes;) {
        size_t white = white_bytes((const unsigned char *)text + at, bytes - at);
        runs.count += white > 0 && !runs.last;
        runs.first = runs.first || (at == 0 && white > 0);
        runs.last = white > 0;
        at += white > 0 ? white : 1;
    }
    return runs;
}
