/* net.h - the transformer: forward and backward of one generic block, embedding, head and loss,
 * through ops only.
 *
 * Weights come as a p4_form, so the same code runs the original, the ternary replica and the dequantised
 * model. Shapes: N = B*T tokens; hidden states [N, C] in the device's activation type. Matrices of a slot
 * (q|k|v, gate|up) run as one. */
#ifndef P4_NET_H
#define P4_NET_H

#include "kernels/ops.h"
#include "src/leaf/arena.h"
#include "src/model.h"

/* One form of a model's weights in device memory: matrices and embeddings as weight views, vectors (norm
 * gains, biases) as fp32, the parts of a slot's bias one after another. The maker of the form owns the
 * memory.
 */
typedef struct p4_form {
    p4_weight *weights; /* [params_count] */
    float **vectors;    /* [params_count], NULL for matrices */
} p4_form;

/* Receives gradients. grad returns the fp32 buffer of a parameter, or of a whole slot [slot rows, cols] when
 * the parameter is the slot's first part; NULL: the gradient is not wanted. *accumulate: whether to add to
 * the buffer (vectors and embeddings are always added). ready, unless NULL, is called when the gradient of
 * this slot is complete for this micro-batch. */
typedef struct p4_grad_sink {
    float *(*grad)(void *user, int64_t param, bool *accumulate);
    void (*ready)(void *user, int64_t param);
    void *user;
} p4_grad_sink;

/* Gets the input and output of every slot in a forward pass (calibration). x [N, in], y [N, out] in
 * activation type. */
typedef struct p4_probe {
    void (*slot)(void *user, int64_t param, const void *x, int64_t in, const void *y, int64_t out, int64_t N);
    void *user;
} p4_probe;

/* Keys and values of the tokens before those of a pass, of every layer (src/decode/cache.h). */
typedef struct p4_net_cache {
    p4_dtype type;          /* P4_F16 or P4_F32 */
    int64_t past, capacity; /* tokens that it holds, and can hold; the passes' caller counts */
    void **keys, **values;  /* [L]: [Hkv, capacity, D] each, on the device */
} p4_net_cache;

/* What all blocks of a pass over one micro-batch share. */
typedef struct p4_net_pass {
    const p4_form *form;
    int64_t B, T;
    const p4_probe *probe; /* forward: NULL for none */
    const p4_net_cache
        *cache;               /* forward of B 1 under a plan with `cached`: the T tokens follow those in it */
    void *const *outputs;     /* [L], p4_net_layers: where the output of each block but the last goes, act
                                 [N, C]; NULL: nowhere */
    const p4_grad_sink *sink; /* backward */
} p4_net_pass;

/* What training compares the model with (docs/methods.md 3): a teacher's distribution at every prediction. */
typedef struct p4_net_teacher {
    float weight, temperature; /* the loss is (1 - weight) cross-entropy + weight temperature^2 KL */
    /* Device memory that holds the same micro-batch as the network when its loss is computed. */
    const void *states;     /* act [N, C]: the normed final states; NULL: top */
    const void *head;       /* act [p4_net_logits_ld, C]; rows from V on are zero */
    const float *head_bias; /* [p4_net_logits_ld], zero from V on; NULL: none */
    p4_top_rows top;        /* of all N tokens */
    /* The loss gains blocks_scale times the sum, over blocks and tokens, of the cosine distance of the
     * block's output to the teacher's; no other factor counts. */
    float blocks_scale;
    void *const *blocks; /* [L]: act [N, C] each, on the device; NULL: blocks are not compared */
} p4_net_teacher;

typedef struct p4_net_plan {
    int64_t B, T; /* largest micro-batch */
    bool train;   /* memory for a backward pass */
    /* LIGHT: the outputs of norms and h are not kept; BLOCKS: only each block's input is. */
    p4_recompute recompute;
    int activation_bits; /* 8: inputs of ternary projections rounded per token. In training without
                          * recomputation a form must be ternary where the model is marked so */
    bool head;      /* memory for the head's weight and logits: the last stage of a pipeline, and training */
    bool reference; /* memory to compare with a second form, or in training with a teacher's states */
    bool blocks;    /* training compares the output of every block with the teacher's */
    /* Passes have a cache, and weights are multiplied as they are stored where there are few tokens. Not with
     * `train`. */
    bool cached;
    int64_t positions; /* of the longest sequence, with `cached`; 0: T */
} p4_net_plan;

/* What is summed over predictions; SAME needs both forms' logits, and is for evaluation alone. BLOCKS: the
 * distances of p4_net_teacher.blocks, over blocks and tokens. */
typedef enum p4_net_sum {
    P4_SUM_NLL,
    P4_SUM_HITS,
    P4_SUM_KL,
    P4_SUM_SAME,
    P4_SUM_BLOCK_DISTANCE,
    P4_NET_SUMS
} p4_net_sum;

typedef struct p4_net_trace p4_net_trace;

/* Of a sequence of plan.T positions, or plan.positions: [T, R/2]. */
typedef struct p4_rope_table {
    float *cos, *sin;
} p4_rope_table;

typedef struct p4_net {
    const p4_ops *ops;
    p4_device *device;
    const p4_model *model;
    p4_net_plan plan;
    void *memory;
    int64_t memory_bytes;
    void **buffers;      /* net_buffers.h: those of each block in training, else of one that serves all */
    p4_net_trace *trace; /* while the memory is planned: steps are noted, ops not called */
    int64_t chunk;       /* rows of logits at a time */
    int64_t logits_ld;   /* elements of a row of logits (p4_net_logits_ld) */
    p4_rope_table rope, windowed_rope;           /* the second with local_rope */
    p4_rope_table rope_here, windowed_rope_here; /* their rows of a pass with a cache */
    int64_t *past;                               /* device: the tokens before it */
    int32_t *ids, *targets;                      /* targets lie behind the ids of the current micro-batch */
    const void *final_n; /* act [N, C]: what p4_net_final_norm leaves for the model under test */
    double *sums; /* device [P4_NET_SUMS], since p4_net_take_score; a trainer may place them elsewhere */
    int64_t unpredicted;           /* tokens of the micro-batch at hand, beside the first of each window */
    double predictions;            /* that these sums are over; replayed work (op `repeat`) is not counted */
    int32_t *h_tokens;             /* host [2 * N] */
    int32_t *h_first;              /* host [experts + 1]: where the rows of each expert begin */
    const p4_net_teacher *teacher; /* of training; NULL: none. Set by its owner, who keeps it */
} p4_net;

/* Sums over predictions, in double. */
typedef struct p4_score {
    double nll, hits, kl;
    double same;   /* predictions that both forms rank first alike */
    double blocks; /* distances, of blocks times tokens */
    double count;  /* of predictions */
} p4_score;

/* Fails when the device does not compute the model's attention. p4_net_open checks this too; call it first to
 * find out before a long load. Local. */
p4_rc p4_net_check_device(const p4_ops *ops, p4_device *device, const p4_model *model);
/* The bytes of device memory that p4_net_open takes for the plan. Local. */
int64_t p4_net_bytes(const p4_ops *ops, p4_device *device, const p4_model *model, const p4_net_plan *plan);
/* Allocates all memory that the plan needs as one block of the device. The caller closes. Local. */
p4_rc p4_net_open(p4_net *net, const p4_ops *ops, p4_device *device, const p4_model *model,
                  const p4_net_plan *plan);
void p4_net_close(p4_net *net);

/* Copies h_ids [B, T] to the device, and the targets: the next token, -1 at each window's end, and where the
 * next token comes before h_first[B] of the window (NULL: all are predicted). Does not wait for the device.
 * Local. */
void p4_net_set_windows(p4_net *net, const int32_t *h_ids, const int64_t *h_first, int64_t B, int64_t T);
/* The same where all tokens but the first of each window are predicted. Local. */
void p4_net_set_tokens(p4_net *net, const int32_t *h_ids, int64_t B, int64_t T);

/* x [N, C] = embedding of the tokens set. */
void p4_net_embed(p4_net *net, const p4_form *form, void *x, int64_t B, int64_t T);
/* The same of one sequence's tokens at positions [past, past + T), which the next p4_net_layers computes
 * behind a cache of `past` tokens. What that call queues is then the same for every `past`, and can be
 * repeated (op `repeat`) unless the model has experts. */
void p4_net_embed_after(p4_net *net, const p4_form *form, void *x, int64_t past, int64_t T);
/* Runs blocks [first, end) on x [N, C] in place, or with pass->outputs from x to x. Requires a plan without
 * `train`. */
void p4_net_layers(p4_net *net, const p4_net_pass *pass, int64_t first, int64_t end, void *x);
/* Final norm of x, into the buffer of the model under test or of the reference. */
void p4_net_final_norm(p4_net *net, const p4_form *form, const void *x, bool reference, int64_t N);
/* Head (required in the plan), cross-entropy and accuracy of the normed states of B windows of T tokens; with
 * `reference` also KL(reference || form), and whether both forms rank the same token first. The sums stay on
 * the device. */
void p4_net_score(p4_net *net, const p4_form *form, const p4_form *reference, int64_t B, int64_t T);
/* Adds what p4_net_score and p4_net_train have summed since the last call to *score. Waits for the device and
 * returns its failure, if any. Local. */
p4_rc p4_net_take_score(p4_net *net, p4_score *score);
/* h_nll [B, T]: the losses of the micro-batch that p4_net_score was last called for, 0 where a token is not
 * predicted; its sums are not touched. To be called before anything else is computed. Waits for the device.
 */
void p4_net_losses(p4_net *net, float *h_nll, int64_t B, int64_t T);
/* h_logits [N, V] of the normed states of p4_net_final_norm. */
p4_rc p4_net_logits(p4_net *net, const p4_form *form, float *h_logits, int64_t N);

/* Forward and backward of the tokens set; gradients of loss_scale * sum(nll) go to the sink, with a teacher
 * those of loss_scale * the sum of the loss that p4_net_teacher states. Nll, hits and, with a teacher, KL and
 * distances of blocks are summed on the device (p4_net_take_score): nothing waits between micro-batches.
 * Requires `train` in the plan, `reference` for a teacher's states, and `blocks` if and only if it has those.
 */
void p4_net_train(p4_net *net, const p4_form *form, int64_t B, int64_t T, float loss_scale,
                  const p4_grad_sink *sink);
/* The same in pieces: forward to the loss and back to the last block's output; then the backward pass of each
 * block, from the last to the first, after which its gradients are complete, as is that of the bias of `down`
 * of the block before; then the embedding. */
void p4_net_train_forward(p4_net *net, const p4_form *form, int64_t B, int64_t T, float loss_scale,
                          const p4_grad_sink *sink);
void p4_net_train_block(p4_net *net, const p4_form *form, int64_t layer, int64_t B, int64_t T,
                        const p4_grad_sink *sink);
void p4_net_train_embedding(p4_net *net, int64_t B, int64_t T, const p4_grad_sink *sink);

/* Where the rows of each expert begin, [experts + 1], in the pass over the block `layer` that has just been
 * queued or is under way (from a sink or a probe). Waits for the device; owned by net, until the next call.
 * Requires a model with experts. */
const int32_t *p4_net_expert_rows(p4_net *net, int64_t layer);
/* Is token n of that pass routed to this expert? Waits for the device. */
bool p4_net_is_routed(p4_net *net, int64_t layer, int64_t n, int64_t expert);

/* Blocks alone, where a model's part is trained to outputs that are given (jobs/train/block_trainer.h). All
 * require `train` in the plan, not `head`. The input of the first block, [B * T, C], to be filled in. */
void *p4_net_blocks_input(p4_net *net);
/* All blocks of the model on that input. */
void p4_net_blocks_forward(p4_net *net, const p4_form *form, int64_t B, int64_t T);
/* After it: x [B * T, C] = the output of the last block. */
void p4_net_blocks_output(p4_net *net, void *x, int64_t B, int64_t T);
/* After it: *sum (device) += the squared error of the output against target [B * T, C]. Unless sink is NULL,
 * the gradient of scale / 2 times that sum is ready for p4_net_train_block of the last block, and the
 * gradient of its last bias has gone to the sink. */
void p4_net_blocks_error(p4_net *net, int64_t B, int64_t T, const void *target, float scale, double *sum,
                         const p4_grad_sink *sink);

/* Elements of a row of logits: V, on a GPU rounded up to whole 128-byte lines. */
int64_t p4_net_logits_ld(const p4_ops *ops, int64_t V);
/* What losses do to the logits of a product with the head. */
static inline p4_logit_map p4_logit_map_of(const p4_arch *arch)
{
    return (p4_logit_map){.scale = arch->logit_scale, .cap = arch->logit_cap};
}
/* Adds the scores of the micro-batch at hand to the sums. */
void p4_net_add_scores(p4_net *net, int64_t B, int64_t T, p4_net_sum last);
p4_attention_shape p4_net_attention(const p4_net *net, int64_t layer, int64_t B, int64_t T);
/* Positions of the rotary tables. */
static inline int64_t p4_net_positions(const p4_net *net)
{
    return net->plan.positions > 0 ? net->plan.positions : net->plan.T;
}
int64_t p4_net_head_param(const p4_net *net); /* head, or the embedding when tied */
/* Output channels of the slot that starts at `first`, all parts together: rows of matrices, elements of a
 * bias. */
int64_t p4_slot_rows(const p4_model *model, int64_t first);

#endif
