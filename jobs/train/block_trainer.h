/* block_trainer.h - a few blocks of the model, ternary, trained to given outputs by straight-through
 * estimation: masters in fp32, AdamW, codes by the rule of the quantizer after every step. Every rank of a
 * group holds the same blocks and computes its own windows; gradients are summed over ranks, beside the
 * backward pass where the device can. Each ternary tensor is updated and quantized by one rank, which sends
 * its codes to the others; all else is updated by every rank (block_trainer_ranks.c). The memory is taken for
 * one set of blocks and reused for others of the same form. */
#ifndef P4_BLOCK_TRAINER_H
#define P4_BLOCK_TRAINER_H

#include "jobs/train/exact_sums.h"
#include "jobs/train/masters.h"
#include "jobs/train/original.h"
#include "jobs/train/quantize.h"
#include "src/net.h"
#include "src/optim.h"

/* Steps that the host may queue before it looks at what came of them. */
enum { P4_BLOCK_STEPS_AHEAD = 16 };

typedef struct p4_block_plan {
    int64_t blocks;    /* trained together */
    int64_t B, T;      /* most windows at once, tokens of a window */
    int64_t sequences; /* windows of a step, over all ranks */
    bool exact_sums;   /* micro-batches of B windows, which the ranks take in turn (exact_sums.h) */
    bool host_inputs;  /* what is filled in comes from host memory: the copies may wait for the device */
    p4_recompute recompute;
    int activation_bits;
    p4_optim_settings optim;
    p4_quantize_plan quantize;
} p4_block_plan;

/* What the ranks divide among themselves, and how far the sums of a step have come. */
typedef struct p4_block_ranks {
    int *owner; /* [params_count] of the part: the rank that updates a ternary entry; -1: not ternary */
    int64_t *owner_first; /* [ranks + 1]: where the codes of each owner begin, bytes from `memory` on */
    int64_t *slots;       /* [slots_count]: first entries, in the order in which their gradients are summed */
    int64_t slots_count;
    bool *complete;  /* [params_count], of first entries: the backward pass is done with its gradient */
    int64_t sent;    /* slots whose sums are called */
    bool squared;    /* their squares are added up on the way */
    int64_t vectors; /* elements [0, vectors) of the gradients: what backward passes only add to */
    int64_t published, published_before; /* marks of the codes that are sent, of this step and the last */
} p4_block_ranks;

/* Rows of one length and one owner whose codes, scales, masters and unpacked weights follow each other. */
typedef struct p4_block_run {
    int owner;
    p4_weight codes;
    const float *master, *importance;
    char *dense;
} p4_block_run;

typedef struct p4_block_trainer {
    p4_compute *compute;
    const p4_original *original;
    p4_block_plan plan;
    int64_t layer; /* the first of the blocks at work */
    p4_model part; /* these blocks */
    p4_net net;
    p4_optim optim;
    p4_form
        form; /* what the forward pass uses: codes or what they unpack to; masters of what is not ternary */
    void *memory;     /* device: what follows */
    p4_weight *codes; /* [params_count] of the part: where ternary codes lie */
    char **dense; /* [params_count]: unpacked, in the activations' type; NULL: integer products take codes */
    float **importance; /* [params_count]: what the quantizer weighs input channels by; NULL: all alike */
    p4_block_run *runs; /* [runs_count] */
    int64_t runs_count;
    void *target;                     /* [B, T, C]: to be filled in */
    p4_clip_figures *figures;         /* [ranks] */
    p4_clip_figures *own;             /* of this rank */
    p4_clip_result *result, *results; /* of the step at work; [P4_BLOCK_STEPS_AHEAD]: since the last look */
    int64_t memory_bytes;
    p4_block_ranks ranks;
    /* [2][2][B + 1]: a micro-batch of so many windows, with sums beside it or not, the first of a step or
     * another. */
    p4_recording **steps;
    p4_recording *update, *unpack_own, *unpack_others;
    int64_t windows;             /* of the micro-batch at work */
    int64_t round, rounds_count; /* its number in the step, and of how many on this rank */
    int64_t queued;              /* steps that have ended since the last look */
    double mean_square;          /* of their targets */
    int bad_steps;               /* non-finite ones in a row */
    /* Of exact_sums. */
    p4_exact_sums sums;
    float *leaf;    /* device: the micro-batch's gradients, as the optimizer has them */
    double *errors; /* [micro-batches of a step]: this rank's; 0 where they are others' */
    double totals[P4_BLOCK_STEPS_AHEAD]; /* of the steps since the last look */
} p4_block_trainer;

/* The entries of the part that lie in blocks, and the parameter of the whole model that one is. Local. */
static inline int64_t p4_block_first_entry(const p4_block_trainer *t)
{
    return t->part.layer_first[0];
}
static inline int64_t p4_block_end_entry(const p4_block_trainer *t)
{
    return t->part.layer_first[t->part.arch.L];
}
static inline int64_t p4_block_entry_of(const p4_block_trainer *t, int64_t i)
{
    return p4_model_part_entry(&t->part, &t->original->hf.model, t->layer, i);
}

/* Device memory that p4_block_trainer_open takes for blocks from `layer` on. Local. */
typedef struct p4_block_memory {
    p4_optim_memory optim;
    int64_t codes_bytes, activations_bytes; /* codes, with what they unpack to and the target */
    int64_t staging_bytes;                  /* of exact_sums */
} p4_block_memory;
p4_rc p4_block_trainer_bytes(p4_block_memory *memory, p4_compute *compute, const p4_original *original,
                             int64_t layer, const p4_block_plan *plan);
static inline int64_t p4_block_memory_sum(const p4_block_memory *m)
{
    return p4_optim_memory_sum(&m->optim) + m->codes_bytes + m->activations_bytes + m->staging_bytes;
}
/* For blocks [layer, layer + plan->blocks) and others of their form. compute and original must outlive it.
 * The caller closes. Collective. */
p4_rc p4_block_trainer_open(p4_block_trainer *trainer, p4_compute *compute, const p4_original *original,
                            int64_t layer, const p4_block_plan *plan);
void p4_block_trainer_close(p4_block_trainer *trainer); /* Also of zeros. Collective. */
/* Have the blocks from `layer` on the form that it was opened for: which of their tensors are ternary, what
 * their attention computes? Local. */
bool p4_block_trainer_suits(const p4_block_trainer *trainer, int64_t layer, int64_t blocks);

/* Starts with the blocks from `layer` on, their masters the known ones or the original's. Collective. */
p4_rc p4_block_trainer_start(p4_block_trainer *trainer, int64_t layer, const p4_masters *masters);

/* The blocks from `layer` on as p4_block_trainer_commit has left them: codes from `packed`, everything else
 * from masters. For forward passes; training requires p4_block_trainer_start. P4_E_INPUT: a value is not
 * there. Collective. */
p4_rc p4_block_trainer_take(p4_block_trainer *trainer, int64_t layer, const p4_packed *packed,
                            const p4_masters *masters);

/* A step: begin; for each of the rank's `rounds` micro-batches, which may be none, fill
 * p4_net_blocks_input(&trainer->net) and trainer->target with `windows` windows and call add; sum; end. The
 * last add sums over the ranks what is complete, `sum` starts the rest. After `sum`, input and target may be
 * filled for the next step, from device memory. With exact_sums every rank calls add for every round of the
 * step's micro-batches, with 0 windows where it has none. Collective. */
void p4_block_trainer_begin(p4_block_trainer *trainer, int64_t rounds);
void p4_block_trainer_add(p4_block_trainer *trainer, int64_t windows);
void p4_block_trainer_sum(p4_block_trainer *trainer);
/* The update, of gradients divided by mean_square, the mean of the squared targets. It may not have run yet
 * when this returns. At most P4_BLOCK_STEPS_AHEAD steps may end before they are looked at. Collective. */
void p4_block_trainer_end(p4_block_trainer *trainer, float lr, double mean_square);
/* Waits for the steps that have ended. *error: the mean squared error of the last one's windows, divided by
 * mean_square. P4_E_INPUT: the gradient was not finite for several steps in a row. The same on every rank if
 * all call it after the same step. Local. */
p4_rc p4_block_trainer_look(p4_block_trainer *trainer, double *error);

/* Forward pass of `windows` windows in the input, which adds to own->error. Local. */
void p4_block_trainer_measure(p4_block_trainer *trainer, int64_t windows);
/* *sum = own->error since the call before; waits for the device. Local. */
p4_rc p4_block_trainer_take_error(p4_block_trainer *trainer, double *sum);
/* What was trained, to `packed` on every rank, and, unless it is NULL, to masters; codes_only: not what is
 * ternary. P4_E_INPUT: a scale that fp16 does not hold. Collective. */
p4_rc p4_block_trainer_commit(p4_block_trainer *trainer, p4_packed *packed, p4_masters *masters,
                              bool codes_only);

/* --- codes: block_trainer_codes.c --------------------------------------------------------------- */

/* Places codes, what they unpack to and what they are weighed by. Local. */
void p4_block_codes_lay_out(p4_block_trainer *trainer, p4_arena *arena);
/* When all of it has its memory, and masters theirs. Local. */
void p4_block_codes_find_runs(p4_block_trainer *trainer);
/* Codes from the masters: of all entries, and what they unpack to; h_errors [params_count] of the part: the
 * figures, or NULL. Local. */
void p4_block_trainer_quantize(p4_block_trainer *trainer, p4_quant_error *h_errors);
/* Of the entries that this rank owns; nothing is unpacked. Local. */
void p4_block_trainer_quantize_own(p4_block_trainer *trainer);
/* What codes unpack to: all of them; those that this rank owns, or the others. Local. */
void p4_block_trainer_unpack(p4_block_trainer *trainer);
void p4_block_trainer_unpack_owned(p4_block_trainer *trainer, bool own);

/* --- between ranks: block_trainer_ranks.c ------------------------------------------------------- */

/* Owners, slots, and room for what a step notes, when the part is known. Local. */
p4_rc p4_block_ranks_open(p4_block_trainer *trainer);
/* When the optimizer is laid out: what is summed when. Local. */
void p4_block_ranks_order(p4_block_trainer *trainer);
void p4_block_ranks_close(p4_block_trainer *trainer);
/* The host waits for the codes of the last step: call it before any wait for the device. Local. */
void p4_block_ranks_settle(p4_block_trainer *trainer);
/* Before the host queues a step: it waits for the codes of the last one, or of the one before that if
 * queueing waits for nothing. Local. */
void p4_block_ranks_keep_up(p4_block_trainer *trainer);
/* The host waits for all sums and codes. Local. */
void p4_block_ranks_drain(p4_block_trainer *trainer);
/* A step's gradients, of this rank, begin. Local. */
void p4_block_ranks_begin(p4_block_trainer *trainer);
/* Of the rank's last micro-batch: the gradient of a slot is complete. Sums what may be summed, in the same
 * order on every rank. Collective. */
void p4_block_ranks_ready(void *trainer, int64_t first);
/* Starts to sum what is not summed yet, and to gather the figures of all ranks, with the squares of each
 * one's share of the slots. Collective. */
void p4_block_ranks_sum(p4_block_trainer *trainer);
/* Behind it the device has them; to the optimizer's sums[0] the squares of what is not in a slot, which is
 * the same on every rank. Local. */
void p4_block_ranks_join(p4_block_trainer *trainer);
/* The codes of every owner to all. What follows on the device may read its own; the others' when it has
 * joined ranks.published. Collective. */
void p4_block_ranks_publish(p4_block_trainer *trainer);
/* The masters of every owner to all: in training only owners' are up to date. Collective. */
void p4_block_ranks_share_masters(p4_block_trainer *trainer);

#endif
