/* optim_cuda.cu - elementwise optimizer ops: norm, scaling, Grokfast, AdamW, rounding to what is stored. */
#include <math.h>

#include "cuda_ops.h"

enum { FLOATS = P4_VECTOR_BYTES / (int)sizeof(float) };

/* partial[block] = sum of the block's `each` elements, or of their squares. */
template <bool SQUARE, int W>
static __global__ void sum_partials(double *partial, const float *x, int64_t count, int64_t each)
{
    const int64_t first = blockIdx.x * each, end = first + each < count ? first + each : count;
    double sum = 0.0;
    for (int64_t i = first + (int64_t)threadIdx.x * W; i < end; i += (int64_t)blockDim.x * W) {
        float v[W];
        p4_load_part(v, x + i, end - i);
#pragma unroll
        for (int k = 0; k < W; k++) {
            sum += SQUARE ? (double)v[k] * (double)v[k] : (double)v[k];
        }
    }
    sum = p4_block_sum(sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

/* One block: at most one partial sum a thread. */
static __global__ void add_sums(double *sum, const double *partial, int count)
{
    const double all = p4_block_sum((int)threadIdx.x < count ? partial[threadIdx.x] : 0.0);
    if (threadIdx.x == 0) {
        *sum += all;
    }
}

template <bool SQUARE>
static void add_all(p4_device *device, double *sum, const float *x, int64_t count, const char *what)
{
    const int64_t step = P4_FLAT_THREADS * FLOATS, each = p4_ceil_div(p4_ceil_div(count, P4_SUM_BLOCKS), step) * step;
    double *partial = (double *)p4_cuda_scratch(device, P4_SUM_BLOCKS * (int64_t)sizeof *partial);
    if (count <= 0 || !partial) {
        return;
    }
    const int64_t blocks = p4_ceil_div(count, each);
    const unsigned grid = (unsigned)blocks;
    P4_BY_WIDTH(p4_cuda_wide(P4_ADDRESS(x), 0), FLOATS,
                sum_partials<SQUARE, W><<<grid, P4_FLAT_THREADS, 0, device->stream>>>(partial, x, count, each));
    add_sums<<<1, p4_cuda_threads(blocks, P4_SUM_BLOCKS), 0, device->stream>>>(sum, partial, (int)blocks);
    p4_cuda_launched(device, what);
}

void p4_cuda_add_sq_norm(p4_device *device, double *sum, const float *g, int64_t count)
{
    add_all<true>(device, sum, g, count, "add_sq_norm");
}

void p4_cuda_add_sum(p4_device *device, double *sum, const float *x, int64_t count)
{
    add_all<false>(device, sum, x, count, "add_sum");
}

template <int W>
static __global__ void scale(float *x, float factor, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    float v[W];
    if (i >= count) {
        return;
    }
    p4_load_part(v, x + i, count - i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        v[k] *= factor;
    }
    p4_store_part(x + i, v, count - i);
}

void p4_cuda_scale(p4_device *device, float *x, float factor, int64_t count)
{
    if (count > 0) {
        P4_BY_WIDTH(p4_cuda_wide(P4_ADDRESS(x), 0), FLOATS,
                    scale<W><<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(x, factor, count));
        p4_cuda_launched(device, "scale");
    }
}

template <int W>
static __global__ void add(float *sum, const float *addend, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    float v[W], a[W];
    if (i >= count) {
        return;
    }
    p4_load_part(v, sum + i, count - i);
    p4_load_part(a, addend + i, count - i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        v[k] += a[k];
    }
    p4_store_part(sum + i, v, count - i);
}

void p4_cuda_add_f32(p4_device *device, float *sum, const float *addend, int64_t count)
{
    if (count > 0) {
        P4_BY_WIDTH(p4_cuda_wide(P4_ADDRESS(sum) | P4_ADDRESS(addend), 0), FLOATS,
                    add<W><<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(sum, addend, count));
        p4_cuda_launched(device, "add_f32");
    }
}

template <int W>
static __global__ void grokfast(float *g, float *ema, float alpha, float lambda, bool first, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    float v[W], e[W];
    if (i >= count) {
        return;
    }
    p4_load_part(v, g + i, count - i);
    if (first) {
#pragma unroll
        for (int k = 0; k < W; k++) {
            e[k] = v[k];
        }
    } else {
        p4_load_part(e, ema + i, count - i);
#pragma unroll
        for (int k = 0; k < W; k++) {
            e[k] = alpha * e[k] + (1.0f - alpha) * v[k];
        }
    }
#pragma unroll
    for (int k = 0; k < W; k++) {
        v[k] += lambda * e[k];
    }
    p4_store_part(ema + i, e, count - i);
    p4_store_part(g + i, v, count - i);
}

void p4_cuda_grokfast(p4_device *device, float *g, float *ema, float alpha, float lambda, bool first, int64_t count)
{
    if (count > 0) {
        P4_BY_WIDTH(p4_cuda_wide(P4_ADDRESS(g) | P4_ADDRESS(ema), 0), FLOATS,
                    grokfast<W><<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(g, ema, alpha, lambda,
                                                                                                first, count));
        p4_cuda_launched(device, "grokfast");
    }
}

/* The numbers of an AdamW step that are the same for every element. */
typedef struct adam_step {
    float g_scale, lr, beta1, beta2, eps, decay;
    float m_correction, v_correction; /* 1 / (1 - beta^step) */
} adam_step;

template <int W>
static __global__ void adamw(float *w, float *m, float *v, const float *g, adam_step s, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    float weight[W], first[W], second[W], gradient[W];
    if (i >= count) {
        return;
    }
    p4_load_part(weight, w + i, count - i);
    p4_load_part(first, m + i, count - i);
    p4_load_part(second, v + i, count - i);
    p4_load_part(gradient, g + i, count - i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        const float scaled = gradient[k] * s.g_scale;
        first[k] = s.beta1 * first[k] + (1.0f - s.beta1) * scaled;
        second[k] = s.beta2 * second[k] + (1.0f - s.beta2) * scaled * scaled;
        const float update = first[k] * s.m_correction / (sqrtf(second[k] * s.v_correction) + s.eps);
        weight[k] -= s.lr * (update + s.decay * weight[k]);
    }
    p4_store_part(w + i, weight, count - i);
    p4_store_part(m + i, first, count - i);
    p4_store_part(v + i, second, count - i);
}

void p4_cuda_adamw(p4_device *device, float *w, float *m, float *v, const float *g, float g_scale, float lr,
                   float beta1, float beta2, float eps, float decay, int64_t step, int64_t count)
{
    const adam_step s = {g_scale,
                         lr,
                         beta1,
                         beta2,
                         eps,
                         decay,
                         (float)(1.0 / (1.0 - pow((double)beta1, (double)step))),
                         (float)(1.0 / (1.0 - pow((double)beta2, (double)step)))};
    const bool wide = p4_cuda_wide(P4_ADDRESS(w) | P4_ADDRESS(m) | P4_ADDRESS(v) | P4_ADDRESS(g), 0);
    if (count > 0) {
        P4_BY_WIDTH(wide, FLOATS,
                    adamw<W><<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(w, m, v, g, s, count));
        p4_cuda_launched(device, "adamw");
    }
}

template <int W>
static __global__ void round_to_half(float *x, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    float v[W];
    if (i >= count) {
        return;
    }
    p4_load_part(v, x + i, count - i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        v[k] = __half2float(__float2half_rn(v[k]));
    }
    p4_store_part(x + i, v, count - i);
}

void p4_cuda_round_to_f16(p4_device *device, float *x, int64_t count)
{
    if (count > 0) {
        P4_BY_WIDTH(p4_cuda_wide(P4_ADDRESS(x), 0), FLOATS,
                    round_to_half<W><<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(x, count));
        p4_cuda_launched(device, "round_to_f16");
    }
}
