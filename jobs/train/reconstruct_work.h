/* reconstruct_work.h - what the parts of reconstruction share: reconstruct.c trains set after set of blocks,
 * reconstruct_step.c makes a step. */
#ifndef P4_RECONSTRUCT_WORK_H
#define P4_RECONSTRUCT_WORK_H

#include "jobs/train/layers.h"
#include "jobs/train/reconstruct.h"

/* A reconstruction at work. */
typedef struct p4_reconstruct_work {
    p4_compute *compute;
    const p4_original *original;
    const p4_reconstruct_plan *plan;
    p4_packed *packed;
    p4_masters *masters;
    p4_reconstruction *record;
    p4_layers layers;  /* its states: the original's, which after a block are what to reconstruct */
    p4_states student; /* inputs of the blocks at work, from the ternary blocks before them */
    p4_block_trainer trainer;
    int64_t B;         /* windows of a micro-batch */
    int64_t sequences; /* windows of a step */
    int64_t per_epoch; /* steps */
    uint32_t **order;  /* [sequences]: the order of the windows of each part, in this epoch */
    int64_t *picked;   /* [sequences], of which `mine` are set: this rank's windows of the step */
    int64_t mine;
    double mean_square; /* of the target */
    double
        *errors;  /* with exact_sums, [micro-batches of all windows]: this rank's, 0 for others'; else NULL */
    int64_t done; /* blocks before this one were trained by a process before */
    int64_t saved;    /* lines of the record that are in a checkpoint */
    double started_s; /* by p4_now_s; before this process began if it continues another's */
    p4_progress progress;
} p4_reconstruct_work;

/* Bytes of a window's states. Local. */
static inline int64_t p4_reconstruct_window_bytes(const p4_reconstruct_work *w)
{
    return w->layers.plan.T * w->original->hf.model.arch.C * w->compute->ops->act_bytes(w->compute->device);
}

/* A step takes one window of each of `sequences` parts of all windows, which follow each other. So ranks,
 * which hold windows that follow each other, have nearly the same number in each step, and what a step takes
 * does not depend on the number of ranks. The first window of a part, and how many there are. Local. */
static inline int64_t p4_reconstruct_part_first(const p4_reconstruct_work *w, int64_t part)
{
    return w->layers.windows->count * part / w->sequences;
}
static inline int64_t p4_reconstruct_part_count(const p4_reconstruct_work *w, int64_t part)
{
    return p4_reconstruct_part_first(w, part + 1) - p4_reconstruct_part_first(w, part);
}

/* Windows `count` from `first` of this rank's to the trainer from window `slot` on: its input and its target.
 * Local. */
void p4_reconstruct_put_windows(p4_reconstruct_work *work, int64_t first, int64_t count, int64_t slot);
/* Step `step` of the blocks from `layer` on, which may not have run when this returns. Collective. */
void p4_reconstruct_step(p4_reconstruct_work *work, int64_t layer, int64_t step);

/* reconstruct_memory.c */
p4_block_plan p4_reconstruct_block_plan(const p4_reconstruct_work *w, int64_t blocks);
/* What is known of the windows before they are embedded. */
p4_layers_plan p4_reconstruct_start(p4_reconstruct_work *w, const p4_windows *windows);
/* How much at once, and where the states lie. CPU: at most 8 windows. GPU: what fills it, as long as a set of
 * blocks takes at most MEMORY_PART of its memory; the states lie there too if they fit beside it. With
 * exact_sums it depends on the step alone. Local. */
p4_rc p4_reconstruct_choose_sizes(p4_reconstruct_work *w, p4_layers_plan *layers, int64_t room_bytes,
                                  p4_block_memory *block);

#endif
