/* loss.cu - cross-entropy and Kullback-Leibler divergence over rows of logits, one block a row.
 *
 * Cross-entropy holds a row in shared memory where two rows fit a multiprocessor: memory is then read once,
 * and one block's row arrives while the other computes. Longer rows, and rows that cannot be read 16 bytes
 * at a time, are read twice. */
#include "kernels/cuda/loss.cuh"
#include "kernels/cuda/mma.cuh"

enum { LOSS_THREADS = 512, LOSS_THREADS_MAX = 1024, LONG_ROW_BYTES = 128 << 10, HELD_ROW_BYTES = 112 << 10 };
static const float log2_e = 1.44269504f;

template <int W>
static __device__ __forceinline__ void add_logits(row_state *s, const float (&e)[W], int64_t v)
{
    const float before = s->largest;
    float part = 0.0f;
#pragma unroll
    for (int i = 0; i < W; i++) {
        if (e[i] > s->largest) {
            s->largest = e[i];
            s->where = v + i;
        }
    }
    const float offset = offset_of(s->largest);
#pragma unroll
    for (int i = 0; i < W; i++) {
        part += __expf(e[i] - offset);
    }
    s->sum = s->sum * __expf(before - offset) + part;
}

template <typename T, int W, bool MAPPED>
static __device__ __forceinline__ row_state scan_row(const T *x, int64_t V, const p4_logit_map &map)
{
    row_state s = {-INFINITY, 0.0f, V};
    float e[W];
    int64_t v = (int64_t)threadIdx.x * W;
    for (; v + W <= V; v += (int64_t)blockDim.x * W) {
        p4_load(e, x + v);
        map_all<T, MAPPED>(e, map);
        add_logits(&s, e, v);
    }
    if (v < V) {
        load_end(e, x, v, V);
        map_all<T, MAPPED>(e, map);
        add_logits(&s, e, v);
    }
    return s;
}

/* d = (softmax(z) scale - onehot scale) times the map's slope, z the mapped e, factor = scale / sum. */
template <bool MAPPED, typename T, int W>
static __device__ __forceinline__ void store_gradient(T *d, float (&e)[W], int64_t v, int64_t target,
                                                      float largest, float factor, float scale,
                                                      const p4_logit_map &map)
{
    map_all<T, MAPPED>(e, map);
#pragma unroll
    for (int i = 0; i < W; i++) {
        const float slope = map_slope<MAPPED>(e[i], map);
        e[i] = __expf(e[i] - largest) * factor - (v + i == target ? scale : 0.0f);
        e[i] = MAPPED ? e[i] * slope : e[i];
    }
    p4_store(d + v, e);
}

/* Of a row without a target. */
template <typename T, int W>
static __device__ __forceinline__ void skip_row(float *nll, float *hit, T *d, int64_t ld)
{
    const float zeros[W] = {};
    for (int64_t v = (int64_t)threadIdx.x * W; d && v < ld; v += (int64_t)blockDim.x * W) {
        p4_store(d + v, zeros);
    }
    if (threadIdx.x == 0) {
        *nll = 0.0f;
        if (hit) {
            *hit = 0.0f;
        }
    }
}

template <typename T, int W, bool MAPPED>
static __global__ void cross_entropy_rows(float *nll, float *hit, T *dlogits, const T *logits,
                                          const int32_t *targets, int64_t V, int64_t ld, float scale,
                                          p4_logit_map map)
{
    const int64_t n = blockIdx.x, target = targets[n], step = (int64_t)blockDim.x * W;
    const T *x = logits + n * ld;
    T *d = dlogits ? dlogits + n * ld : NULL;
    if (target < 0) {
        skip_row<T, W>(nll + n, hit ? hit + n : NULL, d, ld);
        return;
    }
    double sum;
    /* Before d, which may be x, is written. */
    const float target_logit = mapped<T, MAPPED>(p4_value(x[target]), map);
    const row_state row = join_rows(scan_row<T, W, MAPPED>(x, V, map), &sum);
    if (threadIdx.x == 0) {
        nll[n] = (float)(log(sum) + (double)row.largest - (double)target_logit);
        if (hit) {
            hit[n] = row.where == target ? 1.0f : 0.0f;
        }
    }
    if (!d) {
        return;
    }
    /* Backwards, as the end of the row is still cached. d may be x: every thread reads what it wrote. */
    const float factor = (float)((double)scale / sum);
    const int64_t first = (int64_t)threadIdx.x * W;
    int64_t v = first < ld ? first + (ld - 1 - first) / step * step : -1;
    float e[W];
    for (; v >= 0 && v + W > V; v -= step) {
        load_end(e, x, v, V);
        store_gradient<MAPPED>(d, e, v, target, row.largest, factor, scale, map);
    }
    for (; v >= 0; v -= step) {
        p4_load(e, x + v);
        store_gradient<MAPPED>(d, e, v, target, row.largest, factor, scale, map);
    }
}

/* The largest of W elements; NaN does not count. */
template <int W> static __device__ __forceinline__ float pack_max(const float *x)
{
    float e[W];
    p4_load(e, x);
#pragma unroll
    for (int i = 1; i < W; i++) {
        e[0] = fmaxf(e[0], e[i]);
    }
    return e[0];
}
template <int W> static __device__ __forceinline__ float pack_max(const __nv_bfloat16 *x)
{
    struct alignas(16) pairs {
        __nv_bfloat162 pair[W / 2];
    } e = *(const pairs *)x;
#pragma unroll
    for (int i = 1; i < W / 2; i++) {
        e.pair[0] = __hmax2(e.pair[0], e.pair[i]);
    }
    return fmaxf(__low2float(e.pair[0]), __high2float(e.pair[0]));
}

/* Loads the row into shared memory, with -inf in the columns from V on, and returns this thread's largest
 * element. A thread reads only columns that it fetched, so no barrier is needed. */
template <typename T, int W>
static __device__ __forceinline__ float hold_row(T *row, const T *x, int V, int ld)
{
    const int first = (int)threadIdx.x * W, step = (int)blockDim.x * W;
    float largest = -INFINITY;
    for (int v = first; v < ld; v += step) {
        p4_copy_16(row + v, x + v, v < V);
    }
    p4_copy_wait();
    for (int v = first; v < ld; v += step) {
        if (v + W > V) {
            for (int i = V > v ? V - v : 0; i < W; i++) {
                p4_set(row + v + i, -INFINITY);
            }
        }
        largest = fmaxf(largest, pack_max<W>(row + v));
    }
    return largest;
}

/* Is `target`, whose element is `largest`, the first column that holds it? All threads of the block call. */
template <typename T, int W>
static __device__ __forceinline__ bool is_first(const T *row, int target, float largest)
{
    int earlier = 0;
    for (int v = (int)threadIdx.x * W; v < target; v += (int)blockDim.x * W) {
        for (int i = 0; i < W && v + i < target; i++) {
            earlier |= p4_value(row[v + i]) == largest;
        }
    }
    return !__syncthreads_or(earlier);
}

/* As cross_entropy_rows. Exponents are base 2: e^(x - largest) = 2^(x log2_e - offset), rounded once; the
 * rounding of the offset cancels between the sum and the loss. */
template <typename T, int W, bool MAPPED>
static __global__ void __launch_bounds__(LOSS_THREADS)
    cross_entropy_held(float *nll, float *hit, T *dlogits, const T *logits, const int32_t *targets, int V,
                       int ld, float scale, p4_logit_map map)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const int64_t n = blockIdx.x;
    const int target = targets[n], first = (int)threadIdx.x * W, step = (int)blockDim.x * W;
    const T *x = logits + n * ld;
    T *d = dlogits ? dlogits + n * ld : NULL, *row = (T *)shared;
    if (target < 0) {
        skip_row<T, W>(nll + n, hit ? hit + n : NULL, d, ld);
        return;
    }
    const float target_logit = p4_value(x[target]); /* before d, which may be x, is written */
    const float largest = p4_block_max(hold_row<T, W>(row, x, V, ld));
    const float offset = offset_of(mapped<T, MAPPED>(largest, map)) * log2_e;
    float e[W], part = 0.0f;
    for (int v = first; v < ld; v += step) {
        p4_load(e, row + v);
        map_all<T, MAPPED>(e, map);
#pragma unroll
        for (int i = 0; i < W; i++) {
            part += p4_exp2(__fmaf_rn(e[i], log2_e, -offset));
        }
    }
    const double sum = p4_block_sum((double)part);
    const bool found = hit && target_logit == largest && is_first<T, W>(row, target, largest);
    if (threadIdx.x == 0) {
        nll[n] = (float)(log(sum) + (double)offset / (double)log2_e -
                         (double)mapped<T, MAPPED>(target_logit, map));
        if (hit) {
            hit[n] = found ? 1.0f : 0.0f;
        }
    }
    const float factor = (float)((double)scale / sum);
    for (int v = first; d && v < ld; v += step) {
        float slope[W];
        p4_load(e, row + v);
        map_all<T, MAPPED>(e, map);
#pragma unroll
        for (int i = 0; i < W; i++) {
            slope[i] = map_slope<MAPPED>(e[i], map);
            e[i] = p4_exp2(__fmaf_rn(e[i], log2_e, -offset)) * factor;
        }
        if (v <= target && target < v + W) {
#pragma unroll
            for (int i = 0; i < W; i++) {
                e[i] -= v + i == target ? scale : 0.0f;
            }
        }
#pragma unroll
        for (int i = 0; MAPPED && i < W; i++) {
            e[i] *= slope[i];
        }
        p4_store(d + v, e);
    }
}

/* May the rows be held? */
static bool fits_shared(p4_device *device, int64_t row_bytes)
{
    int most = 0;
    p4_cuda_ok(device,
               cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device->ordinal),
               "cross_entropy: shared memory");
    return row_bytes <= p4_min_i64(HELD_ROW_BYTES, most - 1024); /* 1024: the kernel's other shared memory */
}

template <typename T, bool MAPPED> static void launch_held(p4_device *device, const p4_cross_entropy_args *a)
{
    const int W = P4_VECTOR_BYTES / sizeof(T);
    const int row_bytes = (int)(a->ld * (int64_t)sizeof(T));
    if (p4_cuda_ok(device,
                   cudaFuncSetAttribute(cross_entropy_held<T, W, MAPPED>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, row_bytes),
                   "cross_entropy: shared memory")) {
        const unsigned blocks = (unsigned)a->N,
                       threads = p4_cuda_threads(p4_ceil_div(a->ld, W), LOSS_THREADS);
        cross_entropy_held<T, W, MAPPED><<<blocks, threads, row_bytes, device->stream>>>(
            a->nll, a->opt_hit, (T *)a->opt_dlogits, (const T *)a->logits, a->targets, (int)a->V, (int)a->ld,
            a->scale, whole_map(a->map));
    }
}

void p4_cuda_cross_entropy(p4_device *device, const p4_cross_entropy_args *a)
{
    const int64_t row_bytes = a->ld * p4_act_bytes(device);
    const bool wide = p4_cuda_wide(P4_ADDRESS(a->opt_dlogits) | P4_ADDRESS(a->logits), row_bytes);
    /* Long rows get more threads each, so that the rows that are computed at the same time fit the second
     * cache, from which they are read again. */
    const unsigned threads = p4_cuda_threads(p4_ceil_div(a->V, p4_cuda_width(device, wide)),
                                             row_bytes > LONG_ROW_BYTES ? LOSS_THREADS_MAX : LOSS_THREADS);
    if (a->N <= 0 || a->V <= 0) {
        return;
    }
    if (wide && fits_shared(device, row_bytes)) {
        if (is_mapped(a->map)) {
            (device->half ? launch_held<__nv_bfloat16, true> : launch_held<float, true>)(device, a);
        } else {
            (device->half ? launch_held<__nv_bfloat16, false> : launch_held<float, false>)(device, a);
        }
        p4_cuda_launched(device, "cross_entropy");
        return;
    }
    P4_BY_ACT(device, wide, {
        const auto kernel =
            is_mapped(a->map) ? cross_entropy_rows<elem, W, true> : cross_entropy_rows<elem, W, false>;
        kernel<<<(unsigned)a->N, threads, 0, device->stream>>>(a->nll, a->opt_hit, (elem *)a->opt_dlogits,
                                                               (const elem *)a->logits, a->targets, a->V,
                                                               a->ld, a->scale, whole_map(a->map));
    });
    p4_cuda_launched(device, "cross_entropy");
}

/* A row's largest element, and the first column that holds it; INT_MAX: none does. */
typedef struct row_top {
    float largest;
    int where;
} row_top;

/* In every thread. `where` is found only if it is asked for. */
template <typename T, int W>
static __device__ __forceinline__ row_top top_of_row(const T *x, int64_t V, bool asks_where)
{
    row_top top = {-INFINITY, INT_MAX};
    float e[W];
    int64_t v = (int64_t)threadIdx.x * W;
    for (; v < V; v += (int64_t)blockDim.x * W) {
        if (v + W <= V) {
            p4_load(e, x + v);
        } else {
            load_end(e, x, v, V);
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            if (e[i] > top.largest) {
                top.largest = e[i];
                top.where = (int)v + i;
            }
        }
    }
    const float largest = p4_block_max(top.largest);
    if (asks_where) {
        top.where = first_column(top.largest == largest ? top.where : INT_MAX);
    }
    top.largest = largest;
    return top;
}

/* Of e^a (a - b), e^a and e^b. */
typedef struct kl_sums {
    float weighted, a, b;
} kl_sums;

static __device__ __forceinline__ void add_kl(kl_sums *sums, float a, float b)
{
    const float e = __expf(a);
    sums->weighted += e * (a - b);
    sums->a += e;
    sums->b += __expf(b);
}

/* With a = reference - max, b = logits - max, both mapped: KL = sum e^a (a - b) / sum e^a - log sum e^a + log
 * sum e^b. */
template <typename T, int W, bool MAPPED>
static __global__ void kl_rows(float *kl, float *same, const T *reference, const T *logits,
                               const int32_t *targets, int64_t V, int64_t ld, p4_logit_map map)
{
    const int64_t n = blockIdx.x;
    if (targets[n] < 0) {
        if (threadIdx.x == 0) {
            kl[n] = 0.0f;
            if (same) {
                same[n] = 0.0f;
            }
        }
        return;
    }
    reference += n * ld;
    logits += n * ld;
    const row_top a_top = top_of_row<T, W>(reference, V, same != NULL);
    const row_top b_top = top_of_row<T, W>(logits, V, same != NULL);
    const float a_max = mapped<T, MAPPED>(a_top.largest, map);
    const float b_max = mapped<T, MAPPED>(b_top.largest, map);
    kl_sums sums = {0.0f, 0.0f, 0.0f};
    int64_t v = (int64_t)threadIdx.x * W;
    for (; v + W <= V; v += (int64_t)blockDim.x * W) {
        float a[W], b[W];
        p4_load(a, reference + v);
        p4_load(b, logits + v);
        map_all<T, MAPPED>(a, map);
        map_all<T, MAPPED>(b, map);
#pragma unroll
        for (int i = 0; i < W; i++) {
            add_kl(&sums, a[i] - a_max, b[i] - b_max);
        }
    }
    for (int i = 0; i < W && v + i < V; i++) {
        add_kl(&sums, mapped<T, MAPPED>(p4_value(reference[v + i]), map) - a_max,
               mapped<T, MAPPED>(p4_value(logits[v + i]), map) - b_max);
    }
    const double w = p4_block_sum((double)sums.weighted), a = p4_block_sum((double)sums.a);
    const double b = p4_block_sum((double)sums.b);
    if (threadIdx.x == 0) {
        const double value = w / a - log(a) + log(b);
        kl[n] = (float)(value < 0.0 ? 0.0 : value); /* it cannot be negative: that is rounding */
        if (same) {
            same[n] = a_top.where == b_top.where ? 1.0f : 0.0f;
        }
    }
}

void p4_cuda_kl_divergence(p4_device *device, const p4_kl_divergence_args *a)
{
    const bool wide =
        p4_cuda_wide(P4_ADDRESS(a->reference) | P4_ADDRESS(a->logits), a->ld * p4_act_bytes(device));
    const unsigned threads = p4_cuda_threads(p4_ceil_div(a->V, p4_cuda_width(device, wide)), LOSS_THREADS);
    if (a->N <= 0 || a->V <= 0) {
        return;
    }
    P4_BY_ACT(device, wide, {
        const auto kernel = is_mapped(a->map) ? kl_rows<elem, W, true> : kl_rows<elem, W, false>;
        kernel<<<(unsigned)a->N, threads, 0, device->stream>>>(a->kl, a->opt_same, (const elem *)a->reference,
                                                               (const elem *)a->logits, a->targets, a->V,
                                                               a->ld, whole_map(a->map));
    });
    p4_cuda_launched(device, "kl_divergence");
}
