/* statistics.h - what calibration sees of every projection of a block: the moments of its output and the mean
 * square of each input channel, which is the diagonal of H = X'X / N that quantizers weigh errors with. */
#ifndef P4_STATISTICS_H
#define P4_STATISTICS_H

#include "jobs/train/original.h"
#include "jobs/train/pipeline.h"
#include "src/phase4/results.h"

typedef struct p4_activation_stats {
    p4_moments output;
    double *input_mean_square; /* host [cols]; those that read one input share it; NULL: not a projection */
    bool owns_input;           /* this entry frees it */
} p4_activation_stats;

/* The same on every rank. */
typedef struct p4_statistics {
    int64_t count;                /* of the model's parameters; 0: nothing was collected */
    p4_activation_stats *entries; /* [count] */
    double tokens, loss;          /* seen; mean cross-entropy of the original on them */
} p4_statistics;

/* Runs the original, which is loaded, over all windows. The caller frees. Collective. */
p4_rc p4_statistics_collect(p4_statistics *statistics, p4_compute *compute, const p4_original *original,
                            const p4_pipeline_plan *plan, const p4_windows *windows);
void p4_statistics_free(p4_statistics *statistics); /* Also of zeros. Local. */
/* Is there an entry of parameter i? Local. */
bool p4_statistics_has(const p4_statistics *statistics, int64_t i);
/* And were there inputs? An expert that no token was routed to has none. Local. */
bool p4_statistics_reached(const p4_statistics *statistics, int64_t i);
/* Tokens whose inputs were seen: of an expert, those routed to it. Local. */
double p4_statistics_rows(const p4_statistics *statistics, const p4_model *model, int64_t i);
/* How tokens were divided among experts; of a model without them, or with nothing collected, what is known.
 * The caller frees loads->tokens; those of before are freed. Local. */
p4_rc p4_statistics_loads(const p4_statistics *statistics, const p4_model *model, p4_expert_loads *loads);
/* The entry of parameter i in the public form, with copies that the caller frees. Local. */
p4_rc p4_statistics_summarize(const p4_statistics *statistics, const p4_model *model, int64_t i,
                              p4_activation_summary *summary);

/* Bytes: of the device while statistics are collected on this rank, and of the host that they take then.
 * Local. */
int64_t p4_statistics_work_bytes(const p4_compute *compute, const p4_original *original);
int64_t p4_statistics_bytes(const p4_model *model);

#endif
