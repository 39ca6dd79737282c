/* watch.h - those who watch a run: Weights & Biases and TensorBoard, where their keys are on. Losing one of
 * them is one warning, and never stops a run. Rank 0. */
#ifndef P4_JOBS_WATCH_H
#define P4_JOBS_WATCH_H

#include "io/metrics/measurement.h"
#include "jobs/run.h"

/* Hands a measurement on; the first one opens what the configuration asks for. Local. */
void p4_watch_add(p4_run *run, const p4_measurement *measurement);
/* The run ended, with these results as results.json says them; what it left is a report, "" without one. A
 * run that was stopped is not ended: it will be continued. The path of a watcher that was lost is taken out
 * of the results. Local. */
void p4_watch_finish(p4_run *run, bool success, const char *results_json, const char *report);
void p4_watch_close(p4_run *run); /* Local. */

#endif
