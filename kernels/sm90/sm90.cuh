/* sm90.cuh - the instructions of compute capability 9.0 that have no C name (target sm_90a): barriers in
 * shared memory, copies of tiles by tensor map, and the matrix product of a warpgroup. Blocks of a cluster
 * lay out their shared memory alike, so that a pointer into one names the same object in the other. */
#ifndef P4_SM90_CUH
#define P4_SM90_CUH

#include <cuda.h>

#include "kernels/cuda/cuda.cuh"

static __device__ __forceinline__ uint32_t p4_shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* --- barriers --------------------------------------------------------------------------------- */

/* An mbarrier: its phase ends when `arrivals` have arrived and all expected bytes have. Phases have parity 0,
 * 1, 0, ... */
typedef uint64_t p4_barrier;

static __device__ __forceinline__ void p4_barrier_init(p4_barrier *barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n"
                 :
                 : "r"(p4_shared_address(barrier)), "r"(arrivals)
                 : "memory");
}

/* Makes barriers known to the copy engine and the cluster; p4_cluster_sync follows. */
static __device__ __forceinline__ void p4_barrier_init_done(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;\n" : : : "memory");
}

/* Arrives, and makes the phase wait for that many bytes more. */
static __device__ __forceinline__ void p4_barrier_expect(p4_barrier *barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n"
                 :
                 : "r"(p4_shared_address(barrier)), "r"(bytes)
                 : "memory");
}

/* Arrives at this barrier of block `rank` of the cluster. */
static __device__ __forceinline__ void p4_barrier_arrive(p4_barrier *barrier, int rank)
{
    asm volatile("{\n\t"
                 ".reg .b32 there;\n\t"
                 "mapa.shared::cluster.u32 there, %0, %1;\n\t"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n\t"
                 "}\n"
                 :
                 : "r"(p4_shared_address(barrier)), "r"(rank)
                 : "memory");
}

/* Waits for the end of the phase of this parity; of a fresh barrier that of parity 1 counts as ended. */
static __device__ __forceinline__ void p4_barrier_wait(p4_barrier *barrier, uint32_t parity)
{
    uint32_t ended;
    do {
        asm volatile("{\n\t"
                     ".reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t"
                     "}\n"
                     : "=r"(ended)
                     : "r"(p4_shared_address(barrier)), "r"(parity)
                     : "memory");
    } while (!ended);
}

/* All threads of all blocks of the cluster. */
static __device__ __forceinline__ void p4_cluster_sync(void)
{
    asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;\n" : : : "memory");
}

/* --- copies ----------------------------------------------------------------------------------- */

/* Queues the copy of the map's box at (col, row) to shared memory; what lies outside the matrix is 0. Its
 * bytes, the whole box, arrive at the barrier. One thread calls. */
static __device__ __forceinline__ void p4_tile_load(void *to, const CUtensorMap *map, int col, int row,
                                                    p4_barrier *barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, "
                 "{%3, %4}], [%2];\n"
                 :
                 : "r"(p4_shared_address(to)), "l"(map), "r"(p4_shared_address(barrier)), "r"(col), "r"(row)
                 : "memory");
}

/* The same into every block of the cluster whose bit is set, at the same place, each with its own barrier. */
static __device__ __forceinline__ void p4_tile_load_to(uint16_t blocks, void *to, const CUtensorMap *map,
                                                       int col, int row, p4_barrier *barrier)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4}], [%2], %5;\n"
        :
        : "r"(p4_shared_address(to)), "l"(map), "r"(p4_shared_address(barrier)), "r"(col), "r"(row),
          "h"(blocks)
        : "memory");
}

/* The same of a map of several matrices, its box at (col, row) of one of them. */
static __device__ __forceinline__ void p4_box_load(void *to, const CUtensorMap *map, int col, int row,
                                                   int matrix, p4_barrier *barrier)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, "
                 "{%3, %4, %5}], [%2];\n"
                 :
                 : "r"(p4_shared_address(to)), "l"(map), "r"(p4_shared_address(barrier)), "r"(col), "r"(row),
                   "r"(matrix)
                 : "memory");
}
static __device__ __forceinline__ void p4_box_load_to(uint16_t blocks, void *to, const CUtensorMap *map,
                                                      int col, int row, int matrix, p4_barrier *barrier)
{
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4, %5}], [%2], %6;\n"
        :
        : "r"(p4_shared_address(to)), "l"(map), "r"(p4_shared_address(barrier)), "r"(col), "r"(row),
          "r"(matrix), "h"(blocks)
        : "memory");
}

/* Makes what this thread wrote to shared memory visible to copies that are queued after the next barrier. */
static __device__ __forceinline__ void p4_shared_written(void)
{
    asm volatile("fence.proxy.async.shared::cta;\n" : : : "memory");
}

/* Queues the copy of a box from shared memory to (col, row) of a matrix; what lies outside stays away. */
static __device__ __forceinline__ void p4_box_store(const CUtensorMap *map, const void *from, int col,
                                                    int row, int matrix)
{
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];\n"
                 :
                 : "l"(map), "r"(p4_shared_address(from)), "r"(col), "r"(row), "r"(matrix)
                 : "memory");
}
/* Ends a group of this thread's stores. */
static __device__ __forceinline__ void p4_stores_end(void)
{
    asm volatile("cp.async.bulk.commit_group;\n" : : : "memory");
}
/* Waits until at most LEFT groups of this thread have not yet read their shared memory. */
template <int LEFT> static __device__ __forceinline__ void p4_stores_read(void)
{
    asm volatile("cp.async.bulk.wait_group.read %0;\n" : : "n"(LEFT) : "memory");
}

/* Prefetches `bytes` of global memory into the second-level cache; address and bytes are multiples of 16. */
static __device__ __forceinline__ void p4_bytes_prefetch(const void *from, int bytes)
{
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;\n" : : "l"(from), "r"(bytes) : "memory");
}

/* The `threads` threads of this block that name barrier `id`, 1 to 15. */
static __device__ __forceinline__ void p4_threads_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;\n" : : "r"(id), "r"(threads) : "memory");
}

/* A warp writes four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8
 * and of each matrix row l / 4, columns 2 (l % 4) and the next. */
static __device__ __forceinline__ void p4_store_matrices(void *row, const uint32_t (&from)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n"
                 :
                 : "r"(p4_shared_address(row)), "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
}
/* The same, each matrix transposed: rows in memory are its columns. */
static __device__ __forceinline__ void p4_store_matrices_transposed(void *row, const uint32_t (&from)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};\n"
                 :
                 : "r"(p4_shared_address(row)), "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
}

/* --- products --------------------------------------------------------------------------------- */

/* Registers a thread of this warpgroup may have from here on: fewer frees them for the others. A multiple
 * of 8. */
template <int COUNT> static __device__ __forceinline__ void p4_fewer_registers(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" : : "n"(COUNT));
}
template <int COUNT> static __device__ __forceinline__ void p4_more_registers(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" : : "n"(COUNT));
}

/* Describes rows of 128 bytes along k, eight rows 1024 bytes, swizzled by 128 bytes as the copies write them:
 * layout type 1 (bits 62, 63), 1024 bytes from eight rows to the next (bits 32 to 45), the address (bits 0 to
 * 13), each in 16 bytes; bits 16 to 29 are not used here. `rows` is aligned to 1024 bytes. Bytes b further
 * along k: add b / 16. */
static __device__ __forceinline__ uint64_t p4_wgmma_rows(const void *rows)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 |
           (uint64_t)((p4_shared_address(rows) & 0x3ffffu) >> 4);
}

/* Describes an operand that lies across: rows of 128 bytes along its 64 rows or columns, one a k, in boxes of
 * 64 k as the copies write them. 1024 bytes from eight k to the next (bits 32 to 45), 8192 from a box to the
 * next (bits 16 to 29). k elements further: add 8 k. */
static __device__ __forceinline__ uint64_t p4_wgmma_across(const void *boxes)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)(8192 >> 4) << 16 |
           (uint64_t)((p4_shared_address(boxes) & 0x3ffffu) >> 4);
}

/* Before the first product of a group: the sums in registers are as written. */
static __device__ __forceinline__ void p4_wgmma_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;\n" : : : "memory");
}
/* Ends a group. */
static __device__ __forceinline__ void p4_wgmma_end(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;\n" : : : "memory");
}
/* Waits until at most LEFT groups are in flight. */
template <int LEFT> static __device__ __forceinline__ void p4_wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" : : "n"(LEFT) : "memory");
}

#define P4_IN_OUT_8(kind, d, i)                                                                 \
    "+" kind((d)[(i)]), "+" kind((d)[(i) + 1]), "+" kind((d)[(i) + 2]), "+" kind((d)[(i) + 3]), \
        "+" kind((d)[(i) + 4]), "+" kind((d)[(i) + 5]), "+" kind((d)[(i) + 6]), "+" kind((d)[(i) + 7])
#define P4_IN_OUT_64(kind, d, i)                                                                        \
    P4_IN_OUT_8(kind, d, (i)), P4_IN_OUT_8(kind, d, (i) + 8), P4_IN_OUT_8(kind, d, (i) + 16),           \
        P4_IN_OUT_8(kind, d, (i) + 24), P4_IN_OUT_8(kind, d, (i) + 32), P4_IN_OUT_8(kind, d, (i) + 40), \
        P4_IN_OUT_8(kind, d, (i) + 48), P4_IN_OUT_8(kind, d, (i) + 56)
/* The names of the first 64 operands, and of the 64 after them. */
#define P4_FIRST_64                                                                    \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define P4_SECOND_64                                                                               \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

/* After the last wait: the compiler may not read the sums earlier. */
static __device__ __forceinline__ void p4_wgmma_sums(int (&d)[128])
{
#pragma unroll
    for (int i = 0; i < 128; i += 8) {
        asm volatile("" : P4_IN_OUT_8("r", d, i) : : "memory");
    }
}
static __device__ __forceinline__ void p4_wgmma_sums(float (&d)[128])
{
#pragma unroll
    for (int i = 0; i < 128; i += 8) {
        asm volatile("" : P4_IN_OUT_8("f", d, i) : : "memory");
    }
}

/* d (= or +=) a b^T: a 64 and b 256 rows of 32 int8 along k (p4_wgmma_rows). A warpgroup's warp w and lane l
 * hold, with g = l / 4 and c = l % 4, in d[4 j + 2 h + e] row 16 w + 8 h + g, column 8 j + 2 c + e. */
static __device__ __forceinline__ void p4_wgmma_int8(int (&d)[128], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n\t"
                 ".reg .pred p;\n\t"
                 "setp.ne.b32 p, %130, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 {" P4_FIRST_64 ", " P4_SECOND_64
                 "}, %128, %129, p;\n\t"
                 "}\n"
                 : P4_IN_OUT_64("r", d, 0), P4_IN_OUT_64("r", d, 64)
                 : "l"(a), "l"(b), "r"((int)add)
                 : "memory");
}

/* The same of bf16, 16 along k, summed in fp32: b has COLS rows, 256, or 128: half of d, from d[FIRST], 0
 * or 64. An operand lies along k (p4_wgmma_rows) or, if its flag is 1, across (p4_wgmma_across). */
template <int COLS, int A_ACROSS, int B_ACROSS, int FIRST = 0>
static __device__ __forceinline__ void p4_wgmma_bf16(float (&d)[128], uint64_t a, uint64_t b, bool add)
{
    if (COLS == 256) {
        asm volatile("{\n\t"
                     ".reg .pred p;\n\t"
                     "setp.ne.b32 p, %130, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" P4_FIRST_64 ", " P4_SECOND_64
                     "}, %128, %129, p, 1, 1, %131, %132;\n\t"
                     "}\n"
                     : P4_IN_OUT_64("f", d, 0), P4_IN_OUT_64("f", d, 64)
                     : "l"(a), "l"(b), "r"((int)add), "n"(A_ACROSS), "n"(B_ACROSS)
                     : "memory");
    } else {
        asm volatile("{\n\t"
                     ".reg .pred p;\n\t"
                     "setp.ne.b32 p, %66, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" P4_FIRST_64
                     "}, %64, %65, p, 1, 1, %67, %68;\n\t"
                     "}\n"
                     : P4_IN_OUT_64("f", d, FIRST)
                     : "l"(a), "l"(b), "r"((int)add), "n"(A_ACROSS), "n"(B_ACROSS)
                     : "memory");
    }
}

#endif
