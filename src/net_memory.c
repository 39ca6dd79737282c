/* net_memory.c - the memory of a network: traced, placed, taken (net_buffers.h). */
#include <stdlib.h>

#include "src/net_block.h"

static int64_t tokens(const p4_net *net)
{
    return net->plan.B * net->plan.T;
}

/* --- trace ------------------------------------------------------------------------------------- */

static float *any_gradient(void *user, int64_t param, bool *accumulate)
{
    (void)param;
    *accumulate = true;
    return user;
}

/* With gradients of all parameters. */
static void trace_training(p4_net *net)
{
    float wanted;
    int64_t B = net->plan.B, T = net->plan.T;
    const p4_form none = {0};
    const p4_grad_sink sink = {.grad = any_gradient, .user = &wanted};
    if (net->plan.head) {
        p4_net_train(net, &none, B, T, 1.0f, &sink);
        return;
    }
    p4_net_write(net, 0, P4_BUFFER_X1);
    p4_net_blocks_forward(net, &none, B, T);
    p4_net_blocks_error(net, B, T, NULL, 1.0f, NULL, &sink);
    p4_net_blocks_output(net, NULL, B, T);
    p4_net_write(net, 0, P4_BUFFER_X1); /* the output may be the next input */
    for (int64_t l = p4_net_blocks(net) - 1; l >= 0; l--) {
        p4_net_train_block(net, &none, l, B, T, &sink);
    }
}

/* Two forms, one after the other. */
static void trace_evaluation(p4_net *net)
{
    int64_t B = net->plan.B, T = net->plan.T, N = tokens(net);
    const p4_form none = {0};
    const p4_probe probe = {0};
    const p4_net_pass pass = {.form = &none, .B = B, .T = T, .probe = &probe};
    bool reference = net->plan.reference && net->plan.head;
    for (int which = 0; which <= reference; which++) {
        p4_net_layers(net, &pass, 0, p4_net_blocks(net), NULL);
        p4_net_final_norm(net, &none, NULL, which == 1, N);
    }
    if (net->plan.head) {
        p4_net_score(net, &none, reference ? &none : NULL, B, T);
        p4_net_losses(net, NULL, B, T);
    }
    p4_net_read(net, 0, P4_BUFFER_FINAL_N); /* its user may come later */
}

static void trace_passes(p4_net *net, p4_net_trace *trace)
{
    *trace = (p4_net_trace){0};
    for (int block = 0; block < P4_TRACED_BLOCKS; block++) {
        for (int buffer = 0; buffer < P4_BUFFER_COUNT; buffer++) {
            trace->since[block][buffer] = -1;
        }
    }
    net->trace = trace;
    if (net->plan.train) {
        trace_training(net);
    } else {
        trace_evaluation(net);
    }
    net->trace = NULL;
    net->predictions = 0;
}

/* --- placement --------------------------------------------------------------------------------- */

/* Is the buffer the input of both QKV and UP, of which one takes activations and the other one codes? */
static bool reads_both(const p4_net *net, int64_t layer, p4_net_buffer buffer)
{
    const p4_param *p = net->model->params;
    return (buffer == P4_BUFFER_N1 || buffer == P4_BUFFER_N1_CODES) &&
           p[p4_model_find(net->model, P4_ROLE_QKV, layer)].ternary !=
               p[p4_model_find(net->model, P4_ROLE_UP, layer)].ternary;
}

/* A projection's input is kept either as activations or as codes, where all forms agree in what they round.
 */
static bool is_skipped(const p4_net *net, int64_t layer, p4_net_buffer buffer)
{
    static const struct {
        p4_role role;
        p4_net_buffer act, codes;
    } inputs[] = {{P4_ROLE_QKV, P4_BUFFER_N1, P4_BUFFER_N1_CODES},
                  {P4_ROLE_UP, P4_BUFFER_N2, P4_BUFFER_N2_CODES},
                  {P4_ROLE_DOWN, P4_BUFFER_H, P4_BUFFER_H_CODES}};
    if (net->model->arch.shared_norm && reads_both(net, layer, buffer)) {
        return false;
    }
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        if (buffer != inputs[i].act && buffer != inputs[i].codes) {
            continue; /* a layer of experts has hundreds of tensors to find the role among */
        }
        bool ternary = net->model->params[p4_model_find(net->model, inputs[i].role, layer)].ternary,
             codes = p4_arch_copies(&net->model->arch, inputs[i].role, layer) == 1;
        if (codes && buffer == (ternary ? inputs[i].act : inputs[i].codes)) {
            return net->plan.activation_bits == 8;
        }
    }
    return false;
}

/* Do two blocks need their own at the same time? */
static bool is_kept(const p4_net_trace *trace, p4_net_buffer buffer)
{
    bool kept = false;
    for (int a = 0; a < P4_TRACED_BLOCKS; a++) {
        for (int b = 0; b < a; b++) {
            kept = kept || p4_lifetimes_meet(&trace->lifetime[a][buffer], &trace->lifetime[b][buffer]);
        }
    }
    return kept;
}

/* Does a block of the kind of this layer use it? */
static bool is_used(const p4_net *net, const p4_net_trace *trace, p4_net_buffer buffer, int64_t layer)
{
    return trace->used[p4_net_traced_block(net, layer)][buffer];
}

/* Buffers that every block keeps. Their contents live from a block's forward to its backward pass. */
static void lay_out_kept(p4_net *net, p4_arena *arena, const p4_net_trace *trace)
{
    bool known = net->plan.train && net->plan.recompute == P4_RECOMPUTE_NONE;
    for (int64_t l = 0; net->plan.train && l < net->model->arch.L; l++) {
        for (p4_net_buffer b = 0; b < P4_BUFFER_COUNT; b++) {
            if (is_kept(trace, b) && is_used(net, trace, b, l) && !(known && is_skipped(net, l, b))) {
                void *at = p4_arena_take(arena, p4_net_buffer_bytes(net, trace, b, l));
                if (net->buffers != NULL) {
                    net->buffers[l * P4_BUFFER_COUNT + b] = at;
                }
            }
        }
    }
}

/* Bytes of a buffer that blocks share: of the kind that needs most. */
static int64_t shared_bytes(const p4_net *net, const p4_net_trace *trace, p4_net_buffer buffer)
{
    int64_t bytes = 0;
    for (int block = 0; block < P4_TRACED_BLOCKS; block++) {
        if (trace->used[block][buffer]) {
            bytes =
                p4_max_i64(bytes, p4_net_buffer_bytes(net, trace, buffer, p4_net_traced_layer(net, block)));
        }
    }
    return bytes;
}

/* All other buffers, one of each. */
static void lay_out_shared(p4_net *net, p4_arena *arena, const p4_net_trace *trace)
{
    p4_lifetime shared[P4_BUFFER_COUNT] = {0};
    for (p4_net_buffer b = 0; b < P4_BUFFER_COUNT; b++) {
        bool shares =
            !is_kept(trace, b) && (net->plan.train || b != P4_BUFFER_X1); /* that is p4_net_layers' x */
        for (int i = 0; i < P4_TRACED_BLOCKS * P4_LIFETIME_WORDS; i++) {
            int block = i / P4_LIFETIME_WORDS, word = i % P4_LIFETIME_WORDS;
            shared[b].live[word] |= trace->lifetime[block][b].live[word];
        }
        shared[b].bytes = shares ? shared_bytes(net, trace, b) : 0;
    }
    char *memory = p4_arena_take(arena, p4_lifetimes_place(shared, P4_BUFFER_COUNT));
    int64_t places = net->plan.train ? net->model->arch.L : 1;
    for (int64_t at = 0; net->buffers != NULL && memory != NULL && at < places * P4_BUFFER_COUNT; at++) {
        const p4_lifetime *one = &shared[at % P4_BUFFER_COUNT];
        net->buffers[at] = one->bytes > 0 ? memory + one->at : net->buffers[at];
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

static void lay_out(p4_net *net, p4_arena *arena, const p4_net_trace *trace)
{
    const p4_arch *a = &net->model->arch;
    int64_t table_bytes = a->learned_positions ? 0 : p4_net_positions(net) * p4_arch_rope_dim(a) / 2 * 4;
    net->ids = p4_arena_take(arena, 2 * tokens(net) * 4);
    net->sums = p4_arena_take(arena, P4_NET_SUMS * (int64_t)sizeof *net->sums);
    net->rope.cos = p4_arena_take(arena, table_bytes);
    net->rope.sin = p4_arena_take(arena, table_bytes);
    net->windowed_rope.cos = p4_arena_take(arena, a->local_rope ? table_bytes : 0);
    net->windowed_rope.sin = p4_arena_take(arena, a->local_rope ? table_bytes : 0);
    if (net->plan.cached) {
        int64_t here = table_bytes / p4_net_positions(net) * net->plan.T, windowed = a->local_rope ? here : 0;
        net->past = p4_arena_take(arena, (int64_t)sizeof *net->past);
        net->rope_here = (p4_rope_table){p4_arena_take(arena, here), p4_arena_take(arena, here)};
        net->windowed_rope_here =
            (p4_rope_table){p4_arena_take(arena, windowed), p4_arena_take(arena, windowed)};
    }
    lay_out_kept(net, arena, trace);
    lay_out_shared(net, arena, trace);
}

/* What does not lie in device memory, and the trace. */
static void prepare(p4_net *net, p4_net_trace *trace)
{
    net->logits_ld = p4_net_logits_ld(net->ops, net->model->arch.V);
    net->chunk = logits_rows(net, tokens(net));
    trace_passes(net, trace);
}

int64_t p4_net_bytes(const p4_ops *ops, p4_device *device, const p4_model *model, const p4_net_plan *plan)
{
    p4_net_trace trace;
    p4_arena count = {0};
    p4_net net = {.ops = ops, .device = device, .model = model, .plan = *plan};
    prepare(&net, &trace);
    lay_out(&net, &count, &trace);
    return count.used_bytes;
}

/* --- open, close ------------------------------------------------------------------------------- */

/* The tables of one kind of layer. */
static p4_rc upload_rope(p4_net *net, const p4_rope *rope, p4_rope_table *table)
{
    int64_t R = p4_arch_rope_dim(&net->model->arch), T = p4_net_positions(net), count = T * R / 2;
    float *h_tables = p4_alloc((size_t)count, 2 * sizeof *h_tables);
    if (h_tables == NULL) {
        return P4_E_SYSTEM;
    }
    p4_rope_tables(rope, R, T, h_tables, h_tables + count);
    net->ops->to_device(net->device, table->cos, h_tables, count * 4);
    net->ops->to_device(net->device, table->sin, h_tables + count, count * 4);
    free(h_tables);
    return net->ops->sync(net->device);
}

static p4_rc upload_ropes(p4_net *net)
{
    p4_rc rc = P4_OK;
    const p4_arch *a = &net->model->arch;
    if (!a->learned_positions) {
        TRY(upload_rope(net, &a->rope, &net->rope));
    }
    if (a->local_rope) {
        TRY(upload_rope(net, &a->windowed_rope, &net->windowed_rope));
    }
done:
    return rc;
}

p4_rc p4_net_open(p4_net *net, const p4_ops *ops, p4_device *device, const p4_model *model,
                  const p4_net_plan *plan)
{
    p4_rc rc = P4_OK;
    p4_net_trace trace;
    p4_arena count = {0};
    *net = (p4_net){.ops = ops, .device = device, .model = model, .plan = *plan};
    CHECK(plan->cached || plan->T <= model->arch.positions,
          "calibration_sequence_length: found %lld, expected at most the model's %lld positions",
          (long long)plan->T, (long long)model->arch.positions);
    TRY(p4_net_check_device(ops, device, model));
    net->buffers = p4_alloc((size_t)(model->arch.L * P4_BUFFER_COUNT), sizeof *net->buffers);
    net->h_tokens = p4_alloc((size_t)tokens(net), 2 * sizeof *net->h_tokens);
    net->h_first = p4_alloc((size_t)model->arch.experts + 1, sizeof *net->h_first);
    if (net->buffers == NULL || net->h_tokens == NULL || net->h_first == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    prepare(net, &trace);
    lay_out(net, &count, &trace);
    net->memory_bytes = count.used_bytes;
    TRY(ops->alloc(device, &net->memory, net->memory_bytes));
    p4_arena arena = {.base = net->memory, .capacity_bytes = net->memory_bytes};
    lay_out(net, &arena, &trace);
    net->final_n = net->buffers[P4_BUFFER_FINAL_N];
    ops->zero(device, net->sums, P4_NET_SUMS * (int64_t)sizeof *net->sums);
    TRY(upload_ropes(net));
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
    free(net->buffers);
    free(net->h_tokens);
    free(net->h_first);
    *net = (p4_net){0};
}
