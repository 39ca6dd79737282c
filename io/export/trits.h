/* trits.h - rows of ternary codes in the layouts of other programs.
 *
 * A row comes as phase4 holds it (src/leaf/tensor.h): 2-bit codes, code = t + 1, low bits first. Scales are
 * fp16 bits. All Local. */
#ifndef P4_EXPORT_TRITS_H
#define P4_EXPORT_TRITS_H

#include "src/leaf/tensor.h"

/* GGUF's block types: elements and bytes of a block. */
enum {
    P4_Q2_0_COUNT = 64,
    P4_Q2_0_BYTES = 18, /* scale, 16 bytes of codes */
    P4_TQ_COUNT = 256,
    P4_TQ1_0_BYTES = 54, /* 48 bytes of 5 trits, 4 bytes of 4 trits, scale */
    P4_TQ2_0_BYTES = 66, /* 64 bytes of 4 trits, scale */
    P4_I2_S_COUNT = 128,
    P4_I2_S_BYTES = 32,
    P4_I2_S_TAIL_BYTES = 32, /* behind the last row: the scale of the tensor in fp32, then zeros */
};

/* `count` elements of a row, a multiple of the block's, with the scale repeated in each block. */
void p4_trits_q2_0(uint8_t *to, const uint8_t *codes, int64_t count, uint16_t scale);
void p4_trits_tq1_0(uint8_t *to, const uint8_t *codes, int64_t count, uint16_t scale);
void p4_trits_tq2_0(uint8_t *to, const uint8_t *codes, int64_t count, uint16_t scale);
void p4_trits_i2_s(uint8_t *to, const uint8_t *codes, int64_t count); /* blocks without a scale */

/* compressed-tensors: unsigned 2-bit values t + 2 in little-endian words of 32 bits, p4_trits_word_bytes a
 * row; what lies behind the last element is 0. */
int64_t p4_trits_word_bytes(int64_t count);
void p4_trits_plus_two(uint8_t *to, const uint8_t *codes, int64_t count);

/* transformers' bitnet: four rows in one, `count` bytes; the first row has the lowest bits. */
void p4_trits_four_rows(uint8_t *to, const uint8_t *const codes[4], int64_t count);

#endif
