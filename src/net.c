#include "src/net.h"

#include <stdlib.h>
#include <string.h>

typedef struct widths {
    int64_t N, C, qkv, att, up, F,
        slot; /* slot: elements of the largest weight as linear_forward_int8 lays it out */
} widths;

int64_t p4_slot_rows(const p4_model *model, int64_t first)
{
    int64_t rows = 0;
    for (int64_t i = 0; i < p4_model_parts(model, first); i++) {
        const p4_param *part = &model->params[first + i];
        rows += part->vector ? part->cols : part->rows;
    }
    return rows;
}

int64_t p4_net_head_param(const p4_net *net)
{
    return p4_model_find(net->model, net->model->arch.tied ? P4_ROLE_EMBED : P4_ROLE_HEAD, -1);
}

p4_attention_shape p4_net_attention(const p4_net *net, int64_t layer, int64_t B, int64_t T)
{
    const p4_arch *a = &net->model->arch;
    return (p4_attention_shape){.B = B,
                                .T = T,
                                .H = a->H,
                                .Hkv = a->Hkv,
                                .D = a->D,
                                .window = p4_arch_window(a, layer),
                                .scale = p4_arch_attention_scale(a, layer)};
}

/* With one token, as support does not depend on B and T. */
p4_rc p4_net_check_device(const p4_ops *ops, p4_device *device, const p4_model *model)
{
    const p4_arch *a = &model->arch;
    const p4_net net = {.model = model};
    p4_attention_shape shape = p4_net_attention(&net, 0, 1, 1);
    return ops->attention_work_count(device, &shape, true) >= 0
               ? P4_OK
               : FAIL("model family \"%s\" needs attention with heads of %lld elements, which this version "
                      "does not compute on device \"%s\"",
                      a->family, (long long)a->D, ops->name);
}

static widths measure(const p4_net *net)
{
    const p4_arch *a = &net->model->arch;
    widths w = {.N = net->plan.B * net->plan.T, .C = a->C, .F = a->F};
    w.qkv = (a->H + 2 * a->Hkv) * a->D;
    w.att = a->H * a->D;
    w.up = a->gated_mlp ? 2 * a->F : a->F;
    w.slot = net->plan.head ? net->logits_ld * a->C : 0;
    w.slot = p4_max_i64(w.slot, w.qkv * p4_int8_width(a->C));
    w.slot = p4_max_i64(w.slot, a->C * p4_int8_width(w.att));
    w.slot = p4_max_i64(w.slot, w.up * p4_int8_width(a->C));
    w.slot = p4_max_i64(w.slot, a->C * p4_int8_width(a->F));
    return w;
}

static p4_int8_rows take_rows(p4_arena *arena, int64_t N, int64_t C)
{
    p4_int8_rows rows = {.codes = p4_arena_take(arena, N * p4_int8_width(C))};
    rows.s = p4_arena_take(arena, N * 4);
    return rows;
}

/* The input of a projection of layer l: in the form that it multiplies where that is known and all layers
 * keep theirs, in both where one place serves several layers or forms. */
static p4_input take_input(p4_net *net, p4_arena *arena, int64_t l, p4_role role, int64_t N, int64_t C)
{
    const p4_net_plan *plan = &net->plan;
    p4_input input = {.rounded = net->rounded};
    bool eight = plan->activation_bits == 8, known = plan->train && plan->recompute == P4_RECOMPUTE_NONE;
    bool ternary = net->model->params[p4_model_find(net->model, role, l)].ternary;
    if (plan->train && plan->recompute == P4_RECOMPUTE_LIGHT) {
        return input;
    }
    if (!(eight && known && ternary)) {
        input.act = p4_arena_take(arena, N * C * net->ops->act_bytes(net->device));
    }
    if (eight && plan->train && (ternary || !known)) {
        input.rounded = take_rows(arena, N, C);
    }
    return input;
}

static void lay_out_saved(p4_net *net, p4_arena *arena, const widths *w, int64_t l, bool x1, bool rest)
{
    p4_saved *s = &net->saved[l];
    int64_t each = net->ops->act_bytes(net->device), N = w->N;
    bool train = net->plan.train, layer_norm = net->model->arch.layer_norm;
    if (x1) {
        s->x1 = p4_arena_take(arena, N * w->C * each);
    }
    if (!rest) {
        return;
    }
    s->n1 = take_input(net, arena, l, P4_ROLE_QKV, N, w->C);
    s->qkv = p4_arena_take(arena, N * w->qkv * each);
    s->att = (p4_input){.act = p4_arena_take(arena, N * w->att * each), .rounded = net->rounded};
    s->x2 = p4_arena_take(arena, N * w->C * each);
    s->n2 = take_input(net, arena, l, P4_ROLE_UP, N, w->C);
    s->up = p4_arena_take(arena, N * w->up * each);
    s->h = take_input(net, arena, l, P4_ROLE_DOWN, N, w->F);
    if (train) {
        s->rstd1 = p4_arena_take(arena, N * 4);
        s->rstd2 = p4_arena_take(arena, N * 4);
        s->lse = p4_arena_take(arena, N * net->model->arch.H * 4);
        s->mean1 = layer_norm ? p4_arena_take(arena, N * 4) : NULL;
        s->mean2 = layer_norm ? p4_arena_take(arena, N * 4) : NULL;
    }
}

/* When blocks are computed again every one keeps its input, and all share the first block's other buffers. */
static void lay_out_blocks(p4_net *net, p4_arena *arena, const widths *w)
{
    const p4_net_plan *plan = &net->plan;
    int64_t blocks = plan->train ? net->model->arch.L : 1,
            widest = p4_max_i64(p4_max_i64(w->C, w->att), w->F);
    if (plan->activation_bits == 8) {
        net->rounded =
            take_rows(arena, w->N, plan->train && plan->recompute != P4_RECOMPUTE_LIGHT ? w->att : widest);
    }
    for (int64_t l = 0; l < blocks; l++) {
        bool shared = net->plan.recompute == P4_RECOMPUTE_BLOCKS && l > 0;
        if (shared) {
            net->saved[l] = net->saved[0];
        }
        lay_out_saved(net, arena, w, l, true, !shared);
    }
}

/* Room for the backward pass. Its buffers also hold what is dead before they are needed: the final norm's
 * input and output, the forward pass's delta and, when they are computed again, a block's n1, n2 and h. */
static void lay_out_backward(p4_net *net, p4_arena *arena, const widths *w)
{
    int64_t each = net->ops->act_bytes(net->device), N = w->N;
    net->final_mean = net->model->arch.layer_norm ? p4_arena_take(arena, N * 4) : NULL;
    net->final_rstd = p4_arena_take(arena, N * 4);
    net->dx = p4_arena_take(arena, N * w->C * each);
    net->dnorm = p4_arena_take(arena, N * w->C * each);
    net->dwide =
        p4_arena_take(arena, N * p4_max_i64(p4_max_i64(w->qkv, w->up), p4_max_i64(w->att, w->C)) * each);
    net->dwide2 = p4_arena_take(arena, N * p4_max_i64(p4_max_i64(w->att, w->F), w->C) * each);
    net->final_x = net->dwide;
    net->final_n = net->dwide2;
    net->xq = net->dwide;
    net->delta = net->plan.recompute == P4_RECOMPUTE_BLOCKS ? p4_arena_take(arena, N * w->C * each) : net->dx;
    for (int64_t l = 0; net->plan.recompute == P4_RECOMPUTE_LIGHT && l < net->model->arch.L; l++) {
        net->saved[l].n1.act = net->saved[l].n2.act = net->dwide2;
        net->saved[l].h.act = net->dwide;
    }
}

/* Rows of logits at a time: equal shares of N, in whole tiles of a GPU's products where there are that many.
 */
static int64_t logits_rows(const p4_net *net, int64_t N)
{
    const int64_t tile = 256, most = p4_max_i64(64, net->ops->logits_chunk / net->logits_ld);
    int64_t rows = p4_ceil_div(N, p4_ceil_div(N, most));
    return most >= tile ? p4_min_i64(N, p4_min_i64(most / tile, p4_ceil_div(rows, tile)) * tile) : rows;
}

int64_t p4_net_logits_ld(const p4_ops *ops, int64_t V)
{
    return ops->host_memory ? V : p4_ceil_div(V, 64) * 64;
}

static void lay_out(p4_net *net, p4_arena *arena)
{
    const p4_arch *a = &net->model->arch;
    net->logits_ld = p4_net_logits_ld(net->ops, a->V);
    widths w = measure(net);
    int64_t each = net->ops->act_bytes(net->device), N = w.N;
    p4_attention_shape shape = p4_net_attention(net, 0, net->plan.B, net->plan.T);
    bool train = net->plan.train;

    net->chunk = logits_rows(net, N);
    net->ids = p4_arena_take(arena, 2 * N * 4);
    net->sums = p4_arena_take(arena, P4_NET_SUMS * (int64_t)sizeof *net->sums);
    if (!a->learned_positions) {
        net->cos_table = p4_arena_take(arena, net->plan.T * a->D / 2 * 4);
        net->sin_table = p4_arena_take(arena, net->plan.T * a->D / 2 * 4);
    }
    lay_out_blocks(net, arena, &w);
    net->w = p4_arena_take(arena, w.slot * each);
    if (train) {
        lay_out_backward(net, arena, &w);
    } else {
        bool eight = net->plan.activation_bits == 8;
        net->xq = eight ? p4_arena_take(arena, N * p4_max_i64(p4_max_i64(w.C, w.att), w.F) * each) : NULL;
        net->delta = p4_arena_take(arena, N * w.C * each);
        net->final_n = p4_arena_take(arena, N * w.C * each);
    }
    if (net->plan.head) {
        net->logits = p4_arena_take(arena, net->chunk * net->logits_ld * each);
    }
    if (net->plan.head && net->plan.reference) {
        net->final_reference =
            train ? NULL : p4_arena_take(arena, N * w.C * each); /* a teacher keeps its own */
        net->logits_reference = p4_arena_take(arena, net->chunk * net->logits_ld * each);
    }
    net->nll = p4_arena_take(arena, N * 4);
    net->hit = p4_arena_take(arena, N * 4);
    net->kl = p4_arena_take(arena, N * 4);
    net->attention_work =
        p4_arena_take(arena, net->ops->attention_work_count(net->device, &shape, train) * 4);
}

static p4_rc upload_rope(p4_net *net)
{
    const p4_arch *a = &net->model->arch;
    if (a->learned_positions) {
        return P4_OK;
    }
    int64_t count = net->plan.T * a->D / 2;
    float *h_tables = p4_alloc((size_t)count, 2 * sizeof *h_tables);
    if (h_tables == NULL) {
        return P4_E_SYSTEM;
    }
    p4_rope_tables(&a->rope, a->D, net->plan.T, h_tables, h_tables + count);
    net->ops->to_device(net->device, net->cos_table, h_tables, count * 4);
    net->ops->to_device(net->device, net->sin_table, h_tables + count, count * 4);
    free(h_tables);
    return net->ops->sync(net->device);
}

int64_t p4_net_bytes(const p4_ops *ops, p4_device *device, const p4_model *model, const p4_net_plan *plan)
{
    p4_arena count = {0};
    p4_net net = {.ops = ops, .device = device, .model = model, .plan = *plan};
    net.saved = p4_alloc((size_t)model->arch.L, sizeof *net.saved);
    if (net.saved == NULL) {
        return -1;
    }
    lay_out(&net, &count);
    free(net.saved);
    return count.used_bytes;
}

p4_rc p4_net_open(p4_net *net, const p4_ops *ops, p4_device *device, const p4_model *model,
                  const p4_net_plan *plan)
{
    p4_rc rc = P4_OK;
    *net = (p4_net){.ops = ops, .device = device, .model = model, .plan = *plan};
    CHECK(plan->T <= model->arch.positions,
          "calibration_sequence_length: found %lld, expected at most the model's %lld positions",
          (long long)plan->T, (long long)model->arch.positions);
    TRY(p4_net_check_device(ops, device, model));
    net->saved = p4_alloc((size_t)model->arch.L, sizeof *net->saved);
    net->h_tokens = p4_alloc((size_t)(plan->B * plan->T), 2 * sizeof *net->h_tokens);
    if (net->saved == NULL || net->h_tokens == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    p4_arena count = {0};
    lay_out(net, &count);
    net->memory_bytes = count.used_bytes;
    TRY(ops->alloc(device, &net->memory, net->memory_bytes));
    p4_arena arena = {.base = net->memory, .capacity_bytes = net->memory_bytes};
    lay_out(net, &arena);
    ops->zero(device, net->sums, P4_NET_SUMS * (int64_t)sizeof *net->sums);
    TRY(upload_rope(net));
done:
    if (rc != P4_OK) {
        p4_net_close(net);
    }
    return rc;
}

void p4_net_close(p4_net *net)
{
    if (net->memory != NULL) {
        net->ops->release(net->device, net->memory);
    }
    free(net->saved);
    free(net->h_tokens);
    *net = (p4_net){0};
}

void p4_net_set_tokens(p4_net *net, const int32_t *h_ids, int64_t B, int64_t T)
{
    int64_t N = B * T;
    int32_t *h_targets = net->h_tokens + N;
    memcpy(net->h_tokens, h_ids, (size_t)N * sizeof *h_ids);
    for (int64_t n = 0; n < N; n++) {
        h_targets[n] = n % T == T - 1 ? -1 : h_ids[n + 1];
    }
    net->targets = net->ids + N;
    net->ops->to_device(net->device, net->ids, net->h_tokens,
                        2 * N * 4); /* together: a copy may wait for a buffer */
}
