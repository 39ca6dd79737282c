/* head_norm.cu - RMSNorm of parts of a row: of each query or key head, or of a whole projection. A warp
 * computes one part, and reads it twice: the second time from the first cache. */
#include "kernels/cuda/cuda.cuh"

enum { HEAD_WARPS = 8, HEAD_THREADS = HEAD_WARPS * P4_WARP, GAIN_BLOCKS = 264 };

/* Of a row's part: where x, y and so on have it. */
typedef struct head_task {
    void *y; /* dx in backward */
    const void *x, *dy;
    float *rstd;    /* may be NULL in forward */
    float *partial; /* [blocks, D] of backward; NULL: the gain's gradient is not wanted */
    const float *gain;
    int64_t N, ld_x, ld_y, ld_dy;
    int heads, D;
    float eps, gain_offset;
} head_task;

template <typename T, int W> static __global__ void __launch_bounds__(HEAD_THREADS) head_norm(head_task k)
{
    const int64_t at = (int64_t)blockIdx.x * HEAD_WARPS + threadIdx.x / P4_WARP;
    const int lane = (int)(threadIdx.x % P4_WARP);
    if (at >= k.N * k.heads) {
        return;
    }
    const int64_t n = at / k.heads, part = at % k.heads * k.D;
    const T *x = (const T *)k.x + n * k.ld_x + part;
    T *y = (T *)k.y + n * k.ld_y + part;
    float v[W], g[W], sum = 0.0f;
    for (int d = lane * W; d < k.D; d += P4_WARP * W) {
        p4_load(v, x + d);
#pragma unroll
        for (int i = 0; i < W; i++) {
            sum += v[i] * v[i];
        }
    }
    const float rstd = 1.0f / sqrtf(p4_warp_sum(sum) / (float)k.D + k.eps);
    for (int d = lane * W; d < k.D; d += P4_WARP * W) {
        p4_load(v, x + d);
        p4_load(g, k.gain + d);
#pragma unroll
        for (int i = 0; i < W; i++) {
            v[i] = v[i] * rstd * (g[i] + k.gain_offset);
        }
        p4_store(y + d, v);
    }
    if (lane == 0 && k.rstd) {
        k.rstd[at] = rstd;
    }
}

/* With xhat = x rstd and g = dy (gain + offset): dx = rstd (g - xhat mean(g xhat)). dx may be dy: a lane
 * reads what it writes before it. */
template <typename T, int W> static __global__ void __launch_bounds__(HEAD_THREADS) head_backward(head_task k)
{
    const int64_t at = (int64_t)blockIdx.x * HEAD_WARPS + threadIdx.x / P4_WARP;
    const int lane = (int)(threadIdx.x % P4_WARP);
    if (at >= k.N * k.heads) {
        return;
    }
    const int64_t n = at / k.heads, part = at % k.heads * k.D;
    const T *x = (const T *)k.x + n * k.ld_x + part, *dy = (const T *)k.dy + n * k.ld_dy + part;
    T *dx = (T *)k.y + n * k.ld_y + part;
    const float rstd = k.rstd[at];
    float v[W], d_y[W], g[W], dot = 0.0f;
    for (int d = lane * W; d < k.D; d += P4_WARP * W) {
        p4_load(v, x + d);
        p4_load(d_y, dy + d);
        p4_load(g, k.gain + d);
#pragma unroll
        for (int i = 0; i < W; i++) {
            dot += d_y[i] * (g[i] + k.gain_offset) * (v[i] * rstd);
        }
    }
    dot = p4_warp_sum(dot) / (float)k.D;
    for (int d = lane * W; d < k.D; d += P4_WARP * W) {
        p4_load(v, x + d);
        p4_load(d_y, dy + d);
        p4_load(g, k.gain + d);
#pragma unroll
        for (int i = 0; i < W; i++) {
            v[i] = rstd * (d_y[i] * (g[i] + k.gain_offset) - v[i] * rstd * dot);
        }
        p4_store(dx + d, v);
    }
}

/* partial[block, D] = the gain's gradient over the block's share of the parts. A thread owns a column. */
template <typename T>
static __global__ void __launch_bounds__(HEAD_THREADS) head_gain(head_task k, int64_t share)
{
    const int64_t parts = k.N * k.heads, first = (int64_t)blockIdx.y * share;
    const int64_t end = first + share < parts ? first + share : parts;
    const int d = (int)(blockIdx.x * HEAD_THREADS + threadIdx.x);
    float sum = 0.0f;
    if (d >= k.D) {
        return;
    }
    for (int64_t at = first; at < end; at++) {
        const int64_t n = at / k.heads, part = at % k.heads * k.D + d;
        sum += p4_value(((const T *)k.dy)[n * k.ld_dy + part]) *
               (p4_value(((const T *)k.x)[n * k.ld_x + part]) * k.rstd[at]);
    }
    k.partial[blockIdx.y * k.D + d] = sum;
}

static unsigned blocks_of(const head_task *k)
{
    return (unsigned)p4_ceil_div(k->N * k->heads, HEAD_WARPS);
}

void p4_cuda_head_norm_forward(p4_device *device, const p4_head_norm_forward_args *a)
{
    const int64_t each = p4_act_bytes(device);
    const bool wide = p4_cuda_wide(P4_ADDRESS(a->x) | P4_ADDRESS(a->y) | P4_ADDRESS(a->gain),
                                   (a->D | a->ld_x | a->ld_y) * each);
    head_task k = {};
    k.y = a->y;
    k.x = a->x;
    k.rstd = a->opt_rstd;
    k.gain = a->gain;
    k.N = a->N;
    k.ld_x = a->ld_x;
    k.ld_y = a->ld_y;
    k.heads = (int)a->heads;
    k.D = (int)a->D;
    k.eps = a->eps;
    k.gain_offset = a->gain_offset;
    if (a->N <= 0 || a->heads <= 0 || a->D <= 0) {
        return;
    }
    P4_BY_ACT(device, wide, head_norm<elem, W><<<blocks_of(&k), HEAD_THREADS, 0, device->stream>>>(k));
    p4_cuda_launched(device, "head_norm_forward");
}

/* All of dy is read for the gain before dx, which may be dy, is written. */
static void add_gain(p4_device *device, head_task *k, float *dgain)
{
    const int64_t parts = k->N * k->heads;
    const int64_t most = p4_max_i64(1, P4_SCRATCH_BYTES / (k->D * (int64_t)sizeof(float)));
    const int64_t share = p4_ceil_div(parts, p4_min_i64(p4_min_i64(parts, GAIN_BLOCKS), most));
    const int64_t blocks = p4_ceil_div(parts, share);
    const dim3 grid((unsigned)p4_ceil_div(k->D, HEAD_THREADS), (unsigned)blocks);
    const unsigned threads = p4_cuda_threads(k->D, HEAD_THREADS);
    k->partial = (float *)p4_cuda_scratch(device, blocks * k->D * (int64_t)sizeof(float));
    if (!k->partial) {
        return;
    }
    if (device->half) {
        head_gain<__nv_bfloat16><<<grid, threads, 0, device->stream>>>(*k, share);
    } else {
        head_gain<float><<<grid, threads, 0, device->stream>>>(*k, share);
    }
    const p4_cuda_sums sums = {{dgain}};
    p4_cuda_add_partials(device, sums, 1, k->partial, blocks, k->D);
}

void p4_cuda_head_norm_backward(p4_device *device, const p4_head_norm_backward_args *a)
{
    const int64_t each = p4_act_bytes(device);
    const bool wide =
        p4_cuda_wide(P4_ADDRESS(a->x) | P4_ADDRESS(a->dy) | P4_ADDRESS(a->dx) | P4_ADDRESS(a->gain),
                     (a->D | a->ld_x | a->ld_dy | a->ld_dx) * each);
    head_task k = {};
    k.y = a->dx;
    k.x = a->x;
    k.dy = a->dy;
    k.rstd = (float *)a->rstd; /* read */
    k.gain = a->gain;
    k.N = a->N;
    k.ld_x = a->ld_x;
    k.ld_y = a->ld_dx;
    k.ld_dy = a->ld_dy;
    k.heads = (int)a->heads;
    k.D = (int)a->D;
    k.gain_offset = a->gain_offset;
    if (a->N <= 0 || a->heads <= 0 || a->D <= 0) {
        return;
    }
    if (a->opt_dgain) {
        add_gain(device, &k, a->opt_dgain);
    }
    P4_BY_ACT(device, wide, head_backward<elem, W><<<blocks_of(&k), HEAD_THREADS, 0, device->stream>>>(k));
    p4_cuda_launched(device, "head_norm_backward");
}
