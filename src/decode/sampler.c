#include "src/decode/sampler.h"

#include <math.h>
#include <stdlib.h>

p4_rc p4_sampler_open(p4_sampler *sampler, const p4_sampling *sampling, int64_t V)
{
    *sampler = (p4_sampler){.sampling = *sampling, .rng = {.seed = sampling->seed}, .V = V};
    sampler->candidates = p4_alloc((size_t)V, sizeof *sampler->candidates);
    return sampler->candidates != NULL ? P4_OK : P4_E_SYSTEM;
}

void p4_sampler_close(p4_sampler *sampler)
{
    free(sampler->candidates);
    *sampler = (p4_sampler){0};
}

/* The first of the largest; NaN counts as none. */
static int32_t largest_of(const float *logits, int64_t V)
{
    int64_t best = -1;
    for (int64_t i = 0; i < V; i++) {
        if (!isnan(logits[i]) && (best < 0 || logits[i] > logits[best])) {
            best = i;
        }
    }
    return best < 0 || !isfinite(logits[best]) ? -1 : (int32_t)best;
}

static int by_logit(const void *a, const void *b)
{
    const p4_candidate *x = a, *y = b;
    return x->logit > y->logit ? -1 : x->logit < y->logit ? 1 : (x->id > y->id) - (x->id < y->id);
}

/* Tokens whose weight is at least `floor`, into the candidates; *sum: of their weights. */
static int64_t collect(p4_sampler *s, const float *logits, double largest, double floor, double *sum)
{
    int64_t count = 0;
    *sum = 0;
    for (int64_t i = 0; i < s->V; i++) {
        double weight = isnan(logits[i]) ? 0 : exp(((double)logits[i] - largest) / s->sampling.temperature);
        if (weight >= floor && weight > 0) {
            s->candidates[count++] = (p4_candidate){logits[i], (int32_t)i, weight};
            *sum += weight;
        }
    }
    return count;
}

/* Sorts no more tokens than the cuts can leave. */
static int64_t cut(p4_sampler *s, const float *logits, double largest, double *sum)
{
    static const double floors[] = {1e-3, 1e-6, 0};
    double all, kept = 0;
    int64_t count = 0, top_k = s->sampling.top_k > 0 ? s->sampling.top_k : s->V, k = 0;
    (void)collect(s, logits, largest, 0, &all);
    for (int i = 0; i < 3; i++) {
        count = collect(s, logits, largest, floors[i], sum);
        if (count >= top_k || *sum >= s->sampling.top_p * all) {
            break;
        }
    }
    qsort(s->candidates, (size_t)count, sizeof *s->candidates, by_logit);
    count = p4_min_i64(count, top_k);
    if (s->sampling.top_k > 0) { /* top_p is of what top_k left */
        all = 0;
        for (int64_t i = 0; i < count; i++) {
            all += s->candidates[i].weight;
        }
    }
    while (k < count && (k == 0 || kept < s->sampling.top_p * all)) {
        kept += s->candidates[k++].weight;
    }
    *sum = kept;
    return k;
}

int32_t p4_sampler_next(p4_sampler *s, const float *logits)
{
    double sum, largest;
    int32_t best = largest_of(logits, s->V);
    if (s->sampling.temperature <= 0 || best < 0) {
        return best;
    }
    largest = (double)logits[best];
    bool uncut = s->sampling.top_k == 0 && s->sampling.top_p >= 1;
    int64_t count = uncut ? collect(s, logits, largest, 0, &sum) : cut(s, logits, largest, &sum);
    double at = p4_rng_uniform(&s->rng) * sum;
    for (int64_t i = 0; i < count; i++) {
        at -= s->candidates[i].weight;
        if (at < 0) {
            return s->candidates[i].id;
        }
    }
    return s->candidates[count - 1].id;
}
