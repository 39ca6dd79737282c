/* loss.c - cross-entropy, Kullback-Leibler divergence and distillation over rows of logits. */
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
    int64_t V = a->V, ld = a->ld, stride = 0;
    float *nll = a->nll, *hit = a->opt_hit, scale = a->scale;
    const bool mapped = p4_cpu_is_mapped(a->map);
    float *rows = mapped ? p4_cpu_map_rows(device, 1, V, &stride) : NULL;
    if (mapped && !rows) {
        return;
    }
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
        if (hit) {
            hit[n] = is_first_largest(x, row_max(x, V), target) ? 1.0f : 0.0f;
        }
        float *z = mapped ? rows + omp_get_thread_num() * stride : NULL;
        if (mapped) {
            p4_cpu_map_row(z, x, a->map, V);
            x = z;
        }
        float largest = row_max(x, V);
        float target_logit = x[target]; /* before d, which may be x, is written */
        double sum = d ? row_exp(d, x, largest, V) : row_sum_exp(x, largest, V);
        nll[n] = (float)(log(sum) + (double)largest - (double)target_logit);
        if (d) {
            row_scale(d, (float)((double)scale / sum), V);
            d[target] -= scale;
            if (mapped) {
                p4_cpu_map_gradient(d, z, a->map, V);
            }
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

/* The first class whose logit is the largest; V: the largest is NaN. */
static int64_t first_largest(const float *x, int64_t V)
{
    const float largest = row_max(x, V);
    int64_t i = 0;
    while (i < V && !(x[i] == largest)) {
        i++;
    }
    return i;
}

void p4_cpu_kl_divergence(p4_device *device, const p4_kl_divergence_args *args)
{
    int64_t V = args->V, ld = args->ld, stride = 0;
    const bool mapped = p4_cpu_is_mapped(args->map);
    float *rows = mapped ? p4_cpu_map_rows(device, 2, V, &stride) : NULL;
    if (mapped && !rows) {
        return;
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < args->N; n++) {
        const float *a = (const float *)args->reference + n * ld, *b = (const float *)args->logits + n * ld;
        if (args->targets[n] < 0) {
            args->kl[n] = 0.0f;
            if (args->opt_same) {
                args->opt_same[n] = 0.0f;
            }
            continue;
        }
        if (args->opt_same) {
            args->opt_same[n] = first_largest(a, V) == first_largest(b, V) ? 1.0f : 0.0f;
        }
        if (mapped) {
            float *to = rows + omp_get_thread_num() * stride;
            p4_cpu_map_row(to, a, args->map, V);
            p4_cpu_map_row(to + stride / 2, b, args->map, V);
            a = to;
            b = to + stride / 2;
        }
        double sums[3];
        row_kl_sums(a, b, row_max(a, V), row_max(b, V), V, sums);
        double value = sums[0] / sums[1] - log(sums[1]) + log(sums[2]);
        args->kl[n] = (float)(value < 0.0 ? 0.0 : value); /* it cannot be negative: that is rounding */
    }
}

/* --- distillation ------------------------------------------------------------------------------ */

/* Of one row: x - x_max and, with b = (x - x_max) / temperature, the sums over the classes that count. */
typedef struct student_row {
    float x_max;
    double sum;      /* e^(x - x_max) */
    double soft_sum; /* e^b */
} student_row;

/* The gradient of a row is hard e^(x - x_max) + soft e^b - teacher p - at the target onehot. */
typedef struct distill_factors {
    float hard, soft, teacher, onehot;
} distill_factors;

static distill_factors factors_of(const p4_distill_loss_args *a, const student_row *s)
{
    double hard = (1.0 - (double)a->weight) * (double)a->scale,
           soft = (double)a->weight * (double)a->temperature * (double)a->scale;
    return (distill_factors){.hard = (float)(hard / s->sum),
                             .soft = (float)(soft / s->soft_sum),
                             .teacher = (float)soft,
                             .onehot = (float)hard};
}

P4_MULTIVERSION static void student_sums(student_row *s, const float *x, float inverse, int64_t V)
{
    s->sum = s->soft_sum = 0.0;
    for (int64_t piece = 0; piece < V; piece += SUM_PIECE) {
        int64_t end = p4_min_i64(piece + SUM_PIECE, V);
        float hard = 0.0f, soft = 0.0f;
#pragma omp simd reduction(+ : hard, soft)
        for (int64_t i = piece; i < end; i++) {
            hard += p4_exp_f32(x[i] - s->x_max);
            soft += p4_exp_f32((x[i] - s->x_max) * inverse);
        }
        s->sum += (double)hard;
        s->soft_sum += (double)soft;
    }
}

/* The exponentials of the teacher's logits replace them. Returns the sum of them; *weighted: of them times
 * the difference of the exponents. */
P4_MULTIVERSION static double teacher_sums(float *t, const float *x, float t_max, float x_max, float inverse,
                                           int64_t V, double *weighted)
{
    double sum = 0.0;
    *weighted = 0.0;
    for (int64_t piece = 0; piece < V; piece += SUM_PIECE) {
        int64_t end = p4_min_i64(piece + SUM_PIECE, V);
        float e_sum = 0.0f, w_sum = 0.0f;
#pragma omp simd reduction(+ : e_sum, w_sum)
        for (int64_t i = piece; i < end; i++) {
            float a = (t[i] - t_max) * inverse, b = (x[i] - x_max) * inverse, e = p4_exp_f32(a);
            w_sum += e == 0.0f ? 0.0f : e * (a - b); /* a may be -inf */
            e_sum += e;
            t[i] = e;
        }
        sum += (double)e_sum;
        *weighted += (double)w_sum;
    }
    return sum;
}

/* x = hard e^(x - x_max) + soft e^b - teacher t; t NULL: without it. */
P4_MULTIVERSION static void distill_gradient(float *x, const float *t, float x_max, float inverse,
                                             distill_factors f, int64_t V)
{
    for (int64_t i = 0; i < V; i++) {
        float d = x[i] - x_max;
        x[i] = f.hard * p4_exp_f32(d) + f.soft * p4_exp_f32(d * inverse);
    }
    for (int64_t i = 0; t != NULL && i < V; i++) {
        x[i] -= f.teacher * t[i];
    }
}

/* The teacher's whole row t. Returns KL. */
static double distill_dense(const p4_distill_loss_args *a, float *x, float *t, student_row *s)
{
    float inverse = 1.0f / a->temperature;
    double weighted;
    student_sums(s, x, inverse, a->V);
    double sum = teacher_sums(t, x, row_max(t, a->V), s->x_max, inverse, a->V, &weighted);
    distill_factors f = factors_of(a, s);
    f.teacher = (float)((double)f.teacher / sum);
    distill_gradient(x, t, s->x_max, inverse, f, a->V);
    return weighted / sum - log(sum) + log(s->soft_sum);
}

/* The teacher's top classes of row n, and all others as one. kept [k]: working memory. Returns KL. The sum of
 * the others is taken without the top ones, not as a difference. */
static double distill_top(const p4_distill_loss_args *a, float *x, int64_t n, student_row *s, float *kept)
{
    const float inverse = 1.0f / a->temperature, *logp = a->top.logp + n * (a->top.k + 1);
    const int32_t *ids = a->top.ids + n * a->top.k;
    const int64_t k = a->top.k;
    for (int64_t i = 0; i < k; i++) {
        kept[i] = x[ids[i]];
        x[ids[i]] = -INFINITY;
    }
    student_sums(s, x, inverse, a->V);
    double others = s->soft_sum, p_others = exp((double)logp[k]), kl = 0.0;
    for (int64_t i = 0; i < k; i++) {
        s->sum += exp((double)kept[i] - (double)s->x_max);
        s->soft_sum += exp(((double)kept[i] - (double)s->x_max) * (double)inverse);
    }
    others = fmax(others, 1e-30 * s->soft_sum); /* where it underflows: no division by 0 */
    distill_factors f = factors_of(a, s), rest = f;
    rest.soft = (float)((double)f.teacher * (1.0 / s->soft_sum - p_others / others));
    distill_gradient(x, NULL, s->x_max, inverse, rest, a->V);
    kl = p_others > 0.0 ? p_others * ((double)logp[k] - log(others / s->soft_sum)) : 0.0;
    for (int64_t i = 0; i < k; i++) {
        double d = (double)kept[i] - (double)s->x_max, b = d * (double)inverse, p = exp((double)logp[i]);
        kl += p > 0.0 ? p * ((double)logp[i] - b + log(s->soft_sum)) : 0.0;
        x[ids[i]] = (float)((double)f.hard * exp(d) +
                            (double)f.teacher * (exp(b) / s->soft_sum - p)); /* p is rounded once */
    }
    return kl;
}

/* Row n, which counts. kept: working memory of distill_top; z: of a mapped row, else NULL. */
static void distill_row(const p4_distill_loss_args *a, int64_t n, float *kept, float *z)
{
    int64_t V = a->V, ld = a->ld;
    float *x = (float *)a->logits + n * ld;
    float *t = a->opt_teacher != NULL ? (float *)a->opt_teacher + n * ld : NULL;
    int32_t target = a->targets[n];
    a->hit[n] = is_first_largest(x, row_max(x, V), target) ? 1.0f : 0.0f;
    if (z != NULL) {
        p4_cpu_map_row(z, x, a->map, V);
        memcpy(x, z, (size_t)V * sizeof *x);
    }
    if (z != NULL && t != NULL) {
        p4_cpu_map_row(t, t, a->map, V);
    }
    student_row s = {.x_max = row_max(x, V)};
    double target_logit = (double)x[target];
    double kl = t != NULL ? distill_dense(a, x, t, &s) : distill_top(a, x, n, &s, kept);
    a->nll[n] = (float)(log(s.sum) + (double)s.x_max - target_logit);
    a->kl[n] = (float)(kl < 0.0 ? 0.0 : kl); /* it cannot be negative: that is rounding */
    x[target] -= factors_of(a, &s).onehot;
    if (z != NULL) {
        p4_cpu_map_gradient(x, z, a->map, V);
    }
    memset(x + V, 0, (size_t)(ld - V) * sizeof *x);
}

void p4_cpu_distill_loss(p4_device *device, const p4_distill_loss_args *a)
{
    int64_t kept_count = a->opt_teacher != NULL ? 0 : p4_ceil_div(a->top.k, 16) * 16,
            z_count = p4_cpu_is_mapped(a->map) ? p4_ceil_div(a->V, 16) * 16 : 0, each = kept_count + z_count;
    float *work = each > 0 ? p4_cpu_scratch(device, each * (int64_t)sizeof(float)) : NULL;
    if (each > 0 && work == NULL) {
        return;
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < a->N; n++) {
        float *kept = work != NULL ? work + omp_get_thread_num() * each : NULL;
        if (a->targets[n] < 0) {
            a->nll[n] = a->hit[n] = a->kl[n] = 0.0f;
            memset((float *)a->logits + n * a->ld, 0, (size_t)a->ld * sizeof(float));
            continue;
        }
        distill_row(a, n, kept, z_count > 0 ? kept + kept_count : NULL);
    }
}
