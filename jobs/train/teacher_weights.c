/* teacher_weights.c - what of the original a rank holds on its device. */
#include <stdlib.h>

#include "jobs/train/teacher.h"

p4_weight *p4_teacher_sources(const p4_teacher *t)
{
    const p4_model *model = &t->original->hf.model;
    p4_weight *source = p4_alloc((size_t)model->params_count, sizeof *source);
    for (int64_t i = 0; source != NULL && i < model->params_count; i++) {
        bool needed = t->plan.kind == P4_TEACHER_RESIDENT
                          ? model->params[i].role != P4_ROLE_HEAD
                          : p4_original_is_run_by(t->original, t->compute->group->rank, i);
        source[i] = model->weights[i];
        source[i].data = needed ? source[i].data : NULL;
    }
    return source;
}

int64_t p4_teacher_bias_at(const p4_teacher *t)
{
    const p4_arch *a = &t->original->hf.model.arch;
    const p4_compute *compute = t->compute;
    int64_t bytes = p4_net_logits_ld(compute->ops, a->V) * a->C * compute->ops->act_bytes(compute->device);
    return p4_ceil_div(bytes, 64) * 64;
}

/* The bias of the head, if it has one, behind it. */
static p4_rc put_head_bias(p4_teacher *t)
{
    const p4_model *model = &t->original->hf.model;
    int64_t i = p4_model_find(model, P4_ROLE_HEAD_BIAS, -1), V = model->arch.V;
    if (i < 0) {
        return P4_OK;
    }
    float *h_bias = p4_alloc((size_t)V, sizeof *h_bias);
    if (h_bias == NULL) {
        return P4_E_SYSTEM;
    }
    float *bias = (float *)(void *)((char *)t->head + p4_teacher_bias_at(t));
    p4_to_f32(h_bias, model->weights[i].data, model->weights[i].dtype, V);
    t->compute->ops->to_device(t->compute->device, bias, h_bias, V * 4);
    t->view.head_bias = bias;
    free(h_bias);
    return P4_OK;
}

p4_rc p4_teacher_open_head(p4_teacher *t)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = t->compute->ops;
    p4_device *device = t->compute->device;
    const p4_model *model = &t->original->hf.model;
    int64_t i = p4_model_find(model, model->arch.tied ? P4_ROLE_EMBED : P4_ROLE_HEAD, -1);
    p4_weight from = model->weights[i];
    int64_t bytes = from.rows * from.cols * p4_dtype_bytes(from.dtype),
            used = from.rows * from.cols * ops->act_bytes(device);
    void *room = NULL;
    TRY(ops->alloc(device, &t->head, t->head_bytes));
    if (!ops->host_memory) {
        TRY(ops->alloc(device, &room, bytes));
        ops->to_device(device, room, from.data, bytes);
        from.data = room;
    }
    ops->weight_unpack(device, t->head, &from);
    ops->zero(device, (char *)t->head + used, t->head_bytes - used);
    TRY(put_head_bias(t));
    TRY(ops->sync(device));
    t->view.head = t->head;
done:
    if (room != NULL) {
        ops->release(device, room);
    }
    return rc;
}

int64_t p4_teacher_weights_bytes(const p4_teacher *t)
{
    const p4_model *model = &t->original->hf.model;
    p4_weight *source = p4_teacher_sources(t);
    int64_t bytes =
        source != NULL ? p4_dense_form_bytes(t->compute->ops, t->compute->device, model, source) : -1;
    free(source);
    return bytes;
}

p4_rc p4_teacher_open_weights(p4_teacher *t)
{
    p4_rc rc = P4_OK;
    const p4_hf_model *hf = &t->original->hf;
    p4_weight *source = p4_teacher_sources(t);
    TRY(source != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_device_form_open_dense(&t->form, t->compute->ops, t->compute->device, &hf->model, source));
    for (int64_t i = 0; !t->compute->ops->host_memory && i < hf->model.params_count; i++) {
        p4_hf_model_drop_pages(hf, i);
    }
done:
    free(source);
    return rc;
}

void p4_teacher_close_head(p4_teacher *t)
{
    if (t->head != NULL) {
        t->compute->ops->release(t->compute->device, t->head);
    }
    if (t->states != NULL) {
        t->compute->ops->release(t->compute->device, t->states);
    }
    t->head = t->states = NULL;
    t->view.head = NULL;
    t->view.head_bias = NULL;
    t->head_bytes = 0;
}
