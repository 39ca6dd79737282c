#include "src/form.h"

#include <stdlib.h>
#include <string.h>

static int64_t weight_bytes(const p4_weight *w)
{
    return w->dtype == P4_TERNARY ? w->rows * p4_code_row_bytes(w->cols)
                                  : w->rows * w->cols * p4_dtype_bytes(w->dtype);
}

/* A slot's bias parts must stand one after another, so only the first part starts on a new 64-byte line. */
static bool starts_slot(const p4_model *model, int64_t i)
{
    const p4_param *p = &model->params[i];
    return !p4_role_is_slot_bias(p->role) || p->row_offset == 0;
}

static void lay_out(p4_device_form *f, const p4_model *model, const p4_weight *source, bool copy,
                    p4_arena *arena)
{
    float *slot_end = NULL;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        p4_weight *w = &f->form.weights[i];
        *w = source[i];
        if (source[i].data == NULL) {
            continue;
        }
        if (p->vector) {
            if (starts_slot(model, i)) {
                slot_end = p4_arena_take(arena, p4_slot_rows(model, i) * 4);
            }
            f->form.vectors[i] = slot_end;
            slot_end = slot_end == NULL ? NULL : slot_end + p->rows * p->cols;
        } else if (copy) {
            w->data = p4_arena_take(arena, weight_bytes(w));
            w->scale = w->dtype == P4_TERNARY ? p4_arena_take(arena, w->rows * 2) : NULL;
        }
    }
}

static p4_rc fill(p4_device_form *f, const p4_model *model, const p4_weight *source, bool copy)
{
    p4_rc rc = P4_OK;
    int64_t longest = 1;
    for (int64_t i = 0; i < model->params_count; i++) {
        longest = model->params[i].vector ? p4_max_i64(longest, source[i].rows * source[i].cols) : longest;
    }
    float *h_vector = p4_alloc((size_t)longest, sizeof *h_vector);
    if (h_vector == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_weight *s = &source[i], *w = &f->form.weights[i];
        if (s->data == NULL) {
            continue;
        }
        if (model->params[i].vector) {
            p4_to_f32(h_vector, s->data, s->dtype, s->rows * s->cols);
            f->ops->to_device(f->device, f->form.vectors[i], h_vector, s->rows * s->cols * 4);
        } else if (copy) {
            f->ops->to_device(f->device, (void *)(uintptr_t)w->data, s->data, weight_bytes(s));
            if (s->dtype == P4_TERNARY) {
                f->ops->to_device(f->device, (void *)(uintptr_t)w->scale, s->scale, s->rows * 2);
            }
        }
    }
    TRY(f->ops->sync(f->device));
done:
    free(h_vector);
    return rc;
}

p4_rc p4_device_form_open(p4_device_form *f, const p4_ops *ops, p4_device *device, const p4_model *model,
                          const p4_weight *source)
{
    p4_rc rc = P4_OK;
    bool copy = !ops->host_memory;
    *f = (p4_device_form){.ops = ops, .device = device};
    f->form.weights = p4_alloc((size_t)model->params_count, sizeof *f->form.weights);
    f->form.vectors = p4_alloc((size_t)model->params_count, sizeof *f->form.vectors);
    if (f->form.weights == NULL || f->form.vectors == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    p4_arena count = {0};
    lay_out(f, model, source, copy, &count);
    TRY(ops->alloc(device, &f->memory, count.used_bytes + 64));
    p4_arena arena = {.base = f->memory, .capacity_bytes = count.used_bytes + 64};
    lay_out(f, model, source, copy, &arena);
    TRY(fill(f, model, source, copy));
done:
    if (rc != P4_OK) {
        p4_device_form_close(f);
    }
    return rc;
}

void p4_device_form_close(p4_device_form *f)
{
    if (f->memory != NULL) {
        f->ops->release(f->device, f->memory);
    }
    free(f->form.weights);
    free(f->form.vectors);
    *f = (p4_device_form){0};
}
