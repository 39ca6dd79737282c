/* mlp.cuh - the MLP's activation functions inside kernels. */
#ifndef P4_MLP_CUDA_CUH
#define P4_MLP_CUDA_CUH

#include "kernels/cuda/cuda.cuh"

/* e^x and 1 / x (x from 1 to 2) as exactly as the activation type T requires: the fast forms are off by a
 * few 2^-22. */
template <typename T> static __device__ __forceinline__ float p4_exp_for(float x)
{
    return sizeof(T) == 4 ? expf(x) : __expf(x);
}
template <typename T> static __device__ __forceinline__ float p4_inverse_for(float x)
{
    return sizeof(T) == 4 ? 1.0f / x : __fdividef(1.0f, x);
}

/* sigmoid(x) without overflow. */
template <typename T> static __device__ __forceinline__ float p4_sigmoid(float x)
{
    const float e = p4_exp_for<T>(-fabsf(x)), large = p4_inverse_for<T>(1.0f + e);
    return x < 0.0f ? e * large : large;
}

/* sigmoid(x), and its slope s (1 - s) without the cancellation of 1 - s. */
template <typename T> static __device__ __forceinline__ float p4_sigmoid_slope(float x, float *slope)
{
    const float e = p4_exp_for<T>(-fabsf(x)), large = p4_inverse_for<T>(1.0f + e);
    *slope = e * large * large;
    return x < 0.0f ? e * large : large;
}

/* silu(gate) * up; each step rounded, so that every kernel gives the same bits. */
template <typename T> static __device__ __forceinline__ float p4_swiglu(float gate, float up)
{
    return __fmul_rn(up, __fmul_rn(gate, p4_sigmoid<T>(gate)));
}

/* Replaces gate and up by the gradients there, from the gradient d at silu(gate) * up. */
template <typename T>
static __device__ __forceinline__ void p4_swiglu_backward(float d, float *gate, float *up)
{
    float slope, s = p4_sigmoid_slope<T>(*gate, &slope), at_gate = *up * (d * (s + *gate * slope));
    *up = *gate * (d * s);
    *gate = at_gate;
}

/* gelu(x) = x (1 + tanh(u)) / 2 = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation for x <
 * 0. */
#define P4_GELU_SLOPE (2.0f * 0.7978845608028654f)
#define P4_GELU_CUBIC 0.044715f
template <typename T> static __device__ __forceinline__ float p4_gelu(float x)
{
    const float cubic = __fmaf_rn(__fmul_rn(P4_GELU_CUBIC, x), x, 1.0f);
    return __fmul_rn(x, p4_sigmoid<T>(__fmul_rn(__fmul_rn(P4_GELU_SLOPE, x), cubic)));
}
template <typename T> static __device__ __forceinline__ float p4_gelu_slope(float x)
{
    const float square = P4_GELU_CUBIC * x * x;
    float slope, s = p4_sigmoid_slope<T>(P4_GELU_SLOPE * x * (1.0f + square), &slope);
    return s + x * slope * P4_GELU_SLOPE * (1.0f + 3.0f * square);
}

#endif
