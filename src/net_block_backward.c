/* net_block_backward.c - the backward pass of a block. Buffers: net_buffers.h. */
#include "src/net_block.h"

float *p4_net_vector_grad(const p4_net *net, const p4_grad_sink *sink, p4_role role, int64_t layer)
{
    bool accumulate;
    return p4_net_grad(sink, p4_model_find(net->model, role, layer), &accumulate);
}

static float *vector_grad(const p4_block *b, p4_role role)
{
    return p4_net_vector_grad(b->net, b->pass->sink, role, b->layer);
}

float *p4_net_bias_before(p4_net *net, const p4_net_pass *pass, int64_t at)
{
    bool any = at > 0 && p4_net_adds_as_is(&net->model->arch);
    return any ? p4_net_vector_grad(net, pass->sink, P4_ROLE_DOWN_BIAS, p4_net_layer(net, at - 1)) : NULL;
}

void p4_net_norm_backward(p4_net *net, const p4_net_pass *pass, int64_t layer, p4_role gain,
                          p4_norm_backward_args args)
{
    const p4_arch *a = &net->model->arch;
    args.kind = a->layer_norm ? P4_LAYERNORM : P4_RMSNORM;
    args.N = pass->B * pass->T;
    args.C = a->C;
    args.gain = p4_net_vector(net, pass->form, gain, layer);
    args.gain_offset = a->gain_offset ? 1.0f : 0.0f;
    args.opt_dgain = p4_net_vector_grad(net, pass->sink, gain, layer);
    args.opt_dbias = p4_net_vector_grad(net, pass->sink, p4_norm_bias_of(gain), layer);
    if (p4_net_step(net)) {
        net->ops->norm_backward(net->device, &args);
    }
}

void p4_net_compare_block(p4_net *net, const p4_net_pass *pass, int64_t at)
{
    const bool last = at == p4_net_blocks(net);
    if (!net->plan.blocks || at == 0) {
        return;
    }
    p4_cosine_distance_args args = {.N = pass->B * pass->T, .C = net->model->arch.C, .accumulate = !last};
    args.x = last ? p4_net_read(net, 0, P4_BUFFER_FINAL_X) : p4_net_read(net, at, P4_BUFFER_X1);
    args.dx = last ? p4_net_write(net, 0, P4_BUFFER_DX) : p4_net_read(net, 0, P4_BUFFER_DX);
    if (p4_net_step(net)) {
        args.target = net->teacher->blocks[at - 1];
        args.scale = net->teacher->blocks_scale;
        args.sum = net->sums + P4_SUM_BLOCK_DISTANCE;
        net->ops->cosine_distance(net->device, &args);
    }
}

/* --- projections ------------------------------------------------------------------------------- */

static p4_net_buffer again_of(p4_role role)
{
    return role == P4_ROLE_QKV  ? P4_BUFFER_AGAIN_N1
           : role == P4_ROLE_UP ? P4_BUFFER_AGAIN_N2
           : role == P4_ROLE_O  ? P4_BUFFER_AGAIN_ATT
                                : P4_BUFFER_AGAIN_H;
}

/* Are activations of this projection's input kept in every case, because more than the projection needs them?
 */
static bool always_kept(const p4_arch *a, p4_role role)
{
    return role == P4_ROLE_O || (a->no_pre_norm && role != P4_ROLE_DOWN);
}

/* The input that a projection multiplied, as activations: where the forward pass kept it, or in a buffer of
 * its own, rounded or converted from its codes or computed again. A trace passes through what may be. */
static const void *input_of(const p4_block *b, p4_role role)
{
    static const p4_int8_rows no_codes = {0};
    p4_net *net = b->net;
    p4_input kept = p4_net_input(b->arch, role);
    int64_t width = p4_arch_layer_dim(b->arch, p4_roles[role].cols, b->layer);
    bool rounds = p4_net_rounds(b, role), traced = net->trace != NULL;
    void *again = NULL;
    if (net->plan.recompute == P4_RECOMPUTE_LIGHT && !always_kept(b->arch, role)) {
        again = p4_net_write(net, b->at, again_of(role));
        p4_net_compute_again(b, role, again, rounds ? &no_codes : NULL);
        return traced ? p4_net_read(net, b->at, again_of(role)) : again;
    }
    const void *x =
        !rounds || traced || always_kept(b->arch, role) ? p4_net_read(net, b->at, kept.act) : NULL;
    if (!rounds) {
        return x;
    }
    again = p4_net_write(net, b->at, again_of(role));
    if (always_kept(b->arch, role)) {
        if (p4_net_step(net)) {
            net->ops->quantize_int8(net->device, again, &no_codes, x, b->N, width);
        }
    } else {
        p4_int8_rows codes = p4_net_read_codes(net, b->at, kept.codes);
        if (p4_net_step(net)) {
            net->ops->dequantize_int8(net->device, again, &codes, b->N, width);
        }
    }
    if (traced) { /* either of them is what the next step reads */
        p4_net_read(net, b->at, kept.act);
    }
    return p4_net_read(net, b->at, again_of(role));
}

/* dy's column sums to the bias of a projection whose bias gradient no other op sums. */
static void bias_backward(const p4_block *b, p4_role role, p4_net_buffer dy)
{
    float *db = vector_grad(b, p4_bias_of(role));
    if (db == NULL) {
        return;
    }
    const void *from = p4_net_read(b->net, b->at, dy);
    if (p4_net_step(b->net)) {
        int64_t first = p4_model_find(b->net->model, role, b->layer);
        int64_t out = p4_slot_rows(b->net->model, first);
        b->net->ops->linear_backward_bias(b->net->device, db, from, b->N, out, out);
    }
}

/* Straight-through: dw to the master as if the quantized weight had been it. */
static void weight_backward(const p4_block *b, p4_role role, p4_net_buffer dy)
{
    p4_net *net = b->net;
    const p4_grad_sink *sink = b->pass->sink;
    int64_t first = p4_model_find(net->model, role, b->layer), out = p4_slot_rows(net->model, first);
    bool accumulate;
    float *dw = p4_net_grad(sink, first, &accumulate);
    if (dw == NULL) {
        return;
    }
    p4_linear_backward_weight_args args = {.N = b->N,
                                           .in = net->model->params[first].cols,
                                           .out = out,
                                           .x = input_of(b, role),
                                           .dy = p4_net_read(net, b->at, dy),
                                           .ld_dy = out,
                                           .dw = dw,
                                           .accumulate = accumulate};
    if (p4_net_step(net)) {
        net->ops->linear_backward_weight(net->device, &args);
        if (sink->ready != NULL) {
            sink->ready(sink->user, first);
        }
    }
}

/* dx (= or +=) through the quantized weight that the forward pass used. */
static void input_backward(const p4_block *b, p4_role role, p4_net_buffer dx, p4_net_buffer dy,
                           bool accumulate)
{
    p4_net *net = b->net;
    int64_t first = p4_model_find(net->model, role, b->layer);
    const void *from = p4_net_read(net, b->at, dy), *w = p4_net_dense(net, b->pass->form, first);
    void *to = accumulate ? p4_net_read(net, b->at, dx) : p4_net_write(net, b->at, dx);
    if (p4_net_step(net)) {
        net->ops->linear_backward_input(net->device, to, from, w, b->N, net->model->params[first].cols,
                                        p4_slot_rows(net->model, first), accumulate);
    }
}

/* --- the block --------------------------------------------------------------------------------- */

/* DUP from dy, the gradient at DOWN's output, through `down` and the activation. */
static void down_backward(const p4_block *b, p4_net_buffer dy)
{
    const p4_arch *a = b->arch;
    p4_net *net = b->net;
    const void *from = p4_net_read(net, b->at, dy),
               *w = p4_net_dense(net, b->pass->form, p4_model_find(net->model, P4_ROLE_DOWN, b->layer)),
               *up = p4_net_read(net, b->at, P4_BUFFER_UP);
    void *dup = p4_net_write(net, b->at, P4_BUFFER_DUP),
         *dh = a->gated_mlp ? p4_net_write(net, b->at, P4_BUFFER_DH) : NULL;
    float *db = a->gated_mlp ? NULL : vector_grad(b, P4_ROLE_UP_BIAS);
    if (!p4_net_step(net)) {
        return;
    }
    if (a->gated_mlp) {
        net->ops->linear_gated_backward(net->device,
                                        &(p4_linear_gated_backward_args){.function = a->activation,
                                                                         .N = b->N,
                                                                         .F = p4_arch_mlp_width(a, b->layer),
                                                                         .out = a->C,
                                                                         .dy = from,
                                                                         .w = w,
                                                                         .gate_up = up,
                                                                         .dgate_up = dup,
                                                                         .dh_work = dh});
    } else {
        net->ops->linear_activate_backward(
            net->device, &(p4_linear_activate_backward_args){.function = a->activation,
                                                             .N = b->N,
                                                             .F = p4_arch_mlp_width(a, b->layer),
                                                             .out = a->C,
                                                             .dy = from,
                                                             .w = w,
                                                             .up = up,
                                                             .dup = dup,
                                                             .opt_db = db});
    }
}

/* From dy, the gradient at the output of DOWN, to dx (= or +=), that at the input of UP. */
static void mlp_backward(const p4_block *b, p4_net_buffer dy, p4_net_buffer dx, bool accumulate)
{
    if (p4_arch_has_experts(b->arch, b->layer)) { /* after a norm: dx is not accumulated */
        p4_net_experts_backward(b, dy, dx);
        return;
    }
    weight_backward(b, P4_ROLE_DOWN, dy);
    down_backward(b, dy);
    input_backward(b, P4_ROLE_UP, dx, P4_BUFFER_DUP, accumulate);
    if (b->arch->gated_mlp) {
        bias_backward(b, P4_ROLE_UP, P4_BUFFER_DUP);
    }
    weight_backward(b, P4_ROLE_UP, P4_BUFFER_DUP);
}

/* In place: the gradients at rotated queries and keys become those at QKV's product. */
static void query_and_key_norms_backward(const p4_block *b)
{
    p4_net *net = b->net;
    const p4_arch *a = b->arch;
    int64_t each = net->ops->act_bytes(net->device);
    const char *x = p4_net_read(net, b->at, P4_BUFFER_RAW);
    char *dqkv = p4_net_read(net, b->at, P4_BUFFER_DQKV);
    const float *q_rstd = p4_net_read(net, b->at, P4_BUFFER_Q_RSTD),
                *k_rstd = p4_net_read(net, b->at, P4_BUFFER_K_RSTD);
    if (!p4_net_step(net)) {
        return;
    }
    int64_t q = p4_arch_dim(a, P4_DIM_Q), kv = p4_arch_dim(a, P4_DIM_KV), width = p4_arch_dim(a, P4_DIM_QKV);
    p4_head_norm_backward_args args = {.N = b->N,
                                       .heads = q / p4_arch_dim(a, P4_DIM_QN),
                                       .D = p4_arch_dim(a, P4_DIM_QN),
                                       .dy = dqkv,
                                       .ld_dy = width,
                                       .x = x,
                                       .ld_x = width,
                                       .rstd = q_rstd,
                                       .gain = p4_net_vector(net, b->pass->form, P4_ROLE_Q_GAIN, b->layer),
                                       .gain_offset = a->gain_offset ? 1.0f : 0.0f,
                                       .dx = dqkv,
                                       .ld_dx = width,
                                       .opt_dgain = vector_grad(b, P4_ROLE_Q_GAIN)};
    net->ops->head_norm_backward(net->device, &args);
    args.heads = kv / p4_arch_dim(a, P4_DIM_KN);
    args.D = p4_arch_dim(a, P4_DIM_KN);
    args.dy = args.dx = dqkv + q * each;
    args.x = x + q * each;
    args.rstd = k_rstd;
    args.gain = p4_net_vector(net, b->pass->form, P4_ROLE_K_GAIN, b->layer);
    args.opt_dgain = vector_grad(b, P4_ROLE_K_GAIN);
    net->ops->head_norm_backward(net->device, &args);
}

/* The buffer with the gradient at QKV's product, from that before the rotation, in DQKV. */
static p4_net_buffer qkv_backward(const p4_block *b)
{
    p4_net *net = b->net;
    if (b->arch->qk_norm != P4_QK_NORM_NONE) {
        query_and_key_norms_backward(b);
    } else if (b->arch->qkv_by_head) {
        const void *dqkv = p4_net_read(net, b->at, P4_BUFFER_DQKV);
        void *draw = p4_net_write(net, b->at, P4_BUFFER_DRAW);
        if (p4_net_step(net)) {
            p4_net_regroup(b, draw, dqkv, true);
        }
        return P4_BUFFER_DRAW;
    }
    return P4_BUFFER_DQKV;
}

/* From dy, the gradient at the output of O, to dx (= or +=), that at the input of QKV. */
static void attention_backward(const p4_block *b, p4_net_buffer dy, p4_net_buffer dx, bool accumulate)
{
    p4_net *net = b->net;
    weight_backward(b, P4_ROLE_O, dy);
    input_backward(b, P4_ROLE_O, P4_BUFFER_DATT, dy, false);
    if (net->plan.recompute == P4_RECOMPUTE_LIGHT && b->arch->qk_norm != P4_QK_NORM_NONE) {
        p4_net_finish_qkv(b);
    }
    p4_attention_backward_args args = {.shape = p4_net_attention(net, b->layer, b->pass->B, b->pass->T),
                                       .qkv = p4_net_read(net, b->at, P4_BUFFER_QKV),
                                       .out = p4_net_read(net, b->at, P4_BUFFER_ATT),
                                       .lse = p4_net_read(net, b->at, P4_BUFFER_LSE),
                                       .dout = p4_net_read(net, b->at, P4_BUFFER_DATT),
                                       .dqkv = p4_net_write(net, b->at, P4_BUFFER_DQKV),
                                       .work = p4_net_attention_work(net)};
    if (p4_net_step(net)) {
        net->ops->attention_backward(net->device, &args);
    }
    void *dqkv = p4_net_read(net, b->at, P4_BUFFER_DQKV);
    if (p4_net_step(net)) {
        p4_net_rope(b, dqkv, true);
    }
    p4_net_buffer dproduct = qkv_backward(b);
    weight_backward(b, P4_ROLE_QKV, dproduct); /* first, as its sum over ranks may go on beside the rest */
    input_backward(b, P4_ROLE_QKV, dx, dproduct, accumulate);
    bias_backward(b, P4_ROLE_QKV, dproduct);
}

/* DX += the gradient dn at the output of the norm before QKV or UP, through the norm. dx_sums: as in the op.
 */
static void norm_backward(const p4_block *b, p4_role role, p4_net_buffer dn, float *dx_sums)
{
    p4_net *net = b->net;
    bool first = role == P4_ROLE_QKV;
    p4_norm_backward_args args = {.accumulate = true, .opt_dx_sums = dx_sums};
    args.x = p4_net_read(net, b->at, first || b->arch->parallel ? P4_BUFFER_X1 : P4_BUFFER_X2);
    args.rstd = p4_net_read(net, b->at, first ? P4_BUFFER_RSTD1 : P4_BUFFER_RSTD2);
    if (b->arch->layer_norm) {
        args.opt_mean = p4_net_read(net, b->at, first ? P4_BUFFER_MEAN1 : P4_BUFFER_MEAN2);
    }
    args.dy = p4_net_read(net, b->at, dn);
    args.dx = p4_net_read(net, b->at, P4_BUFFER_DX);
    p4_net_norm_backward(net, b->pass, b->layer, first ? P4_ROLE_NORM1_GAIN : P4_ROLE_NORM2_GAIN, args);
}

/* The buffer with the gradient at the output of O or DOWN, whose product goes through a norm or a factor to
 * the residual stream, or as it is. */
static p4_net_buffer add_backward(const p4_block *b, p4_role role)
{
    p4_net *net = b->net;
    bool first = role == P4_ROLE_O;
    if (p4_net_adds_as_is(b->arch)) {
        return P4_BUFFER_DX;
    }
    const void *dx = p4_net_read(net, b->at, P4_BUFFER_DX);
    void *dy = p4_net_write(net, b->at, P4_BUFFER_DY);
    if (b->arch->post_norm) {
        p4_net_norm_backward(
            net, b->pass, b->layer, first ? P4_ROLE_POST1_GAIN : P4_ROLE_POST2_GAIN,
            (p4_norm_backward_args){
                .dy = dx,
                .x = p4_net_read(net, b->at, first ? P4_BUFFER_OUT1 : P4_BUFFER_OUT2),
                .rstd = p4_net_read(net, b->at, first ? P4_BUFFER_POST1_RSTD : P4_BUFFER_POST2_RSTD),
                .dx = dy});
    } else if (p4_net_step(net)) {
        net->ops->add(net->device, dy, NULL, dx, b->arch->residual_scale, b->N * b->arch->C);
    }
    bias_backward(b, role, P4_BUFFER_DY);
    return P4_BUFFER_DY;
}

static void parallel_backward(const p4_block *b)
{
    p4_net_buffer dy = add_backward(b, P4_ROLE_DOWN);
    bool shared = b->arch->shared_norm;
    bias_backward(b, P4_ROLE_O, dy);
    mlp_backward(b, dy, shared ? P4_BUFFER_DN : P4_BUFFER_DN2, false);
    attention_backward(b, dy, P4_BUFFER_DN, shared);
    if (!shared) {
        norm_backward(b, P4_ROLE_UP, P4_BUFFER_DN2, NULL);
    }
    p4_net_compare_block(b->net, b->pass, b->at);
    norm_backward(b, P4_ROLE_QKV, P4_BUFFER_DN, p4_net_bias_before(b->net, b->pass, b->at));
}

/* Projections without a norm before them add to DX themselves. */
static void post_norm_backward(const p4_block *b)
{
    mlp_backward(b, add_backward(b, P4_ROLE_DOWN), P4_BUFFER_DX, true);
    attention_backward(b, add_backward(b, P4_ROLE_O), P4_BUFFER_DX, true);
    p4_net_compare_block(b->net, b->pass, b->at);
}

void p4_net_block_backward(const p4_block *b)
{
    if (b->arch->parallel) {
        parallel_backward(b);
        return;
    }
    if (b->arch->no_pre_norm) {
        post_norm_backward(b);
        return;
    }
    float *db = p4_net_adds_as_is(b->arch) ? vector_grad(b, P4_ROLE_O_BIAS) : NULL;
    mlp_backward(b, add_backward(b, P4_ROLE_DOWN), P4_BUFFER_DN, false);
    norm_backward(b, P4_ROLE_UP, P4_BUFFER_DN, db);
    attention_backward(b, add_backward(b, P4_ROLE_O), P4_BUFFER_DN, false);
    p4_net_compare_block(b->net, b->pass, b->at); /* before DX is summed for the bias */
    norm_backward(b, P4_ROLE_QKV, P4_BUFFER_DN, p4_net_bias_before(b->net, b->pass, b->at));
}
