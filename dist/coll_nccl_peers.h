/* coll_nccl_peers.h - what the parts of peer_sums.h share: coll_nccl_peers.c opens memory,
 * coll_nccl_peer_sums.c queues sums and broadcasts. */
#ifndef P4_COLL_NCCL_PEERS_H
#define P4_COLL_NCCL_PEERS_H

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include "dist/peer_sums.h"

#ifndef P4_LANDING_BYTES /* of all peers together: a longer piece is added in parts (the emulator's are \
                            shorter) */
#define P4_LANDING_BYTES (64 << 20)
#endif

enum {
    P4_SHARED_MAX = 8 + 1,    /* the first holds the barrier numbers */
    P4_SHORT_BYTES = 64 << 10 /* a sum of at most so much is made by every rank, in whole */
};

typedef struct p4_shared_memory {
    char *own;
    int64_t bytes;
    char *of[P4_PEERS_MAX];     /* the other ranks' memory in this process; NULL: this rank */
    void *opened[P4_PEERS_MAX]; /* to be closed */
} p4_shared_memory;

struct p4_peers {
    p4_group *group;
    int rank, ranks;
    cudaStream_t queue;
    p4_shared_memory shared[P4_SHARED_MAX];
    int shared_count;
    uint32_t *met;         /* device [ranks], shared[0]: the last barrier that each other rank has entered */
    uint32_t meeting;      /* the last barrier of this rank */
    float *landing;        /* device, P4_LANDING_BYTES */
    float *short_landing;  /* device [ranks - 1, P4_SHORT_BYTES] */
    double *partial;       /* device [P4_PEER_PARTIALS]: of squares */
    int64_t queued;        /* operations since the start */
    p4_peer_sum *sums;     /* noted: [sums_capacity], of which sums_count are set */
    p4_peer_bcast *bcasts; /* likewise */
    int64_t sums_count, sums_capacity, bcasts_count, bcasts_capacity;
    PFN_cuMemGetAddressRange_v3020 range_of;
    PFN_cuStreamWriteValue32_v11070 write_value;
    PFN_cuStreamWaitValue32_v11070 wait_value;
};

/* The memory that the array lies in; NULL: it is not shared. Local. */
const p4_shared_memory *p4_peers_memory_of(const p4_peers *peers, const void *data, int64_t bytes);
/* The error of `what`, if it is one. Local. */
p4_rc p4_peers_rc(cudaError_t error, const char *what);

#endif
