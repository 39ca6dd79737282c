#include "src/leaf/escape.h"

#include <stdio.h>
#include <string.h>

int p4_utf8_char(const char *text, uint32_t *point)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *at = (const unsigned char *)text;
    int length = at[0] < 0x80             ? 1
                 : (at[0] & 0xE0) == 0xC0 ? 2
                 : (at[0] & 0xF0) == 0xE0 ? 3
                 : (at[0] & 0xF8) == 0xF0 ? 4
                                          : 0;
    uint32_t found = length > 1 ? at[0] & (0x7Fu >> length) : at[0];
    for (int i = 1; i < length; i++) {
        if ((at[i] & 0xC0) != 0x80) { /* stops at the NUL too */
            return 0;
        }
        found = found << 6 | (at[i] & 0x3Fu);
    }
    if (point != NULL) {
        *point = found;
    }
    bool fits = found >= least[length] && found <= 0x10FFFF && (found < 0xD800 || found > 0xDFFF);
    return fits ? length : 0;
}

static bool is_control(uint32_t point)
{
    return point < 0x20 || (point >= 0x7F && point < 0xA0) ||       /* C0, DEL, C1 */
           point == 0x2028 || point == 0x2029 ||                    /* ends of lines and paragraphs */
           point == 0x061C || point == 0x200E || point == 0x200F || /* marks of direction */
           (point >= 0x202A && point <= 0x202E) || (point >= 0x2066 && point <= 0x2069);
}

/* What stands for the character at `at`, and how many bytes of the text it takes. */
static int replace(char escaped[8], const char *at, size_t left)
{
    uint32_t point = 0;
    int length = p4_utf8_char(at, &point);
    length = (size_t)length <= left ? length : 0;
    if (length == 0) {
        snprintf(escaped, 8, "\\x%02x", (unsigned char)*at);
        return 1;
    }
    if (!is_control(point)) {
        memcpy(escaped, at, (size_t)length);
        escaped[length] = '\0';
    } else if (point == '\n' || point == '\t' || point == '\r') {
        snprintf(escaped, 8, "\\%c", point == '\n' ? 'n' : point == '\t' ? 't' : 'r');
    } else {
        snprintf(escaped, 8, point < 0x100 ? "\\x%02x" : "\\u%04x", point);
    }
    return length;
}

bool p4_escape(char *to, size_t room, const char *text, size_t bytes)
{
    size_t used = 0, at = 0;
    char escaped[8];
    for (; at < bytes && text[at] != '\0';) {
        int length = replace(escaped, text + at, bytes - at);
        size_t added = strlen(escaped);
        if (used + added >= room) {
            break;
        }
        memcpy(to + used, escaped, added);
        used += added;
        at += (size_t)length;
    }
    to[used] = '\0';
    return at == bytes || text[at] == '\0';
}
