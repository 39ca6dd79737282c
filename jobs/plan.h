/* plan.h - the memory that a run needs, before a weight is read: from the model's headers and the
 * configuration. */
#ifndef P4_PLAN_H
#define P4_PLAN_H

#include "jobs/run.h"

/* Bytes of this rank. On a CPU all are of the host, where mapped files are not counted; else those of the
 * device. */
typedef struct p4_memory_plan {
    double model; /* what every stage needs: the compressed model, on a device also the original's layers */
    double evaluation; /* beside it, while the model is evaluated and calibrated */
    double training;   /* beside it, while it is fine-tuned: masters, optimizer, codes, activations */
} p4_memory_plan;

/* run->original is open. Local. */
p4_rc p4_plan_memory(p4_memory_plan *plan, const p4_run *run);

#endif
