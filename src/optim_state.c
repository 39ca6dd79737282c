#include "src/optim_state.h"

#include <string.h>

const char *p4_optim_part_name(p4_optim_part part)
{
    static const char *const names[P4_PART_COUNT] = {"master", "momentum",       "variance",      "average",
                                                     "scale",  "scale_momentum", "scale_variance"};
    return names[part];
}

static int64_t find_tensor(const p4_model *model, const char *name)
{
    for (int64_t i = 0; i < model->params_count; i++) {
        if (strcmp(model->params[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* One for each scale, not for each weight? */
static bool is_of_scales(p4_optim_part part)
{
    return part == P4_PART_SCALE || part == P4_PART_SCALE_MOMENTUM || part == P4_PART_SCALE_VARIANCE;
}

void p4_optim_part_shape(const p4_param *param, p4_optim_part part, int64_t *rows, int64_t *cols)
{
    *rows = is_of_scales(part) ? p4_param_scale_count(param) : param->rows;
    *cols = is_of_scales(part) ? 1 : param->cols;
}

/* Where the part of parameter i begins in its array, in elements; -1: it is not held here, or has no such
 * part. */
static int64_t place_of(const p4_optim *o, int64_t i, p4_optim_part part)
{
    return o->at[i] < 0 || (part == P4_PART_AVERAGE && !o->settings.grokfast) ? -1
           : part == P4_PART_VARIANCE                                         ? o->v_at[i]
           : is_of_scales(part)                                               ? o->scale_at[i]
                                                                              : o->at[i];
}

static int64_t element_bytes(const p4_optim *o, p4_optim_part part)
{
    return o->settings.half_state && part != P4_PART_MASTER && !is_of_scales(part) ? 2 : 4;
}

int64_t p4_optim_part_bytes_of(const p4_optim *o, int64_t i, p4_optim_part part)
{
    int64_t rows, cols;
    p4_optim_part_shape(&o->model->params[i], part, &rows, &cols);
    return place_of(o, i, part) >= 0 ? rows * cols * element_bytes(o, part) : 0;
}

int64_t p4_optim_part_bytes(const p4_optim *o, const char *tensor, p4_optim_part part)
{
    int64_t i = find_tensor(o->model, tensor);
    return i >= 0 ? p4_optim_part_bytes_of(o, i, part) : 0;
}

/* The part in device memory, NULL when it is not here. */
static char *find_part(const p4_optim *o, const char *tensor, p4_optim_part part, int64_t *bytes)
{
    char *arrays[P4_PART_COUNT] = {
        (char *)o->master, o->m, o->v, o->ema, (char *)o->scales, (char *)o->scale_m, (char *)o->scale_v};
    int64_t i = find_tensor(o->model, tensor);
    *bytes = i >= 0 ? p4_optim_part_bytes_of(o, i, part) : 0;
    return *bytes > 0 ? arrays[part] + place_of(o, i, part) * element_bytes(o, part) : NULL;
}

static p4_rc expect_part(const void *found, const char *tensor, p4_optim_part part, int64_t bytes,
                         int64_t wanted)
{
    return found != NULL && bytes == wanted
               ? P4_OK
               : p4_fail(P4_E_STATE, "%s of tensor %s: found %lld bytes here, expected %lld",
                         p4_optim_part_name(part), tensor, (long long)bytes, (long long)wanted);
}

p4_rc p4_optim_get(const p4_optim *o, const char *tensor, p4_optim_part part, void *h_to, int64_t bytes)
{
    int64_t here;
    const char *from = find_part(o, tensor, part, &here);
    p4_rc rc = expect_part(from, tensor, part, here, bytes);
    if (rc == P4_OK) {
        o->ops->to_host(o->device, h_to, from, bytes);
        rc = o->ops->sync(o->device);
    }
    return rc;
}

p4_rc p4_optim_set(p4_optim *o, const char *tensor, p4_optim_part part, const void *h_from, int64_t bytes)
{
    int64_t here;
    char *to = find_part(o, tensor, part, &here);
    p4_rc rc = expect_part(to, tensor, part, here, bytes);
    if (rc == P4_OK) {
        o->ops->to_device(o->device, to, h_from, bytes);
        rc = o->ops->sync(o->device);
    }
    return rc;
}
