/* optim.cu - sums of whole arrays, Grokfast and AdamW. */
#include <math.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/state.cuh"

enum {
    FLOATS = P4_VECTOR_BYTES / (int)sizeof(float),
    ADAM_ITEMS = 64, /* arrays of one launch: together with `start` below the 4 KiB of a kernel's arguments */
    ADAM_EACH = 4096 /* elements of a block */
};

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
    const int64_t step = P4_FLAT_THREADS * FLOATS,
                  each = p4_ceil_div(p4_ceil_div(count, P4_SUM_BLOCKS), step) * step;
    double *partial = (double *)p4_cuda_scratch(device, P4_SUM_BLOCKS * (int64_t)sizeof *partial);
    if (count <= 0 || !partial) {
        return;
    }
    const int64_t blocks = p4_ceil_div(count, each);
    const unsigned grid = (unsigned)blocks;
    P4_BY_WIDTH(p4_cuda_wide(P4_ADDRESS(x), 0), FLOATS,
                sum_partials<SQUARE, W>
                <<<grid, P4_FLAT_THREADS, 0, device->stream>>>(partial, x, count, each));
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

static __global__ void clip(p4_clip_args a)
{
    double error = 0.0, squares = *a.squares;
    for (int64_t r = 0; r < a.ranks; r++) {
        error += a.figures[r].error;
        squares += a.figures[r].squares;
    }
    const double divisor = a.numbers->divisor, norm = sqrt(squares) / divisor;
    const double factor = a.clip > 0 && norm > a.clip ? a.clip / norm : 1.0;
    a.result->error = error;
    a.result->norm = norm;
    a.numbers->g_scale = isfinite(norm) && isfinite(error) ? (float)(factor / divisor) : NAN;
}

void p4_cuda_clip(p4_device *device, const p4_clip_args *a)
{
    clip<<<1, 1, 0, device->stream>>>(*a);
    p4_cuda_launched(device, "clip");
}

template <int W> static __global__ void add(float *sum, const float *addend, int64_t count)
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
                    add<W>
                    <<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(sum, addend, count));
        p4_cuda_launched(device, "add_f32");
    }
}

template <typename S, int W>
static __global__ void grokfast(float *g, S *ema, float alpha, float lambda, int64_t count, uint64_t index,
                                const p4_step_numbers *numbers)
{
    const int64_t i = p4_flat_index<W>();
    float v[W], e[W];
    if (i >= count) {
        return;
    }
    p4_load_part(v, g + i, count - i);
    if (numbers->first) {
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
    p4_state_round(ema, e, numbers->key, index + (uint64_t)i, 0);
    p4_store_part(ema + i, e, count - i);
    p4_store_part(g + i, v, count - i);
}

void p4_cuda_grokfast(p4_device *device, const p4_grokfast_args *a)
{
    if (a->count > 0) {
        const bool wide = p4_cuda_wide(P4_ADDRESS(a->g) | p4_state_address(a->ema, a->half), 0);
        P4_BY_STATE(a->half, wide, FLOATS,
                    grokfast<S, W><<<p4_cuda_flat(a->count, W), P4_FLAT_THREADS, 0, device->stream>>>(
                        a->g, (S *)a->ema, a->alpha, a->lambda, a->count, a->index, a->numbers));
        p4_cuda_launched(device, "grokfast");
    }
}

/* Numbers that are the same in every step and for every element. */
typedef struct adam_rates {
    float beta1, beta2, eps;
} adam_rates;

/* Arrays of one launch, passed as a kernel argument so that no memory is needed. Blocks [start[i], start[i
 * + 1]) update item[i]. */
typedef struct adam_arrays {
    p4_adamw_item item[ADAM_ITEMS];
    uint32_t start[ADAM_ITEMS + 1];
    int items;
} adam_arrays;

/* The item of this block: the last one that starts at it or before. */
static __device__ __forceinline__ int item_of_block(const adam_arrays &arrays)
{
    int low = 0, high = arrays.items;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (arrays.start[middle] <= blockIdx.x) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

template <typename S, int W>
static __global__ void adamw(const __grid_constant__ adam_arrays arrays, adam_rates s,
                             const p4_step_numbers *numbers)
{
    const p4_step_numbers now = *numbers;
    if (isnan(now.g_scale)) {
        return;
    }
    const int at = item_of_block(arrays);
    const p4_adamw_item a = arrays.item[at];
    const int64_t first = (int64_t)(blockIdx.x - arrays.start[at]) * ADAM_EACH;
    const int64_t end = first + ADAM_EACH < a.count ? first + ADAM_EACH : a.count;
    S *const stored_m = (S *)a.m, *const stored_v = (S *)a.v;
    for (int64_t i = first + threadIdx.x * W; i < end; i += P4_FLAT_THREADS * W) {
        float weight[W], m[W], v[W], gradient[W];
        p4_load_part(weight, a.w + i, end - i);
        p4_load_part(m, stored_m + i, end - i);
        p4_load_part(v, stored_v + i, end - i);
        p4_load_part(gradient, a.g + i, end - i);
#pragma unroll
        for (int k = 0; k < W; k++) {
            const float scaled = gradient[k] * now.g_scale;
            m[k] = s.beta1 * m[k] + (1.0f - s.beta1) * scaled;
            v[k] = s.beta2 * v[k] + (1.0f - s.beta2) * scaled * scaled;
            const float update = m[k] * now.m_correction / (sqrtf(v[k] * now.v_correction) + s.eps);
            weight[k] -= now.lr * (update + a.decay * weight[k]);
        }
        p4_store_part(a.w + i, weight, end - i);
        p4_state_round(stored_m, m, now.key, a.index + (uint64_t)i, 0);
        p4_state_round(stored_v, v, now.key, a.index + (uint64_t)i, 16);
        p4_store_part(stored_m + i, m, end - i);
        p4_store_part(stored_v + i, v, end - i);
    }
}

/* Updates the arrays of the launch and empties it. */
static void adamw_launch(p4_device *device, adam_arrays *arrays, adam_rates rates,
                         const p4_step_numbers *numbers, bool half, bool wide)
{
    if (arrays->items > 0) {
        P4_BY_STATE(half, wide, FLOATS,
                    adamw<S, W><<<arrays->start[arrays->items], P4_FLAT_THREADS, 0, device->stream>>>(
                        *arrays, rates, numbers));
        p4_cuda_launched(device, "adamw");
    }
    arrays->items = 0;
}

void p4_cuda_adamw(p4_device *device, const p4_adamw_item *h_items, int64_t items, float beta1, float beta2,
                   float eps, bool half, const p4_step_numbers *numbers)
{
    const adam_rates rates = {beta1, beta2, eps};
    adam_arrays arrays = {};
    bool wide = true;
    for (int64_t i = 0; i < items; i++) {
        const p4_adamw_item *a = &h_items[i];
        if (a->count <= 0) {
            continue;
        }
        const uintptr_t addresses =
            P4_ADDRESS(a->w) | p4_state_address(a->m, half) | p4_state_address(a->v, half) | P4_ADDRESS(a->g);
        const bool this_wide = p4_cuda_wide(addresses, 0);
        const uint32_t blocks = (uint32_t)p4_ceil_div(a->count, ADAM_EACH);
        if (arrays.items == ADAM_ITEMS || this_wide != wide ||
            arrays.start[arrays.items] > INT32_MAX - blocks) {
            adamw_launch(device, &arrays, rates, numbers, half, wide);
        }
        wide = this_wide;
        arrays.item[arrays.items++] = *a;
        arrays.start[arrays.items] = arrays.start[arrays.items - 1] + blocks;
    }
    adamw_launch(device, &arrays, rates, numbers, half, wide);
}
