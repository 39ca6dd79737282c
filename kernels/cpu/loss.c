/* loss.c - cross-entropy and Kullback-Leibler divergence over rows of logits. */
#include <math.h>

#include "kernels/cpu/vmath.h"

enum { SUM_PIECE = 512 }; /* elements summed in fp32 lanes before the sum goes to double */

P4_MULTIVERSION static float row_max(const float *x, int64_t V)
{
    float largest = x[0];
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < V; i++) {
        largest = x[i] > largest ? x[i] : largest;
    }
    return largest;
}

P4_MULTIVERSION static double row_sum_exp(const float *x, float largest, int64_t V)
{
    double sum = 0.0;
    for (int64_t piece = 0; piece < V; piece += SUM_PIECE) {
        int64_t end = p4_min_i64(piece + SUM_PIECE, V);
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t i = piece; i < end; i++) {
            part += p4_exp_f32(x[i] - largest);
        }
        sum += (double)part;
    }
    return sum;
}

/* As row_sum_exp, keeping the exponentials in e, which may be x. */
P4_MULTIVERSION static double row_exp(float *e, const float *x, float largest, int64_t V)
{
    double sum = 0.0;
    for (int64_t piece = 0; piece < V; piece += SUM_PIECE) {
        int64_t end = p4_min_i64(piece + SUM_PIECE, V);
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t i = piece; i < end; i++) {
            float value = p4_exp_f32(x[i] - largest);
            e[i] = value;
            part += value;
        }
        sum += (double)part;
    }
    return sum;
}

P4_MULTIVERSION static void row_scale(float *x, float factor, int64_t V)
{
    for (int64_t i = 0; i < V; i++) {
        x[i] *= factor;
    }
}

/* Is `target` the first of the largest logits? */
static bool is_first_largest(const float *x, float largest, int32_t target)
{
    if (!(x[target] == largest)) {
        return false;
    }
    for (int32_t i = 0; i < target; i++) {
        if (x[i] == largest) {
            return false;
        }
    }
    return true;
}

void p4_cpu_cross_entropy(p4_device *device, const p4_cross_entropy_args *a)
{
    int64_t V = a->V, ld = a->ld;
    float *nll = a->nll, *hit = a->opt_hit, scale = a->scale;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < a->N; n++) {
        const float *x = (const float *)a->logits + n * ld;
        float *d = a->opt_dlogits ? (float *)a->opt_dlogits + n * ld : NULL;
        int32_t target = a->targets[n];
        if (target < 0) {
            nll[n] = 0.0f;
            if (hit) {
                hit[n] = 0.0f;
            }
            if (d) {
                memset(d, 0, (size_t)ld * sizeof *d);
            }
            continue;
        }
        float largest = row_max(x, V);
        float target_logit = x[target]; /* before d, which may be x, is written */
        if (hit) {
            hit[n] = is_first_largest(x, largest, target) ? 1.0f : 0.0f;
        }
        double sum = d ? row_exp(d, x, largest, V) : row_sum_exp(x, largest, V);
        nll[n] = (float)(log(sum) + (double)largest - (double)target_logit);
        if (d) {
            row_scale(d, (float)((double)scale / sum), V);
            d[target] -= scale;
            memset(d + V, 0, (size_t)(ld - V) * sizeof *d);
        }
    }
}

/* With a = reference - max, b = logits - max: KL = sum e^a (a - b) / sum e^a - log sum e^a + log sum e^b. */
P4_MULTIVERSION static void row_kl_sums(const float *reference, const float *logits, float reference_max,
                                        float logits_max, int64_t V, double sums[3])
{
    double weighted = 0.0, reference_sum = 0.0, logits_sum = 0.0;
    for (int64_t piece = 0; piece < V; piece += SUM_PIECE) {
        int64_t end = p4_min_i64(piece + SUM_PIECE, V);
        float w = 0.0f, r = 0.0f, l = 0.0f;
#pragma omp simd reduction(+ : w, r, l)
        for (int64_t i = piece; i < end; i++) {
            float a = reference[i] - reference_max, b = logits[i] - logits_max;
            float e = p4_exp_f32(a);
            w += e * (a - b);
            r += e;
            l += p4_exp_f32(b);
        }
        weighted += (double)w;
        reference_sum += (double)r;
        logits_sum += (double)l;
    }
    sums[0] = weighted;
    sums[1] = reference_sum;
    sums[2] = logits_sum;
}

void p4_cpu_kl_divergence(p4_device *device, float *kl, const void *reference, const void *logits,
                          const int32_t *targets, int64_t N, int64_t V, int64_t ld)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < N; n++) {
        const float *a = (const float *)reference + n * ld, *b = (const float *)logits + n * ld;
        if (targets[n] < 0) {
            kl[n] = 0.0f;
            continue;
        }
        double sums[3];
        row_kl_sums(a, b, row_max(a, V), row_max(b, V), V, sums);
        double value = sums[0] / sums[1] - log(sums[1]) + log(sums[2]);
        kl[n] = (float)(value < 0.0 ? 0.0 : value); /* it cannot be negative: that is rounding */
    }
}
