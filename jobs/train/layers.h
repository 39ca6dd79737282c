/* layers.h - the layer-major pass: one block after another, each over all windows. (jobs/train/pipeline.h is
 * the other order: one micro-batch after another through all blocks.)
 *
 * The ranks share the windows. A rank keeps the inputs of the block at work for its own windows, and has the
 * weights of that block only, which it reads from the original's files: so a model larger than memory passes,
 * and what needs a block's inputs (second moments, reconstruction) sees them all before the next block. */
#ifndef P4_LAYERS_H
#define P4_LAYERS_H

#include "io/text/dataset.h"
#include "jobs/train/original.h"
#include "jobs/train/states.h"
#include "src/net.h"

typedef struct p4_layers_plan {
    int64_t B, T; /* windows in a micro-batch, tokens in a window */
    int activation_bits;
    bool states_on_host; /* keep the inputs in host memory; else in the device's (on CPUs that is the same) */
    bool quiet;          /* without a progress line of its own */
} p4_layers_plan;

typedef struct p4_layers {
    p4_compute *compute;
    const p4_original *original;
    const p4_windows *windows;
    p4_layers_plan plan;
    int64_t low, high;     /* this rank's windows: whole micro-batches, the same for any number of ranks */
    int64_t micro_batches; /* of them; ranks may have different numbers, or none */
    p4_net net;            /* room for one block on one micro-batch */
    void *x;               /* device: [B, T, C], the micro-batch at work */
    p4_states states;      /* [high - low] windows: the inputs of the block at work */
} p4_layers;

/* Sees one block, after those before it: layers->states are its inputs, `block` is a form that holds the
 * original's weights of this block alone. It replaces the states by the block's outputs (p4_layers_advance).
 * An error is the same on every rank. Collective. */
typedef p4_rc (*p4_block_visitor)(void *user, p4_layers *layers, int64_t layer, const p4_form *block);

/* Embeds this rank's windows. compute, original and windows (the same on every rank) must outlive it. The
 * caller closes. Collective. */
p4_rc p4_layers_open(p4_layers *layers, p4_compute *compute, const p4_original *original,
                     const p4_windows *windows, const p4_layers_plan *plan);
/* The first of a rank's windows, in whole micro-batches of B; of rank + 1: behind its last. Local. */
static inline int64_t p4_layers_first(int64_t windows, int64_t B, int64_t rank, int64_t ranks)
{
    int64_t micro_batches = p4_ceil_div(windows, B); /* of all ranks */
    return p4_min_i64(windows, micro_batches * rank / ranks * B);
}
/* Bytes on this rank of a pass over `windows` windows: everything but the states, and the states. Local. */
typedef struct p4_layers_memory {
    int64_t work, states;
} p4_layers_memory;
p4_rc p4_layers_bytes(p4_layers_memory *memory, const p4_compute *compute, const p4_original *original,
                      int64_t windows, const p4_layers_plan *plan);
void p4_layers_close(p4_layers *layers); /* Also of zeros. Local. */
/* Every block in order. Collective. */
p4_rc p4_layers_run(p4_layers *layers, p4_block_visitor visit, void *user);

/* states = this rank's windows embedded with these weights (host views [params_count], of which the
 * embeddings are read): those of another form of the model. Local. */
p4_rc p4_layers_embed(p4_layers *layers, const p4_weight *weights, p4_states *states);

/* For visitors. Runs the block with a form's weights over all of this rank's states, which become its
 * outputs; probe (NULL: none) sees every slot. Local. */
p4_rc p4_layers_advance(p4_layers *layers, int64_t layer, const p4_form *form, const p4_probe *probe);
/* Shows the slots to the probe and leaves the states as they are. Local. */
p4_rc p4_layers_observe(p4_layers *layers, int64_t layer, const p4_form *form, const p4_probe *probe);
/* Windows of micro-batch m. Local. */
int64_t p4_layers_batch(const p4_layers *layers, int64_t m);
/* x [p4_layers_batch(m), T, C] = the states of micro-batch m, in device memory; and back. Local. */
void p4_layers_read(p4_layers *layers, int64_t m, void *x);
void p4_layers_write(p4_layers *layers, int64_t m, const void *x);

#endif
