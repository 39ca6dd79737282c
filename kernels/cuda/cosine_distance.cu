/* cosine_distance.cu - the angle between rows of activations and of a target, and its gradient.
 *
 * A warp takes a row and reads it twice, for its products and for the gradient; the second time it comes from
 * the cache. Products are summed in fp32 within one access of a thread, beyond it in double, so that the
 * distance of nearly equal rows keeps its digits. */
#include <float.h>

#include "kernels/cuda/cuda.cuh"

enum { COSINE_WARPS = P4_FLAT_THREADS / P4_WARP };

typedef struct cosine_rows {
    const void *x, *target;
    void *dx;
    int64_t N, C;
    float scale;
    bool accumulate;
} cosine_rows;

/* Row n, by a warp: its distance, in every lane. */
template <typename T, int W>
static __device__ __forceinline__ double cosine_row(const cosine_rows &a, int64_t n)
{
    const T *x = (const T *)a.x + n * a.C, *target = (const T *)a.target + n * a.C;
    T *dx = (T *)a.dx + n * a.C;
    const int64_t first = (int64_t)(threadIdx.x % P4_WARP) * W, step = (int64_t)P4_WARP * W;
    double xx = 0.0, tt = 0.0, xt = 0.0;
    for (int64_t c = first; c < a.C; c += step) {
        float u[W], v[W], uu = 0.0f, vv = 0.0f, uv = 0.0f;
        p4_load(u, x + c);
        p4_load(v, target + c);
#pragma unroll
        for (int k = 0; k < W; k++) {
            uu += u[k] * u[k];
            vv += v[k] * v[k];
            uv += u[k] * v[k];
        }
        xx += (double)uu;
        tt += (double)vv;
        xt += (double)uv;
    }
    xx = p4_warp_sum(xx);
    tt = p4_warp_sum(tt);
    xt = p4_warp_sum(xt);
    double cosine = 0.0;
    float along = 0.0f, across = 0.0f;
    if (!(xx < (double)FLT_MIN || tt < (double)FLT_MIN)) { /* NaN takes this branch too */
        const double lengths = sqrt(xx) * sqrt(tt);
        cosine = xt / lengths;
        along = (float)(-(double)a.scale / lengths);
        across = (float)((double)a.scale * cosine / xx);
    }
    for (int64_t c = first; c < a.C; c += step) {
        float u[W], v[W], d[W] = {};
        p4_load(u, x + c);
        p4_load(v, target + c);
        if (a.accumulate) {
            p4_load(d, dx + c);
        }
#pragma unroll
        for (int k = 0; k < W; k++) {
            d[k] += along * v[k] + across * u[k];
        }
        p4_store(dx + c, d);
    }
    return 1.0 - cosine;
}

/* partial[block] = the distances of the rows of the block's warps. */
template <typename T, int W> static __global__ void cosine_partials(double *partial, cosine_rows a)
{
    const int64_t first = (int64_t)blockIdx.x * COSINE_WARPS + threadIdx.x / P4_WARP,
                  step = (int64_t)gridDim.x * COSINE_WARPS;
    double sum = 0.0;
    for (int64_t n = first; n < a.N; n += step) {
        sum += cosine_row<T, W>(a, n);
    }
    sum = p4_block_sum(threadIdx.x % P4_WARP == 0 ? sum : 0.0);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

/* One block: at most one partial sum a thread. */
static __global__ void add_distances(double *sum, const double *partial, int count)
{
    const double all = p4_block_sum((int)threadIdx.x < count ? partial[threadIdx.x] : 0.0);
    if (threadIdx.x == 0) {
        *sum += all;
    }
}

void p4_cuda_cosine_distance(p4_device *device, const p4_cosine_distance_args *a)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(a->x) | P4_ADDRESS(a->target) | P4_ADDRESS(a->dx),
                                   a->C * p4_act_bytes(device));
    const cosine_rows rows = {a->x, a->target, a->dx, a->N, a->C, a->scale, a->accumulate};
    double *partial = (double *)p4_cuda_scratch(device, P4_SUM_BLOCKS * (int64_t)sizeof *partial);
    if (a->N <= 0 || !partial) {
        return;
    }
    const unsigned blocks = (unsigned)p4_min_i64(p4_ceil_div(a->N, COSINE_WARPS), P4_SUM_BLOCKS);
    P4_BY_ACT(device, wide,
              cosine_partials<elem, W><<<blocks, P4_FLAT_THREADS, 0, device->stream>>>(partial, rows));
    add_distances<<<1, p4_cuda_threads(blocks, P4_SUM_BLOCKS), 0, device->stream>>>(a->sum, partial,
                                                                                    (int)blocks);
    p4_cuda_launched(device, "cosine_distance");
}
