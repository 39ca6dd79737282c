#include "src/net.h"

static float *grad_of(const p4_grad_sink *sink, int64_t param, bool *accumulate)
{
    *accumulate = true;
    return param >= 0 ? sink->grad(sink->user, param, accumulate) : NULL;
}

static float *vector_grad(const p4_net *net, const p4_grad_sink *sink, p4_role role, int64_t layer)
{
    bool accumulate;
    return grad_of(sink, p4_model_find(net->model, role, layer), &accumulate);
}

/* The input that a projection multiplied, as activations: kept, or in `room` from its codes or computed again
 * from what is kept. Of O's input the activations are kept, as attention's gradient needs them, and are
 * rounded again. */
static const void *input_of(p4_net *net, const p4_form *form, int64_t layer, p4_role role, const p4_saved *s,
                            void *room, int64_t N)
{
    const p4_ops *ops = net->ops;
    const p4_arch *a = &net->model->arch;
    const p4_input *kept = role == P4_ROLE_QKV ? &s->n1 : role == P4_ROLE_UP ? &s->n2 : &s->h;
    const p4_int8_rows no_codes = {0};
    bool rounds = p4_net_rounds(net, form, layer, role), again = net->plan.recompute == P4_RECOMPUTE_LIGHT;
    const p4_int8_rows *rounded = rounds ? &no_codes : NULL;
    if (role == P4_ROLE_O && rounds) {
        ops->quantize_int8(net->device, room, &no_codes, s->att.act, N, a->H * a->D);
    } else if (role == P4_ROLE_O) {
        return s->att.act;
    } else if (again && role == P4_ROLE_DOWN) {
        p4_net_activate(net, room, rounded, s->up, N);
    } else if (again) {
        p4_net_norm(net, form, layer, role, room, rounded, NULL, NULL, NULL,
                    role == P4_ROLE_QKV ? s->x1 : s->x2, NULL, N);
    } else if (rounds) {
        ops->dequantize_int8(net->device, room, &kept->rounded, N, role == P4_ROLE_DOWN ? a->F : a->C);
    } else {
        return kept->act;
    }
    return room;
}

/* Straight-through: dw to the master as if the quantized weight had been it. The input lies in `room` where
 * it is not kept. `with_bias`: dy's column sums go to the bias, which nobody else has summed. */
static void weight_backward(p4_net *net, const p4_form *form, int64_t layer, p4_role role, const void *dy,
                            const p4_saved *s, void *room, int64_t N, bool with_bias,
                            const p4_grad_sink *sink)
{
    const p4_ops *ops = net->ops;
    int64_t first = p4_model_find(net->model, role, layer);
    int64_t in = net->model->params[first].cols, out = p4_slot_rows(net->model, first);
    const void *x = input_of(net, form, layer, role, s, room, N);
    float *db = with_bias ? vector_grad(net, sink, p4_bias_of(role), layer) : NULL;
    if (db != NULL) {
        ops->linear_backward_bias(net->device, db, dy, N, out);
    }
    bool accumulate;
    float *dw = grad_of(sink, first, &accumulate);
    if (dw != NULL) {
        ops->linear_backward_weight(net->device, dw, dy, out, x, N, in, out, accumulate);
        if (sink->ready != NULL) {
            sink->ready(sink->user, first);
        }
    }
}

/* dx through the quantized weight that the forward used. */
static void input_backward(p4_net *net, const p4_form *form, int64_t layer, p4_role role, void *dx,
                           const void *dy, int64_t N)
{
    int64_t first = p4_model_find(net->model, role, layer);
    net->ops->linear_backward_input(net->device, dx, dy, p4_net_dense(net, form, first), N,
                                    net->model->params[first].cols, p4_slot_rows(net->model, first), false);
}

/* From net->dx at the block's output to the gradient at s->up, in net->dwide: through `down` and the
 * activation. */
static void down_backward(p4_net *net, const p4_form *form, int64_t layer, const p4_saved *s, int64_t N,
                          const p4_grad_sink *sink)
{
    const p4_arch *a = &net->model->arch;
    int64_t first = p4_model_find(net->model, P4_ROLE_DOWN, layer);
    weight_backward(net, form, layer, P4_ROLE_DOWN, net->dx, s, net->dwide, N, false, sink);
    const void *w = p4_net_dense(net, form, first);
    if (a->gated_mlp) {
        net->ops->linear_swiglu_backward(net->device, net->dwide, net->dwide2, net->dx, w, s->up, N, a->F,
                                         a->C);
    } else {
        net->ops->linear_gelu_backward(net->device, net->dwide,
                                       vector_grad(net, sink, P4_ROLE_UP_BIAS, layer), net->dx, w, s->up, N,
                                       a->F, a->C);
    }
}

/* Of the norm with this gain: net->dx (= or +=) what net->dnorm gives at its input x. Where dx is
 * then the gradient at the output of a projection, `sums` is that one's bias gradient, else NULL. */
static void norm_backward(p4_net *net, const p4_form *form, int64_t layer, p4_role gain, const void *x,
                          const float *mean, const float *rstd, int64_t N, bool accumulate, float *sums,
                          const p4_grad_sink *sink)
{
    const p4_arch *a = &net->model->arch;
    int64_t at = p4_model_find(net->model, gain, layer);
    net->ops->norm_backward(net->device, a->layer_norm ? P4_LAYERNORM : P4_RMSNORM, net->dx, accumulate, sums,
                            vector_grad(net, sink, gain, layer),
                            vector_grad(net, sink, (p4_role)(gain + 1), layer), net->dnorm, x, mean, rstd,
                            form->vectors[at], N, a->C);
}

/* net->dx: gradient at the block's output on entry, which is also the bias's of `down` and summed there; at
 * its input, the output of the block before, on return. A projection's input lies in dwide or dwide2 where
 * that is free. */
static void block_backward(p4_net *net, const p4_form *form, int64_t layer, const p4_saved *s, int64_t B,
                           int64_t T, const p4_grad_sink *sink)
{
    const p4_ops *ops = net->ops;
    const p4_arch *a = &net->model->arch;
    p4_attention_shape shape = p4_net_attention(net, B, T);
    int64_t N = B * T, qkv_width = (a->H + 2 * a->Hkv) * a->D;

    down_backward(net, form, layer, s, N, sink);
    input_backward(net, form, layer, P4_ROLE_UP, net->dnorm, net->dwide, N);
    weight_backward(net, form, layer, P4_ROLE_UP, net->dwide, s, net->dwide2, N, a->gated_mlp, sink);
    norm_backward(net, form, layer, P4_ROLE_NORM2_GAIN, s->x2, s->mean2, s->rstd2, N, true,
                  vector_grad(net, sink, P4_ROLE_O_BIAS, layer), sink);

    weight_backward(net, form, layer, P4_ROLE_O, net->dx, s, net->dwide, N, false, sink);
    input_backward(net, form, layer, P4_ROLE_O, net->dwide2, net->dx, N);
    ops->attention_backward(net->device, net->dwide, net->dwide2, s->att.act, s->lse, s->qkv, &shape,
                            net->attention_work);
    if (!a->learned_positions) {
        ops->rope(net->device, net->dwide, net->cos_table, net->sin_table, N, T, a->H + a->Hkv, a->D,
                  qkv_width, true);
    }
    input_backward(net, form, layer, P4_ROLE_QKV, net->dnorm, net->dwide, N);
    weight_backward(net, form, layer, P4_ROLE_QKV, net->dwide, s, net->dwide2, N, true, sink);
    norm_backward(net, form, layer, P4_ROLE_NORM1_GAIN, s->x1, s->mean1, s->rstd1, N, true,
                  layer > 0 ? vector_grad(net, sink, P4_ROLE_DOWN_BIAS, layer - 1) : NULL, sink);
}

/* Head, loss and their gradients, a chunk of rows at a time: the logits of the whole micro-batch never exist.
 * Leaves the gradient at the final norm's output in net->dnorm. */
static void head_forward_backward(p4_net *net, const p4_form *form, int64_t N, float loss_scale,
                                  const p4_grad_sink *sink)
{
    const p4_ops *ops = net->ops;
    int64_t C = net->model->arch.C, V = net->model->arch.V, ld = net->logits_ld,
            each = ops->act_bytes(net->device);
    bool accumulate;
    float *dhead = grad_of(sink, p4_net_head_param(net), &accumulate);
    const void *w = p4_net_head(net, form);
    for (int64_t row = 0; row < N; row += net->chunk) {
        int64_t rows = p4_min_i64(net->chunk, N - row);
        const char *normed = (const char *)net->final_n + row * C * each;
        ops->linear_forward(net->device, net->logits, normed, w, NULL, rows, C, ld);
        ops->cross_entropy(net->device, net->nll + row, net->hit + row, net->logits, net->logits,
                           net->targets + row, rows, V, ld, loss_scale);
        ops->linear_backward_input(net->device, (char *)net->dnorm + row * C * each, net->logits, w, rows, C,
                                   ld, false);
        if (dhead != NULL) {
            ops->linear_backward_weight(net->device, dhead, net->logits, ld, normed, rows, C, V,
                                        accumulate || row > 0);
        }
    }
}

static void all_blocks_forward(p4_net *net, const p4_form *form, int64_t B, int64_t T)
{
    int64_t L = net->model->arch.L;
    p4_net_embed(net, form, net->saved[0].x1, B, T);
    for (int64_t l = 0; l < L; l++) {
        const void *input = l == 0 ? net->saved[0].x1 : net->saved[l - 1].x2;
        p4_net_block(net, form, l, input, l > 0, &net->saved[l], B, T, NULL);
    }
}

void p4_net_train_forward(p4_net *net, const p4_form *form, int64_t B, int64_t T, float loss_scale,
                          const p4_grad_sink *sink)
{
    const p4_ops *ops = net->ops;
    const p4_arch *a = &net->model->arch;
    int64_t N = B * T, L = a->L;
    int64_t gain = p4_model_find(net->model, P4_ROLE_FINAL_GAIN, -1),
            bias = p4_model_find(net->model, P4_ROLE_FINAL_BIAS, -1);

    all_blocks_forward(net, form, B, T);
    ops->add_norm_forward(net->device, a->layer_norm ? P4_LAYERNORM : P4_RMSNORM, net->final_n, NULL,
                          net->final_x, net->final_mean, net->final_rstd, net->saved[L - 1].x2, net->delta,
                          form->vectors[gain], bias >= 0 ? form->vectors[bias] : NULL, N, a->C, a->norm_eps);
    head_forward_backward(net, form, N, loss_scale, sink);
    norm_backward(net, form, -1, P4_ROLE_FINAL_GAIN, net->final_x, net->final_mean, net->final_rstd, N, false,
                  vector_grad(net, sink, P4_ROLE_DOWN_BIAS, L - 1), sink);
}

void p4_net_train_block(p4_net *net, const p4_form *form, int64_t layer, int64_t B, int64_t T,
                        const p4_grad_sink *sink)
{
    p4_saved *saved = &net->saved[layer];
    if (net->plan.recompute == P4_RECOMPUTE_BLOCKS) {
        p4_net_block(net, form, layer, saved->x1, false, saved, B, T, NULL);
    }
    block_backward(net, form, layer, saved, B, T, sink);
}

void p4_net_train_embedding(p4_net *net, int64_t B, int64_t T, const p4_grad_sink *sink)
{
    const p4_arch *a = &net->model->arch;
    bool accumulate;
    float *dtoken = grad_of(sink, p4_model_find(net->model, P4_ROLE_EMBED, -1), &accumulate);
    if (dtoken != NULL) {
        net->ops->embed_backward(net->device, dtoken, vector_grad(net, sink, P4_ROLE_POSITION, -1), net->ids,
                                 net->dx, B, T, a->C, a->V);
    }
    p4_net_add_scores(net, B, T, false);
}

void p4_net_train(p4_net *net, const p4_form *form, int64_t B, int64_t T, float loss_scale,
                  const p4_grad_sink *sink)
{
    p4_net_train_forward(net, form, B, T, loss_scale, sink);
    for (int64_t l = net->model->arch.L - 1; l >= 0; l--) {
        p4_net_train_block(net, form, l, B, T, sink);
    }
    p4_net_train_embedding(net, B, T, sink);
}
