#include "dist/group.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dist/mpi_state.h"
#include "src/leaf/escape.h"

enum {
    MESSAGE_BYTES = 16384,
    ABORT_S = 10 /* a process that cannot end itself within this time is ended by SIGALRM */
};
static const int64_t PIECE_BYTES = (int64_t)1
                                   << 30; /* one MPI call moves at most this much: counts are int */

struct p4_group_state {
    MPI_Comm comm, node;
    MPI_Request question;
    int yes, any_yes;           /* of the question: this rank's answer, the group's */
    int64_t agreements;         /* p4_agree calls so far */
    int64_t fail_at, fail_rank; /* P4_INJECT_FAILURE=agreement,rank (from 1, from 0); 0: none */
};

static void read_injection(struct p4_group_state *state)
{
    const char *text = getenv("P4_INJECT_FAILURE");
    long long at = 0, rank = 0;
    if (text != NULL && sscanf(text, "%lld,%lld", &at, &rank) == 2) {
        state->fail_at = at;
        state->fail_rank = rank;
    }
}

/* Takes the communicator over. */
static p4_rc open_group(p4_group *group, p4_machine *machine, MPI_Comm comm, double timeout_s)
{
    *group = (p4_group){.machine = machine, .timeout_s = timeout_s};
    struct p4_group_state *state = group->state = p4_alloc(1, sizeof *state);
    if (state == NULL) {
        MPI_Comm_free(&comm);
        return P4_E_SYSTEM;
    }
    state->comm = comm;
    MPI_Comm_rank(comm, &group->rank);
    MPI_Comm_size(comm, &group->ranks);
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, group->rank, MPI_INFO_NULL, &state->node);
    MPI_Comm_rank(state->node, &group->local_rank);
    MPI_Comm_size(state->node, &group->local_ranks);
    read_injection(state);
    return P4_OK;
}

p4_rc p4_group_check_communicator(const void *communicator)
{
    return *(const MPI_Comm *)communicator != MPI_COMM_NULL
               ? P4_OK
               : FAIL("a session's communicator is MPI_COMM_NULL, expected one that contains this rank");
}

p4_rc p4_group_open(p4_group *group, p4_machine *machine, const void *communicator, double timeout_s)
{
    MPI_Comm comm;
    MPI_Comm_dup(communicator != NULL ? *(const MPI_Comm *)communicator : machine->state->world, &comm);
    return open_group(group, machine, comm, timeout_s);
}

p4_rc p4_group_split(p4_group *group, p4_machine *machine, int color, double timeout_s)
{
    MPI_Comm comm;
    MPI_Comm_split(machine->state->world, color, machine->rank, &comm);
    return open_group(group, machine, comm, timeout_s);
}

void p4_group_close(p4_group *group)
{
    if (group->state != NULL) {
        p4_group_barrier(group); /* nobody leaves before all are here */
        MPI_Comm_free(&group->state->node);
        MPI_Comm_free(&group->state->comm);
        free(group->state);
        group->state = NULL;
    }
}

void p4_group_set_log(const p4_group *group, p4_log_level level)
{
    p4_log_setup(level, group->rank == 0);
}

_Noreturn void p4_abort(p4_group *group, const char *format, ...)
{
    char text[1024], message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)p4_escape(message, sizeof message, text, sizeof text);
    fprintf(stderr, "phase4: rank %d on %s: %s\n", group->machine->rank, group->machine->host, message);
    fflush(NULL);
    signal(SIGALRM, SIG_DFL);
    alarm(ABORT_S);
    for (const p4_abort_hook *hook = group->abort_hooks; hook != NULL; hook = hook->next) {
        hook->call(hook->user);
    }
    MPI_Abort(group->state->comm, P4_E_SYSTEM);
    _Exit(P4_E_SYSTEM);
}

void p4_group_add_abort_hook(p4_group *group, p4_abort_hook *hook)
{
    hook->next = group->abort_hooks;
    group->abort_hooks = hook;
}

void p4_group_remove_abort_hook(p4_group *group, p4_abort_hook *hook)
{
    for (p4_abort_hook **at = &group->abort_hooks; *at != NULL; at = &(*at)->next) {
        if (*at == hook) {
            *at = hook->next;
            return;
        }
    }
}

/* Waits without keeping a core busy: ranks may share cores with the threads that compute. timeout_s 0: for
 * ever. */
static void wait_for(p4_group *group, MPI_Request *request, const char *what, double timeout_s)
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
            p4_abort(group, "%s: no answer from the other ranks within %.0f s (collective_timeout_s)", what,
                     timeout_s);
        }
    }
}

/* names_rank: where only some ranks failed, the message names the rank and its host. */
static p4_rc agree_within(p4_group *group, p4_rc rc, double timeout_s, bool names_rank)
{
    struct p4_group_state *state = group->state;
    struct {
        int lowest, all_failed;
    } mine = {rc == P4_OK ? group->ranks : group->rank, rc != P4_OK}, least = mine;
    MPI_Request request;
    MPI_Iallreduce(&mine, &least, 2, MPI_INT, MPI_MIN, state->comm, &request);
    wait_for(group, &request, "agreement", timeout_s);
    if (least.lowest == group->ranks) {
        return P4_OK;
    }
    struct {
        int32_t code;
        char text[MESSAGE_BYTES];
    } verdict = {.code = (int32_t)rc};
    if (names_rank && !least.all_failed) {
        snprintf(verdict.text, sizeof verdict.text, "%s (rank %d on %s)", p4_last_error(),
                 group->machine->rank, group->machine->host);
    } else {
        snprintf(verdict.text, sizeof verdict.text, "%s", p4_last_error());
    }
    p4_group_bcast(group, &verdict, sizeof verdict, least.lowest);
    p4_error_set(verdict.text);
    return (p4_rc)verdict.code;
}

p4_rc p4_consult(p4_group *group, p4_rc rc)
{
    return agree_within(group, rc, 0, true);
}

/* This rank's result at its next agreement: `rc`, or the failure that P4_INJECT_FAILURE asks for. */
static p4_rc count_agreement(p4_group *group, p4_rc rc)
{
    struct p4_group_state *state = group->state;
    state->agreements++;
    if (state->fail_at == state->agreements && state->fail_rank == group->rank && rc == P4_OK) {
        rc =
            FAULT("injected failure at agreement %lld on rank %d", (long long)state->agreements, group->rank);
    }
    return rc;
}

p4_rc p4_agree(p4_group *group, p4_rc rc)
{
    return agree_within(group, count_agreement(group, rc), 0, true);
}

p4_rc p4_agree_root(p4_group *group, p4_rc rc)
{
    return agree_within(group, count_agreement(group, rc), 0, false);
}

p4_rc p4_agree_soon(p4_group *group, p4_rc rc)
{
    return agree_within(group, count_agreement(group, rc), group->timeout_s, true);
}

void p4_group_ask(p4_group *group, bool yes)
{
    struct p4_group_state *state = group->state;
    state->yes = yes;
    MPI_Iallreduce(&state->yes, &state->any_yes, 1, MPI_INT, MPI_MAX, state->comm, &state->question);
}

bool p4_group_answer(p4_group *group)
{
    wait_for(group, &group->state->question, "question", 0);
    return group->state->any_yes != 0;
}

void p4_group_barrier(p4_group *group)
{
    MPI_Request request;
    MPI_Ibarrier(group->state->comm, &request);
    wait_for(group, &request, "barrier", 0);
}

void p4_group_node_gather(p4_group *group, void *all, const void *mine, int64_t bytes)
{
    MPI_Request request;
    MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, group->state->node, &request);
    wait_for(group, &request, "exchange inside the node", group->timeout_s);
}

void p4_group_bcast(p4_group *group, void *data, int64_t bytes, int root)
{
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        MPI_Request request;
        MPI_Ibcast((char *)data + at, (int)p4_min_i64(PIECE_BYTES, bytes - at), MPI_BYTE, root,
                   group->state->comm, &request);
        wait_for(group, &request, "broadcast", group->timeout_s);
    }
}

static void sum_all(p4_group *group, void *data, int64_t count, int64_t each, MPI_Datatype type, MPI_Op op)
{
    int64_t piece = PIECE_BYTES / each;
    for (int64_t at = 0; at < count && group->ranks > 1; at += piece) {
        MPI_Request request;
        MPI_Iallreduce(MPI_IN_PLACE, (char *)data + at * each, (int)p4_min_i64(piece, count - at), type, op,
                       group->state->comm, &request);
        wait_for(group, &request, "sum over ranks", group->timeout_s);
    }
}

void p4_group_sum_f32(p4_group *group, float *data, int64_t count)
{
    sum_all(group, data, count, 4, MPI_FLOAT, MPI_SUM);
}

void p4_group_sum_f64(p4_group *group, double *data, int64_t count)
{
    sum_all(group, data, count, 8, MPI_DOUBLE, MPI_SUM);
}

void p4_group_max_f64(p4_group *group, double *data, int64_t count)
{
    sum_all(group, data, count, 8, MPI_DOUBLE, MPI_MAX);
}

void p4_group_reduce_f32(p4_group *group, float *data, int64_t count, int root)
{
    int64_t piece = PIECE_BYTES / 4;
    for (int64_t at = 0; at < count && group->ranks > 1; at += piece) {
        MPI_Request request;
        bool here = group->rank == root;
        MPI_Ireduce(here ? MPI_IN_PLACE : data + at, here ? data + at : NULL,
                    (int)p4_min_i64(piece, count - at), MPI_FLOAT, MPI_SUM, root, group->state->comm,
                    &request);
        wait_for(group, &request, "gradient sum to its owner", group->timeout_s);
    }
}

void p4_group_recv(p4_group *group, void *data, int64_t bytes, int from, int tag)
{
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        MPI_Request request;
        MPI_Irecv((char *)data + at, (int)p4_min_i64(PIECE_BYTES, bytes - at), MPI_BYTE, from, tag,
                  group->state->comm, &request);
        wait_for(group, &request, "receive", group->timeout_s);
    }
}

struct pending {
    int count;
    MPI_Request requests[];
};

p4_request p4_group_isend(p4_group *group, const void *data, int64_t bytes, int to, int tag)
{
    int pieces = (int)p4_ceil_div(bytes, PIECE_BYTES);
    struct pending *pending = calloc(1, sizeof *pending + (size_t)pieces * sizeof(MPI_Request));
    if (pending == NULL) {
        p4_abort(group, "out of memory for a send");
    }
    pending->count = pieces;
    for (int i = 0; i < pieces; i++) {
        int64_t at = i * PIECE_BYTES;
        MPI_Isend((const char *)data + at, (int)p4_min_i64(PIECE_BYTES, bytes - at), MPI_BYTE, to, tag,
                  group->state->comm, &pending->requests[i]);
    }
    return (p4_request){.handle = pending, .what = "send"};
}

void p4_group_wait(p4_group *group, p4_request *request)
{
    struct pending *pending = request->handle;
    for (int i = 0; pending != NULL && i < pending->count; i++) {
        wait_for(group, &pending->requests[i], request->what, group->timeout_s);
    }
    free(pending);
    request->handle = NULL;
}
