/* attention_backward_64.cu - attention backward on compute capability 9.0 (target sm_90a), heads of
 * up to 64 elements: one kernel makes the scores and their gradients once, and dQ, dK and dV of them.
 *
 * A unit of work is 128 keys, 64 of each of two warpgroups, and the queries of two heads that see them; of
 * one head where there are few units. Scores are made transposed, keys by queries: as they come they are the
 * left factors of dV += P^T dO and dK += dS^T Q, which stay in registers. dS goes through shared memory to a
 * third warpgroup, which multiplies it with the unit's keys: the unit's part of dQ of a tile of queries. That
 * one thread adds to the sum of dQ in global memory (the copy engine does, in the second cache), while others
 * have the parts of the next tiles.
 *
 * Sums that units share have one order, which flags in global memory keep:
 * - dQ of a tile is the sum over the units that see it, by descending keys. The first, whose keys are the
 * tile's own, stores its part, the next add theirs, and the last writes dQ. As a unit begins with the tile of
 * its own keys, it comes to every other tile after the unit of the keys behind did.
 * - dK and dV are sums over the query heads of a key head. A unit begins with what that of the heads before
 * has left. Where units are few these run at the same time, and a unit adds that at its end. Units are taken
 * in such an order that none waits for one that is taken later, so any number of blocks gets through; and so
 * that waiting is rare: some heads together, all their last keys, then the keys before. Heads of one key head
 * come after each other at a distance. What is taken together fits into the second cache. */
#include "kernels/sm90/attention_backward_64.cuh"

enum {
    STAGES = 4,
    SLOTS = 2,   /* tiles of dS that exist at once */
    SENDERS = 3, /* parts of dQ that are being added at once */
    AHEAD = 2,   /* units whose keys are in shared memory */
    TILE_ELEMENTS = TILE * HD,
    THREADS = (2 + OWNERS) * ATTENTION_GROUP,
    COPY_REGISTERS = 40, /* (40 + 88 + 2 x 192) x 128 threads <= 65536 */
    OWNER_REGISTERS = 192,
    QUERY_REGISTERS = 88
};

typedef struct backward_shared {
    bf16 own[AHEAD][OWNERS][2][TILE_ELEMENTS]; /* keys, values */
    bf16 ring[STAGES][2][TILE_ELEMENTS];       /* queries, dout */
    bf16 ds[SLOTS][OWNERS][TILE_ELEMENTS];     /* queries by an owner's keys */
    float4 dq[SENDERS][GROUP_WARPS][PARTS][P4_WARP];
    float rows[STAGES][ATTENTION_ROW_SUMS * TILE];
    p4_barrier own_full[AHEAD], own_empty[AHEAD], full[STAGES], empty[STAGES], ds_full[SLOTS],
        ds_empty[SLOTS], dq_full[SENDERS], dq_empty[SENDERS];
    int unit[AHEAD]; /* guarded as `own`; behind the last: NO_UNIT */
} backward_shared;

/* --- copies ----------------------------------------------------------------------------------- */

/* Takes units, and copies what they need. */
template <int HEADS>
static __device__ __forceinline__ void copy_tiles(backward_shared *shared, const CUtensorMap *qkv,
                                                  const CUtensorMap *dout, const attention_task &k)
{
    p4_place own = {0, 0}, here = {0, 0};
    for (int unit = 0; unit != NO_UNIT; p4_step_on<AHEAD>(&own)) {
        unit = take_unit(attention_taken(k), (int)unit_count<HEADS>(k.B, k.H, k.Hkv, k.T));
        p4_barrier_wait(&shared->own_empty[own.at], own.parity ^ 1);
        shared->unit[own.at] = unit;
        p4_barrier_expect(&shared->own_full[own.at], unit == NO_UNIT ? 0 : (int)sizeof shared->own[0]);
        if (unit != NO_UNIT) {
            const group_unit u = find_unit<HEADS>(k, unit);
            copy_own_keys<HD>(shared->own[own.at], qkv, u.keys, k, &shared->own_full[own.at]);
            for (int member = u.member; member < u.end; member++) {
                for (int tile = u.keys.tile; tile < u.keys.end; tile++) {
                    copy_queries<HD>(shared, here, qkv, dout, u.keys.batch, head_of(k, u, member), tile, k);
                    p4_step_on<STAGES>(&here);
                }
            }
        }
    }
}

/* The next unit, or NO_UNIT; its keys have arrived. */
static __device__ __forceinline__ int wait_for_unit(backward_shared *shared, const p4_place &own)
{
    p4_barrier_wait(&shared->own_full[own.at], own.parity);
    return shared->unit[own.at];
}

/* --- dK and dV -------------------------------------------------------------------------------- */

typedef struct key_state {
    const bf16 *first, *second; /* keys, values: in shared memory */
    float s[TILE_SUMS], dp[TILE_SUMS], dk[HD / 2], dv[HD / 2];
    uint32_t p[TILE_STEPS][4], ds[TILE_STEPS][4];
} key_state;

static __device__ __forceinline__ void add_four(float *to, float4 v)
{
    to[0] += v.x;
    to[1] += v.y;
    to[2] += v.z;
    to[3] += v.w;
}

/* dS becomes a left factor, queries by this owner's keys. */
static __device__ __forceinline__ void put_score_gradients(const key_state &x, bf16 *to)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x / P4_WARP % GROUP_WARPS;
#pragma unroll
    for (int i = 0; i < TILE_STEPS; i++) {
        const int query = 16 * i + lane / 16 * 8 + lane % 8, chunk = 2 * warp + lane / 8 % 2;
        p4_store_matrices_transposed(to + query * TILE + (chunk ^ query % 8) * 8, x.ds[i]);
    }
    p4_shared_written();
    __syncwarp();
}

/* Adds a unit to dK and dV of 64 keys from `key`, and gives dS to the slots. Keys that the queries of a tile
 * do not see cost what others do: the other owner's part of the tile takes as long. Products under way at the
 * loop's head: dK of the tile before, then scores and dO V^T of this one. */
static __device__ __forceinline__ void sum_keys(key_state &x, backward_shared *shared, p4_place *here,
                                                p4_place *slot, const group_unit &u, int owner,
                                                const attention_task &k)
{
    int before = -1, tile = u.keys.tile;
    for (int left = (u.keys.end - u.keys.tile) * (u.end - u.member); left > 0; left--) {
        begin_tile<HD>(x, shared, *here);
        const int at = here->at;
        const float *rows = shared->rows[at];
        p4_wgmma_wait<1>();
        p4_sums_ready(x.s);
        if (before >= 0) {
            give_back(&shared->empty[before]);
        }
        probabilities_of_keys(x.s, rows, u.keys.key + owner * TILE, tile * TILE, k);
        pack_pairs(x.p, x.s);
        p4_wgmma_begin();
        multiply_across(x.dv, x.p, shared->ring[at][1], true);
        p4_wgmma_end();
        p4_wgmma_wait<1>();
        p4_sums_ready(x.dp);
        score_gradients_of_keys<true>(x.dp, x.s, x.p, rows + TILE);
        pack_pairs(x.ds, x.dp);
        p4_barrier_wait(&shared->ds_empty[slot->at], slot->parity ^ 1);
        put_score_gradients(x, shared->ds[slot->at][owner]);
        give_back(&shared->ds_full[slot->at]);
        p4_wgmma_begin();
        multiply_across(x.dk, x.ds, shared->ring[at][0], true);
        p4_wgmma_end();
        before = at;
        tile = tile + 1 < u.keys.end ? tile + 1 : u.keys.tile;
        p4_step_on<SLOTS>(slot);
        p4_step_on<STAGES>(here);
    }
    p4_wgmma_wait<0>();
    p4_sums_ready(x.dk);
    p4_sums_ready(x.dv);
    give_back(&shared->empty[before]);
}

/* A unit's sums of dK and dV start at zero. At its end, add_keys adds those of the heads before it. */
static __device__ __forceinline__ void clear_keys(key_state &x)
{
#pragma unroll
    for (int i = 0; i < HD / 2; i++) {
        x.dk[i] = x.dv[i] = 0.0f;
    }
}

static __device__ __forceinline__ void add_keys(key_state &x, const shared_sums &s, int member)
{
    const float4 *from = s.sums + threadIdx.x % P4_WARP;
    if (member == 0) {
        return;
    }
    wait_for_sums(s, member);
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        const float4 dk = __ldcg(from + i * P4_WARP), dv = __ldcg(from + GROUP_SUMS / 4 + i * P4_WARP);
        add_four(x.dk + 4 * i, dk);
        add_four(x.dv + 4 * i, dv);
    }
}

static __device__ const float4 nothing = {0.0f, 0.0f, 0.0f, 0.0f};

/* dK and dV as the heads before have left them, and 0 for the first. Loaded in either case: where registers
 * of sums are written on one of two ways, ptxas 13.0 lets products wait for each other. */
static __device__ __forceinline__ void open_keys(key_state &x, const shared_sums &s, int member)
{
    const float4 *from = member > 0 ? s.sums + threadIdx.x % P4_WARP : &nothing;
    const int step = member > 0 ? P4_WARP : 0, dv = member > 0 ? GROUP_SUMS / 4 : 0;
    if (member > 0) {
        wait_for_sums(s, member);
    }
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        *(float4 *)&x.dk[4 * i] = __ldcg(from + i * step);
        *(float4 *)&x.dv[4 * i] = __ldcg(from + dv + i * step);
    }
}
/* Stores them for the next unit. */
static __device__ __forceinline__ void leave_keys(const key_state &x, const shared_sums &s, int end)
{
    const int lane = (int)threadIdx.x % P4_WARP;
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        __stcg(s.sums + i * P4_WARP + lane, *(const float4 *)&x.dk[4 * i]);
        __stcg(s.sums + GROUP_SUMS / 4 + i * P4_WARP + lane, *(const float4 *)&x.dv[4 * i]);
    }
    __syncwarp();
    if (lane == 0) {
        p4_flag_set(s.flag, end);
    }
}

template <int HEADS>
static __device__ __forceinline__ void own_keys(backward_shared *shared, int owner, const attention_task &k)
{
    const float scales[2] = {k.scale, k.scale}, ones[2] = {1.0f, 1.0f};
    key_state x;
    p4_place own = {0, 0}, here = {0, 0}, slot = {0, 0};
    for (int unit; (unit = wait_for_unit(shared, own)) != NO_UNIT; p4_step_on<AHEAD>(&own)) {
        const group_unit u = find_unit<HEADS>(k, unit);
        const int key = u.keys.key + owner * TILE, batch = u.keys.batch, kv = u.keys.kv;
        const shared_sums s = key_sums(k, batch, kv, key / TILE);
        x.first = shared->own[own.at][owner][0];
        x.second = shared->own[own.at][owner][1];
        if (HEADS == 1) {
            clear_keys(x);
        } else {
            open_keys(x, s, u.member);
        }
        sum_keys(x, shared, &here, &slot, u, owner, k);
        __syncwarp();
        give_back(&shared->own_empty[own.at]);
        if (HEADS == 1) {
            add_keys(x, s, u.member);
        }
        if (u.end < k.H / k.Hkv) {
            leave_keys(x, s, u.end);
        } else {
            bf16 *to = (bf16 *)k.to + (int64_t)batch * k.T * k.width + (k.H + kv) * k.D;
            put_rows(to, k.width, x.dk, scales, key, k);
            put_rows(to + k.Hkv * k.D, k.width, x.dv, ones, key, k);
        }
    }
}

/* --- dQ --------------------------------------------------------------------------------------- */

/* Queues dq = dS K, of the slot and the unit's keys. */
static __device__ __forceinline__ void begin_queries(float (&dq)[HD / 2], const bf16 (*ds)[TILE_ELEMENTS],
                                                     const bf16 (*own)[2][TILE_ELEMENTS])
{
    p4_wgmma_begin();
#pragma unroll
    for (int i = 0; i < OWNERS; i++) {
        const uint64_t left = p4_wgmma_rows(ds[i]), right = p4_wgmma_rows_across(own[i][0], PANEL_BYTES);
#pragma unroll
        for (int step = 0; step < TILE_STEPS; step++) {
            p4_wgmma_turned(dq, left + 2 * step, right + 8 * 16 * step, i + step > 0);
        }
    }
    p4_wgmma_end();
}

/* A tile's units, in the order in which they add to it: that of its own keys first, and the last. */
static __device__ __forceinline__ int first_block(int tile)
{
    return tile / OWNERS;
}
static __device__ __forceinline__ int last_block(const attention_task &k, int tile)
{
    return attention_first_key(k, tile * TILE) / (OWNERS * TILE);
}

/* Hands the part to a sender. */
static __device__ __forceinline__ void hand_over(const float (&dq)[HD / 2], backward_shared *shared,
                                                 const p4_place &sender)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x / P4_WARP % GROUP_WARPS;
    p4_barrier_wait(&shared->dq_empty[sender.at], sender.parity ^ 1);
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        shared->dq[sender.at][warp][i][lane] = *(const float4 *)&dq[4 * i];
    }
    p4_shared_written();
    __syncwarp();
    give_back(&shared->dq_full[sender.at]);
}

/* What the units before have added to a tile, 0 if there are none. */
static __device__ __forceinline__ void open_queries(float4 (&before)[PARTS], const shared_sums &s, int units)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x / P4_WARP % GROUP_WARPS;
    if (units > 0) {
        wait_for_sums(s, units);
    }
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        const float4 none = {0.0f, 0.0f, 0.0f, 0.0f};
        before[i] = units > 0 ? __ldcg(s.sums + warp * WARP_SUMS / 4 + i * P4_WARP + lane) : none;
    }
}

/* Waits for dS of the slot and multiplies it with the unit's keys. */
static __device__ __forceinline__ void multiply_slot(float (&dq)[HD / 2], backward_shared *shared,
                                                     p4_place *slot, int own)
{
    p4_barrier_wait(&shared->ds_full[slot->at], slot->parity);
    begin_queries(dq, shared->ds[slot->at], shared->own[own]);
    p4_wgmma_wait<0>();
    p4_sums_ready(dq);
    give_back(&shared->ds_empty[slot->at]);
    p4_step_on<SLOTS>(slot);
}

/* Of the tiles of one head. */
static __device__ __forceinline__ void sum_queries_of(backward_shared *shared, const key_unit &u, int head,
                                                      p4_place *slot, p4_place *sender, int own,
                                                      const attention_task &k)
{
    const float scales[2] = {k.scale, k.scale};
    const int block = u.key / (OWNERS * TILE);
    float dq[HD / 2];
    int tile = u.tile;
    for (; tile < u.end && block > last_block(k, tile); tile++) {
        multiply_slot(dq, shared, slot, own);
        hand_over(dq, shared, *sender);
        p4_step_on<SENDERS>(sender);
    }
    for (; tile < u.end; tile++) { /* nobody adds after it */
        float4 before[PARTS];
        open_queries(before, query_sums(k, u.batch, head, tile), first_block(tile) - block);
        multiply_slot(dq, shared, slot, own);
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            add_four(dq + 4 * i, before[i]);
        }
        put_rows((bf16 *)k.to + (int64_t)u.batch * k.T * k.width + head * k.D, k.width, dq, scales,
                 tile * TILE, k);
    }
}

template <int HEADS>
static __device__ __forceinline__ void sum_queries(backward_shared *shared, const attention_task &k)
{
    p4_place own = {0, 0}, slot = {0, 0}, sender = {0, 0};
    for (int unit; (unit = wait_for_unit(shared, own)) != NO_UNIT; p4_step_on<AHEAD>(&own)) {
        const group_unit u = find_unit<HEADS>(k, unit);
        for (int member = u.member; member < u.end; member++) {
            sum_queries_of(shared, u.keys, head_of(k, u, member), &slot, &sender, own.at, k);
        }
        give_back(&shared->own_empty[own.at]);
    }
}

/* --- the sums of dQ --------------------------------------------------------------------------- */

/* One thread of the block's SENDERS: adds every SENDERS-th part to the sums of its tile, when it is its turn,
 * and says so when it is there. `next`: parts until this sender's next. */
static __device__ __forceinline__ void send_parts(backward_shared *shared, const key_unit &u, int head,
                                                  int sender, int *next, uint32_t *parity,
                                                  const attention_task &k)
{
    const int block = u.key / (OWNERS * TILE), bytes = GROUP_SUMS * (int)sizeof(float);
    for (int tile = u.tile; tile < u.end && block > last_block(k, tile); tile++) {
        if ((*next)-- > 0) {
            continue;
        }
        const shared_sums s = query_sums(k, u.batch, head, tile);
        const int before = first_block(tile) - block;
        p4_barrier_wait(&shared->dq_full[sender], *parity);
        if (before == 0) {
            p4_bytes_store(s.sums, shared->dq[sender], bytes);
        } else {
            p4_flag_wait(s.flag, before);
            p4_floats_add((float *)s.sums, shared->dq[sender], bytes);
        }
        p4_stores_end();
        p4_stores_done();
        p4_flag_set(s.flag, before + 1);
        p4_barrier_arrive(&shared->dq_empty[sender], 0);
        *parity ^= 1;
        *next = SENDERS - 1;
    }
}

template <int HEADS>
static __device__ __forceinline__ void send_queries(backward_shared *shared, int sender,
                                                    const attention_task &k)
{
    p4_place own = {0, 0};
    uint32_t parity = 0;
    int next = sender;
    for (int unit; (unit = wait_for_unit(shared, own)) != NO_UNIT; p4_step_on<AHEAD>(&own)) {
        const group_unit u = find_unit<HEADS>(k, unit);
        p4_barrier_arrive(&shared->own_empty[own.at], 0);
        for (int member = u.member; member < u.end; member++) {
            send_parts(shared, u.keys, head_of(k, u, member), sender, &next, &parity, k);
        }
    }
}

/* --- the kernel ------------------------------------------------------------------------------- */

template <int HEADS>
static __global__ void __launch_bounds__(THREADS, 1)
    gradients(const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap dout,
              const __grid_constant__ attention_task k)
{
    extern __shared__ char memory[];
    backward_shared *shared = (backward_shared *)shared_aligned(memory);
    const int group = (int)threadIdx.x / ATTENTION_GROUP;
    if (threadIdx.x == 0) {
        open_barriers(shared->own_full, shared->own_empty, AHEAD, OWNER_WARPS + GROUP_WARPS + SENDERS);
        open_barriers(shared->full, shared->empty, STAGES, OWNER_WARPS);
        for (int i = 0; i < SLOTS; i++) {
            p4_barrier_init(&shared->ds_full[i], OWNER_WARPS);
            p4_barrier_init(&shared->ds_empty[i], GROUP_WARPS);
        }
        for (int i = 0; i < SENDERS; i++) {
            p4_barrier_init(&shared->dq_full[i], GROUP_WARPS);
            p4_barrier_init(&shared->dq_empty[i], 1);
        }
        p4_barrier_init_done();
    }
    __syncthreads();
    if (group == 0) {
        p4_fewer_registers<COPY_REGISTERS>();
        const int warp = (int)threadIdx.x / P4_WARP;
        if (threadIdx.x == 0) {
            copy_tiles<HEADS>(shared, &qkv, &dout, k);
        } else if (threadIdx.x % P4_WARP == 0 && warp <= SENDERS) {
            send_queries<HEADS>(shared, warp - 1, k);
        }
    } else if (group <= OWNERS) {
        p4_more_registers<OWNER_REGISTERS>();
        own_keys<HEADS>(shared, group - 1, k);
    } else {
        p4_fewer_registers<QUERY_REGISTERS>();
        sum_queries<HEADS>(shared, k);
    }
}

/* --- launch ----------------------------------------------------------------------------------- */

/* Sums of keys are left where a key head has several units. A call of fewer, shorter sequences than the shape
 * may have few units where the shape has not. */
int64_t p4_attention_backward_64_bytes(const p4_attention_shape *s)
{
    const int64_t tiles = key_tiles(s->B, s->Hkv, s->T), shared = s->H / s->Hkv;
    const int64_t left = shared > GROUP ? tiles : shared > 1 ? p4_min_i64(tiles, FEW * OWNERS) : 0;
    return flags_count(s->B, s->H, s->Hkv, s->T) * (int64_t)sizeof(int) +
           (query_tiles(s->B, s->H, s->T) + 2 * left) * GROUP_SUMS * (int64_t)sizeof(float);
}

template <int HEADS> static void launch(p4_device *device, const attention_task *k)
{
    const int bytes = (int)sizeof(backward_shared) + SHARED_ALIGN;
    static_assert(sizeof(backward_shared) + SHARED_ALIGN <= SHARED_MOST, "too much shared memory");
    const int64_t units = unit_count<HEADS>(k->B, k->H, k->Hkv, k->T);
    const size_t flags = (size_t)flags_count(k->B, k->H, k->Hkv, k->T) * sizeof(int);
    CUtensorMap qkv, dout;
    if (attention_map(device, &qkv, k->qkv, k->H + 2 * k->Hkv, k) &&
        attention_map(device, &dout, k->dout, k->H, k) && attention_shared(device, gradients<HEADS>, bytes) &&
        p4_cuda_ok(device, cudaMemsetAsync(flags_of(*k), 0, flags, device->stream), "attention: flags")) {
        gradients<HEADS><<<(unsigned)p4_min_i64(units, device->processors), THREADS, bytes, device->stream>>>(
            qkv, dout, *k);
    }
}

void p4_attention_backward_64(p4_device *device, const attention_task *k)
{
    if (unit_count<GROUP>(k->B, k->H, k->Hkv, k->T) <= FEW) {
        launch<1>(device, k);
    } else {
        launch<GROUP>(device, k);
    }
}
