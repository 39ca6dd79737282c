/* metrics.h - metrics.jsonl of a run: its evaluations, its reconstructed blocks, its steps of training, in
 * order. The file is made with its first line. Whoever watches the run (watch.h) gets the same. */
#ifndef P4_JOBS_METRICS_H
#define P4_JOBS_METRICS_H

#include "jobs/run.h"

/* Writes what the processes before this one had measured up to their checkpoint, so that the file has no gap
 * and no line twice. final_texts: the number of texts whose final evaluation is done. Rank 0. */
p4_rc p4_metrics_restore(p4_run *run, int64_t final_texts);
/* One measurement more; an evaluation without tokens was not made and leaves no line. Rank 0. */
p4_rc p4_metrics_add_point(p4_run *run, const p4_training_point *point);
p4_rc p4_metrics_add_entry(p4_run *run, const p4_history_entry *entry); /* of fine-tuning's history */
p4_rc p4_metrics_add_blocks(p4_run *run, const p4_block_loss *loss);
/* opt_set: of eval_sets; NULL: of the evaluation text. */
p4_rc p4_metrics_add_evaluation(p4_run *run, const char *stage, const char *opt_set,
                                const p4_evaluation *evaluation);

#endif
