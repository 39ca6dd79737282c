/* evaluate.h - how well a form of the model predicts a text: loss, perplexity, accuracy, and KL to a
 * reference. */
#ifndef P4_EVALUATE_H
#define P4_EVALUATE_H

#include "jobs/train/original.h"
#include "jobs/train/pipeline.h"
#include "src/packed.h"
#include "src/phase4/results.h"

/* Losses of a model summed over each part of the windows. */
typedef struct p4_part_losses {
    double *nll;   /* [count], heap; NULL: not known */
    int64_t count; /* that of the windows' parts */
} p4_part_losses;

typedef struct p4_evaluator {
    p4_compute *compute;
    const p4_original *original;
    p4_pipeline_plan plan; /* `reference` follows from what is asked */
    const p4_windows *windows;
    /* Of the original, which p4_evaluate_original fills in and p4_evaluate_packed compares with; the caller
     * frees nll. NULL: no intervals are computed. */
    p4_part_losses *opt_losses;
    uint64_t seed; /* of the intervals */
    /* The set of eval_sets that the windows are of, for the progress line; NULL: none. */
    const char *opt_set;
} p4_evaluator;

/* Every window through `form`; with a reference also the mean KL(reference || form). *opt_losses: the sums of
 * its losses, which the caller frees. P4_E_INPUT: the loss is not finite. Collective. */
p4_rc p4_evaluate(const p4_evaluator *evaluator, const p4_form *form, const p4_form *reference,
                  p4_evaluation *quality, p4_part_losses *opt_losses);
/* The original, which is loaded. Collective. */
p4_rc p4_evaluate_original(const p4_evaluator *evaluator, p4_evaluation *quality);
/* A compressed model; with KL to the original where that is loaded and `compare` says so. Collective. */
p4_rc p4_evaluate_packed(const p4_evaluator *evaluator, const p4_packed *packed, bool compare,
                         p4_evaluation *quality);

#endif
