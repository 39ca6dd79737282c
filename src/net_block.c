/* net_block.c - the forward pass of a block. Buffers: net_buffers.h. */
#include "src/net_block.h"

p4_block p4_net_block_at(p4_net *net, const p4_net_pass *pass, int64_t at)
{
    return (p4_block){.net = net,
                      .pass = pass,
                      .arch = &net->model->arch,
                      .N = pass->B * pass->T,
                      .at = at,
                      .layer = p4_net_layer(net, at)};
}

p4_input p4_net_input(const p4_arch *arch, p4_role role)
{
    switch (role) {
    case P4_ROLE_QKV:
        return (p4_input){arch->no_pre_norm ? P4_BUFFER_X1 : P4_BUFFER_N1, P4_BUFFER_N1_CODES};
    case P4_ROLE_O:
        return (p4_input){P4_BUFFER_ATT, P4_BUFFER_ATT_CODES};
    case P4_ROLE_UP:
        if (arch->shared_norm) {
            return (p4_input){P4_BUFFER_N1, P4_BUFFER_N1_CODES};
        }
        return (p4_input){arch->no_pre_norm ? P4_BUFFER_X2 : P4_BUFFER_N2, P4_BUFFER_N2_CODES};
    default:
        return (p4_input){P4_BUFFER_H, P4_BUFFER_H_CODES};
    }
}

bool p4_net_rounds(const p4_block *b, p4_role role)
{
    const p4_net *net = b->net;
    int64_t first = p4_model_find(net->model, role, b->layer);
    return net->plan.activation_bits == 8 && p4_arch_copies(b->arch, role, b->layer) == 1 &&
           (net->trace != NULL || b->pass->form->weights[first].dtype == P4_TERNARY);
}

static const float *slot_bias(const p4_block *b, p4_role role)
{
    return p4_net_vector(b->net, b->pass->form, p4_bias_of(role), b->layer);
}

/* A buffer for a statistic that only a backward pass reads. */
static float *statistic(const p4_block *b, p4_net_buffer buffer)
{
    return b->net->plan.train ? p4_net_write(b->net, b->at, buffer) : NULL;
}

static float *mean(const p4_block *b, p4_net_buffer buffer)
{
    return b->arch->layer_norm ? statistic(b, buffer) : NULL;
}

/* Where the op that produces a projection's input puts it: as activations or as codes. */
typedef struct target {
    void *act;
    p4_int8_rows codes;
    const p4_int8_rows *rounded; /* codes, or NULL */
} target;

static void aim(const p4_block *b, p4_role role, target *t)
{
    p4_input input = p4_net_input(b->arch, role);
    bool rounds = p4_net_rounds(b, role), traced = b->net->trace != NULL;
    *t = (target){0};
    if (!rounds || traced) { /* a trace stands for both */
        t->act = p4_net_write(b->net, b->at, input.act);
    }
    if (rounds) {
        t->codes = p4_net_write_codes(b->net, b->at, input.codes);
        t->rounded = &t->codes;
    }
}

/* A projection's input, which exists as activations, as codes where it multiplies these. */
static void round_input(const p4_block *b, p4_role role)
{
    p4_input input = p4_net_input(b->arch, role);
    if (p4_net_rounds(b, role)) {
        const void *x = p4_net_read(b->net, b->at, input.act);
        p4_int8_rows codes = p4_net_write_codes(b->net, b->at, input.codes);
        if (p4_net_step(b->net)) {
            const p4_role_facts *facts = &p4_roles[role];
            b->net->ops->quantize_int8(b->net->device, NULL, &codes, x, b->N,
                                       p4_arch_layer_dim(b->arch, facts->cols, b->layer));
        }
    }
}

/* --- projections ------------------------------------------------------------------------------- */

static void show(const p4_block *b, int64_t first, const void *x, const void *y, int64_t in, int64_t out)
{
    const p4_probe *probe = b->pass->probe;
    if (probe != NULL && probe->slot != NULL) {
        probe->slot(probe->user, first, x, in, y, out, b->N);
    }
}

/* y = the slot of this role of its rounded input. */
static void project_codes(const p4_block *b, p4_role role, p4_net_buffer to)
{
    p4_net *net = b->net;
    int64_t first = p4_model_find(net->model, role, b->layer), in = net->model->params[first].cols,
            out = p4_slot_rows(net->model, first), each = net->ops->act_bytes(net->device);
    p4_int8_rows x = p4_net_read_codes(net, b->at, p4_net_input(b->arch, role).codes);
    void *y = p4_net_write(net, b->at, to), *xq = p4_net_write_bytes(net, P4_BUFFER_XQ, b->N * in * each),
         *w = p4_net_write_bytes(net, P4_BUFFER_WEIGHT, out * p4_int8_width(in) * each);
    if (!p4_net_step(net)) {
        return;
    }
    net->ops->linear_forward_int8(net->device,
                                  &(p4_linear_forward_int8_args){.N = b->N,
                                                                 .in = in,
                                                                 .out = out,
                                                                 .x = x,
                                                                 .weights = &b->pass->form->weights[first],
                                                                 .parts = p4_model_parts(net->model, first),
                                                                 .opt_bias = slot_bias(b, role),
                                                                 .y = y,
                                                                 .x_work = xq,
                                                                 .w_work = w});
    if (b->pass->probe != NULL) { /* it sees the input that was multiplied */
        net->ops->dequantize_int8(net->device, xq, &x, b->N, in);
        show(b, first, xq, y, in, out);
    }
}

/* The slot as it is stored: in a pass with a cache. */
static void project_stored(const p4_block *b, p4_role role, p4_net_buffer to)
{
    p4_net *net = b->net;
    int64_t first = p4_model_find(net->model, role, b->layer), in = net->model->params[first].cols,
            out = p4_slot_rows(net->model, first), each = net->ops->act_bytes(net->device);
    p4_linear_forward_weights_args args = {.N = b->N, .in = in, .out = out, .opt_bias = slot_bias(b, role)};
    args.x = p4_net_read(net, b->at, p4_net_input(b->arch, role).act);
    args.y = p4_net_write(net, b->at, to);
    args.w_work = p4_net_write_bytes(net, P4_BUFFER_WEIGHT, out * in * each);
    if (p4_net_step(net)) {
        args.weights = &b->pass->form->weights[first];
        args.parts = p4_model_parts(net->model, first);
        net->ops->linear_forward_weights(net->device, &args);
    }
}

static void project_act(const p4_block *b, p4_role role, p4_net_buffer to)
{
    p4_net *net = b->net;
    int64_t first = p4_model_find(net->model, role, b->layer), in = net->model->params[first].cols,
            out = p4_slot_rows(net->model, first);
    const void *x = p4_net_read(net, b->at, p4_net_input(b->arch, role).act);
    void *y = p4_net_write(net, b->at, to);
    const void *w = p4_net_dense(net, b->pass->form, first);
    if (p4_net_step(net)) {
        net->ops->linear_forward(net->device, y, x, w, slot_bias(b, role), b->N, in, out);
        show(b, first, x, y, in, out);
    }
}

static void project(const p4_block *b, p4_role role, p4_net_buffer to)
{
    bool rounds = p4_net_rounds(b, role);
    if (role == P4_ROLE_DOWN && p4_arch_has_experts(b->arch, b->layer)) {
        p4_net_experts_down(b, to);
        return;
    }
    if (rounds) {
        project_codes(b, role, to);
    }
    if (!rounds || b->net->trace != NULL) {
        (b->net->plan.cached ? project_stored : project_act)(b, role, to);
    }
}

/* --- attention --------------------------------------------------------------------------------- */

void p4_net_rope(const p4_block *b, void *qkv, bool backward)
{
    const p4_arch *a = b->arch;
    const p4_rope_table *table =
        p4_arch_uses_local_rope(a, b->layer) ? &b->net->windowed_rope : &b->net->rope;
    if (!p4_arch_rotates(a, b->layer)) {
        return;
    }
    int64_t first = b->pass->cache != NULL ? b->pass->cache->past * p4_arch_rope_dim(a) / 2 : 0;
    b->net->ops->rope(b->net->device, &(p4_rope_args){.N = b->N,
                                                      .T = b->pass->T,
                                                      .heads = a->H + a->Hkv,
                                                      .D = a->D,
                                                      .R = p4_arch_rope_dim(a),
                                                      .qkv = qkv,
                                                      .row_width = p4_arch_dim(a, P4_DIM_QKV),
                                                      .neighbors = a->rope_pairs,
                                                      .cos_table = table->cos + first,
                                                      .sin_table = table->sin + first,
                                                      .backward = backward});
}

/* QKV from RAW: queries and keys through their norms, values as they are. */
static void norm_queries_and_keys(const p4_block *b)
{
    p4_net *net = b->net;
    const p4_arch *a = b->arch;
    int64_t each = net->ops->act_bytes(net->device);
    const char *x = p4_net_read(net, b->at, P4_BUFFER_RAW);
    char *y = p4_net_write(net, b->at, P4_BUFFER_QKV);
    float *q_rstd = statistic(b, P4_BUFFER_Q_RSTD), *k_rstd = statistic(b, P4_BUFFER_K_RSTD);
    if (!p4_net_step(net)) {
        return;
    }
    int64_t q = p4_arch_dim(a, P4_DIM_Q), kv = p4_arch_dim(a, P4_DIM_KV), width = p4_arch_dim(a, P4_DIM_QKV),
            values = (q + kv) * each;
    p4_head_norm_forward_args args = {.N = b->N,
                                      .heads = q / p4_arch_dim(a, P4_DIM_QN),
                                      .D = p4_arch_dim(a, P4_DIM_QN),
                                      .eps = a->norm_eps,
                                      .x = x,
                                      .ld_x = width,
                                      .gain = p4_net_vector(net, b->pass->form, P4_ROLE_Q_GAIN, b->layer),
                                      .gain_offset = a->gain_offset ? 1.0f : 0.0f,
                                      .y = y,
                                      .ld_y = width,
                                      .opt_rstd = q_rstd};
    net->ops->head_norm_forward(net->device, &args);
    args.heads = kv / p4_arch_dim(a, P4_DIM_KN);
    args.D = p4_arch_dim(a, P4_DIM_KN);
    args.x = x + q * each;
    args.gain = p4_net_vector(net, b->pass->form, P4_ROLE_K_GAIN, b->layer);
    args.y = y + q * each;
    args.opt_rstd = k_rstd;
    net->ops->head_norm_forward(net->device, &args);
    net->ops->copy_groups(net->device, &(p4_copy_groups_args){.N = b->N,
                                                              .I = 1,
                                                              .J = 1,
                                                              .D = kv,
                                                              .x = x + values,
                                                              .ld_x = width,
                                                              .y = y + values,
                                                              .ld_y = width});
}

/* Moves heads from groups of `per` heads, each group `from` elements behind the one before it, to where they
 * lie side by side: Hkv groups of J times `per` heads. Backward: the other way. */
static void move_heads(const p4_block *b, char *y, const char *x, int64_t J, int64_t per, bool backward)
{
    const p4_arch *a = b->arch;
    const int64_t width = p4_arch_dim(a, P4_DIM_QKV), each = per * a->D, group = (a->H / a->Hkv + 2) * a->D,
                  part = a->Hkv * each;
    p4_copy_groups_args args = {
        .N = b->N, .I = a->Hkv, .J = J, .D = each, .x = x, .ld_x = width, .y = y, .ld_y = width};
    args.x_i = backward ? each : group;
    args.x_j = backward ? part : each;
    args.y_i = backward ? group : each;
    args.y_j = backward ? each : part;
    b->net->ops->copy_groups(b->net->device, &args);
}

void p4_net_regroup(const p4_block *b, void *y, const void *x, bool backward)
{
    const p4_arch *a = b->arch;
    const int64_t heads = a->H / a->Hkv, act = b->net->ops->act_bytes(b->net->device);
    if (heads == 1) { /* queries are like keys and values: one op for all three */
        move_heads(b, y, x, 3, 1, backward);
        return;
    }
    const int64_t apart = heads * a->D * act, together = a->H * a->D * act; /* where keys begin */
    move_heads(b, y, x, 1, heads, backward);
    move_heads(b, (char *)y + (backward ? apart : together), (const char *)x + (backward ? together : apart),
               2, 1, backward);
}

void p4_net_finish_qkv(const p4_block *b)
{
    p4_net *net = b->net;
    if (b->arch->qk_norm != P4_QK_NORM_NONE) {
        norm_queries_and_keys(b);
    } else if (b->arch->qkv_by_head) {
        const void *raw = p4_net_read(net, b->at, P4_BUFFER_RAW);
        void *qkv = p4_net_write(net, b->at, P4_BUFFER_QKV);
        if (p4_net_step(net)) {
            p4_net_regroup(b, qkv, raw, false);
        }
    }
    void *qkv = p4_net_read(net, b->at, P4_BUFFER_QKV);
    if (p4_net_step(net)) {
        p4_net_rope(b, qkv, false);
    }
}

/* ATT from QKV, and its keys and values into the cache. */
static void attend_to_cache(const p4_block *b)
{
    p4_net *net = b->net;
    const p4_net_cache *cache = b->pass->cache;
    p4_attention_cached_args args = {.shape = p4_net_attention(net, b->layer, 1, b->pass->T),
                                     .qkv = p4_net_read(net, b->at, P4_BUFFER_QKV),
                                     .out = p4_net_write(net, b->at, P4_BUFFER_ATT)};
    if (p4_net_step(net)) {
        args.past = cache->past;
        args.capacity = cache->capacity;
        args.type = cache->type;
        args.keys = cache->keys[b->layer];
        args.values = cache->values[b->layer];
        net->ops->attention_cached(net->device, &args);
    }
}

/* ATT from QKV's input. */
static void attend(const p4_block *b)
{
    p4_net *net = b->net;
    bool more = b->arch->qk_norm != P4_QK_NORM_NONE || b->arch->qkv_by_head;
    project(b, P4_ROLE_QKV, more ? P4_BUFFER_RAW : P4_BUFFER_QKV);
    p4_net_finish_qkv(b);
    if (net->plan.cached) {
        attend_to_cache(b);
        round_input(b, P4_ROLE_O);
        return;
    }
    p4_attention_forward_args args = {.shape = p4_net_attention(net, b->layer, b->pass->B, b->pass->T),
                                      .qkv = p4_net_read(net, b->at, P4_BUFFER_QKV),
                                      .out = p4_net_write(net, b->at, P4_BUFFER_ATT),
                                      .opt_lse = statistic(b, P4_BUFFER_LSE),
                                      .work = p4_net_attention_work(net)};
    if (p4_net_step(net)) {
        net->ops->attention_forward(net->device, &args);
    }
    round_input(b, P4_ROLE_O);
}

/* --- MLP --------------------------------------------------------------------------------------- */

/* H from UP's input. An activation that is not gated is computed together with the product before it, unless
 * that product or the next one works on codes or on weights as they are stored. */
static void up_and_activate(const p4_block *b)
{
    p4_net *net = b->net;
    const p4_arch *a = b->arch;
    target h;
    if (p4_arch_has_experts(a, b->layer)) {
        p4_net_experts_up(b);
        return;
    }
    if (a->gated_mlp || net->plan.cached || p4_net_rounds(b, P4_ROLE_DOWN) || p4_net_rounds(b, P4_ROLE_UP)) {
        project(b, P4_ROLE_UP, P4_BUFFER_UP);
        const void *up = p4_net_read(net, b->at, P4_BUFFER_UP);
        aim(b, P4_ROLE_DOWN, &h);
        if (p4_net_step(net)) {
            p4_net_activate(b, h.act, h.rounded, up);
        }
        return;
    }
    int64_t first = p4_model_find(net->model, P4_ROLE_UP, b->layer);
    p4_linear_activate_forward_args args = {.function = a->activation,
                                            .N = b->N,
                                            .in = a->C,
                                            .out = p4_arch_mlp_width(a, b->layer),
                                            .x = p4_net_read(net, b->at, p4_net_input(a, P4_ROLE_UP).act),
                                            .w = p4_net_dense(net, b->pass->form, first),
                                            .opt_bias = slot_bias(b, P4_ROLE_UP),
                                            .up = p4_net_write(net, b->at, P4_BUFFER_UP)};
    aim(b, P4_ROLE_DOWN, &h);
    args.h = h.act;
    if (p4_net_step(net)) {
        net->ops->linear_activate_forward(net->device, &args);
        show(b, first, args.x, args.up, a->C, args.out);
    }
}

/* --- the block --------------------------------------------------------------------------------- */

/* X1: with add_delta the sum that the block before left, and its addend. */
static p4_add_norm_forward_args first_sum(const p4_block *b, bool add_delta)
{
    p4_net *net = b->net;
    p4_add_norm_forward_args args = {.N = b->N};
    if (add_delta) {
        args.x = p4_net_read(net, b->at - 1, p4_net_stream(b->arch));
        args.opt_delta = p4_net_read(net, b->at, P4_BUFFER_DELTA);
        args.opt_sum = p4_net_write(net, b->at, P4_BUFFER_X1);
    } else {
        args.x = p4_net_read(net, b->at, P4_BUFFER_X1);
    }
    return args;
}

/* X2 = X1 + DELTA. */
static p4_add_norm_forward_args second_sum(const p4_block *b)
{
    p4_net *net = b->net;
    return (p4_add_norm_forward_args){.N = b->N,
                                      .x = p4_net_read(net, b->at, P4_BUFFER_X1),
                                      .opt_delta = p4_net_read(net, b->at, P4_BUFFER_DELTA),
                                      .opt_sum = p4_net_write(net, b->at, P4_BUFFER_X2)};
}

/* The sum, and its norm to the input of a projection: QKV or UP. */
static void sum_and_norm(const p4_block *b, p4_role to, p4_add_norm_forward_args sum)
{
    p4_net *net = b->net;
    p4_role gain = p4_net_norm_before(b->arch, to);
    bool first = gain == P4_ROLE_NORM1_GAIN;
    target y;
    aim(b, to, &y);
    sum.opt_y = y.act;
    sum.opt_rounded = y.rounded;
    sum.opt_mean = mean(b, first ? P4_BUFFER_MEAN1 : P4_BUFFER_MEAN2);
    sum.opt_rstd = statistic(b, first ? P4_BUFFER_RSTD1 : P4_BUFFER_RSTD2);
    p4_net_norm(net, b->pass->form, b->layer, gain, sum);
}

/* The sum, which is the input of a projection as it is. */
static void sum_alone(const p4_block *b, p4_role to, p4_add_norm_forward_args sum)
{
    p4_net *net = b->net;
    if (sum.opt_delta != NULL || net->trace != NULL) {
        if (p4_net_step(net)) {
            net->ops->add(net->device, sum.opt_sum, sum.x, sum.opt_delta, p4_net_delta_scale(b->arch),
                          b->N * b->arch->C);
        }
    }
    round_input(b, to);
}

/* DELTA from the input of O or DOWN. */
static void add_later(const p4_block *b, p4_role role)
{
    p4_net *net = b->net;
    bool first = role == P4_ROLE_O;
    p4_net_buffer out = first ? P4_BUFFER_OUT1 : P4_BUFFER_OUT2;
    if (!b->arch->post_norm) {
        project(b, role, P4_BUFFER_DELTA);
        return;
    }
    project(b, role, out);
    p4_net_norm(net, b->pass->form, b->layer, first ? P4_ROLE_POST1_GAIN : P4_ROLE_POST2_GAIN,
                (p4_add_norm_forward_args){
                    .N = b->N,
                    .x = p4_net_read(net, b->at, out),
                    .opt_y = p4_net_write(net, b->at, P4_BUFFER_DELTA),
                    .opt_rstd = statistic(b, first ? P4_BUFFER_POST1_RSTD : P4_BUFFER_POST2_RSTD)});
}

/* x + attention(norm1(x)) + mlp(norm2(x)). A norm for both is computed once, unless one of the projections
 * takes codes and the other one activations. */
static void parallel_forward(const p4_block *b, bool add_delta, bool again)
{
    p4_net *net = b->net;
    sum_and_norm(b, P4_ROLE_QKV, first_sum(b, add_delta));
    if (!b->arch->shared_norm || p4_net_rounds(b, P4_ROLE_QKV) != p4_net_rounds(b, P4_ROLE_UP)) {
        sum_and_norm(b, P4_ROLE_UP, first_sum(b, false));
    }
    attend(b);
    up_and_activate(b);
    if (again) {
        return;
    }
    project(b, P4_ROLE_O, P4_BUFFER_OUT1);
    project(b, P4_ROLE_DOWN, P4_BUFFER_OUT2);
    const void *out1 = p4_net_read(net, b->at, P4_BUFFER_OUT1),
               *out2 = p4_net_read(net, b->at, P4_BUFFER_OUT2);
    void *delta = p4_net_write(net, b->at, P4_BUFFER_DELTA);
    if (p4_net_step(net)) {
        net->ops->add(net->device, delta, out1, out2, 1.0f, b->N * b->arch->C);
    }
}

void p4_net_block_forward(const p4_block *b, bool add_delta, bool again)
{
    if (b->arch->parallel) {
        parallel_forward(b, add_delta, again);
        return;
    }
    void (*enter)(const p4_block *, p4_role, p4_add_norm_forward_args) =
        b->arch->no_pre_norm ? sum_alone : sum_and_norm;
    enter(b, P4_ROLE_QKV, first_sum(b, add_delta));
    attend(b);
    add_later(b, P4_ROLE_O);
    enter(b, P4_ROLE_UP, second_sum(b));
    up_and_activate(b);
    if (!again || b->arch->post_norm) { /* the backward pass of a norm needs its input */
        add_later(b, P4_ROLE_DOWN);
    }
}
