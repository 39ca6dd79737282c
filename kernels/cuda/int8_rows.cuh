/* int8_rows.cuh - inside kernels: activations rounded to int8 per token, and back (p4_int8_rows of ops.h).
 *
 * The rounded value is the one in activation type, so that an op that rounds its output gives the codes
 * that quantize_int8 makes of that output. */
#ifndef P4_INT8_ROWS_CUDA_CUH
#define P4_INT8_ROWS_CUDA_CUH

#include <float.h>

#include "kernels/cuda/cuda.cuh"

/* Where the rounded rows of an op, or one of them, are written; passed by value. codes and s, or y, may be
 * NULL. */
template <typename T> struct p4_int8_out {
    T *y;
    int8_t *codes;
    float *s;
    int C, width;
};

template <typename T>
static inline p4_int8_out<T> p4_int8_out_of(void *y, const p4_int8_rows *rounded, int64_t C)
{
    return {(T *)y, rounded->codes, rounded->s, (int)C, (int)p4_int8_width(C)};
}

template <typename T>
static __device__ __forceinline__ p4_int8_out<T> p4_int8_row(const p4_int8_out<T> &out, int64_t n)
{
    return {out.y ? out.y + n * out.C : NULL, out.codes ? out.codes + n * out.width : NULL, out.s + n, out.C,
            out.width};
}

/* |x|, infinite if x is NaN. */
static __device__ __forceinline__ float p4_int8_magnitude(float x)
{
    const float size = fabsf(x);
    return size <= FLT_MAX ? size : __int_as_float(0x7f800000);
}

/* The larger of `largest` and the magnitudes of W elements. */
template <typename T, int W>
static __device__ __forceinline__ float p4_int8_larger(float largest, const p4_pack<T, W> &x)
{
#pragma unroll
    for (int i = 0; i < W; i++) {
        largest = fmaxf(largest, p4_int8_magnitude(p4_value(x.element[i])));
    }
    return largest;
}

static __device__ __forceinline__ float p4_int8_scale(float largest)
{
    return 127.0f / fmaxf(largest, 1e-5f);
}

/* The value that a code stands for: the quotient code / s to the last bit, by one step from the product
 * with inverse = 1 / s as rounded. (True of every code and every s that occurs: all 2^23 fractions have
 * been tried, and powers of two change nothing.) Not finite for s = 0. */
static __device__ __forceinline__ float p4_int8_quotient(float code, float s, float inverse)
{
    const float near = __fmul_rn(code, inverse);
    return __fmaf_rn(__fmaf_rn(-near, s, code), inverse, near);
}

/* W codes of a row from column c, and the values that they stand for. A sum with 3 * 2^22 has the integer
 * nearest to x s, ties to even, in its low bits: |x s| is at most 127 plus a rounding error. */
template <typename T, int W>
static __device__ __forceinline__ void p4_int8_put(const p4_int8_out<T> &row, int c, const p4_pack<T, W> &x,
                                                   float s, float inverse)
{
    struct alignas(W) {
        int8_t element[W];
    } q;
    float code[W];
#pragma unroll
    for (int i = 0; i < W; i++) {
        const float shifted = __fadd_rn(__fmul_rn(p4_value(x.element[i]), s), 0x1.8p23f);
        q.element[i] = (int8_t)__float_as_int(shifted);
        code[i] = __fsub_rn(shifted, 0x1.8p23f);
    }
    if (row.codes) {
        *(decltype(q) *)(row.codes + c) = q;
    }
    if (row.y) {
#pragma unroll
        for (int i = 0; i < W; i++) {
            code[i] = p4_int8_quotient(code[i], s, inverse);
        }
        p4_store(row.y + c, code);
    }
}

/* The end of a row: the zeros behind it and its s. */
template <typename T> static __device__ __forceinline__ void p4_int8_end(const p4_int8_out<T> &row, float s)
{
    if (!row.codes) {
        return;
    }
    for (int c = row.C + (int)threadIdx.x; c < row.width; c += (int)blockDim.x) {
        row.codes[c] = 0;
    }
    if (threadIdx.x == 0) {
        *row.s = s;
    }
}

/* The op `activate` with `rounded` (kernels/cuda/int8_rows.cu). N and C are above 0. */
void p4_cuda_round_activated(p4_device *device, p4_activation function, bool gated, void *y,
                             const p4_int8_rows *rounded, const void *x, int64_t N, int64_t C);

#endif
