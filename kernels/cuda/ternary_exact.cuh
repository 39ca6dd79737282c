/* ternary_exact.cuh - the least-squares ternary set of a row by one block (docs/methods.md 1;
 * kernels/cpu/ternary_exact.c is the specification).
 *
 * The best cut c is the |w_j| with the largest S^2 / P over {|w| >= c}; of equal ones the largest. No element
 * of the best set is below half its mean and none left out is above, so c lies between half the mean of the
 * row and half its maximum.
 *
 * Without importance no sum that decides has a rounding error, in any order: its terms lie between half the
 * mean of the row and its maximum, which is at most cols times the mean. All are multiples of the last place
 * of the smallest, and their sum is below cols * maximum <= 2 cols^2 * smallest: below 2^53 such places for
 * fp32 while cols <= 2^14, for halves while cols
 * <= 2^20. Beyond, only a row in which a few elements hold nearly all of the sum comes near the limit. */
#ifndef P4_TERNARY_EXACT_CUDA_CUH
#define P4_TERNARY_EXACT_CUDA_CUH

#include "kernels/cuda/ternary.cuh"

enum {
    EXACT_WARPS = QUANT_THREADS_MOST / P4_WARP,
    EXACT_LIST = 1024, /* candidates sorted at once */
    EXACT_FEW = 64,    /* with so few undecided elements another pass is not worth it */
    EXACT_PASSES = 16,
    EXACT_RUN = 32 /* fp32 terms of a thread's partial sum */
};

typedef struct exact_sums {
    double weight, sum; /* sum of h, sum of h |w| */
} exact_sums;

/* A cut among numbered candidates, the largest first. */
typedef struct exact_best {
    double gain;
    int at; /* candidate; INT_MAX: none is better than `gain` */
    exact_sums set;
} exact_best;

static __device__ __forceinline__ double exact_gain(exact_sums set)
{
    return set.weight > 0.0 ? set.sum * set.sum / set.weight : 0.0;
}

/* Half the mean of a set, moved by more than the rounding error of its sums so that it stays a bound (as on
 * the CPU). */
static __device__ __forceinline__ float exact_half_mean(exact_sums set, float direction, float otherwise)
{
    const double slack = 1e-5;
    const double mean = set.sum / set.weight, factor = direction > 0.0f ? 1.0 + slack : 1.0 - slack;
    return set.weight > 0.0 && isfinite(mean) ? nextafterf((float)(0.5 * mean * factor), direction)
                                              : otherwise;
}

/* The largest of a value over the block, in every thread. */
static __device__ __forceinline__ uint32_t exact_block_max(uint32_t x)
{
    __shared__ uint32_t parts[EXACT_WARPS];
#pragma unroll
    for (int step = P4_WARP / 2; step > 0; step /= 2) {
        x = max(x, __shfl_xor_sync(0xffffffffu, x, step));
    }
    __syncthreads();
    if (threadIdx.x % P4_WARP == 0) {
        parts[threadIdx.x / P4_WARP] = x;
    }
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / P4_WARP; w++) {
        x = max(x, parts[w]);
    }
    return x;
}

/* The sums of all threads before this one, and *total of all. */
static __device__ __forceinline__ exact_sums exact_scan(exact_sums own, exact_sums *total)
{
    __shared__ exact_sums parts[EXACT_WARPS];
    const int lane = threadIdx.x % P4_WARP, warp = threadIdx.x / P4_WARP;
    exact_sums up = own;
#pragma unroll
    for (int step = 1; step < P4_WARP; step *= 2) {
        const double weight = __shfl_up_sync(0xffffffffu, up.weight, step);
        const double sum = __shfl_up_sync(0xffffffffu, up.sum, step);
        up.weight += lane >= step ? weight : 0.0;
        up.sum += lane >= step ? sum : 0.0;
    }
    __syncthreads();
    if (lane == P4_WARP - 1) {
        parts[warp] = up;
    }
    exact_sums before = {__shfl_up_sync(0xffffffffu, up.weight, 1), __shfl_up_sync(0xffffffffu, up.sum, 1)};
    if (lane == 0) {
        before.weight = before.sum = 0.0;
    }
    __syncthreads();
    exact_sums all = {0.0, 0.0};
    for (int w = 0; w < (int)blockDim.x / P4_WARP; w++) {
        if (w == warp) {
            before.weight += all.weight;
            before.sum += all.sum;
        }
        all.weight += parts[w].weight;
        all.sum += parts[w].sum;
    }
    *total = all;
    return before;
}

static __device__ __forceinline__ bool exact_is_better(double gain, int at, const exact_best &than)
{
    return gain > than.gain || (gain == than.gain && at < than.at);
}

/* The best of all threads' bests, in every thread. */
static __device__ __forceinline__ exact_best exact_block_best(exact_best best)
{
    __shared__ exact_best parts[EXACT_WARPS];
#pragma unroll
    for (int step = P4_WARP / 2; step > 0; step /= 2) {
        const double gain = __shfl_xor_sync(0xffffffffu, best.gain, step);
        const double weight = __shfl_xor_sync(0xffffffffu, best.set.weight, step);
        const double sum = __shfl_xor_sync(0xffffffffu, best.set.sum, step);
        const int at = __shfl_xor_sync(0xffffffffu, best.at, step);
        if (exact_is_better(gain, at, best)) {
            best.gain = gain;
            best.at = at;
            best.set.weight = weight;
            best.set.sum = sum;
        }
    }
    __syncthreads();
    if (threadIdx.x % P4_WARP == 0) {
        parts[threadIdx.x / P4_WARP] = best;
    }
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / P4_WARP; w++) {
        if (exact_is_better(parts[w].gain, parts[w].at, best)) {
            best = parts[w];
        }
    }
    return best;
}

/* Tries candidates 0 to count - 1 in order, each adding `items.add(at, &set)` to the set, which at first
 * holds *set; a candidate counts where items.ends(at). *set becomes the whole set. The result is better than
 * `gain`, or none. */
template <typename Items>
static __device__ __forceinline__ exact_best exact_try(const Items &items, int count, exact_sums *set,
                                                       double gain)
{
    const int each = (count + (int)blockDim.x - 1) / (int)blockDim.x;
    const int first = min(count, (int)threadIdx.x * each), end = min(count, first + each);
    exact_sums own = {0.0, 0.0}, total;
    for (int at = first; at < end; at++) {
        items.add(at, &own);
    }
    exact_sums here = exact_scan(own, &total);
    here.weight += set->weight;
    here.sum += set->sum;
    exact_best best = {gain, INT_MAX, {0.0, 0.0}};
    for (int at = first; at < end; at++) {
        items.add(at, &here);
        if (items.ends(at)) {
            const double found = exact_gain(here);
            if (found > best.gain) {
                best.gain = found;
                best.at = at;
                best.set = here;
            }
        }
    }
    set->weight += total.weight;
    set->sum += total.sum;
    return exact_block_best(best);
}

/* --- bf16 rows in registers: every magnitude between the bounds has its own counter ----------- */

enum {
    /* Half the mean is at least maximum / (2 cols): the counters of 128 magnitudes an octave and of the first
     * partial one reach for QUANT_CHUNKS * QUANT_THREADS_MOST * 8 = 2^15 columns. */
    EXACT_BINS = 128 * 19
};

struct exact_bins {
    const uint32_t *counts; /* counts[at]: elements of magnitude largest - at */
    uint32_t largest;
    __device__ __forceinline__ void add(int at, exact_sums *set) const
    {
        const double count = (double)counts[at];
        set->weight += count;
        set->sum += count * (double)__uint_as_float((largest - (uint32_t)at) << 16);
    }
    __device__ __forceinline__ bool ends(int at) const
    {
        return counts[at] > 0;
    }
};

/* The cut and the scale of a row that is not zero and has no infinite element. */
static __device__ __forceinline__ void exact_bf16_row(const uint4 (&piece)[QUANT_CHUNKS], uint32_t *counts,
                                                      double mean, uint32_t largest, float *cut, float *scale)
{
    const float low = exact_half_mean({1.0, mean}, 0.0f, 0.0f);
    const uint32_t low_key = max(1u, __float_as_uint(low) >> 16);
    const int bins = (int)(largest - low_key) + 1;
    for (int b = (int)threadIdx.x; b < bins; b += (int)blockDim.x) {
        counts[b] = 0;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < QUANT_CHUNKS; i++) { /* pieces past the row are 0, below low_key */
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const uint32_t magnitude = quant_form<P4_BF16>::magnitude(quant_bits<P4_BF16>(piece[i], e));
            if (magnitude >= low_key) {
                atomicAdd(&counts[largest - magnitude], 1u);
            }
        }
    }
    __syncthreads();
    const exact_bins items = {counts, largest};
    exact_sums set = {0.0, 0.0};
    const exact_best best = exact_try(items, bins, &set, 0.0);
    *cut = __uint_as_float((largest - (uint32_t)best.at) << 16);
    *scale = (float)(best.set.sum / best.set.weight);
}

#endif
