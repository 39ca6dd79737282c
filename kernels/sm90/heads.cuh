/* heads.cuh - beside sm90.cuh, what attention needs of compute capability 9.0 (target sm_90a): copies of
 * rows of a head, stores and additions of bytes, flags between blocks, and products of bf16 whose left factor
 * lies in registers or in shared memory. */
#ifndef P4_SM90_HEADS_CUH
#define P4_SM90_HEADS_CUH

#include "kernels/sm90/sm90.cuh"

/* --- copies ----------------------------------------------------------------------------------- */

/* Queues the copy of a box of the map [batch, row, head, d]: rows from `row`, 64 elements from d, of one
 * head, each row 128 bytes, swizzled. What lies outside is 0. All bytes of the box arrive at the barrier. One
 * thread calls. */
static __device__ __forceinline__ void p4_head_load(void *to, const CUtensorMap *map, int d, int head,
                                                    int row, int batch, p4_barrier *barrier)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, "
                 "{%3, %4, %5, %6}], [%2];\n"
                 :
                 : "r"(p4_shared_address(to)), "l"(map), "r"(p4_shared_address(barrier)), "r"(d), "r"(head),
                   "r"(row), "r"(batch)
                 : "memory");
}

/* Queues the copy of `bytes` consecutive bytes; they and both addresses are multiples of 16. One thread
 * calls. */
static __device__ __forceinline__ void p4_bytes_load(void *to, const void *from, int bytes,
                                                     p4_barrier *barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n"
                 :
                 : "r"(p4_shared_address(to)), "l"(from), "r"(bytes), "r"(p4_shared_address(barrier))
                 : "memory");
}

/* Queues the copy of `bytes` from shared to global memory, or the addition of the floats in it to those
 * there; bytes and both addresses are multiples of 16. One thread calls, then p4_stores_end. */
static __device__ __forceinline__ void p4_bytes_store(void *to, const void *from, int bytes)
{
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n"
                 :
                 : "l"(to), "r"(p4_shared_address(from)), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void p4_floats_add(float *to, const void *from, int bytes)
{
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;\n"
                 :
                 : "l"(to), "r"(p4_shared_address(from)), "r"(bytes)
                 : "memory");
}
/* Waits for all stores and additions of this thread. */
static __device__ __forceinline__ void p4_stores_done(void)
{
    asm volatile("cp.async.bulk.wait_group 0;\n" : : : "memory");
}

/* --- order between blocks --------------------------------------------------------------------- */

/* Publishes what this thread wrote or waited for (the copy engine's writes too) to whoever waits until the
 * flag in global memory has this value. */
static __device__ __forceinline__ void p4_flag_set(int *flag, int value)
{
    asm volatile("fence.proxy.async;\n\tst.release.gpu.global.s32 [%0], %1;\n"
                 :
                 : "l"(flag), "r"(value)
                 : "memory");
}
static __device__ __forceinline__ void p4_flag_wait(const int *flag, int value)
{
    int found;
    do {
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];\n" : "=r"(found) : "l"(flag) : "memory");
    } while (found != value);
    asm volatile("fence.proxy.async;\n" : : : "memory");
}

/* --- products --------------------------------------------------------------------------------- */

/* Describes a right factor whose rows of 128 bytes are k and hold 64 of its columns (p4_wgmma_rows: rows are
 * columns of the product, k along them). From eight rows to the next 1024 bytes, from 64 columns to the next
 * `panel_bytes`. Rows r further: add 8 r. */
static __device__ __forceinline__ uint64_t p4_wgmma_rows_across(const void *rows, int panel_bytes)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)(panel_bytes >> 4) << 16 |
           (uint64_t)((p4_shared_address(rows) & 0x3ffffu) >> 4);
}

#define P4_SUMS_8(d, i)                                                                             \
    "+f"((d)[(i)]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3]), "+f"((d)[(i) + 4]), \
        "+f"((d)[(i) + 5]), "+f"((d)[(i) + 6]), "+f"((d)[(i) + 7])
#define P4_SUMS_32(d, i) \
    P4_SUMS_8(d, i), P4_SUMS_8(d, (i) + 8), P4_SUMS_8(d, (i) + 16), P4_SUMS_8(d, (i) + 24)
#define P4_NAMES_32                                                          \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define P4_NAMES_64                                                                                  \
    P4_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
                "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

/* After the wait: the compiler may not read the sums earlier. */
template <int COUNT> static __device__ __forceinline__ void p4_sums_ready(float (&d)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i += 32) {
        asm volatile("" : P4_SUMS_32(d, i) : : "memory");
    }
}

/* d [64, 2 COUNT] (= or +=) a b over 16 of k. a: 64 rows in registers, of warp w rows 16 w to 16 w + 15, as
 * p4_mma_bf16 holds them; it stays as it is until the product is waited for. b: by p4_wgmma_rows_across. d:
 * as p4_wgmma_int8 lays it out. */
template <int COUNT>
static __device__ __forceinline__ void p4_wgmma_held(float (&d)[COUNT], const uint32_t (&a)[4], uint64_t b,
                                                     bool add)
{
    static_assert(COUNT == 32 || COUNT == 64, "64 or 128 columns");
    if constexpr (COUNT == 32) {
        asm volatile("{\n\t"
                     ".reg .pred p;\n\t"
                     "setp.ne.b32 p, %37, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" P4_NAMES_32
                     "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n\t"
                     "}\n"
                     : P4_SUMS_32(d, 0)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add)
                     : "memory");
    } else {
        asm volatile("{\n\t"
                     ".reg .pred p;\n\t"
                     "setp.ne.b32 p, %69, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" P4_NAMES_64
                     "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n\t"
                     "}\n"
                     : P4_SUMS_32(d, 0), P4_SUMS_32(d, 32)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add)
                     : "memory");
    }
}

/* The same, a in shared memory (p4_wgmma_rows), and b along k as well (p4_wgmma_rows). */
template <int COUNT>
static __device__ __forceinline__ void p4_wgmma_shared(float (&d)[COUNT], uint64_t a, uint64_t b, bool add)
{
    static_assert(COUNT == 32 || COUNT == 64, "64 or 128 columns");
    if constexpr (COUNT == 32) {
        asm volatile("{\n\t"
                     ".reg .pred p;\n\t"
                     "setp.ne.b32 p, %34, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" P4_NAMES_32
                     "}, %32, %33, p, 1, 1, 0, 0;\n\t"
                     "}\n"
                     : P4_SUMS_32(d, 0)
                     : "l"(a), "l"(b), "r"((int)add)
                     : "memory");
    } else {
        asm volatile("{\n\t"
                     ".reg .pred p;\n\t"
                     "setp.ne.b32 p, %66, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" P4_NAMES_64
                     "}, %64, %65, p, 1, 1, 0, 0;\n\t"
                     "}\n"
                     : P4_SUMS_32(d, 0), P4_SUMS_32(d, 32)
                     : "l"(a), "l"(b), "r"((int)add)
                     : "memory");
    }
}

/* The same of 64 columns, a in shared memory (p4_wgmma_rows), b by p4_wgmma_rows_across. */
static __device__ __forceinline__ void p4_wgmma_turned(float (&d)[32], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t"
                 ".reg .pred p;\n\t"
                 "setp.ne.b32 p, %34, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" P4_NAMES_32
                 "}, %32, %33, p, 1, 1, 0, 1;\n\t"
                 "}\n"
                 : P4_SUMS_32(d, 0)
                 : "l"(a), "l"(b), "r"((int)add)
                 : "memory");
}

#endif
