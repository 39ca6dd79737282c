/* batch.h - many models in one job: what is known of each, and of the whole (docs/batch.md).
 *
 * Rank 0 alone has a p4_batch. Its main thread prepares it; then a thread, the coordinator, owns it until the
 * batch has ended, while the main thread works on models as those of all ranks do. */
#ifndef P4_BATCH_H
#define P4_BATCH_H

#include "io/batch/journal.h"
#include "io/batch/queue.h"
#include "src/phase4/config.h"

enum { P4_BATCH_WIDTHS = 16 };

typedef enum p4_batch_state {
    P4_STATE_WAITING,
    P4_STATE_RUNNING,
    P4_STATE_DONE,
    P4_STATE_VERDICT, /* done, with a failed verdict: a failure only under --strict */
    P4_STATE_FAILED,
    P4_STATE_STOPPED,
    P4_STATE_LEFT_OUT, /* not part of this call: --task of another one, --failed-only and not failed */
    P4_STATES
} p4_batch_state;
extern const char *const p4_batch_state_names[P4_STATES];

/* What a plan says of a model, the same for all models of one shape and configuration. */
typedef struct p4_batch_plan {
    bool known;
    int least;                          /* ranks with which it fits */
    int widths;                         /* how many of `seconds` are known */
    double seconds[P4_BATCH_WIDTHS];    /* on least << i ranks */
    double rank_bytes[P4_BATCH_WIDTHS]; /* host memory of a rank, the process itself included */
    double device_bytes;                /* of the largest rank, on `least` ranks; 0: on CPUs */
    double params, disk_bytes;
} p4_batch_plan;

typedef struct p4_batch_model {
    const p4_queue_entry *given;
    p4_batch_state state;
    bool floating;   /* output_path depends on the day or the job: what was begun goes on where it is */
    bool breaks_off; /* attempt after attempt ended with its job: perhaps it is the cause */
    bool earlier;    /* the state comes from the journal: this call did not touch it */
    p4_batch_plan plan;
    char *output_path;      /* heap: as configured, expanded; NULL: it could not be read */
    p4_batch_record record; /* of the newest attempt; its output_path is the expanded one */
    /* while it runs */
    int ranks, *at; /* heap: the ranks of the job that work on it */
    int busy;       /* of them, those that have not yet said that they are through */
    double began_s, planned_s, bytes;
    char label[48];
    double done, total, left_s; /* left_s NAN: not known */
} p4_batch_model;

/* A rank of the job as the coordinator sees it. */
typedef struct p4_batch_rank {
    int node, model; /* model -1: idle */
} p4_batch_rank;

typedef struct p4_batch_node {
    double room_bytes, used_bytes; /* of host memory; room 0: not known */
    bool picked;                   /* by p4_batch_pick_ranks, while it works */
} p4_batch_node;

typedef struct p4_batch_options {
    const char *queue_path, *template_path, *rates_path;
    char *const *overrides; /* "key=value" */
    int override_count;
    int64_t max_fails;         /* 0: no bound */
    int64_t task;              /* from 1; 0: all */
    int ranks, ranks_per_node; /* of a plan without MPI; 0: 1, and the plan's default */
    double memory_bytes, host_bytes;
    bool strict, failed_only, quiet, live, check_only;
    bool contents; /* compare the files of models, which reads them */
} p4_batch_options;

typedef struct p4_batch {
    const p4_batch_options *options;
    p4_queue queue;
    char *directory;     /* of the state: journal, logs, results */
    char *own_directory; /* the same, or that of a task in it */
    int64_t count;
    p4_batch_model *models; /* in the order of the queue */
    int64_t
        *order; /* [count]: which model is offered ranks first; longest first until p4_batch_choose_order */
    int64_t begun;            /* of `order`: so many at its start wait no more */
    p4_batch_model **running; /* [ranks]: the models that run, by their planned ends; p4_batch_begin */
    int running_count;
    int64_t counts[P4_STATES];
    int64_t fails;       /* of this call */
    p4_journal *journal; /* NULL: a check or a plan, which leave nothing */
    bool works;          /* the job has these ranks; false: a question, which takes any number for given */
    int ranks;
    p4_batch_rank *rank; /* [ranks] */
    int nodes;
    p4_batch_node *node; /* [ranks] */
    double started_s;
    const char *stopping; /* why no model is started any more: "SIGTERM"; NULL: they are */
    p4_rc failure;        /* of the batch itself: it ends when its models have stopped */
    char failure_text[1024];
} p4_batch;

/* Moves a model to another state, and counts. */
static inline void p4_batch_set_state(p4_batch *batch, p4_batch_model *model, p4_batch_state state)
{
    batch->counts[model->state]--;
    model->state = state;
    batch->counts[state]++;
}

/* prepare.c. Reads the queue, so that one that cannot be read leaves no state. P4_E_INPUT: the queue. Local.
 */
p4_rc p4_batch_read_queue(p4_batch *batch, const p4_batch_options *options);
/* Reads the queue, unless that was done, and the journal, plans every model, and decides which are to be
 * worked on. ranks_per_node and cores of a rank: 0: those that a plan takes. P4_E_INPUT: the queue or the
 * journal. The caller frees, also after an error. Local. */
p4_rc p4_batch_prepare(p4_batch *batch, const p4_batch_options *options, int ranks, int ranks_per_node,
                       int cores);
void p4_batch_free(p4_batch *batch);
/* The directory of the state: as given, or the queue's name with ".batch" in place of its ending. Heap. */
char *p4_batch_directory(const char *given, const char *queue_path);
/* The model's log, heap; NULL: memory is out. */
char *p4_batch_log_path(const p4_batch *batch, const p4_batch_model *model);

/* schedule.c. */
typedef struct p4_batch_start {
    int64_t model; /* -1: none can start now */
    int ranks;
    int64_t looked; /* models that were looked at to find it */
} p4_batch_start;
/* The next model to start and its ranks, given so many idle ones. now_s: by p4_now_s. Local. */
p4_batch_start p4_batch_next(const p4_batch *batch, int idle, double now_s);
/* A waiting model runs from now on, on so many ranks; a running one has ended in a state. Local. */
void p4_batch_begin(p4_batch *batch, p4_batch_model *model, int ranks, double now_s);
void p4_batch_end(p4_batch *batch, p4_batch_model *model, p4_batch_state state);
/* Picks `count` idle ranks with room for rank_bytes each, on as few nodes as possible: at [count] is filled,
 * ascending. false: not enough of them have room now. Local. */
bool p4_batch_pick_ranks(const p4_batch *batch, int count, double rank_bytes, int *at);
/* The planned width of a model on so many ranks: an index of plan.seconds. Local. */
int p4_batch_width(const p4_batch_plan *plan, int ranks);

/* order.c. */
/* Seconds from now_s (p4_now_s) until what runs and waits is through, by the plans. Local. */
p4_rc p4_batch_forecast(const p4_batch *batch, double now_s, double *seconds);
/* Where the order so far, longest first at the beginning, leaves ranks idle at the end, changes it so that
 * the batch ends earlier, by the plans and by what runs. The same state gives the same order. *looked, which
 * may be NULL: the models that it looked at, at most P4_BATCH_LOOKS and those of one simulated schedule.
 * Local. */
enum { P4_BATCH_LOOKS = 100 * 1000 * 1000 };
p4_rc p4_batch_choose_order(p4_batch *batch, double now_s, int64_t *looked);
/* The same when a model has ended, if few models wait; idle: ranks without work. *chosen: false where too
 * many wait, or while ranks of a model that has ended are not idle yet. Local. */
p4_rc p4_batch_choose_again(p4_batch *batch, int idle, double now_s, bool *chosen);

/* report.c. */
p4_rc p4_batch_write_results(const p4_batch *batch, double seconds); /* batch_results.json */
void p4_batch_print(const p4_batch *batch, double seconds);          /* the final table and summary: stdout */
void p4_batch_print_plan(const p4_batch *batch, double forecast_s);  /* stdout */
/* "18 complete (16 of them before), 2 failed (a, b) in 12 min": one line without a newline. */
enum { P4_BATCH_SUMMARY_BYTES = 1024 };
char *p4_batch_summarize(char text[P4_BATCH_SUMMARY_BYTES], const p4_batch *batch, double seconds);
int p4_batch_status(const p4_batch *batch); /* the exit status */

#endif
