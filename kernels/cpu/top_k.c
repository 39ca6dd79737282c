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

static void top_row(int32_t *ids, float *logp, const float *x, double inverse, int64_t V, int64_t k)
{
    int64_t equal = 0, count = 0;
    uint32_t kth = find_kth(x, V, k, &equal);
    double largest = -INFINITY, others = 0.0, sum = 0.0;
    for (int64_t i = 0; i < V; i++) {
        largest = fmax(largest, (double)x[i]);
    }
    for (int64_t i = 0; i < V; i++) {
        uint32_t key = key_of(x[i]);
        double a = ((double)x[i] - largest) * inverse;
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

void p4_cpu_top_k(p4_device *device, const p4_top_rows *top, const void *logits, float temperature, int64_t N,
                  int64_t V, int64_t ld)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < N; n++) {
        top_row(top->ids + n * top->k, top->logp + n * (top->k + 1), (const float *)logits + n * ld,
                1.0 / (double)temperature, V, top->k);
    }
}
