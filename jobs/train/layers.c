#include "jobs/train/layers.h"

#include <stdlib.h>

static int64_t window_bytes(const p4_layers *l)
{
    const p4_compute *compute = l->compute;
    return l->plan.T * l->original->hf.model.arch.C * compute->ops->act_bytes(compute->device);
}

int64_t p4_layers_batch(const p4_layers *l, int64_t m)
{
    return p4_min_i64(l->plan.B, l->high - l->low - m * l->plan.B);
}

void p4_layers_read(p4_layers *l, int64_t m, void *x)
{
    p4_states_read(&l->states, m * l->plan.B, p4_layers_batch(l, m), x);
}

void p4_layers_write(p4_layers *l, int64_t m, const void *x)
{
    p4_states_write(&l->states, m * l->plan.B, p4_layers_batch(l, m), x);
}

/* --- forms of a part of the model ------------------------------------------------------------- */

/* Of these weights the tensors of one layer, or with layer -1 the embeddings, heap. */
static p4_weight *part_of(const p4_model *model, const p4_weight *weights, int64_t layer)
{
    p4_weight *source = p4_alloc((size_t)model->params_count, sizeof *source);
    for (int64_t i = 0; source != NULL && i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bool embedding = p->role == P4_ROLE_EMBED || p->role == P4_ROLE_POSITION;
        bool wanted = layer >= 0 ? p->layer == layer : embedding;
        source[i] = weights[i];
        source[i].data = wanted ? source[i].data : NULL;
    }
    return source;
}

/* As a form on the device. Local. */
static p4_rc open_part(p4_device_form *form, const p4_layers *l, const p4_weight *weights, int64_t layer)
{
    const p4_model *model = &l->original->hf.model;
    p4_weight *source = part_of(model, weights, layer);
    if (source == NULL) {
        return P4_E_SYSTEM;
    }
    p4_rc rc = p4_device_form_open(form, l->compute->ops, l->compute->device, model, source);
    free(source);
    return rc;
}

/* And the pages of its files are no longer needed. Local. */
static void close_part(p4_device_form *form, const p4_layers *l, int64_t layer)
{
    const p4_model *model = &l->original->hf.model;
    p4_device_form_close(form);
    for (int64_t i = model->layer_first[layer]; i < model->layer_first[layer + 1]; i++) {
        p4_hf_model_drop_pages(&l->original->hf, i);
    }
}

/* --- open and run ----------------------------------------------------------------------------- */

p4_rc p4_layers_embed(p4_layers *l, const p4_weight *weights, p4_states *states)
{
    p4_rc rc = P4_OK;
    p4_device_form form = {0};
    TRY(open_part(&form, l, weights, -1));
    for (int64_t m = 0; m < l->micro_batches; m++) {
        int64_t B = p4_layers_batch(l, m), first = m * l->plan.B;
        p4_net_set_tokens(&l->net, l->windows->ids + (l->low + first) * l->plan.T, B, l->plan.T);
        p4_net_embed(&l->net, &form.form, l->x, B, l->plan.T);
        p4_states_write(states, first, B, l->x);
    }
    TRY(l->compute->ops->sync(l->compute->device));
done:
    p4_device_form_close(&form);
    return rc;
}

static p4_net_plan net_plan(const p4_layers_plan *plan)
{
    return (p4_net_plan){.B = plan->B, .T = plan->T, .activation_bits = plan->activation_bits};
}

static p4_rc take_memory(p4_layers *l)
{
    p4_rc rc = P4_OK;
    const p4_compute *compute = l->compute;
    const p4_net_plan net = net_plan(&l->plan);
    TRY(p4_net_open(&l->net, compute->ops, compute->device, &l->original->hf.model, &net));
    TRY(compute->ops->alloc(compute->device, &l->x, l->plan.B * window_bytes(l)));
    TRY(p4_states_open(&l->states, compute, l->high - l->low, window_bytes(l), l->plan.states_on_host));
    TRY(p4_layers_embed(l, l->original->hf.model.weights, &l->states));
done:
    return rc;
}

/* Which of all windows are this rank's. */
static void divide(p4_layers *l, int64_t windows)
{
    const p4_group *group = l->compute->group;
    l->low = p4_layers_first(windows, l->plan.B, group->rank, group->ranks);
    l->high = p4_layers_first(windows, l->plan.B, group->rank + 1, group->ranks);
}

/* Does layer l have the tensors and types of the layer before it? */
static bool is_like_last(const p4_model *model, int64_t l)
{
    int64_t first = l > 0 ? model->layer_first[l] : 0, before = l > 0 ? model->layer_first[l - 1] : 0;
    bool same = l > 0 && model->layer_first[l + 1] - first == first - before;
    for (int64_t i = 0; same && i < first - before; i++) {
        const p4_weight *a = &model->weights[first + i], *b = &model->weights[before + i];
        same = a->dtype == b->dtype && a->rows == b->rows && a->cols == b->cols;
    }
    return same;
}

/* Bytes of the form of the largest layer or of the embeddings: one is on the device at a time. -1: out of
 * host memory. */
static int64_t largest_part(const p4_layers *l)
{
    int64_t most = 0;
    const p4_model *model = &l->original->hf.model;
    for (int64_t layer = -1; layer < model->arch.L && most >= 0; layer++) {
        if (is_like_last(model, layer)) {
            continue;
        }
        p4_weight *source = part_of(model, model->weights, layer);
        int64_t bytes =
            source == NULL ? -1 : p4_device_form_bytes(l->compute->ops, l->compute->device, model, source);
        most = bytes < 0 ? -1 : p4_max_i64(most, bytes);
        free(source);
    }
    return most;
}

p4_rc p4_layers_bytes(p4_layers_memory *memory, const p4_compute *compute, const p4_original *original,
                      int64_t windows, const p4_layers_plan *plan)
{
    p4_layers l = {.compute = (p4_compute *)(uintptr_t)compute, .original = original, .plan = *plan};
    const p4_net_plan net = net_plan(plan);
    divide(&l, windows);
    int64_t net_bytes = p4_net_bytes(compute->ops, compute->device, &original->hf.model, &net),
            part = largest_part(&l);
    *memory = (p4_layers_memory){.work = net_bytes + plan->B * window_bytes(&l) + part,
                                 .states = (l.high - l.low) * window_bytes(&l)};
    return net_bytes >= 0 && part >= 0 ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_layers_open(p4_layers *l, p4_compute *compute, const p4_original *original,
                     const p4_windows *windows, const p4_layers_plan *plan)
{
    *l = (p4_layers){.compute = compute, .original = original, .windows = windows, .plan = *plan};
    divide(l, windows->count);
    l->micro_batches = p4_ceil_div(l->high - l->low, plan->B);
    p4_rc rc = p4_agree(compute->group, take_memory(l));
    if (rc != P4_OK) {
        p4_layers_close(l);
    }
    return rc;
}

void p4_layers_close(p4_layers *l)
{
    p4_states_close(&l->states);
    if (l->x != NULL) {
        l->compute->ops->release(l->compute->device, l->x);
    }
    if (l->net.ops != NULL) {
        p4_net_close(&l->net);
    }
    *l = (p4_layers){0};
}

/* One block over all states; keep: they become its outputs. Local. */
static p4_rc run_block(p4_layers *l, int64_t layer, const p4_form *form, const p4_probe *probe, bool keep)
{
    for (int64_t m = 0; m < l->micro_batches; m++) {
        int64_t B = p4_layers_batch(l, m);
        p4_layers_read(l, m, l->x);
        p4_net_pass pass = {.form = form, .B = B, .T = l->plan.T, .probe = probe};
        p4_net_layers(&l->net, &pass, layer, layer + 1, l->x);
        if (keep) {
            p4_layers_write(l, m, l->x);
        }
    }
    return l->compute->ops->sync(l->compute->device);
}

p4_rc p4_layers_advance(p4_layers *l, int64_t layer, const p4_form *form, const p4_probe *probe)
{
    return run_block(l, layer, form, probe, true);
}

p4_rc p4_layers_observe(p4_layers *l, int64_t layer, const p4_form *form, const p4_probe *probe)
{
    return run_block(l, layer, form, probe, false);
}

p4_rc p4_layers_run(p4_layers *l, p4_block_visitor visit, void *user)
{
    p4_rc rc = P4_OK;
    p4_progress progress;
    int64_t L = l->original->hf.model.arch.L;
    p4_progress_start(&progress, "layers", "blocks", (double)L);
    for (int64_t layer = 0; layer < L; layer++) {
        p4_device_form form = {0};
        TRY(p4_stop_agree(l->compute->stop, l->compute->group));
        rc = p4_agree(l->compute->group, open_part(&form, l, l->original->hf.model.weights, layer));
        rc = rc == P4_OK ? visit(user, l, layer, &form.form) : rc;
        close_part(&form, l, layer); /* also of one that could not be opened here */
        TRY(rc);
        if (!l->plan.quiet) {
            p4_progress_update(&progress, (double)(layer + 1), NULL);
        }
    }
done:
    if (!l->plan.quiet) {
        p4_progress_end(&progress);
    }
    return rc;
}
