/* messages.h - what the coordinator and the ranks tell each other (dist/control.h): one struct each, as the
 * program of one job has it on all ranks. */
#ifndef P4_BATCH_MESSAGES_H
#define P4_BATCH_MESSAGES_H

#include "io/batch/journal.h"
#include "src/phase4/types.h"

typedef enum p4_order_kind {
    P4_ORDER_RUN,   /* work on a model */
    P4_ORDER_CHECK, /* only check it */
    P4_ORDER_STOP,  /* stop what runs, as a signal does */
    P4_ORDER_END,   /* the batch has ended */
} p4_order_kind;

/* From the coordinator. Behind it: ranks [count] as int32_t, then the text of the configuration and the name
 * of its source, each with its NUL. */
typedef struct p4_order {
    p4_order_kind kind;
    int32_t model, count;
    int32_t tag; /* of the group that is made */
    int32_t text_bytes;
    bool composed;   /* the text has lines of its own (io/batch/queue.h) */
    char reason[16]; /* STOP: "SIGTERM" */
    char output_path[P4_PATH_BYTES], log_path[P4_PATH_BYTES];
} p4_order;

typedef enum p4_answer_kind {
    P4_ANSWER_READY,    /* the rank waits for its first order */
    P4_ANSWER_PROGRESS, /* the first rank of a group, now and then */
    P4_ANSWER_ENDED, /* the model's work has ended here: the rank is idle. The first rank's has the results */
    P4_ANSWER_STOP,  /* this process was asked to stop by a signal */
} p4_answer_kind;

typedef struct p4_answer {
    p4_answer_kind kind;
    int32_t model;
    char host[64];     /* READY */
    double free_bytes; /* READY: host memory of the node; 0: not known */
    char label[48];    /* PROGRESS */
    double done, total, left_s;
    bool leads;       /* ENDED: the group's first rank */
    bool lost_device; /* ENDED: a GPU may be in any state: this process must not go on */
    int32_t rc;       /* ENDED: p4_rc of the run */
    char reason[16];  /* STOP */
    char error[4096]; /* ENDED: of rc, or why the verdict failed */
    char model_print[P4_FINGERPRINT_BYTES];
    char ended[P4_TIME_BYTES]; /* as results.json has it */
    bool judged, passed;       /* was there a verdict? */
    int64_t warnings;
    double pre_perplexity, perplexity, compression_ratio, compressed_mb, peak_memory_mb, held_memory_mb;
} p4_answer;

#endif
