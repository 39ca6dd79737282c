/* exact_sums.h - sums that do not depend on the number of ranks (key exact_sums). What is added up, the
 * leaves, comes from micro-batches whose windows do not depend on the ranks. Micro-batch m is computed by
 * rank m % ranks, in round m / ranks; after each round its leaves are added in the order of the ranks. So
 * every element is ((leaf 0 + leaf 1) + leaf 2) + ..., as on one rank. In host memory only. */
#ifndef P4_EXACT_SUMS_H
#define P4_EXACT_SUMS_H

#include "jobs/train/compute.h"

typedef struct p4_exact_sums {
    p4_compute *compute;
    float *piece; /* of another rank's leaf; NULL: there is one rank */
} p4_exact_sums;

/* Bytes that p4_exact_sums_open takes. Local. */
int64_t p4_exact_sums_bytes(const p4_compute *compute);
/* compute must outlive it. The caller closes. Local. */
p4_rc p4_exact_sums_open(p4_exact_sums *sums, p4_compute *compute);
void p4_exact_sums_close(p4_exact_sums *sums); /* Also of zeros. Local. */

/* Windows of a micro-batch, where the configuration leaves it open: about 8 micro-batches a step. */
static inline int64_t p4_exact_micro_batch(int64_t windows)
{
    return p4_max_i64(1, p4_min_i64(8, windows / 8));
}
/* How many ranks have a micro-batch in this round: ranks [0, givers). */
static inline int p4_exact_givers(const p4_group *group, int64_t micro_batches, int64_t round)
{
    return (int)p4_max_i64(0, p4_min_i64(group->ranks, micro_batches - round * group->ranks));
}

/* sum [count] of rank `root` += the leaves [count] of ranks 0 to givers - 1, in this order. `sum` is ignored
 * on other ranks, `leaf` on those that give none. Collective. */
void p4_exact_sums_add(p4_exact_sums *sums, float *sum, const float *leaf, int64_t count, int givers,
                       int root);
/* The same for a sum that every rank is to have: each rank adds up its share of the elements, until
 * p4_exact_sums_share, which follows the last round, gives all of them to all. Both Collective. */
void p4_exact_sums_add_shares(p4_exact_sums *sums, float *sum, const float *leaf, int64_t count, int givers);
void p4_exact_sums_share(p4_exact_sums *sums, float *sum, int64_t count);

/* figures [count]: of each, one rank has the value and the others have 0; all get the values. Collective. */
static inline void p4_exact_gather(p4_group *group, double *figures, int64_t count)
{
    p4_group_sum_f64(group, figures, count); /* x + 0 is x, in any order */
}
/* ((0 + figures[0]) + figures[1]) + ... Local. */
static inline double p4_exact_total(const double *figures, int64_t count)
{
    double total = 0;
    for (int64_t i = 0; i < count; i++) {
        total += figures[i];
    }
    return total;
}

#endif
