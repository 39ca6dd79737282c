/* distill.cu - cross-entropy and KL to a teacher over rows of logits, one block a row.
 *
 * A row is read twice: once for the sums, with the largest elements so far as offsets of the exponents, and
 * once, while it is still cached, for the gradient, which replaces it. With temperature 1 both softmaxes of
 * the student are the same one (SOFT false). */
#include "kernels/cuda/loss.cuh"

enum {
    DISTILL_THREADS = 512,
    THREAD_PACKS = 8, /* of a row that a thread takes at least: its sums are then few beside them */
    TOP_MAX = 12288   /* of a row in the default 48 KiB of shared memory */
};

typedef struct student_state {
    row_state row; /* of e^(x - largest) */
    float soft;    /* sum e^((x - largest) / temperature) */
} student_state;

typedef struct teacher_state {
    float largest, sum; /* of e^a, a = (t - largest) / temperature */
    float weighted;     /* of e^a (a - b), b = (x - the student's largest) / temperature */
} teacher_state;

/* The gradient of a row is hard e^(x - largest) + soft e^b - teacher e^a - at the target onehot. */
typedef struct distill_factors {
    float hard, soft, teacher, onehot;
} distill_factors;

template <bool SOFT, int W>
static __device__ __forceinline__ void add_student(student_state *s, const float (&x)[W], int64_t v,
                                                   float inverse)
{
    const float before = s->row.largest;
    float hard = 0.0f, soft = 0.0f;
#pragma unroll
    for (int i = 0; i < W; i++) {
        if (x[i] > s->row.largest) {
            s->row.largest = x[i];
            s->row.where = v + i;
        }
    }
    const float offset = offset_of(s->row.largest);
#pragma unroll
    for (int i = 0; i < W; i++) {
        hard += __expf(x[i] - offset);
        soft += SOFT ? __expf((x[i] - offset) * inverse) : 0.0f;
    }
    s->row.sum = s->row.sum * __expf(before - offset) + hard;
    s->soft = SOFT ? s->soft * __expf((before - offset) * inverse) + soft : s->row.sum;
}

/* The sums from offsets `t_before`, `x_before` to larger ones. */
static __device__ __forceinline__ void move_teacher(teacher_state *t, float t_before, float t_offset,
                                                    float x_before, float x_offset, float inverse)
{
    const float factor = __expf((t_before - t_offset) * inverse);
    const float shift = ((t_before - t_offset) - (x_before - x_offset)) * inverse;
    t->weighted = t->sum > 0.0f ? factor * (t->weighted + t->sum * shift) : 0.0f;
    t->sum *= factor;
}

/* After add_student of the same elements x. x_before: its largest before that. */
template <int W>
static __device__ __forceinline__ void add_teacher(teacher_state *t, const float (&y)[W], const float (&x)[W],
                                                   float x_before, float x_largest, float inverse)
{
    const float before = t->largest, x_offset = offset_of(x_largest);
#pragma unroll
    for (int i = 0; i < W; i++) {
        t->largest = fmaxf(t->largest, y[i]);
    }
    const float offset = offset_of(t->largest);
    move_teacher(t, before, offset, x_before, x_offset, inverse);
#pragma unroll
    for (int i = 0; i < W; i++) {
        const float e = __expf((y[i] - offset) * inverse);
        t->weighted += e == 0.0f ? 0.0f : e * (((y[i] - offset) - (x[i] - x_offset)) * inverse);
        t->sum += e;
    }
}

template <bool MAPPED, int W, typename T>
static __device__ __forceinline__ void load_row(float (&e)[W], const T *x, int64_t v, int64_t V,
                                                const p4_logit_map &map)
{
    if (v + W <= V) {
        p4_load(e, x + v);
    } else {
        load_end(e, x, v, V);
    }
    map_all<T, MAPPED>(e, map);
}

/* hard and soft are those of a row whose sums are these. */
static __device__ __forceinline__ distill_factors factors_of(double sum, double soft_sum, float scale,
                                                             float weight, float temperature)
{
    const double hard = (1.0 - (double)weight) * (double)scale;
    const double soft = (double)weight * (double)temperature * (double)scale;
    distill_factors f;
    f.hard = (float)(hard / sum);
    f.soft = (float)(soft / soft_sum);
    f.teacher = (float)soft;
    f.onehot = (float)hard;
    return f;
}

template <bool SOFT>
static __device__ __forceinline__ float student_term(float x, float largest, float inverse, distill_factors f)
{
    const float d = x - largest;
    return SOFT ? __expf(d) * f.hard + __expf(d * inverse) * f.soft : __expf(d) * (f.hard + f.soft);
}

/* Of a row without a target. */
template <int W, typename T>
static __device__ __forceinline__ void clear_row(float *nll, float *hit, float *kl, T *x, int64_t ld)
{
    const float zeros[W] = {};
    for (int64_t v = (int64_t)threadIdx.x * W; v < ld; v += (int64_t)blockDim.x * W) {
        p4_store(x + v, zeros);
    }
    if (threadIdx.x == 0) {
        *nll = *hit = *kl = 0.0f;
    }
}

/* By thread 0. A KL below 0 is rounding. */
static __device__ __forceinline__ void store_losses(const p4_distill_loss_args &a, int64_t n, double sum,
                                                    row_state row, float target_logit, double kl)
{
    if (threadIdx.x == 0) {
        a.nll[n] = (float)(log(sum) + (double)row.largest - (double)target_logit);
        a.hit[n] = row.where == a.targets[n] ? 1.0f : 0.0f;
        a.kl[n] = (float)(kl < 0.0 ? 0.0 : kl);
    }
}

template <typename T, int W, bool SOFT, bool MAPPED>
static __global__ void __launch_bounds__(DISTILL_THREADS)
    distill_rows(const __grid_constant__ p4_distill_loss_args a)
{
    const int64_t n = blockIdx.x, V = a.V, target = a.targets[n];
    const int64_t first = (int64_t)threadIdx.x * W, step = (int64_t)blockDim.x * W;
    const float inverse = 1.0f / a.temperature;
    T *x = (T *)a.logits + n * a.ld;
    const T *y = (const T *)a.opt_teacher + n * a.ld;
    float e[W], g[W];
    if (target < 0) {
        clear_row<W>(a.nll + n, a.hit + n, a.kl + n, x, a.ld);
        return;
    }
    const float target_logit = mapped<T, MAPPED>(p4_value(x[target]), a.map);
    student_state s = {{-INFINITY, 0.0f, V}, 0.0f};
    teacher_state t = {-INFINITY, 0.0f, 0.0f};
    for (int64_t v = first; v < V; v += step) {
        const float before = s.row.largest;
        load_row<MAPPED>(e, x, v, V, a.map);
        load_row<MAPPED>(g, y, v, V, a.map);
        add_student<SOFT>(&s, e, v, inverse);
        add_teacher(&t, g, e, before, s.row.largest, inverse);
    }
    double sum;
    const row_state row = join_rows(s.row, &sum);
    const float x_offset = offset_of(row.largest), t_offset = offset_of(p4_block_max(t.largest));
    const double soft_sum =
        SOFT ? p4_block_sum((double)(s.soft * __expf((s.row.largest - x_offset) * inverse))) : sum;
    move_teacher(&t, t.largest, t_offset, s.row.largest, x_offset, inverse);
    const double teacher_sum = p4_block_sum((double)t.sum), weighted = p4_block_sum((double)t.weighted);
    store_losses(a, n, sum, row, target_logit, weighted / teacher_sum - log(teacher_sum) + log(soft_sum));
    distill_factors f = factors_of(sum, soft_sum, a.scale, a.weight, a.temperature);
    f.teacher = (float)((double)f.teacher / teacher_sum);
    for (int64_t v = first; v < a.ld; v += step) {
        load_row<MAPPED>(e, x, v, V, a.map);
        load_row<MAPPED>(g, y, v, V, a.map);
#pragma unroll
        for (int i = 0; i < W; i++) {
            const float slope = map_slope<MAPPED>(e[i], a.map);
            e[i] = student_term<SOFT>(e[i], x_offset, inverse, f) -
                   __expf((g[i] - t_offset) * inverse) * f.teacher - (v + i == target ? f.onehot : 0.0f);
            e[i] = MAPPED ? e[i] * slope : e[i];
        }
        p4_store(x + v, e);
    }
}

/* Sets the row's top classes to -inf, so that sums over the row are those of the others; kept: what they
 * were, mapped. All threads of the block call. */
template <bool MAPPED, typename T>
static __device__ __forceinline__ void take_top(float *kept, T *x, const int32_t *ids, int k,
                                                const p4_logit_map &map)
{
    for (int i = (int)threadIdx.x; i < k; i += (int)blockDim.x) {
        kept[i] = mapped<T, MAPPED>(p4_value(x[ids[i]]), map);
    }
    __syncthreads(); /* every thread has read the target's logit, too */
    for (int i = (int)threadIdx.x; i < k; i += (int)blockDim.x) {
        p4_set(x + ids[i], -INFINITY);
    }
    __syncthreads();
}

/* What a row with the teacher's top classes comes to. */
typedef struct top_sums {
    double sum, soft_sum, others, kl; /* others: the part of soft_sum that is not of top classes */
} top_sums;

/* From what this thread has seen of the others, and its share of the top classes. All threads of the block
 * call. */
static __device__ __forceinline__ top_sums join_top(const student_state *s, const float *kept,
                                                    const float *logp, int k, float offset, float inverse)
{
    float hard = s->row.sum * __expf(s->row.largest - offset), soft = 0.0f, p_sum = 0.0f, kl = 0.0f;
    const float others = s->soft * __expf((s->row.largest - offset) * inverse);
    for (int i = (int)threadIdx.x; i < k; i += (int)blockDim.x) {
        const float b = (kept[i] - offset) * inverse, p = __expf(logp[i]);
        hard += __expf(kept[i] - offset);
        soft += __expf(b);
        p_sum += p;
        kl += p > 0.0f ? p * (logp[i] - b) : 0.0f;
    }
    const double p_others = exp((double)logp[k]);
    top_sums all;
    all.sum = p4_block_sum((double)hard);
    all.others = p4_block_sum((double)others);
    all.soft_sum = all.others + p4_block_sum((double)soft);
    all.others = fmax(all.others, 1e-30 * all.soft_sum); /* where it underflows: no division by 0 */
    all.kl = p4_block_sum((double)kl) + p4_block_sum((double)p_sum) * log(all.soft_sum);
    all.kl += p_others > 0.0 ? p_others * ((double)logp[k] - log(all.others / all.soft_sum)) : 0.0;
    return all;
}

/* The teacher's top classes, and all others as one. */
template <typename T, int W, bool SOFT, bool MAPPED>
static __global__ void __launch_bounds__(DISTILL_THREADS)
    distill_top_rows(const __grid_constant__ p4_distill_loss_args a)
{
    extern __shared__ __align__(16) float kept[]; /* [k] */
    const int64_t n = blockIdx.x, V = a.V, target = a.targets[n];
    const int64_t first = (int64_t)threadIdx.x * W, step = (int64_t)blockDim.x * W;
    const int k = (int)a.top.k;
    const int32_t *ids = a.top.ids + n * k;
    const float *logp = a.top.logp + n * (k + 1), inverse = 1.0f / a.temperature;
    T *x = (T *)a.logits + n * a.ld;
    float e[W];
    if (target < 0) {
        clear_row<W>(a.nll + n, a.hit + n, a.kl + n, x, a.ld);
        return;
    }
    const float target_logit = mapped<T, MAPPED>(p4_value(x[target]), a.map);
    take_top<MAPPED>(kept, x, ids, k, a.map);
    student_state s = {{-INFINITY, 0.0f, V}, 0.0f};
    for (int64_t v = first; v < V; v += step) {
        load_row<MAPPED>(e, x, v, V, a.map);
        add_student<SOFT>(&s, e, v, inverse);
    }
    row_state row = s.row;
    for (int i = (int)threadIdx.x; i < k; i += (int)blockDim.x) {
        if (kept[i] > row.largest || (kept[i] == row.largest && ids[i] < row.where)) {
            row.largest = kept[i];
            row.where = ids[i];
        }
    }
    double unused;
    row = join_rows(row, &unused);
    const float offset = offset_of(row.largest);
    const top_sums all = join_top(&s, kept, logp, k, offset, inverse);
    store_losses(a, n, all.sum, row, target_logit, all.kl);
    const distill_factors f = factors_of(all.sum, all.soft_sum, a.scale, a.weight, a.temperature);
    distill_factors rest = f;
    rest.soft = (float)((double)f.teacher * (1.0 / all.soft_sum - exp((double)logp[k]) / all.others));
    for (int64_t v = first; v < a.ld; v += step) {
        load_row<MAPPED>(e, x, v, V, a.map);
#pragma unroll
        for (int i = 0; i < W; i++) {
            const float slope = map_slope<MAPPED>(e[i], a.map);
            e[i] = student_term<SOFT>(e[i], offset, inverse, rest) - (v + i == target ? f.onehot : 0.0f);
            e[i] = MAPPED ? e[i] * slope : e[i];
        }
        p4_store(x + v, e);
    }
    __syncthreads(); /* before the places of the top classes are written again */
    for (int i = (int)threadIdx.x; i < k; i += (int)blockDim.x) {
        const float d = student_term<SOFT>(kept[i], offset, inverse, f) - __expf(logp[i]) * f.teacher -
                        (ids[i] == target ? f.onehot : 0.0f);
        p4_set(x + ids[i], MAPPED ? d * map_slope<MAPPED>(kept[i], a.map) : d);
    }
}

template <typename T, int W, bool SOFT, bool MAPPED>
static void launch_distill(p4_device *device, const p4_distill_loss_args &a, unsigned threads)
{
    const unsigned rows = (unsigned)a.N;
    if (a.opt_teacher != NULL) {
        distill_rows<T, W, SOFT, MAPPED><<<rows, threads, 0, device->stream>>>(a);
    } else {
        const size_t bytes = (size_t)a.top.k * sizeof(float);
        distill_top_rows<T, W, SOFT, MAPPED><<<rows, threads, bytes, device->stream>>>(a);
    }
    p4_cuda_launched(device, "distill_loss");
}

void p4_cuda_distill_loss(p4_device *device, const p4_distill_loss_args *args)
{
    p4_distill_loss_args a = *args;
    const bool wide =
        p4_cuda_wide(P4_ADDRESS(a.logits) | P4_ADDRESS(a.opt_teacher), a.ld * p4_act_bytes(device));
    const int64_t packs = p4_ceil_div(a.V, p4_cuda_width(device, wide));
    const unsigned threads = p4_cuda_threads(p4_ceil_div(packs, THREAD_PACKS), DISTILL_THREADS);
    const bool soft = a.temperature != 1.0f, with_map = is_mapped(a.map);
    a.map = whole_map(a.map);
    if (a.N <= 0 || a.V <= 0) {
        return;
    }
    if (a.opt_teacher == NULL && a.top.k > TOP_MAX) {
        p4_cuda_fail(device, "distill_loss: %lld classes a row, at most %d", (long long)a.top.k, TOP_MAX);
        return;
    }
    P4_BY_ACT(device, wide, {
        const auto launch =
            soft ? (with_map ? launch_distill<elem, W, true, true> : launch_distill<elem, W, true, false>)
                 : (with_map ? launch_distill<elem, W, false, true> : launch_distill<elem, W, false, false>);
        launch(device, a, threads);
    });
}
