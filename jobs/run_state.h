/* run_state.h - what a run has measured and made so far as named arrays (io/h5/arrays.h): the results'
 * numbers and the training curve under run/, the compressed model and the statistics as
 * jobs/train/checkpoint.h says. */
#ifndef P4_RUN_STATE_H
#define P4_RUN_STATE_H

#include "io/h5/arrays.h"
#include "jobs/run.h"
#include "jobs/train/fine_tune.h"

/* This rank's share. training: NULL outside fine-tuning. Local. */
p4_rc p4_run_state_put(p4_arrays_writer *writer, const p4_run *run, const p4_tuning_state *training,
                       int64_t bad_steps);
/* Into a run whose model is open, on every rank. Local. */
p4_rc p4_run_state_take(const p4_arrays *arrays, p4_run *run);
/* Blocks up to the last that a reconstruction has trained; 0: none. Local. */
p4_rc p4_run_state_blocks(const p4_arrays *arrays, int64_t *blocks);
/* The state of fine-tuning. Local. */
p4_rc p4_run_state_take_training(const p4_arrays *arrays, p4_tuning_state *training, int64_t *bad_steps);

#endif
