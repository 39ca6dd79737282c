/* resume.h - a run's checkpoints: saving them, and continuing from one (docs/running.md, docs/formats.md 6).
 */
#ifndef P4_RESUME_H
#define P4_RESUME_H

#include "jobs/run.h"
#include "jobs/train/fine_tune.h"

/* Prepares run->resume and run->stop, before the model's size class changes the configuration. stages
 * [P4_MAX_STAGES]: the key of each stage whose outcome a checkpoint holds, in the order of run->done, NULL
 * for the others. Collective. */
p4_rc p4_resume_open(p4_run *run, const char *const *stages);
void p4_resume_close(p4_run *run); /* Also of a run without. Local. */

/* Finds the checkpoint to continue from, as the key `resume` says, if there is one. A damaged one is named in
 * a warning, and the one before it is taken. P4_E_INPUT: none can be used; or the configuration differs in a
 * key that may not change. Collective. */
p4_rc p4_resume_choose(p4_run *run);
/* Logs which checkpoint that is, if there is one; verb: "continues". Local. */
void p4_resume_say(const p4_run *run, const char *verb);
/* What the chosen checkpoint has of the run; false: no checkpoint is continued. Local. */
typedef struct p4_resume_content {
    bool done[P4_MAX_STAGES]; /* the finished stages */
    int64_t step;             /* of the training under way */
    int64_t blocks;           /* of the reconstruction: those up to the last that is trained */
} p4_resume_content;
bool p4_resume_has(const p4_run *run, p4_resume_content *content);
/* When the model and the text are there: compares them with the checkpoint's, takes its state, and marks in
 * run->done what need not be repeated. Collective. */
p4_rc p4_resume_restore(p4_run *run);

/* Does the checkpoint hold a training that is under way and that p4_resume_take_training has not taken? */
bool p4_resume_has_training(const p4_run *run);
/* A number that stands for the model and the text of the run, not 0. Rank 0. */
uint64_t p4_resume_inputs_key(const p4_run *run);
/* Of that training: the peak of its learning rate, the weight of its distillation. */
double p4_resume_lr(const p4_run *run);
double p4_resume_distill(const p4_run *run);
/* Is the run continued? Then *windows is the limit of training text that it began with: the state counts its
 * place in it. */
bool p4_resume_text_windows(const p4_run *run, int64_t *windows);
/* The state of that training, into an open trainer. Collective. */
p4_rc p4_resume_take_training(p4_run *run, p4_trainer *trainer, p4_tuning_state *state);

/* Is it time to save, at a border between stages (step 0) or after training step `step`? Rank 0's answer
 * counts. Local. */
bool p4_resume_is_due(const p4_run *run, int64_t step);
/* Saves a checkpoint: of a training after a step, or (both NULL) of the finished stages. The earlier ones
 * stay if it fails. It waits for the checkpoint before it, if that is still being written. beside: on return
 * the state is copied, where memory suffices, and a thread writes it; p4_resume_finish_save must follow.
 * P4_E_HOLD: the output directory is no longer this run's; nothing was written, and the run must end.
 * Collective. */
p4_rc p4_resume_save(p4_run *run, const p4_trainer *trainer, const p4_tuning_state *state, bool beside);
/* The same of the finished stages, for a run that works without: any failure but P4_E_HOLD is a warning.
 * Collective. */
p4_rc p4_resume_save_or_warn(p4_run *run);
/* Is this rank writing a checkpoint beside other work? Local. */
bool p4_resume_is_saving(const p4_run *run);
/* To be called when no rank is; wait: goes on until the checkpoint is complete. Without one on its way it
 * does nothing. The result is that of the whole checkpoint, P4_E_HOLD among them. Collective. */
p4_rc p4_resume_finish_save(p4_run *run, bool wait);
/* Seconds that the processes before this one worked on the run. */
double p4_resume_earlier_s(const p4_run *run);
/* What the same command needs besides to continue from the last checkpoint, heap: "" or " with resume=auto",
 * after "never", which would remove it, or the path of another. `word` in place of "with". NULL: memory is
 * out. */
char *p4_resume_besides(const p4_run *run, const char *word);
/* The directory of the checkpoint that was saved or taken last, "" if there was none. */
const char *p4_resume_last(const p4_run *run);
/* Removes the checkpoints of a run that has succeeded. Rank 0. */
p4_rc p4_resume_remove(const p4_run *run);

#endif
