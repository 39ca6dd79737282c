/* attention_backward_128.cu - attention backward on compute capability 9.0 (target sm_90a), heads of
 * 65 to 128 elements: two kernels, of which each sums its gradients in registers, so that no block adds to
 * what another wrote and every sum has one order.
 *
 * gradients<true>: a warpgroup owns 64 keys and goes through the queries of all query heads of its key head.
 * It makes the scores and their gradients transposed, keys by queries: as they come they are the left factors
 * of dV += P^T dO and dK += dS^T Q, and nothing goes through shared memory but the tiles of Q and dO.
 * gradients<false>: a warpgroup owns 64 queries and goes through the keys they see; scores as in forward, dQ
 * += dS K. Scores and dO V^T are made twice: dK and dV of 64 keys fill the registers, dQ beside them has none
 * (kernels/sm90/attention_backward_64.cu does all in one).
 *
 * In both a product is under way while the exponentials of the same tile are taken. */
#include "kernels/sm90/attention_backward.cuh"

/* Own tiles of two kinds, and a ring of tiles of two other kinds. */
enum {
    HD = 128,
    STAGES = 4,
    TILE_ELEMENTS = TILE * HD,
    THREADS = (1 + OWNERS) * ATTENTION_GROUP,
    COPY_REGISTERS = 24,
    OWNER_REGISTERS = 240 /* (24 + 2 x 240) x 128 threads <= 65536 */
};
typedef struct backward_shared {
    bf16 own[OWNERS][2][TILE_ELEMENTS];  /* keys, values; or queries, dout */
    bf16 ring[STAGES][2][TILE_ELEMENTS]; /* queries, dout; or keys, values */
    float rows[STAGES][ATTENTION_ROW_SUMS * TILE];
    p4_barrier full[STAGES], empty[STAGES], own_full, own_empty;
    int unit; /* guarded as `own`; behind the last: NO_UNIT */
} backward_shared;

static __device__ __forceinline__ backward_shared *open_shared(char *memory)
{
    backward_shared *shared = (backward_shared *)shared_aligned(memory);
    if (threadIdx.x == 0) {
        open_barriers(shared->full, shared->empty, STAGES, OWNER_WARPS);
        open_barriers(&shared->own_full, &shared->own_empty, 1, OWNER_WARPS);
        p4_barrier_init_done();
    }
    __syncthreads();
    return shared;
}

/* The copying thread, for the round-th time: tells the others the unit it goes on to, when they have left the
 * one before, and makes them wait for its own tiles. Behind the last: NO_UNIT. */
static __device__ __forceinline__ void open_unit(backward_shared *shared, int unit, int round)
{
    p4_barrier_wait(&shared->own_empty, (uint32_t)(round % 2 ^ 1));
    shared->unit = unit;
    p4_barrier_expect(&shared->own_full, unit == NO_UNIT ? 0 : (int)sizeof shared->own);
}

/* The others, for the round-th time: the unit whose own tiles have come. */
static __device__ __forceinline__ int wait_for_unit(backward_shared *shared, int round)
{
    p4_barrier_wait(&shared->own_full, (uint32_t)(round % 2));
    return shared->unit;
}

/* What a warpgroup computes of the tiles in the ring: of each of `heads` heads those of [own, own_end).
 * `between` tiles from its last of a head to its first of the next are others'. */
typedef struct walk {
    int tile, own, own_end, between, heads;
} walk;

/* Skips `count` tiles of the ring that this warpgroup does not compute; at most one while it holds another.
 */
static __device__ __forceinline__ void skip_tiles(backward_shared *shared, p4_place *here, int count)
{
    for (int i = 0; i < count; i++) {
        p4_barrier_wait(&shared->full[here->at], here->parity);
        __syncwarp();
        give_back(&shared->empty[here->at]);
        p4_step_on<STAGES>(here);
    }
}

/* Advances to the next tile; false behind the last. */
static __device__ __forceinline__ bool next_tile(backward_shared *shared, p4_place *here, walk *w)
{
    p4_step_on<STAGES>(here);
    if (++w->tile == w->own_end) {
        if (--w->heads == 0) {
            return false;
        }
        w->tile = w->own;
        skip_tiles(shared, here, w->between);
    }
    return true;
}

/* --- dK and dV -------------------------------------------------------------------------------- */

static __device__ __forceinline__ key_unit find_key_unit(const attention_task &k, int unit)
{
    const int heads = k.Hkv * k.B;
    return find_keys(k, unit / heads, unit % heads / k.Hkv, unit % k.Hkv);
}

static __device__ __forceinline__ void copy_for_keys(backward_shared *shared, const CUtensorMap *qkv,
                                                     const CUtensorMap *dout, const attention_task &k)
{
    const int group = k.H / k.Hkv, units = key_units(k.T) * k.Hkv * k.B;
    p4_place here = {0, 0};
    for (int round = 0;; round++) {
        const int unit = take_unit(attention_taken(k), units);
        open_unit(shared, unit, round);
        if (unit == NO_UNIT) {
            break;
        }
        const key_unit u = find_key_unit(k, unit);
        copy_own_keys<HD>(shared->own, qkv, u, k, &shared->own_full);
        for (int head = u.kv * group; head < (u.kv + 1) * group; head++) {
            for (int tile = u.tile; tile < u.end; tile++) {
                copy_queries<HD>(shared, here, qkv, dout, u.batch, head, tile, k);
                p4_step_on<STAGES>(&here);
            }
        }
    }
}

typedef struct key_state {
    const bf16 *first, *second; /* keys, values: in shared memory */
    float s[TILE_SUMS], dp[TILE_SUMS], dk[HD / 2], dv[HD / 2];
    uint32_t p[TILE_STEPS][4], ds[TILE_STEPS][4];
} key_state;

/* dK and dV of 64 keys from `key`. Products under way at the loop's head: dK of the tile before, then
 * scores and dO V^T of this one. */
static __device__ __forceinline__ void sum_keys(key_state &x, backward_shared *shared, p4_place *here,
                                                walk *w, int key, const attention_task &k)
{
    int before = -1;
    bool more = true;
    do {
        begin_tile<HD>(x, shared, *here);
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
        score_gradients_of_keys<false>(x.dp, x.s, x.p, rows + TILE);
        pack_pairs(x.ds, x.dp);
        p4_wgmma_begin();
        multiply_across(x.dk, x.ds, shared->ring[at][0], before >= 0);
        p4_wgmma_end();
        p4_wgmma_wait<1>(); /* dV: its factor's registers are needed */
        before = at;
        more = next_tile(shared, here, w);
    } while (more);
    p4_wgmma_wait<0>();
    p4_sums_ready(x.dk);
    p4_sums_ready(x.dv);
    give_back(&shared->empty[before]);
}

static __device__ __forceinline__ void own_keys(backward_shared *shared, int owner, const attention_task &k)
{
    key_state x;
    p4_place here = {0, 0};
    for (int round = 0, unit; (unit = wait_for_unit(shared, round)) != NO_UNIT; round++) {
        const key_unit u = find_key_unit(k, unit);
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

/* --- dQ --------------------------------------------------------------------------------------- */

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

static __device__ __forceinline__ void copy_for_queries(backward_shared *shared, const CUtensorMap *qkv,
                                                        const CUtensorMap *dout, const attention_task &k)
{
    p4_place here = {0, 0};
    for (int round = 0;; round++) {
        const int unit = take_unit(attention_taken(k) + 1, query_units(k));
        open_unit(shared, unit, round);
        if (unit == NO_UNIT) {
            break;
        }
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
            p4_barrier_expect(full, (int)sizeof shared->ring[0]);
            copy_rows<HD, TILE>(shared->ring[here.at][0], qkv, k.H + kv, tile * TILE, u.batch, full);
            copy_rows<HD, TILE>(shared->ring[here.at][1], qkv, k.H + k.Hkv + kv, tile * TILE, u.batch, full);
            p4_step_on<STAGES>(&here);
        }
    }
}

struct query_state {
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
static __device__ __forceinline__ void sum_queries(query_state &x, backward_shared *shared, p4_place *here,
                                                   walk *w, int query, const attention_task &k)
{
    int before = -1;
    bool more = true;
    do {
        begin_tile<HD>(x, shared, *here);
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

static __device__ __forceinline__ void own_queries(backward_shared *shared, int owner,
                                                   const attention_task &k)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x / P4_WARP % GROUP_WARPS;
    const int row_tiles = (k.T + TILE - 1) / TILE;
    query_state x;
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

/* --- the kernels ------------------------------------------------------------------------------ */

/* Of keys and values, or of queries. */
template <bool KEYS>
static __global__ void __launch_bounds__(THREADS, 1)
    gradients(const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap dout,
              const __grid_constant__ attention_task k)
{
    extern __shared__ char memory[];
    backward_shared *shared = open_shared(memory);
    const int group = (int)threadIdx.x / ATTENTION_GROUP;
    if (group == 0) {
        p4_fewer_registers<COPY_REGISTERS>();
        if (threadIdx.x == 0) {
            KEYS ? copy_for_keys(shared, &qkv, &dout, k) : copy_for_queries(shared, &qkv, &dout, k);
        }
    } else {
        p4_more_registers<OWNER_REGISTERS>();
        KEYS ? own_keys(shared, group - 1, k) : own_queries(shared, group - 1, k);
    }
}

/* --- launch ----------------------------------------------------------------------------------- */

void p4_attention_backward_128(p4_device *device, const attention_task *k)
{
    const int bytes = (int)sizeof(backward_shared) + SHARED_ALIGN;
    static_assert(sizeof(backward_shared) + SHARED_ALIGN <= SHARED_MOST, "too much shared memory");
    const int64_t pairs = p4_ceil_div(k->T, OWNERS * TILE) * k->B;
    const unsigned kv_blocks = (unsigned)p4_min_i64(pairs * k->Hkv, device->processors);
    const unsigned q_blocks = (unsigned)p4_min_i64(pairs * k->H, device->processors);
    CUtensorMap qkv, dout;
    if (attention_map(device, &qkv, k->qkv, k->H + 2 * k->Hkv, k) &&
        attention_map(device, &dout, k->dout, k->H, k) && attention_shared(device, gradients<true>, bytes) &&
        attention_shared(device, gradients<false>, bytes)) {
        gradients<true><<<kv_blocks, THREADS, bytes, device->stream>>>(qkv, dout, *k);
        gradients<false><<<q_blocks, THREADS, bytes, device->stream>>>(qkv, dout, *k);
    }
}
