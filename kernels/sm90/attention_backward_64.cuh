/* attention_backward_64.cuh - the units of work of kernels/sm90/attention_backward_64.cu, and the sums that
 * they share. */
#ifndef P4_ATTENTION_BACKWARD_64_CUDA_CUH
#define P4_ATTENTION_BACKWARD_64_CUDA_CUH

#include "kernels/sm90/attention_backward.cuh"

enum {
    HD = 64,
    /* Query heads of a unit; one if there would be at most FEW units, the number of multiprocessors. */
    GROUP = 2,
    FEW = 132,
    NEAR = 32768, /* queries of all heads that are taken together: 16 MiB of them, of their dout and dQ */
    PARTS = HD / 2 / 4,              /* a thread's part of a tile of gradients, in 16 bytes */
    WARP_SUMS = PARTS * 4 * P4_WARP, /* a warp's, in floats */
    GROUP_SUMS = WARP_SUMS * GROUP_WARPS
};

/* --- what units share ------------------------------------------------------------------------- */

/* Behind the counters flags: of each tile of queries of a head, and of each tile of keys of a key head one
 * for each warp that owns 16 of its rows, how many units have added to it. Then the sums themselves, in the
 * order in which threads hold them. */
static __host__ __device__ __forceinline__ int64_t query_tiles(int64_t B, int64_t H, int64_t T)
{
    return B * H * attention_tiles(T);
}
static __host__ __device__ __forceinline__ int64_t key_tiles(int64_t B, int64_t Hkv, int64_t T)
{
    return B * Hkv * key_units((int)T) * OWNERS;
}
static __host__ __device__ __forceinline__ int64_t query_flags(int64_t B, int64_t H, int64_t T)
{
    return (query_tiles(B, H, T) + 3) / 4 * 4; /* so that sums are aligned */
}
static __host__ __device__ __forceinline__ int64_t flags_count(int64_t B, int64_t H, int64_t Hkv, int64_t T)
{
    return query_flags(B, H, T) + key_tiles(B, Hkv, T) * GROUP_WARPS;
}
static __host__ __device__ __forceinline__ int *flags_of(const attention_task &k)
{
    return attention_taken(k) + ATTENTION_TAKEN;
}

typedef struct shared_sums {
    int *flag;
    float4 *sums;
} shared_sums;

static __device__ __forceinline__ shared_sums query_sums(const attention_task &k, int batch, int head,
                                                         int tile)
{
    const int64_t at = ((int64_t)batch * k.H + head) * attention_tiles(k.T) + tile;
    float *sums = (float *)(flags_of(k) + flags_count(k.B, k.H, k.Hkv, k.T));
    return {flags_of(k) + at, (float4 *)(sums + at * GROUP_SUMS)};
}
/* A warp's. */
static __device__ __forceinline__ shared_sums key_sums(const attention_task &k, int batch, int kv, int tile)
{
    const int warp = (int)threadIdx.x / P4_WARP % GROUP_WARPS;
    const int64_t at = ((int64_t)batch * k.Hkv + kv) * key_units(k.T) * OWNERS + tile;
    float4 *sums = query_sums(k, k.B, 0, 0).sums; /* behind the last of the queries */
    return {flags_of(k) + query_flags(k.B, k.H, k.T) + at * GROUP_WARPS + warp,
            sums + (at * 2 * GROUP_SUMS + warp * WARP_SUMS) / 4};
}

/* Waits until `count` units have added. */
static __device__ __forceinline__ void wait_for_sums(const shared_sums &s, int count)
{
    if (threadIdx.x % P4_WARP == 0) {
        p4_flag_wait(s.flag, count);
    }
    __syncwarp();
}

/* --- units of work ---------------------------------------------------------------------------- */

typedef struct group_unit {
    key_unit keys;
    int member, end; /* query heads of the key head: the first, and behind the last */
} group_unit;

/* HEADS: query heads of a unit. */
template <int HEADS>
static __host__ __device__ __forceinline__ int64_t unit_count(int64_t B, int64_t H, int64_t Hkv, int64_t T)
{
    return B * Hkv * ((H / Hkv + HEADS - 1) / HEADS) * key_units((int)T);
}

template <int HEADS> static __device__ __forceinline__ group_unit find_unit(const attention_task &k, int unit)
{
    const int units = key_units(k.T), most = max(1, NEAR / (k.T * min((int)HEADS, k.H / k.Hkv)));
    const int before = unit / (most * units) * most, at = unit - before * units;
    const int groups = (int)unit_count<HEADS>(k.B, k.H, k.Hkv, 1), near = min(most, groups - before);
    const int group = before + at % near, key_heads = k.B * k.Hkv, member = group / key_heads * HEADS;
    return {find_keys(k, units - 1 - at / near, group % key_heads / k.Hkv, group % k.Hkv), member,
            min(member + HEADS, k.H / k.Hkv)};
}
/* The query head of a member. */
static __device__ __forceinline__ int head_of(const attention_task &k, const group_unit &u, int member)
{
    return u.keys.kv * (k.H / k.Hkv) + member;
}

#endif
