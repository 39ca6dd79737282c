/* coll_nccl.h - what the parts of the collectives between GPUs share: coll_nccl.c queues operations,
 * coll_nccl_open.c opens and closes the communicator. */
#ifndef P4_COLL_NCCL_H
#define P4_COLL_NCCL_H

#include <cuda_runtime.h>
#include <nccl.h>

#include "dist/coll.h"
#include "dist/peer_sums.h"

enum { P4_COLL_MARKS = 64 /* events that mark operations, used cyclically */ };

struct p4_coll_state {
    ncclComm_t comm;
    cudaStream_t compute;            /* the device's, not ours */
    cudaStream_t queue;              /* of the operations */
    cudaEvent_t ready;               /* what `compute` held when an operation was called */
    cudaEvent_t synchronized;        /* what `compute` held at synchronize */
    cudaEvent_t done[P4_COLL_MARKS]; /* [m % P4_COLL_MARKS]: operation m, or a later one that reuses it */
    int64_t called, finished;        /* operations (launches) so far; of them known to be complete */
    bool grouped;                    /* between begin and end */
    p4_abort_hook abort_hook;        /* of the group */
    p4_peers *peers;                 /* NULL: sums are NCCL's */
    int64_t queued[P4_COLL_MARKS];   /* [m % P4_COLL_MARKS]: what `peers` had queued in all at launch m */
};

/* Waits until the call that returned `result` has completed; ncclInProgress: it did not in time. Local. */
ncclResult_t p4_nccl_finish(const struct p4_coll_state *state, ncclResult_t result, double timeout_s);
/* Ends the job: `what` failed with `result`. */
_Noreturn void p4_nccl_give_up(const p4_coll *coll, const char *what, ncclResult_t result);
/* The operations of coll_nccl.c: all members that are functions but `close`. Local. */
void p4_nccl_set_operations(p4_coll *coll);

#endif
