/* learned_scales.cu - scales of ternary weights that are trained: their gradient, and storing them. A block
 * walks over the weights of a scale, W of them a thread. */
#include <math.h>

#include "kernels/cuda/cuda.cuh"

enum { SCALE_THREADS = 256 };

/* Codes of `scales` scales, of `each` weights: codes of one begin at a whole byte. */
typedef struct scale_codes {
    const uint8_t *codes;
    int64_t scales, each, bytes;
} scale_codes;

static scale_codes codes_of(const p4_weight *codes)
{
    const p4_weight view = p4_weight_by_scale(codes);
    const scale_codes all = {(const uint8_t *)view.data, view.rows, view.cols, p4_code_row_bytes(view.cols)};
    return all;
}

/* Trit i of a scale whose codes begin at `codes`. */
static __device__ __forceinline__ float trit_at(const uint8_t *codes, int64_t i)
{
    return (float)((codes[i / 4] >> 2 * (int)(i % 4) & 3) - 1);
}

/* W is 4 or 1: a thread reads one byte of codes. */
template <int W>
static __global__ void scale_gradients(float *gradient, const float *g, scale_codes all, double factor)
{
    for (int64_t s = blockIdx.x; s < all.scales; s += gridDim.x) {
        const float *const row = g + s * all.each;
        const uint8_t *const codes = all.codes + s * all.bytes;
        double sum = 0.0;
        for (int64_t i = (int64_t)threadIdx.x * W; i < all.each; i += (int64_t)blockDim.x * W) {
            float v[W];
            p4_load_part(v, row + i, all.each - i);
#pragma unroll
            for (int k = 0; k < W; k++) {
                sum += (double)v[k] * (double)trit_at(codes, i + k); /* behind the end v is 0 */
            }
        }
        sum = p4_block_sum(sum);
        if (threadIdx.x == 0) {
            gradient[s] = (float)(factor * sum);
        }
    }
}

void p4_cuda_scale_gradient(p4_device *device, float *gradient, const float *g, const p4_weight *codes)
{
    const scale_codes all = codes_of(codes);
    if (all.scales <= 0 || all.each <= 0) {
        return;
    }
    const bool wide = p4_cuda_wide(P4_ADDRESS(g), all.each * (int64_t)sizeof *g);
    const unsigned blocks = (unsigned)p4_min_i64(all.scales, INT32_MAX);
    P4_BY_WIDTH(wide, 4,
                scale_gradients<W>
                <<<blocks, p4_cuda_threads(p4_ceil_div(all.each, W), SCALE_THREADS), 0, device->stream>>>(
                    gradient, g, all, 1.0 / sqrt((double)all.each)));
    p4_cuda_launched(device, "scale_gradient");
}

static __global__ void store_scales(uint16_t *scale, float *learned, int64_t count)
{
    const int64_t i = p4_flat_index<1>();
    if (i < count) {
        const float kept = learned[i] < 0.0f ? 0.0f : learned[i];
        learned[i] = kept;
        scale[i] = __half_as_ushort(__float2half_rn(kept));
    }
}

/* parts[block] = the figures of the block's scales; threads add the same elements on every run. */
static __global__ void scale_errors(p4_quant_error *parts, const uint16_t *scale, const float *w,
                                    scale_codes all)
{
    p4_quant_error own = {0.0, 0.0, 0, INFINITY, -INFINITY, 0};
    for (int64_t s = blockIdx.x; s < all.scales; s += gridDim.x) {
        const float stored = __half2float(__ushort_as_half(scale[s]));
        for (int64_t i = threadIdx.x; i < all.each; i += blockDim.x) {
            const float trit = trit_at(all.codes + s * all.bytes, i);
            const double value = (double)w[s * all.each + i], difference = value - (double)(stored * trit);
            own.sq_error += difference * difference;
            own.sq_norm += value * value;
            own.zeros += trit == 0.0f ? 1 : 0;
        }
        own.scale_min = fminf(own.scale_min, stored);
        own.scale_max = fmaxf(own.scale_max, stored);
    }
    own.sq_error = p4_block_sum(own.sq_error);
    own.sq_norm = p4_block_sum(own.sq_norm);
    own.zeros = p4_block_sum((long long)own.zeros);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = own;
    }
}

/* One block, a thread a part. */
static __global__ void add_scale_errors(p4_quant_error *sum, const p4_quant_error *parts, int count)
{
    p4_quant_error own = {0.0, 0.0, 0, INFINITY, -INFINITY, 0};
    if ((int)threadIdx.x < count) {
        own = parts[threadIdx.x];
    }
    own.sq_error = p4_block_sum(own.sq_error);
    own.sq_norm = p4_block_sum(own.sq_norm);
    own.zeros = p4_block_sum((long long)own.zeros);
    own.scale_min = -p4_block_max(-own.scale_min);
    own.scale_max = p4_block_max(own.scale_max);
    if (threadIdx.x == 0) {
        *sum = own;
    }
}

/* Waits. */
static void measure_error(p4_device *device, p4_quant_error *h_error, const uint16_t *scale, const float *w,
                          const scale_codes *all)
{
    const unsigned blocks = (unsigned)p4_min_i64(all->scales, P4_SUM_BLOCKS);
    p4_quant_error *sum =
        (p4_quant_error *)p4_cuda_scratch(device, (1 + P4_SUM_BLOCKS) * (int64_t)sizeof *sum);
    if (!sum) {
        return;
    }
    scale_errors<<<blocks, p4_cuda_threads(all->each, SCALE_THREADS), 0, device->stream>>>(sum + 1, scale, w,
                                                                                           *all);
    add_scale_errors<<<1, p4_cuda_threads(blocks, P4_SUM_BLOCKS), 0, device->stream>>>(sum, sum + 1,
                                                                                       (int)blocks);
    p4_cuda_launched(device, "store_scales: error");
    p4_cuda_ok(device, cudaMemcpyAsync(h_error, sum, sizeof *sum, cudaMemcpyDeviceToHost, device->stream),
               "store_scales: error");
    p4_cuda_ok(device, cudaStreamSynchronize(device->stream), "store_scales");
}

void p4_cuda_store_scales(p4_device *device, uint16_t *scale, float *learned, p4_quant_error *h_error,
                          const p4_weight *codes, const float *w)
{
    const p4_quant_error none = {0.0, 0.0, 0, INFINITY, -INFINITY, 0};
    const scale_codes all = codes_of(codes);
    if (h_error) {
        *h_error = none;
    }
    if (all.scales <= 0 || all.each <= 0) {
        return;
    }
    store_scales<<<p4_cuda_flat(all.scales, 1), P4_FLAT_THREADS, 0, device->stream>>>(scale, learned,
                                                                                      all.scales);
    p4_cuda_launched(device, "store_scales");
    if (h_error) {
        measure_error(device, h_error, scale, w, &all);
    }
}
