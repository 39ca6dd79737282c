#include "io/h5/fletcher32.h"

#include <string.h>

/* Words are summed in columns, of which a vector has LANES: column j of a block has the words j, WORDS + j,
 * 2 WORDS + j, ... */
enum { LANES = 4, WORDS = 2 * LANES, WORD_BYTES = 2, STEPS = 256, BLOCK_WORDS = STEPS * WORDS };
typedef uint32_t columns __attribute__((vector_size(LANES * sizeof(uint32_t))));
/* A column's second sum is largest where all words are: it must fit 32 bits. */
_Static_assert((uint64_t)STEPS *(STEPS + 1) / 2 * 0xffff <= UINT32_MAX, "the sums of a block overflow");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read as they are in memory");

/* Modulo 65535 as the checksum has it: 0 only of 0, else 1 to 65535. */
static uint64_t fold(uint64_t sum)
{
    return sum > 0 ? (sum - 1) % 0xffff + 1 : 0;
}

static void add_block(p4_fletcher32 *s, const uint8_t *bytes)
{
    columns low = {0}, high = {0}, low_sum = {0}, high_sum = {0}; /* of a lane's two words */
    for (int step = 0; step < STEPS; step++) {
        columns two;
        memcpy(&two, bytes + step * (int)sizeof two, sizeof two);
        low += two & 0xffffu;
        high += two >> 16;
        low_sum += low;
        high_sum += high;
    }
    s->second += BLOCK_WORDS * s->first;
    for (int j = 0; j < LANES; j++) { /* word i of n counts n - i times */
        s->second += (uint64_t)WORDS * low_sum[j] - (uint64_t)(2 * j) * low[j];
        s->second += (uint64_t)WORDS * high_sum[j] - (uint64_t)(2 * j + 1) * high[j];
        s->first += (uint64_t)low[j] + high[j];
    }
    *s = (p4_fletcher32){fold(s->first), fold(s->second)};
}

void p4_fletcher32_add(p4_fletcher32 *sums, const void *bytes, int64_t byte_count)
{
    const uint8_t *at = bytes;
    p4_fletcher32 s = *sums;
    for (; byte_count >= BLOCK_WORDS * WORD_BYTES; byte_count -= BLOCK_WORDS * WORD_BYTES) {
        add_block(&s, at);
        at += BLOCK_WORDS * WORD_BYTES;
    }
    for (; byte_count > 0; byte_count -= WORD_BYTES, at += WORD_BYTES) {
        s.first += at[0] | (byte_count > 1 ? (uint64_t)at[1] << 8 : 0);
        s.second += s.first;
    }
    *sums = (p4_fletcher32){fold(s.first), fold(s.second)};
}

/* 2^16 is 1 modulo 65535, so that exchanging the bytes of all words exchanges those of their sum. */
static uint32_t exchange(uint64_t sum)
{
    return (uint32_t)((sum << 8 | sum >> 8) & 0xffffu);
}

/* As HDF5 does it: old versions of it wrote the bytes of each half in the other order. */
bool p4_fletcher32_matches(const p4_fletcher32 *sums, const void *stored)
{
    uint32_t found, wanted = exchange(sums->second) << 16 | exchange(sums->first);
    memcpy(&found, stored, sizeof found);
    return found == wanted || ((found & 0x00ff00ffu) << 8 | (found >> 8 & 0x00ff00ffu)) == wanted;
}
