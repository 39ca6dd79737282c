/* net_backward.c - training: the forward pass to the loss and back. */
#include "src/net_block.h"

/* The losses of rows [row, row + rows), whose logits become their gradient. */
static void chunk_loss(p4_net *net, void *logits, void *others, int64_t row, int64_t rows, float loss_scale)
{
    const p4_ops *ops = net->ops;
    const p4_net_teacher *teacher = net->teacher;
    int64_t C = net->model->arch.C, V = net->model->arch.V, ld = net->logits_ld;
    float *nll = (float *)p4_net_read(net, 0, P4_BUFFER_NLL) + row,
          *hit = (float *)p4_net_read(net, 0, P4_BUFFER_HIT) + row;
    if (teacher == NULL) {
        ops->cross_entropy(net->device, &(p4_cross_entropy_args){.N = rows,
                                                                 .V = V,
                                                                 .ld = ld,
                                                                 .logits = logits,
                                                                 .map = p4_logit_map_of(&net->model->arch),
                                                                 .targets = net->targets + row,
                                                                 .scale = loss_scale,
                                                                 .nll = nll,
                                                                 .opt_hit = hit,
                                                                 .opt_dlogits = logits});
        return;
    }
    p4_distill_loss_args args = {.N = rows,
                                 .V = V,
                                 .ld = ld,
                                 .logits = logits,
                                 .map = p4_logit_map_of(&net->model->arch),
                                 .targets = net->targets + row,
                                 .scale = loss_scale,
                                 .weight = teacher->weight,
                                 .temperature = teacher->temperature,
                                 .nll = nll,
                                 .hit = hit,
                                 .kl = (float *)p4_net_read(net, 0, P4_BUFFER_KL) + row};
    if (teacher->states != NULL) {
        const char *states = (const char *)teacher->states + row * C * ops->act_bytes(net->device);
        ops->linear_forward(net->device, others, states, teacher->head, teacher->head_bias, rows, C, ld);
        args.opt_teacher = others;
    } else {
        args.top = (p4_top_rows){.k = teacher->top.k,
                                 .ids = teacher->top.ids + row * teacher->top.k,
                                 .logp = teacher->top.logp + row * (teacher->top.k + 1)};
    }
    ops->distill_loss(net->device, &args);
}

/* Head, loss and their gradients, a chunk of rows at a time: the logits of the whole micro-batch never exist.
 * Leaves the gradient at the final norm's output in DN. All of its buffers are needed together: one step. */
static void head_forward_backward(p4_net *net, const p4_net_pass *pass, float loss_scale)
{
    const p4_ops *ops = net->ops;
    int64_t N = pass->B * pass->T, C = net->model->arch.C, V = net->model->arch.V, ld = net->logits_ld,
            each = ops->act_bytes(net->device);
    bool accumulate;
    float *dhead = p4_net_grad(pass->sink, p4_net_head_param(net), &accumulate);
    float *dbias = p4_net_vector_grad(net, pass->sink, P4_ROLE_HEAD_BIAS, -1);
    const void *w = p4_net_head(net, pass->form);
    const float *bias = p4_net_head_bias(net, pass->form);
    const char *normed = p4_net_read(net, 0, P4_BUFFER_FINAL_N);
    char *dnormed = p4_net_write(net, 0, P4_BUFFER_DN);
    void *logits = p4_net_logits_buffer(net, P4_BUFFER_LOGITS),
         *others = net->plan.reference ? p4_net_logits_buffer(net, P4_BUFFER_REFERENCE_LOGITS) : NULL;
    p4_net_write(net, 0, P4_BUFFER_NLL);
    p4_net_write(net, 0, P4_BUFFER_HIT);
    p4_net_write(net, 0, P4_BUFFER_KL);
    if (!p4_net_step(net)) {
        return;
    }
    for (int64_t row = 0; row < N; row += net->chunk) {
        int64_t rows = p4_min_i64(net->chunk, N - row);
        const char *x = normed + row * C * each;
        ops->linear_forward(net->device, logits, x, w, bias, rows, C, ld);
        chunk_loss(net, logits, others, row, rows, loss_scale);
        ops->linear_backward_input(net->device, dnormed + row * C * each, logits, w, rows, C, ld, false);
        if (dbias != NULL) {
            ops->linear_backward_bias(net->device, dbias, logits, rows, V, ld);
        }
        if (dhead != NULL) {
            ops->linear_backward_weight(
                net->device, &(p4_linear_backward_weight_args){.N = rows,
                                                               .in = C,
                                                               .out = V,
                                                               .dy = logits,
                                                               .ld_dy = ld,
                                                               .x = x,
                                                               .dw = dhead,
                                                               .accumulate = accumulate || row > 0});
        }
    }
}

/* From the last block's output to the gradient there, in DX. */
static void final_norm_and_head(p4_net *net, const p4_net_pass *pass, float loss_scale)
{
    const int64_t last = p4_net_blocks(net) - 1;
    const bool layer_norm = net->model->arch.layer_norm;
    p4_add_norm_forward_args forward = {.N = pass->B * pass->T,
                                        .x = p4_net_read(net, last, p4_net_stream(&net->model->arch)),
                                        .opt_delta = p4_net_read(net, 0, P4_BUFFER_DELTA),
                                        .opt_sum = p4_net_write(net, 0, P4_BUFFER_FINAL_X),
                                        .opt_y = p4_net_write(net, 0, P4_BUFFER_FINAL_N),
                                        .opt_rstd = p4_net_write(net, 0, P4_BUFFER_FINAL_RSTD)};
    forward.opt_mean = layer_norm ? p4_net_write(net, 0, P4_BUFFER_FINAL_MEAN) : NULL;
    p4_net_norm(net, pass->form, -1, P4_ROLE_FINAL_GAIN, forward);
    head_forward_backward(net, pass, loss_scale);
    p4_net_compare_block(net, pass, last + 1);
    p4_norm_backward_args backward = {.accumulate = net->plan.blocks,
                                      .dy = p4_net_read(net, 0, P4_BUFFER_DN),
                                      .x = p4_net_read(net, 0, P4_BUFFER_FINAL_X),
                                      .rstd = p4_net_read(net, 0, P4_BUFFER_FINAL_RSTD),
                                      .dx = net->plan.blocks ? p4_net_read(net, 0, P4_BUFFER_DX)
                                                             : p4_net_write(net, 0, P4_BUFFER_DX),
                                      .opt_dx_sums = p4_net_bias_before(net, pass, last + 1)};
    backward.opt_mean = layer_norm ? p4_net_read(net, 0, P4_BUFFER_FINAL_MEAN) : NULL;
    p4_net_norm_backward(net, pass, -1, P4_ROLE_FINAL_GAIN, backward);
}

void p4_net_train_forward(p4_net *net, const p4_form *form, int64_t B, int64_t T, float loss_scale,
                          const p4_grad_sink *sink)
{
    const p4_net_pass pass = {.form = form, .B = B, .T = T, .sink = sink};
    p4_net_embed(net, form, p4_net_write(net, 0, P4_BUFFER_X1), B, T);
    p4_net_all_blocks(net, &pass);
    final_norm_and_head(net, &pass, loss_scale);
}

void p4_net_train_block(p4_net *net, const p4_form *form, int64_t layer, int64_t B, int64_t T,
                        const p4_grad_sink *sink)
{
    const p4_net_pass pass = {.form = form, .B = B, .T = T, .sink = sink};
    const p4_block b = p4_net_block_at(net, &pass, layer);
    if (net->plan.recompute == P4_RECOMPUTE_BLOCKS) {
        p4_net_block_forward(&b, false, true);
    }
    p4_net_block_backward(&b);
}

void p4_net_train_embedding(p4_net *net, int64_t B, int64_t T, const p4_grad_sink *sink)
{
    const p4_arch *a = &net->model->arch;
    bool accumulate;
    float *dtoken = p4_net_grad(sink, p4_model_find(net->model, P4_ROLE_EMBED, -1), &accumulate);
    const void *dx = p4_net_read(net, 0, P4_BUFFER_DX);
    if (p4_net_step(net) && dtoken != NULL) {
        net->ops->embed_backward(
            net->device,
            &(p4_embed_backward_args){.B = B,
                                      .T = T,
                                      .C = a->C,
                                      .V = a->V,
                                      .ids = net->ids,
                                      .dx = dx,
                                      .scale = a->embedding_scale,
                                      .dtoken = dtoken,
                                      .opt_dposition = p4_net_vector_grad(net, sink, P4_ROLE_POSITION, -1)});
    }
    p4_net_add_scores(net, B, T, net->teacher != NULL || net->trace != NULL ? P4_SUM_KL : P4_SUM_HITS);
}

void p4_net_train(p4_net *net, const p4_form *form, int64_t B, int64_t T, float loss_scale,
                  const p4_grad_sink *sink)
{
    p4_net_train_forward(net, form, B, T, loss_scale, sink);
    for (int64_t l = p4_net_blocks(net) - 1; l >= 0; l--) {
        p4_net_train_block(net, form, l, B, T, sink);
    }
    p4_net_train_embedding(net, B, T, sink);
}
