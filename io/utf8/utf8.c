#include "io/utf8/utf8.h"

#include <string.h>

enum { LONGEST = 4 };

/* The length of the character at the start, or 0. */
static size_t character(const char *data, size_t bytes)
{
    utf8proc_int32_t code_point;
    utf8proc_ssize_t length =
        utf8proc_iterate((const utf8proc_uint8_t *)data, (utf8proc_ssize_t)bytes, &code_point);
    return length > 0 ? (size_t)length : 0;
}

/* Whether some character begins with these bytes. The bytes that may follow are a range of continuation bytes
 * which holds the first or the last of them, so two candidates decide. */
static bool begins_character(const char *data, size_t bytes)
{
    char lowest[LONGEST], highest[LONGEST];
    memset(lowest, 0x80, sizeof lowest);
    memset(highest, 0xBF, sizeof highest);
    memcpy(lowest, data, bytes);
    memcpy(highest, data, bytes);
    return character(lowest, LONGEST) > bytes || character(highest, LONGEST) > bytes;
}

size_t p4_utf8_broken(const char *data, size_t bytes)
{
    size_t length = 1;
    while (length < bytes && length < LONGEST && begins_character(data, length + 1)) {
        length++;
    }
    return length;
}

size_t p4_utf8_valid_bytes(const char *data, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        uint64_t word;
        if ((unsigned char)data[at] < 0x80) {
            at++;
            while (bytes - at >= sizeof word) { /* most text is ASCII: eight characters at once */
                memcpy(&word, data + at, sizeof word);
                if ((word & UINT64_C(0x8080808080808080)) != 0) {
                    break;
                }
                at += sizeof word;
            }
            continue;
        }
        size_t length = character(data + at, bytes - at);
        if (length == 0) {
            break;
        }
        at += length;
    }
    return at;
}

size_t p4_utf8_last(const char *data, size_t bytes)
{
    size_t at = bytes - 1;
    while (at > 0 && ((unsigned char)data[at] & 0xC0) == 0x80) { /* utf8proc cannot step backwards */
        at--;
    }
    return at;
}
