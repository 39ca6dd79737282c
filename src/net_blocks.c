/* net_blocks.c - the blocks of a model without embedding and head, trained to given outputs. */
#include "src/net_block.h"

void *p4_net_blocks_input(p4_net *net)
{
    return p4_net_write(net, 0, P4_BUFFER_X1);
}

void p4_net_blocks_forward(p4_net *net, const p4_form *form, int64_t B, int64_t T)
{
    const p4_net_pass pass = {.form = form, .B = B, .T = T};
    p4_net_all_blocks(net, &pass);
}

/* The last block's sum, to which DELTA is still to be added. */
static const void *last_sum(p4_net *net)
{
    return p4_net_read(net, p4_net_blocks(net) - 1, p4_net_stream(&net->model->arch));
}

void p4_net_blocks_output(p4_net *net, void *x, int64_t B, int64_t T)
{
    const p4_arch *a = &net->model->arch;
    const void *sum = last_sum(net), *delta = p4_net_read(net, 0, P4_BUFFER_DELTA);
    if (p4_net_step(net)) {
        net->ops->add(net->device, x, sum, delta, p4_net_delta_scale(a), B * T * a->C);
    }
}

void p4_net_blocks_error(p4_net *net, int64_t B, int64_t T, const void *target, float scale, double *sum,
                         const p4_grad_sink *sink)
{
    const p4_arch *a = &net->model->arch;
    const p4_net_pass pass = {.B = B, .T = T, .sink = sink};
    p4_squared_error_args args = {.count = B * T * a->C,
                                  .x = last_sum(net),
                                  .opt_delta = p4_net_read(net, 0, P4_BUFFER_DELTA),
                                  .delta_scale = p4_net_delta_scale(a),
                                  .opt_target = target,
                                  .scale = scale,
                                  .sum = sum,
                                  .opt_dx = sink != NULL ? p4_net_write(net, 0, P4_BUFFER_DX) : NULL};
    if (p4_net_step(net)) {
        net->ops->squared_error(net->device, &args);
    }
    float *db = sink != NULL ? p4_net_bias_before(net, &pass, p4_net_blocks(net)) : NULL;
    if (db != NULL && p4_net_step(net)) {
        net->ops->linear_backward_bias(net->device, db, args.opt_dx, B * T, a->C, a->C);
    }
}
