/* coordinate.h - the thread of rank 0 that hands out the models of a batch. */
#ifndef P4_BATCH_COORDINATE_H
#define P4_BATCH_COORDINATE_H

#include "dist/control.h"
#include "dist/group.h"
#include "jobs/batch/batch.h"

/* Hands out models until none is left or the batch is to stop, waits for those that run, and tells all ranks
 * that the batch has ended. What ended it early is in batch->stopping and batch->failure. The batch is the
 * thread's until it is joined. */
typedef struct p4_coordinator {
    p4_batch *batch;
    p4_control *control;
    p4_group *all; /* for an end of the whole job */
} p4_coordinator;
void *p4_batch_coordinate(void *coordinator);

#endif
