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

/* gelu(x) = x (1 + tanh(u)) / 2 = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation for x <
 * 0. */
#define P4_GELU_SLOPE (2.0f * 0.7978845608028654f)
#define P4_GELU_CUBIC 0.044715f
template <typename T> static __device__ __forceinline__ float p4_gelu(float x)
{
    const float cubic = __fmaf_rn(__fmul_rn(P4_GELU_CUBIC, x), x, 1.0f);
    return __fmul_rn(x, p4_sigmoid<T>(__fmul_rn(__fmul_rn(P4_GELU_SLOPE, x), cubic)));
}

/* The normal distribution's integral up to x. */
static __device__ __forceinline__ float p4_normal(float x)
{
    return 0.5f * erfcf(-0.70710678f * x);
}

/* The activation function F at x; each step rounded, so that every kernel gives the same bits. */
template <typename T, p4_activation F> static __device__ __forceinline__ float p4_activated(float x)
{
    if (F == P4_GELU_TANH) {
        return p4_gelu<T>(x);
    }
    if (F == P4_GELU_ERF) {
        return __fmul_rn(x, p4_normal(x));
    }
    if (F == P4_SILU) {
        return __fmul_rn(x, p4_sigmoid<T>(x));
    }
    const float above = x < 0.0f ? 0.0f : x;
    return F == P4_RELU ? above : __fmul_rn(above, above);
}

/* Its slope at x; *value: the function there. */
template <typename T, p4_activation F>
static __device__ __forceinline__ float p4_activated_slope(float x, float *value)
{
    float slope, s;
    if (F == P4_GELU_TANH) {
        const float square = P4_GELU_CUBIC * x * x;
        s = p4_sigmoid_slope<T>(P4_GELU_SLOPE * x * (1.0f + square), &slope);
        *value = x * s;
        return s + x * slope * P4_GELU_SLOPE * (1.0f + 3.0f * square);
    }
    if (F == P4_GELU_ERF) {
        s = p4_normal(x);
        *value = x * s;
        return s + x * 0.39894228f * p4_exp_for<T>(-0.5f * x * x);
    }
    if (F == P4_SILU) {
        s = p4_sigmoid_slope<T>(x, &slope);
        *value = x * s;
        return s + x * slope;
    }
    const float above = x < 0.0f ? 0.0f : x;
    *value = F == P4_RELU ? above : above * above;
    return F == P4_RELU ? (x > 0.0f ? 1.0f : 0.0f) : 2.0f * above;
}

/* f(gate) * up. */
template <typename T, p4_activation F> static __device__ __forceinline__ float p4_gated(float gate, float up)
{
    return __fmul_rn(up, p4_activated<T, F>(gate));
}

/* Replaces gate and up by the gradients there, from the gradient d at f(gate) * up. */
template <typename T, p4_activation F>
static __device__ __forceinline__ void p4_gated_backward(float d, float *gate, float *up)
{
    float value;
    const float slope = p4_activated_slope<T, F>(*gate, &value), at_gate = *up * (d * slope);
    *up = d * value;
    *gate = at_gate;
}

/* y = f(x), kernels/cuda/activation.cu. */
void p4_cuda_activate_plain(p4_device *device, p4_activation function, void *y, const void *x, int64_t count);

/* Runs `...` with F the function. */
#define P4_BY_FUNCTION(function, ...)             \
    do {                                          \
        switch (function) {                       \
        case P4_GELU_TANH: {                      \
            const p4_activation F = P4_GELU_TANH; \
            __VA_ARGS__;                          \
        } break;                                  \
        case P4_GELU_ERF: {                       \
            const p4_activation F = P4_GELU_ERF;  \
            __VA_ARGS__;                          \
        } break;                                  \
        case P4_SILU: {                           \
            const p4_activation F = P4_SILU;      \
            __VA_ARGS__;                          \
        } break;                                  \
        case P4_RELU: {                           \
            const p4_activation F = P4_RELU;      \
            __VA_ARGS__;                          \
        } break;                                  \
        case P4_RELU_SQ: {                        \
            const p4_activation F = P4_RELU_SQ;   \
            __VA_ARGS__;                          \
        } break;                                  \
        case P4_ACTIVATION_COUNT:                 \
            break;                                \
        }                                         \
    } while (0)

#endif
