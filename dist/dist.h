/* dist.h - the ranks of a job: who is here, agreeing on errors, ending together. The only room that knows
 * MPI. */
#ifndef P4_DIST_H
#define P4_DIST_H

#include "src/leaf/base.h"

typedef struct p4_dist {
    int rank, ranks;             /* of the job */
    int local_rank, local_ranks; /* of this node */
    double timeout_s;            /* bound of every wait inside a training step */
    bool owns_mpi;               /* p4_dist_open called MPI_Init */
    void (*on_abort)(
        void *user); /* NULL, or what p4_abort calls between its message and the end: frees the device */
    void *on_abort_user;
    struct p4_dist_state *state;
} p4_dist;

/* This process's rank as its launcher says it in the environment, -1 when no launcher is known. For what
 * takes no MPI. Local. */
int64_t p4_dist_launched_rank(void);
/* Starts MPI unless the caller has. Started without mpirun or srun the job is one rank. Collective. */
p4_rc p4_dist_open(p4_dist *dist, double timeout_s);
/* Ends MPI if p4_dist_open started it. Collective. */
void p4_dist_close(p4_dist *dist);

/* All ranks give their result; all get the lowest failing rank's code and message, P4_OK when none failed.
 * Collective. */
p4_rc p4_agree(p4_dist *dist, p4_rc rc);
#define TRY_ALL(dist, call)                             \
    do {                                                \
        if ((rc = p4_agree((dist), (call))) != P4_OK) { \
            goto done;                                  \
        }                                               \
    } while (0)

/* p4_agree where no rank has been long at work on its own, as in a training step: the wait is bounded by
 * timeout_s, after which the job is aborted. The other agreements wait as long as one rank works, which may
 * be hours. */
p4_rc p4_agree_soon(p4_dist *dist, p4_rc rc);

/* p4_agree for a question whose "no" the run survives: no failure is injected here, and the caller clears the
 * error. */
p4_rc p4_consult(p4_dist *dist, p4_rc rc);

/* Prints the message and ends every rank of the job. For places where peers may already wait. Does not
 * return. Local. */
_Noreturn void p4_abort(p4_dist *dist, const char *format, ...) P4_PRINTF(2, 3);

/* Cores this rank may use: its affinity mask, divided by the ranks of the node when they share it. Local. */
int p4_dist_cores(const p4_dist *dist);

/* ---- collectives on host memory. Counts may exceed 2^31 (sent in pieces). Every wait is bounded by
 * timeout_s, after which the job is aborted with a message that says what was waited for. All Collective
 * (send/receive: by the two). ---- */
void p4_dist_barrier(p4_dist *dist);
/* all[local_ranks], bytes each: what the ranks of this node gave as `mine`, in the order of local ranks. At
 * most 2 GiB. */
void p4_dist_node_gather(p4_dist *dist, void *all, const void *mine, int64_t bytes);
void p4_dist_bcast(p4_dist *dist, void *data, int64_t bytes, int root);
void p4_dist_sum_f32(p4_dist *dist, float *data, int64_t count); /* to all, in place */
void p4_dist_reduce_f32(p4_dist *dist, float *data, int64_t count,
                        int root); /* in place at root; others' data is scratch */
void p4_dist_sum_f64(p4_dist *dist, double *data, int64_t count);
void p4_dist_max_f64(p4_dist *dist, double *data, int64_t count);
void p4_dist_sum_i64(p4_dist *dist, int64_t *data, int64_t count);
void p4_dist_send(p4_dist *dist, const void *data, int64_t bytes, int to, int tag);
void p4_dist_recv(p4_dist *dist, void *data, int64_t bytes, int from, int tag);

/* A send that goes on while the caller computes; the buffer must stay until p4_dist_wait. At most 8 at once.
 */
typedef struct p4_request {
    void *handle;
    const char *what;
} p4_request;
p4_request p4_dist_isend(p4_dist *dist, const void *data, int64_t bytes, int to, int tag);
void p4_dist_wait(p4_dist *dist, p4_request *request);

#endif
