/* ternary_exact.c - the least-squares ternary set of a row (docs/methods.md 1) without sorting it.
 *
 * The set {j : |w_j| >= c} has S = sum h_j |w_j|, P = sum h_j (h = 1 without importance) and removes S^2 / P
 * from the weighted squared error. The best cut c is the |w_j| with the largest S^2 / P; of equal ones the
 * largest, that is the smallest set. Along a run of equal |w_j| S^2 / P is convex in P, so its maximum is at
 * an end of the run: equal magnitudes always fall on the same side, and elements without importance follow
 * the cut.
 *
 * With a = S / P of the best set, no element of it is below a/2 (removing it would gain) and none left out is
 * above a/2 (adding it would gain). The mean of {|w| >= x} never falls as x rises, so from a lower bound x of
 * a/2 half the mean of
 * {|w| >= x} is another, at least as large; likewise from above with {|w| > x}. Starting from half the mean
 * and half the maximum of the row a few passes leave a handful of undecided elements, which are sorted and
 * tried one by one. On rows where the bounds do not meet more are left, at worst all: the sort takes linear
 * time. */
#include <math.h>

#include "kernels/cpu/vmath.h"

enum { RADIX_BITS = 11, SMALL_SORT = 48, FEW = 16, PASSES = 16, PIECE = 1024, SCAN = 32 };

typedef struct set_sums {
    double weight, sum; /* sum of h, sum of h |w| */
} set_sums;

/* The elements at or above `low`, and those above `high`. */
typedef struct bounds {
    float low, high;
    set_sums at_low, above_high;
    int64_t undecided; /* between the two */
} bounds;

int64_t p4_cpu_exact_work_bytes(int64_t cols)
{
    return 2 * cols * (int64_t)sizeof(uint64_t);
}

static double gain_of(set_sums set)
{
    return set.weight > 0.0 ? set.sum * set.sum / set.weight : 0.0;
}

P4_INLINE uint32_t magnitude_bits(const p4_loose_f32 *w, int64_t i)
{
    return p4_bits_of(w[i]) & 0x7fffffffu;
}

/* The sums of the whole row, and the bits of its largest magnitude. */
P4_MULTIVERSION static set_sums row_sums(const p4_loose_f32 *w, const float *h, int64_t cols,
                                         uint32_t *largest_bits)
{
    double weight = 0.0, sum = 0.0;
    uint32_t largest = 0;
    if (h) {
#pragma omp simd reduction(+ : weight, sum) reduction(max : largest)
        for (int64_t i = 0; i < cols; i++) {
            uint32_t bits = magnitude_bits(w, i);
            largest = bits > largest ? bits : largest;
            weight += (double)h[i];
            sum += (double)h[i] * (double)p4_float_of(bits);
        }
    } else {
#pragma omp simd reduction(+ : sum) reduction(max : largest)
        for (int64_t i = 0; i < cols; i++) {
            uint32_t bits = magnitude_bits(w, i);
            largest = bits > largest ? bits : largest;
            sum += (double)p4_float_of(bits);
        }
        weight = (double)cols;
    }
    *largest_bits = largest;
    return (set_sums){weight, sum};
}

/* Adds a piece of at most PIECE elements to the sums of both sets: fp32 lanes of PIECE / 16 terms at most. */
P4_MULTIVERSION static void add_piece(bounds *b, const p4_loose_f32 *w, const float *h, int64_t count)
{
    float low = b->low, high = b->high;
    float low_weight = 0.0f, low_sum = 0.0f, high_weight = 0.0f, high_sum = 0.0f;
    int32_t low_count = 0, high_count = 0;
    if (h) {
#pragma omp simd reduction(+ : low_weight, low_sum, high_weight, high_sum, low_count, high_count)
        for (int64_t i = 0; i < count; i++) {
            float magnitude = fabsf(w[i]);
            float h_low = magnitude >= low ? h[i] : 0.0f, h_high = magnitude > high ? h[i] : 0.0f;
            low_weight += h_low;
            low_sum += h_low * magnitude;
            high_weight += h_high;
            high_sum += h_high * magnitude;
            low_count += magnitude >= low ? 1 : 0;
            high_count += magnitude > high ? 1 : 0;
        }
    } else {
#pragma omp simd reduction(+ : low_sum, high_sum, low_count, high_count)
        for (int64_t i = 0; i < count; i++) {
            float magnitude = fabsf(w[i]);
            low_sum += magnitude >= low ? magnitude : 0.0f;
            high_sum += magnitude > high ? magnitude : 0.0f;
            low_count += magnitude >= low ? 1 : 0;
            high_count += magnitude > high ? 1 : 0;
        }
        low_weight = (float)low_count;
        high_weight = (float)high_count;
    }
    b->at_low.weight += (double)low_weight;
    b->at_low.sum += (double)low_sum;
    b->above_high.weight += (double)high_weight;
    b->above_high.sum += (double)high_sum;
    b->undecided += low_count - high_count;
}

static void sum_sets(bounds *b, const p4_loose_f32 *w, const float *h, int64_t cols)
{
    b->at_low = b->above_high = (set_sums){0.0, 0.0};
    b->undecided = 0;
    for (int64_t i = 0; i < cols; i += PIECE) {
        add_piece(b, w + i, h ? h + i : NULL, p4_min_i64(PIECE, cols - i));
    }
}

/* Half the mean of a set, moved by more than the rounding error of its sums so that it stays a bound;
 * `otherwise` when the set weighs nothing or the sum is beyond fp32. */
static float half_mean(set_sums set, float direction, float otherwise)
{
    const double slack = 1e-5;
    double mean = set.sum / set.weight, factor = direction > 0.0f ? 1.0 + slack : 1.0 - slack;
    return set.weight > 0.0 && isfinite(mean) ? nextafterf((float)(0.5 * mean * factor), direction)
                                              : otherwise;
}

/* Tightens the bounds until few elements are undecided or nothing moves any more. */
static bounds narrow(const p4_loose_f32 *w, const float *h, int64_t cols, set_sums row, float largest)
{
    bounds b = {.low = half_mean(row, 0.0f, 0.0f), .high = 0.5f * largest};
    for (int pass = 1;; pass++) {
        sum_sets(&b, w, h, cols);
        if (b.undecided <= FEW || pass == PASSES) {
            return b;
        }
        float low = fmaxf(b.low, half_mean(b.at_low, 0.0f, b.low));
        float high = fminf(b.high, half_mean(b.above_high, INFINITY, b.high));
        if (!(low > b.low) && !(high < b.high)) {
            return b;
        }
        b.low = low;
        b.high = high;
    }
}

/* The sums of the elements above `high`, in double because they decide. */
P4_MULTIVERSION static set_sums sums_above(const p4_loose_f32 *w, const float *h, int64_t cols, float high)
{
    double weight = 0.0, sum = 0.0;
    if (h) {
#pragma omp simd reduction(+ : weight, sum)
        for (int64_t i = 0; i < cols; i++) {
            float magnitude = fabsf(w[i]), chosen = magnitude > high ? h[i] : 0.0f;
            weight += (double)chosen;
            sum += (double)chosen * (double)magnitude;
        }
    } else {
#pragma omp simd reduction(+ : weight, sum)
        for (int64_t i = 0; i < cols; i++) {
            float magnitude = fabsf(w[i]);
            weight += magnitude > high ? 1.0 : 0.0;
            sum += magnitude > high ? (double)magnitude : 0.0;
        }
    }
    return (set_sums){weight, sum};
}

P4_MULTIVERSION static bool any_undecided(const p4_loose_f32 *w, int64_t count, float low, float high)
{
    int32_t any = 0;
#pragma omp simd reduction(| : any)
    for (int64_t i = 0; i < count; i++) {
        any |= (fabsf(w[i]) >= low) & (fabsf(w[i]) <= high);
    }
    return any != 0;
}

/* Collects magnitude bits (high half) and importance bits (low half) of the undecided elements; their number.
 */
static int64_t collect(uint64_t *list, const p4_loose_f32 *w, const float *h, int64_t cols, const bounds *b)
{
    const uint32_t one = 0x3f800000u;
    int64_t count = 0;
    for (int64_t first = 0; first < cols; first += SCAN) {
        int64_t end = p4_min_i64(first + SCAN, cols);
        if (!any_undecided(w + first, end - first, b->low, b->high)) {
            continue;
        }
        for (int64_t i = first; i < end; i++) {
            float magnitude = fabsf(w[i]);
            list[count] = (uint64_t)p4_bits_of(magnitude) << 32 | (h ? p4_bits_of(h[i]) : one);
            count += (magnitude >= b->low) & (magnitude <= b->high);
        }
    }
    return count;
}

/* One stable pass of a radix sort, largest digit first. */
static void sort_digit(uint64_t *to, const uint64_t *from, int64_t count, uint32_t base, uint32_t shift)
{
    const uint32_t digits = 1u << RADIX_BITS;
    int64_t starts[1 << RADIX_BITS] = {0}, start = 0;
    for (int64_t i = 0; i < count; i++) {
        starts[(((uint32_t)(from[i] >> 32) - base) >> shift) & (digits - 1)]++;
    }
    for (uint32_t digit = digits; digit-- > 0;) {
        int64_t here = starts[digit];
        starts[digit] = start;
        start += here;
    }
    for (int64_t i = 0; i < count; i++) {
        to[starts[(((uint32_t)(from[i] >> 32) - base) >> shift) & (digits - 1)]++] = from[i];
    }
}

/* Sorts by magnitude, largest first; the result is in the returned one of the two arrays. All magnitudes have
 * bits from `base` to `base + spread`. */
static uint64_t *sort_descending(uint64_t *list, uint64_t *spare, int64_t count, uint32_t base,
                                 uint32_t spread)
{
    if (count <= SMALL_SORT) {
        for (int64_t i = 1; i < count; i++) {
            uint64_t moving = list[i];
            int64_t at = i;
            for (; at > 0 && list[at - 1] >> 32 < moving >> 32; at--) {
                list[at] = list[at - 1];
            }
            list[at] = moving;
        }
        return list;
    }
    for (uint32_t shift = 0; shift < 32 && spread >> shift > 0; shift += RADIX_BITS) {
        sort_digit(spare, list, count, base, shift);
        uint64_t *swap = list;
        list = spare;
        spare = swap;
    }
    return list;
}

/* The least magnitude above `high` that has importance. */
static float least_above(const p4_loose_f32 *w, const float *h, int64_t cols, float high)
{
    float least = INFINITY;
    for (int64_t i = 0; i < cols; i++) {
        float magnitude = fabsf(w[i]);
        if (magnitude > high && magnitude < least && (!h || h[i] > 0.0f)) {
            least = magnitude;
        }
    }
    return least;
}

/* The best of: `set`, which holds what is above the list (an infinite cut), or a run of equal magnitudes of
 * the sorted list with all before it. */
static p4_exact_set best_cut(const uint64_t *list, int64_t count, set_sums set)
{
    double best = gain_of(set);
    p4_exact_set result = {.cut = INFINITY, .scale = best > 0.0 ? (float)(set.sum / set.weight) : 0.0f};
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)(list[i] >> 32);
        double importance = (double)p4_float_of((uint32_t)list[i]);
        set.weight += importance;
        set.sum += importance * (double)p4_float_of(bits);
        if (i + 1 < count && (uint32_t)(list[i + 1] >> 32) == bits) {
            continue;
        }
        double gain = gain_of(set);
        if (gain > best) {
            best = gain;
            result.cut = p4_float_of(bits);
            result.scale = (float)(set.sum / set.weight);
        }
    }
    return result;
}

p4_exact_set p4_cpu_exact_row(const p4_loose_f32 *w, const float *importance, int64_t cols, void *work)
{
    uint64_t *list = work, *spare = list + cols;
    uint32_t largest = 0;
    set_sums row = row_sums(w, importance, cols, &largest);
    if (!(row.sum > 0.0) || largest >= 0x7f800000u) {
        return (p4_exact_set){.cut = INFINITY, .scale = 0.0f};
    }
    bounds b = narrow(w, importance, cols, row, p4_float_of(largest));
    int64_t count = collect(list, w, importance, cols, &b);
    uint32_t base = p4_bits_of(b.low), spread = b.high >= b.low ? p4_bits_of(b.high) - base : 0;
    list = sort_descending(list, spare, count, base, spread);
    p4_exact_set set = best_cut(list, count, sums_above(w, importance, cols, b.high));
    if (isinf(set.cut) && set.scale > 0.0f) {
        set.cut = least_above(w, importance, cols, b.high);
    }
    return set;
}
