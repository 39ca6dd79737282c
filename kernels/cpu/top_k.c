/* top_k.c - the k largest of a row of logits, and their log-probabilities. */
#include <math.h>

#include "kernels/cpu/vmath.h"

enum { DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS };

/* Bits in the order of the values, NaN beyond all numbers of its sign. */
static uint32_t key_of(float x)
{
    uint32_t bits = p4_bits_of(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The k-th largest key of the row, digit by digit; *equal: how many of that key belong to the k largest. */
static uint32_t find_kth(const float *x, int64_t V, int64_t k, int64_t *equal)
{
    uint32_t prefix = 0, mask = 0;
    int64_t left = k;
    for (int shift = 32 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        int64_t counts[DIGITS] = {0};
        for (int64_t i = 0; i < V; i++) {
            uint32_t key = key_of(x[i]);
            counts[key >> shift & (DIGITS - 1)] += (key & mask) == prefix;
        }
        uint32_t digit = DIGITS - 1;
        while (counts[digit] < left) {
            left -= counts[digit--];
        }
        prefix |= digit << shift;
        mask |= (uint32_t)(DIGITS - 1) << shift;
    }
    *equal = left;
    return prefix;
}

/* The largest of x, which decide, and the logarithms from z, its mapped values. */
static void top_row(int32_t *ids, float *logp, const float *x, const float *z, double inverse, int64_t V,
                    int64_t k)
{
    int64_t equal = 0, count = 0;
    uint32_t kth = find_kth(x, V, k, &equal);
    double largest = -INFINITY, others = 0.0, sum = 0.0;
    for (int64_t i = 0; i < V; i++) {
        largest = fmax(largest, (double)z[i]);
    }
    for (int64_t i = 0; i < V; i++) {
        uint32_t key = key_of(x[i]);
        double a = ((double)z[i] - largest) * inverse;
        if (key > kth || (key == kth && equal-- > 0)) {
            ids[count] = (int32_t)i;
            logp[count++] = (float)a;
            sum += exp(a);
        } else {
            others += exp(a);
        }
    }
    double log_sum = log(sum + others);
    for (int64_t i = 0; i < k; i++) {
        logp[i] = (float)((double)logp[i] - log_sum);
    }
    logp[k] = (float)(log(others) - log_sum);
}

void p4_cpu_top_k(p4_device *device, const p4_top_k_args *a)
{
    const int64_t k = a->top.k;
    int64_t stride = 0;
    const bool mapped = p4_cpu_is_mapped(a->map);
    float *rows = mapped ? p4_cpu_map_rows(device, 1, a->V, &stride) : NULL;
    if (mapped && !rows) {
        return;
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < a->N; n++) {
        const float *x = (const float *)a->logits + n * a->ld;
        float *z = mapped ? rows + omp_get_thread_num() * stride : NULL;
        if (mapped) {
            p4_cpu_map_row(z, x, a->map, a->V);
        }
        top_row(a->top.ids + n * k, a->top.logp + n * (k + 1), x, mapped ? z : x,
                1.0 / (double)a->temperature, a->V, k);
    }
}
