#include "src/decode/sampler.h"

#include <math.h>
#include <stdlib.h>

p4_rc p4_sampler_open(p4_sampler *sampler, const p4_sampling *sampling, int64_t V)
{
    *sampler = (p4_sampler){.sampling = *sampling, .rng = {.seed = sampling->seed}, .V = V};
    sampler->candidates = p4_alloc((size_t)V, sizeof *sampler->candidates);
    sampler->weights = p4_alloc((size_t)V, sizeof *sampler->weights);
    return sampler->candidates != NULL && sampler->weights != NULL ? P4_OK : P4_E_SYSTEM;
}

void p4_sampler_close(p4_sampler *sampler)
{
    free(sampler->candidates);
    free(sampler->weights);
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

static void weigh(p4_sampler *s, const float *logits, double largest)
{
    for (int64_t i = 0; i < s->V; i++) {
        s->weights[i] = isnan(logits[i]) ? 0 : exp(((double)logits[i] - largest) / s->sampling.temperature);
    }
}

/* Tokens whose weight is at least `floor`, into the candidates; *sum: of their weights. */
static int64_t collect(p4_sampler *s, const float *logits, double floor, double *sum)
{
    int64_t count = 0;
    *sum = 0;
    for (int64_t i = 0; i < s->V; i++) {
        double weight = s->weights[i];
        if (weight >= floor && weight > 0) {
            s->candidates[count++] = (p4_candidate){logits[i], (int32_t)i, weight};
            *sum += weight;
        }
    }
    return count;
}

/* The `keep` first of `count` candidates come to the front, in any order: by halves as quicksort makes them,
 * of which one has the border. */
static void bring_forward(p4_candidate *c, int64_t count, int64_t keep)
{
    int64_t low = 0, high = count;
    while (high - low > 1) {
        const p4_candidate pivot = c[low + (high - low) / 2];
        int64_t i = low, j = high - 1;
        while (i <= j) {
            while (by_logit(&c[i], &pivot) < 0) {
                i++;
            }
            while (by_logit(&c[j], &pivot) > 0) {
                j--;
            }
            if (i <= j) {
                const p4_candidate moved = c[i];
                c[i++] = c[j];
                c[j--] = moved;
            }
        }
        if (keep > j && keep <= i) {
            return;
        }
        low = keep > i ? i : low;
        high = keep <= j ? j + 1 : high;
    }
}

/* Sorts no more tokens than the cuts can leave. */
static int64_t cut(p4_sampler *s, const float *logits, double *sum)
{
    static const double floors[] = {1e-3, 1e-6, 0};
    double all, kept = 0;
    int64_t count = 0, top_k = s->sampling.top_k > 0 ? s->sampling.top_k : s->V, k = 0;
    (void)collect(s, logits, 0, &all);
    for (int i = 0; i < 3; i++) {
        count = collect(s, logits, floors[i], sum);
        if (count >= top_k || *sum >= s->sampling.top_p * all) {
            break;
        }
    }
    bring_forward(s->candidates, count, p4_min_i64(count, top_k));
    count = p4_min_i64(count, top_k);
    qsort(s->candidates, (size_t)count, sizeof *s->candidates, by_logit);
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
    weigh(s, logits, largest);
    bool uncut = s->sampling.top_k == 0 && s->sampling.top_p >= 1;
    int64_t count = uncut ? collect(s, logits, 0, &sum) : cut(s, logits, &sum);
    double at = p4_rng_uniform(&s->rng) * sum;
    for (int64_t i = 0; i < count; i++) {
        at -= s->candidates[i].weight;
        if (at < 0) {
            return s->candidates[i].id;
        }
    }
    return s->candidates[count - 1].id;
}
