#include "src/form.h"

#include <stdlib.h>
#include <string.h>

static int64_t weight_bytes(const p4_weight *w)
{
    return w->dtype == P4_TERNARY ? w->rows * p4_code_row_bytes(w->cols)
                                  : w->rows * w->cols * p4_dtype_bytes(w->dtype);
}

/* How a form is made from `source`. */
typedef struct making {
    const p4_model *model;
    const p4_weight *source;
    bool copy;  /* into device memory, what can stay where it is too */
    bool dense; /* matrices of blocks in activation type */
} making;

/* A slot's parts (of a bias, of a dense matrix) must stand one after another, so only the first starts on a
 * new 64-byte line. */
static bool starts_slot(const p4_model *model, int64_t i)
{
    const p4_param *p = &model->params[i];
    return !(p4_role_is_slot_bias(p->role) || p4_role_is_matrix(p->role)) || p->row_offset == 0;
}

/* Is the tensor converted to activation type? Not where its elements are that already, in memory that the
 * device reads. */
static bool converts(const p4_device_form *f, const making *m, int64_t i)
{
    const p4_param *p = &m->model->params[i];
    const p4_weight *w = &m->source[i];
    bool as_is = !m->copy && w->dtype == P4_F32 && !w->transposed && (uintptr_t)w->data % 16 == 0 &&
                 p4_model_parts(m->model, i) == 1 && p->row_offset == 0 && f->ops->act_bytes(f->device) == 4;
    return m->dense && p4_role_is_matrix(p->role) && !as_is;
}

static void lay_out(p4_device_form *f, const making *m, p4_arena *arena)
{
    const p4_model *model = m->model;
    int64_t each = f->ops->act_bytes(f->device);
    char *slot_end = NULL;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        p4_weight *w = &f->form.weights[i];
        *w = m->source[i];
        if (m->source[i].data == NULL) {
            continue;
        }
        bool converted = converts(f, m, i);
        int64_t bytes = w->rows * w->cols * (p->vector ? 4 : each);
        if ((p->vector || converted) && starts_slot(model, i)) {
            slot_end = p4_arena_take(arena, p4_slot_rows(model, i) * (p->vector ? 4 : w->cols * each));
        }
        if (p->vector) {
            f->form.vectors[i] = (float *)(void *)slot_end;
        } else if (converted) {
            *w = (p4_weight){
                .dtype = each == 4 ? P4_F32 : P4_BF16, .rows = w->rows, .cols = w->cols, .data = slot_end};
        } else if (m->copy) {
            w->data = p4_arena_take(arena, weight_bytes(w));
            w->scale = w->dtype == P4_TERNARY ? p4_arena_take(arena, p4_weight_scale_count(w) * 2) : NULL;
        }
        if (p->vector || converted) {
            slot_end = slot_end == NULL ? NULL : slot_end + bytes;
        }
    }
}

/* Converts a matrix on the device; room: device memory for its elements as they are, where they are copied
 * first. */
static void convert(p4_device_form *f, const making *m, int64_t i, void *room)
{
    p4_weight from = m->source[i];
    if (m->copy) {
        f->ops->to_device(f->device, room, from.data, weight_bytes(&from));
        from.data = room;
    }
    f->ops->weight_unpack(f->device, (void *)(uintptr_t)f->form.weights[i].data, &from);
}

/* Host memory for the longest vector, device memory for the largest matrix that is converted. The caller
 * frees both, after an error too. */
static p4_rc take_rooms(const p4_device_form *f, const making *m, float **h_vector, void **room)
{
    int64_t longest = 1, largest = 0;
    for (int64_t i = 0; i < m->model->params_count; i++) {
        const p4_weight *s = &m->source[i];
        bool here = s->data != NULL;
        longest = here && m->model->params[i].vector ? p4_max_i64(longest, s->rows * s->cols) : longest;
        largest = here && m->copy && converts(f, m, i) ? p4_max_i64(largest, weight_bytes(s)) : largest;
    }
    *h_vector = p4_alloc((size_t)longest, sizeof **h_vector);
    return *h_vector == NULL ? P4_E_SYSTEM : largest > 0 ? f->ops->alloc(f->device, room, largest) : P4_OK;
}

static p4_rc fill(p4_device_form *f, const making *m)
{
    p4_rc rc = P4_OK;
    float *h_vector = NULL;
    void *room = NULL;
    TRY(take_rooms(f, m, &h_vector, &room));
    for (int64_t i = 0; i < m->model->params_count; i++) {
        const p4_weight *s = &m->source[i], *w = &f->form.weights[i];
        if (s->data == NULL) {
            continue;
        }
        if (m->model->params[i].vector) {
            p4_to_f32(h_vector, s->data, s->dtype, s->rows * s->cols);
            f->ops->to_device(f->device, f->form.vectors[i], h_vector, s->rows * s->cols * 4);
        } else if (converts(f, m, i)) {
            convert(f, m, i, room);
        } else if (m->copy) {
            f->ops->to_device(f->device, (void *)(uintptr_t)w->data, s->data, weight_bytes(s));
            if (s->dtype == P4_TERNARY) {
                f->ops->to_device(f->device, (void *)(uintptr_t)w->scale, s->scale,
                                  p4_weight_scale_count(s) * 2);
            }
        }
    }
    TRY(f->ops->sync(f->device));
done:
    if (room != NULL) {
        f->ops->release(f->device, room);
    }
    free(h_vector);
    return rc;
}

static p4_rc open_form(p4_device_form *f, const p4_ops *ops, p4_device *device, const making *m)
{
    p4_rc rc = P4_OK;
    *f = (p4_device_form){.ops = ops, .device = device};
    f->form.weights = p4_alloc((size_t)m->model->params_count, sizeof *f->form.weights);
    f->form.vectors = p4_alloc((size_t)m->model->params_count, sizeof *f->form.vectors);
    if (f->form.weights == NULL || f->form.vectors == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    p4_arena count = {0};
    lay_out(f, m, &count);
    TRY(ops->alloc(device, &f->memory, count.used_bytes + 64));
    p4_arena arena = {.base = f->memory, .capacity_bytes = count.used_bytes + 64};
    lay_out(f, m, &arena);
    f->memory_bytes = arena.used_bytes;
    TRY(fill(f, m));
done:
    if (rc != P4_OK) {
        p4_device_form_close(f);
    }
    return rc;
}

p4_rc p4_device_form_open(p4_device_form *f, const p4_ops *ops, p4_device *device, const p4_model *model,
                          const p4_weight *source)
{
    return open_form(f, ops, device, &(making){.model = model, .source = source, .copy = !ops->host_memory});
}

p4_rc p4_device_form_open_dense(p4_device_form *f, const p4_ops *ops, p4_device *device,
                                const p4_model *model, const p4_weight *source)
{
    return open_form(f, ops, device,
                     &(making){.model = model, .source = source, .copy = !ops->host_memory, .dense = true});
}

static int64_t form_bytes(const p4_ops *ops, p4_device *device, const making *m)
{
    p4_arena count = {0};
    p4_device_form f = {.ops = ops, .device = device};
    f.form.weights = p4_alloc((size_t)m->model->params_count, sizeof *f.form.weights);
    f.form.vectors = p4_alloc((size_t)m->model->params_count, sizeof *f.form.vectors);
    if (f.form.weights != NULL && f.form.vectors != NULL) {
        lay_out(&f, m, &count);
    } else {
        count.used_bytes = -1;
    }
    free(f.form.weights);
    free(f.form.vectors);
    return count.used_bytes;
}

int64_t p4_device_form_bytes(const p4_ops *ops, p4_device *device, const p4_model *model,
                             const p4_weight *source)
{
    return form_bytes(ops, device, &(making){.model = model, .source = source, .copy = !ops->host_memory});
}

int64_t p4_dense_form_bytes(const p4_ops *ops, p4_device *device, const p4_model *model,
                            const p4_weight *source)
{
    return form_bytes(ops, device,
                      &(making){.model = model, .source = source, .copy = !ops->host_memory, .dense = true});
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
