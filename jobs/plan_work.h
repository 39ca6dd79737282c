/* plan_work.h - how long a rank takes for a pass or a step, kernel by kernel (docs/scale.md).
 *
 * A kernel takes kernel_s, and beyond that its operations at the rate of products or its bytes at the rate of
 * memory, whichever is longer. The kernels are those that src/net*.c, jobs/train and kernels/cuda launch, so
 * that small models, whose kernels are short and many, are judged by the same rates as large ones. Attention
 * runs at half the rate of products. A device without kernel_s is one whose rates of products contain all of
 * a network's work, as those of CPUs do: there only products and what is done by weights count. */
#ifndef P4_PLAN_WORK_H
#define P4_PLAN_WORK_H

#include "src/model.h"
#include "src/optim.h"
#include "src/plan.h"

/* One rank's; starts with zero seconds. */
typedef struct p4_work {
    double products; /* operations a second */
    double memory;   /* bytes a second */
    double kernel_s;
    double each; /* bytes of an activation */
    double seconds, kernels;
} p4_work;

/* Tokens at once in windows of T. */
typedef struct p4_work_tokens {
    double N, T;
} p4_work_tokens;

/* Of block `layer`. Local. */
void p4_work_forward(p4_work *w, const p4_arch *a, int64_t layer, p4_work_tokens t);
void p4_work_backward(p4_work *w, const p4_arch *a, int64_t layer, p4_work_tokens t);
/* Its weights from codes, for a pass that multiplies them once. */
void p4_work_unpack(p4_work *w, const p4_arch *a, int64_t layer);
/* What calibration measures at the inputs of its projections. */
void p4_work_observe(p4_work *w, const p4_arch *a, int64_t layer, p4_work_tokens t);
/* The distance of its output from the teacher's, and that distance's gradient. */
void p4_work_compare(p4_work *w, const p4_arch *a, p4_work_tokens t);
/* Copies of so many activations together. */
void p4_work_copies(p4_work *w, double copies, double activations);

/* Embedding, final norm, head and scores. others: heads beside it whose logits it is compared with. */
void p4_work_ends(p4_work *w, const p4_arch *a, p4_work_tokens t, int others, int64_t logits_chunk);
/* And their backward pass. */
void p4_work_ends_backward(p4_work *w, const p4_arch *a, p4_work_tokens t, int64_t logits_chunk);

/* What a step does with weights. */
typedef struct p4_work_update {
    const p4_model *model;
    const p4_optim_settings *optim;
    int64_t
        blocks; /* the first ones alone, as reconstruction takes them: matrix by matrix; 0: all parameters */
    double owners; /* ranks that share the matrices: each updates those that it owns */
    bool unpacks;  /* weights are kept unpacked from step to step */
} p4_work_update;
/* Squares of gradients, the optimizer, codes. Local. */
void p4_work_optimizer(p4_work *w, const p4_work_update *u);

#endif
