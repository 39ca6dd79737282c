/* export.h - a compressed model and what is known of it, as the files of an output directory
 * (io/out/outputs.h lists them). */
#ifndef P4_EXPORT_H
#define P4_EXPORT_H

#include "io/file/inputs.h"
#include "io/out/hold.h"
#include "jobs/train/curve.h"
#include "jobs/train/original.h"
#include "jobs/train/statistics.h"
#include "src/packed.h"
#include "src/phase4/results.h"
#include "src/phase4/types.h"

typedef struct p4_export {
    const p4_config *config; /* effective: what is written, where and how; it goes along */
    const p4_compute *compute;
    const p4_original *original;
    const p4_packed *packed;
    const p4_statistics *statistics; /* empty: none were collected */
    const p4_training_curve *curve;  /* rank 0 */
    const char *tokenizer_json;      /* rank 0; NULL: the model has no tokenizer */
    const p4_inputs *inputs; /* whose fingerprints go along; NULL: those of the weight files are taken */
    unsigned has;            /* rank 0: of P4_NEEDS_METRICS and P4_NEEDS_RUN, what the caller writes */
    p4_hold *hold;           /* rank 0: looked at before each file; NULL: the caller has the directory */
    p4_results *results;     /* evaluations go along; sizes, paths and names are filled in */
    bool *unfit; /* rank 0: set where no format can hold the weights, so that no model is written; NULL: not
                    asked */
} p4_export;

/* results->metrics but for the peak memory. Local. */
void p4_export_measure(const p4_export *x);
/* Measures, then rank 0 writes every file that the configuration asks for, each complete or not at all.
 * P4_E_INPUT: a file cannot be written. Collective. */
p4_rc p4_export_write(const p4_export *x);

#endif
