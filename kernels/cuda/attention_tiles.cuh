/* attention_tiles.cuh - tiles of bf16 rows in shared memory and their products on tensor cores. A warp owns
 * 16 rows of the result. Rows of a tile are padded by 16 bytes, so that eight of them lie in different banks.
 */
#ifndef P4_ATTENTION_TILES_CUDA_CUH
#define P4_ATTENTION_TILES_CUDA_CUH

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/mma.cuh"

enum { TILE_PAD = 8, TILE_WARPS = 4, TILE_THREADS = TILE_WARPS * P4_WARP, TILE_ROWS = TILE_WARPS * 16 };

typedef __nv_bfloat16 bf16;

/* Rows [first, first + ROWS) of a head, zeros beyond T and D. Wide copies are only queued: p4_copy_wait, then
 * a barrier. */
template <int ROWS, int HD>
static __device__ __forceinline__ void tile_load(bf16 *tile, const bf16 *from, int64_t ld, int first,
                                                 const attention_task &k)
{
    if (k.wide) {
#pragma unroll
        for (int i = 0; i < ROWS * (HD / 8); i += TILE_THREADS) {
            const int at = i + (int)threadIdx.x, row = at / (HD / 8), d = at % (HD / 8) * 8;
            const bool inside = first + row < k.T && d < k.D;
            if (ROWS * (HD / 8) % TILE_THREADS == 0 || at < ROWS * (HD / 8)) {
                p4_copy_16(tile + row * (HD + TILE_PAD) + d, inside ? from + (first + row) * ld + d : from,
                           inside);
            }
        }
        return;
    }
    for (int at = (int)threadIdx.x; at < ROWS * HD; at += TILE_THREADS) {
        const int row = at / HD, d = at % HD;
        const bool inside = first + row < k.T && d < k.D;
        tile[row * (HD + TILE_PAD) + d] = inside ? from[(first + row) * ld + d] : __float2bfloat16_rn(0.0f);
    }
}

/* Operand A: 16 rows of a tile over all of HD, kept in registers, or read again at each use where they do
 * not fit. */
template <int HD, bool HELD> struct tile_rows {
    uint32_t held[HELD ? HD / 16 : 1][4];
    const bf16 *at;
    __device__ __forceinline__ void open(const bf16 *tile, int first)
    {
        const int lane = (int)threadIdx.x % P4_WARP;
        at = tile + (first + lane % 16) * (HD + TILE_PAD) + lane / 16 * 8;
        if (HELD) {
#pragma unroll
            for (int i = 0; i < HD / 16; i++) {
                p4_load_matrices(held[i], at + i * 16);
            }
        }
    }
    __device__ __forceinline__ void get(uint32_t (&a)[4], int i) const
    {
        if (HELD) {
#pragma unroll
            for (int r = 0; r < 4; r++) {
                a[r] = held[HELD ? i : 0][r];
            }
        } else {
            p4_load_matrices(a, at + i * 16);
        }
    }
};

/* acc [16, N] = a b^T over HD; b: N rows of a tile. */
template <int HD, int N, bool HELD>
static __device__ __forceinline__ void tile_scores(float (&acc)[N / 8][4], const tile_rows<HD, HELD> &a,
                                                   const bf16 *b)
{
    const int lane = (int)threadIdx.x % P4_WARP;
    const bf16 *at = b + (lane % 8 + lane / 16 * 8) * (HD + TILE_PAD) + lane / 8 % 2 * 8;
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
        for (int c = 0; c < 4; c++) {
            acc[n][c] = 0.0f;
        }
    }
#pragma unroll
    for (int i = 0; i < HD / 16; i++) {
        uint32_t left[4], right[4];
        a.get(left, i);
#pragma unroll
        for (int n = 0; n < N / 8; n += 2) {
            p4_load_matrices(right, at + n * 8 * (HD + TILE_PAD) + i * 16);
            p4_mma_bf16(acc[n], left, right[0], right[1]);
            p4_mma_bf16(acc[n + 1], left, right[2], right[3]);
        }
    }
}

/* acc [16, HD] += p b; p [16, N] as a result of tile_scores, rounded to bf16; b: N rows of a tile. */
template <int HD, int N>
static __device__ __forceinline__ void tile_accumulate(float (&acc)[HD / 8][4], const float (&p)[N / 8][4],
                                                       const bf16 *b)
{
    const int lane = (int)threadIdx.x % P4_WARP;
    const bf16 *at = b + lane % 16 * (HD + TILE_PAD) + lane / 16 * 8;
#pragma unroll
    for (int i = 0; i < N / 16; i++) {
        const uint32_t left[4] = {
            p4_pair_bf16(p[2 * i][0], p[2 * i][1]), p4_pair_bf16(p[2 * i][2], p[2 * i][3]),
            p4_pair_bf16(p[2 * i + 1][0], p[2 * i + 1][1]), p4_pair_bf16(p[2 * i + 1][2], p[2 * i + 1][3])};
#pragma unroll
        for (int n = 0; n < HD / 8; n += 2) {
            uint32_t right[4];
            p4_load_matrices_transposed(right, at + i * 16 * (HD + TILE_PAD) + n * 8);
            p4_mma_bf16(acc[n], left, right[0], right[1]);
            p4_mma_bf16(acc[n + 1], left, right[2], right[3]);
        }
    }
}

template <int HD> static __device__ __forceinline__ void tile_clear(float (&acc)[HD / 8][4])
{
#pragma unroll
    for (int n = 0; n < HD / 8; n++) {
#pragma unroll
        for (int c = 0; c < 4; c++) {
            acc[n][c] = 0.0f;
        }
    }
}

/* Rows first + g and first + g + 8 of `to` = acc times their factor. */
template <int HD>
static __device__ __forceinline__ void tile_store(bf16 *to, int64_t ld, const float (&acc)[HD / 8][4],
                                                  float low, float high, int first, const attention_task &k)
{
    const int lane = (int)threadIdx.x % P4_WARP;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + lane / 4 + 8 * half;
        const float factor = half ? high : low;
        bf16 *at = to + row * ld + lane % 4 * 2;
        if (row >= k.T) {
            continue;
        }
#pragma unroll
        for (int n = 0; n < HD / 8; n++) {
            const int d = n * 8 + lane % 4 * 2;
            const float x = acc[n][2 * half] * factor, y = acc[n][2 * half + 1] * factor;
            if (k.even && d < k.D) {
                *(uint32_t *)(at + n * 8) = p4_pair_bf16(x, y);
            } else if (d < k.D) {
                at[n * 8] = __float2bfloat16_rn(x);
                if (d + 1 < k.D) {
                    at[n * 8 + 1] = __float2bfloat16_rn(y);
                }
            }
        }
    }
}

/* Bytes of `rows` rows in tiles. */
static inline int tile_bytes(int rows, int HD)
{
    return rows * (HD + TILE_PAD) * (int)sizeof(bf16);
}

#endif
