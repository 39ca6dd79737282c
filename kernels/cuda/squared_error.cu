/* squared_error.cu - the distance between two arrays of activations, and its gradient. */
#include "kernels/cuda/cuda.cuh"

typedef struct error_arrays {
    const void *x, *delta, *target;
    void *dx;
    float scale, delta_scale;
} error_arrays;

/* W elements from i on of an array that may be missing; then they are 0. */
template <int W, typename T>
static __device__ __forceinline__ void load_or_zero(float (&to)[W], const T *from, int64_t i, int64_t count)
{
    if (from != NULL) {
        p4_load_part(to, from + i, count - i);
        return;
    }
#pragma unroll
    for (int k = 0; k < W; k++) {
        to[k] = 0.0f;
    }
}

/* partial[block] = the squares of the block's `each` elements. */
template <typename T, int W>
static __global__ void error_partials(double *partial, error_arrays a, int64_t count, int64_t each)
{
    const int64_t first = blockIdx.x * each, end = first + each < count ? first + each : count;
    double sum = 0.0;
    for (int64_t i = first + (int64_t)threadIdx.x * W; i < end; i += (int64_t)blockDim.x * W) {
        float x[W], delta[W], target[W];
        p4_load_part(x, (const T *)a.x + i, end - i);
        load_or_zero(delta, (const T *)a.delta, i, end);
        load_or_zero(target, (const T *)a.target, i, end);
#pragma unroll
        for (int k = 0; k < W; k++) {
            x[k] += a.delta_scale * delta[k] - target[k];
            sum += (double)x[k] * (double)x[k];
            x[k] *= a.scale;
        }
        if (a.dx != NULL) {
            p4_store_part((T *)a.dx + i, x, end - i);
        }
    }
    sum = p4_block_sum(sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

/* One block: at most one partial sum a thread. */
static __global__ void add_errors(double *sum, const double *partial, int count)
{
    const double all = p4_block_sum((int)threadIdx.x < count ? partial[threadIdx.x] : 0.0);
    if (threadIdx.x == 0) {
        *sum += all;
    }
}

void p4_cuda_squared_error(p4_device *device, const p4_squared_error_args *a)
{
    const bool wide = p4_cuda_wide(
        P4_ADDRESS(a->x) | P4_ADDRESS(a->opt_delta) | P4_ADDRESS(a->opt_target) | P4_ADDRESS(a->opt_dx), 0);
    const error_arrays arrays = {a->x,      a->opt_delta, a->opt_target,
                                 a->opt_dx, a->scale,     a->delta_scale > 0.0f ? a->delta_scale : 1.0f};
    const int64_t step = P4_FLAT_THREADS * p4_cuda_width(device, true),
                  each = p4_ceil_div(p4_ceil_div(a->count, P4_SUM_BLOCKS), step) * step;
    double *partial = (double *)p4_cuda_scratch(device, P4_SUM_BLOCKS * (int64_t)sizeof *partial);
    if (a->count <= 0 || !partial) {
        return;
    }
    const int64_t blocks = p4_ceil_div(a->count, each);
    const unsigned grid = (unsigned)blocks;
    P4_BY_ACT(device, wide,
              error_partials<elem, W>
              <<<grid, P4_FLAT_THREADS, 0, device->stream>>>(partial, arrays, a->count, each));
    add_errors<<<1, p4_cuda_threads(blocks, P4_SUM_BLOCKS), 0, device->stream>>>(a->sum, partial,
                                                                                 (int)blocks);
    p4_cuda_launched(device, "squared_error");
}
