/* attention_backward.cuh - what attention's backward kernels of compute capability 9.0 share: how
 * blocks take units of work, and the gradients of one tile of scores, transposed (target sm_90a). */
#ifndef P4_ATTENTION_BACKWARD_90A_CUDA_CUH
#define P4_ATTENTION_BACKWARD_90A_CUDA_CUH

#include "kernels/sm90/attention.cuh"

enum {
    OWNERS = 2, /* warpgroups that own rows */
    OWNER_WARPS = OWNERS * GROUP_WARPS,
    NO_UNIT = -1
};

static const float log2e = 1.44269504088896f;

/* --- units of work ---------------------------------------------------------------------------- */

/* The next of `units` that no block has taken, so that a block that starts late, because its processor was
 * occupied, takes fewer. `taken`: see attention_taken. */
static __device__ __forceinline__ int take_unit(int *taken, int units)
{
    const int unit = atomicAdd(taken, 1);
    return unit < units ? unit : (int)NO_UNIT;
}

/* OWNERS tiles of keys of one key head. */
typedef struct key_unit {
    int batch, kv, key; /* key: the first */
    int tile, end;      /* tiles of queries that see them */
} key_unit;

/* Of one key head. */
static __host__ __device__ __forceinline__ int key_units(int T)
{
    return (T + OWNERS * TILE - 1) / (OWNERS * TILE);
}

static __device__ __forceinline__ key_unit find_keys(const attention_task &k, int at, int batch, int kv)
{
    key_unit u = {batch, kv, at * OWNERS * TILE, at * OWNERS, 0};
    u.end = (attention_query_end(k, min(u.key + OWNERS * TILE, k.T) - 1) + TILE - 1) / TILE;
    return u;
}

/* Queues the copies of a unit's keys and values. */
template <int HD>
static __device__ __forceinline__ void copy_own_keys(bf16 (*own)[2][TILE * HD], const CUtensorMap *qkv,
                                                     const key_unit &u, const attention_task &k,
                                                     p4_barrier *full)
{
    for (int i = 0; i < OWNERS; i++) {
        const int key = u.key + i * TILE;
        copy_rows<HD, TILE>(own[i][0], qkv, k.H + u.kv, key, u.batch, full);
        copy_rows<HD, TILE>(own[i][1], qkv, k.H + k.Hkv + u.kv, key, u.batch, full);
    }
}

/* Queues the copies of a tile of queries, of their dout and of their row sums into the stage at `here`, when
 * it is free. */
template <int HD, typename Shared>
static __device__ __forceinline__ void copy_queries(Shared *shared, const p4_place &here,
                                                    const CUtensorMap *qkv, const CUtensorMap *dout,
                                                    int batch, int head, int tile, const attention_task &k)
{
    p4_barrier *full = &shared->full[here.at];
    const int64_t row_tile = ((int64_t)batch * k.H + head) * attention_tiles(k.T) + tile;
    p4_barrier_wait(&shared->empty[here.at], here.parity ^ 1);
    p4_barrier_expect(full, (int)(sizeof shared->ring[0] + sizeof shared->rows[0]));
    copy_rows<HD, TILE>(shared->ring[here.at][0], qkv, head, tile * TILE, batch, full);
    copy_rows<HD, TILE>(shared->ring[here.at][1], dout, head, tile * TILE, batch, full);
    p4_bytes_load(shared->rows[here.at], k.delta + row_tile * ATTENTION_ROW_SUMS * TILE,
                  (int)sizeof shared->rows[0], full);
}

/* --- a tile of scores ------------------------------------------------------------------------- */

/* Queues x's own rows times both tiles of the stage at `here`, each a group, when they have come: scores and
 * dO V^T. */
template <int HD, typename State, typename Shared>
static __device__ __forceinline__ void begin_tile(State &x, Shared *shared, const p4_place &here)
{
    p4_barrier_wait(&shared->full[here.at], here.parity);
    p4_wgmma_begin();
    multiply_rows<HD>(x.s, x.first, shared->ring[here.at][0]);
    p4_wgmma_end();
    multiply_rows<HD>(x.dp, x.second, shared->ring[here.at][1]);
    p4_wgmma_end();
}

/* s: scores, keys by queries -> probabilities. lse: of the queries, times log2(e). */
static __device__ __forceinline__ void probabilities_of_keys(float (&s)[TILE_SUMS], const float *lse, int key,
                                                             int query, const attention_task &k)
{
    const int lane = (int)threadIdx.x % P4_WARP;
    const float scale = k.scale * log2e;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
        const float2 two = *(const float2 *)(lse + 8 * n + 2 * (lane % 4));
#pragma unroll
        for (int c = 0; c < 4; c++) {
            s[4 * n + c] = p4_exp2(s[4 * n + c] * scale - (c % 2 ? two.y : two.x));
        }
    }
    hide<true>(s, query, key, 0.0f, k);
}

/* dp: dO V^T, keys by queries -> the gradient of the scores but for their scale. p: probabilities; of wide
 * heads those in fp32 have no registers beside those in bf16, EXACT says which are read. */
template <bool EXACT>
static __device__ __forceinline__ void
score_gradients_of_keys(float (&dp)[TILE_SUMS], const float (&s)[TILE_SUMS],
                        const uint32_t (&pairs)[TILE_STEPS][4], const float *delta)
{
    const int lane = (int)threadIdx.x % P4_WARP;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
        const float2 two = *(const float2 *)(delta + 8 * n + 2 * (lane % 4));
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int i = 4 * n + c;
            const uint32_t pair = pairs[i / 8][i / 2 % 4];
            const float p = EXACT ? s[i] : __uint_as_float(i % 2 ? pair & 0xffff0000u : pair << 16);
            dp[i] = p * (dp[i] - (c % 2 ? two.y : two.x));
        }
    }
}

#endif
