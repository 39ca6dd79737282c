#include "jobs/model_rows.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base3.h"

p4_rc p4_model_rows_read(p4_artifact_reader *reader, const p4_artifact_tensor *tensor, p4_export_space *space,
                         void *to, const void **rows, int64_t first, int64_t count)
{
    p4_rc rc = P4_OK;
    const void *stored;
    bool base3 = tensor->ternary && tensor->encoding == P4_PACKING_BASE3X5;
    int64_t row_bytes = base3 ? p4_code_row_bytes(tensor->cols) : p4_artifact_row_bytes(tensor);
    TRY(p4_artifact_rows(reader, tensor, &space->stored, &stored, first, count));
    if (to == NULL && !base3) {
        *rows = stored;
        goto done;
    }
    if (to == NULL) {
        TRY(p4_space_need(&space->decoded, (size_t)(count * row_bytes)));
        to = space->decoded.data;
    }
    if (base3) {
        p4_base3_unpack(to, stored, count, tensor->cols);
    } else {
        memcpy(to, stored, (size_t)(count * row_bytes));
    }
    *rows = to;
done:
    return rc;
}

static p4_rc read_rows(void *user, p4_export_space *space, const void **rows, int64_t param, int64_t first,
                       int64_t count)
{
    const p4_model_rows *m = user;
    return p4_model_rows_read(m->reader, m->tensors[param], space, NULL, rows, first, count);
}

static p4_rc find_step(void *user, int64_t *rows, int64_t param)
{
    const p4_model_rows *m = user;
    return p4_artifact_chunk_rows(m->reader, m->tensors[param], rows);
}

static p4_rc read_scales(p4_model_rows *m, const p4_model *model)
{
    p4_rc rc = P4_OK;
    int64_t count = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        count += m->tensors[i]->ternary ? p4_param_scale_count(&model->params[i]) : 0;
    }
    uint16_t *scale = m->scales = p4_alloc((size_t)count, sizeof *m->scales);
    TRY(scale != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < model->params_count; i++) {
        if (m->tensors[i]->ternary) {
            TRY(p4_artifact_read_scales(m->reader, m->tensors[i], scale));
            m->weights[i].scale = scale;
            scale += p4_param_scale_count(&model->params[i]);
        }
    }
done:
    return rc;
}

p4_rc p4_model_rows_open(p4_model_rows *made, p4_artifact_reader *reader, const p4_model *model)
{
    p4_rc rc = P4_OK;
    size_t count = (size_t)model->params_count;
    *made = (p4_model_rows){.reader = reader,
                            .tensors = p4_alloc(count, sizeof *made->tensors),
                            .weights = p4_alloc(count, sizeof *made->weights),
                            .rows = {.read = read_rows, .step = find_step, .user = made}};
    TRY(made->tensors != NULL && made->weights != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        made->tensors[i] = p4_artifact_reader_find(reader, p->name);
        made->weights[i] = (p4_weight){.dtype = p->ternary ? P4_TERNARY : P4_F16,
                                       .rows = p->rows,
                                       .cols = p->cols,
                                       .scale_group = p->ternary ? p->scale_group : 0};
    }
    TRY(read_scales(made, model));
done:
    return rc;
}

void p4_model_rows_close(p4_model_rows *made)
{
    free(made->tensors);
    free(made->weights);
    free(made->scales);
    *made = (p4_model_rows){0};
}
