/* attention_bf16.cu - attention forward on tensor cores: a warp holds 16 or 32 queries and their outputs in
 * registers; keys and values pass through shared memory, where the next tile is copied while one is
 * computed. */
#include "kernels/cuda/attention_tiles.cuh"

static const float log2e = 1.44269504088896f;

/* Tile of keys, and 16-row groups of queries a warp. */
template <int HD> struct forward_form {
    enum { GROUPS = HD <= 64 ? 2 : 1, QUERIES = TILE_ROWS * GROUPS, KEYS = HD <= 128 ? 64 : 32 };
};

/* The state of 16 queries; of each array, [0] is row g and [1] row g + 8 of this lane. */
template <int HD> struct query_state {
    tile_rows<HD, true> q;
    float acc[HD / 8][4], largest[2],
        sum[2]; /* scores times log2(e) scale; sums of this lane's columns alone */
};

/* Scores -> times log2(e), scaled and capped, hidden ones -infinity. */
template <int N, bool CAPPED>
static __device__ __forceinline__ void mask_scores(float (&s)[N / 8][4], int query, int key, float scale,
                                                   const attention_task &k)
{
    const int lane = (int)threadIdx.x % P4_WARP;
    const bool all = attention_all(k, query, query + 16, key, key + N);
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int i = query + lane / 4 + c / 2 * 8, j = key + n * 8 + lane % 4 * 2 + c % 2;
            const float score = CAPPED ? attention_score<bf16, true>(k, s[n][c]) * log2e : s[n][c] * scale;
            s[n][c] = all || attention_sees(k, i, j) ? score : -INFINITY;
        }
    }
}

/* Scores -> probabilities relative to the largest score so far; the sums so far are rescaled to it. */
template <int HD, int N>
static __device__ __forceinline__ void soften(float (&s)[N / 8][4], query_state<HD> &state)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = state.largest[half];
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
            top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        const float shift = top == -INFINITY ? 0.0f : top; /* a row that has seen no key yet */
        const float kept = p4_exp2(state.largest[half] - shift);
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
            s[n][2 * half] = p4_exp2(s[n][2 * half] - shift);
            s[n][2 * half + 1] = p4_exp2(s[n][2 * half + 1] - shift);
            sum += s[n][2 * half] + s[n][2 * half + 1];
        }
#pragma unroll
        for (int n = 0; n < HD / 8; n++) {
            state.acc[n][2 * half] *= kept;
            state.acc[n][2 * half + 1] *= kept;
        }
        state.sum[half] = state.sum[half] * kept + sum;
        state.largest[half] = top;
    }
}

template <int HD>
static __device__ __forceinline__ void store_queries(const query_state<HD> &state, int first,
                                                     const attention_task &k)
{
    const float ln2 = 0.693147180559945f;
    const int lane = (int)threadIdx.x % P4_WARP, head = (int)blockIdx.y;
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = state.sum[half];
        const int row = first + lane / 4 + 8 * half;
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        inverse[half] = 1.0f / sum;
        if (k.to_lse && lane % 4 == 0 && row < k.T) {
            k.to_lse[((int64_t)blockIdx.z * k.H + head) * k.T + row] =
                (state.largest[half] + log2f(sum)) * ln2;
        }
    }
    bf16 *out = (bf16 *)k.to + (int64_t)blockIdx.z * k.T * k.H * k.D + head * k.D;
    tile_store<HD>(out, (int64_t)k.H * k.D, state.acc, inverse[0], inverse[1], first, k);
}

template <int HD, bool CAPPED> __global__ void __launch_bounds__(TILE_THREADS) forward_bf16(attention_task k)
{
    enum {
        GROUPS = forward_form<HD>::GROUPS,
        QUERIES = forward_form<HD>::QUERIES,
        KEYS = forward_form<HD>::KEYS
    };
    enum { STAGE = KEYS * (HD + TILE_PAD) }; /* elements of a tile of keys */
    extern __shared__ unsigned char shared[];
    bf16 *tiles = (bf16 *)shared; /* keys, values; and once more */
    const int warp = (int)threadIdx.x / P4_WARP, head = (int)blockIdx.y, kv = head / (k.H / k.Hkv);
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES, end = min(first + QUERIES, k.T);
    const int own = first + warp * 16 * GROUPS; /* this warp's first query */
    const bf16 *rows = (const bf16 *)k.qkv + (int64_t)blockIdx.z * k.T * k.width;
    const bf16 *keys = rows + (k.H + kv) * k.D, *values = rows + (k.H + k.Hkv + kv) * k.D;
    const float scale = k.scale * log2e;
    query_state<HD> state[GROUPS];
    tile_load<QUERIES, HD>(tiles, rows + head * k.D, k.width, first, k);
    p4_copy_wait();
    __syncthreads();
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        state[g].q.open(tiles, (warp * GROUPS + g) * 16);
        tile_clear<HD>(state[g].acc);
        state[g].largest[0] = state[g].largest[1] = -INFINITY;
        state[g].sum[0] = state[g].sum[1] = 0.0f;
    }
    __syncthreads();
    const int start = attention_first_key(k, first) / KEYS * KEYS;
    tile_load<KEYS, HD>(tiles, keys, k.width, start, k);
    tile_load<KEYS, HD>(tiles + STAGE, values, k.width, start, k);
    for (int key = start, turn = 0; key < end; key += KEYS, turn ^= 1) {
        bf16 *here = tiles + turn * 2 * STAGE, *next = tiles + (turn ^ 1) * 2 * STAGE;
        p4_copy_wait();
        __syncthreads(); /* this tile has arrived, and the other is no longer read */
        if (key + KEYS < end) {
            tile_load<KEYS, HD>(next, keys, k.width, key + KEYS, k);
            tile_load<KEYS, HD>(next + STAGE, values, k.width, key + KEYS, k);
        }
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            if (attention_any(k, own + g * 16, own + g * 16 + 16, key, key + KEYS)) {
                float s[KEYS / 8][4];
                tile_scores<HD, KEYS>(s, state[g].q, here);
                mask_scores<KEYS, CAPPED>(s, own + g * 16, key, scale, k);
                soften<HD, KEYS>(s, state[g]);
                tile_accumulate<HD, KEYS>(state[g].acc, s, here + STAGE);
            }
        }
    }
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        store_queries<HD>(state[g], own + g * 16, k);
    }
}

template <int HD, bool CAPPED>
static void launch_forward(p4_device *device, const attention_task *k, int64_t B)
{
    const int queries = forward_form<HD>::QUERIES, bytes = tile_bytes(4 * forward_form<HD>::KEYS, HD);
    static_assert((int)forward_form<HD>::QUERIES <= 4 * (int)forward_form<HD>::KEYS,
                  "queries pass through the tiles of keys");
    if (attention_shared(device, forward_bf16<HD, CAPPED>, bytes)) {
        forward_bf16<HD, CAPPED>
            <<<attention_grid(k, queries, k->H, B), TILE_THREADS, bytes, device->stream>>>(*k);
    }
}

void p4_attention_forward_bf16(p4_device *device, const attention_task *k, int64_t B)
{
    P4_BY_HEAD(k->D, (k->cap > 0.0f ? launch_forward<HD, true> : launch_forward<HD, false>)(device, k, B));
}
