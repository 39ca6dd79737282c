#define _GNU_SOURCE /* sched_getaffinity, cpu_set_t */
#include "dist/dist.h"

#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    MESSAGE_BYTES = 16384,
    ABORT_S = 10 /* a process that cannot end itself within this time is ended by SIGALRM */
};
static const int64_t PIECE_BYTES = (int64_t)1
                                   << 30; /* one MPI call moves at most this much: counts are int */

struct p4_dist_state {
    MPI_Comm comm, node;
    int64_t agreements;         /* p4_agree calls so far */
    int64_t fail_at, fail_rank; /* P4_INJECT_FAILURE=agreement,rank (from 1, from 0); 0: none */
};

static void read_injection(struct p4_dist_state *state)
{
    const char *text = getenv("P4_INJECT_FAILURE");
    long long at = 0, rank = 0;
    if (text != NULL && sscanf(text, "%lld,%lld", &at, &rank) == 2) {
        state->fail_at = at;
        state->fail_rank = rank;
    }
}

int64_t p4_dist_launched_rank(void)
{
    static const char *const names[] = {"PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *rank = getenv(names[i]);
        if (rank != NULL) {
            return strtoll(rank, NULL, 10);
        }
    }
    return -1;
}

p4_rc p4_dist_open(p4_dist *dist, double timeout_s)
{
    int started = 0, provided = 0;
    *dist = (p4_dist){.timeout_s = timeout_s};
    MPI_Initialized(&started);
    if (!started) {
        if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
            return FAULT("MPI could not be started");
        }
        dist->owns_mpi = true;
    }
    dist->state = p4_alloc(1, sizeof *dist->state);
    if (dist->state == NULL) {
        return P4_E_SYSTEM;
    }
    struct p4_dist_state *state = dist->state;
    MPI_Comm_dup(MPI_COMM_WORLD, &state->comm);
    MPI_Comm_rank(state->comm, &dist->rank);
    MPI_Comm_size(state->comm, &dist->ranks);
    MPI_Comm_split_type(state->comm, MPI_COMM_TYPE_SHARED, dist->rank, MPI_INFO_NULL, &state->node);
    MPI_Comm_rank(state->node, &dist->local_rank);
    MPI_Comm_size(state->node, &dist->local_ranks);
    read_injection(state);
    return P4_OK;
}

void p4_dist_close(p4_dist *dist)
{
    if (dist->state != NULL) {
        p4_dist_barrier(dist); /* nobody leaves before all are here */
        MPI_Comm_free(&dist->state->node);
        MPI_Comm_free(&dist->state->comm);
        free(dist->state);
        dist->state = NULL;
    }
    if (dist->owns_mpi) {
        MPI_Finalize();
        dist->owns_mpi = false;
    }
}

_Noreturn void p4_abort(p4_dist *dist, const char *format, ...)
{
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    fprintf(stderr, "phase4: rank %d: %s\n", dist->rank, message);
    fflush(NULL);
    signal(SIGALRM, SIG_DFL);
    alarm(ABORT_S);
    if (dist->on_abort != NULL) {
        dist->on_abort(dist->on_abort_user);
    }
    MPI_Abort(dist->state->comm, P4_E_SYSTEM);
    _Exit(P4_E_SYSTEM);
}

/* Waits without keeping a core busy: ranks may share cores with the threads that compute. timeout_s 0: for
 * ever. */
static void wait_for(p4_dist *dist, MPI_Request *request, const char *what, double timeout_s)
{
    double started_s = p4_now_s();
    for (int64_t tries = 0;; tries++) {
        int done = 0;
        MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (done) {
            return;
        }
        if (tries < 200) {
            sched_yield();
            continue;
        }
        nanosleep(&(struct timespec){.tv_nsec = tries < 2000 ? 20000 : 200000}, NULL);
        if (timeout_s > 0 && p4_now_s() - started_s > timeout_s) {
            p4_abort(dist, "%s: no answer from the other ranks within %.0f s (collective_timeout_s)", what,
                     timeout_s);
        }
    }
}

static p4_rc agree_within(p4_dist *dist, p4_rc rc, double timeout_s)
{
    struct p4_dist_state *state = dist->state;
    int mine = rc == P4_OK ? dist->ranks : dist->rank, lowest = dist->ranks;
    MPI_Request request;
    MPI_Iallreduce(&mine, &lowest, 1, MPI_INT, MPI_MIN, state->comm, &request);
    wait_for(dist, &request, "agreement", timeout_s);
    if (lowest == dist->ranks) {
        return P4_OK;
    }
    struct {
        int32_t code;
        char text[MESSAGE_BYTES];
    } verdict = {.code = (int32_t)rc};
    snprintf(verdict.text, sizeof verdict.text, "%s", p4_last_error());
    p4_dist_bcast(dist, &verdict, sizeof verdict, lowest);
    p4_error_set(verdict.text);
    return (p4_rc)verdict.code;
}

p4_rc p4_consult(p4_dist *dist, p4_rc rc)
{
    return agree_within(dist, rc, 0);
}

/* This rank's result at its next agreement: `rc`, or the failure that P4_INJECT_FAILURE asks for. */
static p4_rc count_agreement(p4_dist *dist, p4_rc rc)
{
    struct p4_dist_state *state = dist->state;
    state->agreements++;
    if (state->fail_at == state->agreements && state->fail_rank == dist->rank && rc == P4_OK) {
        rc = FAULT("injected failure at agreement %lld on rank %d", (long long)state->agreements, dist->rank);
    }
    return rc;
}

p4_rc p4_agree(p4_dist *dist, p4_rc rc)
{
    return agree_within(dist, count_agreement(dist, rc), 0);
}

p4_rc p4_agree_soon(p4_dist *dist, p4_rc rc)
{
    return agree_within(dist, count_agreement(dist, rc), dist->timeout_s);
}

int p4_dist_cores(const p4_dist *dist)
{
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) {
        return 1;
    }
    /* Ranks bound to different cores keep what they have; ranks that may all use the same cores divide them.
     */
    cpu_set_t together = mine;
    MPI_Allreduce(&mine, &together, (int)sizeof mine, MPI_BYTE, MPI_BOR, dist->state->node);
    int own = CPU_COUNT(&mine), node = CPU_COUNT(&together);
    int share = node / dist->local_ranks;
    int cores = own < node ? own : share;
    if (own < node && own > share && share > 0) {
        cores = share;
    }
    return cores > 0 ? cores : 1;
}

void p4_dist_barrier(p4_dist *dist)
{
    MPI_Request request;
    MPI_Ibarrier(dist->state->comm, &request);
    wait_for(dist, &request, "barrier", 0);
}

void p4_dist_node_gather(p4_dist *dist, void *all, const void *mine, int64_t bytes)
{
    MPI_Request request;
    MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, dist->state->node, &request);
    wait_for(dist, &request, "exchange inside the node", dist->timeout_s);
}

void p4_dist_bcast(p4_dist *dist, void *data, int64_t bytes, int root)
{
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        MPI_Request request;
        MPI_Ibcast((char *)data + at, (int)p4_min_i64(PIECE_BYTES, bytes - at), MPI_BYTE, root,
                   dist->state->comm, &request);
        wait_for(dist, &request, "broadcast", dist->timeout_s);
    }
}

static void sum_all(p4_dist *dist, void *data, int64_t count, int64_t each, MPI_Datatype type, MPI_Op op)
{
    int64_t piece = PIECE_BYTES / each;
    for (int64_t at = 0; at < count && dist->ranks > 1; at += piece) {
        MPI_Request request;
        MPI_Iallreduce(MPI_IN_PLACE, (char *)data + at * each, (int)p4_min_i64(piece, count - at), type, op,
                       dist->state->comm, &request);
        wait_for(dist, &request, "sum over ranks", dist->timeout_s);
    }
}

void p4_dist_sum_f32(p4_dist *dist, float *data, int64_t count)
{
    sum_all(dist, data, count, 4, MPI_FLOAT, MPI_SUM);
}

void p4_dist_sum_f64(p4_dist *dist, double *data, int64_t count)
{
    sum_all(dist, data, count, 8, MPI_DOUBLE, MPI_SUM);
}

void p4_dist_max_f64(p4_dist *dist, double *data, int64_t count)
{
    sum_all(dist, data, count, 8, MPI_DOUBLE, MPI_MAX);
}

void p4_dist_sum_i64(p4_dist *dist, int64_t *data, int64_t count)
{
    sum_all(dist, data, count, 8, MPI_INT64_T, MPI_SUM);
}

void p4_dist_reduce_f32(p4_dist *dist, float *data, int64_t count, int root)
{
    int64_t piece = PIECE_BYTES / 4;
    for (int64_t at = 0; at < count && dist->ranks > 1; at += piece) {
        MPI_Request request;
        bool here = dist->rank == root;
        MPI_Ireduce(here ? MPI_IN_PLACE : data + at, here ? data + at : NULL,
                    (int)p4_min_i64(piece, count - at), MPI_FLOAT, MPI_SUM, root, dist->state->comm,
                    &request);
        wait_for(dist, &request, "gradient sum to its owner", dist->timeout_s);
    }
}

void p4_dist_send(p4_dist *dist, const void *data, int64_t bytes, int to, int tag)
{
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        MPI_Request request;
        MPI_Isend((const char *)data + at, (int)p4_min_i64(PIECE_BYTES, bytes - at), MPI_BYTE, to, tag,
                  dist->state->comm, &request);
        wait_for(dist, &request, "send", dist->timeout_s);
    }
}

void p4_dist_recv(p4_dist *dist, void *data, int64_t bytes, int from, int tag)
{
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        MPI_Request request;
        MPI_Irecv((char *)data + at, (int)p4_min_i64(PIECE_BYTES, bytes - at), MPI_BYTE, from, tag,
                  dist->state->comm, &request);
        wait_for(dist, &request, "receive", dist->timeout_s);
    }
}

struct pending {
    int count;
    MPI_Request requests[];
};

p4_request p4_dist_isend(p4_dist *dist, const void *data, int64_t bytes, int to, int tag)
{
    int pieces = (int)p4_ceil_div(bytes, PIECE_BYTES);
    struct pending *pending = calloc(1, sizeof *pending + (size_t)pieces * sizeof(MPI_Request));
    if (pending == NULL) {
        p4_abort(dist, "out of memory for a send");
    }
    pending->count = pieces;
    for (int i = 0; i < pieces; i++) {
        int64_t at = i * PIECE_BYTES;
        MPI_Isend((const char *)data + at, (int)p4_min_i64(PIECE_BYTES, bytes - at), MPI_BYTE, to, tag,
                  dist->state->comm, &pending->requests[i]);
    }
    return (p4_request){.handle = pending, .what = "send"};
}

void p4_dist_wait(p4_dist *dist, p4_request *request)
{
    struct pending *pending = request->handle;
    for (int i = 0; pending != NULL && i < pending->count; i++) {
        wait_for(dist, &pending->requests[i], request->what, dist->timeout_s);
    }
    free(pending);
    request->handle = NULL;
}
