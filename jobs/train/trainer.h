/* trainer.h - one data-parallel training step of the ternary model: every rank runs the whole
 * model on its own sequences with ternary weights; owners hold FP32 masters and optimizer state.
 *
 * zero_stage 2: the gradient of a block matrix is summed to its owner, which updates the master, requantizes
 * and publishes codes. A gradient that waits for its sum takes memory for two layers only, so every
 * micro-batch of a step is summed by itself. zero_stage 1: the same, but each rank adds up the whole gradient
 * over its micro-batches (4 bytes a weight) and there is one sum a step. zero_stage 0: everything is
 * replicated and every gradient is summed to all, once a step.
 *
 * A device repeats the work of a step (ops->repeat): a micro-batch from zeroing gradients to the sum of their
 * squares, Grokfast's filter, the update with its requantization. Between these the host decides whether the
 * gradient is finite and how much it is clipped, for one short wait a step, during which the device is idle;
 * the next tokens are gathered while the device updates. Decided on the device these would be no faster by
 * more than that wait, and differ from what several ranks do, which must sum the figures first. Of several
 * ranks the micro-batch is repeated in pieces, the forward pass and each layer's backward pass: between them
 * are sums over ranks, which have a queue and deadlines of their own.
 *
 * The sums of a layer are one launch, queued when its backward pass is; they run beside the backward pass of
 * the layers before it, where the collectives have a queue of their own. */
#ifndef P4_TRAINER_H
#define P4_TRAINER_H

#include "io/text/training_set.h"
#include "jobs/train/exact_sums.h"
#include "jobs/train/masters.h"
#include "jobs/train/original.h"
#include "jobs/train/quantize.h"
#include "jobs/train/teacher.h"
#include "src/net.h"
#include "src/optim.h"

/* Elements of padding between neighbours in the flat arrays, zero everywhere, are fewer than this. */
enum { P4_FLAT_GAP = 16 };

/* p4_net.sums, then p4_optim.sums. Micro-batches whose work is recorded: a step's first, those between, its
 * last, which alone may be smaller. */
enum { P4_FIGURES = P4_NET_SUMS + 2, P4_RECORDED_MICRO_BATCHES = 3 };
/* What a step reports of its loss: cross-entropy, KL, distances of blocks. */
enum { P4_TRAIN_LOSSES = 3 };

/* How to train: plain numbers, resolved once. A window is a sequence of T tokens. */
typedef struct p4_train_plan {
    int64_t T;
    int64_t sequences;         /* of a step, over all ranks */
    int64_t micro_batch;       /* sequences at once on a rank; 0: the trainer chooses */
    int64_t epochs, max_steps; /* max_steps 0: as many as the epochs hold */
    double lr, lr_final_fraction;
    int64_t warmup; /* steps */
    uint64_t seed;  /* of the order of windows */
    p4_optim_settings optim;
    int zero_stage;
    bool exact_sums; /* the same bits on any number of ranks (trainer_exact.c); on CPUs */
    p4_recompute recompute;
    int activation_bits;
    p4_quantize_plan quantize;
    p4_teacher_plan teacher; /* distillation; weight 0: none */
} p4_train_plan;

/* Rows of one length whose codes and, if this rank holds them, masters follow each other. */
typedef struct p4_code_run {
    p4_weight codes;
    const float *master; /* NULL: not held here */
    const float
        *importance; /* device [cols]: what the quantizer weighs the input channels by; NULL: all alike */
    void *dense;     /* where they are unpacked to; NULL: nowhere */
    float *learned;  /* of the optimizer, in the order of the codes' scales; NULL: the quantizer's count */
} p4_code_run;

/* The ternary weights (trainer_codes.c). */
typedef struct p4_trainer_codes {
    char *memory; /* device: codes and scales, sharded ones grouped by owner */
    char *dense;  /* device: the weights unpacked, in the activations' type; NULL: each is where it is used */
    p4_weight *of;     /* [params_count]: of what is ternary */
    p4_code_run *runs; /* [runs_count] */
    int64_t runs_count;
    float *importance;            /* device: of all slots; NULL: the quantizer weighs nothing */
    const float **importance_of;  /* [params_count]: in there; NULL: none */
    int64_t *order, *block_first; /* ternary parameters by block of codes: those of block b are
                                     order[block_first[b]] up to order[block_first[b + 1]] */
    int64_t
        *owner_first; /* [ranks + 1]: bytes [owner_first[r], owner_first[r+1]) of memory belong to rank r */
    int64_t codes_bytes, dense_bytes, importance_bytes; /* of the three blocks; 0: there is none */
    int64_t bytes;                                      /* together */
} p4_trainer_codes;

/* Gradients that are summed over ranks (trainer_sums.c). */
typedef struct p4_trainer_sums {
    float
        *staging; /* device: gradients on their way to owners, [buffers][layer_count]; layer l: l % buffers */
    int64_t buffers, layer_count;
    int64_t *staged_at; /* [params_count]: of a slot's first part, in its layer's buffer; -1: not staged */
    bool
        *by_layer; /* [params_count]: summed with its layer, by p4_trainer_sums_send, not with what is left */
    int64_t *marks;   /* [buffers]: the sums that read the buffer (coll.h) */
    int64_t *sent;    /* [L]: the sums of the layer */
    int64_t *pending; /* [buffers]: the layer whose sums lie there and are not yet added, -1: none */
    bool *summed;     /* [params_count]: this step's sum of a replicated gradient is queued */
    bool once;        /* micro-batches are added up on the rank before they are summed over ranks */
} p4_trainer_sums;

/* What plan.exact_sums takes (trainer_exact.c). */
typedef struct p4_trainer_exact {
    p4_exact_sums sums;
    float *leaf; /* device [leaf_count]: the micro-batch's gradients of all but the blocks' matrices, placed
                    as in the flat array */
    int64_t leaf_count;
    double *losses;  /* [micro-batches][P4_TRAIN_LOSSES] of this rank; 0 where they are others' */
    double *figures; /* of a step, on their way to all ranks */
} p4_trainer_exact;

/* Gradients that follow each other in the flat array: [first, end), replicated or held by their owner alone.
 */
typedef struct p4_norm_run {
    int64_t first, end;
    bool early; /* summed over ranks before those of the first layer */
} p4_norm_run;

/* Which squares are added at which time (trainer_norms.c). */
typedef struct p4_trainer_norms {
    p4_norm_run *runs; /* [count]: everything held here, by place */
    int64_t count;
} p4_trainer_norms;

/* Optimizer steps. */
typedef struct p4_trainer_steps {
    int64_t per_epoch, total;
} p4_trainer_steps;

/* This rank's part of a step, and how it is cut into micro-batches. */
typedef struct p4_trainer_batch {
    int64_t low, high;    /* its sequences of the step are [low, high); with exact_sums all of them, and every
                             ranks-th micro-batch is this rank's */
    int64_t most;         /* sequences of the rank that has most */
    int64_t size;         /* sequences of a micro-batch, but for the last */
    int64_t count, index; /* micro-batches of a step, the same on every rank; the one at work */
    int64_t B;            /* its sequences */
    int64_t layer;        /* whose backward pass is at work */
    int32_t *h_ids;       /* [size, T] */
} p4_trainer_batch;

/* Work that the device repeats (ops->repeat). */
typedef struct p4_trainer_records {
    p4_recording **pieces; /* [P4_RECORDED_MICRO_BATCHES][pieces]; of one rank alone the first piece is all */
    p4_recording *filter, *update;
} p4_trainer_records;

typedef struct p4_trainer {
    p4_compute *compute;
    const p4_original *original;
    const p4_model *model; /* of original */
    p4_training_set *training_set;
    p4_train_plan plan;
    p4_net net;
    p4_optim optim;
    p4_form
        form; /* what the forward pass uses: codes, or what they unpack to; masters of what is not ternary */
    bool *sharded; /* [params_count]: only the owner holds the master */
    p4_teacher teacher;
    p4_trainer_codes codes;
    p4_trainer_sums sums;
    p4_trainer_norms norms;
    p4_trainer_exact exact;
    p4_trainer_steps steps;
    p4_trainer_batch batch;
    p4_trainer_records records;
    int bad_steps; /* non-finite steps in a row */
    /* Set by the caller before a step, and returned in its result on every rank: rank 0 wants to save; this
     * rank is still writing what was saved before. */
    bool wants_save, is_saving;
    double *figures; /* device [P4_FIGURES]: the sums of net and optim, so that one copy reads them */
} p4_trainer;

typedef struct p4_step_result {
    double loss;           /* cross-entropy */
    double kl;             /* of the teacher to the model at its temperature; NaN: no teacher */
    double block_distance; /* mean cosine distance of block outputs to the teacher's; NaN: not compared */
    double grad_norm, lr, seconds;
    int64_t tokens;
    bool applied; /* false: the gradient was not finite and the step was skipped */
    bool stop;    /* a rank is asked to stop (compute->stop); the same on every rank */
    bool save;    /* rank 0 wants to save; the same on every rank */
    bool saving;  /* a rank is still writing what was saved before; the same on every rank */
} p4_step_result;

/* Masters: the known ones of `masters` (NULL: none), otherwise the original's weights; codes from the
 * masters. *masters is closed before the memory of a step is taken, as the trainer has its values then.
 * compute, original and training_set, which is given its schedule, must outlive the trainer. State by tensor
 * name is read and set through trainer->optim (optim_state.h). The caller closes. P4_E_INPUT: the set holds
 * fewer windows than one step needs. Collective. */
p4_rc p4_trainer_open(p4_trainer *trainer, p4_compute *compute, const p4_original *original,
                      p4_training_set *training_set, const p4_train_plan *plan, p4_masters *masters);
void p4_trainer_close(p4_trainer *trainer); /* Collective. */
/* Whether the first micro-batch of a step overwrites the parameter's gradient in the flat array, so that it
 * need not be zeroed: what GEMMs write there. Everything else is added to. */
bool p4_trainer_overwrites(const p4_trainer *trainer, int64_t param);
/* Runs step `step` (from 0). With one rank the update may still be under way on return. Collective. */
p4_rc p4_trainer_step(p4_trainer *trainer, int64_t step, p4_step_result *result);
/* The current state as it will be stored: codes, scales, halves and error figures, on every rank. Collective.
 */
p4_rc p4_trainer_commit(p4_trainer *trainer, p4_packed *packed);
/* After masters were set from outside: codes of all ranks and the form's weights follow them. Collective. */
p4_rc p4_trainer_requantize(p4_trainer *trainer);

/* What a micro-batch is recorded in: each block's backward pass, what is before them, what is after them. */
static inline int64_t p4_trainer_pieces(const p4_trainer *trainer)
{
    return trainer->model->arch.L + 2;
}

/* The losses among the sums of a network. */
static inline void p4_trainer_losses(const double sums[P4_NET_SUMS], double losses[P4_TRAIN_LOSSES])
{
    losses[0] = sums[P4_SUM_NLL];
    losses[1] = sums[P4_SUM_KL];
    losses[2] = sums[P4_SUM_BLOCK_DISTANCE];
}

/* Bytes of device memory by purpose. */
typedef struct p4_trainer_memory {
    p4_optim_memory optim;
    int64_t codes_bytes;       /* with what they unpack to */
    int64_t activations_bytes; /* of the network */
    int64_t staging_bytes;     /* gradients on their way to owners */
    int64_t teacher_bytes;
    /* Of a plan. */
    int64_t micro_batch;      /* sequences */
    int64_t checkpoint_bytes; /* p4_checkpoint_copy_bytes */
    p4_teacher_memory teacher;
} p4_trainer_memory;
/* Of an open trainer. */
p4_trainer_memory p4_trainer_bytes(const p4_trainer *trainer);
/* trainer_memory.c. The same before anything is opened, of a device that has room_bytes left. The teacher's
 * kind must be decided; `windows` is how many of them training will draw at most. Of compute only its table
 * of ops, its device and the numbers of its group are used. Local. */
p4_rc p4_trainer_plan_bytes(p4_trainer_memory *memory, p4_compute *compute, const p4_original *original,
                            const p4_train_plan *plan, int64_t room_bytes, int64_t windows);
p4_net_plan p4_trainer_net_plan(const p4_trainer *trainer, int64_t micro_batch);
/* trainer->batch.size = the sequences of a micro-batch, on a device that has room_bytes left. Local. */
p4_rc p4_trainer_choose_micro_batch(p4_trainer *trainer, int64_t room_bytes);
/* The host's tables by parameter. Local. */
p4_rc p4_trainer_open_tables(p4_trainer *trainer);
void p4_trainer_close_tables(p4_trainer *trainer);
/* Does this rank hold the master of parameter i? */
bool p4_trainer_holds(const p4_trainer *trainer, int64_t param);

/* trainer_sums.c. Decides which gradients are staged, and where in their layer's buffer. Local. */
p4_rc p4_trainer_sums_layout(p4_trainer *trainer);
/* Bytes of staging memory, and of what exact_sums takes, for steps of that many micro-batches a rank. Local.
 */
int64_t p4_trainer_sums_bytes(const p4_trainer *trainer, int64_t micro_batches);
/* Allocates staging and bookkeeping for trainer->batch.count micro-batches. Local. */
p4_rc p4_trainer_sums_open(p4_trainer *trainer);
/* Tells the collectives where sums will be (p4_coll.share). Collective. */
p4_rc p4_trainer_sums_share(p4_trainer *trainer);
/* Collective. */
void p4_trainer_sums_close(p4_trainer *trainer);
/* The host's tables alone. Local. */
void p4_trainer_sums_free(p4_trainer *trainer);
/* Starts a step: no gradient is summed yet. */
void p4_trainer_sums_start(p4_trainer *trainer);
/* The sink of a micro-batch's backward pass (net.h); t->batch.index says which. */
p4_grad_sink p4_trainer_sink(p4_trainer *trainer);
/* Before a layer's backward pass: its buffer's sums are done before it is written again, and added where they
 * were not written to their place. Local. */
void p4_trainer_sums_clear(p4_trainer *trainer, int64_t layer);
/* After it: the layer's gradients of this micro-batch are complete. Collective. */
void p4_trainer_sums_send(p4_trainer *trainer, int64_t layer);
/* For a rank without sequences in this micro-batch: takes part in the sums, in the order of the backward
 * pass. */
void p4_trainer_sums_idle(p4_trainer *trainer);
/* After the last micro-batch: the sums that are left, and the squares of all (p4_optim.sums); what the
 * device's queue gets next sees all of them. Collective. */
void p4_trainer_sums_finish(p4_trainer *trainer);
/* trainer_norms.c, when the optimizer and the layout of sums are there. Local. */
p4_rc p4_trainer_norms_open(p4_trainer *trainer);
void p4_trainer_norms_close(p4_trainer *trainer);
/* Adds the squares of the gradients that are summed early, or of the others, to p4_optim.sums. */
void p4_trainer_norms_add(p4_trainer *trainer, bool early);

/* trainer_exact.c, for plan.exact_sums; bytes, open and close do nothing without it. Micro-batches of a step,
 * over all ranks. Local. */
int64_t p4_trainer_exact_micro_batches(const p4_trainer *trainer);
int64_t p4_trainer_exact_bytes(const p4_trainer *trainer); /* Of device memory. Local. */
p4_rc p4_trainer_exact_open(p4_trainer *trainer);          /* Local. */
void p4_trainer_exact_close(p4_trainer *trainer);          /* Local. */
/* Zeroes the sums of a step; the leaves of a micro-batch. Local. */
void p4_trainer_exact_start(p4_trainer *trainer);
void p4_trainer_exact_start_micro_batch(p4_trainer *trainer);
/* Adds the leaves of a parameter of a block, which are complete; ranks without a micro-batch take part.
 * Collective. */
void p4_trainer_exact_add(p4_trainer *trainer, int64_t param, const float *leaf);
/* Adds all other leaves and keeps the losses. Collective. */
void p4_trainer_exact_end_micro_batch(p4_trainer *trainer);
void p4_trainer_exact_finish(p4_trainer *trainer); /* After the last micro-batch. Collective. */
/* The squares of all gradients, the losses of the step's micro-batches, and how many ranks gave each flag.
 * Collective. */
void p4_trainer_exact_figures(p4_trainer *trainer, double *squares, double losses[P4_TRAIN_LOSSES],
                              double flags[3]);

/* trainer_codes.c: places codes, once sharded and the optimizer are there, and points the form to them.
 * Local. */
p4_rc p4_trainer_codes_open(p4_trainer *trainer);
/* The host's tables and codes.bytes alone; p4_trainer_codes_close frees. Local. */
p4_rc p4_trainer_codes_lay_out(p4_trainer *trainer);
void p4_trainer_codes_close(p4_trainer *trainer);
/* Requantizes what this rank holds, with the learned scales where there are some; h_errors [params_count]:
 * the figures, or NULL. Local. */
void p4_trainer_quantize(p4_trainer *trainer, p4_quant_error *h_errors);
/* The same of one run. Local. */
void p4_trainer_quantize_run(p4_trainer *trainer, const p4_code_run *run, p4_quant_error *h_error);
/* Do ranks have codes that others need? The same on every rank. Local. */
bool p4_trainer_publishes(const p4_trainer *trainer);
/* Gives every rank the owners' codes. Collective. */
void p4_trainer_publish_codes(p4_trainer *trainer);
/* The form's weights from all codes. Local. */
void p4_trainer_unpack(p4_trainer *trainer);

/* trainer_scales.c, for plan.optim.learn_scales; both do nothing without it. The learned scales become those
 * that the quantizer finds for the masters. Local. */
p4_rc p4_trainer_start_scales(p4_trainer *trainer);
/* The optimizer's gradients of the scales, from the gradients of all masters, which are complete, and the
 * codes that they were computed with. Local. */
void p4_trainer_scale_gradients(p4_trainer *trainer);

#endif
