/* attention_backward_cuda_90a.cu - attention backward on compute capability 9.0 (target sm_90a): two kernels,
 * of which each sums its gradients in registers, so that no block adds to what another wrote and every sum
 * has one order.
 *
 * gradients_kv: a warpgroup owns 64 keys and goes through the queries of all query heads of its key head. It
 * makes the scores and their gradients transposed, keys by queries: as they come they are the left factors of
 * dV += P^T dO and dK += dS^T Q, and nothing goes through shared memory but the tiles of Q and dO.
 * gradients_q: a warpgroup owns 64 queries and goes through the keys they see; scores as in forward, dQ += dS
 * K. Scores and dO V^T are made twice, seven products where five would do: by computation less time than to
 * move dS, or a dQ of every block of keys, through memory.
 *
 * In both a product is under way while the exponentials of the same tile are taken. */
#include "attention_90a_cuda.cuh"

enum {
    OWNERS = 2, /* warpgroups that multiply */
    THREADS = (1 + OWNERS) * ATTENTION_GROUP,
    OWNER_WARPS = OWNERS * GROUP_WARPS,
    COPY_REGISTERS = 24, /* (24 + 2 x 240) x 128 threads <= 65536 */
    OWNER_REGISTERS = 240,
    NO_UNIT = -1
};

static const float log2e = 1.44269504088896f;

/* Both kernels: own tiles of two kinds, and a ring of tiles of two other kinds. */
template <int HD> struct backward_form {
    enum { STAGES = HD <= 64 ? 6 : 4, TILE_ELEMENTS = TILE * HD };
};
template <int HD> struct backward_shared {
    typedef backward_form<HD> form;
    bf16 own[OWNERS][2][form::TILE_ELEMENTS];        /* keys, values; or queries, dout */
    bf16 ring[form::STAGES][2][form::TILE_ELEMENTS]; /* queries, dout; or keys, values */
    float rows[form::STAGES][ATTENTION_ROW_SUMS * TILE];
    p4_barrier full[form::STAGES], empty[form::STAGES], own_full, own_empty;
    int unit; /* guarded as `own`; behind the last: NO_UNIT */
};

template <int HD> static __device__ __forceinline__ backward_shared<HD> *open_shared(char *memory)
{
    backward_shared<HD> *shared = (backward_shared<HD> *)shared_aligned(memory);
    if (threadIdx.x == 0) {
        open_barriers(shared->full, shared->empty, backward_form<HD>::STAGES, OWNER_WARPS);
        open_barriers(&shared->own_full, &shared->own_empty, 1, OWNER_WARPS);
        p4_barrier_init_done();
    }
    __syncthreads();
    return shared;
}

/* The copying thread, for the round-th time: takes the next of `units` and tells the others, when they have left the
 * one before. A block that starts late, because something else held its processor, so finds less to do. `taken`: see
 * attention_taken. */
template <int HD>
static __device__ __forceinline__ int take_unit(backward_shared<HD> *shared, int *taken, int units, int round)
{
    int unit = atomicAdd(taken, 1);
    unit = unit < units ? unit : (int)NO_UNIT;
    p4_barrier_wait(&shared->own_empty, (uint32_t)(round % 2 ^ 1));
    shared->unit = unit;
    p4_barrier_expect(&shared->own_full, unit == NO_UNIT ? 0 : OWNERS * 2 * backward_form<HD>::TILE_ELEMENTS * 2);
    return unit;
}

/* The others, for the round-th time: the unit whose own tiles have come. */
template <int HD>
static __device__ __forceinline__ int wait_for_unit(backward_shared<HD> *shared, int round)
{
    p4_barrier_wait(&shared->own_full, (uint32_t)(round % 2));
    return shared->unit;
}

/* What a warpgroup computes of the tiles in the ring: of each of `heads` heads those of [own, own_end).
 * `between` tiles from its last of a head to its first of the next are others'. */
typedef struct walk {
    int tile, own, own_end, between, heads;
} walk;

/* Takes `count` tiles out of the ring that this warpgroup does not compute; at most one while it holds
 * another. */
template <int HD>
static __device__ __forceinline__ void skip_tiles(backward_shared<HD> *shared, p4_place *here, int count)
{
    for (int i = 0; i < count; i++) {
        p4_barrier_wait(&shared->full[here->at], here->parity);
        __syncwarp();
        give_back(&shared->empty[here->at]);
        p4_step_on<backward_form<HD>::STAGES>(here);
    }
}

/* Steps on from a tile to the next; false behind the last. */
template <int HD>
static __device__ __forceinline__ bool next_tile(backward_shared<HD> *shared, p4_place *here, walk *w)
{
    p4_step_on<backward_form<HD>::STAGES>(here);
    if (++w->tile == w->own_end) {
        if (--w->heads == 0) {
            return false;
        }
        w->tile = w->own;
        skip_tiles(shared, here, w->between);
    }
    return true;
}

/* Queues x's own rows times both tiles of the stage at `here`, each a group, when they have come: scores and
 * dO V^T. */
template <int HD, typename State>
static __device__ __forceinline__ void begin_tile(State &x, backward_shared<HD> *shared, const p4_place &here)
{
    p4_barrier_wait(&shared->full[here.at], here.parity);
    p4_wgmma_begin();
    multiply_rows<HD>(x.s, x.first, shared->ring[here.at][0]);
    p4_wgmma_end();
    multiply_rows<HD>(x.dp, x.second, shared->ring[here.at][1]);
    p4_wgmma_end();
}

/* --- dK and dV -------------------------------------------------------------------------------------- */

/* A unit: OWNERS tiles of keys of one key head. */
typedef struct key_unit {
    int batch, kv, key; /* key: the first */
    int tile, end;      /* tiles of queries that see them */
} key_unit;

static __device__ __forceinline__ int key_units(const attention_task &k)
{
    return (k.T + OWNERS * TILE - 1) / (OWNERS * TILE) * k.Hkv * k.B;
}

static __device__ __forceinline__ key_unit find_keys(const attention_task &k, int unit)
{
    key_unit u;
    const int heads = k.Hkv * k.B;
    u.batch = unit % heads / k.Hkv;
    u.kv = unit % k.Hkv;
    u.key = unit / heads * OWNERS * TILE;
    u.tile = u.key / TILE;
    u.end = (attention_query_end(k, min(u.key + OWNERS * TILE, k.T) - 1) + TILE - 1) / TILE;
    return u;
}

template <int HD>
static __device__ __forceinline__ void copy_queries(backward_shared<HD> *shared, const CUtensorMap *qkv,
                                                    const CUtensorMap *dout, const attention_task &k)
{
    enum { STAGES = backward_form<HD>::STAGES, BYTES = backward_form<HD>::TILE_ELEMENTS * 2 };
    const int group = k.H / k.Hkv, row_tiles = (k.T + TILE - 1) / TILE;
    p4_place here = {0, 0};
    for (int round = 0, unit; (unit = take_unit(shared, attention_taken(k), key_units(k), round)) != NO_UNIT; round++) {
        const key_unit u = find_keys(k, unit);
        for (int i = 0; i < OWNERS; i++) {
            const int key = u.key + i * TILE;
            copy_rows<HD, TILE>(shared->own[i][0], qkv, k.H + u.kv, key, u.batch, &shared->own_full);
            copy_rows<HD, TILE>(shared->own[i][1], qkv, k.H + k.Hkv + u.kv, key, u.batch, &shared->own_full);
        }
        for (int head = u.kv * group; head < (u.kv + 1) * group; head++) {
            for (int tile = u.tile; tile < u.end; tile++) {
                p4_barrier *full = &shared->full[here.at];
                const int64_t row_tile = ((int64_t)u.batch * k.H + head) * row_tiles + tile;
                p4_barrier_wait(&shared->empty[here.at], here.parity ^ 1);
                p4_barrier_expect(full, 2 * BYTES + (int)sizeof shared->rows[0]);
                copy_rows<HD, TILE>(shared->ring[here.at][0], qkv, head, tile * TILE, u.batch, full);
                copy_rows<HD, TILE>(shared->ring[here.at][1], dout, head, tile * TILE, u.batch, full);
                p4_bytes_load(shared->rows[here.at], k.delta + row_tile * ATTENTION_ROW_SUMS * TILE,
                              (int)sizeof shared->rows[0], full);
                p4_step_on<STAGES>(&here);
            }
        }
    }
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

/* Of wide heads probabilities in fp32 do not fit beside those in bf16. */
template <int HD> struct key_state {
    enum { EXACT = HD <= 64 };
    const bf16 *first, *second; /* keys, values: in shared memory */
    float s[TILE_SUMS], dp[TILE_SUMS], dk[HD / 2], dv[HD / 2];
    uint32_t p[TILE_STEPS][4], ds[TILE_STEPS][4];
};

/* dp: dO V^T, transposed -> the gradient of the scores but for their scale. */
template <int HD>
static __device__ __forceinline__ void score_gradients_of_keys(key_state<HD> &x, const float *delta)
{
    const int lane = (int)threadIdx.x % P4_WARP;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
        const float2 two = *(const float2 *)(delta + 8 * n + 2 * (lane % 4));
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int i = 4 * n + c;
            const uint32_t pair = x.p[i / 8][i / 2 % 4];
            const float p =
                key_state<HD>::EXACT ? x.s[i] : __uint_as_float(i % 2 ? pair & 0xffff0000u : pair << 16);
            x.dp[i] = p * (x.dp[i] - (c % 2 ? two.y : two.x));
        }
    }
}

/* dK and dV of 64 keys from `key`. Products under way at the loop's head: dV, dK of the tile before, then
 * scores and dO V^T of this one. */
template <int HD>
static __device__ __forceinline__ void sum_keys(key_state<HD> &x, backward_shared<HD> *shared, p4_place *here,
                                                walk *w, int key, const attention_task &k)
{
    int before = -1;
    bool more = true;
    do {
        begin_tile(x, shared, *here);
        const int at = here->at, query = w->tile * TILE;
        const float *rows = shared->rows[at];
        p4_wgmma_wait<1>();
        p4_sums_ready(x.s);
        if (before >= 0) {
            give_back(&shared->empty[before]);
        }
        probabilities_of_keys(x.s, rows, key, query, k);
        pack_pairs(x.p, x.s);
        p4_wgmma_begin();
        multiply_across(x.dv, x.p, shared->ring[at][1], before >= 0);
        p4_wgmma_end();
        p4_wgmma_wait<1>();
        p4_sums_ready(x.dp);
        score_gradients_of_keys(x, rows + TILE);
        pack_pairs(x.ds, x.dp);
        p4_wgmma_begin();
        multiply_across(x.dk, x.ds, shared->ring[at][0], before >= 0);
        p4_wgmma_end();
        if (!key_state<HD>::EXACT) {
            p4_wgmma_wait<1>(); /* dV: its factor's registers are needed */
        }
        before = at;
        more = next_tile(shared, here, w);
    } while (more);
    p4_wgmma_wait<0>();
    p4_sums_ready(x.dk);
    p4_sums_ready(x.dv);
    give_back(&shared->empty[before]);
}

template <int HD>
static __device__ __forceinline__ void own_keys(backward_shared<HD> *shared, int owner,
                                                const attention_task &k)
{
    key_state<HD> x;
    p4_place here = {0, 0};
    for (int round = 0, unit; (unit = wait_for_unit(shared, round)) != NO_UNIT; round++) {
        const key_unit u = find_keys(k, unit);
        const int key = u.key + owner * TILE, group = k.H / k.Hkv;
        const int end = (attention_query_end(k, min(key + TILE, k.T) - 1) + TILE - 1) / TILE;
        walk w = {key / TILE, key / TILE, end, u.end - end + owner, group};
        x.first = shared->own[owner][0];
        x.second = shared->own[owner][1];
        if (key < k.T) {
            bf16 *to = (bf16 *)k.to + (int64_t)u.batch * k.T * k.width + (k.H + u.kv) * k.D;
            const float scales[2] = {k.scale, k.scale}, ones[2] = {1.0f, 1.0f};
            skip_tiles(shared, &here, owner);
            sum_keys(x, shared, &here, &w, key, k);
            skip_tiles(shared, &here, u.end - end);
            put_rows(to, k.width, x.dk, scales, key, k);
            put_rows(to + k.Hkv * k.D, k.width, x.dv, ones, key, k);
        } else {
            skip_tiles(shared, &here, (u.end - u.tile) * group);
        }
        __syncwarp();
        give_back(&shared->own_empty);
    }
}

template <int HD>
static __global__ void __launch_bounds__(THREADS, 1)
    gradients_kv(const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap dout,
                 const __grid_constant__ attention_task k)
{
    extern __shared__ char memory[];
    backward_shared<HD> *shared = open_shared<HD>(memory);
    const int group = (int)threadIdx.x / ATTENTION_GROUP;
    if (group == 0) {
        p4_fewer_registers<COPY_REGISTERS>();
        if (threadIdx.x == 0) {
            copy_queries<HD>(shared, &qkv, &dout, k);
        }
    } else {
        p4_more_registers<OWNER_REGISTERS>();
        own_keys<HD>(shared, group - 1, k);
    }
}

/* --- dQ --------------------------------------------------------------------------------------------- */

/* A unit: OWNERS tiles of queries of one head, the last of a head first. */
typedef struct query_unit {
    int batch, head, query; /* query: the first */
    int tile, end;          /* tiles of keys that they see */
} query_unit;

static __device__ __forceinline__ int query_units(const attention_task &k)
{
    return (k.T + OWNERS * TILE - 1) / (OWNERS * TILE) * k.H * k.B;
}

static __device__ __forceinline__ query_unit find_queries(const attention_task &k, int unit)
{
    query_unit u;
    const int heads = k.H * k.B, tiles = (k.T + OWNERS * TILE - 1) / (OWNERS * TILE);
    u.batch = unit % heads / k.H;
    u.head = unit % k.H;
    u.query = (tiles - 1 - unit / heads) * OWNERS * TILE;
    u.tile = attention_first_key(k, u.query) / TILE;
    u.end = (min(u.query + OWNERS * TILE, k.T) + TILE - 1) / TILE;
    return u;
}

template <int HD>
static __device__ __forceinline__ void copy_keys(backward_shared<HD> *shared, const CUtensorMap *qkv,
                                                 const CUtensorMap *dout, const attention_task &k)
{
    enum { STAGES = backward_form<HD>::STAGES, BYTES = backward_form<HD>::TILE_ELEMENTS * 2 };
    p4_place here = {0, 0};
    for (int round = 0, unit; (unit = take_unit(shared, attention_taken(k) + 1, query_units(k), round)) != NO_UNIT;
         round++) {
        const query_unit u = find_queries(k, unit);
        const int kv = u.head / (k.H / k.Hkv);
        for (int i = 0; i < OWNERS; i++) {
            const int query = u.query + i * TILE;
            copy_rows<HD, TILE>(shared->own[i][0], qkv, u.head, query, u.batch, &shared->own_full);
            copy_rows<HD, TILE>(shared->own[i][1], dout, u.head, query, u.batch, &shared->own_full);
        }
        for (int tile = u.tile; tile < u.end; tile++) {
            p4_barrier *full = &shared->full[here.at];
            p4_barrier_wait(&shared->empty[here.at], here.parity ^ 1);
            p4_barrier_expect(full, 2 * BYTES);
            copy_rows<HD, TILE>(shared->ring[here.at][0], qkv, k.H + kv, tile * TILE, u.batch, full);
            copy_rows<HD, TILE>(shared->ring[here.at][1], qkv, k.H + k.Hkv + kv, tile * TILE, u.batch, full);
            p4_step_on<STAGES>(&here);
        }
    }
}

template <int HD> struct query_state {
    const bf16 *first, *second; /* queries, dout: in shared memory */
    float s[TILE_SUMS], dp[TILE_SUMS], dq[HD / 2];
    float lse[2], delta[2]; /* of rows g and g + 8; lse times log2(e) */
    uint32_t ds[TILE_STEPS][4];
};

/* s: scores, queries by keys -> probabilities. */
static __device__ __forceinline__ void probabilities_of_queries(float (&s)[TILE_SUMS], const float (&lse)[2],
                                                                int query, int key, const attention_task &k)
{
    const float scale = k.scale * log2e;
#pragma unroll
    for (int i = 0; i < TILE_SUMS; i++) {
        s[i] = p4_exp2(s[i] * scale - lse[i / 2 % 2]);
    }
    hide<false>(s, query, key, 0.0f, k);
}

/* dQ of 64 queries from `query`. Products under way at the loop's head: dQ of the tile before, then scores
 * and dO V^T of this one. */
template <int HD>
static __device__ __forceinline__ void sum_queries(query_state<HD> &x, backward_shared<HD> *shared,
                                                   p4_place *here, walk *w, int query, const attention_task &k)
{
    int before = -1;
    bool more = true;
    do {
        begin_tile(x, shared, *here);
        const int at = here->at, key = w->tile * TILE;
        p4_wgmma_wait<1>();
        p4_sums_ready(x.s);
        if (before >= 0) {
            give_back(&shared->empty[before]);
        }
        probabilities_of_queries(x.s, x.lse, query, key, k);
        p4_wgmma_wait<0>();
        p4_sums_ready(x.dp);
#pragma unroll
        for (int i = 0; i < TILE_SUMS; i++) {
            x.dp[i] = x.s[i] * (x.dp[i] - x.delta[i / 2 % 2]);
        }
        pack_pairs(x.ds, x.dp);
        p4_wgmma_begin();
        multiply_across(x.dq, x.ds, shared->ring[at][0], before >= 0);
        p4_wgmma_end();
        before = at;
        more = next_tile(shared, here, w);
    } while (more);
    p4_wgmma_wait<0>();
    p4_sums_ready(x.dq);
    give_back(&shared->empty[before]);
}

template <int HD>
static __device__ __forceinline__ void own_queries(backward_shared<HD> *shared, int owner,
                                                   const attention_task &k)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x / P4_WARP % GROUP_WARPS;
    const int row_tiles = (k.T + TILE - 1) / TILE;
    query_state<HD> x;
    p4_place here = {0, 0};
    for (int round = 0, unit; (unit = wait_for_unit(shared, round)) != NO_UNIT; round++) {
        const query_unit u = find_queries(k, unit);
        const int query = u.query + owner * TILE;
        const int first = attention_first_key(k, query) / TILE, end = query / TILE + 1;
        const bool exists = query < k.T;
        walk w = {first, first, end, 0, 1};
        const int64_t row_tile = ((int64_t)u.batch * k.H + u.head) * row_tiles + query / TILE;
        const float *rows = k.delta + row_tile * ATTENTION_ROW_SUMS * TILE + 16 * warp + lane / 4;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            x.lse[half] = exists ? __ldg(rows + 8 * half) : 0.0f;
            x.delta[half] = exists ? __ldg(rows + 8 * half + TILE) : 0.0f;
        }
        x.first = shared->own[owner][0];
        x.second = shared->own[owner][1];
        if (exists) {
            const float scales[2] = {k.scale, k.scale};
            skip_tiles(shared, &here, first - u.tile);
            sum_queries(x, shared, &here, &w, query, k);
            skip_tiles(shared, &here, u.end - end);
            put_rows((bf16 *)k.to + (int64_t)u.batch * k.T * k.width + u.head * k.D, k.width, x.dq, scales,
                     query, k);
        } else {
            skip_tiles(shared, &here, u.end - u.tile);
        }
        __syncwarp();
        give_back(&shared->own_empty);
    }
}

template <int HD>
static __global__ void __launch_bounds__(THREADS, 1)
    gradients_q(const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap dout,
                const __grid_constant__ attention_task k)
{
    extern __shared__ char memory[];
    backward_shared<HD> *shared = open_shared<HD>(memory);
    const int group = (int)threadIdx.x / ATTENTION_GROUP;
    if (group == 0) {
        p4_fewer_registers<COPY_REGISTERS>();
        if (threadIdx.x == 0) {
            copy_keys<HD>(shared, &qkv, &dout, k);
        }
    } else {
        p4_more_registers<OWNER_REGISTERS>();
        own_queries<HD>(shared, group - 1, k);
    }
}

/* --- launches --------------------------------------------------------------------------------------- */

template <int HD>
static void launch(p4_device *device, const CUtensorMap *qkv, const CUtensorMap *dout,
                   const attention_task *k)
{
    const int bytes = (int)sizeof(backward_shared<HD>) + SHARED_ALIGN;
    static_assert(sizeof(backward_shared<HD>) + SHARED_ALIGN <= SHARED_MOST, "too much shared memory");
    const int64_t pairs = p4_ceil_div(k->T, OWNERS * TILE) * k->B;
    const unsigned kv_blocks = (unsigned)p4_min_i64(pairs * k->Hkv, device->processors);
    const unsigned q_blocks = (unsigned)p4_min_i64(pairs * k->H, device->processors);
    if (attention_shared(device, gradients_kv<HD>, bytes) &&
        attention_shared(device, gradients_q<HD>, bytes)) {
        gradients_kv<HD><<<kv_blocks, THREADS, bytes, device->stream>>>(*qkv, *dout, *k);
        gradients_q<HD><<<q_blocks, THREADS, bytes, device->stream>>>(*qkv, *dout, *k);
    }
}

void p4_attention_backward_sm90(p4_device *device, const attention_task *k)
{
    CUtensorMap qkv, dout;
    if (!p4_attention_map(device, &qkv, k->qkv, k->H + 2 * k->Hkv, k) ||
        !p4_attention_map(device, &dout, k->dout, k->H, k)) {
        return;
    }
    if (k->D <= 64) {
        launch<64>(device, &qkv, &dout, k);
    } else {
        launch<128>(device, &qkv, &dout, k);
    }
}
