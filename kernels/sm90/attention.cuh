/* attention.cuh - what the attention kernels of compute capability 9.0 share (target sm_90a).
 *
 * Tiles have 64 rows (queries or keys) of one head, of HD = 64 or 128 elements, in panels of 64 elements: a
 * row of a panel is 128 bytes, swizzled. Rows beyond T and elements beyond D are 0. One thread of a block
 * copies tiles into a ring of stages. Two or three warpgroups own 64 rows each, and multiply them with
 * those in the ring. A block goes through units of work (own rows of one head); which block computes which
 * unit does not affect the result. Where a unit owns what it writes, the longest units come first, so that
 * all blocks end at about the same time. */
#ifndef P4_ATTENTION_90A_CUDA_CUH
#define P4_ATTENTION_90A_CUDA_CUH

#include <limits.h>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/sm90/heads.cuh"

typedef __nv_bfloat16 bf16;

enum {
    TILE = 64,  /* rows of a tile */
    PANEL = 64, /* elements of a row of a panel */
    PANEL_ELEMENTS = TILE * PANEL,
    PANEL_BYTES = PANEL_ELEMENTS * 2,
    TILE_SUMS = TILE * TILE / ATTENTION_GROUP, /* a thread's part of a tile of scores */
    TILE_STEPS = TILE / 16,                    /* products of one instruction along 64 of k */
    GROUP_WARPS = ATTENTION_GROUP / P4_WARP,
    SHARED_ALIGN = 1024,
    SHARED_MOST = 227 << 10 /* of a block, with what aligns it */
};

static_assert((int)TILE == (int)ATTENTION_TILE, "the row sums are laid out by tiles");

/* The first address in a block's memory at which tiles may lie; computed as an offset, so that the compiler
 * still knows it as shared memory. */
static __device__ __forceinline__ char *shared_aligned(char *memory)
{
    return memory + (SHARED_ALIGN - (uintptr_t)memory % SHARED_ALIGN) % SHARED_ALIGN;
}

/* --- the ring --------------------------------------------------------------------------------- */

/* Barriers of a ring of `stages`: copies arrive at `full`, `warps` warps at `empty`. One thread calls, then
 * p4_barrier_init_done. */
static __device__ __forceinline__ void open_barriers(p4_barrier *full, p4_barrier *empty, int stages,
                                                     int warps)
{
    for (int i = 0; i < stages; i++) {
        p4_barrier_init(&full[i], 1);
        p4_barrier_init(&empty[i], warps);
    }
}

/* This warp will not read again what the barrier guards. All its lanes call. */
static __device__ __forceinline__ void give_back(p4_barrier *empty)
{
    if (threadIdx.x % P4_WARP == 0) {
        p4_barrier_arrive(empty, 0);
    }
}

/* Copies ROWS rows (of tiles, one below the other in each panel) of HD elements; ROWS * HD * 2 bytes
 * arrive. */
template <int HD, int ROWS>
static __device__ __forceinline__ void copy_rows(bf16 *to, const CUtensorMap *map, int head, int row,
                                                 int batch, p4_barrier *full)
{
#pragma unroll
    for (int panel = 0; panel < HD / PANEL; panel++) {
#pragma unroll
        for (int i = 0; i < ROWS; i += TILE) {
            p4_head_load(to + (panel * ROWS + i) * PANEL, map, panel * PANEL, head, row + i, batch, full);
        }
    }
}

/* --- units of work ---------------------------------------------------------------------------- */

/* The unit of this block in its round-th turn; beyond the last unit, it has done all of its own. Units are
 * dealt to the blocks forwards and backwards in turn, which balances units that become shorter. */
static __device__ __forceinline__ int unit_of(int round)
{
    const int blocks = (int)gridDim.x, block = (int)blockIdx.x;
    return round * blocks + (round % 2 ? blocks - 1 - block : block);
}

/* --- what is hidden --------------------------------------------------------------------------- */

/* Sums of queries by keys (KEYS_FIRST: keys by queries) that belong to a key which its query does not see
 * become `hidden`. query, key: the first of the tile. A query sees the keys at distances 0 to reach - 1
 * before it. */
template <bool KEYS_FIRST, int COUNT>
static __device__ __forceinline__ void hide(float (&sums)[COUNT], int query, int key, float hidden,
                                            const attention_task &k)
{
    const int queries = KEYS_FIRST ? 2 * COUNT : TILE, keys = KEYS_FIRST ? TILE : 2 * COUNT;
    if (attention_all(k, query, query + queries, key, key + keys)) {
        return;
    }
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x / P4_WARP % GROUP_WARPS;
    const int row = 16 * warp + lane / 4, col = 2 * (lane % 4);
    const unsigned reach = k.window > 0 ? (unsigned)k.window : (unsigned)INT_MAX;
    const int distance = query - key + (KEYS_FIRST ? col - row : row - col);
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const int down = i / 2 % 2 * 8, across = i / 4 * 8 + i % 2;
        const unsigned there = (unsigned)(distance + (KEYS_FIRST ? across - down : down - across));
        sums[i] = there < reach ? sums[i] : hidden;
    }
}

/* --- products --------------------------------------------------------------------------------- */

/* sums [64, 2 COUNT] = left right^T over HD; left: 64 rows, right: 2 COUNT rows, both in shared memory.
 *
 * Rows that one warpgroup multiplies with every tile could stay in registers, but ptxas 13.0 then gives those
 * registers to the factor that pack_pairs makes in the same loop: from the second tile on sums are wrong, in
 * no emulator. In registers are only factors that are made anew for each tile. */
template <int HD, int COUNT>
static __device__ __forceinline__ void multiply_rows(float (&sums)[COUNT], const bf16 *left,
                                                     const bf16 *right)
{
#pragma unroll
    for (int i = 0; i < HD / 16; i++) {
        const int panel = i / TILE_STEPS, along = 2 * (i % TILE_STEPS); /* in 16 bytes */
        p4_wgmma_shared(sums, p4_wgmma_rows(left + panel * PANEL_ELEMENTS) + along,
                        p4_wgmma_rows(right + panel * 2 * COUNT * PANEL) + along, i > 0);
    }
}

/* sums [64, HD] (= or +=) left rows; left [64, 16 STEPS] as pack_pairs makes it, rows: so many. */
template <int STEPS, int COUNT>
static __device__ __forceinline__ void multiply_across(float (&sums)[COUNT], const uint32_t (&left)[STEPS][4],
                                                       const bf16 *rows, bool add)
{
    const uint64_t b = p4_wgmma_rows_across(rows, 16 * STEPS * PANEL * 2);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        p4_wgmma_held(sums, left[i], b + 8 * 16 * i, add || i > 0);
    }
}

/* Sums as the left factor of the next product. */
template <int STEPS>
static __device__ __forceinline__ void pack_pairs(uint32_t (&to)[STEPS][4], const float (&from)[8 * STEPS])
{
#pragma unroll
    for (int i = 0; i < 4 * STEPS; i++) {
        to[i / 4][i % 4] = p4_pair_bf16(from[2 * i], from[2 * i + 1]);
    }
}

/* --- results ---------------------------------------------------------------------------------- */

/* Transposes within a quad: word i of lane c becomes word c of lane i. */
static __device__ __forceinline__ void turn_quad(uint32_t (&word)[4])
{
    const int lane = (int)threadIdx.x % 4;
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if ((i & bit) == 0) {
                const bool high = (lane & bit) != 0;
                const uint32_t got = __shfl_xor_sync(0xffffffffu, high ? word[i] : word[i | bit], bit);
                word[i] = high ? got : word[i];
                word[i | bit] = high ? word[i | bit] : got;
            }
        }
    }
}

/* Rows [first, first + 64) of `to`, as far as they are below T, = the warpgroup's sums times the factor of
 * their row: rows g and g + 8 of a warp. The lanes of a quad exchange values, so that each writes 16 bytes.
 */
template <int COUNT>
static __device__ __forceinline__ void put_rows(bf16 *to, int64_t ld, const float (&sums)[COUNT],
                                                const float (&factor)[2], int first, const attention_task &k)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x / P4_WARP % GROUP_WARPS;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + 16 * warp + 8 * half + lane / 4;
#pragma unroll
        for (int n = 0; n < COUNT / 4; n += 4) { /* of every eighth column from 8 n */
            uint32_t word[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int at = 4 * (n + i) + 2 * half;
                word[i] = p4_pair_bf16(sums[at] * factor[half], sums[at + 1] * factor[half]);
            }
            turn_quad(word);
            const int d = 8 * (n + lane % 4);
            if (row < k.T && d < k.D) {
                *(uint4 *)(to + row * ld + d) = make_uint4(word[0], word[1], word[2], word[3]);
            }
        }
    }
}

/* --- host side of a launch -------------------------------------------------------------------- */

/* The tensor map of [B, T, heads, D] in tiles of TILE rows of a head and PANEL elements; false records a
 * failure. */
static inline bool attention_map(p4_device *device, CUtensorMap *map, const void *data, int64_t heads,
                                 const attention_task *k)
{
    const cuuint64_t D = (cuuint64_t)k->D, T = (cuuint64_t)k->T, row_bytes = (cuuint64_t)heads * D * 2;
    const cuuint64_t lengths[4] = {D, (cuuint64_t)heads, T, (cuuint64_t)k->B},
                     bytes[3] = {D * 2, row_bytes, T * row_bytes};
    const cuuint32_t box[4] = {PANEL, 1, TILE, 1};
    const int result =
        p4_tensor_map_encode(device, map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, data, lengths, bytes, box);
    if (result != 0) {
        p4_cuda_fail(device, "attention: no tensor map of [%d, %d, %lld, %d]: driver error %d", k->B, k->T,
                     (long long)heads, k->D, result);
    }
    return result == 0;
}

#endif
