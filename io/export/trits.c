#include "io/export/trits.h"

#include <string.h>

/* The four codes of a byte, one in each byte of a word, in order from the lowest. */
static inline uint32_t spread(uint32_t byte)
{
    return (byte | byte << 6 | byte << 12 | byte << 18) & 0x03030303u;
}

static void put_half(uint8_t *to, uint16_t bits)
{
    to[0] = (uint8_t)bits;
    to[1] = (uint8_t)(bits >> 8);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are stored as they are in memory");

/* A code a byte: four for each of `bytes` bytes, a multiple of 8. */
static void spread_all(uint8_t *to, const uint8_t *codes, int bytes)
{
    uint32_t words[8];
    for (int at = 0; at < bytes; at += 8) {
        for (int i = 0; i < 8; i++) {
            words[i] = spread(codes[at + i]);
        }
        memcpy(to + 4 * at, words, sizeof words);
    }
}

/* Q2_0 stores codes as phase4 does, behind the scale. */
void p4_trits_q2_0(uint8_t *to, const uint8_t *codes, int64_t count, uint16_t scale)
{
    for (int64_t at = 0; at < count; at += P4_Q2_0_COUNT) {
        put_half(to, scale);
        memcpy(to + 2, codes, P4_Q2_0_COUNT / 4);
        to += P4_Q2_0_BYTES;
        codes += P4_Q2_0_COUNT / 4;
    }
}

/* Codes as a matrix of 4 x 4 in a word, a row a byte: exchanges rows and columns. */
static inline uint32_t transpose(uint32_t codes)
{
    uint32_t moved = (codes ^ codes >> 12) & 0x0000f0f0u; /* quarters of 2 x 2 */
    codes ^= moved ^ moved << 12;
    moved = (codes ^ codes >> 6) & 0x00cc00ccu; /* inside each quarter */
    return codes ^ moved ^ moved << 6;
}

/* A word at any address. */
typedef uint32_t loose_word __attribute__((aligned(1), may_alias));

/* Byte m of each half holds elements m, 32 + m, 64 + m and 96 + m of its 128. */
void p4_trits_tq2_0(uint8_t *to, const uint8_t *restrict codes, int64_t count, uint16_t scale)
{
    enum { HALF = 32 };
    for (int64_t at = 0; at < count; at += P4_TQ_COUNT) {
        for (int h = 0; h < 2; h++, codes += HALF, to += HALF) {
            loose_word *restrict words = (loose_word *)(void *)to;
            for (int i = 0; i < HALF / 4; i++) {
                words[i] = transpose((uint32_t)codes[i] | (uint32_t)codes[8 + i] << 8 |
                                     (uint32_t)codes[16 + i] << 16 | (uint32_t)codes[24 + i] << 24);
            }
        }
        put_half(to, scale);
        to += 2;
    }
}

/* Byte m of a block holds elements m, 32 + m, 64 + m and 96 + m, the first in the highest bits. */
void p4_trits_i2_s(uint8_t *to, const uint8_t *codes, int64_t count)
{
    uint32_t words[P4_I2_S_BYTES / 4];
    for (int64_t at = 0; at < count; at += P4_I2_S_COUNT, codes += P4_I2_S_COUNT / 4) {
        for (int i = 0; i < P4_I2_S_BYTES / 4; i++) {
            words[i] = spread(codes[i]) << 6 | spread(codes[8 + i]) << 4 | spread(codes[16 + i]) << 2 |
                       spread(codes[24 + i]);
        }
        memcpy(to, words, sizeof words);
        to += P4_I2_S_BYTES;
    }
}

/* Trits of `step` elements apart, the first most significant: `width` bytes of `trits` trits each. A byte is
 * ceil(256 v / 243), of which a reader gets trit after trit by multiplying with 3. */
static void pack_fifths(uint8_t *to, const uint8_t *u, int width, int trits)
{
    for (int m = 0; m < width; m++) {
        uint32_t v = 0;
        for (int k = 0; k < 5; k++) {
            v = 3 * v + (k < trits ? u[m + k * width] : 0);
        }
        to[m] = (uint8_t)((v * 256 + 242) / 243);
    }
}

void p4_trits_tq1_0(uint8_t *to, const uint8_t *codes, int64_t count, uint16_t scale)
{
    uint8_t u[P4_TQ_COUNT];
    for (int64_t at = 0; at < count; at += P4_TQ_COUNT, codes += P4_TQ_COUNT / 4) {
        spread_all(u, codes, P4_TQ_COUNT / 4);
        pack_fifths(to, u, 32, 5);
        pack_fifths(to + 32, u + 160, 16, 5);
        pack_fifths(to + 48, u + 240, 4, 4);
        put_half(to + 52, scale);
        to += P4_TQ1_0_BYTES;
    }
}

int64_t p4_trits_word_bytes(int64_t count)
{
    return p4_ceil_div(count, 16) * 4;
}

/* A code is at most 2, so that adding 1 to each field carries into no other. */
void p4_trits_plus_two(uint8_t *to, const uint8_t *codes, int64_t count)
{
    int64_t bytes = count / 4, rest = count % 4;
    for (int64_t i = 0; i < bytes; i++) {
        to[i] = (uint8_t)(codes[i] + 0x55u);
    }
    memset(to + bytes, 0, (size_t)(p4_trits_word_bytes(count) - bytes));
    if (rest > 0) {
        to[bytes] = (uint8_t)((codes[bytes] + 0x55u) & ((1u << 2 * rest) - 1));
    }
}

void p4_trits_four_rows(uint8_t *to, const uint8_t *const codes[4], int64_t count)
{
    for (int64_t at = 0; at < count; at += 4) {
        int64_t i = at / 4;
        uint32_t four = spread(codes[0][i]) | spread(codes[1][i]) << 2 | spread(codes[2][i]) << 4 |
                        spread(codes[3][i]) << 6;
        memcpy(to + at, &four, (size_t)p4_min_i64(4, count - at));
    }
}
