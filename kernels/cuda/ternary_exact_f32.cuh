/* ternary_exact_f32.cuh - the least-squares ternary set of an fp32 row held in registers, read once: by
 * a warp, or by a block where it is long.
 *
 * Let a be the mean of the best set {|w| >= c}. No element of it is below a/2 (removing it would gain) and
 * none left out is above (adding it would gain). So if a/2 lies in [lo, hi), the set has all elements from hi
 * on and none below lo, and a is at least the mean of {|w| >= lo} and at most that of {|w| >= hi}. The
 * magnitudes are counted by their upper 16 bits, from half the mean of the row on. The counts bound both
 * means for each of these bins and leave few bins in which a/2 can lie: about four beside each other,
 * unless the row is a strange one. Their elements, about one in a hundred, are undecided. They are set aside,
 * and each is tried as the cut, with the sum of all above them. Sums that decide are exact
 * (kernels/cuda/ternary_exact.cuh), so the order in which elements are set aside does not matter. */
#ifndef P4_TERNARY_EXACT_F32_CUDA_CUH
#define P4_TERNARY_EXACT_F32_CUDA_CUH

#include "kernels/cuda/ternary_rows.cuh"

/* A set of elements known by their bins: how many, and the sum if each were the least of its bin, or its
 * bin's end. */
typedef struct bin_sums {
    float low, high;
    int count;
} bin_sums;

typedef struct exact_bracket {
    float from, to;       /* half the mean of the best set lies in [from, to) */
    int above, undecided; /* elements from `to` on, and in [from, to) */
} exact_bracket;

typedef struct exact_cut {
    double gain, sum;
    int count;
    float cut; /* the set is {|w| >= cut} */
} exact_cut;

/* What the threads of a row share: THREADS at most, one warp or several. */
template <int THREADS> struct exact_space {
    static constexpr int BINS = 2048; /* of 2^14 elements none is above 2^15 times half the mean */
    static constexpr int DEPTH = THREADS == P4_WARP ? 16 : 8;
    static constexpr int UNDECIDED = THREADS == P4_WARP ? 256 : 512; /* tried against one another */
    union {
        struct {
            uint32_t waste[P4_WARP]; /* elements below the first bin are counted here */
            uint32_t bins[BINS];     /* elements with upper bits low_key + i */
        };
        uint4 aside[DEPTH][THREADS];         /* then: each thread's pieces with undecided elements */
        unsigned long long list[EXACT_LIST]; /* for a row that is given up: exact_row's */
    };
    double undecided[UNDECIDED];
    int undecided_count;
    struct {
        float sum, largest;
        double above;
        exact_cut best;
    } warp[THREADS / P4_WARP];
};

template <int THREADS> static __device__ __forceinline__ void exact_sync(void)
{
    if (THREADS == P4_WARP) {
        __syncwarp();
    } else {
        __syncthreads();
    }
}

/* Each warp has CHUNKS * 32 pieces of 16 bytes beside each other, a lane every 32nd: this thread's first. */
template <int CHUNKS> static __device__ __forceinline__ int exact_first_piece(void)
{
    return (int)(threadIdx.x / P4_WARP) * CHUNKS * P4_WARP + (int)(threadIdx.x % P4_WARP);
}

/* Pieces past the row are 0. */
template <int CHUNKS>
static __device__ __forceinline__ void exact_load_row(uint4 (&piece)[CHUNKS], const quant_task *k,
                                                      int64_t row)
{
    const int first = exact_first_piece<CHUNKS>(), left = (int)(k->cols / 4) - first;
    const uint4 *from = (const uint4 *)k->data + row * (k->cols / 4) + first;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        piece[i] = i * P4_WARP < left ? __ldcs(from + i * P4_WARP) : make_uint4(0, 0, 0, 0);
    }
}

/* The sum of the row's magnitudes, to 2^-18 of itself, and the largest. An infinite sum or NaN: an element is
 * not finite, or the sum beyond fp32. */
template <int CHUNKS, int THREADS>
static __device__ __forceinline__ void
sum_and_largest(const uint4 (&piece)[CHUNKS], exact_space<THREADS> *space, float *sum, float *largest)
{
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f}, most[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float magnitude = fabsf(__uint_as_float(quant_bits<P4_F32>(piece[i], e)));
            sums[e] += magnitude;
            most[e] = fmaxf(most[e], magnitude);
        }
    }
    *sum = p4_warp_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    *largest = fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3]));
    *largest = __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(*largest)));
    if (THREADS > P4_WARP) {
        if (threadIdx.x % P4_WARP == 0) {
            space->warp[threadIdx.x / P4_WARP].sum = *sum;
            space->warp[threadIdx.x / P4_WARP].largest = *largest;
        }
        __syncthreads();
        *sum = *largest = 0.0f;
        for (unsigned w = 0; w < blockDim.x / P4_WARP; w++) {
            *sum += space->warp[w].sum;
            *largest = fmaxf(*largest, space->warp[w].largest);
        }
    }
}

/* Where bits are counted, in bytes after the counter of zero. */
static __device__ __forceinline__ int exact_bin_bytes(uint32_t bits)
{
    return (int)(bits >> 14 & 0x1fffcu);
}

/* Counts the elements whose upper bits are at least those of `low` into `count` bins. */
template <int CHUNKS, int THREADS>
static __device__ __forceinline__ void count_bins(const uint4 (&piece)[CHUNKS], exact_space<THREADS> *space,
                                                  uint32_t low, int count)
{
    const int before = -(int)sizeof *space->bins * (int)(1 + threadIdx.x % P4_WARP);
    const int low_bytes = exact_bin_bytes(low);
    for (int b = (int)threadIdx.x; b < count; b += THREADS == P4_WARP ? P4_WARP : (int)blockDim.x) {
        space->bins[b] = 0;
    }
    exact_sync<THREADS>();
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
#pragma unroll
        for (int e = 0; e < 4;
             e++) { /* small elements without a branch: each lane has a discard counter of its own */
            const int at = max(exact_bin_bytes(quant_bits<P4_F32>(piece[i], e)) - low_bytes, before);
            atomicAdd((uint32_t *)((char *)space->bins + at), 1u);
        }
    }
    exact_sync<THREADS>();
}

static __device__ __forceinline__ float bin_end(uint32_t key)
{
    return __uint_as_float((key + 1) << 16);
}

static __device__ __forceinline__ void add_bin(bin_sums *set, uint32_t key, uint32_t count)
{
    set->low = fmaf((float)count, bin_end(key - 1), set->low);
    set->high = fmaf((float)count, bin_end(key), set->high);
    set->count += (int)count;
}

/* `above` plus what all lanes before this one add to it. */
static __device__ __forceinline__ bin_sums sums_before(bin_sums above, bin_sums own)
{
    const int lane = threadIdx.x % P4_WARP;
#pragma unroll
    for (int step = 1; step < P4_WARP; step *= 2) {
        const float low = __shfl_up_sync(0xffffffffu, own.low, step);
        const float high = __shfl_up_sync(0xffffffffu, own.high, step);
        const int count = __shfl_up_sync(0xffffffffu, own.count, step);
        own.low += lane >= step ? low : 0.0f;
        own.high += lane >= step ? high : 0.0f;
        own.count += lane >= step ? count : 0;
    }
    const float low = __shfl_up_sync(0xffffffffu, own.low, 1),
                high = __shfl_up_sync(0xffffffffu, own.high, 1);
    const int count = __shfl_up_sync(0xffffffffu, own.count, 1);
    return {above.low + (lane > 0 ? low : 0.0f), above.high + (lane > 0 ? high : 0.0f),
            above.count + (lane > 0 ? count : 0)};
}

static __device__ __forceinline__ bin_sums sums_of_lane(bin_sums sums, int lane)
{
    return {__shfl_sync(0xffffffffu, sums.low, lane), __shfl_sync(0xffffffffu, sums.high, lane),
            __shfl_sync(0xffffffffu, sums.count, lane)};
}

/* Can half the mean a of the best set lie in [from, to)? a is at most the mean of all elements above and at
 * least that with those inside; and a times the sum, which is the gain, must reach one that is known. The
 * slack is more than the rounding error of sums of BINS / 32 + 12 terms. None above: no, as a is not more
 * than the largest element, and [from, to) is less than one octave. */
static __device__ __forceinline__ bool may_hold_half_mean(const bin_sums &above, const bin_sums &with,
                                                          float from, float to, float known_gain)
{
    const float slack = 2e-5f, count = (float)above.count;
    return above.high * (0.5f + slack) > from * count && with.low * (0.5f - slack) < to * (float)with.count &&
           above.high * with.high * (1.0f + 4.0f * slack) >= known_gain * count;
}

/* Where half the mean of the best set can lie, by a warp. From the largest bin down, each lane first sums
 * `each` bins; then the bins of the lanes that are left, one or two in most rows, are looked at one by one.
 */
static __device__ __forceinline__ exact_bracket exact_bracket_of(const uint32_t *bins, uint32_t low_key,
                                                                 int count)
{
    const uint32_t all = 0xffffffffu;
    const int lane = threadIdx.x % P4_WARP;
    const int each = (count + P4_WARP - 1) / P4_WARP | 1; /* odd: lanes read different banks */
    const int first = count - 1 - lane * each, end = max(-1, first - each);
    bin_sums own = {0.0f, 0.0f, 0};
    for (int at = first; at > end; at--) {
        add_bin(&own, low_key + at, bins[at]);
    }
    bin_sums above = sums_before({0.0f, 0.0f, 0}, own);
    const bin_sums with = {above.low + own.low, above.high + own.high, above.count + own.count};
    const float gain = with.low * with.low / (float)with.count;
    const float known = __uint_as_float(__reduce_max_sync(all, __float_as_uint(gain)));
    const uint32_t lanes =
        __ballot_sync(all, first > end && may_hold_half_mean(above, with, bin_end(low_key + end),
                                                             bin_end(low_key + first), known));
    const int top = __ffs((int)lanes) - 1, bottom = P4_WARP - 1 - __clz((int)lanes);
    exact_bracket b = {0.0f, 0.0f, 0, -1};
    above = sums_of_lane(above, top);
    for (int at = count - 1 - top * each - lane; at + lane > count - 1 - (bottom + 1) * each; at -= P4_WARP) {
        const uint32_t key = low_key + max(at, 0);
        own = {0.0f, 0.0f, 0};
        add_bin(&own, key, at >= 0 ? bins[at] : 0);
        above = sums_before(above, own);
        const bin_sums here = {above.low + own.low, above.high + own.high, above.count + own.count};
        const uint32_t held = __ballot_sync(
            all, at >= 0 && may_hold_half_mean(above, here, bin_end(key - 1), bin_end(key), known));
        if (held != 0) {
            const int high = __ffs((int)held) - 1, low = P4_WARP - 1 - __clz((int)held);
            if (b.undecided < 0) {
                b.to = bin_end(__shfl_sync(all, key, high));
                b.above = __shfl_sync(all, above.count, high);
            }
            b.from = bin_end(__shfl_sync(all, key, low) - 1);
            b.undecided = __shfl_sync(all, here.count, low) - b.above;
        }
        above = sums_of_lane(here, P4_WARP - 1);
    }
    return b;
}

static __device__ __forceinline__ bool exact_inside(uint32_t bits, const exact_bracket &b)
{
    const float magnitude = fabsf(__uint_as_float(bits));
    return magnitude >= b.from && magnitude < b.to;
}

/* The thread's sum of magnitudes from b.to on, in units of quant_form. Its pieces that have an undecided
 * element, or one that equals b.to, are set aside, *pieces of them; those that do not fit are lost. */
template <int CHUNKS, int THREADS>
static __device__ __forceinline__ double set_aside(const uint4 (&piece)[CHUNKS], exact_space<THREADS> *space,
                                                   const exact_bracket &b, int *pieces)
{
    const float middle = 0.5f * (b.from + b.to), reach = b.to - middle; /* exact */
    double above[2] = {0.0, 0.0};
    int used = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        bool near = false;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float magnitude = fabsf(__uint_as_float(quant_bits<P4_F32>(piece[i], e)));
            const float added = magnitude >= b.to ? magnitude : 0.0f;
            above[e % 2] += quant_form<P4_F32>::scaled(__float_as_uint(added));
            near = near || fabsf(magnitude - middle) <= reach;
        }
        if (near) {
            space->aside[used][threadIdx.x] = piece[i];
            used = min(used + 1, exact_space<THREADS>::DEPTH - 1);
        }
    }
    *pieces = used;
    return above[0] + above[1];
}

/* The row's sum from the threads' sums; the undecided elements set aside become one list. True if it has all
 * of them. */
template <int THREADS>
static __device__ __forceinline__ bool gather(exact_space<THREADS> *space, const exact_bracket &b,
                                              double *above, int pieces)
{
    const int lane = threadIdx.x % P4_WARP, warp = threadIdx.x / P4_WARP;
    int own = 0;
#pragma unroll 1 /* few, and not known before */
    for (int i = 0; i < pieces; i++) {
        const uint4 piece = space->aside[i][threadIdx.x];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            own += exact_inside(quant_bits<P4_F32>(piece, e), b) ? 1 : 0;
        }
    }
    int end = own, start = 0;
#pragma unroll
    for (int step = 1; step < P4_WARP; step *= 2) {
        const int up = __shfl_up_sync(0xffffffffu, end, step);
        end += lane >= step ? up : 0;
    }
    *above = p4_warp_sum(*above);
    int total = __shfl_sync(0xffffffffu, end, P4_WARP - 1);
    if (THREADS > P4_WARP) {
        if (lane == 0) {
            space->warp[warp].above = *above;
            start = atomicAdd(&space->undecided_count, total);
        }
        start = __shfl_sync(0xffffffffu, start, 0);
    }
    start += end - own;
#pragma unroll 1 /* few, and not known before */
    for (int i = 0; i < pieces; i++) {
        const uint4 piece = space->aside[i][threadIdx.x];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t bits = quant_bits<P4_F32>(piece, e);
            if (exact_inside(bits, b)) {
                space->undecided[start++] = (double)fabsf(__uint_as_float(bits));
            }
        }
    }
    exact_sync<THREADS>();
    if (THREADS > P4_WARP) {
        total = space->undecided_count;
        *above = 0.0;
        for (unsigned w = 0; w < blockDim.x / P4_WARP; w++) {
            *above += space->warp[w].above;
        }
    }
    *above *= quant_form<P4_F32>::unit;
    return total == b.undecided;
}

/* Of equal gains the larger cut is better, that is the smaller set. */
static __device__ __forceinline__ void exact_keep_better(exact_cut *best, const exact_cut &other)
{
    if (other.gain > best->gain || (other.gain == best->gain && other.cut > best->cut)) {
        *best = other;
    }
}

/* The best of the warp, in every lane. A gain is not negative: its bits are ordered as it is. */
static __device__ __forceinline__ exact_cut exact_warp_best(exact_cut own)
{
    const uint32_t all = 0xffffffffu;
    const uint64_t gain = (uint64_t)__double_as_longlong(own.gain);
    const uint32_t upper = (uint32_t)(gain >> 32), lower = (uint32_t)gain, cut = __float_as_uint(own.cut);
    bool best = upper == __reduce_max_sync(all, upper);
    const uint32_t most_lower = __reduce_max_sync(all, best ? lower : 0u);
    best = best && lower == most_lower;
    const uint32_t most_cut = __reduce_max_sync(all, best ? cut : 0u);
    best = best && cut == most_cut;
    const int lane = __ffs((int)__ballot_sync(all, best)) - 1;
    return {__shfl_sync(all, own.gain, lane), __shfl_sync(all, own.sum, lane),
            __shfl_sync(all, own.count, lane), __shfl_sync(all, own.cut, lane)};
}

/* The best of: the elements from b.to on, and each undecided one with all that are not smaller. */
template <int THREADS>
static __device__ __forceinline__ exact_cut exact_try_all(exact_space<THREADS> *space, const exact_bracket &b,
                                                          double above)
{
    const int threads = THREADS == P4_WARP ? P4_WARP : (int)blockDim.x;
    exact_cut best = {0.0, 0.0, 0, 0.0f};
    for (int i = (int)threadIdx.x; i <= b.undecided; i += threads) {
        const double cut = i < b.undecided ? space->undecided[i] : (double)b.to;
        double sum = above;
        int count = b.above;
#pragma unroll 4
        for (int j = 0; j < b.undecided; j++) {
            const double other = space->undecided[j];
            sum += other >= cut ? other : 0.0;
            count += other >= cut ? 1 : 0;
        }
        exact_keep_better(&best, {exact_gain({(double)count, sum}), sum, count, (float)cut});
    }
    best = exact_warp_best(best);
    if (THREADS > P4_WARP) {
        if (threadIdx.x % P4_WARP == 0) {
            space->warp[threadIdx.x / P4_WARP].best = best;
        }
        __syncthreads();
        for (unsigned w = 0; w < blockDim.x / P4_WARP; w++) {
            exact_keep_better(&best, space->warp[w].best);
        }
    }
    return best;
}

/* The cut and the scale of a row. False: give up, as the row is too large, too small, or has too many
 * undecided elements. */
template <int CHUNKS, int THREADS>
static __device__ __forceinline__ bool exact_f32_row(const uint4 (&piece)[CHUNKS],
                                                     exact_space<THREADS> *space, int64_t cols, float *cut,
                                                     float *scale)
{
    const float most = 0x1p60f, least = 0x1p-60f; /* squares of what lies between are not subnormal */
    const float slack = 2e-5f;
    float sum, largest;
    *cut = INFINITY;
    *scale = 0.0f;
    if (THREADS > P4_WARP && threadIdx.x == 0) {
        space->undecided_count = 0;
    }
    sum_and_largest(piece, space, &sum, &largest);
    const float low = sum * (0.5f - slack) / (float)cols; /* below half the mean of any best set */
    if (!(low >= least && sum <= most)) {
        return sum == 0.0f;
    }
    const uint32_t low_key = __float_as_uint(low) >> 16;
    const int count = (int)((__float_as_uint(largest) >> 16) - low_key) + 1;
    count_bins(piece, space, __float_as_uint(low), count);
    const exact_bracket b = exact_bracket_of(space->bins, low_key, count);
    if ((unsigned)b.undecided > exact_space<THREADS>::UNDECIDED) {
        return false;
    }
    exact_sync<THREADS>(); /* the bins have been read */
    int pieces;
    double above = set_aside(piece, space, b, &pieces);
    if (!gather(space, b, &above, pieces)) {
        return false;
    }
    const exact_cut best = exact_try_all(space, b, above);
    *cut = best.cut;
    *scale = (float)(best.sum / (double)best.count);
    return true;
}

/* Codes by fused multiply-adds, for the other pipes are the busy ones: with x = w in last places of the float
 * below the cut, `below` of them, clamp(x - below) + clamp(x + below + 1), each clamped to [0, 1], is 2 from
 * the cut on, 0 from minus the cut down, else 1. Four codes are summed into the low bits of 2^23. An infinite
 * cut: x is 0. */
template <int CHUNKS>
static __device__ __forceinline__ void exact_store_codes(const quant_task *k, int64_t row,
                                                         const uint4 (&piece)[CHUNKS], float cut)
{
    const float before = __uint_as_float(__float_as_uint(cut) - 1), places = 1.0f / (cut - before);
    const float below = before * places;
    const int first = exact_first_piece<CHUNKS>(), left = (int)(k->cols / 4) - first;
    uint8_t *codes = k->codes + row * k->row_bytes + first;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        float sum = 0x1p23f;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float value = __uint_as_float(quant_bits<P4_F32>(piece[i], e)), unit = (float)(1 << 2 * e);
            sum = fmaf(__saturatef(fmaf(value, places, -below)), unit, sum);
            sum = fmaf(__saturatef(fmaf(value, places, below + 1.0f)), unit, sum);
        }
        if (i * P4_WARP < left) {
            codes[i * P4_WARP] = (uint8_t)__float_as_uint(sum);
        }
    }
}

/* The scale, and the row's error. */
template <int CHUNKS, bool ERROR>
static __device__ __forceinline__ void exact_finish_row(const quant_task *k, int64_t row,
                                                        const uint4 (&piece)[CHUNKS], float cut, float scale,
                                                        quant_sums *sums)
{
    const int left = (int)(k->cols / 4) - exact_first_piece<CHUNKS>();
    const float stored = __half2float(__float2half_rn(scale));
    if (threadIdx.x == 0) {
        quant_store_scale(k, row, scale, sums);
    }
#pragma unroll
    for (int i = 0; ERROR && i < CHUNKS; i++) {
        if (i * P4_WARP < left) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                quant_add_error(sums, __uint_as_float(quant_bits<P4_F32>(piece[i], e)), cut, stored);
            }
        }
    }
}

#endif
