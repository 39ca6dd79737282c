/* io/utf8 against table 3-7 of the Unicode standard (well-formed byte sequences), on every text of up to four
 * bytes from a set that holds both ends of each of its ranges. */
#include "check.h"
#include "io/utf8/utf8.h"

static const unsigned char edges[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                      0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
                                      0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
enum { EDGES = sizeof edges };

static const struct {
    unsigned char lead_from, lead_to, second_from, second_to;
    size_t length;
} table[] = {
    {0x00, 0x7F, 0, 0, 1},       {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
    {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
    {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
};

/* The length of the character, or of the longest part of one, at least 1. */
static size_t want_next(const unsigned char *text, size_t bytes, bool *valid)
{
    *valid = false;
    for (size_t row = 0; row < sizeof table / sizeof table[0]; row++) {
        if (text[0] < table[row].lead_from || text[0] > table[row].lead_to) {
            continue;
        }
        for (size_t i = 1; i < table[row].length; i++) {
            unsigned char from = i == 1 ? table[row].second_from : 0x80,
                          to = i == 1 ? table[row].second_to : 0xBF;
            if (i >= bytes || text[i] < from || text[i] > to) {
                return i;
            }
        }
        *valid = true;
        return table[row].length;
    }
    return 1;
}

static int32_t want_decoded(const unsigned char *text, size_t length)
{
    int32_t value = length == 1 ? text[0] : text[0] & (0x7F >> length);
    for (size_t i = 1; i < length; i++) {
        value = value << 6 | (text[i] & 0x3F);
    }
    return value;
}

static void expect_walk(const unsigned char *text, size_t bytes)
{
    const char *data = (const char *)text;
    bool valid, want_valid, all_valid = true;
    size_t good = 0, last = 0;
    for (size_t at = 0, length; at < bytes; at += length) {
        size_t want = want_next(text + at, bytes - at, &want_valid);
        length = p4_utf8_next(data + at, bytes - at, &valid);
        if (length != want || valid != want_valid) {
            EXPECT(false, "%02x %02x %02x %02x of %zu bytes at %zu: %zu, %d", text[0], text[1], text[2],
                   text[3], bytes, at, length, valid);
            return;
        }
        if (valid) {
            size_t decoded_length;
            int32_t c = p4_utf8_decode(data + at, bytes - at, &decoded_length);
            if (decoded_length != length || c != want_decoded(text + at, length)) {
                EXPECT(false, "%02x...: decoded to U+%04X of %zu bytes", text[at], (unsigned)c,
                       decoded_length);
            }
        }
        all_valid = all_valid && valid;
        good += all_valid ? length : 0;
        last = at;
    }
    if (p4_utf8_valid_bytes(data, bytes) != good || (all_valid && p4_utf8_last(data, bytes) != last)) {
        EXPECT(false, "%02x %02x %02x %02x of %zu bytes: %zu valid, last at %zu", text[0], text[1], text[2],
               text[3], bytes, p4_utf8_valid_bytes(data, bytes), p4_utf8_last(data, bytes));
    }
}

int main(void)
{
    int64_t texts = 0;
    for (int i = 0; i < EDGES * EDGES * EDGES * EDGES; i++, texts++) {
        const unsigned char text[4] = {edges[i % EDGES], edges[i / EDGES % EDGES],
                                       edges[i / EDGES / EDGES % EDGES], edges[i / EDGES / EDGES / EDGES]};
        for (size_t bytes = 1; bytes <= 4; bytes++) {
            expect_walk(text, bytes);
        }
    }
    EXPECT(texts == 390625, "%lld texts", (long long)texts);
    /* The step of eight ASCII characters, and a bad byte at each place around it. */
    for (size_t bad = 0; bad < 20; bad++) {
        char text[20];
        memset(text, 'a', sizeof text);
        EXPECT(p4_utf8_valid_bytes(text, sizeof text) == 20, "ASCII is refused");
        text[bad] = (char)0xFF;
        EXPECT(p4_utf8_valid_bytes(text, sizeof text) == bad, "a bad byte at %zu: %zu are valid", bad,
               p4_utf8_valid_bytes(text, sizeof text));
    }
    EXPECT(p4_utf8_valid_bytes("", 0) == 0, "the empty text");
    return TEST_END();
}
