/* int8.cuh - the product of int8 activations and ternary weights: what its three implementations share.
 *
 * `own`: wgmma, for bf16 activations on compute capability 9.0. Elsewhere `cublas`: cuBLASLt's integer
 * product in blocks of rows, each followed by a scaling, where out is a multiple of 16. Elsewhere `simple`.
 * The sums are exact and the scaling is one function, so all give the same bits. P4_INT8=cublas or simple in
 * the environment limits the choice to those, to compare them; P4_INT8=own is the default, and an error on a
 * device that cannot run it. */
#ifndef P4_INT8_CUDA_CUH
#define P4_INT8_CUDA_CUH

#include "kernels/cuda/cuda.cuh"

typedef enum p4_int8_implementation { P4_INT8_SIMPLE, P4_INT8_CUBLAS, P4_INT8_OWN } p4_int8_implementation;

/* y[N, out] = ((float)(xq t^T) * (1 / s[n])) * row[o] (+ bias[o]). Rows of xq and t have `in` elements, a
 * multiple of 16. */
typedef struct p4_int8_product {
    void *y;           /* activations */
    const int8_t *xq;  /* [N, in] */
    const int8_t *t;   /* [out, in]: -1, 0, 1 */
    const float *s;    /* [N] */
    const float *row;  /* [out]: scales of the weight's rows, 8-byte aligned */
    const float *bias; /* [out] or NULL */
    int64_t N, in, out;
} p4_int8_product;

/* The scaling of all implementations, token being 1 / s, then the bias if there is one. No multiply-add: each
 * step is rounded. */
static __device__ __forceinline__ float p4_int8_value(int sum, float token, float row)
{
    return __fmul_rn(__fmul_rn(__int2float_rn(sum), token), row);
}
static __device__ __forceinline__ float p4_int8_biased(float value, float bias)
{
    return __fadd_rn(value, bias);
}

/* kernels/sm90/int8.cu: prepares the kernel on the current device; false records a failure. */
bool p4_cuda_int8_own_open(p4_device *device);
/* y in bf16, any N and out. */
void p4_cuda_int8_own(p4_device *device, const p4_int8_product *product);

#endif
