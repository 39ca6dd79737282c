/* state.cuh - optimizer state in kernels: its type, and rounding to it. */
#ifndef P4_KERNELS_STATE_CUDA_CUH
#define P4_KERNELS_STATE_CUDA_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/state.h"

/* As P4_BY_WIDTH, with S the type of stored state. */
#define P4_BY_STATE(half, wide, width, ...)        \
    do {                                           \
        if (half) {                                \
            typedef __nv_bfloat16 S;               \
            P4_BY_WIDTH(wide, width, __VA_ARGS__); \
        } else {                                   \
            typedef float S;                       \
            P4_BY_WIDTH(wide, width, __VA_ARGS__); \
        }                                          \
    } while (0)

/* An address for p4_cuda_wide when accesses are as many elements wide as 16 bytes of fp32: for bf16, half
 * the alignment suffices. */
static inline uintptr_t p4_state_address(const void *state, bool half)
{
    return P4_ADDRESS(state) * (half ? 2 : 1);
}

/* Rounds x to what state of the type of `stored` can hold, so that storing it is exact; bits [shift, shift
 * + 16) of the draws of elements [index, index + W) decide. fp32 state holds x as it is. */
template <int W>
static __device__ __forceinline__ void p4_state_round(const float *stored, float (&x)[W], uint64_t key,
                                                      uint64_t index, int shift)
{
    (void)stored, (void)x, (void)key, (void)index, (void)shift;
}
template <int W>
static __device__ __forceinline__ void p4_state_round(const __nv_bfloat16 *stored, float (&x)[W],
                                                      uint64_t key, uint64_t index, int shift)
{
    (void)stored;
#pragma unroll
    for (int k = 0; k < W; k++) {
        const uint32_t draw = p4_state_draw(key, index + (uint64_t)k) >> shift;
        x[k] = __uint_as_float((uint32_t)p4_state_round_bits(__float_as_uint(x[k]), draw) << 16);
    }
}

#endif
