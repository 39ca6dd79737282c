#include "src/decode/decoder.h"

#include <stdlib.h>

static p4_net_plan net_plan(const p4_decoder_plan *plan)
{
    return (p4_net_plan){.B = 1,
                         .T = p4_min_i64(plan->batch, plan->capacity),
                         .activation_bits = plan->activation_bits,
                         .head = true,
                         .cached = true,
                         .positions = plan->capacity};
}

/* d->net.model is set. From an arena without memory: counts only. */
static void lay_out(p4_decoder *d, p4_arena *arena, const p4_arch *a, int64_t act_bytes)
{
    int64_t layer_bytes = a->Hkv * d->cache.capacity * a->D * p4_dtype_bytes(d->cache.type);
    d->x = p4_arena_take(arena, d->batch * a->C * act_bytes);
    for (int64_t l = 0; l < a->L; l++) {
        void *keys = p4_arena_take(arena, layer_bytes), *values = p4_arena_take(arena, layer_bytes);
        if (d->cache.keys != NULL) {
            d->cache.keys[l] = keys;
            d->cache.values[l] = values;
        }
    }
}

int64_t p4_decoder_bytes(const p4_ops *ops, p4_device *device, const p4_model *model,
                         const p4_decoder_plan *plan)
{
    p4_net_plan net = net_plan(plan);
    p4_arena count = {0};
    p4_decoder d = {.batch = net.T, .cache = {.type = plan->cache_type, .capacity = plan->capacity}};
    lay_out(&d, &count, &model->arch, ops->act_bytes(device));
    return p4_net_bytes(ops, device, model, &net) + count.used_bytes;
}

p4_rc p4_decoder_open(p4_decoder *d, const p4_ops *ops, p4_device *device, const p4_model *model,
                      const p4_form *form, const p4_decoder_plan *plan)
{
    p4_rc rc = P4_OK;
    const p4_arch *a = &model->arch;
    p4_net_plan net = net_plan(plan);
    p4_arena count = {0};
    *d = (p4_decoder){
        .form = form, .batch = net.T, .cache = {.type = plan->cache_type, .capacity = plan->capacity}};
    CHECK(plan->capacity <= a->positions, "a text of %lld tokens was asked for, the model has %lld positions",
          (long long)plan->capacity, (long long)a->positions);
    TRY(p4_net_open(&d->net, ops, device, model, &net));
    lay_out(d, &count, a, ops->act_bytes(device));
    TRY(ops->alloc(device, &d->memory, count.used_bytes));
    d->cache.keys = p4_alloc((size_t)a->L, sizeof *d->cache.keys);
    d->cache.values = p4_alloc((size_t)a->L, sizeof *d->cache.values);
    if (d->cache.keys == NULL || d->cache.values == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    p4_arena arena = {.base = d->memory, .capacity_bytes = count.used_bytes};
    lay_out(d, &arena, a, ops->act_bytes(device));
done:
    if (rc != P4_OK) {
        p4_decoder_close(d);
    }
    return rc;
}

void p4_decoder_close(p4_decoder *d)
{
    if (d->step != NULL) {
        d->net.ops->forget(d->net.device, &d->step);
    }
    if (d->memory != NULL) {
        d->net.ops->release(d->net.device, d->memory);
    }
    if (d->net.ops != NULL) {
        p4_net_close(&d->net);
    }
    free(d->cache.keys);
    free(d->cache.values);
    *d = (p4_decoder){0};
}

static void layers(p4_decoder *d, int64_t T)
{
    const p4_net_pass pass = {.form = d->form, .B = 1, .T = T, .cache = &d->cache};
    p4_net_layers(&d->net, &pass, 0, d->net.model->arch.L, d->x);
}

static void layers_of_one(void *user)
{
    layers(user, 1);
}

/* One pass of at most `batch` tokens. The step of a token is hundreds of launches, which a device repeats as
 * one. With experts the host waits for their choice, and nothing can be repeated. */
static void pass_over(p4_decoder *d, const int32_t *h_ids, int64_t T)
{
    const p4_ops *ops = d->net.ops;
    p4_net_set_tokens(&d->net, h_ids, 1, T);
    p4_net_embed_after(&d->net, d->form, d->x, d->cache.past, T);
    if (T == 1 && d->net.model->arch.experts == 0) {
        ops->repeat(d->net.device, &d->step, layers_of_one, d);
    } else {
        layers(d, T);
    }
    d->cache.past += T;
}

p4_rc p4_decoder_append(p4_decoder *d, const int32_t *h_ids, int64_t count, float *h_logits)
{
    int64_t act = d->net.ops->act_bytes(d->net.device), T = 0;
    if (count > d->cache.capacity - d->cache.past) {
        return FAIL("%lld tokens follow %lld, and the cache holds %lld", (long long)count,
                    (long long)d->cache.past, (long long)d->cache.capacity);
    }
    for (int64_t at = 0; at < count; at += T) {
        T = p4_min_i64(d->batch, count - at);
        pass_over(d, h_ids + at, T);
    }
    if (h_logits == NULL || count == 0) {
        return d->net.ops->sync(d->net.device);
    }
    const char *last = (const char *)d->x + (T - 1) * d->net.model->arch.C * act;
    p4_net_final_norm(&d->net, d->form, last, false, 1);
    return p4_net_logits(&d->net, d->form, h_logits, 1);
}

void p4_decoder_rewind(p4_decoder *d, int64_t count)
{
    d->cache.past = p4_min_i64(count, d->cache.past);
}

double p4_decoder_weight_bytes(const p4_model *model, const p4_weight *weights)
{
    double bytes = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        const p4_weight *w = &weights[i];
        bool table = p->role == P4_ROLE_POSITION || (p->role == P4_ROLE_EMBED && !model->arch.tied);
        double rows = (double)w->rows,
               all = w->dtype == P4_TERNARY
                         ? rows * (double)p4_code_row_bytes(w->cols) + 2.0 * (double)p4_weight_scale_count(w)
                         : rows * (double)(w->cols * p4_dtype_bytes(w->dtype));
        double part = table            ? 1 / rows
                      : p->expert >= 0 ? (double)model->arch.experts_used / (double)model->arch.experts
                                       : 1;
        bytes += all * part;
    }
    return bytes;
}
