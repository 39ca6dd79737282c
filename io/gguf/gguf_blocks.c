#include "io/gguf/gguf_blocks.h"

#include <string.h>

enum { TYPE_TQ1_0 = 34, TYPE_TQ2_0 = 35, TYPE_Q2_0 = 42, LARGE = 256, SMALL = 64 };

static const p4_gguf_block blocks[] = {
    {0, "F32", 1, 4, P4_F32},
    {1, "F16", 1, 2, P4_F16},
    {30, "BF16", 1, 2, P4_BF16},
    {TYPE_TQ1_0, "TQ1_0", LARGE, 54, P4_TERNARY},
    {TYPE_TQ2_0, "TQ2_0", LARGE, 66, P4_TERNARY},
    {TYPE_Q2_0, "Q2_0", SMALL, 18, P4_TERNARY},
};

const p4_gguf_block *p4_gguf_block_of(uint32_t type)
{
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        if (blocks[i].type == type) {
            return &blocks[i];
        }
    }
    return NULL;
}

/* 64 bytes of 4 codes, low bits first; code l of byte m of a half is weight 32 l + m of it. Scale last. */
static void tq2_0(uint8_t *u, uint16_t *scale, const uint8_t *from)
{
    for (int i = 0; i < LARGE; i++) {
        u[i] = from[i / 128 * 32 + i % 32] >> 2 * (i % 128 / 32) & 3;
    }
    memcpy(scale, from + 64, sizeof *scale);
}

/* Trit n of a byte, most significant first: the byte is the fraction v / 243 of 256, rounded up. */
static uint8_t trit(uint8_t byte, int n)
{
    static const uint8_t power[] = {1, 3, 9, 27, 81};
    return (uint8_t)((uint8_t)(byte * power[n]) * 3 >> 8);
}

/* 32 bytes hold the weights 0 to 159, 16 bytes those to 239, five a byte; 4 bytes the rest, four a byte. */
static void tq1_0(uint8_t *u, uint16_t *scale, const uint8_t *from)
{
    for (int n = 0; n < 5; n++) {
        for (int m = 0; m < 32; m++) {
            u[32 * n + m] = trit(from[m], n);
        }
        for (int m = 0; m < 16; m++) {
            u[160 + 16 * n + m] = trit(from[32 + m], n);
        }
    }
    for (int n = 0; n < 4; n++) {
        for (int j = 0; j < 4; j++) {
            u[240 + 4 * n + j] = trit(from[48 + j], n);
        }
    }
    memcpy(scale, from + 52, sizeof *scale);
}

/* The scale first, then 16 bytes of 4 neighbors each. */
static void q2_0(uint8_t *u, uint16_t *scale, const uint8_t *from)
{
    memcpy(scale, from, sizeof *scale);
    for (int i = 0; i < SMALL; i++) {
        u[i] = from[2 + i / 4] >> 2 * (i % 4) & 3;
    }
}

bool p4_gguf_block_trits(uint8_t *u, uint16_t *scale, const p4_gguf_block *block, const uint8_t *from)
{
    bool valid = true;
    if (block->type == TYPE_TQ2_0) {
        tq2_0(u, scale, from);
    } else if (block->type == TYPE_TQ1_0) {
        tq1_0(u, scale, from);
    } else {
        q2_0(u, scale, from);
    }
    for (int i = 0; i < block->elements; i++) {
        valid = valid && u[i] <= 2;
    }
    return valid;
}
