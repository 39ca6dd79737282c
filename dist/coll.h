/* coll.h - collectives on arrays in device memory, while a model runs: MPI for host memory (coll_mpi.c), NCCL
 * for GPUs (coll_nccl.c), and copy engines where they do better (peer_sums.h).
 *
 * An operation is queued. It starts when the work that the device's queue holds at the call is done, and runs
 * beside whatever the device's queue gets next. Every rank calls the same operations in the same order.
 * Before the device reads the result, call `order_after`; before the host reads it, call `synchronize`. Over
 * host memory an operation is complete when the call returns, and mark, order_after, synchronize and wait_for
 * do nothing. A wait for other ranks that takes longer than group->timeout_s ends the job with a message. All
 * functions are Collective, except send and receive (by the two ranks) and mark, order_after, wait,
 * synchronize and wait_for (Local). */
#ifndef P4_COLL_H
#define P4_COLL_H

#include "dist/group.h"

typedef struct p4_coll {
    const char *name;    /* "MPI", "NCCL", "NCCL and copy engines" */
    const char *library; /* "2.28.3": the version of its library; "" for MPI (machine.h has that) */
    p4_group *group;
    int64_t copied; /* sums and broadcasts made by copy engines so far */
    /* Registers device memory, so that sums and broadcasts of arrays in it may use the copy engines of GPUs
     * that can access each other's memory. The arrays lie at the same offset on every rank. Memory that is
     * not registered works too. Withdraw it before it is released, which waits for what is under way; memory
     * that was never registered, NULL too, is ignored. */
    p4_rc (*share)(struct p4_coll *coll, void *memory, int64_t bytes);
    void (*withdraw)(struct p4_coll *coll, void *memory);
    /* Operations between begin and end are one launch, which starts when what the device's queue holds at
     * `end` is done. Not nested. Sends and receives between them may wait for each other in any order. */
    void (*begin)(struct p4_coll *coll);
    void (*end)(struct p4_coll *coll);
    void (*sum_f32)(struct p4_coll *coll, float *data, int64_t count); /* to all ranks, in place */
    /* As sum_f32. Each rank also adds the squares of its share of the sums to *squares (double, device
     * memory), on the way. false, and nothing is done: these collectives cannot. */
    bool (*sum_and_square_f32)(struct p4_coll *coll, float *data, int64_t count, double *squares);
    /* root's `to` [count] = the sum of all ranks' `from`. `to` may be `from`, and is ignored on other ranks.
     * `from` is scratch after. */
    void (*reduce_f32)(struct p4_coll *coll, float *to, float *from, int64_t count, int root);
    void (*bcast)(struct p4_coll *coll, void *data, int64_t bytes, int root);
    /* data [ranks, bytes], the same on all ranks: row r from rank r. */
    void (*all_gather)(struct p4_coll *coll, void *data, int64_t bytes);
    void (*recv)(struct p4_coll *coll, void *data, int64_t bytes, int from);
    /* `data` must not change until `wait` on the request; after that the device's queue may overwrite it. */
    p4_request (*isend)(struct p4_coll *coll, const void *data, int64_t bytes, int to);
    void (*wait)(struct p4_coll *coll, p4_request *request);
    /* The number of operations called so far; 0: none. */
    int64_t (*mark)(struct p4_coll *coll);
    /* Work that is queued on the device from here on waits for the operations up to `mark`. */
    void (*order_after)(struct p4_coll *coll, int64_t mark);
    /* The host waits for the device's queue and for every operation. `what` (printf) names the work in the
     * message of a wait that failed. Call it before any other wait of the host whose length other ranks
     * decide. */
    void (*synchronize)(struct p4_coll *coll, const char *what, ...) P4_PRINTF(2, 3);
    /* The host waits for the operations up to `mark` only. A device's queue holds a limited number of
     * launches, and launching into a full queue is an unbounded wait: call this before queueing much behind
     * an operation. */
    void (*wait_for)(struct p4_coll *coll, int64_t mark, const char *what);
    void (*close)(struct p4_coll *coll);
    struct p4_coll_state *state;
} p4_coll;

/* Opens the collectives named "mpi" (host memory; stream and ordinal are not used) or "nccl": a communicator
 * of all ranks on GPU `ordinal`, whose queue is `stream` (ops->stream), one GPU a rank. The group and the
 * device must outlive it. A job of one rank on a GPU needs none: "mpi" moves nothing there. On an error, the
 * same on every rank, *coll is closed. The caller closes with p4_coll_close, before the device. Collective.
 */
p4_rc p4_coll_open(p4_coll *coll, p4_group *group, const char *name, void *stream, int ordinal);
/* Also of one that was never opened (zeros). Collective. */
void p4_coll_close(p4_coll *coll);
/* Is this backend in this build? Local. */
bool p4_coll_known(const char *name);
/* P4_OK where the library behind the backend can be loaded; else the error says what is missing. Local. */
p4_rc p4_coll_usable(const char *name);

/* Work that is queued on the device from here on waits for every operation called so far. Local. */
static inline void p4_coll_join(p4_coll *coll)
{
    coll->order_after(coll, coll->mark(coll));
}

/* The backends, for coll.c. */
p4_rc p4_coll_mpi_open(p4_coll *coll, p4_group *group, void *stream, int ordinal);
p4_rc p4_coll_nccl_open(p4_coll *coll, p4_group *group, void *stream, int ordinal);
p4_rc p4_coll_nccl_usable(void);
const char *p4_coll_nccl_version(void);

#endif
