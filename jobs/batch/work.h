/* work.h - a rank of a batch: it waits for models and works on them in groups with other ranks. */
#ifndef P4_BATCH_WORK_H
#define P4_BATCH_WORK_H

#include "dist/control.h"
#include "jobs/batch/batch.h"

/* Takes orders until the batch has ended. P4_E_SYSTEM: the coordinator is gone. A collective of the ranks
 * that an order names. */
p4_rc p4_batch_work(p4_machine *machine, p4_control *control, const p4_batch_options *options);

#endif
