/* experts.c - mixtures of experts: routing of tokens, and products of each expert's rows. */
#include <math.h>

#include "kernels/cpu/cpu.h"

/* --- routing ---------------------------------------------------------------------------------- */

/* Does logit i come after (v, at) in falling order, the first of equal ones first? NaN counts as -infinity.
 */
static bool comes_after(float logit, int64_t i, float v, int64_t at)
{
    return logit < v || (logit == v && i > at);
}

static float order_of(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

/* The experts of one token, and their shares. */
static void choose(const float *logits, int64_t experts, int64_t used, bool normed, int32_t *expert,
                   float *share)
{
    float v = INFINITY, sum = 0;
    int64_t at = -1;
    for (int64_t k = 0; k < used; k++) {
        int64_t best = -1;
        for (int64_t e = 0; e < experts; e++) {
            float logit = order_of(logits[e]);
            if (comes_after(logit, e, v, at) && (best < 0 || logit > order_of(logits[best]))) {
                best = e;
            }
        }
        expert[k] = (int32_t)best;
        v = order_of(logits[best]);
        at = best;
    }
    float top = logits[expert[0]];
    for (int64_t i = 0; i < (normed ? used : experts); i++) {
        sum += expf(logits[normed ? expert[i] : i] - top);
    }
    for (int64_t k = 0; k < used; k++) {
        share[k] = expf(logits[expert[k]] - top) / sum;
    }
}

/* Rows of the pairs, in their order. */
static void place_rows(const p4_routes *r)
{
    int64_t pairs = r->N * r->used;
    memset(r->first, 0, (size_t)(r->experts + 1) * sizeof *r->first);
    for (int64_t p = 0; p < pairs; p++) {
        r->first[r->expert[p] + 1]++;
    }
    for (int64_t e = 0; e < r->experts; e++) {
        r->first[e + 1] += r->first[e];
    }
    for (int64_t p = 0; p < pairs;
         p++) { /* first[e] runs through the rows of e, to where those of e + 1 begin */
        r->row[p] = r->first[r->expert[p]]++;
    }
    for (int64_t e = r->experts; e > 0; e--) {
        r->first[e] = r->first[e - 1];
    }
    r->first[0] = 0;
}

void p4_cpu_route(p4_device *device, const p4_routes *r, const void *logits, bool normed)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < r->N; n++) {
        choose((const float *)logits + n * r->experts, r->experts, r->used, normed, r->expert + n * r->used,
               r->share + n * r->used);
    }
    place_rows(r);
}

/* Of one token. dp: what the sum of share * dshare takes from each of them. */
static void route_token_backward(float *dlogits, const float *logits, const float *dshare, const float *share,
                                 const int32_t *expert, const p4_routes *r, bool normed)
{
    float mean = 0, top = logits[expert[0]], sum = 0;
    for (int64_t k = 0; k < r->used; k++) {
        mean += share[k] * dshare[k];
    }
    for (int64_t e = 0; e < r->experts && !normed; e++) {
        sum += expf(logits[e] - top);
    }
    for (int64_t e = 0; e < r->experts; e++) {
        dlogits[e] = normed ? 0.0f : -mean * expf(logits[e] - top) / sum;
    }
    for (int64_t k = 0; k < r->used; k++) {
        dlogits[expert[k]] = share[k] * (dshare[k] - mean);
    }
}

void p4_cpu_route_backward(p4_device *device, void *dlogits, const float *dshare, const p4_routes *r,
                           const void *logits, bool normed)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < r->N; n++) {
        int64_t at = n * r->used;
        route_token_backward((float *)dlogits + n * r->experts, (const float *)logits + n * r->experts,
                             dshare + at, r->share + at, r->expert + at, r, normed);
    }
}

/* --- rows of pairs ---------------------------------------------------------------------------- */

void p4_cpu_experts_gather(p4_device *device, void *rows, const void *x, const p4_routes *r, int64_t C)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t p = 0; p < r->N * r->used; p++) {
        memcpy((float *)rows + r->row[p] * C, (const float *)x + p / r->used * C, (size_t)C * sizeof(float));
    }
}

P4_MULTIVERSION static void combine_token(float *restrict y, const float *restrict rows, const int32_t *row,
                                          const float *share, int64_t used, int64_t C)
{
    for (int64_t k = 0; k < used; k++) {
        const float *from = rows + row[k] * C;
        float factor = share ? share[k] : 1.0f;
        for (int64_t c = 0; c < C; c++) {
            y[c] = (k == 0 ? 0.0f : y[c]) + factor * from[c];
        }
    }
}

void p4_cpu_experts_combine(p4_device *device, void *y, const void *rows, const p4_routes *r, bool weighted,
                            int64_t C)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < r->N; n++) {
        int64_t at = n * r->used;
        combine_token((float *)y + n * C, rows, r->row + at, weighted ? r->share + at : NULL, r->used, C);
    }
}

P4_MULTIVERSION static float scale_and_multiply(float *restrict dh, const float *restrict h, float share,
                                                int64_t F)
{
    float sum = 0;
    for (int64_t f = 0; f < F; f++) {
        sum += dh[f] * h[f];
        dh[f] *= share;
    }
    return sum;
}

void p4_cpu_share_backward(p4_device *device, const p4_share_backward_args *a)
{
    const p4_routes *r = a->routes;
    int64_t F = a->F, C = a->C;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t p = 0; p < r->N * r->used; p++) {
        int64_t row = r->row[p];
        float *dy = (float *)a->dy + row * C;
        a->dshare[p] =
            scale_and_multiply((float *)a->dh + row * F, (const float *)a->h + row * F, r->share[p], F);
        for (int64_t c = 0; c < C; c++) {
            dy[c] *= r->share[p];
        }
    }
}

/* --- products --------------------------------------------------------------------------------- */

void p4_cpu_experts_forward(p4_device *device, const p4_experts_args *a)
{
    for (int64_t e = 0; e < a->experts; e++) {
        int64_t row = a->first[e];
        p4_cpu_linear_forward(device, (float *)a->y + row * a->out, (const float *)a->x + row * a->in,
                              (const float *)a->w + e * a->out * a->in, NULL, a->first[e + 1] - row, a->in,
                              a->out);
    }
}

void p4_cpu_experts_backward_input(p4_device *device, const p4_experts_args *a)
{
    for (int64_t e = 0; e < a->experts; e++) {
        int64_t row = a->first[e];
        p4_cpu_linear_backward_input(
            device, (float *)a->dx + row * a->in, (const float *)a->dy + row * a->out,
            (const float *)a->w + e * a->out * a->in, a->first[e + 1] - row, a->in, a->out, false);
    }
}

void p4_cpu_experts_backward_weight(p4_device *device, const p4_experts_args *a)
{
    for (int64_t e = 0; e < a->experts; e++) {
        int64_t row = a->first[e], rows = a->first[e + 1] - row;
        float *dw = a->dw + e * a->out * a->in;
        if (rows > 0) {
            p4_cpu_linear_backward_weight(
                device, &(p4_linear_backward_weight_args){.N = rows,
                                                          .in = a->in,
                                                          .out = a->out,
                                                          .dy = (const float *)a->dy + row * a->out,
                                                          .ld_dy = a->out,
                                                          .x = (const float *)a->x + row * a->in,
                                                          .dw = dw,
                                                          .accumulate = a->accumulate});
        } else if (!a->accumulate) {
            memset(dw, 0, (size_t)(a->out * a->in) * sizeof *dw);
        }
    }
}
