/* ternary.cuh - what the quantize kernels share: the task, rows held in registers, codes, error sums.
 *
 * The CPU column is the specification, bit for bit. Both columns sum in double. The sums of `exact` without
 * importance have no rounding error in either (kernels/cuda/ternary_exact.cuh says why), so codes and
 * scales always agree. The sum of absmean has none while all elements are multiples of 2^-53 of it: for
 * half-precision rows unless an element is below 2^-32 of the largest. In other rows, and with importance,
 * the columns add in different orders, as do CPUs of different vector widths: sums may differ by about
 * 2^-50 relative. That changes a result only where the sum lies that close to the middle between two
 * floats, or where two cuts are equally good to within 2^-50. */
#ifndef P4_TERNARY_CUDA_CUH
#define P4_TERNARY_CUDA_CUH

#include <float.h>
#include <math.h>

#include "kernels/cuda/cuda.cuh"

enum {
    QUANT_CHUNKS = 4, /* 16-byte pieces of a row that a thread holds */
    QUANT_THREADS_MOST = 1024
};

/* A quantize call. Element (r, c) is number r * row_step + c * col_step of `data`. */
typedef struct quant_task {
    uint8_t *codes;
    uint16_t *scale;
    const void *data;
    const float *importance; /* [cols], or NULL */
    p4_quant_error *parts;   /* one a block, or NULL: no error wanted */
    int64_t rows, cols, row_step, col_step, row_bytes;
    p4_dtype dtype;
    p4_quant_method method;
    float threshold;
} quant_task;

/* A thread's share of the error; thread 0 alone keeps the scales. */
typedef struct quant_sums {
    double sq_error, sq_norm;
    long long zeros, nonfinite;
    float scale_min, scale_max;
} quant_sums;

static __device__ __forceinline__ quant_sums quant_sums_start(void)
{
    const quant_sums start = {0.0, 0.0, 0, 0, INFINITY, -INFINITY};
    return start;
}

/* t = sign(w) where |w| >= cut. */
static __device__ __forceinline__ void quant_add_error(quant_sums *sums, float value, float cut, float stored)
{
    const float magnitude = fabsf(value);
    const bool kept = magnitude >= cut;
    const double difference = (double)magnitude - (kept ? (double)stored : 0.0);
    sums->sq_error += difference * difference;
    sums->sq_norm += (double)magnitude * (double)magnitude;
    sums->zeros += kept ? 0 : 1;
    sums->nonfinite += magnitude <= FLT_MAX ? 0 : 1;
}

/* By thread 0: the scale as it is stored. */
static __device__ __forceinline__ void quant_store_scale(const quant_task *k, int64_t row, float scale,
                                                         quant_sums *sums)
{
    const __half stored = __float2half_rn(scale);
    k->scale[row] = __half_as_ushort(stored);
    sums->scale_min = fminf(sums->scale_min, __half2float(stored));
    sums->scale_max = fmaxf(sums->scale_max, __half2float(stored));
}

/* Stores the block's sums as its part. Threads add the same elements on every run, so the bits are the
 * same. */
static __device__ __forceinline__ void quant_store_sums(const quant_task *k, quant_sums sums)
{
    p4_quant_error part;
    part.sq_error = p4_block_sum(sums.sq_error);
    part.sq_norm = p4_block_sum(sums.sq_norm);
    part.zeros = p4_block_sum(sums.zeros);
    part.nonfinite = p4_block_sum(sums.nonfinite);
    part.scale_min = sums.scale_min;
    part.scale_max = sums.scale_max;
    if (threadIdx.x == 0) {
        k->parts[blockIdx.x] = part;
    }
}

/* --- rows in registers: not transposed, 16-byte aligned, at most QUANT_CHUNKS pieces a thread --- */

/* Elements of one piece and their magnitudes as doubles without a conversion: the bits of a float moved into
 * those of a double are a double whose exponent is counted from elsewhere, that is the value times a power of
 * two, subnormal or not. */
template <p4_dtype DT> struct quant_form;

template <> struct quant_form<P4_F32> {
    enum { EACH = 4, PER_PIECE = 4, INFINITE = 0x7f800000 };
    static constexpr double unit = 0x1p896;
    static __device__ __forceinline__ uint32_t magnitude(uint32_t bits)
    {
        return bits & 0x7fffffffu;
    }
    static __device__ __forceinline__ double scaled(uint32_t magnitude)
    {
        return __hiloint2double((int)(magnitude >> 3), (int)(magnitude << 29));
    }
    static __device__ __forceinline__ float value(uint32_t magnitude)
    {
        return __uint_as_float(magnitude);
    }
    /* The least magnitude that is at least `cut` (> 0). */
    static __device__ __forceinline__ uint32_t key(float cut)
    {
        return __float_as_uint(cut);
    }
};

template <> struct quant_form<P4_BF16> {
    enum { EACH = 2, PER_PIECE = 8, INFINITE = 0x7f80 };
    static constexpr double unit = 0x1p896;
    static __device__ __forceinline__ uint32_t magnitude(uint32_t bits)
    {
        return bits & 0x7fffu;
    }
    static __device__ __forceinline__ double scaled(uint32_t magnitude)
    {
        return __hiloint2double((int)(magnitude << 13), 0);
    }
    static __device__ __forceinline__ float value(uint32_t magnitude)
    {
        return __uint_as_float(magnitude << 16);
    }
    static __device__ __forceinline__ uint32_t key(float cut)
    {
        return (__float_as_uint(cut) + 0xffffu) >> 16;
    }
};

template <> struct quant_form<P4_F16> {
    enum { EACH = 2, PER_PIECE = 8, INFINITE = 0x7c00 };
    static constexpr double unit = 0x1p1008;
    static __device__ __forceinline__ uint32_t magnitude(uint32_t bits)
    {
        return bits & 0x7fffu;
    }
    static __device__ __forceinline__ double scaled(uint32_t magnitude)
    {
        return __hiloint2double((int)(magnitude << 10), 0);
    }
    static __device__ __forceinline__ float value(uint32_t magnitude)
    {
        return __half2float(__ushort_as_half((unsigned short)magnitude));
    }
    static __device__ __forceinline__ uint32_t key(float cut)
    {
        const uint32_t nearest = __half_as_ushort(__float2half_rn(cut));
        return nearest + (value(nearest) < cut ? 1u : 0u);
    }
};

/* Element i of a piece, i a constant: its bits. */
template <p4_dtype DT> static __device__ __forceinline__ uint32_t quant_bits(const uint4 &piece, int i)
{
    const uint32_t word[4] = {piece.x, piece.y, piece.z, piece.w};
    return quant_form<DT>::EACH == 4 ? word[i % 4] : word[i / 2 % 4] >> 16 * (i % 2);
}

/* Pieces threadIdx.x, threadIdx.x + blockDim.x, ...; those past the row are 0. */
template <p4_dtype DT>
static __device__ __forceinline__ void quant_load_row(uint4 (&piece)[QUANT_CHUNKS], const quant_task *k,
                                                      int64_t row)
{
    const int pieces = (int)(k->cols / quant_form<DT>::PER_PIECE);
    const uint4 *from = (const uint4 *)k->data + row * pieces;
#pragma unroll
    for (int i = 0; i < QUANT_CHUNKS; i++) {
        const int at = (int)(threadIdx.x + i * blockDim.x);
        piece[i] = at < pieces ? __ldcs(from + at) : make_uint4(0, 0, 0, 0);
    }
}

/* The codes of a piece, low bits first. For halves two elements at a time: with the sign bit set, subtracting
 * the key leaves it set exactly where the magnitude is at least the key. */
template <p4_dtype DT>
static __device__ __forceinline__ uint32_t quant_piece_codes(const uint4 &piece, uint32_t key)
{
    const uint32_t word[4] = {piece.x, piece.y, piece.z, piece.w};
    uint32_t codes = 0;
    if (quant_form<DT>::EACH == 4) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t kept = (word[i] & 0x7fffffffu) >= key ? 1u : 0u;
            codes |= (kept ? (word[i] >> 31 ? 0u : 2u) : 1u) << 2 * i;
        }
        return codes;
    }
    const uint32_t keys = key | key << 16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t kept = (word[i] | 0x80008000u) - keys;
        const uint32_t positive = kept & ~word[i] & 0x80008000u, zero = ~kept & 0x80008000u;
        codes |= (positive >> 14 | zero >> 15) << 4 * i; /* elements 2 i and 2 i + 1: bits 4 i and 16 + 4 i */
    }
    return (codes & 0x3333u) | (codes >> 14 & 0xccccu);
}

template <p4_dtype DT, bool ERROR>
static __device__ __forceinline__ void quant_finish_row(const quant_task *k, int64_t row,
                                                        const uint4 (&piece)[QUANT_CHUNKS], float cut,
                                                        float scale, quant_sums *sums)
{
    const int pieces = (int)(k->cols / quant_form<DT>::PER_PIECE);
    const uint32_t key = quant_form<DT>::key(cut);
    uint8_t *codes = k->codes + row * k->row_bytes;
#pragma unroll
    for (int i = 0; i < QUANT_CHUNKS; i++) {
        const int at = (int)(threadIdx.x + i * blockDim.x);
        if (at < pieces && quant_form<DT>::EACH == 4) {
            codes[at] = (uint8_t)quant_piece_codes<DT>(piece[i], key);
        } else if (at < pieces) {
            ((uint16_t *)codes)[at] = (uint16_t)quant_piece_codes<DT>(piece[i], key);
        }
    }
    if (threadIdx.x == 0) {
        quant_store_scale(k, row, scale, sums);
    }
    if (!ERROR) {
        return;
    }
    const float stored = __half2float(__float2half_rn(scale));
#pragma unroll
    for (int i = 0; i < QUANT_CHUNKS; i++) {
        if ((int)(threadIdx.x + i * blockDim.x) < pieces) {
#pragma unroll
            for (int e = 0; e < quant_form<DT>::PER_PIECE; e++) {
                const uint32_t magnitude = quant_form<DT>::magnitude(quant_bits<DT>(piece[i], e));
                quant_add_error(sums, quant_form<DT>::value(magnitude), cut, stored);
            }
        }
    }
}

#endif
