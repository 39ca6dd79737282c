/* group.h - the ranks that work on one model: collectives on host memory, agreement on errors, ending
 * together. A program of one model has one group, the whole machine. dist/ is the only folder that uses MPI.
 */
#ifndef P4_GROUP_H
#define P4_GROUP_H

#include "dist/machine.h"

/* What p4_abort calls between its message and the end: it stops work on the device, so that the process can
 * end. The caller's, until it is removed. */
typedef struct p4_abort_hook {
    void (*call)(void *user);
    void *user;
    struct p4_abort_hook *next;
} p4_abort_hook;

typedef struct p4_group {
    p4_machine *machine;
    int rank, ranks;             /* of the group */
    int local_rank, local_ranks; /* of the group on this node */
    double timeout_s;            /* bound of every wait inside a training step */
    p4_abort_hook *abort_hooks;  /* the newest first */
    double waited_s;             /* in waits for other ranks on host memory, since it was opened */
    struct p4_group_state *state;
} p4_group;

/* Makes a group of the ranks of a communicator: `communicator` points to an MPI_Comm, which is duplicated and
 * contains the caller; NULL stands for the whole machine. The machine must outlive the group; the caller
 * closes. Collective over these ranks. */
p4_rc p4_group_open(p4_group *group, p4_machine *machine, const void *communicator, double timeout_s);
/* P4_E_INPUT: `communicator` points to MPI_COMM_NULL. Local: callers agree before they open a group on it. */
p4_rc p4_group_check_communicator(const void *communicator);
/* Divides the machine: the ranks that give the same color become one group, ordered as in the machine. The
 * caller closes. Collective over the machine. */
p4_rc p4_group_split(p4_group *group, p4_machine *machine, int color, double timeout_s);
/* Makes a group of these ranks of the machine, in this order, while the others do something else: only they
 * call it, all with the same ranks [count] and tag; groups that are opened at the same time have different
 * tags, from 0 to 32767. The caller closes. Collective over these ranks. */
p4_rc p4_group_open_ranks(p4_group *group, p4_machine *machine, const int *ranks, int count, int tag,
                          double timeout_s);
void p4_group_close(p4_group *group); /* Collective. */
/* From here on rank 0 of the group writes its log, at this level. Local. */
void p4_group_set_log(const p4_group *group, p4_log_level level);

/* Every rank gives its result; all ranks get the code and message of the lowest rank that failed, P4_OK when
 * none did. Where some ranks failed and others did not, the message names the rank and its host. Collective.
 */
p4_rc p4_agree(p4_group *group, p4_rc rc);
#define TRY_ALL(group, call)                             \
    do {                                                 \
        if ((rc = p4_agree((group), (call))) != P4_OK) { \
            goto done;                                   \
        }                                                \
    } while (0)

/* The result of work that rank 0 alone does for all: like p4_agree, but a message needs no rank. Collective.
 */
p4_rc p4_agree_root(p4_group *group, p4_rc rc);
#define TRY_ROOT(group, call)                                                              \
    do {                                                                                   \
        if ((rc = p4_agree_root((group), (group)->rank == 0 ? (call) : P4_OK)) != P4_OK) { \
            goto done;                                                                     \
        }                                                                                  \
    } while (0)

/* p4_agree inside a training step, where all ranks arrive at nearly the same time: the wait is bounded by
 * timeout_s, after which the job is aborted. Other agreements wait as long as one rank works, which may be
 * hours. */
p4_rc p4_agree_soon(p4_group *group, p4_rc rc);

/* p4_agree for a question that the run survives: failures that are injected here have a count of their own,
 * and the caller clears the error. */
p4_rc p4_consult(p4_group *group, p4_rc rc);

/* A question that the ranks answer while they work: p4_group_ask starts it and waits for nobody,
 * p4_group_answer waits, however long a rank works, until every rank has asked, and says whether one of them
 * gave true. One at a time. Both Collective. */
void p4_group_ask(p4_group *group, bool yes);
bool p4_group_answer(p4_group *group);

/* Prints the message with this rank and its host, calls the group's abort hooks, and ends the job. For places
 * where peers may already wait. Does not return. Local. */
_Noreturn void p4_abort(p4_group *group, const char *format, ...) P4_PRINTF(2, 3);

/* In any order; removing one that was not added does nothing. Local. */
void p4_group_add_abort_hook(p4_group *group, p4_abort_hook *hook);
void p4_group_remove_abort_hook(p4_group *group, p4_abort_hook *hook);

/* ---- collectives on host memory. Counts may exceed 2^31 (sent in pieces). Every wait is bounded by
 * timeout_s, after which the job is aborted with a message that says what was waited for. All Collective
 * (receive: by the two). ---- */
void p4_group_barrier(p4_group *group);
/* all[local_ranks], bytes each: what the ranks of this node gave as `mine`, in the order of local ranks. At
 * most 2 GiB. */
void p4_group_node_gather(p4_group *group, void *all, const void *mine, int64_t bytes);
void p4_group_bcast(p4_group *group, void *data, int64_t bytes, int root);
/* data [ranks, bytes], the same on all ranks: row r from rank r. bytes: at most 2 GiB. */
void p4_group_all_gather(p4_group *group, void *data, int64_t bytes);
void p4_group_sum_f32(p4_group *group, float *data, int64_t count); /* to all, in place */
/* In place at root; the data of the other ranks is scratch after. */
void p4_group_reduce_f32(p4_group *group, float *data, int64_t count, int root);
void p4_group_sum_f64(p4_group *group, double *data, int64_t count);
void p4_group_max_f64(p4_group *group, double *data, int64_t count);
void p4_group_recv(p4_group *group, void *data, int64_t bytes, int from, int tag);

/* A send that goes on while the caller computes; the buffer must stay until p4_group_wait. At most 8 at once.
 */
typedef struct p4_request {
    void *handle;
    const char *what;
} p4_request;
p4_request p4_group_isend(p4_group *group, const void *data, int64_t bytes, int to, int tag);
void p4_group_wait(p4_group *group, p4_request *request);

#endif
