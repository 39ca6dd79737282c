/* wandb.h - a run of Weights & Biases that is recorded without a network: `wandb sync` uploads it.
 *
 * output_path/wandb/offline-run-TIME-ID/run-ID.wandb; TIME is when the run was started. A process that
 * continues a run writes it again from the start under the same ID. All Local, rank 0. */
#ifndef P4_METRICS_WANDB_H
#define P4_METRICS_WANDB_H

#include "io/metrics/measurement.h"

typedef struct p4_wandb p4_wandb;

/* Replaces output_path/wandb. P4_E_INPUT: cannot be written. */
p4_rc p4_wandb_open(p4_wandb **wandb, const p4_watched_run *run);
p4_rc p4_wandb_add(p4_wandb *wandb, const p4_measurement *measurement);
/* The end of a run: its results (results.json) become the summary, the report a file of the run. report: NULL
 * or "": none. Without it the run counts as one that is to be continued. */
p4_rc p4_wandb_finish(p4_wandb *wandb, bool success, double runtime_s, const char *results_json,
                      const char *report);
const char *p4_wandb_directory(const p4_wandb *wandb); /* of the run; lives as long as it is open */
void p4_wandb_close(p4_wandb *wandb);                  /* NULL does nothing. */

#endif
