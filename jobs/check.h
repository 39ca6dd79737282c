/* check.h - what can be known before the work: whether files can be read, outputs written, memory and disk
 * hold what the run needs, and settings take effect. From headers and the configuration; no weight and little
 * text is read. */
#ifndef P4_CHECK_H
#define P4_CHECK_H

#include "jobs/findings.h"
#include "jobs/plan.h"
#include "jobs/run.h"
#include "jobs/text_files.h"

/* Opens run->original and, on rank 0, run->tokenizer, and looks at everything before it complains: P4_E_INPUT
 * (or the worst code) with every error, one a line; warnings go to the log. alone: no run follows, which
 * would count what the sizes of files only bound. Changes nothing on the disk. Collective. */
p4_rc p4_check_run(p4_run *run, bool alone);

/* What the plan of a run says to its other checks. */
typedef struct p4_outlook {
    p4_plan_windows windows;
    double teacher_file_bytes; /* on disk; 0: the teacher is not cached */
} p4_outlook;

/* --- its parts ---------------------------------------------------------------------------------- */

/* check_output.c: the output directory, and files that go along. has_model: the model is open. Rank 0. */
void p4_check_output(const p4_run *run, bool has_model, const p4_outlook *outlook, p4_findings *findings);
/* check_text.c: text, tokens and tokenizer, and settings that depend on how much there is. Rank 0. */
void p4_check_text(p4_run *run, bool has_model, bool alone, p4_findings *findings);
/* check_memory.c: this rank's memory on its node and its device. Keys that leave open how much is taken
 * (recompute, distill_teacher, micro_batch_size) get values with which the run fits, the same on every rank.
 * process_bytes: anonymous memory of this process before the model was opened. Collective. */
p4_rc p4_check_memory(p4_run *run, double process_bytes, p4_outlook *outlook);

#endif
