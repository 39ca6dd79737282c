/* net_block.h - what the files of the network share: a block at work, and the steps that several need. */
#ifndef P4_NET_BLOCK_H
#define P4_NET_BLOCK_H

#include "src/net_buffers.h"

/* One block in a pass. */
typedef struct p4_block {
    p4_net *net;
    const p4_net_pass *pass;
    const p4_arch *arch;
    int64_t N;     /* tokens */
    int64_t at;    /* whose buffers */
    int64_t layer; /* whose parameters */
} p4_block;

p4_block p4_net_block_at(p4_net *net, const p4_net_pass *pass, int64_t at);
/* The sum that a block's last addend, DELTA, is to be added to. */
static inline p4_net_buffer p4_net_stream(const p4_arch *arch)
{
    return arch->parallel ? P4_BUFFER_X1 : P4_BUFFER_X2;
}

/* The gain of the norm before QKV or UP. */
static inline p4_role p4_net_norm_before(const p4_arch *arch, p4_role projection)
{
    return projection == P4_ROLE_QKV || arch->shared_norm ? P4_ROLE_NORM1_GAIN : P4_ROLE_NORM2_GAIN;
}

/* What DELTA is multiplied by there. */
static inline float p4_net_delta_scale(const p4_arch *arch)
{
    return arch->residual_scale == 0 ? 1.0f : arch->residual_scale;
}

/* From X1, or with add_delta from the sum that the block before left and DELTA, to the block's sum and DELTA,
 * which together are its output. `again`: only what the backward pass needs. */
void p4_net_block_forward(const p4_block *b, bool add_delta, bool again);
/* DX: on entry the gradient at the block's output, on return that at its input. The sums of DX are the
 * gradient of the bias of `down` of the block before. */
void p4_net_block_backward(const p4_block *b);

/* The dense matrix of the slot that starts at entry `first`, in activation type: the weight itself where it
 * has that form, else unpacked into WEIGHT. */
const void *p4_net_dense(p4_net *net, const p4_form *form, int64_t first);
/* The head's matrix [logits_ld, C]; rows from V on are zero. */
const void *p4_net_head(p4_net *net, const p4_form *form);
/* Its bias [logits_ld], zero from V on; NULL: there is none. Valid until the next call. */
const float *p4_net_head_bias(p4_net *net, const p4_form *form);
/* The vector of this role; NULL: there is none. */
const float *p4_net_vector(const p4_net *net, const p4_form *form, p4_role role, int64_t layer);
/* The bias of a projection's slot. */
static inline p4_role p4_bias_of(p4_role slot)
{
    return (p4_role)(slot - P4_ROLE_QKV + P4_ROLE_QKV_BIAS);
}
/* That of the norm with this gain; P4_ROLE_COUNT: it never has one. */
static inline p4_role p4_norm_bias_of(p4_role gain)
{
    return p4_roles[gain + 1].kind == P4_KIND_NORM_BIAS ? (p4_role)(gain + 1) : P4_ROLE_COUNT;
}
/* Does the projection of this role multiply its input as int8 codes? In a trace: may it? Never that of
 * experts, whose inputs are rounded as activations. */
bool p4_net_rounds(const p4_block *b, p4_role role);

/* Where a projection's input lies: as activations and, unless codes is P4_BUFFER_COUNT, rounded. */
typedef struct p4_input {
    p4_net_buffer act, codes;
} p4_input;
p4_input p4_net_input(const p4_arch *arch, p4_role role);

/* Memory for the logits of a chunk of rows. */
void *p4_net_logits_buffer(p4_net *net, p4_net_buffer buffer);
/* Workspace of attention. */
float *p4_net_attention_work(p4_net *net);

/* --- steps that forward and backward passes share ------------------------------------------------ */

/* The norm with this gain. The caller fills in N, x and what else it wants of the op's arguments; the rest is
 * set here. Repeated from the sum that a block kept, it gives the same bits. */
void p4_net_norm(p4_net *net, const p4_form *form, int64_t layer, p4_role gain,
                 p4_add_norm_forward_args args);
/* The MLP's activation of `up`; h and rounded as in the ops. */
void p4_net_activate(const p4_block *b, void *h, const p4_int8_rows *rounded, const void *up);
/* Rotary positions of the query and key heads of qkv [N, (H + 2*Hkv) * D], or of its gradient, in a layer
 * that has them. */
void p4_net_rope(const p4_block *b, void *qkv, bool backward);
/* QKV as attention takes it: from RAW, where norms of queries and keys or another order of the rows follow
 * the product, and rotated. */
void p4_net_finish_qkv(const p4_block *b);
/* y = x with query, key and value rows side by side by key/value head, [Hkv, H / Hkv + 2, D], in the order
 * that attention takes, [H + 2 Hkv, D]; backward: the other way. */
void p4_net_regroup(const p4_block *b, void *y, const void *x, bool backward);

/* The input of this role computed again from what the block kept, rounded unless that is NULL. */
void p4_net_compute_again(const p4_block *b, p4_role role, void *to, const p4_int8_rows *rounded);

/* A mixture of experts (net_experts.c): H from N2; the block's addend from H; and back, from the gradient at
 * that addend to the gradient at N2. */
void p4_net_experts_up(const p4_block *b);
void p4_net_experts_down(const p4_block *b, p4_net_buffer to);
void p4_net_experts_backward(const p4_block *b, p4_net_buffer dy, p4_net_buffer dx);

/* The gradient's buffer in the sink; NULL: not wanted, or there is no such parameter. */
float *p4_net_grad(const p4_grad_sink *sink, int64_t param, bool *accumulate);
float *p4_net_vector_grad(const p4_net *net, const p4_grad_sink *sink, p4_role role, int64_t layer);
/* Backward through the norm with this gain, as p4_net_norm. */
void p4_net_norm_backward(p4_net *net, const p4_net_pass *pass, int64_t layer, p4_role gain,
                          p4_norm_backward_args args);
/* Where training compares blocks with a teacher's (p4_net_teacher.blocks): DX gets the gradient of that at
 * the output of the block before `at`, which is the input of block `at` or the last block's output. For the
 * last block DX is written, for the others added to. */
void p4_net_compare_block(p4_net *net, const p4_net_pass *pass, int64_t at);
/* Is DX the gradient at the outputs of O and DOWN? Then its sums are the gradients of their biases. */
static inline bool p4_net_adds_as_is(const p4_arch *arch)
{
    return !arch->post_norm && arch->residual_scale == 0;
}
/* The gradient of the bias of DOWN of the block before `at`, where the sums of DX are that; else NULL. */
float *p4_net_bias_before(p4_net *net, const p4_net_pass *pass, int64_t at);

/* Runs all blocks on X1 of the first. */
void p4_net_all_blocks(p4_net *net, const p4_net_pass *pass);

#endif
