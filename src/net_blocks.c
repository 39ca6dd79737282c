/* net_blocks.c - the blocks of a model without embedding and head, trained to given outputs. */
#include "src/net.h"

static int64_t last_layer(const p4_net *net)
{
    return net->model->arch.L - 1;
}

void p4_net_blocks_forward(p4_net *net, const p4_form *form, int64_t B, int64_t T)
{
    const p4_net_pass pass = {.form = form, .B = B, .T = T};
    for (int64_t l = 0; l <= last_layer(net); l++) {
        const void *input = l == 0 ? net->saved[0].x1 : net->saved[l - 1].x2;
        p4_net_block(net, &pass, l, input, l > 0, &net->saved[l]);
    }
}

void p4_net_blocks_output(p4_net *net, void *x, int64_t B, int64_t T)
{
    net->ops->add(net->device, x, net->saved[last_layer(net)].x2, net->delta, 1.0f,
                  B * T * net->model->arch.C);
}

void p4_net_blocks_error(p4_net *net, int64_t B, int64_t T, const void *target, float scale, double *sum,
                         const p4_grad_sink *sink)
{
    const int64_t L = last_layer(net), C = net->model->arch.C,
                  bias = p4_model_find(net->model, P4_ROLE_DOWN_BIAS, L);
    bool accumulate = true;
    net->ops->squared_error(net->device, &(p4_squared_error_args){.count = B * T * C,
                                                                  .x = net->saved[L].x2,
                                                                  .opt_delta = net->delta,
                                                                  .opt_target = target,
                                                                  .scale = scale,
                                                                  .sum = sum,
                                                                  .opt_dx = sink != NULL ? net->dx : NULL});
    float *db = sink != NULL && bias >= 0 ? sink->grad(sink->user, bias, &accumulate) : NULL;
    if (db != NULL) {
        net->ops->linear_backward_bias(net->device, db, net->dx, B * T, C);
    }
}
