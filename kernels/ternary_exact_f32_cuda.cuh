/* ternary_exact_f32_cuda.cuh - the least-squares ternary set of an fp32 row held in registers, read once.
 *
 * The magnitudes are counted by their upper 16 bits, as a bf16 row's are (ternary_exact_cuda.cuh), and beside the counts
 * stand the sums of their lower 16 bits: together the sums of every bin without rounding error. The best cut at the end of
 * a bin follows at once. Inside a bin a cut c can only be best where half the mean of the set passes c, so only bins that
 * half the mean passes are looked into, element by element: one, for nearly every row. */
#ifndef P4_TERNARY_EXACT_F32_CUDA_CUH
#define P4_TERNARY_EXACT_F32_CUDA_CUH

#include "ternary_rows_cuda.cuh"

enum { PASSED_MOST = 16 };

/* The bins that half the mean passes, in any order. */
typedef struct passed_bins {
    int count; /* may exceed PASSED_MOST: then there are too many */
    struct {
        int at;
        exact_sums above; /* the set of all bins above this one */
    } bin[PASSED_MOST];
} passed_bins;

/* bins[at]: of the elements with upper bits largest - at, the count (y) and the sum of their lower bits (x). A row in
 * registers has at most 2^14 elements, so neither overflows. */
struct exact_sum_bins {
    const uint2 *bins;
    uint32_t largest;
    passed_bins *passed;
    __device__ __forceinline__ float least(int at) const
    {
        return __uint_as_float((largest - (uint32_t)at) << 16);
    }
    __device__ __forceinline__ void add(int at, exact_sums *set) const
    {
        const double count = (double)bins[at].y, lower = (double)bins[at].x;
        const uint32_t bits = (largest - (uint32_t)at) << 16;
        const double base = (double)__uint_as_float(bits), unit = (double)__uint_as_float(bits | 1u) - base;
        set->weight += count;
        set->sum += count * base + lower * unit;
    }
    __device__ __forceinline__ bool ends(int at) const
    {
        return bins[at].y > 0;
    }
    /* While the bin's elements are added, the mean falls from that of the set above, or at most the bin's end. */
    __device__ __forceinline__ void visit(int at, const exact_sums &above, const exact_sums &with) const
    {
        const double slack = 1e-9, low = (double)least(at), high = (double)least(at - 1);
        const double most = above.weight > 0.0 ? above.sum / above.weight : high;
        if (bins[at].y == 0 || 0.5 * most < (1.0 - slack) * low ||
            0.5 * with.sum > (1.0 + slack) * with.weight * high) {
            return;
        }
        const int slot = atomicAdd(&passed->count, 1);
        if (slot < PASSED_MOST) {
            passed->bin[slot].at = at;
            passed->bin[slot].above = above;
        }
    }
};

/* The row's magnitudes in bin `at`, largest first; false when they do not fit into the list. */
static __device__ __forceinline__ bool list_bin(unsigned long long *list, list_items *items,
                                                const uint4 (&piece)[QUANT_CHUNKS], uint32_t key)
{
    __shared__ int filled;
    __syncthreads(); /* the list and the count of the bin before have been read */
    if (threadIdx.x == 0) {
        filled = 0;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < QUANT_CHUNKS; i++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t magnitude = quant_form<P4_F32>::magnitude(quant_bits<P4_F32>(piece[i], e));
            const int at = magnitude > 0 && magnitude >> 16 == key ? atomicAdd(&filled, 1) : EXACT_LIST;
            if (at < EXACT_LIST) {
                list[at] = (unsigned long long)magnitude << 32 | __float_as_uint(1.0f);
            }
        }
    }
    __syncthreads();
    items->list = list;
    items->count = filled;
    if (filled <= EXACT_LIST) {
        sort_list(list, filled);
    }
    return filled <= EXACT_LIST;
}

/* Counts the row's elements with upper bits from low_key on; zeros, also those past the row, are never of the set. */
static __device__ __forceinline__ void count_bins(uint2 *bins, int count,
                                                  const uint4 (&piece)[QUANT_CHUNKS], uint32_t largest,
                                                  uint32_t low_key)
{
    for (int b = (int)threadIdx.x; b < count; b += (int)blockDim.x) {
        bins[b] = make_uint2(0, 0);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < QUANT_CHUNKS; i++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t magnitude = quant_form<P4_F32>::magnitude(quant_bits<P4_F32>(piece[i], e));
            if (magnitude > 0 && magnitude >> 16 >= low_key) {
                uint2 *bin = &bins[largest - (magnitude >> 16)];
                atomicAdd(&bin->x, magnitude & 0xffffu);
                atomicAdd(&bin->y, 1u);
            }
        }
    }
    __syncthreads();
}

/* The cut and the scale of a row that holds something and nothing infinite; `mean` of its magnitudes, `largest` of their
 * upper bits. False when the bins that half the mean passes are too many or too full. */
static __device__ __forceinline__ bool exact_f32_row(const uint4 (&piece)[QUANT_CHUNKS], uint2 *bins,
                                                     double mean, uint32_t largest, float *cut, float *scale)
{
    __shared__ unsigned long long list[EXACT_LIST];
    __shared__ passed_bins passed;
    const uint32_t low_key = __float_as_uint(exact_half_mean({1.0, mean}, 0.0f, 0.0f)) >> 16;
    const int count = (int)(largest - low_key) + 1;
    if (count <= 0 || count > EXACT_BINS) {
        return false;
    }
    if (threadIdx.x == 0) {
        passed.count = 0;
    }
    count_bins(bins, count, piece, largest, low_key);
    const exact_sum_bins items = {bins, largest, &passed};
    exact_sums set = {0.0, 0.0};
    exact_best best = exact_try(items, count, &set, 0.0);
    uint32_t cut_bits = max(1u, (largest - (uint32_t)best.at) << 16); /* a zero has no sign */
    __syncthreads();
    for (int i = 0; i < min(passed.count, (int)PASSED_MOST); i++) {
        list_items inside;
        set = passed.bin[i].above;
        if (!list_bin(list, &inside, piece, largest - (uint32_t)passed.bin[i].at)) {
            return false;
        }
        const exact_best found = exact_try(inside, inside.count, &set, 0.0);
        const uint32_t bits = (uint32_t)(list[found.at] >> 32);
        if (found.gain > best.gain || (found.gain == best.gain && bits > cut_bits)) {
            best = found;
            cut_bits = bits;
        }
    }
    *cut = __uint_as_float(cut_bits);
    *scale = (float)(best.set.sum / best.set.weight);
    return passed.count <= PASSED_MOST;
}

#endif
