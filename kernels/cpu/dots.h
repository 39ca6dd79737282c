/* dots.h - dot products of rows of weights, as they are stored, with a few rows of activations: what a step
 * of decoding spends its time on. One table for each instruction set; the last of them, in portable C, is the
 * reference. Integer sums are exact, so all tables give the same; fp32 sums differ in their order.
 *
 * Codes and planes: a byte of codes holds the columns 4b to 4b + 3, so a shift of 32 bytes of codes by 2i
 * bits gives the columns 4b + i of a block of 128. Activations are put in that order once for all rows
 * (planes): plane i of a block holds its columns i, i + 4, i + 8 ..., and zeros beyond the last column. A
 * table may join blocks, so planes are read by the table that made them. With u = t + 1 the sum of t x is
 * that of u x minus that of x, and u needs no sign. */
#ifndef P4_CPU_DOTS_H
#define P4_CPU_DOTS_H

#include <stdint.h>

#include "src/leaf/base.h"

enum {
    P4_PLANES_BLOCK = 128, /* columns of a block: 4 planes of 32 */
    P4_DOT_LANES = 4       /* rows of weights, or tokens, of one call */
};

/* Bytes of a token's planes. */
static inline int64_t p4_planes_bytes(int64_t cols)
{
    return p4_ceil_div(cols, P4_PLANES_BLOCK) * P4_PLANES_BLOCK;
}

typedef struct p4_dots {
    const char *name; /* "AVX2" */
    /* planes [p4_planes_bytes(cols)] of x [cols]; the sum of x. */
    int32_t (*planes)(int8_t *planes, const int8_t *x, int64_t cols);
    /* sums[r] = the sum of u x over row r of P4_DOT_LANES rows of codes, row_bytes apart. */
    void (*rows)(int32_t *sums, const uint8_t *codes, int64_t row_bytes, const int8_t *planes, int64_t cols);
    /* sums[n] = the sum of u x over one row of codes and each of P4_DOT_LANES tokens' planes, `stride` bytes
     * apart. */
    void (*tokens)(int32_t *sums, const uint8_t *codes, const int8_t *planes, int64_t stride, int64_t cols);
    /* The sum of w x of a row of fp32, fp16 or bf16 at any address, or of t x of a row of codes. */
    float (*f32)(const void *w, const float *x, int64_t cols);
    float (*f16)(const void *w, const float *x, int64_t cols);
    float (*bf16)(const void *w, const float *x, int64_t cols);
    float (*codes)(const void *w, const float *x, int64_t cols);
} p4_dots;

/* The tables that this machine can run, the best first; `index` past the last: NULL. */
const p4_dots *p4_cpu_dots_at(int index);
static inline const p4_dots *p4_cpu_dots(void)
{
    return p4_cpu_dots_at(0);
}
/* kernels/cpu/dots_portable.c; two of its functions serve other tables as well. */
extern const p4_dots p4_cpu_dots_portable;
int32_t p4_dots_planes(int8_t *planes, const int8_t *x, int64_t cols);
float p4_dots_f32(const void *w, const float *x, int64_t cols);
/* NULL: this machine, or this build, does not have it. kernels/cpu/dots_avx2.c */
const p4_dots *p4_cpu_dots_avx2(void);
const p4_dots *p4_cpu_dots_avx512(void); /* kernels/cpu/dots_avx512.c */

#endif
