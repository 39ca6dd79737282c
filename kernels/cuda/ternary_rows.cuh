/* ternary_rows.cuh - quantizes a row of any type, layout and length by one block, with or without
 * importance. The method is that of kernels/cpu/ternary_exact.c: bounds of the best cut are tightened until
 * few elements are undecided, and those are sorted and tried one by one. */
#ifndef P4_TERNARY_ROWS_CUDA_CUH
#define P4_TERNARY_ROWS_CUDA_CUH

#include "kernels/cuda/ternary_exact.cuh"

enum {
    ROWS_THREADS = 256,
    ROWS_STAGED_MOST = 20480 /* floats of a row kept in shared memory: 80 KiB, which every GPU has */
};

/* A row's elements: in shared memory as fp32, or where they lie. */
typedef struct row_view {
    const float *staged;
    const void *data;
    int64_t first, step; /* elements of data */
    int64_t cols;
    p4_dtype dtype;
} row_view;

static __device__ __forceinline__ float row_fetch(const row_view *row, int64_t c)
{
    const int64_t at = row->first + c * row->step;
    if (row->dtype == P4_F32) {
        return ((const float *)row->data)[at];
    }
    return row->dtype == P4_F16 ? __half2float(((const __half *)row->data)[at])
                                : __bfloat162float(((const __nv_bfloat16 *)row->data)[at]);
}

static __device__ __forceinline__ float row_value(const row_view *row, int64_t c)
{
    return row->staged ? row->staged[c] : row_fetch(row, c);
}

static __device__ __forceinline__ float row_magnitude(const row_view *row, int64_t c)
{
    return fabsf(row_value(row, c));
}

static __device__ __forceinline__ float row_importance(const float *h, int64_t c)
{
    return h ? h[c] : 1.0f;
}

/* The block copies the row into `stage` unless that is NULL. */
static __device__ __forceinline__ row_view row_open(const quant_task *k, int64_t index, float *stage)
{
    row_view row = {NULL, k->data, index * k->row_step, k->col_step, k->cols, k->dtype};
    if (stage) {
#pragma unroll 8
        for (int64_t c = threadIdx.x; c < k->cols; c += blockDim.x) {
            stage[c] = row_fetch(&row, c);
        }
        row.staged = stage;
        __syncthreads();
    }
    return row;
}

static __device__ __forceinline__ double row_abs_sum(const row_view *row)
{
    double sum = 0.0;
    for (int64_t c = threadIdx.x; c < row->cols; c += blockDim.x) {
        sum += (double)row_magnitude(row, c);
    }
    return p4_block_sum(sum);
}

/* Codes, four a byte, padded with code 1; the scale; the error. */
static __device__ __forceinline__ void row_finish(const quant_task *k, int64_t index, const row_view *row,
                                                  float cut, float scale, quant_sums *sums)
{
    const float stored = __half2float(__float2half_rn(scale));
    for (int64_t b = threadIdx.x; b < k->row_bytes; b += blockDim.x) {
        uint32_t codes = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int64_t c = 4 * b + i;
            const float value = c < row->cols ? row_value(row, c) : 0.0f;
            codes |= (value >= cut ? 2u : value <= -cut ? 0u : 1u) << 2 * i;
            if (k->parts && c < row->cols) {
                quant_add_error(sums, value, cut, stored);
            }
        }
        k->codes[index * k->row_bytes + b] = (uint8_t)codes;
    }
    if (threadIdx.x == 0) {
        quant_store_scale(k, index, scale, sums);
    }
}

/* --- exact ------------------------------------------------------------------------------------ */

/* The elements at or above `low`, and those above `high`. */
typedef struct row_bounds {
    float low, high;
    exact_sums at_low, above_high;
    int64_t undecided; /* between the two */
} row_bounds;

/* A thread's terms in fp32, at most EXACT_RUN of each, or one a warp: what half_mean's slack allows for. */
typedef struct bound_terms {
    float low_weight, low_sum, high_weight, high_sum, undecided;
} bound_terms;

static __device__ __forceinline__ void add_terms(bound_terms *to, const bound_terms &from)
{
    to->low_weight += from.low_weight;
    to->low_sum += from.low_sum;
    to->high_weight += from.high_weight;
    to->high_sum += from.high_sum;
    to->undecided += from.undecided;
}

/* The terms of elements first + threadIdx.x, + blockDim.x, ..., summed over the warp. */
static __device__ __forceinline__ bound_terms warp_terms(const row_view *row, const float *h, int64_t first,
                                                         const row_bounds *b)
{
    bound_terms own = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    const int64_t end = min(row->cols, first + (int64_t)blockDim.x * EXACT_RUN);
    for (int64_t c = first + threadIdx.x; c < end; c += blockDim.x) {
        const float magnitude = row_magnitude(row, c), weight = row_importance(h, c);
        const bool at_low = magnitude >= b->low, above_high = magnitude > b->high;
        own.low_weight += at_low ? weight : 0.0f;
        own.low_sum += at_low ? weight * magnitude : 0.0f;
        own.high_weight += above_high ? weight : 0.0f;
        own.high_sum += above_high ? weight * magnitude : 0.0f;
        own.undecided += (at_low ? 1.0f : 0.0f) - (above_high ? 1.0f : 0.0f);
    }
#pragma unroll
    for (int step = P4_WARP / 2; step > 0; step /= 2) {
        bound_terms other;
        other.low_weight = __shfl_xor_sync(0xffffffffu, own.low_weight, step);
        other.low_sum = __shfl_xor_sync(0xffffffffu, own.low_sum, step);
        other.high_weight = __shfl_xor_sync(0xffffffffu, own.high_weight, step);
        other.high_sum = __shfl_xor_sync(0xffffffffu, own.high_sum, step);
        other.undecided = __shfl_xor_sync(0xffffffffu, own.undecided, step);
        add_terms(&own, other);
    }
    return own;
}

static __device__ __forceinline__ void sum_sets(row_bounds *b, const row_view *row, const float *h)
{
    __shared__ bound_terms parts[EXACT_WARPS];
    double sums[5] = {0.0, 0.0, 0.0, 0.0, 0.0};
    for (int64_t first = 0; first < row->cols; first += (int64_t)blockDim.x * EXACT_RUN) {
        const bound_terms own = warp_terms(row, h, first, b);
        __syncthreads();
        if (threadIdx.x % P4_WARP == 0) {
            parts[threadIdx.x / P4_WARP] = own;
        }
        __syncthreads();
        for (unsigned w = 0; w < blockDim.x / P4_WARP; w++) {
            sums[0] += (double)parts[w].low_weight;
            sums[1] += (double)parts[w].low_sum;
            sums[2] += (double)parts[w].high_weight;
            sums[3] += (double)parts[w].high_sum;
            sums[4] += (double)parts[w].undecided;
        }
    }
    b->at_low = {sums[0], sums[1]};
    b->above_high = {sums[2], sums[3]};
    b->undecided = (int64_t)sums[4];
}

static __device__ __forceinline__ row_bounds narrow(const row_view *row, const float *h, exact_sums whole,
                                                    float largest)
{
    row_bounds b;
    b.low = exact_half_mean(whole, 0.0f, 0.0f);
    b.high = 0.5f * largest;
    for (int pass = 1;; pass++) {
        sum_sets(&b, row, h);
        if (b.undecided <= EXACT_FEW || pass == EXACT_PASSES) {
            return b;
        }
        const float low = fmaxf(b.low, exact_half_mean(b.at_low, 0.0f, b.low));
        const float high = fminf(b.high, exact_half_mean(b.above_high, INFINITY, b.high));
        if (!(low > b.low) && !(high < b.high)) {
            return b;
        }
        b.low = low;
        b.high = high;
    }
}

/* The sums of the elements whose magnitude's bits are from `from` to `to`, in double. */
static __device__ __forceinline__ exact_sums sums_between(const row_view *row, const float *h, uint32_t from,
                                                          uint32_t to)
{
    double weight = 0.0, sum = 0.0;
    for (int64_t c = threadIdx.x; c < row->cols; c += blockDim.x) {
        const float magnitude = row_magnitude(row, c);
        const uint32_t bits = __float_as_uint(magnitude);
        if (bits >= from && bits <= to) {
            const double importance = (double)row_importance(h, c);
            weight += importance;
            sum += importance * (double)magnitude;
        }
    }
    return {p4_block_sum(weight), p4_block_sum(sum)};
}

/* Is element c a candidate for the cut? One without importance adds nothing: its gain is that of the
 * candidate before it but for the rounding of sums in another order, which must not decide. */
static __device__ __forceinline__ bool is_candidate(const row_view *row, const float *h, int64_t c,
                                                    uint32_t from, uint32_t to)
{
    const uint32_t bits = __float_as_uint(row_magnitude(row, c));
    return bits >= from && bits <= to && row_importance(h, c) > 0.0f;
}

static __device__ __forceinline__ int64_t count_between(const row_view *row, const float *h, uint32_t from,
                                                        uint32_t to)
{
    long long count = 0;
    for (int64_t c = threadIdx.x; c < row->cols; c += blockDim.x) {
        count += is_candidate(row, h, c, from, to) ? 1 : 0;
    }
    return p4_block_sum(count);
}

/* Magnitude bits (high half) and importance bits (low half). */
struct list_items {
    const unsigned long long *list;
    int count;
    __device__ __forceinline__ void add(int at, exact_sums *set) const
    {
        const double importance = (double)__uint_as_float((uint32_t)list[at]);
        set->weight += importance;
        set->sum += importance * (double)__uint_as_float((uint32_t)(list[at] >> 32));
    }
    __device__ __forceinline__ bool ends(int at) const
    {
        return at + 1 == count || list[at + 1] >> 32 != list[at] >> 32;
    }
};

/* Sorts the first `count` of a list of EXACT_LIST, largest first: a bitonic network. Equal entries are the
 * same, so the order in which threads filled the list does not matter. */
static __device__ __forceinline__ void sort_list(unsigned long long *list, int count)
{
    int size = 2;
    while (size < count) {
        size *= 2;
    }
    for (int i = count + (int)threadIdx.x; i < size; i += (int)blockDim.x) {
        list[i] = 0;
    }
    for (int run = 2; run <= size; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int i = (int)threadIdx.x; i < size; i += (int)blockDim.x) {
                const int other = i ^ step;
                if (other > i && (list[i] < list[other]) == ((i & run) == 0)) {
                    const unsigned long long moving = list[i];
                    list[i] = list[other];
                    list[other] = moving;
                }
            }
        }
    }
    __syncthreads();
}

/* The candidates with magnitude bits from `from` to `to`, EXACT_LIST at most, as a sorted list. */
static __device__ __forceinline__ list_items collect(unsigned long long *list, const row_view *row,
                                                     const float *h, uint32_t from, uint32_t to)
{
    __shared__ int filled;
    __syncthreads();
    if (threadIdx.x == 0) {
        filled = 0;
    }
    __syncthreads();
    for (int64_t c = threadIdx.x; c < row->cols; c += blockDim.x) {
        if (is_candidate(row, h, c, from, to)) {
            list[atomicAdd(&filled, 1)] = (unsigned long long)__float_as_uint(row_magnitude(row, c)) << 32 |
                                          __float_as_uint(row_importance(h, c));
        }
    }
    __syncthreads();
    const list_items items = {list, filled};
    sort_list(list, items.count);
    return items;
}

/* The least bits f >= from with at most EXACT_LIST candidates from f to `to`; to + 1 when `to` alone has
 * more. */
static __device__ __forceinline__ uint32_t list_start(const row_view *row, const float *h, uint32_t from,
                                                      uint32_t to, int64_t count)
{
    uint32_t too_low = from, fits = to + 1;
    if (count <= EXACT_LIST) {
        return from;
    }
    while (fits - too_low > 1) {
        const uint32_t middle = too_low + (fits - too_low) / 2;
        if (count_between(row, h, middle, to) <= EXACT_LIST) {
            fits = middle;
        } else {
            too_low = middle;
        }
    }
    return fits;
}

/* What has been found so far. */
typedef struct exact_found {
    double gain;
    uint32_t cut_bits; /* infinite: all above the undecided, or nothing */
    float scale;
} exact_found;

/* Tries the undecided magnitudes from `from` to `to`, largest first, in lists that fit; a magnitude that
 * alone is too many is one candidate. `list`: EXACT_LIST in shared memory. */
static __device__ __forceinline__ void try_undecided(exact_found *found, const row_view *row, const float *h,
                                                     exact_sums set, uint32_t from, uint32_t to,
                                                     unsigned long long *list)
{
    int64_t left = from <= to ? count_between(row, h, from, to) : 0;
    while (left > 0) {
        const uint32_t start = list_start(row, h, from, to, left);
        if (start > to) {
            const exact_sums run = sums_between(row, h, to, to);
            set.weight += run.weight;
            set.sum += run.sum;
            if (exact_gain(set) > found->gain) {
                found->gain = exact_gain(set);
                found->cut_bits = to;
                found->scale = (float)(set.sum / set.weight);
            }
            left -= count_between(row, h, to, to);
            to -= 1;
            continue;
        }
        const list_items items = collect(list, row, h, start, to);
        const exact_best best = exact_try(items, items.count, &set, found->gain);
        if (best.at != INT_MAX) {
            found->gain = best.gain;
            found->cut_bits = (uint32_t)(list[best.at] >> 32);
            found->scale = (float)(best.set.sum / best.set.weight);
        }
        left -= items.count;
        to = start - 1;
    }
}

/* The least magnitude above `high` that has importance. */
static __device__ __forceinline__ float least_above(const row_view *row, const float *h, float high)
{
    float least = INFINITY;
    for (int64_t c = threadIdx.x; c < row->cols; c += blockDim.x) {
        const float magnitude = row_magnitude(row, c);
        if (magnitude > high && magnitude < least && row_importance(h, c) > 0.0f) {
            least = magnitude;
        }
    }
    return -p4_block_max(-least);
}

static __device__ __forceinline__ void exact_row(const row_view *row, const float *h,
                                                 unsigned long long *list, float *cut, float *scale)
{
    const uint32_t infinite = 0x7f800000u;
    uint32_t largest = 0;
    for (int64_t c = threadIdx.x; c < row->cols; c += blockDim.x) {
        largest = max(largest, __float_as_uint(row_magnitude(row, c)));
    }
    largest = exact_block_max(largest);
    const exact_sums whole = sums_between(row, h, 0, infinite);
    *cut = INFINITY;
    *scale = 0.0f;
    if (!(whole.sum > 0.0) || largest >= infinite) {
        return;
    }
    const row_bounds b = narrow(row, h, whole, __uint_as_float(largest));
    const uint32_t low = __float_as_uint(b.low), high = __float_as_uint(b.high);
    const exact_sums above = sums_between(row, h, high + 1, infinite);
    const double gain = exact_gain(above);
    exact_found found = {gain, infinite, gain > 0.0 ? (float)(above.sum / above.weight) : 0.0f};
    try_undecided(&found, row, h, above, low, high, list);
    *scale = found.scale;
    *cut = __uint_as_float(found.cut_bits);
    if (found.cut_bits == infinite && found.scale > 0.0f) {
        *cut = least_above(row, h, b.high);
    }
}

#endif
