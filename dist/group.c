#include "dist/group.h"

#include <math.h>
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
    int *world; /* [ranks]: the rank of each in the machine */
    MPI_Request question;
    int yes, any_yes;                  /* of the question: this rank's answer, the group's */
    int64_t agreements, consultations; /* calls so far of p4_agree and its kind, and of p4_consult */
    /* P4_INJECT_FAILURE=agreement,rank or consultation:number,rank (from 1, from 0); 0: none */
    int64_t fail_at, fail_consultation, fail_rank;
};

static void read_injection(struct p4_group_state *state)
{
    const char *text = getenv("P4_INJECT_FAILURE");
    long long at = 0, rank = 0;
    if (text != NULL && sscanf(text, "%lld,%lld", &at, &rank) == 2) {
        state->fail_at = at;
        state->fail_rank = rank;
    } else if (text != NULL && sscanf(text, "consultation:%lld,%lld", &at, &rank) == 2) {
        state->fail_consultation = at;
        state->fail_rank = rank;
    }
}

static void free_state(p4_group *group)
{
    if (group->state != NULL) {
        free(group->state->world);
        free(group->state);
        group->state = NULL;
    }
}

/* Takes the communicator over. All its ranks open the group, or none. */
static p4_rc open_group(p4_group *group, p4_machine *machine, MPI_Comm comm, double timeout_s)
{
    *group = (p4_group){.machine = machine, .timeout_s = timeout_s};
    struct p4_group_state *state = group->state = p4_alloc(1, sizeof *state);
    MPI_Comm_rank(comm, &group->rank);
    MPI_Comm_size(comm, &group->ranks);
    int *world = p4_alloc((size_t)group->ranks, sizeof *world), failed = state == NULL || world == NULL;
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, comm);
    if (failed) {
        MPI_Comm_free(&comm);
        free(world);
        free(state);
        group->state = NULL;
        return FAULT("another rank could not begin");
    }
    state->comm = comm;
    state->world = world;
    machine->timeout_s = fmax(machine->timeout_s, timeout_s);
    MPI_Allgather(&machine->rank, 1, MPI_INT, world, 1, MPI_INT, comm);
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

p4_rc p4_group_open_ranks(p4_group *group, p4_machine *machine, const int *ranks, int count, int tag,
                          double timeout_s)
{
    MPI_Group all, some;
    MPI_Comm comm;
    MPI_Comm_group(machine->state->world, &all);
    MPI_Group_incl(all, count, ranks, &some);
    MPI_Comm_create_group(machine->state->world, some, tag, &comm);
    MPI_Group_free(&some);
    MPI_Group_free(&all);
    return open_group(group, machine, comm, timeout_s);
}

void p4_group_close(p4_group *group)
{
    if (group->state != NULL) {
        p4_group_barrier(group); /* nobody leaves before all are here */
        MPI_Comm_free(&group->state->node);
        MPI_Comm_free(&group->state->comm);
        free_state(group);
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

/* ---- waiting ---- */

/* How long a wait has lasted by this process's own clock ticks: while the whole job is suspended and
 * continued, no time passes in it. */
typedef struct waiting {
    double seconds, now_s, asked_s; /* so far; when that was counted; `seconds` when the others were asked */
} waiting;

static const double LONGEST_TICK_S = 1.0, ASK_EVERY_S = 0.5, RANKS_ASKED_PER_S = 128;

/* The ranks that have been silent for so long, as text: "rank 1 on n2, rank 3 on n4"; false: there is none.
 * *before: how many lower ranks of the group are not silent. */
static bool find_silent(const p4_group *group, double silent_s, char text[512], int *before)
{
    const p4_pulse *pulse = group->machine->state->pulse;
    size_t used = 0;
    text[0] = '\0';
    *before = 0;
    for (int r = 0; pulse != NULL && r < group->ranks; r++) {
        int rank = group->state->world[r];
        bool silent = p4_pulse_silent_s(pulse, rank) >= silent_s;
        *before += !silent && r < group->rank;
        if (silent && used < 400) {
            used += (size_t)snprintf(text + used, 512 - used, "%srank %d on %s", used > 0 ? ", " : "", rank,
                                     p4_pulse_host(pulse, rank));
        }
    }
    return used > 0;
}

/* One message for the job: the lowest rank that lives speaks, and its end ends the others. */
static void let_lower_speak(int before)
{
    const double EACH_S = 0.3, MOST_S = 3.0;
    double seconds = before * EACH_S < MOST_S ? before * EACH_S : MOST_S;
    nanosleep(&(struct timespec){.tv_sec = (time_t)seconds,
                                 .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))},
              NULL);
}

/* Ends the job if the wait has become hopeless: a rank does not live, or (`bounded`) it takes too long. */
static void judge_wait(p4_group *group, waiting *w, const char *what, bool bounded)
{
    char silent[512];
    int before = 0;
    double now_s = p4_now_s(), every_s = fmax(ASK_EVERY_S, group->ranks / RANKS_ASKED_PER_S);
    p4_pulse *pulse = group->machine->state->pulse;
    w->seconds += fmin(now_s - w->now_s, LONGEST_TICK_S);
    w->now_s = now_s;
    if (pulse != NULL && w->seconds - w->asked_s >= every_s) {
        if (w->asked_s == 0) {
            p4_pulse_begin(pulse);
        }
        p4_pulse_ask(pulse, group->state->world, group->ranks, w->seconds - w->asked_s);
        w->asked_s = w->seconds;
    }
    if (bounded && w->seconds > group->timeout_s) {
        bool known = find_silent(group, fmin(10.0, 0.5 * group->timeout_s), silent, &before);
        let_lower_speak(before);
        p4_abort(group, "%s: no answer from the other ranks within %.0f s (collective_timeout_s)%s%s", what,
                 group->timeout_s, known ? "; not running: " : "", silent);
    }
    if (w->asked_s > group->timeout_s && find_silent(group, group->timeout_s, silent, &before)) {
        let_lower_speak(before);
        p4_abort(group, "%s: %s: has not run for %.0f s (collective_timeout_s): stopped, or its node is lost",
                 what, silent, group->timeout_s);
    }
}

/* Waits without keeping a core busy: ranks may share cores with the threads that compute. bounded: for at
 * most timeout_s; else as long as the other ranks live, since a rank may work alone for hours. */
static void wait_for(p4_group *group, MPI_Request *request, const char *what, bool bounded)
{
    double started_s = p4_now_s();
    waiting w = {.now_s = started_s};
    for (int64_t tries = 0;; tries++) {
        int done = 0;
        MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (done) {
            group->waited_s += tries > 0 ? p4_now_s() - started_s : 0;
            return;
        }
        if (tries < 200) {
            sched_yield();
            continue;
        }
        nanosleep(&(struct timespec){.tv_nsec = tries < 2000 ? 20000 : 200000}, NULL);
        judge_wait(group, &w, what, bounded);
    }
}

/* names_rank: where only some ranks failed, the message names the rank and its host. */
static p4_rc agree_on(p4_group *group, p4_rc rc, bool bounded, bool names_rank)
{
    struct p4_group_state *state = group->state;
    struct {
        int lowest, all_failed;
    } mine = {rc == P4_OK ? group->ranks : group->rank, rc != P4_OK}, least = mine;
    MPI_Request request;
    MPI_Iallreduce(&mine, &least, 2, MPI_INT, MPI_MIN, state->comm, &request);
    wait_for(group, &request, "agreement", bounded);
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
    struct p4_group_state *state = group->state;
    state->consultations++;
    if (state->fail_consultation == state->consultations && state->fail_rank == group->rank && rc == P4_OK) {
        rc = FAULT("injected failure at consultation %lld on rank %d", (long long)state->consultations,
                   group->rank);
    }
    return agree_on(group, rc, false, true);
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
    return agree_on(group, count_agreement(group, rc), false, true);
}

p4_rc p4_agree_root(p4_group *group, p4_rc rc)
{
    return agree_on(group, count_agreement(group, rc), false, false);
}

p4_rc p4_agree_soon(p4_group *group, p4_rc rc)
{
    return agree_on(group, count_agreement(group, rc), true, true);
}

void p4_group_ask(p4_group *group, bool yes)
{
    struct p4_group_state *state = group->state;
    state->yes = yes;
    MPI_Iallreduce(&state->yes, &state->any_yes, 1, MPI_INT, MPI_MAX, state->comm, &state->question);
}

bool p4_group_answer(p4_group *group)
{
    wait_for(group, &group->state->question, "question", false);
    return group->state->any_yes != 0;
}

void p4_group_barrier(p4_group *group)
{
    MPI_Request request;
    MPI_Ibarrier(group->state->comm, &request);
    wait_for(group, &request, "barrier", false);
}

void p4_group_node_gather(p4_group *group, void *all, const void *mine, int64_t bytes)
{
    MPI_Request request;
    MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, group->state->node, &request);
    wait_for(group, &request, "exchange inside the node", true);
}

void p4_group_bcast(p4_group *group, void *data, int64_t bytes, int root)
{
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        MPI_Request request;
        MPI_Ibcast((char *)data + at, (int)p4_min_i64(PIECE_BYTES, bytes - at), MPI_BYTE, root,
                   group->state->comm, &request);
        wait_for(group, &request, "broadcast", true);
    }
}

void p4_group_all_gather(p4_group *group, void *data, int64_t bytes)
{
    MPI_Request request;
    if (group->ranks > 1) {
        MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, (int)bytes, MPI_BYTE, group->state->comm,
                       &request);
        wait_for(group, &request, "exchange between ranks", true);
    }
}

static void sum_all(p4_group *group, void *data, int64_t count, int64_t each, MPI_Datatype type, MPI_Op op)
{
    int64_t piece = PIECE_BYTES / each;
    for (int64_t at = 0; at < count && group->ranks > 1; at += piece) {
        MPI_Request request;
        MPI_Iallreduce(MPI_IN_PLACE, (char *)data + at * each, (int)p4_min_i64(piece, count - at), type, op,
                       group->state->comm, &request);
        wait_for(group, &request, "sum over ranks", true);
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
        wait_for(group, &request, "gradient sum to its owner", true);
    }
}

void p4_group_recv(p4_group *group, void *data, int64_t bytes, int from, int tag)
{
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        MPI_Request request;
        MPI_Irecv((char *)data + at, (int)p4_min_i64(PIECE_BYTES, bytes - at), MPI_BYTE, from, tag,
                  group->state->comm, &request);
        wait_for(group, &request, "receive", true);
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
        wait_for(group, &pending->requests[i], request->what, true);
    }
    free(pending);
    request->handle = NULL;
}
