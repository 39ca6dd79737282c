/* coll_nccl_peers.c - see peer_sums.h; the second half of coll_nccl.c. The memory of other ranks is opened
 * through CUDA's interprocess handles. */
#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime.h>
#include <stdlib.h>
#include <string.h>

#include "dist/peer_add.h"
#include "dist/peer_sums.h"

#ifndef P4_LANDING_BYTES /* of all peers together: a longer piece is added in parts (the emulator's are \
                            shorter) */
#define P4_LANDING_BYTES (64 << 20)
#endif

enum {
    SHARED_MAX = 8 + 1, /* the first holds the barrier numbers */
    LINE = 32           /* elements: pieces start on 128-byte lines of the array */
};

typedef struct shared_memory {
    char *own;
    int64_t bytes;
    char *of[P4_PEERS_MAX];     /* the other ranks' memory in this process; NULL: this rank */
    void *opened[P4_PEERS_MAX]; /* to be closed */
} shared_memory;

struct p4_peers {
    p4_group *group;
    int rank, ranks;
    cudaStream_t queue;
    shared_memory shared[SHARED_MAX];
    int shared_count;
    uint32_t *met;         /* device [ranks], shared[0]: the last barrier that each other rank has entered */
    uint32_t meeting;      /* the last barrier of this rank */
    float *landing;        /* device, P4_LANDING_BYTES */
    double *partial;       /* device [P4_PEER_PARTIALS]: of squares */
    int64_t queued;        /* operations since the start */
    p4_peer_sum *sums;     /* noted: [sums_capacity], of which sums_count are set */
    p4_peer_bcast *bcasts; /* likewise */
    int64_t sums_count, sums_capacity, bcasts_count, bcasts_capacity;
    PFN_cuMemGetAddressRange_v3020 range_of;
    PFN_cuStreamWriteValue32_v11070 write_value;
    PFN_cuStreamWaitValue32_v11070 wait_value;
};

/* What a rank sends to the others about its own memory. */
typedef struct ticket {
    cudaIpcMemHandle_t handle; /* of the allocation that it lies in, */
    int64_t offset;            /* here */
    bool valid;
} ticket;

static p4_rc cuda_rc(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) {
        return P4_OK;
    }
    (void)cudaGetLastError(); /* reported here, not at the next launch */
    return FAULT("GPUs of one node: %s: %s", what, cudaGetErrorString(error));
}

static p4_rc find(const char *name, void **function)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    p4_rc rc =
        cuda_rc(cudaGetDriverEntryPointByVersion(name, function, 12000, cudaEnableDefault, &found), name);
    if (rc == P4_OK && found != cudaDriverEntryPointSuccess) {
        rc = FAULT("GPUs of one node: the driver has no %s", name);
    }
    return rc;
}

/* --- shared memory ---------------------------------------------------------------------------- */

static p4_rc describe(const p4_peers *peers, void *memory, ticket *mine)
{
    CUdeviceptr base = 0;
    size_t bytes = 0;
    CUresult result = peers->range_of(&base, &bytes, (CUdeviceptr)(uintptr_t)memory);
    if (result != CUDA_SUCCESS) {
        return FAULT("GPUs of one node: where memory was taken: driver error %d", (int)result);
    }
    mine->offset = (char *)memory - (char *)(uintptr_t)base;
    p4_rc rc = cuda_rc(cudaIpcGetMemHandle(&mine->handle, (void *)(uintptr_t)base), "memory to be shared");
    mine->valid = rc == P4_OK;
    return rc;
}

static void close_opened(shared_memory *shared, int ranks)
{
    for (int r = 0; r < ranks; r++) {
        if (shared->opened[r] != NULL && cudaIpcCloseMemHandle(shared->opened[r]) != cudaSuccess) {
            (void)cudaGetLastError(); /* at the end: no caller can handle it */
        }
        shared->opened[r] = NULL;
    }
}

/* Returns when every rank has called it: the others have closed the memory that they opened. */
static void wait_for_all(const p4_peers *peers)
{
    char here = 0, all[P4_PEERS_MAX];
    p4_group_node_gather(peers->group, all, &here, sizeof here);
}

static p4_rc open_theirs(const p4_peers *peers, shared_memory *shared, const ticket *tickets)
{
    p4_rc rc = P4_OK;
    for (int r = 0; r < peers->ranks; r++) {
        if (r == peers->rank) {
            continue;
        }
        TRY(tickets[r].valid ? P4_OK : FAULT("GPUs of one node: rank %d cannot share its memory", r));
        TRY(cuda_rc(
            cudaIpcOpenMemHandle(&shared->opened[r], tickets[r].handle, cudaIpcMemLazyEnablePeerAccess),
            "another rank's memory"));
        shared->of[r] = (char *)shared->opened[r] + tickets[r].offset;
    }
done:
    return rc;
}

/* This rank's part; the ranks agree on the result afterwards. Handles are exchanged even if this rank has an
 * error. Collective. */
static p4_rc share(p4_peers *peers, void *memory, int64_t bytes)
{
    ticket mine = {.valid = false}, tickets[P4_PEERS_MAX];
    shared_memory shared = {.own = memory, .bytes = bytes};
    p4_rc rc = memory != NULL ? describe(peers, memory, &mine) : P4_E_SYSTEM;
    p4_group_node_gather(peers->group, tickets, &mine, sizeof mine);
    rc = rc == P4_OK && peers->shared_count == SHARED_MAX ? FAULT("GPUs of one node: too much shared memory")
                                                          : rc;
    rc = rc == P4_OK ? open_theirs(peers, &shared, tickets) : rc;
    if (rc == P4_OK) {
        peers->shared[peers->shared_count++] = shared;
    } else {
        close_opened(&shared, peers->ranks);
    }
    return rc;
}

p4_rc p4_peers_share(p4_peers *peers, void *memory, int64_t bytes)
{
    int known = peers->shared_count;
    p4_rc rc = p4_agree(peers->group, share(peers, memory, bytes));
    if (rc != P4_OK && peers->shared_count > known) {
        close_opened(&peers->shared[--peers->shared_count], peers->ranks);
    }
    if (rc != P4_OK) {
        wait_for_all(peers);
    }
    return rc;
}

void p4_peers_withdraw(p4_peers *peers, void *memory)
{
    for (int i = 1; i < peers->shared_count; i++) {
        if (peers->shared[i].own == memory) {
            close_opened(&peers->shared[i], peers->ranks);
            peers->shared[i] = peers->shared[--peers->shared_count];
            wait_for_all(peers);
            return;
        }
    }
}

static const shared_memory *shared_with(const p4_peers *peers, const void *data, int64_t bytes)
{
    for (int i = 0; i < peers->shared_count; i++) {
        const shared_memory *shared = &peers->shared[i];
        int64_t offset = (const char *)data - shared->own;
        if (offset >= 0 && offset + bytes <= shared->bytes) {
            return shared;
        }
    }
    return NULL;
}

bool p4_peers_reach(const p4_peers *peers, const void *data, int64_t bytes)
{
    return shared_with(peers, data, bytes) != NULL;
}

/* --- open and close --------------------------------------------------------------------------- */

/* Memory of this rank alone. Local. */
static p4_rc take_memory(p4_peers *peers)
{
    p4_rc rc = P4_OK;
    int64_t met_bytes = peers->ranks * (int64_t)sizeof *peers->met;
    TRY(find("cuMemGetAddressRange", (void **)&peers->range_of));
    TRY(find("cuStreamWriteValue32", (void **)&peers->write_value));
    TRY(find("cuStreamWaitValue32", (void **)&peers->wait_value));
    TRY(cuda_rc(cudaMalloc((void **)&peers->met, (size_t)met_bytes), "memory for meetings"));
    TRY(cuda_rc(cudaMemset(peers->met, 0, (size_t)met_bytes), "memory for meetings"));
    TRY(cuda_rc(cudaMalloc((void **)&peers->landing, P4_LANDING_BYTES), "a landing area"));
    TRY(cuda_rc(cudaMalloc((void **)&peers->partial, P4_PEER_PARTIALS * sizeof *peers->partial),
                "partial sums"));
    TRY(cuda_rc(cudaDeviceSynchronize(), "memory for meetings"));
done:
    return rc;
}

static p4_rc are_together(const p4_group *group)
{
    bool together = group->local_ranks == group->ranks && group->ranks >= 2 && group->ranks <= P4_PEERS_MAX;
    return together ? P4_OK
                    : FAULT("sums by copy engines need 2 to %d ranks, all on one node; of %d ranks %d are on "
                            "this one",
                            P4_PEERS_MAX, group->ranks, group->local_ranks);
}

/* An error, the same on every rank, where the GPUs cannot access each other's memory. Collective. */
static p4_rc connect(p4_peers **to, p4_group *group, int ordinal, void *queue)
{
    p4_rc rc = P4_OK;
    p4_peers *peers = p4_alloc(1, sizeof *peers);
    rc = p4_consult(group, peers == NULL ? P4_E_SYSTEM : are_together(group));
    if (rc != P4_OK) {
        free(peers);
        return rc;
    }
    peers->group = group;
    peers->rank = group->rank;
    peers->ranks = group->ranks;
    peers->queue = queue;
    rc = cuda_rc(cudaSetDevice(ordinal), "this rank's GPU");
    rc = rc == P4_OK ? take_memory(peers) : rc;
    p4_rc shared_rc =
        share(peers, rc == P4_OK ? peers->met : NULL, peers->ranks * (int64_t)sizeof *peers->met);
    rc = p4_consult(group, rc == P4_OK ? shared_rc : rc);
    if (rc == P4_OK) {
        *to = peers;
        return P4_OK;
    }
    p4_peers_leave(peers);
    wait_for_all(peers);
    p4_peers_close(peers);
    return rc;
}

p4_rc p4_peers_open(p4_peers **peers, p4_group *group, int ordinal, void *queue)
{
    p4_rc rc = P4_OK;
    const char *asked = getenv("P4_GPU_SUMS"); /* ranks may differ: what one asks for applies to all */
    bool any = asked == NULL || asked[0] == '\0', nccl = !any && strcmp(asked, "nccl") == 0;
    bool copies = !any && strcmp(asked, "copies") == 0;
    *peers = NULL;
    TRY_ALL(group, any || nccl || copies ? P4_OK
                                         : FAIL("P4_GPU_SUMS: found \"%s\", expected copies or nccl", asked));
    rc = p4_consult(group, nccl ? FAULT("another rank has P4_GPU_SUMS=nccl") : P4_OK);
    if (rc == P4_OK) {
        rc = connect(peers, group, ordinal, queue);
        if (rc != P4_OK && !copies && group->local_ranks == group->ranks) {
            WARN("sums over GPUs go by NCCL: %s", p4_last_error());
        }
    }
    if (rc != P4_OK && !copies) { /* NCCL sums instead */
        p4_error_clear();
        rc = P4_OK;
    }
    TRY_ALL(group, rc);
done:
    return rc;
}

void p4_peers_leave(p4_peers *peers)
{
    for (int i = 0; peers != NULL && i < peers->shared_count; i++) {
        close_opened(&peers->shared[i], peers->ranks);
    }
}

void p4_peers_close(p4_peers *peers)
{
    if (peers == NULL) {
        return;
    }
    p4_peers_leave(peers);
    cudaFree(peers->met);
    cudaFree(peers->landing);
    cudaFree(peers->partial);
    free(peers->sums);
    free(peers->bcasts);
    free(peers);
}

/* --- sums and broadcasts ---------------------------------------------------------------------- */

/* The runtime gives the driver's errors the same numbers. */
static cudaError_t driver(CUresult result)
{
    return (cudaError_t)result;
}

/* Queues a barrier: what is queued after it runs when the queue of every rank has reached it. */
static cudaError_t meet(p4_peers *peers)
{
    cudaError_t error = cudaSuccess;
    uint32_t meeting = ++peers->meeting;
    for (int r = 0; r < peers->ranks && error == cudaSuccess; r++) {
        if (r != peers->rank) {
            uint32_t *there = (uint32_t *)peers->shared[0].of[r] + peers->rank;
            error = driver(peers->write_value(peers->queue, (CUdeviceptr)(uintptr_t)there, meeting,
                                              CU_STREAM_WRITE_VALUE_DEFAULT));
        }
    }
    for (int r = 0; r < peers->ranks && error == cudaSuccess; r++) {
        if (r != peers->rank) { /* the numbers may wrap around: their difference is compared */
            error = driver(peers->wait_value(peers->queue, (CUdeviceptr)(uintptr_t)(peers->met + r), meeting,
                                             CU_STREAM_WAIT_VALUE_GEQ));
        }
    }
    peers->queued += 2 * (peers->ranks - 1);
    return error;
}

/* What rank r has where this rank has `data`, to `to`. */
static cudaError_t fetch(p4_peers *peers, void *to, const void *data, int64_t bytes, int r)
{
    const shared_memory *shared = shared_with(peers, data, bytes);
    const char *from = shared->of[r] + ((const char *)data - shared->own);
    peers->queued++;
    return cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToDevice, peers->queue);
}

/* to = the sum over all ranks of `from`, `count` elements that fit the landing area. */
static cudaError_t gather_part(p4_peers *peers, float *to, const float *from, double *squares, int64_t count,
                               int64_t stride)
{
    cudaError_t error = cudaSuccess;
    float *landing = peers->landing;
    for (int r = 0; r < peers->ranks && error == cudaSuccess; r++) {
        if (r != peers->rank) {
            error = fetch(peers, landing, from, count * (int64_t)sizeof *from, r);
            landing += stride;
        }
    }
    p4_landed landed = {.own = from,
                        .landing = peers->landing,
                        .stride = stride,
                        .count = count,
                        .rank = peers->rank,
                        .ranks = peers->ranks};
    const p4_peer_squares add_squares = {.sum = squares, .partial = peers->partial};
    peers->queued += squares != NULL ? 2 : 1;
    return error == cudaSuccess ? (cudaError_t)p4_peer_add(to, &landed, &add_squares, peers->queue) : error;
}

/* Rank r's piece of the sum: elements [*first, *first + count returned). */
static int64_t piece_of(const p4_peers *peers, const p4_peer_sum *sum, int r, int64_t *first)
{
    int64_t each = p4_ceil_div(p4_ceil_div(sum->count, peers->ranks), LINE) * LINE;
    *first = p4_min_i64(sum->count, each * r);
    return p4_min_i64(each, sum->count - *first);
}

/* This rank's piece is summed where it is read from: at its place in `from`, of the root in `to`. */
static cudaError_t sum_piece(p4_peers *peers, const p4_peer_sum *sum)
{
    cudaError_t error = cudaSuccess;
    int64_t first, count = piece_of(peers, sum, peers->rank, &first);
    float *from = sum->from + first, *to = (sum->root == peers->rank ? sum->to : sum->from) + first;
    int64_t part = P4_LANDING_BYTES / (int64_t)sizeof(float) / (peers->ranks - 1) / LINE * LINE;
    for (int64_t at = 0; at < count && error == cudaSuccess; at += part) {
        error = gather_part(peers, to + at, from + at, sum->squares, p4_min_i64(part, count - at), part);
    }
    return error;
}

/* In this order no two ranks begin with the same one. */
static int rank_after(const p4_peers *peers, int step)
{
    return (peers->rank + step) % peers->ranks;
}

static cudaError_t fetch_pieces(p4_peers *peers, const p4_peer_sum *sum)
{
    cudaError_t error = cudaSuccess;
    for (int step = 1; step < peers->ranks && error == cudaSuccess; step++) {
        int r = rank_after(peers, step);
        int64_t first, count = piece_of(peers, sum, r, &first);
        if (count > 0) {
            error = fetch(peers, sum->to + first, sum->from + first, count * (int64_t)sizeof(float), r);
        }
    }
    return error;
}

p4_rc p4_peers_sum(p4_peers *peers, const p4_peer_sum *sum)
{
    p4_peer_sum *sums = p4_grow(peers->sums, peers->sums_count, &peers->sums_capacity, sizeof *sums);
    if (sums == NULL) {
        return P4_E_SYSTEM;
    }
    peers->sums = sums;
    sums[peers->sums_count++] = *sum;
    return P4_OK;
}

p4_rc p4_peers_bcast(p4_peers *peers, const p4_peer_bcast *bcast)
{
    p4_peer_bcast *bcasts =
        p4_grow(peers->bcasts, peers->bcasts_count, &peers->bcasts_capacity, sizeof *bcasts);
    if (bcasts == NULL) {
        return P4_E_SYSTEM;
    }
    peers->bcasts = bcasts;
    bcasts[peers->bcasts_count++] = *bcast;
    return P4_OK;
}

int64_t p4_peers_noted(const p4_peers *peers)
{
    return peers->sums_count + peers->bcasts_count;
}

/* Every rank sums its pieces, behind a barrier: what is summed is complete. */
static cudaError_t queue_sums(p4_peers *peers)
{
    cudaError_t error = peers->sums_count > 0 ? meet(peers) : cudaSuccess;
    for (int64_t i = 0; i < peers->sums_count && error == cudaSuccess; i++) {
        error = sum_piece(peers, &peers->sums[i]);
    }
    return error;
}

static cudaError_t fetch_sums(p4_peers *peers)
{
    cudaError_t error = cudaSuccess;
    for (int64_t i = 0; i < peers->sums_count && error == cudaSuccess; i++) {
        int root = peers->sums[i].root;
        error = root < 0 || root == peers->rank ? fetch_pieces(peers, &peers->sums[i]) : cudaSuccess;
    }
    return error;
}

static cudaError_t fetch_bcasts(p4_peers *peers)
{
    cudaError_t error = cudaSuccess;
    for (int step = 1; step < peers->ranks; step++) {
        for (int64_t i = 0; i < peers->bcasts_count && error == cudaSuccess; i++) {
            const p4_peer_bcast *b = &peers->bcasts[i];
            if (b->root == rank_after(peers, step) && b->bytes > 0) {
                error = fetch(peers, b->data, b->data, b->bytes, b->root);
            }
        }
    }
    return error;
}

p4_rc p4_peers_queue(p4_peers *peers)
{
    cudaError_t error = queue_sums(peers);
    error = error == cudaSuccess ? meet(peers) : error;
    error = error == cudaSuccess ? fetch_sums(peers) : error;
    error = error == cudaSuccess ? fetch_bcasts(peers) : error;
    error = error == cudaSuccess ? meet(peers) : error;
    peers->sums_count = peers->bcasts_count = 0;
    return cuda_rc(error, "sums and broadcasts");
}

int64_t p4_peers_queued(const p4_peers *peers)
{
    return peers->queued;
}
