#include "io/export/source.h"

#include <math.h>

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
