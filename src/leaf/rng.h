/* rng.h - counter-based random numbers: value i of stream s under a seed is a pure function of (seed, s, i),
 * so any number of ranks and threads draws the same numbers. Philox4x32-10 (Salmon et al., 2011). */
#ifndef P4_RNG_H
#define P4_RNG_H

#include <stdint.h>

typedef struct p4_rng {
    uint64_t seed, stream, counter;
} p4_rng;

void p4_philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t counter);
uint64_t p4_rng_u64(p4_rng *rng);
double p4_rng_uniform(p4_rng *rng);                 /* [0, 1) */
double p4_rng_normal(p4_rng *rng);                  /* mean 0, deviation 1 (Box-Muller) */
uint64_t p4_rng_below(p4_rng *rng, uint64_t bound); /* [0, bound), unbiased */
/* A permutation of 0..count-1 (Fisher-Yates), the same for every caller with this seed and stream. */
void p4_rng_permutation(uint32_t *order, uint32_t count, uint64_t seed, uint64_t stream);

#endif
