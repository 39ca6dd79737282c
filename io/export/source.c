#include "io/export/source.h"

#include <math.h>

p4_rc p4_export_view(const p4_export_source *source, p4_export_space *space, p4_weight *view, int64_t param,
                     int64_t first, int64_t count)
{
    const p4_weight *w = &source->weights[param];
    int64_t row_bytes =
        w->dtype == P4_TERNARY ? p4_code_row_bytes(w->cols) : w->cols * p4_dtype_bytes(w->dtype);
    *view = *w;
    view->rows = count;
    if (w->dtype == P4_TERNARY) { /* a scale of the whole tensor is one of the whole view */
        view->scale += first * w->cols / p4_scale_group(w->scale_group, w->cols);
        view->scale_group = p4_min_i64(w->scale_group, count * w->cols);
    }
    if (w->data != NULL) {
        view->data = (const uint8_t *)w->data + first * row_bytes;
        return P4_OK;
    }
    return source->rows->read(source->rows->user, space, &view->data, param, first, count);
}

p4_rc p4_export_step(const p4_export_source *source, int64_t *rows, int64_t param)
{
    *rows = 0;
    return source->weights[param].data == NULL ? source->rows->step(source->rows->user, rows, param) : P4_OK;
}

void p4_export_space_free(p4_export_space *space)
{
    p4_space_free(&space->stored);
    p4_space_free(&space->decoded);
}

p4_rc p4_export_check_scales(const p4_export_source *source, bool (*is_taken)(const p4_param *p),
                             const char *writer, const char *format)
{
    const p4_model *model = &source->hf->model;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bool equal = !is_taken(p) || p4_param_scale_count(p) == 1;
        if (!equal && source->weights != NULL) {
            const p4_weight *w = &source->weights[i];
            int64_t count = p4_weight_scale_count(w), k = 1;
            while (k < count && w->scale[k] == w->scale[0]) {
                k++;
            }
            equal = k == count;
        }
        if (!equal) {
            return FAIL("%s: %s takes one scale a tensor, and \"%s\" has several "
                        "(scale_granularity \"tensor\" makes one)",
                        writer, format, p->name);
        }
    }
    return P4_OK;
}

p4_rc p4_export_check_range(const p4_export_source *source, bool (*is_taken)(const p4_param *p),
                            float (*stored)(float scale), const char *writer)
{
    const p4_model *model = &source->hf->model;
    for (int64_t i = 0; source->weights != NULL && i < model->params_count; i++) {
        const p4_weight *w = &source->weights[i];
        int64_t count = is_taken(&model->params[i]) ? p4_weight_scale_count(w) : 0;
        for (int64_t k = 0; k < count; k++) {
            float scale = p4_f16_to_f32(w->scale[k]), value = stored != NULL ? stored(scale) : scale;
            if (!isfinite(p4_f16_to_f32(p4_f32_to_f16(value)))) {
                return FAIL("%s: tensor \"%s\": scale %lld is %.4g, which is stored as %.4g; fp16 holds "
                            "values up to 65504",
                            writer, model->params[i].name, (long long)k + 1, (double)scale, (double)value);
            }
        }
    }
    return P4_OK;
}
