/* attention_bf16_backward.cu - attention backward on tensor cores. Probabilities are recomputed from the
 * saved log-sum-exp. The kernel for dQ has queries as rows, the one for dK and dV keys, so that each
 * gradient is summed in the registers of its owner and the probabilities never leave them. */
#include "kernels/cuda/attention_tiles.cuh"

static const float log2e = 1.44269504088896f;

/* A raw score times log2(e), scaled and capped. scale: k.scale log2(e). */
template <bool CAPPED>
static __device__ __forceinline__ float exponent(float raw, float scale, const attention_task &k)
{
    return CAPPED ? attention_score<bf16, true>(k, raw) * log2e : raw * scale;
}

/* Rows that a warp owns stay in registers up to this head dimension. */
template <int HD> struct backward_form {
    enum { HELD_Q = HD <= 128, HELD_KV = HD <= 64, KEYS = HD <= 64 ? 64 : 32, QUERIES = HD <= 64 ? 64 : 32 };
};

/* dQ of a tile of queries. */
template <int HD, bool CAPPED>
__global__ void __launch_bounds__(TILE_THREADS) backward_q_bf16(attention_task k)
{
    enum { KEYS = backward_form<HD>::KEYS, STAGE = KEYS * (HD + TILE_PAD) };
    extern __shared__ unsigned char shared[];
    bf16 *q_tile = (bf16 *)shared, *dout_tile = q_tile + TILE_ROWS * (HD + TILE_PAD);
    bf16 *tiles = dout_tile + TILE_ROWS * (HD + TILE_PAD); /* keys, values; and once more */
    const int warp = (int)threadIdx.x / P4_WARP, lane = (int)threadIdx.x % P4_WARP;
    const int head = (int)blockIdx.y, kv = head / (k.H / k.Hkv);
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * TILE_ROWS, end = min(first + TILE_ROWS, k.T),
              own = first + warp * 16;
    const bf16 *rows = (const bf16 *)k.qkv + (int64_t)blockIdx.z * k.T * k.width;
    const bf16 *keys = rows + (k.H + kv) * k.D, *values = rows + (k.H + k.Hkv + kv) * k.D;
    const int64_t out_width = (int64_t)k.H * k.D, row0 = ((int64_t)blockIdx.z * k.H + head) * k.T;
    const int start = attention_first_key(k, first) / KEYS * KEYS;
    const float scale = k.scale * log2e;
    float lse[2], delta[2], acc[HD / 8][4];
    tile_rows<HD, backward_form<HD>::HELD_Q> q, dout;
    tile_load<TILE_ROWS, HD>(q_tile, rows + head * k.D, k.width, first, k);
    tile_load<TILE_ROWS, HD>(dout_tile, (const bf16 *)k.dout + blockIdx.z * k.T * out_width + head * k.D,
                             out_width, first, k);
    tile_load<KEYS, HD>(tiles, keys, k.width, start, k);
    tile_load<KEYS, HD>(tiles + STAGE, values, k.width, start, k);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = own + lane / 4 + 8 * half;
        lse[half] = row < k.T ? k.lse[row0 + row] * log2e : 0.0f;
        delta[half] = row < k.T ? k.delta[row0 + row] : 0.0f;
    }
    tile_clear<HD>(acc);
    p4_copy_wait();
    __syncthreads();
    q.open(q_tile, warp * 16);
    dout.open(dout_tile, warp * 16);
    for (int key = start, turn = 0; key < end; key += KEYS, turn ^= 1) {
        bf16 *here = tiles + turn * 2 * STAGE, *next = tiles + (turn ^ 1) * 2 * STAGE;
        p4_copy_wait();
        __syncthreads();
        if (key + KEYS < end) {
            tile_load<KEYS, HD>(next, keys, k.width, key + KEYS, k);
            tile_load<KEYS, HD>(next + STAGE, values, k.width, key + KEYS, k);
        }
        if (!attention_any(k, own, own + 16, key, key + KEYS)) {
            continue;
        }
        float s[KEYS / 8][4], dp[KEYS / 8][4];
        tile_scores<HD, KEYS>(s, q, here);
        tile_scores<HD, KEYS>(dp, dout, here + STAGE);
        const bool all = attention_all(k, own, own + 16, key, key + KEYS);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int i = own + lane / 4 + c / 2 * 8, j = key + n * 8 + lane % 4 * 2 + c % 2;
                const float e = exponent<CAPPED>(s[n][c], scale, k), p = p4_exp2(e - lse[c / 2]);
                s[n][c] = all || attention_sees(k, i, j) ? p * (dp[n][c] - delta[c / 2]) : 0.0f;
                s[n][c] = CAPPED ? s[n][c] * attention_slope<CAPPED>(k, e / log2e) : s[n][c];
            }
        }
        tile_accumulate<HD, KEYS>(acc, s, here);
    }
    bf16 *to = (bf16 *)k.to + (int64_t)blockIdx.z * k.T * k.width + head * k.D;
    tile_store<HD>(to, k.width, acc, k.scale, k.scale, own, k);
}

/* What a step of the kernel below reads: a tile of queries of one query head. */
typedef struct query_tile {
    bf16 *q, *dout;
    float *lse, *delta; /* times log2(e); as it is */
} query_tile;

template <int HD, int QUERIES>
static __device__ __forceinline__ query_tile query_stage(unsigned char *shared, int turn)
{
    query_tile tile;
    const int elements = QUERIES * (HD + TILE_PAD);
    tile.q = (bf16 *)shared + turn * 2 * elements;
    tile.dout = tile.q + elements;
    tile.lse = (float *)((bf16 *)shared + 4 * elements) + turn * 2 * QUERIES;
    tile.delta = tile.lse + QUERIES;
    return tile;
}

template <int HD, int QUERIES>
static __device__ __forceinline__ void query_load(const query_tile &tile, int head, int first,
                                                  const attention_task &k)
{
    const bf16 *q = (const bf16 *)k.qkv + (int64_t)blockIdx.z * k.T * k.width + head * k.D;
    const int64_t out_width = (int64_t)k.H * k.D, row0 = ((int64_t)blockIdx.z * k.H + head) * k.T;
    tile_load<QUERIES, HD>(tile.q, q, k.width, first, k);
    tile_load<QUERIES, HD>(tile.dout, (const bf16 *)k.dout + blockIdx.z * k.T * out_width + head * k.D,
                           out_width, first, k);
    if ((int)threadIdx.x < QUERIES) {
        const int row = first + (int)threadIdx.x;
        tile.lse[threadIdx.x] = row < k.T ? k.lse[row0 + row] * log2e : 0.0f;
        tile.delta[threadIdx.x] = row < k.T ? k.delta[row0 + row] : 0.0f;
    }
}

/* Raw scores p become the probabilities, transposed: this warp's keys by the tile's queries. slope: that of
 * the soft cap, with CAPPED. */
template <int N, bool CAPPED>
static __device__ __forceinline__ void
key_probabilities(float (&p)[N / 8][4], float (&slope)[CAPPED ? N / 8 : 1][4], const query_tile &tile,
                  int key, int query, const attention_task &k)
{
    const int lane = (int)threadIdx.x % P4_WARP;
    const bool all = query + N <= k.T && attention_all(k, query, query + N, key, key + 16);
    const float scale = k.scale * log2e;
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int at = n * 8 + lane % 4 * 2 + c % 2, j = key + lane / 4 + c / 2 * 8;
            const float score = exponent<CAPPED>(p[n][c], scale, k), e = p4_exp2(score - tile.lse[at]);
            p[n][c] = all || (query + at < k.T && attention_sees(k, query + at, j)) ? e : 0.0f;
            if constexpr (CAPPED) {
                slope[n][c] = attention_slope<CAPPED>(k, score / log2e);
            }
        }
    }
}

/* dK (KEY) and dV (VALUE) of a tile of keys: all query heads of the key head in turn. */
template <int HD, bool KEY, bool VALUE, bool CAPPED>
__global__ void __launch_bounds__(TILE_THREADS) backward_kv_bf16(attention_task k)
{
    enum { QUERIES = backward_form<HD>::QUERIES };
    extern __shared__ unsigned char shared[];
    bf16 *key_tile = (bf16 *)shared, *value_tile = key_tile + TILE_ROWS * (HD + TILE_PAD);
    unsigned char *stages = (unsigned char *)(value_tile + TILE_ROWS * (HD + TILE_PAD));
    const int warp = (int)threadIdx.x / P4_WARP, lane = (int)threadIdx.x % P4_WARP;
    const int kv = (int)blockIdx.y, group = k.H / k.Hkv, first = (int)blockIdx.x * TILE_ROWS,
              own = first + warp * 16;
    const int end = attention_query_end(k, min(first + TILE_ROWS, k.T) - 1);
    const int tiles = (end - first + QUERIES - 1) / QUERIES, steps = tiles * group;
    const bf16 *rows = (const bf16 *)k.qkv + (int64_t)blockIdx.z * k.T * k.width;
    float dk[KEY ? HD / 8 : 1][4], dv[VALUE ? HD / 8 : 1][4];
    tile_rows<HD, backward_form<HD>::HELD_KV> keys, values;
    tile_load<TILE_ROWS, HD>(key_tile, rows + (k.H + kv) * k.D, k.width, first, k);
    tile_load<TILE_ROWS, HD>(value_tile, rows + (k.H + k.Hkv + kv) * k.D, k.width, first, k);
    query_load<HD, QUERIES>(query_stage<HD, QUERIES>(stages, 0), kv * group, first, k);
    tile_clear<KEY ? HD : 8>(dk);
    tile_clear<VALUE ? HD : 8>(dv);
    p4_copy_wait();
    __syncthreads();
    keys.open(key_tile, warp * 16);
    values.open(value_tile, warp * 16);
    for (int step = 0, head = kv * group, query = first; step < steps; step++) {
        const query_tile here = query_stage<HD, QUERIES>(stages, step % 2);
        const int now = query;
        p4_copy_wait();
        __syncthreads(); /* this tile has arrived, and the other is no longer read */
        query += QUERIES;
        if (query >= end) {
            query = first;
            head++;
        }
        if (step + 1 < steps) {
            query_load<HD, QUERIES>(query_stage<HD, QUERIES>(stages, (step + 1) % 2), head, query, k);
        }
        if (!attention_any(k, now, now + QUERIES, own, own + 16)) {
            continue;
        }
        float p[QUERIES / 8][4], slope[CAPPED ? QUERIES / 8 : 1][4];
        tile_scores<HD, QUERIES>(p, keys, here.q);
        key_probabilities<QUERIES, CAPPED>(p, slope, here, own, now, k);
        if constexpr (VALUE) {
            tile_accumulate<HD, QUERIES>(dv, p, here.dout);
        }
        if constexpr (KEY) {
            float dp[QUERIES / 8][4];
            tile_scores<HD, QUERIES>(dp, values, here.dout);
#pragma unroll
            for (int n = 0; n < QUERIES / 8; n++) {
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    p[n][c] *= dp[n][c] - here.delta[n * 8 + lane % 4 * 2 + c % 2];
                    if constexpr (CAPPED) {
                        p[n][c] *= slope[n][c];
                    }
                }
            }
            tile_accumulate<HD, QUERIES>(dk, p, here.q);
        }
    }
    bf16 *to = (bf16 *)k.to + (int64_t)blockIdx.z * k.T * k.width + (k.H + kv) * k.D;
    if constexpr (KEY) {
        tile_store<HD>(to, k.width, dk, k.scale, k.scale, own, k);
    }
    if constexpr (VALUE) {
        tile_store<HD>(to + k.Hkv * k.D, k.width, dv, 1.0f, 1.0f, own, k);
    }
}

template <int HD, bool KEY, bool VALUE, bool CAPPED>
static void launch_kv(p4_device *device, const attention_task *k, int64_t B)
{
    const int queries = backward_form<HD>::QUERIES;
    const int bytes = tile_bytes(2 * TILE_ROWS + 4 * queries, HD) + 4 * queries * (int)sizeof(float);
    if (attention_shared(device, backward_kv_bf16<HD, KEY, VALUE, CAPPED>, bytes)) {
        const dim3 grid = attention_grid(k, TILE_ROWS, k->Hkv, B);
        backward_kv_bf16<HD, KEY, VALUE, CAPPED><<<grid, TILE_THREADS, bytes, device->stream>>>(*k);
    }
}

/* Two sums of 16 rows of 256 do not fit a warp's registers: then each gets a kernel of its own. */
template <int HD, bool CAPPED>
static void launch_backward(p4_device *device, const attention_task *k, int64_t B)
{
    const int bytes = tile_bytes(2 * TILE_ROWS + 4 * backward_form<HD>::KEYS, HD);
    if (attention_shared(device, backward_q_bf16<HD, CAPPED>, bytes)) {
        backward_q_bf16<HD, CAPPED>
            <<<attention_grid(k, TILE_ROWS, k->H, B), TILE_THREADS, bytes, device->stream>>>(*k);
    }
    if constexpr (HD <= 128) {
        launch_kv<HD, true, true, CAPPED>(device, k, B);
    } else {
        launch_kv<HD, true, false, CAPPED>(device, k, B);
        launch_kv<HD, false, true, CAPPED>(device, k, B);
    }
}

void p4_attention_backward_bf16(p4_device *device, const attention_task *k, int64_t B)
{
    P4_BY_HEAD(k->D, (k->cap > 0.0f ? launch_backward<HD, true> : launch_backward<HD, false>)(device, k, B));
}
