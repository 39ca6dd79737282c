/* net_weights.c - weights as the passes use them: dense matrices, vectors, norms. */
#include "src/net_block.h"

/* The parts of a slot: activations' type, aligned, each where the one before ends. */
static bool usable_as_is(const p4_net *net, const p4_weight *weights, int64_t parts)
{
    int64_t each = net->ops->act_bytes(net->device);
    p4_dtype act = each == 4 ? P4_F32 : P4_BF16;
    const char *next = weights[0].data;
    bool usable = (uintptr_t)next % 16 == 0;
    for (int64_t i = 0; i < parts; i++) {
        usable = usable && weights[i].dtype == act && !weights[i].transposed && weights[i].data == next;
        next += weights[i].rows * weights[i].cols * each;
    }
    return usable;
}

const void *p4_net_dense(p4_net *net, const p4_form *form, int64_t first)
{
    int64_t parts = p4_model_parts(net->model, first), each = net->ops->act_bytes(net->device),
            rows = p4_slot_rows(net->model, first);
    char *to = p4_net_write_bytes(net, P4_BUFFER_WEIGHT, rows * net->model->params[first].cols * each);
    if (net->trace != NULL) {
        return NULL;
    }
    const p4_weight *weights = form->weights + first;
    if (usable_as_is(net, weights, parts)) {
        return weights->data;
    }
    char *at = to;
    for (int64_t i = 0; i < parts; i++) {
        net->ops->weight_unpack(net->device, at, &weights[i]);
        at += weights[i].rows * weights[i].cols * each;
    }
    return to;
}

const void *p4_net_head(p4_net *net, const p4_form *form)
{
    const p4_arch *a = &net->model->arch;
    int64_t head = p4_net_head_param(net), each = net->ops->act_bytes(net->device);
    if (net->logits_ld == a->V) {
        return p4_net_dense(net, form, head);
    }
    char *w = p4_net_write_bytes(net, P4_BUFFER_WEIGHT, net->logits_ld * a->C * each);
    if (net->trace == NULL) {
        net->ops->weight_unpack(net->device, w, &form->weights[head]);
        net->ops->zero(net->device, w + a->V * a->C * each, (net->logits_ld - a->V) * a->C * each);
    }
    return w;
}

const float *p4_net_head_bias(p4_net *net, const p4_form *form)
{
    const p4_arch *a = &net->model->arch;
    const float *bias = p4_net_vector(net, form, P4_ROLE_HEAD_BIAS, -1);
    if (!a->head_bias || net->logits_ld == a->V) {
        return bias;
    }
    float *padded = p4_net_write_bytes(net, P4_BUFFER_HEAD_BIAS, net->logits_ld * 4);
    if (net->trace == NULL) {
        net->ops->copy(net->device, padded, bias, a->V * 4);
        net->ops->zero(net->device, padded + a->V, (net->logits_ld - a->V) * 4);
    }
    return padded;
}

const float *p4_net_vector(const p4_net *net, const p4_form *form, p4_role role, int64_t layer)
{
    int64_t at = p4_model_find(net->model, role, layer);
    return at >= 0 && net->trace == NULL ? form->vectors[at] : NULL;
}

void p4_net_norm(p4_net *net, const p4_form *form, int64_t layer, p4_role gain, p4_add_norm_forward_args args)
{
    const p4_arch *a = &net->model->arch;
    args.kind = a->layer_norm ? P4_LAYERNORM : P4_RMSNORM;
    args.C = a->C;
    args.eps = a->norm_eps;
    args.delta_scale = p4_net_delta_scale(a);
    args.gain = p4_net_vector(net, form, gain, layer);
    args.gain_offset = a->gain_offset ? 1.0f : 0.0f;
    args.opt_bias = p4_net_vector(net, form, p4_norm_bias_of(gain), layer);
    if (p4_net_step(net)) {
        net->ops->add_norm_forward(net->device, &args);
    }
}
