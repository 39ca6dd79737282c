/* details.h - details.json of a run: its tensors, its activations, and the time line of its ranks. */
#ifndef P4_JOBS_DETAILS_H
#define P4_JOBS_DETAILS_H

#include "jobs/run.h"

/* What a stage begins with and ends with, for the time line of this rank. Local. */
void p4_timeline_begin(p4_run *run, const char *stage);
void p4_timeline_end(p4_run *run);
double p4_timeline_last_s(const p4_run *run); /* Seconds of the stage that ended last. Local. */
/* The stage under way, and its seconds in this process so far; NULL: none is. Local. */
const char *p4_timeline_running(const p4_run *run, double *seconds);

/* What the ranks have of their stages, for p4_details_write; the caller frees *numbers, also after an error.
 * Collective. */
p4_rc p4_timeline_gather(p4_run *run, double **numbers);
/* The file. P4_E_INPUT: it cannot be written. Rank 0. */
p4_rc p4_details_write(const p4_run *run, const char *path, const double *numbers);

#endif
