/* cosine_distance.c - the angle between rows of activations and of a target, and its gradient. */
#include <float.h>
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { PIECES = 256 }; /* sums of rows that are added in order, whatever the number of threads */

/* Of a row. */
typedef struct products {
    double xx, tt, xt;
} products;

P4_MULTIVERSION static products row_products(const float *x, const float *target, int64_t C)
{
    double xx = 0.0, tt = 0.0, xt = 0.0;
#pragma omp simd reduction(+ : xx, tt, xt)
    for (int64_t c = 0; c < C; c++) {
        xx += (double)x[c] * (double)x[c];
        tt += (double)target[c] * (double)target[c];
        xt += (double)x[c] * (double)target[c];
    }
    return (products){xx, tt, xt};
}

/* dx (= or +=) along target + across x. What dx holds is not read without `accumulate`. */
P4_MULTIVERSION static void row_gradient(float *dx, const float *x, const float *target, float along,
                                         float across, bool accumulate, int64_t C)
{
    for (int64_t c = 0; c < C; c++) {
        float d = along * target[c] + across * x[c];
        dx[c] = accumulate ? dx[c] + d : d;
    }
}

/* The distance of row n. */
static double row_distance(const p4_cosine_distance_args *a, int64_t n)
{
    const float *x = (const float *)a->x + n * a->C, *target = (const float *)a->target + n * a->C;
    double cosine = 0.0, along = 0.0, across = 0.0;
    products p = row_products(x, target, a->C);
    if (!(p.xx < (double)FLT_MIN || p.tt < (double)FLT_MIN)) { /* NaN takes this branch too */
        double lengths = sqrt(p.xx) * sqrt(p.tt);
        cosine = p.xt / lengths;
        along = -(double)a->scale / lengths;
        across = (double)a->scale * cosine / p.xx;
    }
    row_gradient((float *)a->dx + n * a->C, x, target, (float)along, (float)across, a->accumulate, a->C);
    return 1.0 - cosine;
}

void p4_cpu_cosine_distance(p4_device *device, const p4_cosine_distance_args *a)
{
    double parts[PIECES] = {0};
    int64_t each = p4_ceil_div(a->N, PIECES), pieces = each > 0 ? p4_ceil_div(a->N, each) : 0;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < pieces; i++) {
        for (int64_t n = i * each; n < p4_min_i64(a->N, (i + 1) * each); n++) {
            parts[i] += row_distance(a, n);
        }
    }
    for (int64_t i = 0; i < pieces; i++) {
        *a->sum += parts[i];
    }
}
