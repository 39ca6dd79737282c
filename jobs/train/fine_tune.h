/* fine_tune.h - trains the masters of a compressed model and keeps the best of the states that were
 * evaluated. */
#ifndef P4_FINE_TUNE_H
#define P4_FINE_TUNE_H

#include "jobs/train/original.h"
#include "jobs/train/pipeline.h"
#include "jobs/train/trainer.h"
#include "src/phase4/results.h"

/* How far a training is, beside what its trainer, its packed model and its record hold. */
typedef struct p4_tuning_state {
    int64_t step, tokens; /* done */
    int64_t epoch_steps;  /* since the last evaluation, or the end of the last epoch; without skipped ones */
    double epoch_loss;    /* the sum of their losses */
    double best_perplexity; /* of the packed model */
    double elapsed_s;
} p4_tuning_state;

typedef struct p4_tuner {
    p4_compute *compute;
    p4_original *original; /* unloaded from a GPU first: training needs the memory */
    p4_training_set *train;
    const p4_windows *eval; /* judge the states; none: the last epoch's is kept */
    const p4_train_plan *plan;
    p4_masters *masters; /* to start from, and then closed; NULL, and where none is known: the original's */
    p4_pipeline_plan evaluation;
    int64_t log_every;       /* steps */
    int64_t eval_every;      /* steps; 0: only at the end of each epoch */
    double start_perplexity; /* of the packed model on eval: what a state has to beat */
    /* Sees each logged step, on rank 0. NULL: not called. */
    p4_rc (*on_point)(void *user, const p4_training_point *point);
    /* Sees each evaluation, on rank 0. NULL: not called. */
    p4_rc (*on_evaluation)(void *user, const p4_history_entry *entry);
    /* Saves the state after a step, from which `restore` of another process continues. Rank 0 is asked with
     * is_save_due before each step; a training that is stopped is saved as well. beside: `save` need not have
     * written when it returns; is_saving (Local) says whether this rank still writes, and finish_save is
     * called when no rank does, or with wait. P4_E_HOLD from either ends the training; after another error it
     * goes on with a warning. NULL, all of them: nothing is saved. All Collective but for the questions. */
    bool (*is_save_due)(void *user, int64_t step);
    p4_rc (*save)(void *user, const p4_trainer *trainer, const p4_tuning_state *state, bool beside);
    bool (*is_saving)(void *user);
    p4_rc (*finish_save)(void *user, bool wait);
    /* Fills the trainer, which then is requantized, and *state; the packed model and the record are there.
     * NULL: the training starts anew. */
    p4_rc (*restore)(void *user, p4_trainer *trainer, p4_tuning_state *state);
    void *user;
} p4_tuner;

/* *packed is replaced by a better state of the model. *record, with its history, is the same on every rank;
 * the caller frees it with p4_fine_tuning_free. P4_E_INPUT: fewer windows than one step takes, a gradient
 * that does not become finite. P4_STOPPED: a rank was asked to stop (compute->stop), and the state is saved.
 * Collective. */
p4_rc p4_tune(const p4_tuner *tuner, p4_packed *packed, p4_fine_tuning *record);

#endif
