/* coll_nccl_peers.c - see peer_sums.h: GPUs that are connected, and the memory that they share, which is
 * opened through CUDA's interprocess handles. */
#include <stdlib.h>
#include <string.h>

#include "dist/coll_nccl_peers.h"
#include "dist/peer_add.h"

/* What a rank sends to the others about its own memory. */
typedef struct ticket {
    cudaIpcMemHandle_t handle; /* of the allocation that it lies in, */
    int64_t offset;            /* here */
    bool valid;
} ticket;

p4_rc p4_peers_rc(cudaError_t error, const char *what)
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
        p4_peers_rc(cudaGetDriverEntryPointByVersion(name, function, 12000, cudaEnableDefault, &found), name);
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
    p4_rc rc =
        p4_peers_rc(cudaIpcGetMemHandle(&mine->handle, (void *)(uintptr_t)base), "memory to be shared");
    mine->valid = rc == P4_OK;
    return rc;
}

static void close_opened(p4_shared_memory *shared, int ranks)
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

static p4_rc open_theirs(const p4_peers *peers, p4_shared_memory *shared, const ticket *tickets)
{
    p4_rc rc = P4_OK;
    for (int r = 0; r < peers->ranks; r++) {
        if (r == peers->rank) {
            continue;
        }
        TRY(tickets[r].valid ? P4_OK : FAULT("GPUs of one node: rank %d cannot share its memory", r));
        TRY(p4_peers_rc(
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
    p4_shared_memory shared = {.own = memory, .bytes = bytes};
    p4_rc rc = memory != NULL ? describe(peers, memory, &mine) : P4_E_SYSTEM;
    p4_group_node_gather(peers->group, tickets, &mine, sizeof mine);
    rc = rc == P4_OK && peers->shared_count == P4_SHARED_MAX
             ? FAULT("GPUs of one node: too much shared memory")
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

const p4_shared_memory *p4_peers_memory_of(const p4_peers *peers, const void *data, int64_t bytes)
{
    for (int i = 0; i < peers->shared_count; i++) {
        const p4_shared_memory *shared = &peers->shared[i];
        int64_t offset = (const char *)data - shared->own;
        if (offset >= 0 && offset + bytes <= shared->bytes) {
            return shared;
        }
    }
    return NULL;
}

bool p4_peers_reach(const p4_peers *peers, const void *data, int64_t bytes)
{
    return p4_peers_memory_of(peers, data, bytes) != NULL;
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
    TRY(p4_peers_rc(cudaMalloc((void **)&peers->met, (size_t)met_bytes), "memory for meetings"));
    TRY(p4_peers_rc(cudaMemset(peers->met, 0, (size_t)met_bytes), "memory for meetings"));
    TRY(p4_peers_rc(cudaMalloc((void **)&peers->landing, P4_LANDING_BYTES), "a landing area"));
    TRY(p4_peers_rc(cudaMalloc((void **)&peers->short_landing, (size_t)(peers->ranks - 1) * P4_SHORT_BYTES),
                    "a landing area"));
    TRY(p4_peers_rc(cudaMalloc((void **)&peers->partial, P4_PEER_PARTIALS * sizeof *peers->partial),
                    "partial sums"));
    TRY(p4_peers_rc(cudaDeviceSynchronize(), "memory for meetings"));
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
    rc = p4_peers_rc(cudaSetDevice(ordinal), "this rank's GPU");
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
    cudaFree(peers->short_landing);
    cudaFree(peers->partial);
    free(peers->sums);
    free(peers->bcasts);
    free(peers);
}
