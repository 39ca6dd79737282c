#include "io/tokenizer/unicode.h"

#include <utf8proc.h>

#include "io/utf8/utf8.h"

p4_rc p4_tok_clean(p4_tok_text *text, p4_tok_buffer *buffer, int64_t *replaced)
{
    p4_rc rc = P4_OK;
    size_t good = p4_utf8_valid_bytes(text->data, text->bytes);
    if (good == text->bytes) {
        return P4_OK;
    }
    buffer->bytes = 0;
    for (size_t at = 0; at < text->bytes;) {
        TRY(p4_tok_buffer_append(buffer, text->data + at, good));
        at += good;
        if (at < text->bytes) {
            size_t bad = p4_utf8_broken(text->data + at, text->bytes - at);
            TRY(p4_tok_buffer_append(buffer, P4_UTF8_REPLACEMENT, 3));
            *replaced += (int64_t)bad;
            at += bad;
            good = p4_utf8_valid_bytes(text->data + at, text->bytes - at);
        }
    }
    *text = (p4_tok_text){buffer->data, buffer->bytes};
done:
    return rc;
}

/* The property White_Space, which \s is to the reference: the separators and six control characters. */
static bool is_space(int32_t c)
{
    if (c < 0x80) {
        return (c >= 0x9 && c <= 0xD) || c == ' ';
    }
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return true;
    default:
        return c == 0x85;
    }
}

/* \w of the reference (UTS 18): Alphabetic, marks, decimal digits, connectors, joiners. Alphabetic beyond the
 * letter, letter-number and mark categories are the circled and squared letters. */
static bool is_word(int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
               (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
    }
}

size_t p4_tok_space_at_end(const char *data, size_t bytes)
{
    size_t end = bytes, length;
    while (end > 0) {
        size_t at = p4_utf8_last(data, end);
        if (!is_space(p4_utf8_decode(data + at, end - at, &length))) {
            break;
        }
        end = at;
    }
    return bytes - end;
}

size_t p4_tok_space_at_start(const char *data, size_t bytes)
{
    size_t at = 0, length;
    while (at < bytes && is_space(p4_utf8_decode(data + at, bytes - at, &length))) {
        at += length;
    }
    return at;
}

bool p4_tok_word_at_end(const char *data, size_t bytes)
{
    size_t length, at = bytes > 0 ? p4_utf8_last(data, bytes) : 0;
    return bytes > 0 && is_word(p4_utf8_decode(data + at, bytes - at, &length));
}

bool p4_tok_word_at_start(const char *data, size_t bytes)
{
    size_t length;
    return bytes > 0 && is_word(p4_utf8_decode(data, bytes, &length));
}
