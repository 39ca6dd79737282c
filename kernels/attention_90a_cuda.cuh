/* attention_90a_cuda.cuh - what the attention kernels of compute capability 9.0 share (target sm_90a).
 *
 * Tiles have 64 rows (queries or keys) of one head, of HD = 64 or 128 elements, in panels of 64 elements: a row of a panel
 * is 128 bytes, swizzled. Rows beyond T and elements beyond D are 0. One thread of a block copies tiles into a ring of
 * stages, two or three warpgroups own 64 rows each and multiply: their own rows with those of the ring. A block goes through
 * units of work (own rows of one head), the longest first, so that all blocks end at about the same time. Who does which
 * unit decides nothing about the result: a unit owns what it writes. */
#ifndef P4_ATTENTION_90A_CUDA_CUH
#define P4_ATTENTION_90A_CUDA_CUH

#include "attention_cuda.cuh"
#include "mma.cuh"
#include "sm90_heads.cuh"

typedef __nv_bfloat16 bf16;

enum {
    TILE = 64,                  /* rows of a tile */
    PANEL = 64,                 /* elements of a row of a panel */
    PANEL_ELEMENTS = TILE * PANEL,
    PANEL_BYTES = PANEL_ELEMENTS * 2,
    TILE_SUMS = TILE * TILE / ATTENTION_GROUP, /* a thread's part of a tile of scores */
    TILE_STEPS = TILE / 16,                    /* products of one instruction along 64 of k */
    GROUP_WARPS = ATTENTION_GROUP / P4_WARP,
    SHARED_ALIGN = 1024
};

static_assert((int)TILE == (int)ATTENTION_TILE, "the row sums are laid out by tiles");

/* The first address of a block's memory that tiles may lie at; as an offset, so that it stays known as shared memory. */
static __device__ __forceinline__ char *shared_aligned(char *memory)
{
    return memory + (SHARED_ALIGN - (uintptr_t)memory % SHARED_ALIGN) % SHARED_ALIGN;
}

/* --- the ring --------------------------------------------------------------------------------------------------------- */

/* Where a thread is in a ring, or with one stage, how often it was filled. */
typedef struct place {
    int at;
    uint32_t parity;
} place;

template <int STAGES> static __device__ __forceinline__ void step_on(place *p)
{
    if (++p->at == STAGES) {
        p->at = 0;
        p->parity ^= 1;
    }
}

/* This warp does not read again what the barrier guards. All its lanes are here. */
static __device__ __forceinline__ void give_back(p4_barrier *empty)
{
    if (threadIdx.x % P4_WARP == 0) {
        p4_barrier_arrive(empty, 0);
    }
}

/* Copies a tile of HD elements; PANEL_BYTES * HD / PANEL bytes arrive. */
template <int HD>
static __device__ __forceinline__ void tile_copy(bf16 *to, const CUtensorMap *map, int head, int row, int batch,
                                                 p4_barrier *full)
{
#pragma unroll
    for (int panel = 0; panel < HD / PANEL; panel++) {
        p4_head_load(to + panel * PANEL_ELEMENTS, map, panel * PANEL, head, row, batch, full);
    }
}

/* --- units of work ---------------------------------------------------------------------------------------------------- */

/* The unit that this block does in its round-th turn, or one >= count when it is done. Blocks take them in turn forwards and
 * backwards, which evens out that units become shorter. */
static __device__ __forceinline__ int unit_of(int round)
{
    const int blocks = (int)gridDim.x, block = (int)blockIdx.x;
    return round * blocks + (round % 2 ? blocks - 1 - block : block);
}

/* --- products --------------------------------------------------------------------------------------------------------- */

/* The left factor of a warpgroup: 64 rows, k along HD, in registers or (not HELD) in shared memory. */
template <int HD, bool HELD> struct left_rows {
    uint32_t held[HELD ? HD / 16 : 1][4];
    const bf16 *rows;
    __device__ __forceinline__ void open(const bf16 *tile)
    {
        rows = tile;
        if constexpr (HELD) {
            const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x / P4_WARP % GROUP_WARPS;
            const int row = 16 * warp + lane % 16;
#pragma unroll
            for (int i = 0; i < HD / 16; i++) {
                const int eight = 2 * (i % TILE_STEPS) + lane / 16;
                p4_load_matrices(held[i], tile + i / TILE_STEPS * PANEL_ELEMENTS + row * PANEL + (eight ^ row % 8) * 8);
            }
        }
    }
};

/* sums [64, 64 TILES] = left right^T over HD; right: so many tiles, one behind the other. */
template <int HD, bool HELD, int COUNT>
static __device__ __forceinline__ void multiply_rows(float (&sums)[COUNT], const left_rows<HD, HELD> &left,
                                                     const bf16 *right)
{
#pragma unroll
    for (int i = 0; i < HD / 16; i++) {
        const int panel = i / TILE_STEPS, along = 2 * (i % TILE_STEPS); /* in 16 bytes */
        const uint64_t b = p4_wgmma_rows(right + panel * PANEL_ELEMENTS) + along;
        if constexpr (HELD) {
            p4_wgmma_held<0>(sums, left.held[i], b, i > 0);
        } else {
            p4_wgmma_shared(sums, p4_wgmma_rows(left.rows + panel * PANEL_ELEMENTS) + along, b, i > 0);
        }
    }
}

/* sums [64, HD] (= or +=) left rows; left [64, 64] as pack_pairs makes it, rows: a tile. */
template <int COUNT>
static __device__ __forceinline__ void multiply_across(float (&sums)[COUNT], const uint32_t (&left)[TILE_STEPS][4],
                                                       const bf16 *rows, bool add)
{
    const uint64_t b = p4_wgmma_rows_across(rows, PANEL_BYTES);
#pragma unroll
    for (int i = 0; i < TILE_STEPS; i++) {
        p4_wgmma_held<1>(sums, left[i], b + 8 * 16 * i, add || i > 0);
    }
}

/* A tile of sums as the left factor of the next product. */
static __device__ __forceinline__ void pack_pairs(uint32_t (&to)[TILE_STEPS][4], const float (&from)[TILE_SUMS])
{
#pragma unroll
    for (int i = 0; i < TILE_SUMS / 2; i++) {
        to[i / 4][i % 4] = p4_pair_bf16(from[2 * i], from[2 * i + 1]);
    }
}

/* --- results ---------------------------------------------------------------------------------------------------------- */

/* Word i of a quad's lane c becomes word c of its lane i. */
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

/* Rows [first, first + 64) of `to`, those below T, = the warpgroup's sums times their row's factor: of rows g and g + 8 of a
 * warp. A quad's lanes trade, so that each writes 16 bytes. */
template <int COUNT>
static __device__ __forceinline__ void put_rows(bf16 *to, int64_t ld, const float (&sums)[COUNT], const float (&factor)[2],
                                                int first, const attention_task &k)
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

#endif
