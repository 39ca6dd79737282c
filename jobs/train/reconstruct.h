/* reconstruct.h - block reconstruction (docs/methods.md): block after block, the masters of the ternary model
 * are trained until the block's output is that of the original's block, on the outputs of the ternary blocks
 * before it. One block, or a few, and the hidden states of the windows are all that is in memory. */
#ifndef P4_RECONSTRUCT_H
#define P4_RECONSTRUCT_H

#include "io/text/dataset.h"
#include "jobs/train/block_trainer.h"
#include "src/phase4/results.h"

typedef struct p4_reconstruct_plan {
    int64_t blocks;     /* trained together: 1 to 4 */
    int64_t sequences;  /* windows of a step, over all ranks; fewer where there are not so many */
    int64_t steps;      /* of each set of blocks */
    int64_t look_every; /* steps between two looks at what came of them, up to P4_BLOCK_STEPS_AHEAD; 0: what
                           suits the device */
    double lr;
    int64_t warmup;  /* steps; from there the rate falls linearly to 0 */
    uint64_t seed;   /* of the order of windows */
    bool exact_sums; /* the same bits on any number of ranks (exact_sums.h); on CPUs */
    p4_recompute recompute;
    int activation_bits;
    p4_optim_settings optim;
    p4_quantize_plan quantize;
    bool codes_only; /* of ternary tensors the codes in `packed` are all that is kept, no masters */
    /* Sees each set of blocks when it is done, on rank 0. NULL: not called. */
    p4_rc (*on_blocks)(void *user, const p4_block_loss *loss);
    /* Saves the record, `packed` and the masters, from which another process continues. Rank 0 is asked with
     * is_save_due after each set of blocks; one that is stopped saves the sets that are done. NULL, both:
     * nothing is saved. `save` is Collective. stops: the run ends after it. */
    bool (*is_save_due)(void *user);
    p4_rc (*save)(void *user, bool stops);
    void *user;
} p4_reconstruct_plan;

/* Steps that train well on so many windows of T tokens: 20 passes, but no more than 2^24 tokens, and at least
 * one pass. Local. */
int64_t p4_reconstruct_steps(int64_t windows, int64_t T, int64_t sequences);

/* What it takes on this rank, bytes. */
typedef struct p4_reconstruct_memory {
    p4_block_memory block; /* device: the blocks at work */
    int64_t pass_bytes;    /* device: the original's block and its forward pass */
    int64_t states_bytes;  /* of both models, in the host's memory (states_on_host) or the device's */
    bool states_on_host;
    int64_t B;      /* windows of a micro-batch in training */
    int64_t pass_B; /* and in the passes that make the states: it divides the windows among the ranks */
} p4_reconstruct_memory;
/* Before anything is opened, on a device that has room_bytes left. windows: their number and length count,
 * not their ids. Local. */
p4_rc p4_reconstruct_plan_bytes(p4_reconstruct_memory *memory, p4_compute *compute,
                                const p4_original *original, const p4_windows *windows,
                                const p4_reconstruct_plan *plan, int64_t room_bytes);

/* Trains every block on the windows, which are the same on every rank, and replaces its codes, norms and
 * biases in `packed`. masters: what to start from where it is known, and what was trained on return; NULL:
 * from the original's weights, and nothing is kept. *record, the same on every rank, gets a line for each set
 * of blocks; the caller frees it with the results. One that has lines already is of a process before: those
 * sets are done, in `packed` and masters, and are not trained again. P4_E_INPUT: a gradient that does not
 * become finite, a scale that fp16 does not hold. P4_STOPPED: a rank was asked to stop (compute->stop), and
 * what is done is saved. Collective. */
p4_rc p4_reconstruct(p4_compute *compute, const p4_original *original, const p4_windows *windows,
                     const p4_reconstruct_plan *plan, p4_packed *packed, p4_masters *masters,
                     p4_reconstruction *record);

#endif
