/* tokenizer_text.c - UTF-8, character classes, NFC, the byte alphabet, buffers. */
#include <stdlib.h>
#include <utf8proc.h>

#include "io/tokenizer/tokenizer_internal.h"

/* The second byte of a sequence is narrower after these leads (Unicode 15, table 3-7): no overlong forms, no
 * surrogates, nothing above U+10FFFF. */
static bool second_fits(unsigned char lead, unsigned char second)
{
    unsigned char low = 0x80, high = 0xBF;
    switch (lead) {
    case 0xE0:
        low = 0xA0;
        break;
    case 0xED:
        high = 0x9F;
        break;
    case 0xF0:
        low = 0x90;
        break;
    case 0xF4:
        high = 0x8F;
        break;
    default:
        break;
    }
    return second >= low && second <= high;
}

size_t p4_tok_sequence(const char *data, size_t bytes, bool *valid)
{
    const unsigned char *at = (const unsigned char *)data;
    unsigned char lead = at[0];
    size_t length = lead < 0x80   ? 1
                    : lead < 0xC2 ? 0
                    : lead < 0xE0 ? 2
                    : lead < 0xF0 ? 3
                    : lead < 0xF5 ? 4
                                  : 0;
    *valid = length > 0;
    for (size_t i = 1; i < length; i++) {
        bool fits = i < bytes && (i == 1 ? second_fits(lead, at[1]) : (at[i] & 0xC0) == 0x80);
        if (!fits) {
            *valid = false;
            return i;
        }
    }
    return length > 0 ? length : 1;
}

size_t p4_tok_valid_bytes(const char *data, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        uint64_t word;
        if (bytes - at >= 8) {
            memcpy(&word, data + at, 8);
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                at += 8;
                continue;
            }
        }
        bool valid;
        size_t length = p4_tok_sequence(data + at, bytes - at, &valid);
        if (!valid) {
            break;
        }
        at += length;
    }
    return at;
}

p4_rc p4_tok_clean(p4_tok_text *text, p4_tok_buffer *buffer, int64_t *replaced)
{
    p4_rc rc = P4_OK;
    size_t good = p4_tok_valid_bytes(text->data, text->bytes);
    if (good == text->bytes) {
        return P4_OK;
    }
    buffer->bytes = 0;
    for (size_t at = 0; at < text->bytes;) {
        TRY(p4_tok_buffer_append(buffer, text->data + at, good));
        at += good;
        if (at < text->bytes) {
            bool valid;
            size_t bad = p4_tok_sequence(text->data + at, text->bytes - at, &valid);
            TRY(p4_tok_buffer_append(buffer, "\xef\xbf\xbd", 3));
            *replaced += (int64_t)bad;
            at += bad;
            good = p4_tok_valid_bytes(text->data + at, text->bytes - at);
        }
    }
    *text = (p4_tok_text){buffer->data, buffer->bytes};
done:
    return rc;
}

/* The character at the start of valid text. */
static int32_t code_point(const char *data, size_t *length)
{
    const unsigned char *at = (const unsigned char *)data;
    if (at[0] < 0x80) {
        *length = 1;
        return at[0];
    }
    size_t count = at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : 4;
    int32_t value = at[0] & (0x7F >> count);
    for (size_t i = 1; i < count; i++) {
        value = value << 6 | (at[i] & 0x3F);
    }
    *length = count;
    return value;
}

/* The offset of the last character of valid, non-empty text. */
static size_t last_character(const char *data, size_t bytes)
{
    size_t at = bytes - 1;
    while (at > 0 && ((unsigned char)data[at] & 0xC0) == 0x80) {
        at--;
    }
    return at;
}

/* The property White_Space: what \s is to the reference. */
static bool is_space(int32_t c)
{
    return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
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
        size_t at = last_character(data, end);
        if (!is_space(code_point(data + at, &length))) {
            break;
        }
        end = at;
    }
    return bytes - end;
}

size_t p4_tok_space_at_start(const char *data, size_t bytes)
{
    size_t at = 0, length;
    while (at < bytes && is_space(code_point(data + at, &length))) {
        at += length;
    }
    return at;
}

bool p4_tok_word_at_end(const char *data, size_t bytes)
{
    size_t length;
    return bytes > 0 && is_word(code_point(data + last_character(data, bytes), &length));
}

bool p4_tok_word_at_start(const char *data, size_t bytes)
{
    size_t length;
    return bytes > 0 && is_word(code_point(data, &length));
}

/* Whether NFC may change a text at this character: it decomposes, or may combine with what stands before it
 * (marks and the vowels and finals of Hangul). Errs towards yes. */
static bool may_change(int32_t c)
{
    if (c < 0x300 || (c >= 0x3400 && c <= 0xD7A3 && !(c >= 0xA600 && c < 0xAC00))) {
        return false;
    }
    const utf8proc_property_t *p = utf8proc_get_property(c);
    bool mark = p->category == UTF8PROC_CATEGORY_MN || p->category == UTF8PROC_CATEGORY_MC ||
                p->category == UTF8PROC_CATEGORY_ME;
    bool jamo = (c >= 0x1100 && c <= 0x11FF) || (c >= 0xA960 && c <= 0xA97F) || (c >= 0xD7B0 && c <= 0xD7FF);
    bool decomposes = p->decomp_type == 0 && p->decomp_seqindex != UINT16_MAX;
    return mark || jamo || decomposes || p->combining_class != 0;
}

static bool is_nfc(p4_tok_text text)
{
    for (size_t at = 0, length; at < text.bytes; at += length) {
        if (may_change(code_point(text.data + at, &length))) {
            return false;
        }
    }
    return true;
}

/* Stable order of a run of marks by combining class. The library's own ordering takes quadratic time, which a
 * text of nothing but marks would show. `spare` has room for the run. */
static void order_run(int32_t *marks, size_t count, int32_t *spare)
{
    size_t starts[257] = {0};
    for (size_t i = 0; i < count; i++) {
        starts[(size_t)utf8proc_get_property(marks[i])->combining_class % 256 + 1]++;
    }
    for (size_t c = 0; c < 256; c++) {
        starts[c + 1] += starts[c];
    }
    for (size_t i = 0; i < count; i++) {
        spare[starts[(size_t)utf8proc_get_property(marks[i])->combining_class % 256]++] = marks[i];
    }
    memcpy(marks, spare, count * sizeof *marks);
}

static void order_marks(int32_t *points, size_t count, int32_t *spare)
{
    size_t run = 0; /* marks before i */
    for (size_t i = 0; i <= count; i++) {
        if (i < count && utf8proc_get_property(points[i])->combining_class != 0) {
            run++;
            continue;
        }
        if (run > 1) {
            order_run(points + i - run, run, spare);
        }
        run = 0;
    }
}

/* Appends decomposed text in composed form; `points` is overwritten. U+11A7 goes round the library, which
 * takes it for a Hangul final and lets it vanish behind a syllable; it composes with nothing. */
static p4_rc compose(p4_tok_buffer *buffer, int32_t *points, size_t count)
{
    p4_rc rc = P4_OK;
    for (size_t start = 0, i = 0; i <= count; i++) {
        if (i < count && points[i] != 0x11A7) {
            continue;
        }
        /* The result takes the place of the points, at most four bytes each, and a NUL behind it. */
        utf8proc_ssize_t bytes = utf8proc_reencode(points + start, (utf8proc_ssize_t)(i - start),
                                                   UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (bytes < 0) {
            return FAULT("Unicode normalisation failed: %s", utf8proc_errmsg(bytes));
        }
        TRY(p4_tok_buffer_append(buffer, (const char *)(points + start), (size_t)bytes));
        TRY(p4_tok_buffer_append(buffer, "\xe1\x86\xa7", i < count ? 3 : 0));
        start = i + 1;
    }
done:
    return rc;
}

p4_rc p4_tok_nfc(p4_tok_text *text, p4_tok_buffer *buffer, p4_tokenizer_scratch *scratch)
{
    enum { MOST = 4 }; /* code points that one decomposes to */
    p4_rc rc = P4_OK;
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    if (is_nfc(*text)) {
        return P4_OK;
    }
    /* Decomposed text, then as much to order marks in. No character becomes more points than MOST times its
     * bytes. */
    size_t half = MOST * text->bytes + 1;
    if (2 * half > scratch->code_point_capacity) {
        int32_t *grown = p4_resize(scratch->code_points, 2 * half, sizeof *grown);
        if (grown == NULL) {
            return P4_E_SYSTEM;
        }
        scratch->code_points = grown;
        scratch->code_point_capacity = 2 * half;
    }
    int32_t *points = scratch->code_points;
    utf8proc_ssize_t count = 0;
    for (size_t at = 0, length; at < text->bytes; at += length) {
        int32_t c = code_point(text->data + at, &length);
        utf8proc_ssize_t more = utf8proc_decompose_char(c, points + count, MOST, options, NULL);
        if (more < 0 || more > MOST) {
            return FAULT("U+%04X could not be decomposed: %s", (unsigned)c, utf8proc_errmsg(more));
        }
        count += more;
    }
    order_marks(points, (size_t)count, points + half);
    buffer->bytes = 0;
    TRY(compose(buffer, points, (size_t)count));
    *text = (p4_tok_text){buffer->data, buffer->bytes};
done:
    return rc;
}

/* Bytes that print as themselves; the other 68 are written as U+0100, U+0101, ... in increasing order. */
static bool prints_as_itself(unsigned char byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

size_t p4_tok_byte_char(unsigned char byte, char to[2])
{
    int32_t c = byte;
    if (!prints_as_itself(byte)) {
        c = byte <= 0x20 ? 0x100 + byte : byte <= 0xA0 ? 0x100 + byte - 0x7F + 0x21 : 0x143;
    }
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    to[0] = (char)(0xC0 | c >> 6);
    to[1] = (char)(0x80 | (c & 0x3F));
    return 2;
}

bool p4_tok_char_byte(const char *data, size_t bytes, unsigned char *byte, size_t *length)
{
    if (bytes == 0) {
        return false;
    }
    int32_t c = code_point(data, length);
    if (c >= 0x100 && c <= 0x143) {
        int32_t k = c - 0x100;
        *byte = (unsigned char)(k <= 0x20 ? k : k == 0x43 ? 0xAD : k - 0x21 + 0x7F);
        return true;
    }
    *byte = (unsigned char)c;
    return c < 0x100 && prints_as_itself((unsigned char)c);
}

p4_rc p4_tok_buffer_reserve(p4_tok_buffer *buffer, size_t more)
{
    size_t want;
    if (__builtin_add_overflow(buffer->bytes, more, &want) || want > SIZE_MAX / 2) {
        return FAULT("out of memory: a text of more than %zu bytes", SIZE_MAX / 2);
    }
    if (want > buffer->capacity) {
        size_t capacity = want + want / 2;
        char *grown = p4_resize(buffer->data, capacity, 1);
        if (grown == NULL) {
            return P4_E_SYSTEM;
        }
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    return P4_OK;
}

p4_rc p4_tok_buffer_append(p4_tok_buffer *buffer, const char *data, size_t bytes)
{
    p4_rc rc = P4_OK;
    TRY(p4_tok_buffer_reserve(buffer, bytes + 1));
    if (bytes > 0) {
        memcpy(buffer->data + buffer->bytes, data, bytes);
        buffer->bytes += bytes;
    }
done:
    return rc;
}

const char *p4_tok_find(const char *at, const char *end, p4_tok_text what)
{
    while ((size_t)(end - at) >= what.bytes) {
        at = memchr(at, what.data[0], (size_t)(end - at) - what.bytes + 1);
        if (at == NULL || memcmp(at, what.data, what.bytes) == 0) {
            return at;
        }
        at++;
    }
    return NULL;
}

p4_rc p4_tok_buffer_replace(p4_tok_buffer *buffer, p4_tok_text text, p4_tok_text from, p4_tok_text to)
{
    p4_rc rc = P4_OK;
    const char *at = text.data, *end = text.data + text.bytes, *hit;
    while ((hit = p4_tok_find(at, end, from)) != NULL) {
        TRY(p4_tok_buffer_append(buffer, at, (size_t)(hit - at)));
        TRY(p4_tok_buffer_append(buffer, to.data, to.bytes));
        at = hit + from.bytes;
    }
    TRY(p4_tok_buffer_append(buffer, at, (size_t)(end - at)));
done:
    return rc;
}

void p4_tok_buffer_free(p4_tok_buffer *buffer)
{
    free(buffer->data);
    *buffer = (p4_tok_buffer){0};
}

p4_rc p4_tok_growth_check(const p4_tokenizer *tokenizer, const char *part, size_t before, size_t bytes)
{
    if (bytes / P4_TOK_GROWTH_MAX > before + 1024 / P4_TOK_GROWTH_MAX) {
        return FAIL("%s: the %s turns a text of %zu bytes into %zu bytes or more; at most %d times as many "
                    "are supported",
                    tokenizer->source, part, before, bytes, P4_TOK_GROWTH_MAX);
    }
    return P4_OK;
}
