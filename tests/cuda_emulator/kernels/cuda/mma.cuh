/* mma.cuh for the emulator: the same functions in plain C++, operands exchanged through the warp's slots. */
#ifndef P4_MMA_CUH
#define P4_MMA_CUH
#include "kernels/cuda/cuda.cuh"
#include <stdio.h>
#include <stdlib.h>
#include <vector>

static inline void p4_prefetch(const void *) {}
static inline float emu_bf16(uint32_t pair, int high)
{
    return __uint_as_float(high ? pair & 0xffff0000u : pair << 16);
}
static inline void p4_mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    const int lane = emu_now->index % 32, g = lane / 4, t = lane % 4;
    float A[2][16], B[2][16];
    for (int from = 0; from < 4; from++) {
        for (int r = 0; r < 4; r++) { /* of row g: all four lanes of the quad */
            const uint32_t pair = emu_exchange(0xffffffffu, a[r], g * 4 + from);
            for (int h = 0; h < 2; h++)
                A[r % 2][r / 2 * 8 + 2 * from + h] = emu_bf16(pair, h);
        }
        for (int col = 0; col < 2; col++) { /* of columns 2 t, 2 t + 1 */
            const uint32_t p0 = emu_exchange(0xffffffffu, b0, (2 * t + col) * 4 + from),
                           p1 = emu_exchange(0xffffffffu, b1, (2 * t + col) * 4 + from);
            for (int h = 0; h < 2; h++) {
                B[col][2 * from + h] = emu_bf16(p0, h);
                B[col][8 + 2 * from + h] = emu_bf16(p1, h);
            }
        }
    }
    for (int r = 0; r < 2; r++)
        for (int col = 0; col < 2; col++) {
            double sum = c[2 * r + col];
            for (int k = 0; k < 16; k++)
                sum += (double)A[r][k] * (double)B[col][k];
            c[2 * r + col] = (float)sum;
        }
}
static inline void emu_matrices(uint32_t (&to)[4], const void *row, bool transposed)
{
    const int lane = emu_now->index % 32;
    if ((uintptr_t)row % 16) {
        fprintf(stderr, "emulator: ldmatrix address not aligned\n");
        abort();
    }
    for (int m = 0; m < 4; m++) {
        uint16_t h[2];
        for (int i = 0; i < 2; i++) {
            const int r = transposed ? 2 * (lane % 4) + i : lane / 4,
                      c = transposed ? lane / 4 : 2 * (lane % 4) + i;
            const uint16_t *from = (const uint16_t *)(uintptr_t)emu_exchange(
                0xffffffffu, (unsigned long long)(uintptr_t)row, m * 8 + r);
            h[i] = from[c];
        }
        to[m] = h[0] | (uint32_t)h[1] << 16;
    }
    emu_warp_barrier(0xffffffffu);
}
static inline void p4_load_matrices(uint32_t (&to)[4], const void *row)
{
    emu_matrices(to, row, false);
}
static inline void p4_load_matrices_transposed(uint32_t (&to)[4], const void *row)
{
    emu_matrices(to, row, true);
}
/* Copies land when they are waited for: a missing wait shows. */
struct emu_copy {
    void *to;
    const void *from;
    bool valid;
};
static std::vector<emu_copy> emu_copies[EMU_THREADS];
static inline void p4_copy_16(void *to, const void *from, bool valid)
{
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16) {
        fprintf(stderr, "emulator: cp.async address not aligned\n");
        abort();
    }
    emu_copies[emu_now->index].push_back({to, from, valid});
}
static inline void p4_copy_wait(void)
{
    for (const emu_copy &c : emu_copies[emu_now->index]) {
        if (c.valid)
            memcpy(c.to, c.from, 16);
        else
            memset(c.to, 0, 16);
    }
    emu_copies[emu_now->index].clear();
}
static inline float p4_exp2(float x)
{
    float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}
static inline uint32_t p4_pair_bf16(float low, float high)
{
    return p4_f32_to_bf16(low) | (uint32_t)p4_f32_to_bf16(high) << 16;
}
#endif
