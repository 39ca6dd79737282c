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

/* The input that a projection multiplied, as activations: where the forward pass kept it, or in a buffer of
 * the backward pass that is free then, restored from its codes or computed again. Of O's input the
 * activations are kept, because attention's gradient needs them, and are rounded again. */
static const void *input_of(p4_net *net, const p4_net_pass *pass, int64_t layer, p4_role role)
{
    const p4_ops *ops = net->ops;
    const p4_arch *a = &net->model->arch;
    const p4_saved *s = &net->saved[layer];
    const p4_input *kept = role == P4_ROLE_QKV ? &s->n1 : role == P4_ROLE_UP ? &s->n2 : &s->h;
    const p4_int8_rows no_codes = {0};
    bool rounds = p4_net_rounds(net, pass->form, layer, role),
         again = net->plan.recompute == P4_RECOMPUTE_LIGHT;
    const p4_int8_rows *rounded = rounds ? &no_codes : NULL;
    void *room = role == P4_ROLE_DOWN || role == P4_ROLE_O ? net->dwide : net->dwide2;
    int64_t N = pass->B * pass->T;
    if (role == P4_ROLE_O && rounds) {
        ops->quantize_int8(net->device, room, &no_codes, s->att.act, N, a->H * a->D);
    } else if (role == P4_ROLE_O) {
        return s->att.act;
    } else if (again && role == P4_ROLE_DOWN) {
        p4_net_activate(net, room, rounded, s->up, N);
    } else if (again) {
        p4_net_norm(
            net, pass->form, layer, role == P4_ROLE_QKV ? P4_ROLE_NORM1_GAIN : P4_ROLE_NORM2_GAIN,
            (p4_add_norm_forward_args){
                .N = N, .x = role == P4_ROLE_QKV ? s->x1 : s->x2, .opt_y = room, .opt_rounded = rounded});
    } else if (rounds) {
        ops->dequantize_int8(net->device, room, &kept->rounded, N, role == P4_ROLE_DOWN ? a->F : a->C);
    } else {
        return kept->act;
    }
    return room;
}

/* dy's column sums to the bias of a projection whose bias gradient no other op sums. */
static void bias_backward(p4_net *net, const p4_net_pass *pass, int64_t layer, p4_role role, const void *dy)
{
    float *db = vector_grad(net, pass->sink, p4_bias_of(role), layer);
    if (db != NULL) {
        net->ops->linear_backward_bias(net->device, db, dy, pass->B * pass->T,
                                       p4_slot_rows(net->model, p4_model_find(net->model, role, layer)));
    }
}

/* Straight-through: dw to the master as if the quantized weight had been it. */
static void weight_backward(p4_net *net, const p4_net_pass *pass, int64_t layer, p4_role role, const void *dy)
{
    const p4_grad_sink *sink = pass->sink;
    int64_t first = p4_model_find(net->model, role, layer), out = p4_slot_rows(net->model, first);
    const void *x = input_of(net, pass, layer, role);
    bool accumulate;
    float *dw = grad_of(sink, first, &accumulate);
    if (dw == NULL) {
        return;
    }
    net->ops->linear_backward_weight(net->device,
                                     &(p4_linear_backward_weight_args){.N = pass->B * pass->T,
                                                                       .in = net->model->params[first].cols,
                                                                       .out = out,
                                                                       .dy = dy,
                                                                       .ld_dy = out,
                                                                       .x = x,
                                                                       .dw = dw,
                                                                       .accumulate = accumulate});
    if (sink->ready != NULL) {
        sink->ready(sink->user, first);
    }
}

/* dx through the quantized weight that the forward pass used. */
static void input_backward(p4_net *net, const p4_net_pass *pass, int64_t layer, p4_role role, void *dx,
                           const void *dy)
{
    int64_t first = p4_model_find(net->model, role, layer);
    net->ops->linear_backward_input(net->device, dx, dy, p4_net_dense(net, pass->form, first),
                                    pass->B * pass->T, net->model->params[first].cols,
                                    p4_slot_rows(net->model, first), false);
}

/* From net->dx at the block's output to the gradient at s->up, in net->dwide: through `down` and the
 * activation. */
static void down_backward(p4_net *net, const p4_net_pass *pass, int64_t layer)
{
    const p4_arch *a = &net->model->arch;
    const p4_saved *s = &net->saved[layer];
    int64_t N = pass->B * pass->T;
    weight_backward(net, pass, layer, P4_ROLE_DOWN, net->dx);
    const void *w = p4_net_dense(net, pass->form, p4_model_find(net->model, P4_ROLE_DOWN, layer));
    if (a->gated_mlp) {
        net->ops->linear_gated_backward(net->device,
                                        &(p4_linear_gated_backward_args){.function = P4_SILU,
                                                                         .N = N,
                                                                         .F = a->F,
                                                                         .out = a->C,
                                                                         .dy = net->dx,
                                                                         .w = w,
                                                                         .gate_up = s->up,
                                                                         .dgate_up = net->dwide,
                                                                         .dh_work = net->dwide2});
    } else {
        net->ops->linear_activate_backward(
            net->device, &(p4_linear_activate_backward_args){
                             .N = N,
                             .F = a->F,
                             .out = a->C,
                             .dy = net->dx,
                             .w = w,
                             .up = s->up,
                             .dup = net->dwide,
                             .opt_db = vector_grad(net, pass->sink, P4_ROLE_UP_BIAS, layer)});
    }
}

/* Backward through the norm with this gain: net->dx (= or +=) from net->dnorm. The caller fills in the norm's
 * input x, its statistics and `accumulate`; opt_dx_sums: the gradient of the bias of the projection whose
 * output gradient net->dx then is, or NULL. */
static void norm_backward(p4_net *net, const p4_net_pass *pass, int64_t layer, p4_role gain,
                          p4_norm_backward_args args)
{
    const p4_arch *a = &net->model->arch;
    args.kind = a->layer_norm ? P4_LAYERNORM : P4_RMSNORM;
    args.N = pass->B * pass->T;
    args.C = a->C;
    args.dy = net->dnorm;
    args.gain = pass->form->vectors[p4_model_find(net->model, gain, layer)];
    args.dx = net->dx;
    args.opt_dgain = vector_grad(net, pass->sink, gain, layer);
    args.opt_dbias = vector_grad(net, pass->sink, (p4_role)(gain + 1), layer);
    net->ops->norm_backward(net->device, &args);
}

/* net->dx: on entry the gradient at the block's output, which is summed for the bias of `down` before; on
 * return the gradient at its input, the output of the block before. */
static void block_backward(p4_net *net, const p4_net_pass *pass, int64_t layer)
{
    const p4_saved *s = &net->saved[layer];

    down_backward(net, pass, layer);
    input_backward(net, pass, layer, P4_ROLE_UP, net->dnorm, net->dwide);
    if (net->model->arch.gated_mlp) {
        bias_backward(net, pass, layer, P4_ROLE_UP, net->dwide);
    }
    weight_backward(net, pass, layer, P4_ROLE_UP, net->dwide);
    norm_backward(
        net, pass, layer, P4_ROLE_NORM2_GAIN,
        (p4_norm_backward_args){.x = s->x2,
                                .opt_mean = s->mean2,
                                .rstd = s->rstd2,
                                .accumulate = true,
                                .opt_dx_sums = vector_grad(net, pass->sink, P4_ROLE_O_BIAS, layer)});

    weight_backward(net, pass, layer, P4_ROLE_O, net->dx);
    input_backward(net, pass, layer, P4_ROLE_O, net->dwide2, net->dx);
    net->ops->attention_backward(
        net->device, &(p4_attention_backward_args){.shape = p4_net_attention(net, layer, pass->B, pass->T),
                                                   .qkv = s->qkv,
                                                   .out = s->att.act,
                                                   .lse = s->lse,
                                                   .dout = net->dwide2,
                                                   .dqkv = net->dwide,
                                                   .work = net->attention_work});
    p4_net_rope(net, net->dwide, pass->B, pass->T, true);
    input_backward(net, pass, layer, P4_ROLE_QKV, net->dnorm, net->dwide);
    bias_backward(net, pass, layer, P4_ROLE_QKV, net->dwide);
    weight_backward(net, pass, layer, P4_ROLE_QKV, net->dwide);
    norm_backward(
        net, pass, layer, P4_ROLE_NORM1_GAIN,
        (p4_norm_backward_args){
            .x = s->x1,
            .opt_mean = s->mean1,
            .rstd = s->rstd1,
            .accumulate = true,
            .opt_dx_sums = layer > 0 ? vector_grad(net, pass->sink, P4_ROLE_DOWN_BIAS, layer - 1) : NULL});
}

/* The losses of rows [row, row + rows), whose logits become their gradient. */
static void chunk_loss(p4_net *net, int64_t row, int64_t rows, float loss_scale)
{
    const p4_ops *ops = net->ops;
    const p4_net_teacher *teacher = net->teacher;
    int64_t C = net->model->arch.C, V = net->model->arch.V, ld = net->logits_ld;
    if (teacher == NULL) {
        ops->cross_entropy(net->device, &(p4_cross_entropy_args){.N = rows,
                                                                 .V = V,
                                                                 .ld = ld,
                                                                 .logits = net->logits,
                                                                 .targets = net->targets + row,
                                                                 .scale = loss_scale,
                                                                 .nll = net->nll + row,
                                                                 .opt_hit = net->hit + row,
                                                                 .opt_dlogits = net->logits});
        return;
    }
    p4_distill_loss_args args = {.N = rows,
                                 .V = V,
                                 .ld = ld,
                                 .logits = net->logits,
                                 .targets = net->targets + row,
                                 .scale = loss_scale,
                                 .weight = teacher->weight,
                                 .temperature = teacher->temperature,
                                 .nll = net->nll + row,
                                 .hit = net->hit + row,
                                 .kl = net->kl + row};
    if (teacher->states != NULL) {
        const char *states = (const char *)teacher->states + row * C * ops->act_bytes(net->device);
        ops->linear_forward(net->device, net->logits_reference, states, teacher->head, NULL, rows, C, ld);
        args.opt_teacher = net->logits_reference;
    } else {
        args.top = (p4_top_rows){.k = teacher->top.k,
                                 .ids = teacher->top.ids + row * teacher->top.k,
                                 .logp = teacher->top.logp + row * (teacher->top.k + 1)};
    }
    ops->distill_loss(net->device, &args);
}

/* Head, loss and their gradients, a chunk of rows at a time: the logits of the whole micro-batch never exist.
 * Leaves the gradient at the final norm's output in net->dnorm. */
static void head_forward_backward(p4_net *net, const p4_net_pass *pass, float loss_scale)
{
    const p4_ops *ops = net->ops;
    int64_t N = pass->B * pass->T, C = net->model->arch.C, V = net->model->arch.V, ld = net->logits_ld,
            each = ops->act_bytes(net->device);
    bool accumulate;
    float *dhead = grad_of(pass->sink, p4_net_head_param(net), &accumulate);
    const void *w = p4_net_head(net, pass->form);
    for (int64_t row = 0; row < N; row += net->chunk) {
        int64_t rows = p4_min_i64(net->chunk, N - row);
        const char *normed = (const char *)net->final_n + row * C * each;
        ops->linear_forward(net->device, net->logits, normed, w, NULL, rows, C, ld);
        chunk_loss(net, row, rows, loss_scale);
        ops->linear_backward_input(net->device, (char *)net->dnorm + row * C * each, net->logits, w, rows, C,
                                   ld, false);
        if (dhead != NULL) {
            ops->linear_backward_weight(
                net->device, &(p4_linear_backward_weight_args){.N = rows,
                                                               .in = C,
                                                               .out = V,
                                                               .dy = net->logits,
                                                               .ld_dy = ld,
                                                               .x = normed,
                                                               .dw = dhead,
                                                               .accumulate = accumulate || row > 0});
        }
    }
}

static void all_blocks_forward(p4_net *net, const p4_net_pass *pass)
{
    int64_t L = net->model->arch.L;
    p4_net_embed(net, pass->form, net->saved[0].x1, pass->B, pass->T);
    for (int64_t l = 0; l < L; l++) {
        const void *input = l == 0 ? net->saved[0].x1 : net->saved[l - 1].x2;
        p4_net_block(net, pass, l, input, l > 0, &net->saved[l]);
    }
}

void p4_net_train_forward(p4_net *net, const p4_form *form, int64_t B, int64_t T, float loss_scale,
                          const p4_grad_sink *sink)
{
    const p4_net_pass pass = {.form = form, .B = B, .T = T, .sink = sink};
    int64_t L = net->model->arch.L;

    all_blocks_forward(net, &pass);
    p4_net_norm(net, form, -1, P4_ROLE_FINAL_GAIN,
                (p4_add_norm_forward_args){.N = B * T,
                                           .x = net->saved[L - 1].x2,
                                           .opt_delta = net->delta,
                                           .opt_sum = net->final_x,
                                           .opt_y = net->final_n,
                                           .opt_mean = net->final_mean,
                                           .opt_rstd = net->final_rstd});
    head_forward_backward(net, &pass, loss_scale);
    norm_backward(net, &pass, -1, P4_ROLE_FINAL_GAIN,
                  (p4_norm_backward_args){.x = net->final_x,
                                          .opt_mean = net->final_mean,
                                          .rstd = net->final_rstd,
                                          .opt_dx_sums = vector_grad(net, sink, P4_ROLE_DOWN_BIAS, L - 1)});
}

void p4_net_train_block(p4_net *net, const p4_form *form, int64_t layer, int64_t B, int64_t T,
                        const p4_grad_sink *sink)
{
    const p4_net_pass pass = {.form = form, .B = B, .T = T, .sink = sink};
    p4_saved *saved = &net->saved[layer];
    if (net->plan.recompute == P4_RECOMPUTE_BLOCKS) {
        p4_net_block(net, &pass, layer, saved->x1, false, saved);
    }
    block_backward(net, &pass, layer);
}

void p4_net_train_embedding(p4_net *net, int64_t B, int64_t T, const p4_grad_sink *sink)
{
    const p4_arch *a = &net->model->arch;
    bool accumulate;
    float *dtoken = grad_of(sink, p4_model_find(net->model, P4_ROLE_EMBED, -1), &accumulate);
    if (dtoken != NULL) {
        net->ops->embed_backward(
            net->device,
            &(p4_embed_backward_args){.B = B,
                                      .T = T,
                                      .C = a->C,
                                      .V = a->V,
                                      .ids = net->ids,
                                      .dx = net->dx,
                                      .dtoken = dtoken,
                                      .opt_dposition = vector_grad(net, sink, P4_ROLE_POSITION, -1)});
    }
    p4_net_add_scores(net, B, T, net->teacher != NULL);
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
