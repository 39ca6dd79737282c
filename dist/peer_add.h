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

/* Where squares are to be added up: *sum, by way of partial [P4_PEER_PARTIALS]. */
enum { P4_PEER_PARTIALS = 128 };
typedef struct p4_peer_squares {
    double *sum, *partial;
} p4_peer_squares;

/* to [count] = the sum of it, added in the order of ranks; to may be own. *squares->sum += the squares of
 * `to`, in double and in the same order on every run; squares->sum NULL: not wanted. Queues in the CUDA
 * stream `queue`. Returns 0 or the cudaError_t. Local. */
int p4_peer_add(float *to, const p4_landed *landed, const p4_peer_squares *squares, void *queue);

#endif
