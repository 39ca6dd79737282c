/* provenance.h - the record of where, when and by which software a run is made (p4_provenance of phase4.h).
 */
#ifndef P4_JOBS_PROVENANCE_H
#define P4_JOBS_PROVENANCE_H

#include "jobs/run.h"

/* Hosts, devices and versions, when the run's device is open. Collective. */
p4_rc p4_provenance_begin(p4_run *run);
/* How the run continues an earlier one: from a checkpoint of this step, which its process wrote `continued`
 * continuations after the run had started. Local. */
void p4_provenance_continue(p4_run *run, const char *checkpoint, int64_t step, const char *started,
                            int64_t continued);

#endif
