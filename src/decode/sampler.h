/* sampler.h - the next token, from logits. */
#ifndef P4_SAMPLER_H
#define P4_SAMPLER_H

#include "src/leaf/base.h"
#include "src/leaf/rng.h"

/* How a token is drawn: from softmax(logits / temperature), cut to the top_k most probable tokens (0: all)
 * and then to the fewest of these that hold at least top_p of the probability. Temperature 0: the most
 * probable token, of equal ones the first. */
typedef struct p4_sampling {
    double temperature, top_p;
    int64_t top_k;
    uint64_t seed; /* the same seed and logits give the same tokens */
} p4_sampling;

typedef struct p4_candidate {
    float logit;
    int32_t id;
    double weight; /* proportional to its probability */
} p4_candidate;

typedef struct p4_sampler {
    p4_sampling sampling;
    p4_rng rng;
    int64_t V;
    p4_candidate *candidates; /* [V] */
    double *weights;          /* [V]: of the logits at hand */
} p4_sampler;

/* The caller closes. Local. */
p4_rc p4_sampler_open(p4_sampler *sampler, const p4_sampling *sampling, int64_t V);
void p4_sampler_close(p4_sampler *sampler); /* Also of zeros. */
/* The token drawn from logits [V]; -1: none of them is a number above minus infinity, or one is infinite.
 * Local. */
int32_t p4_sampler_next(p4_sampler *sampler, const float *logits);

#endif
