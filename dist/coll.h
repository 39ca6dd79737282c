/* coll.h - what moves between ranks while a model runs: device arrays. MPI for host memory (coll_mpi.c), NCCL
 * for GPUs (coll_nccl.c), with copy engines where they do better (peer_sums.h).
 *
 * An operation starts when the work that the device's queue holds at the call is done, and is queued: it runs
 * beside what the device's queue gets next, in the order in which operations are called, which must be the
 * same on every rank. Who uses an array after it says so with `after` (the device waits) and, before the host
 * looks, `settle`. Over host memory an operation is done when the call returns, and `mark`, `after`, `settle`
 * and `reach` have nothing to do. A wait for other ranks that takes longer than group->timeout_s ends the job
 * with a message. All Collective, but for send and receive (by the two), mark, after, wait, settle and reach
 * (Local). */
#ifndef P4_COLL_H
#define P4_COLL_H

#include "dist/group.h"

typedef struct p4_coll {
    const char *name; /* "MPI", "NCCL", "NCCL and copy engines" */
    p4_group *group;
    int64_t copied; /* sums that went by copy engines so far */
    /* Sums over arrays in this memory of the device may pass by the copy engines of GPUs that reach each
     * other's memory. Such arrays lie at the same offset of it on every rank. Without it sums work as well.
     * To be withdrawn, when no sum is under way, before it is released; memory that was not shared, NULL too,
     * is nothing to withdraw. */
    p4_rc (*share)(struct p4_coll *coll, void *memory, int64_t bytes);
    void (*withdraw)(struct p4_coll *coll, void *memory);
    /* Operations between begin and end go as one launch; not nested. They start when what the device's queue
     * holds at `end` is done. Sends and receives between them may wait for each other in any order. */
    void (*begin)(struct p4_coll *coll);
    void (*end)(struct p4_coll *coll);
    void (*sum_f32)(struct p4_coll *coll, float *data, int64_t count); /* to all, in place */
    /* root's `to` [count] = the sum of all ranks' `from`. to may be from; other ranks' `to` is not used.
     * `from` is scratch after. */
    void (*reduce_f32)(struct p4_coll *coll, float *to, float *from, int64_t count, int root);
    void (*bcast)(struct p4_coll *coll, void *data, int64_t bytes, int root);
    void (*recv)(struct p4_coll *coll, void *data, int64_t bytes, int from);
    /* data must stay as it is until `wait` on the request, after which the device's queue may overwrite it.
     */
    p4_request (*isend)(struct p4_coll *coll, const void *data, int64_t bytes, int to);
    void (*wait)(struct p4_coll *coll, p4_request *request);
    /* The operations called so far, as a number from 1 on; 0: none. */
    int64_t (*mark)(struct p4_coll *coll);
    /* What the device's queue gets from here waits for the operations up to `mark`. */
    void (*after)(struct p4_coll *coll, int64_t mark);
    /* The host waits for the device's queue and for every operation; `what` (at work on what, printf) is for
     * the message of a wait that failed. To be called before any other wait of the host that other ranks
     * decide on. */
    void (*settle)(struct p4_coll *coll, const char *what, ...) P4_PRINTF(2, 3);
    /* The host waits for the operations up to `mark` alone. A device's queue has room for so many launches,
     * and to launch into a full one is a wait as well: who queues much behind an operation calls this first.
     */
    void (*reach)(struct p4_coll *coll, int64_t mark, const char *what);
    void (*close)(struct p4_coll *coll);
    struct p4_coll_state *state;
} p4_coll;

/* Opens the collectives named "mpi" (host memory; stream and ordinal are not used) or "nccl": a communicator
 * of all ranks on GPU `ordinal`, whose queue is `stream` (ops->stream), one GPU a rank. The dist and the
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

/* What the device's queue gets from here waits for every operation called so far. Local. */
static inline void p4_coll_join(p4_coll *coll)
{
    coll->after(coll, coll->mark(coll));
}

/* The backends, for coll.c. */
p4_rc p4_coll_mpi_open(p4_coll *coll, p4_group *group, void *stream, int ordinal);
p4_rc p4_coll_nccl_open(p4_coll *coll, p4_group *group, void *stream, int ordinal);
p4_rc p4_coll_nccl_usable(void);

#endif
