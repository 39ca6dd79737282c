/* plans.h - the plans of a batch's models: one for all of the same shape and configuration. */
#ifndef P4_BATCH_PLANS_H
#define P4_BATCH_PLANS_H

#include "jobs/batch/batch.h"

typedef struct p4_batch_plans p4_batch_plans;

/* The batch of which plans are made, with its numbers of ranks; cores: of a rank, 0: its part of a node's,
 * and MPI has not been started.
 * The caller frees. Local. */
p4_rc p4_batch_plans_open(p4_batch_plans **plans, const p4_batch_options *options, int ranks,
                          int ranks_per_node, int cores);
void p4_batch_plans_close(p4_batch_plans *plans); /* NULL is fine. */
/* Plans a model with its configuration, from its headers alone. P4_E_INPUT: the model. Local. */
p4_rc p4_batch_plans_make(p4_batch_plans *plans, p4_batch_plan *plan, const p4_config *config,
                          const p4_queue_entry *given);

#endif
