/* experts.cu - mixtures of experts: routing of tokens, and the rows of pairs of a token and an expert. */
#include "kernels/cuda/cuda.cuh"

enum { CHOOSE_WARPS = 8, PLACE_THREADS = 256, ROW_THREADS = 256 };

/* --- routing ---------------------------------------------------------------------------------- */

/* NaN comes last. */
static __device__ __forceinline__ float order_of(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

/* Of two candidates the one that comes first: the larger logit, of equal ones the smaller index; index -1 is
 * none. */
static __device__ __forceinline__ void take_first(float *v, int *at, float other_v, int other_at)
{
    if (other_at >= 0 && (*at < 0 || other_v > *v || (other_v == *v && other_at < *at))) {
        *v = other_v;
        *at = other_at;
    }
}

/* The sum of exp(logit - top) over all experts, in every lane. */
template <typename T>
static __device__ __forceinline__ float sum_of_exponentials(const T *logits, int experts, float top)
{
    float sum = 0.0f;
    for (int e = (int)threadIdx.x % P4_WARP; e < experts; e += P4_WARP) {
        sum += expf(p4_value(logits[e]) - top);
    }
    return p4_warp_sum(sum);
}

/* One warp a token. */
template <typename T> static __global__ void choose(p4_routes r, const T *all_logits, bool normed)
{
    const int lane = (int)threadIdx.x % P4_WARP, experts = (int)r.experts, used = (int)r.used;
    const int64_t n = (int64_t)blockIdx.x * CHOOSE_WARPS + threadIdx.x / P4_WARP;
    if (n >= r.N) {
        return;
    }
    const T *logits = all_logits + n * experts;
    int32_t *expert = r.expert + n * used;
    float *share = r.share + n * used;
    float last_v = INFINITY, top = 0.0f, sum = 0.0f;
    int last_at = -1;
    for (int k = 0; k < used; k++) {
        float v = 0.0f;
        int at = -1;
        for (int e = lane; e < experts; e += P4_WARP) {
            const float logit = order_of(p4_value(logits[e]));
            if (logit < last_v || (logit == last_v && e > last_at)) {
                take_first(&v, &at, logit, e);
            }
        }
        for (int step = P4_WARP / 2; step > 0; step /= 2) {
            const float other_v = __shfl_xor_sync(0xffffffffu, v, step);
            const int other_at = __shfl_xor_sync(0xffffffffu, at, step);
            take_first(&v, &at, other_v, other_at);
        }
        last_v = v;
        last_at = at;
        const float logit = p4_value(logits[at]);
        top = k == 0 ? logit : top;
        sum += expf(logit - top);
        if (lane == 0) {
            expert[k] = at;
            share[k] = expf(logit - top);
        }
    }
    sum = normed ? sum : sum_of_exponentials(logits, experts, top);
    __syncwarp();
    for (int k = lane; k < used; k += P4_WARP) {
        share[k] /= sum;
    }
}

/* Counts the experts of a chunk of pairs; one block a chunk. */
static __global__ void count_chunk(p4_routes r)
{
    const int64_t pairs = r.N * r.used, first = (int64_t)blockIdx.x * P4_ROUTES_CHUNK;
    const int64_t end = first + P4_ROUTES_CHUNK < pairs ? first + P4_ROUTES_CHUNK : pairs;
    int32_t *counts = r.work + (int64_t)blockIdx.x * r.experts;
    for (int e = (int)threadIdx.x; e < r.experts; e += (int)blockDim.x) {
        counts[e] = 0;
    }
    __syncthreads();
    for (int64_t p = first + threadIdx.x; p < end; p += blockDim.x) {
        atomicAdd(&counts[r.expert[p]], 1); /* integers: the order does not matter */
    }
}

/* Where the rows of each expert begin; one block. Counts become the rows before each chunk. */
static __global__ void sum_counts(p4_routes r, int chunks)
{
    for (int e = (int)threadIdx.x; e < r.experts; e += (int)blockDim.x) {
        int32_t before = 0;
        for (int c = 0; c < chunks; c++) {
            const int32_t count = r.work[c * r.experts + e];
            r.work[c * r.experts + e] = before;
            before += count;
        }
        r.first[e + 1] = before;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        r.first[0] = 0;
        for (int e = 0; e < r.experts; e++) {
            r.first[e + 1] += r.first[e];
        }
    }
}

/* Rows of a chunk's pairs, in their order; one block a chunk. */
static __global__ void place_chunk(p4_routes r)
{
    __shared__ int32_t expert[P4_ROUTES_CHUNK];
    const int64_t pairs = r.N * r.used, first = (int64_t)blockIdx.x * P4_ROUTES_CHUNK;
    const int count = (int)(pairs - first < P4_ROUTES_CHUNK ? pairs - first : P4_ROUTES_CHUNK);
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x) {
        expert[i] = r.expert[first + i];
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x) {
        int before = 0;
        for (int j = 0; j < i; j++) {
            before += expert[j] == expert[i];
        }
        r.row[first + i] = r.first[expert[i]] + r.work[blockIdx.x * r.experts + expert[i]] + before;
    }
}

void p4_cuda_route(p4_device *device, const p4_routes *r, const void *logits, bool normed)
{
    if (r->N <= 0) {
        cudaMemsetAsync(r->first, 0, (size_t)(r->experts + 1) * sizeof *r->first, device->stream);
        p4_cuda_launched(device, "route");
        return;
    }
    const unsigned chunks = (unsigned)p4_ceil_div(r->N * r->used, P4_ROUTES_CHUNK);
    P4_BY_ACT(
        device, false, (void)W;
        choose<<<(unsigned)p4_ceil_div(r->N, CHOOSE_WARPS), CHOOSE_WARPS * P4_WARP, 0, device->stream>>>(
            *r, (const elem *)logits, normed));
    count_chunk<<<chunks, PLACE_THREADS, 0, device->stream>>>(*r);
    sum_counts<<<1, PLACE_THREADS, 0, device->stream>>>(*r, (int)chunks);
    place_chunk<<<chunks, PLACE_THREADS, 0, device->stream>>>(*r);
    p4_cuda_launched(device, "route");
}

/* One warp a token. */
template <typename T>
static __global__ void route_backward(T *all_dlogits, const float *all_dshare, p4_routes r,
                                      const T *all_logits, bool normed)
{
    const int lane = (int)threadIdx.x % P4_WARP, experts = (int)r.experts, used = (int)r.used;
    const int64_t n = (int64_t)blockIdx.x * CHOOSE_WARPS + threadIdx.x / P4_WARP;
    if (n >= r.N) {
        return;
    }
    const T *logits = all_logits + n * experts;
    T *dlogits = all_dlogits + n * experts;
    const float *dshare = all_dshare + n * used, *share = r.share + n * used;
    const int32_t *expert = r.expert + n * used;
    const float top = p4_value(logits[expert[0]]);
    float mean = 0.0f;
    for (int k = 0; k < used; k++) {
        mean += share[k] * dshare[k];
    }
    const float sum = normed ? 1.0f : sum_of_exponentials(logits, experts, top);
    for (int e = lane; e < experts; e += P4_WARP) {
        p4_set(dlogits + e, normed ? 0.0f : -mean * expf(p4_value(logits[e]) - top) / sum);
    }
    __syncwarp();
    for (int k = lane; k < used; k += P4_WARP) {
        p4_set(dlogits + expert[k], share[k] * (dshare[k] - mean));
    }
}

void p4_cuda_route_backward(p4_device *device, void *dlogits, const float *dshare, const p4_routes *r,
                            const void *logits, bool normed)
{
    if (r->N > 0) {
        P4_BY_ACT(device, false, (void)W; route_backward<<<(unsigned)p4_ceil_div(r->N, CHOOSE_WARPS),
                                                           CHOOSE_WARPS * P4_WARP, 0, device->stream>>>(
                      (elem *)dlogits, dshare, *r, (const elem *)logits, normed));
        p4_cuda_launched(device, "route_backward");
    }
}

/* --- rows of pairs ---------------------------------------------------------------------------- */

/* One block a pair. */
template <typename T, int W> static __global__ void gather(T *rows, const T *x, p4_routes r, int64_t C)
{
    const int64_t p = blockIdx.x, row = r.row[p], n = p / r.used;
    for (int64_t c = (int64_t)threadIdx.x * W; c < C; c += (int64_t)blockDim.x * W) {
        float values[W];
        p4_load(values, x + n * C + c);
        p4_store(rows + row * C + c, values);
    }
}

void p4_cuda_experts_gather(p4_device *device, void *rows, const void *x, const p4_routes *r, int64_t C)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(rows) | P4_ADDRESS(x), C * p4_act_bytes(device));
    const unsigned threads = p4_cuda_threads(p4_ceil_div(C, p4_cuda_width(device, wide)), ROW_THREADS);
    if (r->N > 0 && C > 0) {
        P4_BY_ACT(device, wide,
                  gather<elem, W><<<(unsigned)(r->N * r->used), threads, 0, device->stream>>>(
                      (elem *)rows, (const elem *)x, *r, C));
        p4_cuda_launched(device, "experts_gather");
    }
}

/* One block a token. */
template <typename T, int W>
static __global__ void combine(T *y, const T *rows, p4_routes r, bool weighted, int64_t C)
{
    const int64_t n = blockIdx.x;
    for (int64_t c = (int64_t)threadIdx.x * W; c < C; c += (int64_t)blockDim.x * W) {
        float sum[W] = {0}, values[W];
        for (int64_t p = n * r.used; p < (n + 1) * r.used; p++) {
            const float factor = weighted ? r.share[p] : 1.0f;
            p4_load(values, rows + (int64_t)r.row[p] * C + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                sum[i] += factor * values[i];
            }
        }
        p4_store(y + n * C + c, sum);
    }
}

void p4_cuda_experts_combine(p4_device *device, void *y, const void *rows, const p4_routes *r, bool weighted,
                             int64_t C)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(rows) | P4_ADDRESS(y), C * p4_act_bytes(device));
    const unsigned threads = p4_cuda_threads(p4_ceil_div(C, p4_cuda_width(device, wide)), ROW_THREADS);
    if (r->N > 0 && C > 0) {
        P4_BY_ACT(device, wide,
                  combine<elem, W><<<(unsigned)r->N, threads, 0, device->stream>>>(
                      (elem *)y, (const elem *)rows, *r, weighted, C));
        p4_cuda_launched(device, "experts_combine");
    }
}

/* One block a pair. */
template <typename T, int W>
static __global__ void share_backward(float *dshare, T *dh, T *dy, const T *h, p4_routes r, int64_t F,
                                      int64_t C)
{
    const int64_t p = blockIdx.x, row = r.row[p];
    const float share = r.share[p];
    float sum = 0.0f;
    for (int64_t f = (int64_t)threadIdx.x * W; f < F; f += (int64_t)blockDim.x * W) {
        float d[W], x[W];
        p4_load(d, dh + row * F + f);
        p4_load(x, h + row * F + f);
#pragma unroll
        for (int i = 0; i < W; i++) {
            sum += d[i] * x[i];
            d[i] *= share;
        }
        p4_store(dh + row * F + f, d);
    }
    for (int64_t c = (int64_t)threadIdx.x * W; c < C; c += (int64_t)blockDim.x * W) {
        float d[W];
        p4_load(d, dy + row * C + c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            d[i] *= share;
        }
        p4_store(dy + row * C + c, d);
    }
    sum = p4_block_sum(sum);
    if (threadIdx.x == 0) {
        dshare[p] = sum;
    }
}

void p4_cuda_share_backward(p4_device *device, const p4_share_backward_args *a)
{
    const p4_routes *r = a->routes;
    const bool wide = p4_cuda_wide(P4_ADDRESS(a->dh) | P4_ADDRESS(a->dy) | P4_ADDRESS(a->h),
                                   (a->F | a->C) * p4_act_bytes(device));
    const int64_t longest = p4_max_i64(a->F, a->C);
    const unsigned threads = p4_cuda_threads(p4_ceil_div(longest, p4_cuda_width(device, wide)), ROW_THREADS);
    if (r->N > 0) {
        P4_BY_ACT(device, wide,
                  share_backward<elem, W><<<(unsigned)(r->N * r->used), threads, 0, device->stream>>>(
                      a->dshare, (elem *)a->dh, (elem *)a->dy, (const elem *)a->h, *r, a->F, a->C));
        p4_cuda_launched(device, "share_backward");
    }
}
