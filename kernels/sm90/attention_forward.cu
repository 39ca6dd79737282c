/* attention_forward.cu - attention forward on compute capability 9.0 (target sm_90a). A warpgroup
 * owns 64 queries and their outputs and goes through the keys they see, 128 at a time, from the last
 * backwards: so every query sees a key in the first step. While the exponentials of a step are taken, the
 * product of the probabilities before with their values is under way. */
#include "kernels/sm90/attention.cuh"

/* KEYS of a step. Heads of 64 leave registers for three warpgroups that multiply; they read their queries
 * from shared memory, where the next unit's come meanwhile. */
template <int HD> struct forward_form {
    enum {
        OWNERS = HD <= 64 ? 3 : 2,
        THREADS = (1 + OWNERS) * ATTENTION_GROUP,
        QUERIES = OWNERS * TILE,
        KEYS = 128,
        STAGES = HD <= 64 ? 4 : 3,
        OWN_STAGES = HD <= 64 ? 2 : 1,
        COPY_REGISTERS = HD <= 64 ? 32 : 24, /* COPY + OWNERS x OWNER <= 512 */
        OWNER_REGISTERS = HD <= 64 ? 160 : 240
    };
};

template <int HD> struct forward_shared {
    typedef forward_form<HD> form;
    bf16 queries[form::OWN_STAGES][form::OWNERS][TILE * HD];
    bf16 keys[form::STAGES][form::KEYS * HD], values[form::STAGES][form::KEYS * HD];
    p4_barrier full[form::STAGES], empty[form::STAGES], own_full[form::OWN_STAGES],
        own_empty[form::OWN_STAGES];
};

/* A unit: OWNERS tiles of queries of one head, the last of a head first. */
typedef struct forward_unit {
    int batch, head, query; /* query: the first */
    int first, end;         /* steps of keys that they see */
} forward_unit;

template <int HD> static __device__ __forceinline__ int forward_units(const attention_task &k)
{
    enum { QUERIES = forward_form<HD>::QUERIES };
    return (k.T + QUERIES - 1) / QUERIES * k.H * k.B;
}

template <int HD> static __device__ __forceinline__ forward_unit find_unit(const attention_task &k, int unit)
{
    enum { QUERIES = forward_form<HD>::QUERIES, KEYS = forward_form<HD>::KEYS };
    forward_unit u;
    const int heads = k.H * k.B, tiles = (k.T + QUERIES - 1) / QUERIES;
    u.batch = unit % heads / k.H;
    u.head = unit % k.H;
    u.query = (tiles - 1 - unit / heads) * QUERIES;
    u.first = attention_first_key(k, u.query) / KEYS;
    u.end = (min(u.query + QUERIES, k.T) + KEYS - 1) / KEYS;
    return u;
}

template <int HD>
static __device__ __forceinline__ void copy_keys(forward_shared<HD> *shared, const CUtensorMap *qkv,
                                                 const attention_task &k)
{
    enum {
        STAGES = forward_form<HD>::STAGES,
        KEYS = forward_form<HD>::KEYS,
        OWNERS = forward_form<HD>::OWNERS,
        OWN = forward_form<HD>::OWN_STAGES
    };
    p4_place here = {0, 0};
    for (int round = 0; unit_of(round) < forward_units<HD>(k); round++) {
        const forward_unit u = find_unit<HD>(k, unit_of(round));
        const int kv = u.head / (k.H / k.Hkv);
        const int own = round % OWN;
        p4_barrier *own_full = &shared->own_full[own];
        p4_barrier_wait(&shared->own_empty[own], (uint32_t)(round / OWN % 2 ^ 1));
        p4_barrier_expect(own_full, (int)sizeof shared->queries[0]);
        for (int i = 0; i < OWNERS; i++) {
            copy_rows<HD, TILE>(shared->queries[own][i], qkv, u.head, u.query + i * TILE, u.batch, own_full);
        }
        for (int step = u.end - 1; step >= u.first; step--) {
            p4_barrier *full = &shared->full[here.at];
            p4_barrier_wait(&shared->empty[here.at], here.parity ^ 1);
            p4_barrier_expect(full, 2 * (int)sizeof shared->keys[0]);
            copy_rows<HD, KEYS>(shared->keys[here.at], qkv, k.H + kv, step * KEYS, u.batch, full);
            copy_rows<HD, KEYS>(shared->values[here.at], qkv, k.H + k.Hkv + kv, step * KEYS, u.batch, full);
            p4_step_on<STAGES>(&here);
        }
    }
}

/* The state of 64 queries; of pairs, [0] is row g and [1] row g + 8 of this lane's warp. */
template <int HD> struct forward_state {
    enum { SUMS = forward_form<HD>::KEYS / 2, STEPS = forward_form<HD>::KEYS / 16 };
    const bf16 *q; /* in shared memory */
    float s[SUMS], out[HD / 2], largest[2],
        sum[2]; /* scores as products; sums of this lane's columns alone */
    uint32_t p[STEPS][4];
    __device__ __forceinline__ void open(const bf16 *queries)
    {
        q = queries;
        largest[0] = largest[1] = -INFINITY;
        sum[0] = sum[1] = 0.0f;
#pragma unroll
        for (int i = 0; i < HD / 2; i++) {
            out[i] = 0.0f;
        }
    }
};

/* Scores -> probabilities relative to the largest so far; kept: what was accumulated before is to be
 * multiplied with. scale: positive, with log2(e). */
template <int HD>
static __device__ __forceinline__ void soften(forward_state<HD> &x, float (&kept)[2], float scale)
{
    enum { SUMS = forward_state<HD>::SUMS };
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = x.largest[half];
#pragma unroll
        for (int i = 2 * half; i < SUMS; i += 4) {
            top = fmaxf(top, fmaxf(x.s[i], x.s[i + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        kept[half] = p4_exp2((x.largest[half] - top) * scale);
        x.largest[half] = top;
        const float shift = top * scale;
        float sum = 0.0f;
#pragma unroll
        for (int i = 2 * half; i < SUMS; i += 4) {
            x.s[i] = p4_exp2(x.s[i] * scale - shift);
            x.s[i + 1] = p4_exp2(x.s[i + 1] * scale - shift);
            sum += x.s[i] + x.s[i + 1];
        }
        x.sum[half] = x.sum[half] * kept[half] + sum;
    }
}

/* Skips the steps of keys from `from` down to `to` in the ring, which this warpgroup does not compute. */
template <int HD>
static __device__ __forceinline__ void skip_steps(forward_shared<HD> *shared, p4_place *here, int from,
                                                  int to)
{
    for (int step = from; step >= to; step--) {
        p4_barrier_wait(&shared->full[here->at], here->parity);
        __syncwarp();
        give_back(&shared->empty[here->at]);
        p4_step_on<forward_form<HD>::STAGES>(here);
    }
}

/* Queues the scores of the stage at `here`, when it has come. */
template <int HD>
static __device__ __forceinline__ void begin_scores(forward_state<HD> &x, forward_shared<HD> *shared,
                                                    const p4_place &here)
{
    p4_barrier_wait(&shared->full[here.at], here.parity);
    p4_wgmma_begin();
    multiply_rows<HD>(x.s, x.q, shared->keys[here.at]);
    p4_wgmma_end();
}

/* Outputs of 64 queries from `query`, not yet divided by the sums: steps of keys from `last` down to `first`.
 */
template <int HD>
static __device__ __forceinline__ void sum_values(forward_state<HD> &x, forward_shared<HD> *shared,
                                                  p4_place *here, int first, int last, int query,
                                                  const attention_task &k)
{
    enum { KEYS = forward_form<HD>::KEYS, STAGES = forward_form<HD>::STAGES };
    const float scale = k.scale * 1.44269504088896f;
    float kept[2];
    begin_scores(x, shared, *here);
    p4_wgmma_wait<0>();
    p4_sums_ready(x.s);
    hide<false>(x.s, query, last * KEYS, -INFINITY, k);
    soften(x, kept, scale);
    pack_pairs(x.p, x.s);
    int before = here->at;
    p4_step_on<STAGES>(here);
    for (int step = last - 1; step >= first; step--) {
        begin_scores(x, shared, *here);
        multiply_across(x.out, x.p, shared->values[before], true);
        p4_wgmma_end();
        p4_wgmma_wait<1>();
        p4_sums_ready(x.s);
        hide<false>(x.s, query, step * KEYS, -INFINITY, k);
        soften(x, kept, scale);
        p4_wgmma_wait<0>();
        p4_sums_ready(x.out);
        give_back(&shared->empty[before]);
#pragma unroll
        for (int i = 0; i < HD / 2; i++) {
            x.out[i] *= kept[i / 2 % 2];
        }
        pack_pairs(x.p, x.s);
        before = here->at;
        p4_step_on<STAGES>(here);
    }
    p4_wgmma_begin();
    multiply_across(x.out, x.p, shared->values[before], true);
    p4_wgmma_end();
    p4_wgmma_wait<0>();
    p4_sums_ready(x.out);
    give_back(&shared->empty[before]);
}

template <int HD>
static __device__ __forceinline__ void put_outputs(forward_state<HD> &x, const forward_unit &u, int query,
                                                   const attention_task &k)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x / P4_WARP % GROUP_WARPS;
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = query + 16 * warp + 8 * half + lane / 4;
        float sum = x.sum[half];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        inverse[half] = 1.0f / sum;
        if (k.to_lse && lane % 4 == 0 && row < k.T) {
            k.to_lse[((int64_t)u.batch * k.H + u.head) * k.T + row] =
                x.largest[half] * k.scale + log2f(sum) * 0.693147180559945f;
        }
    }
    bf16 *to = (bf16 *)k.to + (int64_t)u.batch * k.T * k.H * k.D + u.head * k.D;
    put_rows(to, (int64_t)k.H * k.D, x.out, inverse, query, k);
}

template <int HD>
static __device__ __forceinline__ void own_queries(forward_shared<HD> *shared, int owner,
                                                   const attention_task &k)
{
    enum { KEYS = forward_form<HD>::KEYS, OWN = forward_form<HD>::OWN_STAGES };
    forward_state<HD> x;
    p4_place here = {0, 0};
    for (int round = 0; unit_of(round) < forward_units<HD>(k); round++) {
        const forward_unit u = find_unit<HD>(k, unit_of(round));
        const int query = u.query + owner * TILE, first = attention_first_key(k, query) / KEYS;
        const int last = (min(query + TILE, k.T) - 1) / KEYS;
        const int own = round % OWN;
        p4_barrier_wait(&shared->own_full[own], (uint32_t)(round / OWN % 2));
        x.open(shared->queries[own][owner]);
        if (query < k.T) {
            skip_steps(shared, &here, u.end - 1, last + 1);
            sum_values(x, shared, &here, first, last, query, k);
            skip_steps(shared, &here, first - 1, u.first);
            put_outputs(x, u, query, k);
        } else {
            skip_steps(shared, &here, u.end - 1, u.first);
        }
        __syncwarp();
        give_back(&shared->own_empty[own]);
    }
}

template <int HD>
static __global__ void __launch_bounds__(forward_form<HD>::THREADS, 1)
    forward(const __grid_constant__ CUtensorMap qkv, const __grid_constant__ attention_task k)
{
    extern __shared__ char memory[];
    forward_shared<HD> *shared = (forward_shared<HD> *)shared_aligned(memory);
    const int group = (int)threadIdx.x / ATTENTION_GROUP;
    if (threadIdx.x == 0) {
        open_barriers(shared->full, shared->empty, forward_form<HD>::STAGES,
                      forward_form<HD>::OWNERS * GROUP_WARPS);
        open_barriers(shared->own_full, shared->own_empty, forward_form<HD>::OWN_STAGES,
                      forward_form<HD>::OWNERS * GROUP_WARPS);
        p4_barrier_init_done();
    }
    __syncthreads();
    if (group == 0) {
        p4_fewer_registers<forward_form<HD>::COPY_REGISTERS>();
        if (threadIdx.x == 0) {
            copy_keys<HD>(shared, &qkv, k);
        }
    } else {
        p4_more_registers<forward_form<HD>::OWNER_REGISTERS>();
        own_queries<HD>(shared, group - 1, k);
    }
}

template <int HD> static void launch(p4_device *device, const CUtensorMap *qkv, const attention_task *k)
{
    const int bytes = (int)sizeof(forward_shared<HD>) + SHARED_ALIGN;
    static_assert(sizeof(forward_shared<HD>) + SHARED_ALIGN <= SHARED_MOST, "too much shared memory");
    const int64_t units = p4_ceil_div(k->T, forward_form<HD>::QUERIES) * k->B * k->H;
    const unsigned blocks = (unsigned)p4_min_i64(units, device->processors);
    if (attention_shared(device, forward<HD>, bytes)) {
        forward<HD><<<blocks, forward_form<HD>::THREADS, bytes, device->stream>>>(*qkv, *k);
    }
}

void p4_attention_forward_sm90(p4_device *device, const attention_task *k)
{
    CUtensorMap qkv;
    if (attention_map(device, &qkv, k->qkv, k->H + 2 * k->Hkv, k)) {
        if (k->D <= 64) {
            launch<64>(device, &qkv, k);
        } else {
            launch<128>(device, &qkv, k);
        }
    }
}
