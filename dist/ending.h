/* ending.h - the end of a job. MPI_Finalize waits for every rank, for ever if one is stopped; no call of MPI
 * can be made beside it. */
#ifndef P4_ENDING_H
#define P4_ENDING_H

#include <pthread.h>
#include <stdatomic.h>

#include "dist/pulse.h"

/* A watch over the end; plain data in the caller's memory, which outlives it. */
typedef struct p4_ending {
    p4_pulse *pulse;
    int rank, ranks;
    const char *host;
    double timeout_s;
    atomic_bool over;
    bool watched;
    pthread_t thread;
} p4_ending;

/* From now until p4_ending_over, a rank that does not run for timeout_s ends this process with a message.
 * Without a pulse, or where no thread can be started, nothing is watched. Local. */
void p4_ending_watch(p4_ending *ending, p4_pulse *pulse, const char *host, int rank, int ranks,
                     double timeout_s);
void p4_ending_over(p4_ending *ending); /* Local. */

#endif
