/* state.h - optimizer state in bf16: how an element is rounded. The CPU and CUDA columns share it, so that
 * they round alike.
 *
 * A value is rounded up or down at random so that its mean is preserved; otherwise a running average that
 * changes by less than half a step of bf16 would stay where it is. The draw is a pure function of a key,
 * which changes with the step, and of the position of the element in the model, so that any number of ranks
 * and threads stores the same bits, and all copies of a replicated parameter stay equal. */
#ifndef P4_KERNELS_STATE_H
#define P4_KERNELS_STATE_H

#include <stdint.h>

#ifdef __CUDACC__
#define P4_STATE_FN static __host__ __device__ __forceinline__
#else
#define P4_STATE_FN \
    static inline __attribute__((always_inline)) /* into functions compiled for several CPUs */
#endif

/* 32 random bits of element `index`: two rounds of multiply and shift, a half of the key before each. */
P4_STATE_FN uint32_t p4_state_draw(uint64_t key, uint64_t index)
{
    uint32_t x = (uint32_t)index + (uint32_t)key;
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x ^= (uint32_t)(key >> 32) + (uint32_t)(index >> 32) * 0x9E3779B1u;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    x = (x ^ x >> 16) * 0x7FEB352Du;
    return x ^ x >> 15;
}

/* The bits of fp32 `bits` rounded to bf16 with 16 random bits. Values that bf16 holds exactly are kept,
 * infinities and NaN included. */
P4_STATE_FN uint16_t p4_state_round_bits(uint32_t bits, uint32_t draw)
{
    const uint32_t nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    return (uint16_t)(nan ? bits >> 16 | 0x40u : (bits + (draw & 0xFFFFu)) >> 16);
}

#endif
