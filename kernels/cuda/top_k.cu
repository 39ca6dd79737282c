/* top_k.cu - the k largest of a row of logits, and their log-probabilities, one block a row. */
#include "kernels/cuda/loss.cuh"

enum { TOP_THREADS = 512, DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS };

/* Bits in the order of the values, as in kernels/cpu/top_k.c. */
static __device__ __forceinline__ uint32_t key_of(float x)
{
    const uint32_t bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
static __device__ __forceinline__ float value_of(uint32_t key)
{
    return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}

/* The k-th largest key, digit by digit; *equal: how many of that key belong to the k largest. All threads of
 * the block call. */
template <typename T>
static __device__ __forceinline__ uint32_t find_kth(const T *x, int V, int k, int *equal)
{
    __shared__ int counts[DIGITS];
    __shared__ int found, left_after;
    uint32_t prefix = 0, mask = 0;
    int left = k;
    for (int shift = 32 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        for (int i = (int)threadIdx.x; i < DIGITS; i += (int)blockDim.x) {
            counts[i] = 0;
        }
        __syncthreads();
        for (int v = (int)threadIdx.x; v < V; v += (int)blockDim.x) {
            const uint32_t key = key_of(p4_value(x[v]));
            if ((key & mask) == prefix) {
                atomicAdd(&counts[key >> shift & (DIGITS - 1)], 1);
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = DIGITS - 1;
            while (counts[digit] < left) {
                left -= counts[digit--];
            }
            found = digit;
            left_after = left;
        }
        __syncthreads();
        left = left_after;
        prefix |= (uint32_t)found << shift;
        mask |= (uint32_t)(DIGITS - 1) << shift;
        __syncthreads(); /* before `found` and the counts are written again */
    }
    *equal = left;
    return prefix;
}

/* The logits decide; the logarithms are those of mapped ones. */
template <typename T, bool MAPPED>
static __global__ void __launch_bounds__(TOP_THREADS)
    top_rows(int32_t *ids, float *logp, const T *logits, float inverse, int V, int64_t ld, int k,
             p4_logit_map map)
{
    __shared__ int above[P4_WARP], same[P4_WARP]; /* of each warp, in the tile at work */
    const int64_t n = blockIdx.x;
    const T *x = logits + n * ld;
    const int lane = threadIdx.x % P4_WARP, warp = threadIdx.x / P4_WARP, warps = blockDim.x / P4_WARP;
    int equal;
    const uint32_t kth = find_kth(x, V, k, &equal);
    float mine = -INFINITY;
    for (int v = (int)threadIdx.x; v < V; v += (int)blockDim.x) {
        mine = fmaxf(mine, p4_value(x[v]));
    }
    const float largest = mapped<T, MAPPED>(p4_block_max(mine), map);
    double inside = 0.0, below = 0.0;
    int ties = 0;
    for (int v = (int)threadIdx.x; v < V; v += (int)blockDim.x) {
        const float value = p4_value(x[v]);
        const uint32_t key = key_of(value);
        const double e = (double)expf((mapped<T, MAPPED>(value, map) - largest) * inverse);
        inside += key > kth ? e : 0.0;
        below += key < kth ? e : 0.0;
        ties += key == kth;
    }
    const double tied = (double)expf((mapped<T, MAPPED>(value_of(kth), map) - largest) * inverse);
    const int all_ties = p4_block_sum(ties);
    const double others = p4_block_sum(below) + (double)(all_ties - equal) * tied;
    const double log_sum = log(p4_block_sum(inside) + (double)equal * tied + others);
    int above_before = 0, same_before = 0;
    for (int tile = 0; tile < V; tile += (int)blockDim.x) {
        const int v = tile + (int)threadIdx.x;
        const float value = v < V ? p4_value(x[v]) : 0.0f;
        const uint32_t key = key_of(value), lower = (1u << lane) - 1u;
        const unsigned above_mask = __ballot_sync(0xffffffffu, v < V && key > kth);
        const unsigned same_mask = __ballot_sync(0xffffffffu, v < V && key == kth);
        __syncthreads(); /* the tile before has been read */
        if (lane == 0) {
            above[warp] = __popc(above_mask);
            same[warp] = __popc(same_mask);
        }
        __syncthreads();
        int above_here = above_before + __popc(above_mask & lower),
            same_here = same_before + __popc(same_mask & lower);
        for (int w = 0; w < warps; w++) {
            above_here += w < warp ? above[w] : 0;
            same_here += w < warp ? same[w] : 0;
            above_before += above[w];
            same_before += same[w];
        }
        if (v < V && (key > kth || (key == kth && same_here < equal))) {
            const int64_t at = above_here + min(same_here, equal);
            ids[n * k + at] = v;
            logp[n * (k + 1) + at] =
                (float)((double)((mapped<T, MAPPED>(value, map) - largest) * inverse) - log_sum);
        }
    }
    if (threadIdx.x == 0) {
        logp[n * (k + 1) + k] = (float)(log(others) - log_sum);
    }
}

template <typename T, bool MAPPED> static void launch_top(p4_device *device, const p4_top_k_args *a)
{
    top_rows<T, MAPPED><<<(unsigned)a->N, p4_cuda_threads(a->V, TOP_THREADS), 0, device->stream>>>(
        a->top.ids, a->top.logp, (const T *)a->logits, 1.0f / a->temperature, (int)a->V, a->ld, (int)a->top.k,
        whole_map(a->map));
}

void p4_cuda_top_k(p4_device *device, const p4_top_k_args *a)
{
    if (a->N <= 0 || a->V <= 0) {
        return;
    }
    if (is_mapped(a->map)) {
        (device->half ? launch_top<__nv_bfloat16, true> : launch_top<float, true>)(device, a);
    } else {
        (device->half ? launch_top<__nv_bfloat16, false> : launch_top<float, false>)(device, a);
    }
    p4_cuda_launched(device, "top_k");
}
