/* launch.h - a whole batch, from its command line to its exit status. */
#ifndef P4_BATCH_LAUNCH_H
#define P4_BATCH_LAUNCH_H

#include "jobs/batch/cli.h"

/* Works on the queue, or checks every model of it: an MPI program. The exit status. Collective over all
 * ranks. */
int p4_batch_launch(const p4_batch_cli *cli);
/* --plan, --results and --list, which need no MPI. The exit status. Local. */
int p4_batch_answer(const p4_batch_cli *cli);

#endif
