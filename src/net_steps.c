/* net_steps.c - steps of a block that the files of its passes share. */
#include "src/net_block.h"

void p4_net_activate(const p4_block *b, void *h, const p4_int8_rows *rounded, const void *up)
{
    const p4_arch *a = b->arch;
    int64_t rows = b->N * (p4_arch_has_experts(a, b->layer) ? a->experts_used : 1);
    b->net->ops->activate(b->net->device, h, rounded, up, a->activation, a->gated_mlp, rows,
                          p4_arch_mlp_width(a, b->layer));
}

void p4_net_compute_again(const p4_block *b, p4_role role, void *to, const p4_int8_rows *rounded)
{
    p4_net *net = b->net;
    if (role == P4_ROLE_DOWN) {
        const void *up = p4_net_read(net, b->at, P4_BUFFER_UP);
        if (p4_net_step(net)) {
            p4_net_activate(b, to, rounded, up);
        }
        return;
    }
    bool first = role == P4_ROLE_QKV || b->arch->parallel;
    p4_net_norm(net, b->pass->form, b->layer, p4_net_norm_before(b->arch, role),
                (p4_add_norm_forward_args){.N = b->N,
                                           .x = p4_net_read(net, b->at, first ? P4_BUFFER_X1 : P4_BUFFER_X2),
                                           .opt_y = to,
                                           .opt_rounded = rounded});
}

float *p4_net_grad(const p4_grad_sink *sink, int64_t param, bool *accumulate)
{
    *accumulate = true;
    return param >= 0 ? sink->grad(sink->user, param, accumulate) : NULL;
}
