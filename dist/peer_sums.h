/* peer_sums.h - sums over ranks whose GPUs reach each other's memory: one node, one GPU a rank. Copy engines
 * carry them, where NCCL's kernels would take processors from the products that run beside them.
 *
 * Of every array each rank sums an equal piece. The ranks meet (every array is complete); each copies the
 * others' values of its piece to a landing area and adds them in the order of ranks, so that a sum has the
 * same bits on every run; they meet again (every piece is summed); who is to have the sum copies the other
 * pieces to itself; they meet a last time (nobody reads any more). All of it is queued, the meetings too: a
 * rank's queue writes a number to the others' memory and waits for theirs. Data are only ever read from
 * another GPU, after a meeting: so nothing depends on the order in which writes to it arrive.
 *
 * Arrays lie in memory that was shared, at the same offset on every rank. */
#ifndef P4_PEER_SUMS_H
#define P4_PEER_SUMS_H

#include "dist/group.h"

enum { P4_PEERS_MAX = 16 };

typedef struct p4_peers p4_peers;

/* Connects the ranks' GPUs, this rank's the `ordinal`-th; sums are queued in the CUDA stream `queue`. *peers
 * is NULL on every rank where they cannot reach each other, of which a line of the log says why if all are on
 * one node, or one has P4_GPU_SUMS=nccl in its environment; with P4_GPU_SUMS=copies that is an error. The
 * caller closes. Collective. */
p4_rc p4_peers_open(p4_peers **peers, p4_group *group, int ordinal, void *queue);
/* When no rank has a sum under way: gives back what is the others'. NULL has nothing. Local; a rank that then
 * waits for all others to have come here may close. */
void p4_peers_leave(p4_peers *peers);
/* NULL is nothing to close. Local. */
void p4_peers_close(p4_peers *peers);

/* Gives the others access to memory of this rank's GPU, which cudaMalloc gave, and takes it to theirs; at
 * most 8 at once. To be withdrawn before it is freed. Collective. */
p4_rc p4_peers_share(p4_peers *peers, void *memory, int64_t bytes);
/* Memory that was not shared is nothing to withdraw. No sum is under way. Collective. */
void p4_peers_withdraw(p4_peers *peers, void *memory);
/* Does the array lie in shared memory? The same on every rank for arrays at the same offset. Local. */
bool p4_peers_reach(const p4_peers *peers, const void *data, int64_t bytes);

/* to [count] = the sum over ranks of from [count]; root: who gets it, -1: all, where `to` is `from`. `from`
 * is shared and, where root is a rank, scratch after. */
typedef struct p4_peer_sum {
    float *to, *from;
    int64_t count;
    int root;
} p4_peer_sum;

/* Queues the sums, the same ones on every rank. Waits for nobody while the queue has room. Collective. */
p4_rc p4_peers_sum(p4_peers *peers, const p4_peer_sum *sums, int64_t count);
/* Operations queued since the start. Local. */
int64_t p4_peers_queued(const p4_peers *peers);

#endif
