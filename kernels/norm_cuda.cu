/* norm_cuda.cu - RMSNorm and LayerNorm with the residual sum in front. Their gradients: norm_backward_cuda.cu. */
#include "cuda_ops.h"

enum { NORM_THREADS = 256, SHARED_BYTES = 48 << 10 };

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
