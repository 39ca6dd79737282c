/* coll_nccl.c - collectives between GPUs: a communicator of all ranks, and a CUDA stream beside the device's,
 * ordered by events. Sums and broadcasts in shared memory use copy engines where GPUs can access each other's
 * memory (peer_sums.h).
 *
 * The communicator does not block: where a call communicates with other ranks (opening, the first use of
 * a connection), NCCL does so in a thread, and the host polls with a deadline. So nothing here waits forever
 * for a rank that has died. */
#include <cuda_runtime.h>
#include <nccl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "dist/coll.h"
#include "dist/peer_sums.h"

enum {
    MARKS = 64,   /* events that mark operations, used cyclically */
    QUEUED = 512, /* operations of `peers` that the host queues ahead; a stream is assumed to hold 1,000 */
    YIELDS = 200, /* polls before the host sleeps between them */
    SLEEP_NS = 20000,
    SLACK_NS = 1000 /* by which a sleep may be longer; the kernel's default, 50,000, is more than SLEEP_NS */
};
static const double CLOSE_S = 30; /* how long closing waits for the other ranks */

struct p4_coll_state {
    ncclComm_t comm;
    cudaStream_t compute;     /* the device's, not ours */
    cudaStream_t queue;       /* of the operations */
    cudaEvent_t ready;        /* what `compute` held when an operation was called */
    cudaEvent_t synchronized; /* what `compute` held at synchronize */
    cudaEvent_t done[MARKS];  /* done[m % MARKS]: operation m, or a later one that reuses the event */
    int64_t called, finished; /* operations (launches) so far; of them known to be complete */
    bool grouped;             /* between begin and end */
    p4_abort_hook abort_hook; /* of the group */
    p4_peers *peers;          /* NULL: sums are NCCL's */
    int64_t queued[MARKS];    /* [m % MARKS]: what `peers` had queued in all when launch m was called */
};

static void pause_between(int64_t polls)
{
    if (polls < YIELDS) {
        sched_yield();
    } else {
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
    }
}

/* Waits until the call that returned `result` has completed; ncclInProgress: it did not in time. */
static ncclResult_t finish(const struct p4_coll_state *state, ncclResult_t result, double timeout_s)
{
    double started_s = p4_now_s();
    for (int64_t polls = 0; result == ncclInProgress && p4_now_s() - started_s < timeout_s; polls++) {
        ncclResult_t asked = ncclCommGetAsyncError(state->comm, &result);
        result = asked != ncclSuccess ? asked : result;
        if (result == ncclInProgress) {
            pause_between(polls);
        }
    }
    return result;
}

static _Noreturn void give_up(const p4_coll *coll, const char *what, ncclResult_t result)
{
    if (result == ncclInProgress) {
        p4_abort(coll->group, "%s: no answer from the other ranks within %.0f s (collective_timeout_s)", what,
                 coll->group->timeout_s);
    }
    p4_abort(coll->group, "%s: NCCL: %s: %s", what, ncclGetErrorString(result),
             ncclGetLastError(coll->state->comm));
}

static void cuda_ok(const p4_coll *coll, cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        p4_abort(coll->group, "%s: %s", what, cudaGetErrorString(error));
    }
}

/* --- order between the two queues ------------------------------------------------------------- */

/* The operation called next starts after what the device's queue holds now. */
static void start_here(p4_coll *coll)
{
    struct p4_coll_state *state = coll->state;
    cuda_ok(coll, cudaEventRecord(state->ready, state->compute), "a collective's start");
    cuda_ok(coll, cudaStreamWaitEvent(state->queue, state->ready, 0), "a collective's start");
}

/* A launch has been called and returned `result`. */
static void launched(p4_coll *coll, ncclResult_t result, const char *what)
{
    struct p4_coll_state *state = coll->state;
    result = finish(state, result, coll->group->timeout_s);
    if (result != ncclSuccess) {
        give_up(coll, what, result);
    }
    state->called++;
    state->queued[state->called % MARKS] = state->peers != NULL ? p4_peers_queued(state->peers) : 0;
    cuda_ok(coll, cudaEventRecord(state->done[state->called % MARKS], state->queue), what);
}

static void before_call(p4_coll *coll)
{
    if (!coll->state->grouped) {
        start_here(coll);
    }
}

static void after_call(p4_coll *coll, ncclResult_t result, const char *what)
{
    if (!coll->state->grouped) {
        launched(coll, result, what);
    } else if (result != ncclSuccess && result != ncclInProgress) {
        give_up(coll, what, result);
    }
}

static int64_t mark(p4_coll *coll)
{
    return coll->state->called;
}

static void order_after(p4_coll *coll, int64_t up_to)
{
    struct p4_coll_state *state = coll->state;
    if (up_to > 0) {
        cuda_ok(coll, cudaStreamWaitEvent(state->compute, state->done[up_to % MARKS], 0),
                "wait for a collective");
    }
}

/* Clears "not ready" from the thread's last error: the next kernel launch would report it as its own. */
static cudaError_t query(cudaEvent_t event)
{
    cudaError_t error = cudaEventQuery(event);
    if (error == cudaErrorNotReady) {
        (void)cudaGetLastError();
    }
    return error;
}

/* Counts operations that have completed since the last call; true if there were any. */
static bool advanced(p4_coll *coll)
{
    struct p4_coll_state *state = coll->state;
    int64_t known = state->finished;
    /* An event is reused after MARKS operations. */
    state->finished = p4_max_i64(known, state->called - MARKS);
    while (state->finished < state->called &&
           query(state->done[(state->finished + 1) % MARKS]) == cudaSuccess) {
        state->finished++;
    }
    return state->finished > known;
}

/* Waits for the event. The deadline restarts whenever an operation completes: the device may have long work
 * between two. */
static void watch(p4_coll *coll, cudaEvent_t event, const char *what)
{
    struct p4_coll_state *state = coll->state;
    double started_s = p4_now_s();
    for (int64_t polls = 0;; polls++) {
        cudaError_t error = query(event);
        if (error == cudaSuccess) {
            return;
        }
        bool moved = advanced(coll);
        if (error != cudaErrorNotReady) {
            cuda_ok(coll, error, what);
        }
        ncclResult_t result = ncclSuccess, asked = ncclCommGetAsyncError(state->comm, &result);
        if (asked != ncclSuccess || result != ncclSuccess) {
            give_up(coll, what, asked != ncclSuccess ? asked : result);
        }
        if (moved) {
            started_s = p4_now_s();
        } else if (p4_now_s() - started_s > coll->group->timeout_s) {
            give_up(coll, what, ncclInProgress);
        }
        pause_between(polls);
    }
}

static void synchronize(p4_coll *coll, const char *what, ...)
{
    struct p4_coll_state *state = coll->state;
    char text[160];
    va_list args;
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    order_after(coll, state->called);
    cuda_ok(coll, cudaEventRecord(state->synchronized, state->compute), text);
    watch(coll, state->synchronized, text);
    state->finished = state->called;
}

static void wait_for(p4_coll *coll, int64_t up_to, const char *what)
{
    if (up_to > 0) {
        watch(coll, coll->state->done[up_to % MARKS], what);
    }
}

/* Queues what `peers` has noted. The host queues no more than the stream holds: a launch into a full stream
 * blocks without a deadline. */
static void queue_noted(p4_coll *coll, const char *what)
{
    struct p4_coll_state *state = coll->state;
    (void)advanced(coll);
    while (state->called - state->finished == MARKS || /* whose figure is not known any more */
           p4_peers_queued(state->peers) - state->queued[state->finished % MARKS] > QUEUED) {
        watch(coll, state->done[(state->finished + 1) % MARKS], what);
        (void)advanced(coll);
    }
    coll->copied += p4_peers_noted(state->peers);
    if (p4_peers_queue(state->peers) != P4_OK) {
        p4_abort(coll->group, "%s: %s", what, p4_last_error());
    }
}

static void begin(p4_coll *coll)
{
    ncclResult_t result = ncclGroupStart();
    if (result != ncclSuccess) {
        give_up(coll, "group of collectives", result);
    }
    coll->state->grouped = true;
}

static void end(p4_coll *coll)
{
    struct p4_coll_state *state = coll->state;
    start_here(coll);
    if (state->peers != NULL && p4_peers_noted(state->peers) > 0) {
        queue_noted(coll, "group of collectives");
    }
    state->grouped = false;
    launched(coll, ncclGroupEnd(), "group of collectives");
}

/* --- operations ------------------------------------------------------------------------------- */

static p4_rc share(p4_coll *coll, void *memory, int64_t bytes)
{
    return coll->state->peers != NULL ? p4_peers_share(coll->state->peers, memory, bytes) : P4_OK;
}

/* What this rank still reads of the others' memory must be read before the others' memory is closed here. */
static void withdraw(p4_coll *coll, void *memory)
{
    if (coll->state->peers != NULL) {
        wait_for(coll, coll->state->called, "memory that is no longer shared");
        p4_peers_withdraw(coll->state->peers, memory);
    }
}

/* Is the array one that copy engines reach? */
static bool reaches(const p4_coll *coll, const void *data, int64_t bytes)
{
    return coll->state->peers != NULL && p4_peers_reach(coll->state->peers, data, bytes);
}

/* `rc` is of noting an operation for the copy engines. */
static void noted(p4_coll *coll, p4_rc rc, const char *what)
{
    if (rc != P4_OK) {
        p4_abort(coll->group, "%s: %s", what, p4_last_error());
    }
    if (!coll->state->grouped) {
        start_here(coll);
        queue_noted(coll, what);
        launched(coll, ncclSuccess, what);
    }
}

static void sum_f32(p4_coll *coll, float *data, int64_t count)
{
    struct p4_coll_state *state = coll->state;
    const p4_peer_sum sum = {.to = data, .from = data, .count = count, .root = -1};
    if (reaches(coll, data, count * (int64_t)sizeof *data)) {
        noted(coll, p4_peers_sum(state->peers, &sum), "sum over ranks");
        return;
    }
    before_call(coll);
    after_call(coll,
               ncclAllReduce(data, data, (size_t)count, ncclFloat32, ncclSum, state->comm, state->queue),
               "sum over ranks");
}

static void reduce_f32(p4_coll *coll, float *to, float *from, int64_t count, int root)
{
    struct p4_coll_state *state = coll->state;
    const p4_peer_sum sum = {.to = to, .from = from, .count = count, .root = root};
    if (reaches(coll, from, count * (int64_t)sizeof *from)) {
        noted(coll, p4_peers_sum(state->peers, &sum), "gradient sum to its owner");
        return;
    }
    before_call(coll);
    after_call(coll,
               ncclReduce(from, to, (size_t)count, ncclFloat32, ncclSum, root, state->comm, state->queue),
               "gradient sum to its owner");
}

static void bcast(p4_coll *coll, void *data, int64_t bytes, int root)
{
    struct p4_coll_state *state = coll->state;
    const p4_peer_bcast one = {.data = data, .bytes = bytes, .root = root};
    if (reaches(coll, data, bytes)) {
        noted(coll, p4_peers_bcast(state->peers, &one), "broadcast");
        return;
    }
    before_call(coll);
    after_call(coll, ncclBroadcast(data, data, (size_t)bytes, ncclUint8, root, state->comm, state->queue),
               "broadcast");
}

static void recv_bytes(p4_coll *coll, void *data, int64_t bytes, int from)
{
    struct p4_coll_state *state = coll->state;
    before_call(coll);
    after_call(coll, ncclRecv(data, (size_t)bytes, ncclUint8, from, state->comm, state->queue), "receive");
}

/* The request is the mark of the send's launch: the one at `end` for a send in a group. */
static p4_request isend(p4_coll *coll, const void *data, int64_t bytes, int to)
{
    struct p4_coll_state *state = coll->state;
    int64_t launch = state->called + 1;
    before_call(coll);
    after_call(coll, ncclSend(data, (size_t)bytes, ncclUint8, to, state->comm, state->queue), "send");
    return (p4_request){.handle = (void *)(uintptr_t)launch, .what = "send"};
}

static void wait_request(p4_coll *coll, p4_request *request)
{
    order_after(coll, (int64_t)(uintptr_t)request->handle);
    request->handle = NULL;
}

/* --- open and close --------------------------------------------------------------------------- */

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
    for (int i = 0; i < MARKS; i++) {
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
    if (finish(state, ncclCommFinalize(state->comm), timeout_s) == ncclSuccess) {
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
    for (int i = 0; error == cudaSuccess && i < MARKS; i++) {
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
        result = finish(state, result, coll->group->timeout_s);
    }
    if (result == ncclSuccess) {
        return P4_OK;
    }
    if (result == ncclInProgress) {
        give_up(coll, "opening the NCCL communicator", result);
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
    *coll = (p4_coll){.name = "NCCL",
                      .group = group,
                      .share = share,
                      .withdraw = withdraw,
                      .begin = begin,
                      .end = end,
                      .sum_f32 = sum_f32,
                      .reduce_f32 = reduce_f32,
                      .bcast = bcast,
                      .recv = recv_bytes,
                      .isend = isend,
                      .wait = wait_request,
                      .mark = mark,
                      .order_after = order_after,
                      .synchronize = synchronize,
                      .wait_for = wait_for,
                      .close = close_coll};
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
