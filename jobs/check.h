/* check.h - what can be known before the work: whether files can be read, outputs written, memory and disk
 * hold what the run needs, there is text enough, and settings take effect. From headers and the
 * configuration; no weight is read, and text only where no run follows. */
#ifndef P4_CHECK_H
#define P4_CHECK_H

#include "jobs/findings.h"
#include "jobs/plan.h"
#include "jobs/run.h"
#include "jobs/text_files.h"

/* Opens run->original and, on rank 0, run->tokenizer, and looks at everything before it complains: P4_E_INPUT
 * (or the worst code) with every error, one a line; warnings go to the log. alone: no run follows, which
 * would count what the sizes of files only bound: text is read here where that takes seconds. measures: as of
 * p4_run_check. Changes nothing on the disk. Collective. */
p4_rc p4_check_run(p4_run *run, bool alone, bool measures);

/* What the plan of a run says to its other checks. */
typedef struct p4_outlook {
    p4_plan_windows windows;
    p4_rank_plan rank;    /* of this rank */
    int64_t copied_bytes; /* of files that go along with the model */
} p4_outlook;

/* --- its parts ---------------------------------------------------------------------------------- */

/* check_output.c: the output directory, and files that go along. has_model: the model is open.
 * Sets run->output_bytes, run->scratch_bytes and run->checkpoints_bytes.
 * Rank 0. */
void p4_check_output(p4_run *run, bool has_model, p4_outlook *outlook, p4_findings *findings);
/* What the run puts on the disk. */
p4_disk_plan p4_check_disk_plan(const p4_run *run, const p4_outlook *outlook);
/* check_time.c: says how long the run will take by its plan and, where it is long, which keys make it
 * shorter. Sets run->planned_s. Rank 0. */
void p4_check_time(p4_run *run, const p4_outlook *outlook, bool measures);
/* What is left of that time for a run that continues from the checkpoint that p4_resume_choose has found;
 * without one, nothing. Rank 0. */
void p4_check_time_left(const p4_run *run);
/* check_text.c: can windows be evaluated as eval_bos and eval_stride say? held_out: they are set aside from
 * the calibration data. The original is open. Local. */
p4_rc p4_check_protocol(const p4_run *run, bool held_out);
/* check_text.c: text, tokens and tokenizer, and settings that depend on how much there is. Rank 0. */
void p4_check_text(p4_run *run, bool has_model, bool alone, p4_findings *findings);
/* check_memory.c: this rank's memory on its node and its device. Keys that leave open how much is taken
 * (recompute, distill_teacher, micro_batch_size) get values with which the run fits, the same on every rank.
 * process_bytes: resident memory of this process before the model was opened. Collective. */
p4_rc p4_check_memory(p4_run *run, double process_bytes, p4_outlook *outlook);

#endif
