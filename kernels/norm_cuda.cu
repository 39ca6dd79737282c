/* norm_cuda.cu - RMSNorm and LayerNorm with the residual sum in front, and their gradients. */
#include "cuda_ops.h"

enum { NORM_THREADS = 256, NORM_BLOCKS = 528, SHARED_BYTES = 48 << 10 };

/* One block a row. The row is kept in shared memory (`keep`) or read again; every thread reads only what it wrote. */
template <typename T, int W, bool CENTERED>
static __global__ void add_norm_rows(T *y, T *sum, float *mean, float *rstd, const T *x, const T *delta,
                                     const float *gain, const float *bias, int64_t C, float eps, bool keep)
{
    extern __shared__ __align__(16) unsigned char kept[];
    const int64_t n = blockIdx.x, first = (int64_t)threadIdx.x * W, step = (int64_t)blockDim.x * W;
    const T *from = x + n * C;
    const T *row = keep ? (const T *)kept : sum ? sum + n * C : from;
    float v[W], other[W], total = 0.0f;
    for (int64_t c = first; c < C; c += step) {
        p4_load(v, from + c);
        if (delta) {
            p4_load(other, delta + n * C + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                v[i] += other[i];
            }
        }
        if (sum && (delta || sum != x)) {
            p4_store(sum + n * C + c, v);
        }
        if (keep) {
            p4_store((T *)kept + c, v);
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            T stored; /* the norm is that of the stored sum */
            p4_set(&stored, v[i]);
            v[i] = p4_value(stored);
            total += CENTERED ? v[i] : v[i] * v[i];
        }
    }
    total = p4_block_sum(total);
    const float center = CENTERED ? total / (float)C : 0.0f;
    if (CENTERED) {
        total = 0.0f;
        for (int64_t c = first; c < C; c += step) {
            p4_load(v, row + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                total += (v[i] - center) * (v[i] - center);
            }
        }
        total = p4_block_sum(total);
    }
    const float scale = 1.0f / sqrtf(total / (float)C + eps);
    for (int64_t c = first; c < C; c += step) {
        p4_load(v, row + c);
        p4_load(other, gain + c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            v[i] = (v[i] - center) * scale * other[i];
        }
        if (bias) {
            p4_load(other, bias + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                v[i] += other[i];
            }
        }
        p4_store(y + n * C + c, v);
    }
    if (threadIdx.x == 0 && mean) {
        mean[n] = center;
    }
    if (threadIdx.x == 0 && rstd) {
        rstd[n] = scale;
    }
}

void p4_cuda_add_norm_forward(p4_device *device, p4_norm_kind kind, void *y, void *sum, float *mean, float *rstd,
                              const void *x, const void *delta, const float *gain, const float *bias, int64_t N,
                              int64_t C, float eps)
{
    const int64_t row_bytes = C * p4_cuda_act_bytes(device);
    const bool wide = p4_cuda_wide(P4_ADDRESS(y) | P4_ADDRESS(sum) | P4_ADDRESS(x) | P4_ADDRESS(delta) |
                                       P4_ADDRESS(gain) | P4_ADDRESS(bias),
                                   row_bytes);
    const bool keep = row_bytes <= SHARED_BYTES;
    const size_t shared = keep ? (size_t)row_bytes : 0;
    const unsigned threads = p4_cuda_threads(p4_ceil_div(C, p4_cuda_width(device, wide)), NORM_THREADS);
    if (N <= 0 || C <= 0) {
        return;
    }
    if (kind == P4_LAYERNORM) {
        P4_BY_ACT(device, wide,
                  add_norm_rows<elem, W, true><<<(unsigned)N, threads, shared, device->stream>>>(
                      (elem *)y, (elem *)sum, mean, rstd, (const elem *)x, (const elem *)delta, gain, bias, C, eps, keep));
    } else {
        P4_BY_ACT(device, wide,
                  add_norm_rows<elem, W, false><<<(unsigned)N, threads, shared, device->stream>>>(
                      (elem *)y, (elem *)sum, mean, rstd, (const elem *)x, (const elem *)delta, gain, bias, C, eps, keep));
    }
    p4_cuda_launched(device, "add_norm_forward");
}

/* The sums of a block over its rows, for the gradients of gain [C] and bias [C]. A thread owns the columns it adds to. */
typedef struct gain_sums {
    float *gain, *bias; /* NULL: not wanted */
} gain_sums;

/* With xhat = (x - center) rstd and g = dy gain: dx += rstd (g - xhat mean(g xhat) - mean(g)), the last for LayerNorm. */
template <typename T, int W, bool CENTERED>
static __device__ __forceinline__ void row_backward(T *dx, const T *dy, const T *x, const float *gain, float center,
                                                    float rstd, int64_t C, gain_sums sums)
{
    const int64_t first = (int64_t)threadIdx.x * W, step = (int64_t)blockDim.x * W;
    float a[W], b[W], g[W], dot = 0.0f, sum = 0.0f;
    for (int64_t c = first; c < C; c += step) {
        p4_load(a, dy + c);
        p4_load(b, x + c);
        p4_load(g, gain + c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            dot += a[i] * g[i] * ((b[i] - center) * rstd);
            sum += a[i] * g[i];
        }
    }
    dot = p4_block_sum(dot) / (float)C;
    sum = CENTERED ? p4_block_sum(sum) / (float)C : 0.0f;
    for (int64_t c = first; c < C; c += step) {
        float d[W], total[W];
        p4_load(a, dy + c);
        p4_load(b, x + c);
        p4_load(g, gain + c);
        p4_load(d, dx + c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            b[i] = (b[i] - center) * rstd;
            d[i] += rstd * (a[i] * g[i] - b[i] * dot - sum);
        }
        p4_store(dx + c, d);
        if (sums.gain) {
            p4_load(total, sums.gain + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                total[i] += a[i] * b[i];
            }
            p4_store(sums.gain + c, total);
        }
        if (sums.bias) {
            p4_load(total, sums.bias + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                total[i] += a[i];
            }
            p4_store(sums.bias + c, total);
        }
    }
}

/* A block takes every gridDim.x-th row. Its sums gather in shared memory (`keep`) or at once in partial[block, kinds, C],
 * the gain first, where they end in any case. */
template <typename T, int W, bool CENTERED>
static __global__ void norm_backward_rows(T *dx, float *partial, bool with_gain, bool with_bias, const T *dy,
                                          const T *x, const float *mean, const float *rstd, const float *gain,
                                          int64_t N, int64_t C, bool keep)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const int64_t kinds = with_gain + with_bias;
    float *out = kinds ? partial + blockIdx.x * kinds * C : NULL;
    float *gather = keep ? (float *)shared : out;
    const gain_sums sums = {with_gain ? gather : NULL, with_bias ? gather + with_gain * C : NULL};
    for (int64_t k = 0; k < kinds; k++) {
        const float zeros[W] = {};
        for (int64_t c = (int64_t)threadIdx.x * W; c < C; c += (int64_t)blockDim.x * W) {
            p4_store(gather + k * C + c, zeros);
        }
    }
    for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
        row_backward<T, W, CENTERED>(dx + n * C, dy + n * C, x + n * C, gain, CENTERED ? mean[n] : 0.0f, rstd[n], C,
                                     sums);
    }
    for (int64_t k = 0; keep && k < kinds; k++) {
        float v[W];
        for (int64_t c = (int64_t)threadIdx.x * W; c < C; c += (int64_t)blockDim.x * W) {
            p4_load(v, gather + k * C + c);
            p4_store(out + k * C + c, v);
        }
    }
}

void p4_cuda_norm_backward(p4_device *device, p4_norm_kind kind, void *dx, float *dgain, float *dbias, const void *dy,
                           const void *x, const float *mean, const float *rstd, const float *gain, int64_t N,
                           int64_t C)
{
    const bool with_gain = dgain != NULL, with_bias = dbias != NULL;
    const int64_t kinds = with_gain + with_bias, sum_bytes = kinds * C * (int64_t)sizeof(float);
    const bool wide = p4_cuda_wide(P4_ADDRESS(dx) | P4_ADDRESS(dy) | P4_ADDRESS(x) | P4_ADDRESS(gain),
                                   C * p4_cuda_act_bytes(device));
    const bool keep = sum_bytes <= SHARED_BYTES;
    const size_t shared = keep ? (size_t)sum_bytes : 0;
    const unsigned threads = p4_cuda_threads(p4_ceil_div(C, p4_cuda_width(device, wide)), NORM_THREADS);
    if (N <= 0 || C <= 0) {
        return;
    }
    int64_t blocks = p4_min_i64(N, NORM_BLOCKS);
    if (kinds) {
        blocks = p4_max_i64(1, p4_min_i64(blocks, P4_SCRATCH_BYTES / sum_bytes));
    }
    float *partial = (float *)p4_cuda_scratch(device, blocks * sum_bytes);
    if (!partial) {
        return;
    }
    if (kind == P4_LAYERNORM) {
        P4_BY_ACT(device, wide,
                  norm_backward_rows<elem, W, true><<<(unsigned)blocks, threads, shared, device->stream>>>(
                      (elem *)dx, partial, with_gain, with_bias, (const elem *)dy, (const elem *)x, mean, rstd, gain, N, C,
                      keep));
    } else {
        P4_BY_ACT(device, wide,
                  norm_backward_rows<elem, W, false><<<(unsigned)blocks, threads, shared, device->stream>>>(
                      (elem *)dx, partial, with_gain, with_bias, (const elem *)dy, (const elem *)x, mean, rstd, gain, N, C,
                      keep));
    }
    p4_cuda_launched(device, "norm_backward");
    if (with_gain) {
        p4_cuda_add_partials(device, dgain, partial, blocks, kinds * C, C);
    }
    if (with_bias) {
        p4_cuda_add_partials(device, dbias, partial + with_gain * C, blocks, kinds * C, C);
    }
}
