/* keep.h - what is kept of a run that could not write its outputs or was asked to stop. */
#ifndef P4_KEEP_H
#define P4_KEEP_H

#include "jobs/resume.h"
#include "jobs/run.h"

/* The export has failed, as after the last work of hours a disk is full: saves what the run has made, if
 * there is room, and adds to the recorded message how to go on, in a batch with --failed-only. Returns
 * `outcome`, or P4_E_HOLD if the directory is no longer this run's. Collective. */
p4_rc p4_keep_state(p4_run *run, p4_rc outcome);

/* Saves the state of a run that is asked to stop. If that fails, as on a full disk, the recorded message says
 * what asked for the stop, why nothing was saved, what to free and from where the same command continues.
 * trainer, state: as for p4_resume_save. Collective. */
p4_rc p4_keep_stopped(p4_run *run, const p4_trainer *trainer, const p4_tuning_state *state);

/* How many checkpoints a process that goes on writes. */
typedef enum p4_keep_saves { P4_KEEP_SAVES_NONE, P4_KEEP_SAVES_ONE, P4_KEEP_SAVES_MANY } p4_keep_saves;

/* Bytes on the disk of output_path. */
typedef struct p4_keep_room {
    double outputs, scratch; /* of all outputs; of temporary files, an estimate */
    double checkpoint;       /* of a new one */
    double there;            /* checkpoints that are there: they stay until newer ones are complete */
    double free;
    p4_keep_saves saves;
} p4_keep_room;
/* What is missing at the peak; 0 or less: nothing. Local. */
double p4_keep_missing(const p4_keep_room *room);

#endif
