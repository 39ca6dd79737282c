#include <string.h>

#include "src/net_block.h"

int64_t p4_slot_rows(const p4_model *model, int64_t first)
{
    int64_t rows = 0, parts = p4_model_parts(model, first);
    for (int64_t i = 0; i < parts; i++) {
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
                                .scale = p4_arch_attention_scale(a, layer),
                                .cap = a->attention_cap};
}

/* Has a layer before this one the same window? What a device supports and needs depends on nothing else. */
static bool is_alike_before(const p4_arch *a, int64_t layer)
{
    bool alike = false;
    for (int64_t l = 0; l < layer; l++) {
        alike = alike || p4_arch_window(a, l) == p4_arch_window(a, layer);
    }
    return alike;
}

/* With one token, as support does not depend on B and T. */
p4_rc p4_net_check_device(const p4_ops *ops, p4_device *device, const p4_model *model)
{
    const p4_arch *a = &model->arch;
    const p4_net net = {.model = model};
    for (int64_t l = 0; l < a->L; l++) {
        p4_attention_shape shape = p4_net_attention(&net, l, 1, 1);
        if (!is_alike_before(a, l) && ops->attention_work_count(device, &shape, true) < 0) {
            return FAIL(
                "model family \"%s\" needs attention with heads of %lld elements%s, which this version "
                "does not compute on device \"%s\"",
                a->family, (long long)a->D, a->attention_cap > 0 ? " and soft-capped scores" : "", ops->name);
        }
    }
    return P4_OK;
}

float *p4_net_attention_work(p4_net *net)
{
    int64_t count = 0;
    for (int64_t l = 0; net->trace != NULL && l < net->model->arch.L; l++) {
        p4_attention_shape shape = p4_net_attention(net, l, net->plan.B, net->plan.T);
        if (!is_alike_before(&net->model->arch, l)) {
            count = p4_max_i64(count, net->ops->attention_work_count(net->device, &shape, net->plan.train));
        }
    }
    return p4_net_write_bytes(net, P4_BUFFER_ATTENTION_WORK, count * 4);
}

void p4_net_set_tokens(p4_net *net, const int32_t *h_ids, int64_t B, int64_t T)
{
    p4_net_set_windows(net, h_ids, NULL, B, T);
}

void p4_net_set_windows(p4_net *net, const int32_t *h_ids, const int64_t *h_first, int64_t B, int64_t T)
{
    int64_t N = B * T;
    int32_t *h_targets = net->h_tokens + N;
    memcpy(net->h_tokens, h_ids, (size_t)N * sizeof *h_ids);
    for (int64_t n = 0; n < N; n++) {
        h_targets[n] = n % T == T - 1 ? -1 : h_ids[n + 1];
    }
    net->unpredicted = 0;
    for (int64_t b = 0; h_first != NULL && b < B; b++) {
        for (int64_t t = 1; t < h_first[b]; t++) {
            h_targets[b * T + t - 1] = -1;
            net->unpredicted++;
        }
    }
    net->targets = net->ids + N;
    net->ops->to_device(net->device, net->ids, net->h_tokens,
                        2 * N * 4); /* together: a copy may wait for a buffer */
}
