/* net_forward.c - evaluation: embedding, blocks, head. */
#include <assert.h>
#include <math.h>

#include "src/net_block.h"

/* --- embedding and blocks ---------------------------------------------------------------------- */

/* Tokens at positions [past, past + T). */
static void embed(p4_net *net, const p4_form *form, void *x, int64_t past, int64_t B, int64_t T)
{
    p4_weight rows = {0};
    int64_t position = p4_model_find(net->model, P4_ROLE_POSITION, -1);
    if (!p4_net_step(net)) {
        return;
    }
    if (position >= 0) { /* the table from row `past` on: it is never transposed nor ternary */
        rows = form->weights[position];
        rows.data = (const char *)rows.data + past * rows.cols * p4_dtype_bytes(rows.dtype);
        rows.rows -= past;
    }
    net->ops->embed_forward(
        net->device,
        &(p4_embed_forward_args){.B = B,
                                 .T = T,
                                 .C = net->model->arch.C,
                                 .ids = net->ids,
                                 .token = &form->weights[p4_model_find(net->model, P4_ROLE_EMBED, -1)],
                                 .opt_position = position >= 0 ? &rows : NULL,
                                 .scale = net->model->arch.embedding_scale,
                                 .x = x});
}

void p4_net_embed(p4_net *net, const p4_form *form, void *x, int64_t B, int64_t T)
{
    embed(net, form, x, 0, B, T);
}

/* `bytes` of both tables from byte `from` on. */
static void rope_rows(p4_net *net, p4_rope_table *to, const p4_rope_table *table, int64_t from, int64_t bytes)
{
    net->ops->copy(net->device, to->cos, (const char *)table->cos + from, bytes);
    net->ops->copy(net->device, to->sin, (const char *)table->sin + from, bytes);
}

void p4_net_embed_after(p4_net *net, const p4_form *form, void *x, int64_t past, int64_t T)
{
    const p4_arch *a = &net->model->arch;
    int64_t row = p4_arch_rope_dim(a) / 2 * (int64_t)sizeof(float);
    embed(net, form, x, past, 1, T);
    net->ops->to_device(net->device, net->past, &past, sizeof past);
    if (!a->learned_positions) {
        rope_rows(net, &net->rope_here, &net->rope, past * row, T * row);
    }
    if (a->local_rope) {
        rope_rows(net, &net->windowed_rope_here, &net->windowed_rope, past * row, T * row);
    }
}

void p4_net_all_blocks(p4_net *net, const p4_net_pass *pass)
{
    for (int64_t l = 0; l < p4_net_blocks(net); l++) {
        const p4_block b = p4_net_block_at(net, pass, l);
        p4_net_block_forward(&b, l > 0, false);
    }
}

/* x becomes the blocks' X1, which they change in place, or the first block's, where the others have their
 * own. */
void p4_net_layers(p4_net *net, const p4_net_pass *pass, int64_t first, int64_t end, void *x)
{
    const p4_arch *a = &net->model->arch;
    assert(!net->plan.train);
    for (int64_t l = first; net->trace == NULL && l < end; l++) {
        bool own = l > first && pass->outputs != NULL;
        net->buffers[l * P4_BUFFER_COUNT + P4_BUFFER_X1] = own ? pass->outputs[l - 1] : x;
    }
    p4_net_write(net, first, P4_BUFFER_X1);
    for (int64_t l = first; l < end; l++) {
        const p4_block b = p4_net_block_at(net, pass, l);
        p4_net_block_forward(&b, l > first, false);
    }
    if (end > first) {
        const void *sum = p4_net_read(net, end - 1, p4_net_stream(a)),
                   *delta = p4_net_read(net, 0, P4_BUFFER_DELTA);
        if (p4_net_step(net)) {
            net->ops->add(net->device, x, sum, delta, p4_net_delta_scale(a), pass->B * pass->T * a->C);
        }
    }
}

void p4_net_final_norm(p4_net *net, const p4_form *form, const void *x, bool reference, int64_t N)
{
    void *y = p4_net_write(net, 0, reference ? P4_BUFFER_REFERENCE_N : P4_BUFFER_FINAL_N);
    p4_net_norm(net, form, -1, P4_ROLE_FINAL_GAIN, (p4_add_norm_forward_args){.N = N, .x = x, .opt_y = y});
}

/* --- head -------------------------------------------------------------------------------------- */

void *p4_net_logits_buffer(p4_net *net, p4_net_buffer buffer)
{
    return p4_net_write_bytes(net, buffer, net->chunk * net->logits_ld * net->ops->act_bytes(net->device));
}

/* As products take it: [logits_ld, C] and, if it has one, [logits_ld]. */
typedef struct head {
    const void *w;
    const float *bias;
} head;

static head head_of(p4_net *net, const p4_form *form)
{
    return (head){p4_net_head(net, form), p4_net_head_bias(net, form)};
}

/* logits [rows, logits_ld] of rows [row, row + rows) of the normed states. */
static void head_chunk(p4_net *net, const head *from, void *logits, const char *normed, int64_t row,
                       int64_t rows)
{
    int64_t C = net->model->arch.C, each = net->ops->act_bytes(net->device);
    net->ops->linear_forward(net->device, logits, normed + row * C * each, from->w, from->bias, rows, C,
                             net->logits_ld);
}

/* logits [V] of one state, with the head as it is stored. */
static void stored_head_chunk(p4_net *net, const p4_form *form, void *logits, const void *normed)
{
    const p4_arch *a = &net->model->arch;
    const float *bias = p4_net_vector(net, form, P4_ROLE_HEAD_BIAS, -1);
    void *work = p4_net_write_bytes(net, P4_BUFFER_WEIGHT, a->V * a->C * net->ops->act_bytes(net->device));
    net->ops->linear_forward_weights(
        net->device, &(p4_linear_forward_weights_args){.N = 1,
                                                       .in = a->C,
                                                       .out = a->V,
                                                       .x = normed,
                                                       .weights = &form->weights[p4_net_head_param(net)],
                                                       .parts = 1,
                                                       .opt_bias = bias,
                                                       .y = logits,
                                                       .w_work = work});
}

void p4_net_add_scores(p4_net *net, int64_t B, int64_t T, p4_net_sum last)
{
    static const p4_net_buffer buffers[] = {[P4_SUM_NLL] = P4_BUFFER_NLL,
                                            [P4_SUM_HITS] = P4_BUFFER_HIT,
                                            [P4_SUM_KL] = P4_BUFFER_KL,
                                            [P4_SUM_SAME] = P4_BUFFER_SAME};
    for (int i = 0; i <= (int)last; i++) {
        const float *scores = p4_net_read(net, 0, buffers[i]);
        if (p4_net_step(net)) {
            net->ops->add_sum(net->device, net->sums + i, scores, B * T);
        }
    }
    net->predictions += (double)(B * (T - 1) - net->unpredicted);
}

p4_rc p4_net_take_score(p4_net *net, p4_score *score)
{
    double h_sums[P4_NET_SUMS] = {0};
    net->ops->to_host(net->device, h_sums, net->sums, sizeof h_sums);
    net->ops->zero(net->device, net->sums, sizeof h_sums);
    score->nll += h_sums[P4_SUM_NLL];
    score->hits += h_sums[P4_SUM_HITS];
    score->kl += h_sums[P4_SUM_KL];
    score->same += h_sums[P4_SUM_SAME];
    score->blocks += h_sums[P4_SUM_BLOCK_DISTANCE];
    score->count += net->predictions;
    net->predictions = 0;
    return net->ops->sync(net->device);
}

void p4_net_losses(p4_net *net, float *h_nll, int64_t B, int64_t T)
{
    const float *nll = p4_net_read(net, 0, P4_BUFFER_NLL);
    if (p4_net_step(net)) {
        net->ops->to_host(net->device, h_nll, nll, B * T * (int64_t)sizeof *nll);
    }
}

/* The scores of rows [row, row + rows) of their logits. */
static void score_chunk(p4_net *net, const void *logits, const void *reference, int64_t row, int64_t rows)
{
    const p4_ops *ops = net->ops;
    int64_t V = net->model->arch.V, ld = net->logits_ld;
    float *nll = p4_net_read(net, 0, P4_BUFFER_NLL), *hit = p4_net_read(net, 0, P4_BUFFER_HIT);
    float *kl = NULL, *same = NULL;
    if (reference != NULL || net->trace != NULL) {
        kl = p4_net_read(net, 0, P4_BUFFER_KL);
        same = p4_net_read(net, 0, P4_BUFFER_SAME);
    }
    if (!p4_net_step(net)) {
        return;
    }
    if (reference != NULL) {
        ops->kl_divergence(net->device, &(p4_kl_divergence_args){.N = rows,
                                                                 .V = V,
                                                                 .ld = ld,
                                                                 .reference = reference,
                                                                 .logits = logits,
                                                                 .map = p4_logit_map_of(&net->model->arch),
                                                                 .targets = net->targets + row,
                                                                 .kl = kl + row,
                                                                 .opt_same = same + row});
    }
    ops->cross_entropy(net->device, &(p4_cross_entropy_args){.N = rows,
                                                             .V = V,
                                                             .ld = ld,
                                                             .logits = logits,
                                                             .map = p4_logit_map_of(&net->model->arch),
                                                             .targets = net->targets + row,
                                                             .scale = 1.0f,
                                                             .nll = nll + row,
                                                             .opt_hit = hit + row});
}

void p4_net_score(p4_net *net, const p4_form *form, const p4_form *reference, int64_t B, int64_t T)
{
    int64_t N = B * T;
    head own = head_of(net, form);
    const void *normed = p4_net_read(net, 0, P4_BUFFER_FINAL_N),
               *reference_n = reference != NULL ? p4_net_read(net, 0, P4_BUFFER_REFERENCE_N) : NULL;
    void *logits = p4_net_logits_buffer(net, P4_BUFFER_LOGITS),
         *others = reference != NULL ? p4_net_logits_buffer(net, P4_BUFFER_REFERENCE_LOGITS) : NULL;
    p4_net_write(net, 0, P4_BUFFER_NLL);
    p4_net_write(net, 0, P4_BUFFER_HIT);
    p4_net_write(net, 0, P4_BUFFER_KL);
    p4_net_write(net, 0, P4_BUFFER_SAME);
    if (net->trace != NULL) { /* all of it is needed together */
        score_chunk(net, NULL, NULL, 0, 0);
    }
    for (int64_t row = 0; net->trace == NULL && row < N; row += net->chunk) {
        int64_t rows = p4_min_i64(net->chunk, N - row);
        if (reference != NULL && row > 0) { /* both heads may have been unpacked into one place */
            own = head_of(net, form);
        }
        head_chunk(net, &own, logits, normed, row, rows);
        if (reference != NULL) {
            const head other = head_of(net, reference);
            head_chunk(net, &other, others, reference_n, row, rows);
        }
        score_chunk(net, logits, others, row, rows);
    }
    p4_net_add_scores(net, B, T, reference != NULL ? P4_SUM_SAME : P4_SUM_HITS);
}

/* h_logits [count] as the losses see them. */
static void map_logits(p4_logit_map map, float *h_logits, int64_t count)
{
    float scale = map.scale == 0 ? 1.0f : map.scale;
    for (int64_t i = 0; i < count && (map.scale != 0 || map.cap != 0); i++) {
        float x = h_logits[i] * scale;
        h_logits[i] = map.cap == 0 ? x : map.cap * tanhf(x / map.cap);
    }
}

p4_rc p4_net_logits(p4_net *net, const p4_form *form, float *h_logits, int64_t N)
{
    const p4_ops *ops = net->ops;
    int64_t V = net->model->arch.V, ld = net->logits_ld;
    float *f32 = NULL;
    const char *normed = p4_net_read(net, 0, P4_BUFFER_FINAL_N);
    void *logits = p4_net_logits_buffer(net, P4_BUFFER_LOGITS);
    bool half = ops->act_bytes(net->device) != 4;
    p4_rc rc = P4_OK;
    if (half) {
        TRY(ops->alloc(net->device, (void **)&f32, p4_min_i64(net->chunk, N) * ld * 4));
    }
    bool as_stored = net->plan.cached && N == 1 && ld == V;
    const head own = as_stored ? (head){0} : head_of(net, form);
    for (int64_t row = 0; row < N; row += net->chunk) {
        int64_t rows = p4_min_i64(net->chunk, N - row);
        const float *found = half ? f32 : logits;
        if (as_stored) {
            stored_head_chunk(net, form, logits, normed);
        } else {
            head_chunk(net, &own, logits, normed, row, rows);
        }
        if (half) {
            ops->act_to_f32(net->device, f32, logits, rows * ld);
        }
        for (int64_t r = 0; ld != V && r < rows; r++) {
            ops->to_host(net->device, h_logits + (row + r) * V, found + r * ld, V * 4);
        }
        if (ld == V) {
            ops->to_host(net->device, h_logits + row * V, found, rows * V * 4);
        }
    }
    TRY(ops->sync(net->device));
    map_logits(p4_logit_map_of(&net->model->arch), h_logits, N * V);
done:
    if (f32 != NULL) {
        ops->release(net->device, f32);
    }
    return rc;
}
