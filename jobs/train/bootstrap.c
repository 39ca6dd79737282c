#include "jobs/train/bootstrap.h"

#include <math.h>
#include <stdlib.h>

#include "src/leaf/rng.h"

/* Sums over a document, or over a window. */
typedef struct unit {
    double nll, original, predictions;
} unit;

static const uint64_t STREAM = 0x626f6f74; /* of random numbers; no other user of the seed has it */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Percentiles by linear interpolation between order statistics, as numpy has them. Sorts the values. */
static p4_interval interval_of(double *values)
{
    double ends[2];
    qsort(values, P4_RESAMPLES, sizeof *values, by_value);
    for (int i = 0; i < 2; i++) {
        double at = (i == 0 ? 0.025 : 0.975) * (P4_RESAMPLES - 1);
        const double *below = &values[(int)at];
        double step = below[1] > below[0] ? below[1] - below[0] : 0.0; /* both may be infinite */
        ends[i] = below[0] + (at - floor(at)) * step;
    }
    return (p4_interval){.low = ends[0], .high = ends[1]};
}

static void sum_units(unit *units, const p4_windows *windows, bool by_window, const double *nll,
                      const double *original_nll)
{
    for (int64_t i = 0; i < windows->part_count; i++) {
        const p4_window_part *part = &windows->parts[i];
        unit *u = &units[by_window ? part->window : part->document];
        u->nll += nll[i];
        u->original += original_nll != NULL ? original_nll[i] : 0.0;
        u->predictions += (double)(part->to - part->from);
    }
}

p4_rc p4_bootstrap(p4_interval *perplexity, p4_interval *rise, const p4_windows *windows, const double *nll,
                   const double *original_nll, uint64_t seed, p4_stop *stop)
{
    p4_rc rc = P4_OK;
    bool by_window = windows->part_documents < P4_FEWEST_DOCUMENTS;
    int64_t count = by_window ? windows->count : windows->part_documents;
    p4_rng rng = {.seed = seed, .stream = STREAM};
    unit *units = p4_alloc((size_t)count, sizeof *units);
    double *values = p4_alloc(P4_RESAMPLES, sizeof *values);
    double *rises = p4_alloc(P4_RESAMPLES, sizeof *rises);
    TRY(units != NULL && values != NULL && rises != NULL ? P4_OK : P4_E_SYSTEM);
    *perplexity = (p4_interval){.low = NAN, .high = NAN};
    if (original_nll != NULL) {
        *rise = *perplexity;
    }
    if (count < 2) {
        goto done;
    }
    sum_units(units, windows, by_window, nll, original_nll);
    for (int r = 0; r < P4_RESAMPLES; r++) {
        unit sum = {0};
        TRY(p4_stop_check(stop)); /* each is a sum over all documents */
        for (int64_t i = 0; i < count; i++) {
            const unit *u = &units[p4_rng_below(&rng, (uint64_t)count)];
            sum.nll += u->nll;
            sum.original += u->original;
            sum.predictions += u->predictions;
        }
        values[r] = exp(sum.nll / sum.predictions);
        rises[r] = exp((sum.nll - sum.original) / sum.predictions) - 1.0;
    }
    *perplexity = interval_of(values);
    if (original_nll != NULL) {
        *rise = interval_of(rises);
    }
done:
    free(units);
    free(values);
    free(rises);
    return rc;
}
