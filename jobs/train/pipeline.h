/* pipeline.h - evaluation and calibration: micro-batches of hidden states pass from rank to rank, each of
 * which runs its own contiguous layers. While rank r works on micro-batch m, rank r-1 works on m+1.
 * (jobs/train/layers.h is the other order: one layer after another, each over all windows.) */
#ifndef P4_PIPELINE_H
#define P4_PIPELINE_H

#include "dist/shard.h"
#include "io/text/dataset.h"
#include "jobs/train/compute.h"
#include "src/net.h"

typedef struct p4_pipeline_plan {
    int64_t B, T; /* windows in a micro-batch, tokens in a window */
    int activation_bits;
    bool reference;   /* two forms run side by side */
    bool states_only; /* nothing is scored: p4_pass.on_states gets the last stage's states; no head */
    bool blocks;      /* p4_pass.on_block gets the output of every block of `form` */
} p4_pipeline_plan;

typedef struct p4_pipeline {
    p4_compute *compute;
    const p4_model *model;
    const p4_shard *shard;
    p4_pipeline_plan plan;
    p4_net net;
    void *memory;
    void *x[2][2];  /* [form][micro-batch parity]: hidden states that come in and go out */
    void **outputs; /* host [L]: of this rank's layers but the last; NULL: the plan wants none */
    p4_request sending[2][2];
    int64_t *h_first; /* host [B]: the first predicted token of each window of a micro-batch */
    float *h_nll;     /* host [B, T], on the head's rank: losses of a micro-batch */
} p4_pipeline;

/* What passes through the pipeline. Forms need this rank's layers, the embedding on the first stage, the head
 * on the last. */
typedef struct p4_pass {
    const p4_form *form;
    const p4_form *reference; /* NULL: none */
    const p4_windows *windows;
    const p4_probe *probe; /* NULL: none */
    const char *label;     /* of the progress line and of messages */
    /* [windows->part_count] zeros: the head's rank fills in the losses, summed over each part; NULL: nobody
     * asks. Not with states_only. */
    double *part_nll;
    /* Sees the normed final states, act [B, T, C], of windows [first, first + B) on the head's rank, where
     * the plan asks for states. They are the callee's until it returns; it may queue ops that read them. */
    void (*on_states)(void *user, const void *states, int64_t first, int64_t B);
    /* Sees what comes out of block `layer`, on the rank that runs it and under the same terms, where the plan
     * asks for blocks. */
    void (*on_block)(void *user, int64_t layer, const void *states, int64_t first, int64_t B);
    void *user;
} p4_pass;

/* Windows of T tokens in a micro-batch of an evaluation of `windows` windows: `least` or, for models whose
 * hidden states are too narrow to occupy a GPU with so few, more. The same on any number of ranks. Local. */
int64_t p4_pipeline_batch(const p4_compute *compute, const p4_model *model, int64_t least, int64_t T,
                          int64_t windows);

/* Takes device memory; compute, model and shard must outlive the pipeline. The caller closes. Local. */
p4_rc p4_pipeline_open(p4_pipeline *pipeline, p4_compute *compute, const p4_model *model,
                       const p4_shard *shard, const p4_pipeline_plan *plan);
/* The device memory that it takes on this rank, bytes; -1: out of host memory. Local. */
int64_t p4_pipeline_bytes(const p4_compute *compute, const p4_model *model, const p4_shard *shard,
                          const p4_pipeline_plan *plan);
void p4_pipeline_close(p4_pipeline *pipeline);

/* All windows through the model, without a score and without a wait of the ranks for each other at the end:
 * for plans with states_only. Collective over the ranks that run layers; the others return at once. */
void p4_pipeline_flow(p4_pipeline *pipeline, const p4_pass *pass);
/* The same, but true if the ranks were asked to stop (compute->stop) before all windows were done; those seen
 * by on_states are whole. Collective over all ranks. */
bool p4_pipeline_flow_or_stop(p4_pipeline *pipeline, const p4_pass *pass);
/* All windows through the model; *score is the same on every rank. P4_STOPPED: the ranks were asked to stop
 * (compute->stop), and *score is of some windows only. Collective. */
p4_rc p4_pipeline_run(p4_pipeline *pipeline, const p4_pass *pass, p4_score *score);

#endif
