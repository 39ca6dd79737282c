/* peer_sums.h - sums and broadcasts over ranks whose GPUs can access each other's memory: one node, one GPU a
 * rank. Copy engines move the data, where NCCL's kernels would occupy multiprocessors that the concurrent
 * products need.
 *
 * Each rank sums an equal piece of every array. After a barrier (every array is complete) it copies the
 * other ranks' values of its piece to a landing area and adds them in the order of ranks, so that a sum has
 * the same bits on every run. After a second barrier (every piece is summed) the ranks that receive the sum
 * copy the other pieces. A third barrier ends the reading.A broadcast is the copy of the root's array by each
 * of the others, between the first two barriers. Of a short sum (P4_SHORT_BYTES; one a launch) each rank
 * copies all terms between the first two barriers and adds them after the second. Without longer sums there
 * is no third. Everything is queued, also the barriers: a rank's queue writes a number to the memory of the
 * others and waits for their numbers. Data is only read from another GPU, never written to it, and only after
 * a barrier: the result does not depend on the order in which remote writes arrive.
 *
 * Arrays lie in memory that was shared, at the same offset on every rank. */
#ifndef P4_PEER_SUMS_H
#define P4_PEER_SUMS_H

#include "dist/group.h"

enum { P4_PEERS_MAX = 16 };

typedef struct p4_peers p4_peers;

/* Connects the ranks' GPUs, this rank's the `ordinal`-th; sums are queued in the CUDA stream `queue`. *peers
 * is NULL on every rank if the GPUs cannot access each other's memory (the log says why if all are on one
 * node) or if a rank has P4_GPU_SUMS=nccl in its environment; with P4_GPU_SUMS=copies that is an error. The
 * caller closes. Collective. */
p4_rc p4_peers_open(p4_peers **peers, p4_group *group, int ordinal, void *queue);
/* Closes the memory of the other ranks, when no rank has a sum or a broadcast under way. NULL is ignored.
 * p4_peers_close may follow when every rank has called this. Local. */
void p4_peers_leave(p4_peers *peers);
/* NULL is ignored. Local. */
void p4_peers_close(p4_peers *peers);

/* Gives the other ranks access to memory of this rank's GPU, allocated by cudaMalloc, and opens theirs; at
 * most 8 at once. Withdraw it before it is freed. Collective. */
p4_rc p4_peers_share(p4_peers *peers, void *memory, int64_t bytes);
/* Memory that was not shared is ignored. No sum or broadcast may be under way. Collective. */
void p4_peers_withdraw(p4_peers *peers, void *memory);
/* Does the array lie in shared memory? The same on every rank for arrays at the same offset. Local. */
bool p4_peers_reach(const p4_peers *peers, const void *data, int64_t bytes);

/* to [count] = the sum over ranks of from [count]; root: the rank that receives it, -1: all, where `to` is
 * `from`. `from` is shared and, where root is a rank, scratch after. Unless it is NULL, *squares (device) +=
 * the squares of this rank's piece of the sum, with the same bits on every run. */
typedef struct p4_peer_sum {
    float *to, *from;
    int64_t count;
    int root;
    double *squares;
} p4_peer_sum;

/* data [bytes] of every rank = the root's; shared. */
typedef struct p4_peer_bcast {
    void *data;
    int64_t bytes;
    int root;
} p4_peer_bcast;

/* Notes a sum or a broadcast for the next p4_peers_queue, the same ones on every rank. Of the broadcasts each
 * rank should be the root of an equal part: it reads all parts but its own. P4_E_SYSTEM: no memory. Local. */
p4_rc p4_peers_sum(p4_peers *peers, const p4_peer_sum *sum);
p4_rc p4_peers_bcast(p4_peers *peers, const p4_peer_bcast *bcast);
/* How many are noted. Local. */
int64_t p4_peers_noted(const p4_peers *peers);
/* Queues what is noted. Does not wait while the queue has room. Collective. */
p4_rc p4_peers_queue(p4_peers *peers);
/* Operations queued since the start. Local. */
int64_t p4_peers_queued(const p4_peers *peers);

#endif
