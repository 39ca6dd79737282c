/* keep.h - what is kept of a run that could not write its outputs. */
#ifndef P4_KEEP_H
#define P4_KEEP_H

#include "jobs/run.h"

/* The export has failed, as after the last work of hours a disk is full: saves what the run has made, if
 * there is room, and adds to the recorded message how to go on, in a batch with --failed-only. Returns
 * `outcome`, or P4_E_HOLD if the directory is no longer this run's. Collective. */
p4_rc p4_keep_state(p4_run *run, p4_rc outcome);

#endif
