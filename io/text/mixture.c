#include "io/text/mixture.h"

#include <math.h>
#include <stdlib.h>

#include "src/leaf/rng.h"

static const uint64_t pass_stream =
    UINT64_C(0x6d69780000000000); /* of random numbers, under the run's seed */

void p4_mixture_apply(const p4_mixture *mixture, double *weights, int64_t count)
{
    double total[P4_NUMBERS_MAX] = {0};
    if (mixture == NULL || mixture->source_count == 0) {
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        total[mixture->source[i]] += weights[i];
    }
    for (int64_t i = 0; i < count; i++) {
        int32_t s = mixture->source[i];
        weights[i] *= total[s] > 0 ? mixture->share[s] / total[s] : 0;
    }
}

/* taken [wanted]: the windows of a source of `count` from its `from`th on, counted over all epochs. */
static void take(uint32_t *taken, int64_t wanted, int64_t from, int64_t first, int64_t count, uint32_t *work,
                 uint64_t seed, int64_t source)
{
    for (int64_t i = 0, pass = -1; i < wanted; i++) {
        if ((from + i) / count != pass) {
            pass = (from + i) / count;
            p4_rng_permutation(work, (uint32_t)count, seed,
                               pass_stream | (uint64_t)source << 32 | (uint64_t)pass);
        }
        taken[i] = (uint32_t)(first + work[(from + i) % count]);
    }
}

void p4_mixed_order(uint32_t *order, uint32_t *work, const p4_mixed_windows *windows, uint64_t seed,
                    int64_t epoch)
{
    const int64_t count = windows->end[windows->source_count - 1];
    uint32_t *taken = work + count;
    double sum = 0;
    int64_t first = 0, given = 0;
    for (int64_t s = 0; s < windows->source_count; s++) {
        sum += windows->share[s];
        int64_t upto = s + 1 < windows->source_count ? llround(sum * (double)count) : count;
        take(taken + given, upto - given, epoch * (upto - given), first, windows->end[s] - first, work, seed,
             s);
        given = upto;
        first = windows->end[s];
    }
    p4_rng_permutation(work, (uint32_t)count, seed, (uint64_t)epoch + 1);
    for (int64_t i = 0; i < count; i++) {
        order[i] = taken[work[i]];
    }
}

void p4_mixture_free(p4_mixture *mixture)
{
    free(mixture->source);
    *mixture = (p4_mixture){.source = NULL};
}
