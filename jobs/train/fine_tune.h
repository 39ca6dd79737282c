/* fine_tune.h - trains the masters of a compressed model epoch by epoch and keeps the best state. */
#ifndef P4_FINE_TUNE_H
#define P4_FINE_TUNE_H

#include "jobs/train/original.h"
#include "jobs/train/pipeline.h"
#include "jobs/train/trainer.h"
#include "src/phase4/results.h"

typedef struct p4_tuner {
    p4_compute *compute;
    p4_original *original; /* unloaded from a GPU first: training needs the memory */
    p4_training_set *train;
    const p4_windows *eval; /* judge the epochs; none: the last epoch's state is kept */
    const p4_train_plan *plan;
    const p4_masters *masters; /* to start from; NULL, and where none is known: the original's weights */
    p4_pipeline_plan evaluation;
    int64_t log_every;       /* steps */
    double start_perplexity; /* of the packed model on eval: what an epoch has to beat */
    /* Sees each logged step, on rank 0. NULL: not called. */
    p4_rc (*on_point)(void *user, const p4_training_point *point);
    void *user;
} p4_tuner;

/* *packed is replaced by a better state of the model. *record, with its history, is the same on every rank;
 * the caller frees it with p4_fine_tuning_free. P4_E_INPUT: fewer windows than one step takes, a gradient
 * that does not become finite. Collective. */
p4_rc p4_tune(const p4_tuner *tuner, p4_packed *packed, p4_fine_tuning *record);

#endif
