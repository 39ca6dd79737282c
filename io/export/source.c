#include "io/export/source.h"

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
