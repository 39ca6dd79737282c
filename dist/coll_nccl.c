/* coll_nccl.c - collectives between GPUs: a communicator of all ranks, and a CUDA stream beside the device's,
 * ordered by events. Sums and broadcasts in shared memory use copy engines where GPUs can access each other's
 * memory (peer_sums.h).
 *
 * The communicator does not block: where a call communicates with other ranks (opening, the first use of
 * a connection), NCCL does so in a thread, and the host polls with a deadline. So nothing here waits forever
 * for a rank that has died. */
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "dist/coll_nccl.h"

enum {
    QUEUED = 512, /* operations of `peers` that the host queues ahead; a stream is assumed to hold 1,000 */
    YIELDS = 200, /* polls before the host sleeps between them */
    SLEEP_NS = 20000
};

static void pause_between(int64_t polls)
{
    if (polls < YIELDS) {
        sched_yield();
    } else {
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
    }
}

ncclResult_t p4_nccl_finish(const struct p4_coll_state *state, ncclResult_t result, double timeout_s)
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

_Noreturn void p4_nccl_give_up(const p4_coll *coll, const char *what, ncclResult_t result)
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
    result = p4_nccl_finish(state, result, coll->group->timeout_s);
    if (result != ncclSuccess) {
        p4_nccl_give_up(coll, what, result);
    }
    state->called++;
    state->queued[state->called % P4_COLL_MARKS] = state->peers != NULL ? p4_peers_queued(state->peers) : 0;
    cuda_ok(coll, cudaEventRecord(state->done[state->called % P4_COLL_MARKS], state->queue), what);
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
        p4_nccl_give_up(coll, what, result);
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
        cuda_ok(coll, cudaStreamWaitEvent(state->compute, state->done[up_to % P4_COLL_MARKS], 0),
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
    /* An event is reused after P4_COLL_MARKS operations. */
    state->finished = p4_max_i64(known, state->called - P4_COLL_MARKS);
    while (state->finished < state->called &&
           query(state->done[(state->finished + 1) % P4_COLL_MARKS]) == cudaSuccess) {
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
            p4_nccl_give_up(coll, what, asked != ncclSuccess ? asked : result);
        }
        if (moved) {
            started_s = p4_now_s();
        } else if (p4_now_s() - started_s > coll->group->timeout_s) {
            p4_nccl_give_up(coll, what, ncclInProgress);
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
        watch(coll, coll->state->done[up_to % P4_COLL_MARKS], what);
    }
}

/* Queues what `peers` has noted. The host queues no more than the stream holds: a launch into a full stream
 * blocks without a deadline. */
static void queue_noted(p4_coll *coll, const char *what)
{
    struct p4_coll_state *state = coll->state;
    (void)advanced(coll);
    while (state->called - state->finished == P4_COLL_MARKS || /* whose figure is not known any more */
           p4_peers_queued(state->peers) - state->queued[state->finished % P4_COLL_MARKS] > QUEUED) {
        watch(coll, state->done[(state->finished + 1) % P4_COLL_MARKS], what);
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
        p4_nccl_give_up(coll, "group of collectives", result);
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

static bool sum_and_square_f32(p4_coll *coll, float *data, int64_t count, double *squares)
{
    const p4_peer_sum sum = {.to = data, .from = data, .count = count, .root = -1, .squares = squares};
    bool can = reaches(coll, data, count * (int64_t)sizeof *data);
    if (can) {
        noted(coll, p4_peers_sum(coll->state->peers, &sum), "sum over ranks");
    }
    return can;
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

static void all_gather(p4_coll *coll, void *data, int64_t bytes)
{
    struct p4_coll_state *state = coll->state;
    const char *own = (const char *)data + coll->group->rank * bytes;
    const bool alone = !state->grouped;
    if (!reaches(coll, data, coll->group->ranks * bytes)) {
        before_call(coll);
        after_call(coll, ncclAllGather(own, data, (size_t)bytes, ncclUint8, state->comm, state->queue),
                   "gather");
        return;
    }
    if (alone) {
        begin(coll);
    }
    for (int r = 0; r < coll->group->ranks; r++) {
        bcast(coll, (char *)data + r * bytes, bytes, r);
    }
    if (alone) {
        end(coll);
    }
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

void p4_nccl_set_operations(p4_coll *coll)
{
    coll->share = share;
    coll->withdraw = withdraw;
    coll->begin = begin;
    coll->end = end;
    coll->sum_f32 = sum_f32;
    coll->sum_and_square_f32 = sum_and_square_f32;
    coll->reduce_f32 = reduce_f32;
    coll->bcast = bcast;
    coll->all_gather = all_gather;
    coll->recv = recv_bytes;
    coll->isend = isend;
    coll->wait = wait_request;
    coll->mark = mark;
    coll->order_after = order_after;
    coll->synchronize = synchronize;
    coll->wait_for = wait_for;
}
