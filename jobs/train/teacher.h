/* teacher.h - the original model as the teacher of a training: for every micro-batch its distribution at each
 * prediction, wherever the original lives.
 *
 * - Resident: every rank holds the whole original in the activations' type. Its forward pass is queued like
 *   any other work of the micro-batch and can be recorded.
 * - Sharded: the ranks hold the layers that they run in the pipeline. The micro-batches of all ranks pass
 *   through it together, and each rank gets the final states of its own. Every rank has the head.
 * - Cached: before training, the windows that it will draw pass through the pipeline once, and the largest
 *   probabilities of each prediction go to a file, which every rank maps. The rest of the distribution is one
 *   class. Nothing of the original stays in memory.
 *
 * Where blocks are compared, the first two keep or bring the hidden states after every block too.
 *
 * The trainer knows only p4_net_teacher: states and a head, or the largest probabilities. */
#ifndef P4_TEACHER_H
#define P4_TEACHER_H

#include "io/file/record_file.h"
#include "io/out/outputs.h"
#include "io/text/training_set.h"
#include "jobs/train/original.h"
#include "jobs/train/pipeline.h"

typedef struct p4_teacher_plan {
    double weight, temperature; /* weight 0: no teacher */
    double blocks;              /* weight of the mean distance of the blocks' outputs; not of a cached one */
    p4_teacher_kind kind;
    int64_t T; /* tokens of a window */
    /* Of a cached one. */
    int64_t top_k;
    const char *folder; /* for its file; on a file system that all ranks read */
    uint64_t key; /* rank 0: of the model and the text; the file of an interrupted training stays for the one
                     that continues it. 0: it goes with this process */
    double keep_every_s; /* what there is of that file is kept so often while it is made; 0: at the end */
    int64_t steps, sequences; /* that training takes; the trainer sets them */
} p4_teacher_plan;

/* The micro-batches of all ranks in the pipeline (teacher_sharded.c). */
typedef struct p4_teacher_shards {
    p4_pipeline pipeline;
    double *counts;  /* [ranks]: windows of each rank in the micro-batch */
    int32_t *h_ids;  /* [ranks * B, T]: of all ranks */
    void *collected; /* act [states][ranks * B, T, C]: with blocks the output of each of this rank's layers;
                        on the head's rank the normed final states */
} p4_teacher_shards;

/* The largest probabilities in a file (teacher_cache.c). */
typedef struct p4_teacher_cache {
    uint32_t *record_of; /* [windows of the training set]: 1 + the record of a window; 0: it is not drawn */
    p4_record_layout layout;
    p4_record_file file;
    char *path;  /* NULL: the file is removed */
    bool stays;  /* for a process that continues the training */
    bool reused; /* records of a process before this one are there */
    double kept; /* head's rank: mean probability of what is kept */
    int64_t compared;
    int32_t *h_ids; /* head's rank: [compared, T], of the first records */
} p4_teacher_cache;

typedef struct p4_teacher {
    p4_compute *compute; /* NULL: there is no teacher */
    const p4_original *original;
    p4_training_set *training_set;
    p4_teacher_plan plan; /* its kind is the chosen one */
    p4_net_teacher view;  /* what the network takes */
    p4_device_form form;  /* of all layers, or of this rank's */
    void *head;           /* device: act [logits_ld, C] and, behind it, the bias if it has one */
    int64_t head_bytes;
    int64_t B;  /* windows of a micro-batch, at most */
    p4_net net; /* resident */
    void
        *states; /* device: act [B, T, C]; resident: the hidden states at work; cached: of compared windows */
    void **blocks; /* host [L]: the states after each block, device act [B, T, C]; NULL: not compared. The
                      last is `states` of a resident one, all others lie in blocks_memory */
    void *blocks_memory;
    p4_teacher_shards shards;
    p4_teacher_cache cache;
} p4_teacher;

/* Chooses the kind, where the plan leaves it open: resident where it fits beside `student_bytes` of the
 * device's memory (of the node's, over its ranks, on CPUs) on every rank, else sharded. Then puts the
 * original's weights on the device or, cached, makes the file. compute, original and training_set, which has
 * its schedule, must outlive it. P4_STOPPED: the ranks were asked to stop while the file was made, and what
 * there is of it stays. The caller closes. Collective. */
p4_rc p4_teacher_open(p4_teacher *teacher, p4_compute *compute, const p4_original *original,
                      p4_training_set *training_set, const p4_teacher_plan *plan, int64_t student_bytes);
/* What a teacher of a kind that is decided (not AUTO) takes on this rank for micro-batches of B windows,
 * bytes. Local. */
typedef struct p4_teacher_memory {
    int64_t held;   /* device, whatever B is: weights and head */
    int64_t work;   /* device, for micro-batches */
    int64_t making; /* device, before training begins and then no more: of a cached one */
    int64_t file;   /* on disk, of a cached one whose records are `windows` */
} p4_teacher_memory;
p4_rc p4_teacher_plan_bytes(p4_teacher_memory *memory, p4_compute *compute, const p4_original *original,
                            const p4_teacher_plan *plan, int64_t B, int64_t windows);

/* Also of zeros. Local. */
void p4_teacher_close(p4_teacher *teacher);
/* Nobody continues this training: the file of a cached teacher goes when it is closed. Local. */
static inline void p4_teacher_finish(p4_teacher *teacher)
{
    teacher->cache.stays = false;
}
static inline bool p4_teacher_is_open(const p4_teacher *teacher)
{
    return teacher->compute != NULL;
}

/* Memory for micro-batches of up to B windows: its bytes on the device (-1: out of host memory), and taking
 * it. Local. */
int64_t p4_teacher_work_bytes(const p4_teacher *teacher, int64_t B);
p4_rc p4_teacher_reserve(p4_teacher *teacher, int64_t B);
/* Device memory that it holds. Local. */
int64_t p4_teacher_bytes(const p4_teacher *teacher);

/* Says what a cached teacher loses: KL to the model at hand, whole and cut. net: of training, with memory for
 * the micro-batches that were reserved; it takes the teacher's view. Nothing for other kinds. Collective. */
p4_rc p4_teacher_measure(p4_teacher *teacher, p4_net *net, const p4_form *form);

/* Before each micro-batch, outside of recorded work: h_ids [B, T], the windows of this rank, which may be
 * none; they are sequences [from, from + B) of the step. Collective. */
void p4_teacher_prepare(p4_teacher *teacher, const int32_t *h_ids, int64_t step, int64_t from, int64_t B);
/* Queues what depends on the tokens alone and may be recorded. Local. */
void p4_teacher_forward(p4_teacher *teacher, int64_t B);

/* teacher_weights.c, all Local. */
/* Device memory of p4_teacher_open_weights, bytes; -1: out of host memory. */
int64_t p4_teacher_weights_bytes(const p4_teacher *teacher);
/* The weights that this rank's kind of teacher needs, data NULL where it does not; the caller frees. NULL:
 * out of memory. */
p4_weight *p4_teacher_sources(const p4_teacher *teacher);
p4_rc p4_teacher_open_weights(p4_teacher *teacher);    /* teacher->form */
p4_rc p4_teacher_open_head(p4_teacher *teacher);       /* In the form that products take. */
int64_t p4_teacher_bias_at(const p4_teacher *teacher); /* Where behind the head its bias begins, bytes. */
void p4_teacher_close_head(p4_teacher *teacher);       /* And the states. */

/* teacher_cache.c */
p4_rc p4_teacher_cache_open(p4_teacher *teacher); /* Collective. */
int64_t p4_teacher_cache_bytes(const p4_teacher *teacher, int64_t B);
/* The device memory while the file is made; -1: out of host memory. Local. */
int64_t p4_teacher_cache_making_bytes(const p4_teacher *teacher);
/* The pass that makes it, and rows of logits at a time in it. Local. */
p4_pipeline_plan p4_teacher_cache_pass(const p4_teacher *teacher);
int64_t p4_teacher_cache_rows(const p4_teacher *teacher, int64_t B);
enum { P4_TEACHER_COMPARED = 4 }; /* windows on which the cut distribution is compared with the whole one */
p4_rc p4_teacher_cache_reserve(p4_teacher *teacher);
void p4_teacher_cache_prepare(p4_teacher *teacher, int64_t step, int64_t from, int64_t B);
void p4_teacher_cache_close(p4_teacher *teacher);

/* teacher_sharded.c */
int64_t p4_teacher_shards_bytes(const p4_teacher *teacher, int64_t B);
p4_rc p4_teacher_shards_reserve(p4_teacher *teacher);
void p4_teacher_shards_prepare(p4_teacher *teacher, const int32_t *h_ids, int64_t B);
void p4_teacher_shards_close(p4_teacher *teacher);

#endif
