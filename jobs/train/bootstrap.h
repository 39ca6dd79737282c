/* bootstrap.h - confidence intervals of perplexities: the percentile bootstrap over documents (Efron and
 * Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). */
#ifndef P4_BOOTSTRAP_H
#define P4_BOOTSTRAP_H

#include "io/text/dataset.h"
#include "jobs/train/stop.h"
#include "src/phase4/results.h"

/* The interval between the 2.5th and the 97.5th percentile; NaN: not known. */
typedef struct p4_interval {
    double low, high;
} p4_interval;

enum { P4_RESAMPLES = 1000 };

/* Of the perplexity, and with the original's losses of its relative rise; both of one resample are of the
 * same documents. nll, original_nll (NULL: *rise is not set) [windows->part_count]: summed over each part's
 * predictions. Documents are resampled, or windows if there are fewer than P4_FEWEST_DOCUMENTS; of a single
 * window nothing is known: NaN. The same for the same seed. P4_STOPPED: this rank was asked to stop. Local.
 */
p4_rc p4_bootstrap(p4_interval *perplexity, p4_interval *rise, const p4_windows *windows, const double *nll,
                   const double *original_nll, uint64_t seed, p4_stop *stop);

#endif
