/* coll_nccl_open.c - opens and closes the collectives between GPUs. */
#include <stdlib.h>
#include <sys/prctl.h>

#include "dist/coll_nccl.h"

/* By how much a sleep may be longer, ns; the kernel's default, 50,000, is more than the waits' sleeps. */
enum { SLACK_NS = 1000 };
static const double CLOSE_S = 30; /* how long closing waits for the other ranks */

/* p4_abort's: stops the operations that still run on the GPU, so that the process can end. */
static void stop_operations(void *user)
{
    struct p4_coll_state *state = user;
    if (state->comm != NULL) {
        (void)ncclCommAbort(state->comm); /* does not wait: the communicator does not block */
        state->comm = NULL;
    }
}

static void release(p4_coll *coll)
{
    struct p4_coll_state *state = coll->state;
    p4_peers_close(state->peers);
    for (int i = 0; i < P4_COLL_MARKS; i++) {
        if (state->done[i] != NULL) {
            cudaEventDestroy(state->done[i]);
        }
    }
    if (state->ready != NULL) {
        cudaEventDestroy(state->ready);
    }
    if (state->synchronized != NULL) {
        cudaEventDestroy(state->synchronized);
    }
    if (state->queue != NULL) {
        cudaStreamDestroy(state->queue);
    }
    p4_group_remove_abort_hook(coll->group, &state->abort_hook);
    (void)prctl(PR_SET_TIMERSLACK, 0UL, 0, 0, 0); /* the default again */
    free(state);
    *coll = (p4_coll){0};
}

/* Finalizing waits for all operations of all ranks, until a deadline; then the communicator is aborted. */
static void close_coll(p4_coll *coll)
{
    struct p4_coll_state *state = coll->state;
    p4_peers_leave(state->peers); /* the others free their memory when all have finalised */
    double timeout_s = coll->group->timeout_s < CLOSE_S ? coll->group->timeout_s : CLOSE_S;
    if (p4_nccl_finish(state, ncclCommFinalize(state->comm), timeout_s) == ncclSuccess) {
        (void)ncclCommDestroy(state->comm);
    } else {
        (void)ncclCommAbort(state->comm);
    }
    release(coll);
}

/* Streams, events and, on rank 0, the id with which the ranks join the communicator. Local. */
static p4_rc prepare(p4_coll *coll, int ordinal, ncclUniqueId *id)
{
    struct p4_coll_state *state = coll->state;
    int lowest = 0, highest = 0;
    cudaError_t error = cudaSetDevice(ordinal);
    if (error == cudaSuccess) {
        error = cudaDeviceGetStreamPriorityRange(&lowest, &highest);
    }
    if (error == cudaSuccess) { /* a sum that is ready runs before the products of the next layer */
        error = cudaStreamCreateWithPriority(&state->queue, cudaStreamNonBlocking, highest);
    }
    cudaEvent_t *const events[] = {&state->ready, &state->synchronized};
    for (int i = 0; error == cudaSuccess && i < 2; i++) {
        error = cudaEventCreateWithFlags(events[i], cudaEventDisableTiming);
    }
    for (int i = 0; error == cudaSuccess && i < P4_COLL_MARKS; i++) {
        error = cudaEventCreateWithFlags(&state->done[i], cudaEventDisableTiming);
    }
    if (error != cudaSuccess) {
        return FAULT("NCCL on GPU %d: %s", ordinal, cudaGetErrorString(error));
    }
    ncclResult_t result = coll->group->rank == 0 ? ncclGetUniqueId(id) : ncclSuccess;
    coll->group->machine->nccl_failed |= result != ncclSuccess;
    return result == ncclSuccess ? P4_OK
                                 : FAULT("NCCL: no id for a communicator: %s: %s", ncclGetErrorString(result),
                                         ncclGetLastError(NULL));
}

/* Returns what NCCL reports. A rank that misses the deadline ends the job: it may be gone. Local. */
static p4_rc join_communicator(p4_coll *coll, const ncclUniqueId *id, int ordinal)
{
    struct p4_coll_state *state = coll->state;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclResult_t result =
        ncclCommInitRankConfig(&state->comm, coll->group->ranks, *id, coll->group->rank, &config);
    if (state->comm != NULL) {
        result = p4_nccl_finish(state, result, coll->group->timeout_s);
    }
    if (result == ncclSuccess) {
        return P4_OK;
    }
    if (result == ncclInProgress) {
        p4_nccl_give_up(coll, "opening the NCCL communicator", result);
    }
    coll->group->machine->nccl_failed = true;
    p4_rc rc = FAULT("NCCL on GPU %d: no communicator of %d ranks: %s: %s", ordinal, coll->group->ranks,
                     ncclGetErrorString(result), ncclGetLastError(state->comm));
    stop_operations(state);
    return rc;
}

p4_rc p4_coll_nccl_usable(void)
{
    int version = 0;
    ncclResult_t result = ncclGetVersion(&version);
    return result == ncclSuccess ? P4_OK : FAULT("NCCL cannot be used: %s", ncclGetErrorString(result));
}

p4_rc p4_coll_nccl_open(p4_coll *coll, p4_group *group, void *stream, int ordinal)
{
    p4_rc rc = P4_OK;
    ncclUniqueId id = {{0}};
    *coll = (p4_coll){.name = "NCCL", .group = group, .close = close_coll};
    p4_nccl_set_operations(coll);
    coll->state = p4_alloc(1, sizeof *coll->state);
    TRY_ALL(group, coll->state != NULL ? P4_OK : P4_E_SYSTEM);
    coll->state->compute = stream;
    (void)prctl(PR_SET_TIMERSLACK, (unsigned long)SLACK_NS, 0, 0, 0); /* of this thread, which waits */
    coll->state->abort_hook = (p4_abort_hook){.call = stop_operations, .user = coll->state};
    p4_group_add_abort_hook(group, &coll->state->abort_hook);
    TRY_ALL(group, prepare(coll, ordinal, &id));
    p4_group_bcast(group, &id, sizeof id, 0);
    TRY_ALL(group, join_communicator(coll, &id, ordinal));
    TRY(p4_peers_open(&coll->state->peers, group, ordinal, coll->state->queue));
    coll->name = coll->state->peers != NULL ? "NCCL and copy engines" : coll->name;
done:
    if (rc != P4_OK) {
        if (coll->state != NULL) {
            stop_operations(coll->state);
            release(coll);
        }
        *coll = (p4_coll){0};
    }
    return rc;
}
