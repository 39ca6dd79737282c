#include <string.h>

#include "src/net.h"

/* The parts of a slot: activations' type, aligned, each where the one before ends. */
static bool usable_as_is(const p4_net *net, const p4_weight *weights, int64_t parts)
{
    int64_t each = net->ops->act_bytes(net->device);
    p4_dtype act = each == 4 ? P4_F32 : P4_BF16;
    const char *next = weights[0].data;
    bool usable = (uintptr_t)next % 16 == 0;
    for (int64_t i = 0; i < parts; i++) {
        usable = usable && weights[i].dtype == act && !weights[i].transposed && weights[i].data == next;
        next += weights[i].rows * weights[i].cols * each;
    }
    return usable;
}

/* The slot's matrix [rows, cols] in activation type: the weight itself where it has that form, else unpacked
 * into net->w, which the next call reuses. */
const void *p4_net_dense(p4_net *net, const p4_form *form, int64_t first)
{
    int64_t parts = p4_model_parts(net->model, first);
    const p4_weight *weights = form->weights + first;
    if (usable_as_is(net, weights, parts)) {
        return weights->data;
    }
    char *to = net->w;
    for (int64_t i = 0; i < parts; i++) {
        net->ops->weight_unpack(net->device, to, &weights[i]);
        to += weights[i].rows * weights[i].cols * net->ops->act_bytes(net->device);
    }
    return net->w;
}

const void *p4_net_head(p4_net *net, const p4_form *form)
{
    const p4_arch *a = &net->model->arch;
    int64_t head = p4_net_head_param(net), each = net->ops->act_bytes(net->device);
    if (net->logits_ld == a->V) {
        return p4_net_dense(net, form, head);
    }
    net->ops->weight_unpack(net->device, net->w, &form->weights[head]);
    net->ops->zero(net->device, (char *)net->w + a->V * a->C * each, (net->logits_ld - a->V) * a->C * each);
    return net->w;
}

bool p4_net_rounds(const p4_net *net, const p4_form *form, int64_t layer, p4_role role)
{
    return net->plan.activation_bits == 8 &&
           form->weights[p4_model_find(net->model, role, layer)].dtype == P4_TERNARY;
}

static const float *slot_bias(const p4_net *net, const p4_form *form, int64_t layer, p4_role role)
{
    int64_t bias = p4_model_find(net->model, p4_bias_of(role), layer);
    return bias >= 0 ? form->vectors[bias] : NULL;
}

static void project(p4_net *net, const p4_net_pass *pass, int64_t layer, p4_role role, void *y,
                    const p4_input *input)
{
    const p4_model *model = net->model;
    const p4_form *form = pass->form;
    const p4_probe *probe = pass->probe;
    int64_t N = pass->B * pass->T;
    int64_t first = p4_model_find(model, role, layer);
    int64_t in = model->params[first].cols, out = p4_slot_rows(model, first);
    const float *bias = slot_bias(net, form, layer, role);
    bool rounded = p4_net_rounds(net, form, layer, role);
    if (rounded) {
        net->ops->linear_forward_int8(net->device,
                                      &(p4_linear_forward_int8_args){.N = N,
                                                                     .in = in,
                                                                     .out = out,
                                                                     .x = input->rounded,
                                                                     .weights = &form->weights[first],
                                                                     .parts = p4_model_parts(model, first),
                                                                     .opt_bias = bias,
                                                                     .y = y,
                                                                     .x_work = net->xq,
                                                                     .w_work = net->w});
    } else {
        net->ops->linear_forward(net->device, y, input->act, p4_net_dense(net, form, first), bias, N, in,
                                 out);
    }
    if (probe != NULL && rounded) { /* it sees the input that was multiplied */
        net->ops->dequantize_int8(net->device, net->xq, &input->rounded, N, in);
    }
    if (probe != NULL) {
        probe->slot(probe->user, first, rounded ? net->xq : input->act, in, y, out, N);
    }
}

static const float *vector(const p4_net *net, const p4_form *form, p4_role role, int64_t layer)
{
    int64_t at = p4_model_find(net->model, role, layer);
    return at >= 0 ? form->vectors[at] : NULL;
}

void p4_net_activate(p4_net *net, void *h, const p4_int8_rows *rounded, const void *up, int64_t N)
{
    int64_t F = net->model->arch.F;
    bool gated = net->model->arch.gated_mlp;
    net->ops->activate(net->device, h, rounded, up, gated ? P4_SILU : P4_GELU_TANH, gated, N, F);
}

void p4_net_norm(p4_net *net, const p4_form *form, int64_t layer, p4_role gain, p4_add_norm_forward_args args)
{
    const p4_arch *a = &net->model->arch;
    args.kind = a->layer_norm ? P4_LAYERNORM : P4_RMSNORM;
    args.C = a->C;
    args.eps = a->norm_eps;
    args.gain = vector(net, form, gain, layer);
    args.opt_bias = vector(net, form, (p4_role)(gain + 1), layer);
    net->ops->add_norm_forward(net->device, &args);
}

/* Where the producer of a projection's input is to put it: activations or codes, the other is NULL. */
static void *plain_of(const p4_input *input, bool rounds)
{
    return rounds ? NULL : input->act;
}

static const p4_int8_rows *codes_of(const p4_input *input, bool rounds)
{
    return rounds ? &input->rounded : NULL;
}

/* s->h, the input of `down`, from s->n2. GELU is computed together with the product before it, unless that
 * product or `down` works on codes. */
static void up_and_activate(p4_net *net, const p4_net_pass *pass, int64_t layer, const p4_saved *s)
{
    const p4_form *form = pass->form;
    const p4_arch *a = &net->model->arch;
    int64_t first = p4_model_find(net->model, P4_ROLE_UP, layer), N = pass->B * pass->T;
    bool rounds = p4_net_rounds(net, form, layer, P4_ROLE_DOWN);
    if (a->gated_mlp || rounds || p4_net_rounds(net, form, layer, P4_ROLE_UP)) {
        project(net, pass, layer, P4_ROLE_UP, s->up, &s->n2);
        p4_net_activate(net, plain_of(&s->h, rounds), codes_of(&s->h, rounds), s->up, N);
        return;
    }
    net->ops->linear_activate_forward(
        net->device, &(p4_linear_activate_forward_args){.N = N,
                                                        .in = a->C,
                                                        .out = a->F,
                                                        .x = s->n2.act,
                                                        .w = p4_net_dense(net, form, first),
                                                        .opt_bias = slot_bias(net, form, layer, P4_ROLE_UP),
                                                        .up = s->up,
                                                        .h = s->h.act});
    if (pass->probe != NULL) {
        pass->probe->slot(pass->probe->user, first, s->n2.act, a->C, s->up, a->F, N);
    }
}

void p4_net_rope(const p4_net *net, void *qkv, int64_t B, int64_t T, bool backward)
{
    const p4_arch *a = &net->model->arch;
    if (a->learned_positions) {
        return;
    }
    net->ops->rope(net->device, &(p4_rope_args){.N = B * T,
                                                .T = T,
                                                .heads = a->H + a->Hkv,
                                                .D = a->D,
                                                .qkv = qkv,
                                                .row_width = (a->H + 2 * a->Hkv) * a->D,
                                                .cos_table = net->cos_table,
                                                .sin_table = net->sin_table,
                                                .backward = backward});
}

/* s->att from s->n1. */
static void attend(p4_net *net, const p4_net_pass *pass, int64_t layer, const p4_saved *s)
{
    const p4_arch *a = &net->model->arch;
    project(net, pass, layer, P4_ROLE_QKV, s->qkv, &s->n1);
    p4_net_rope(net, s->qkv, pass->B, pass->T, false);
    net->ops->attention_forward(
        net->device, &(p4_attention_forward_args){.shape = p4_net_attention(net, layer, pass->B, pass->T),
                                                  .qkv = s->qkv,
                                                  .out = s->att.act,
                                                  .opt_lse = s->lse,
                                                  .work = net->attention_work});
    if (p4_net_rounds(net, pass->form, layer, P4_ROLE_O)) {
        net->ops->quantize_int8(net->device, NULL, &s->att.rounded, s->att.act, pass->B * pass->T,
                                a->H * a->D);
    }
}

/* One block. Its input is x, plus net->delta when add_delta (the previous block's last addend, so that the
 * addition is fused with this block's norm). Leaves its output as saved->x2 + net->delta. */
void p4_net_block(p4_net *net, const p4_net_pass *pass, int64_t layer, const void *x, bool add_delta,
                  p4_saved *s)
{
    const p4_form *form = pass->form;
    int64_t N = pass->B * pass->T;

    bool rounds = p4_net_rounds(net, form, layer, P4_ROLE_QKV);
    p4_net_norm(net, form, layer, P4_ROLE_NORM1_GAIN,
                (p4_add_norm_forward_args){.N = N,
                                           .x = x,
                                           .opt_delta = add_delta ? net->delta : NULL,
                                           .opt_sum = add_delta ? s->x1 : NULL,
                                           .opt_y = plain_of(&s->n1, rounds),
                                           .opt_rounded = codes_of(&s->n1, rounds),
                                           .opt_mean = s->mean1,
                                           .opt_rstd = s->rstd1});
    attend(net, pass, layer, s);
    project(net, pass, layer, P4_ROLE_O, net->delta, &s->att);

    rounds = p4_net_rounds(net, form, layer, P4_ROLE_UP);
    p4_net_norm(net, form, layer, P4_ROLE_NORM2_GAIN,
                (p4_add_norm_forward_args){.N = N,
                                           .x = add_delta ? s->x1 : x,
                                           .opt_delta = net->delta,
                                           .opt_sum = s->x2,
                                           .opt_y = plain_of(&s->n2, rounds),
                                           .opt_rounded = codes_of(&s->n2, rounds),
                                           .opt_mean = s->mean2,
                                           .opt_rstd = s->rstd2});
    up_and_activate(net, pass, layer, s);
    project(net, pass, layer, P4_ROLE_DOWN, net->delta, &s->h);
}

void p4_net_embed(p4_net *net, const p4_form *form, void *x, int64_t B, int64_t T)
{
    int64_t position = p4_model_find(net->model, P4_ROLE_POSITION, -1);
    net->ops->embed_forward(
        net->device,
        &(p4_embed_forward_args){.B = B,
                                 .T = T,
                                 .C = net->model->arch.C,
                                 .ids = net->ids,
                                 .token = &form->weights[p4_model_find(net->model, P4_ROLE_EMBED, -1)],
                                 .opt_position = position >= 0 ? &form->weights[position] : NULL,
                                 .x = x});
}

void p4_net_layers(p4_net *net, const p4_net_pass *pass, int64_t first, int64_t end, void *x)
{
    const void *input = x;
    p4_saved *s = &net->saved[0];
    for (int64_t l = first; l < end; l++) {
        p4_net_block(net, pass, l, input, l > first, s);
        input = s->x2;
    }
    if (end > first) {
        net->ops->add(net->device, x, s->x2, net->delta, 1.0f, pass->B * pass->T * net->model->arch.C);
    }
}

void p4_net_final_norm(p4_net *net, const p4_form *form, const void *x, bool reference, int64_t N)
{
    void *y = reference ? net->final_reference : net->final_n;
    p4_net_norm(net, form, -1, P4_ROLE_FINAL_GAIN, (p4_add_norm_forward_args){.N = N, .x = x, .opt_y = y});
}

/* logits [rows, logits_ld] of normed [rows, C], with the head's dense weight w. */
static void head_chunk(p4_net *net, const void *w, void *logits, const void *normed, int64_t rows)
{
    net->ops->linear_forward(net->device, logits, normed, w, NULL, rows, net->model->arch.C, net->logits_ld);
}

static const void *rows_of(const p4_net *net, const void *act, int64_t row)
{
    return (const char *)act + row * net->model->arch.C * net->ops->act_bytes(net->device);
}

/* Sums nll, hits and, when measured, kl of the micro-batch at hand, on the device. */
void p4_net_add_scores(p4_net *net, int64_t B, int64_t T, bool kl)
{
    const float *scores[3] = {net->nll, net->hit, kl ? net->kl : NULL};
    for (int i = 0; i < 3 && scores[i] != NULL; i++) {
        net->ops->add_sum(net->device, net->sums + i, scores[i], B * T);
    }
    net->predictions += (double)(B * (T - 1));
}

p4_rc p4_net_take_score(p4_net *net, p4_score *score)
{
    double h_sums[P4_NET_SUMS] = {0};
    net->ops->to_host(net->device, h_sums, net->sums, sizeof h_sums);
    net->ops->zero(net->device, net->sums, sizeof h_sums);
    score->nll += h_sums[0];
    score->hits += h_sums[1];
    score->kl += h_sums[2];
    score->count += net->predictions;
    net->predictions = 0;
    return net->ops->sync(net->device);
}

void p4_net_score(p4_net *net, const p4_form *form, const p4_form *reference, int64_t B, int64_t T)
{
    const p4_ops *ops = net->ops;
    int64_t N = B * T, V = net->model->arch.V, ld = net->logits_ld;
    const void *w = p4_net_head(net, form);
    for (int64_t row = 0; row < N; row += net->chunk) {
        int64_t rows = p4_min_i64(net->chunk, N - row);
        if (reference != NULL && row > 0) { /* both heads may have been unpacked into one place */
            w = p4_net_head(net, form);
        }
        head_chunk(net, w, net->logits, rows_of(net, net->final_n, row), rows);
        if (reference != NULL) {
            head_chunk(net, p4_net_head(net, reference), net->logits_reference,
                       rows_of(net, net->final_reference, row), rows);
            ops->kl_divergence(net->device, &(p4_kl_divergence_args){.N = rows,
                                                                     .V = V,
                                                                     .ld = ld,
                                                                     .reference = net->logits_reference,
                                                                     .logits = net->logits,
                                                                     .targets = net->targets + row,
                                                                     .kl = net->kl + row});
        }
        ops->cross_entropy(net->device, &(p4_cross_entropy_args){.N = rows,
                                                                 .V = V,
                                                                 .ld = ld,
                                                                 .logits = net->logits,
                                                                 .targets = net->targets + row,
                                                                 .scale = 1.0f,
                                                                 .nll = net->nll + row,
                                                                 .opt_hit = net->hit + row});
    }
    p4_net_add_scores(net, B, T, reference != NULL);
}

p4_rc p4_net_logits(p4_net *net, const p4_form *form, float *h_logits, int64_t N)
{
    const p4_ops *ops = net->ops;
    int64_t V = net->model->arch.V, ld = net->logits_ld;
    float *f32 = NULL;
    bool half = ops->act_bytes(net->device) != 4;
    p4_rc rc = P4_OK;
    if (half) {
        TRY(ops->alloc(net->device, (void **)&f32, net->chunk * ld * 4));
    }
    const void *w = p4_net_head(net, form);
    for (int64_t row = 0; row < N; row += net->chunk) {
        int64_t rows = p4_min_i64(net->chunk, N - row);
        const float *logits = half ? f32 : net->logits;
        head_chunk(net, w, net->logits, rows_of(net, net->final_n, row), rows);
        if (half) {
            ops->act_to_f32(net->device, f32, net->logits, rows * ld);
        }
        for (int64_t r = 0; ld != V && r < rows; r++) {
            ops->to_host(net->device, h_logits + (row + r) * V, logits + r * ld, V * 4);
        }
        if (ld == V) {
            ops->to_host(net->device, h_logits + row * V, logits, rows * V * 4);
        }
    }
    TRY(ops->sync(net->device));
done:
    if (f32 != NULL) {
        ops->release(net->device, f32);
    }
    return rc;
}
