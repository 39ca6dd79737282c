/* mma.cuh - the tensor-core and copy instructions that have no C name. A warp's lane holds, with g = lane / 4
 * and t = lane % 4: of C [16, 8] fp32: rows g, g, g + 8, g + 8, columns 2 t, 2 t + 1 each; of A [16, 16]
 * bf16, pairs along k: rows g, g + 8, g, g + 8 at k = 2 t, 2 t, 2 t + 8, 2 t + 8; of B [16, 8]: column g at k
 * = 2 t and 2 t + 8. */
#ifndef P4_MMA_CUH
#define P4_MMA_CUH

#include "kernels/cuda/cuda.cuh"

/* c += a b. */
static __device__ __forceinline__ void p4_mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                   uint32_t b1)
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8 x 8 matrices of 16-bit elements in shared memory; lane l gives the address of row l % 8 of matrix l
 * / 8. Lane l gets of each matrix row l / 4, columns 2 (l % 4) and the next. */
static __device__ __forceinline__ void p4_load_matrices(uint32_t (&to)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

/* The same, each matrix transposed. */
static __device__ __forceinline__ void p4_load_matrices_transposed(uint32_t (&to)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

/* Prefetches the line of 128 bytes that holds `from` into the second-level cache. */
static __device__ __forceinline__ void p4_prefetch(const void *from)
{
    asm volatile("prefetch.global.L2 [%0];\n" : : "l"(from));
}

/* Queues a copy of 16 bytes to shared memory; zeros instead unless `valid` (`from` must be an address all the
 * same). */
static __device__ __forceinline__ void p4_copy_16(void *to, const void *from, bool valid)
{
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
                 :
                 : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "r"(bytes)
                 : "memory");
}

/* Waits for all of this thread's copies. */
static __device__ __forceinline__ void p4_copy_wait(void)
{
    asm volatile("cp.async.wait_all;\n" : : : "memory");
}

/* 2^x within 2 ulp, results below 2^-126 are 0. */
static __device__ __forceinline__ float p4_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Two floats as bf16, `low` in the low half. */
static __device__ __forceinline__ uint32_t p4_pair_bf16(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

#endif
