/* execute.h - the whole run: stage table in order, times, verdict, results.json. */
#ifndef P4_EXECUTE_H
#define P4_EXECUTE_H

#include "jobs/job.h"

/* Opens ranks' device and threads, runs every stage, writes results.json. *results is the same on every rank;
 * it is filled as far as the run came. log_callback (rank 0, NULL: none) sees each logged training step. The
 * caller frees results with p4_results_free. Collective. */
p4_rc p4_execute_on(p4_group *group, const p4_config *config, p4_log_callback log_callback, void *log_user,
                    p4_results *results);

#endif
