/* soft_cap.cuh - cap tanh(x / cap) inside kernels: of attention scores and of logits. */
#ifndef P4_SOFT_CAP_CUDA_CUH
#define P4_SOFT_CAP_CUDA_CUH

#include "kernels/cuda/cuda.cuh"

/* tanh(x) as exactly as the activation type T requires. The fast form is off by 2^-22 of 1, and right at both
 * ends: a quotient by infinity is 0. */
template <typename T> static __device__ __forceinline__ float p4_tanh(float x)
{
    return sizeof(T) == 4 ? tanhf(x) : 1.0f - __fdividef(2.0f, 1.0f + __expf(2.0f * x));
}

#endif
