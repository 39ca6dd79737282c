/* peer_add.h - the additions of peer_sums.h, a kernel (dist/peer_add.cu). */
#ifndef P4_PEER_ADD_H
#define P4_PEER_ADD_H

#include <stdint.h>

/* The terms: `own` [count] of rank `rank`, landing [ranks - 1, stride] of the others in the order of ranks.
 */
typedef struct p4_landed {
    const float *own, *landing;
    int64_t stride, count;
    int rank, ranks;
} p4_landed;

/* to [count] = the sum of it, added in the order of ranks; to may be own. Queues in the CUDA stream `queue`.
 * Returns 0 or the cudaError_t. Local. */
int p4_peer_add(float *to, const p4_landed *landed, void *queue);

#endif
