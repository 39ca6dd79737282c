/* coll.h - what moves between ranks while a model runs: device arrays. MPI for host memory (coll_mpi.c), NCCL for GPUs.
 *
 * All Collective; send and receive by the two ranks. On a device with a queue the operations are queued in order. */
#ifndef P4_COLL_H
#define P4_COLL_H

#include "dist.h"

typedef struct p4_coll {
    const char *name;
    p4_dist *dist;
    void (*sum_f32)(struct p4_coll *coll, float *data, int64_t count);              /* to all, in place */
    void (*reduce_f32)(struct p4_coll *coll, float *data, int64_t count, int root); /* others' data is scratch after */
    void (*bcast)(struct p4_coll *coll, void *data, int64_t bytes, int root);
    void (*recv)(struct p4_coll *coll, void *data, int64_t bytes, int from);
    p4_request (*isend)(struct p4_coll *coll, const void *data, int64_t bytes, int to);
    void (*wait)(struct p4_coll *coll, p4_request *request);
    void *state;
} p4_coll;

/* Collectives on host memory through MPI. The dist must outlive it. Local. */
p4_coll p4_coll_mpi(p4_dist *dist);

#endif
