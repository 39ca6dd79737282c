#include "jobs/train/quantize.h"

#include <math.h>
#include <stdlib.h>

#include "jobs/train/hessian.h"

/* A quantization at work. */
typedef struct work {
    p4_packed *packed;
    p4_compute *compute;
    const p4_original *original;
    const p4_quantize_plan *plan;
    float *h_importance; /* host, of the widest matrix; NULL: the quantizer weighs nothing */
    void *memory; /* of the device, for one matrix after another; NULL where it computes in host memory */
    int64_t in_bytes, code_bytes, scale_bytes; /* rounded to 64, of the largest matrix */
} work;

static int64_t weight_bytes(const p4_weight *weight)
{
    return weight->rows * weight->cols * p4_dtype_bytes(weight->dtype);
}

/* The matrix on the device already: this rank runs its layer and has opened the original. */
static const p4_weight *resident(const work *w, int64_t i)
{
    const p4_weight *weight = p4_original_is_loaded(w->original) ? &w->original->form.form.weights[i] : NULL;
    return weight != NULL && weight->data != NULL ? weight : NULL;
}

/* Its rows are brought into order first: a transposed matrix has no memory in which the weights of a scale
 * follow one another. */
static bool is_turned(const work *w, int64_t i)
{
    return w->original->hf.model.params[i].scale_group > 0 && w->original->hf.model.weights[i].transposed;
}

/* Is the matrix quantized under H, block by block (jobs/train/hessian.h)? */
static bool waits_for_hessian(const work *w, int64_t i)
{
    return w->plan->quantizer->needs == P4_NEEDS_HESSIAN &&
           p4_role_is_matrix(w->original->hf.model.params[i].role);
}

static bool is_quantized_alone(const work *w, int64_t i)
{
    return w->original->hf.model.params[i].ternary && !waits_for_hessian(w, i);
}

static bool is_mine(const work *w, int64_t i)
{
    return is_quantized_alone(w, i) && w->original->shard.owner[i] == w->compute->group->rank;
}

p4_rc p4_quantize_plan_check(const p4_quantize_plan *plan)
{
    bool seen = plan->statistics != NULL && plan->statistics->entries != NULL;
    switch (plan->quantizer->needs) {
    case P4_NEEDS_NO_STATISTICS:
        return P4_OK;
    case P4_NEEDS_DIAGONAL:
        if (seen) {
            return P4_OK;
        }
        break;
    case P4_NEEDS_HESSIAN:
        if (seen && plan->windows != NULL && plan->windows->count > 0) {
            return P4_OK;
        }
        break;
    }
    return p4_fail(P4_E_STATE, "quantizer \"%s\" needs the statistics of a calibration",
                   plan->quantizer->name);
}

void p4_quantize_masters(p4_compute *compute, const p4_quantize_plan *plan, const p4_weight *codes,
                         const float *master, const float *opt_importance, p4_quant_error *opt_h_error)
{
    const p4_weight all = {.dtype = P4_F32,
                           .rows = codes->rows,
                           .cols = codes->cols,
                           .data = master,
                           .scale_group = codes->scale_group},
                    weight = p4_weight_by_scale(&all);
    compute->ops->quantize(compute->device, (uint8_t *)(uintptr_t)codes->data,
                           (uint16_t *)(uintptr_t)codes->scale, opt_h_error, &weight, plan->quantizer->method,
                           plan->threshold, opt_importance);
}

bool p4_quantize_has_importance(const p4_quantize_plan *plan, int64_t i)
{
    return plan->quantizer->needs == P4_NEEDS_DIAGONAL && p4_statistics_reached(plan->statistics, i);
}

bool p4_quantize_importance(const p4_quantize_plan *plan, int64_t i, int64_t cols, float *importance)
{
    if (!p4_quantize_has_importance(plan, i)) {
        return false;
    }
    for (int64_t c = 0; c < cols; c++) {
        importance[c] = (float)plan->statistics->entries[i].input_mean_square[c];
    }
    return true;
}

/* Elements of the widest matrix's rows. */
static int64_t measure(work *w)
{
    int64_t widest = 0;
    const p4_model *model = &w->original->hf.model;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_weight *weight = &model->weights[i];
        if (is_mine(w, i)) {
            int64_t in_bytes = is_turned(w, i)          ? weight->rows * weight->cols * 4
                               : resident(w, i) != NULL ? 0
                                                        : weight_bytes(weight);
            w->in_bytes = p4_max_i64(w->in_bytes, in_bytes);
            w->code_bytes = p4_max_i64(w->code_bytes, weight->rows * p4_code_row_bytes(weight->cols));
            w->scale_bytes = p4_max_i64(w->scale_bytes, p4_param_scale_count(&model->params[i]) * 2);
            widest = p4_max_i64(widest, weight->cols);
        }
    }
    w->in_bytes = (w->in_bytes + 63) / 64 * 64;
    w->code_bytes = (w->code_bytes + 63) / 64 * 64;
    w->scale_bytes = (w->scale_bytes + 63) / 64 * 64;
    return widest;
}

/* Of the device's memory. */
static int64_t workspace_bytes(const work *w, int64_t widest)
{
    bool weighs = w->plan->quantizer->needs == P4_NEEDS_DIAGONAL;
    return w->compute->ops->host_memory
               ? 0
               : w->in_bytes + w->code_bytes + w->scale_bytes + (weighs ? widest * 4 : 0);
}

int64_t p4_quantize_bytes(p4_compute *compute, const p4_original *original, const p4_quantize_plan *plan)
{
    work w = {.compute = compute, .original = original, .plan = plan};
    int64_t widest = measure(&w);
    return workspace_bytes(&w, widest);
}

/* How the matrix lies when it is quantized (take_matrix), without its values. */
static p4_weight form_at_work(const work *w, int64_t i)
{
    p4_weight weight = w->original->hf.model.weights[i];
    if (is_turned(w, i)) {
        weight.dtype = P4_F32;
        weight.transposed = false;
    }
    weight.scale_group = w->original->hf.model.params[i].scale_group;
    return p4_weight_by_scale(&weight);
}

int64_t p4_quantize_scratch_bytes(p4_compute *compute, const p4_original *original,
                                  const p4_quantize_plan *plan)
{
    const work w = {.compute = compute, .original = original, .plan = plan};
    int64_t most = 0;
    for (int64_t i = 0; i < original->hf.model.params_count; i++) {
        if (is_mine(&w, i)) {
            const p4_weight weight = form_at_work(&w, i);
            most = p4_max_i64(most, compute->ops->quantize_scratch_bytes(compute->device, &weight,
                                                                         plan->quantizer->method));
        }
    }
    return most;
}

static p4_rc open_workspace(work *w)
{
    int64_t widest = measure(w);
    if (w->plan->quantizer->needs == P4_NEEDS_DIAGONAL) {
        w->h_importance = p4_alloc((size_t)widest, sizeof *w->h_importance);
        if (w->h_importance == NULL) {
            return P4_E_SYSTEM;
        }
    }
    if (w->compute->ops->host_memory) {
        return P4_OK;
    }
    return w->compute->ops->alloc(w->compute->device, &w->memory, workspace_bytes(w, widest));
}

/* The matrix, with its rows in order. *h_turned: heap, the caller frees it; NULL: the matrix as it is. Local.
 */
static p4_rc take_matrix(const work *w, int64_t i, p4_weight *weight, float **h_turned)
{
    *weight = w->original->hf.model.weights[i];
    *h_turned = NULL;
    if (is_turned(w, i)) {
        *h_turned = p4_alloc((size_t)weight->rows, (size_t)weight->cols * sizeof **h_turned);
        if (*h_turned == NULL) {
            return P4_E_SYSTEM;
        }
        p4_weight_rows_f32(*h_turned, weight, 0, weight->rows);
        *weight = (p4_weight){.dtype = P4_F32, .rows = weight->rows, .cols = weight->cols, .data = *h_turned};
    }
    weight->scale_group = w->original->hf.model.params[i].scale_group;
    return P4_OK;
}

/* On devices with their own memory the matrix goes there, unless it is there, and the codes come back. Local.
 */
static p4_rc quantize_matrix(work *w, int64_t i)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = w->compute->ops;
    const p4_hf_model *hf = &w->original->hf;
    p4_packed *c = w->packed;
    p4_weight weight, by_scale;
    float *h_turned = NULL;
    uint8_t *codes = p4_packed_codes(c, i);
    uint16_t *scale = p4_packed_scale(c, i);
    const float *importance = NULL;
    TRY(take_matrix(w, i, &weight, &h_turned));
    if (w->h_importance != NULL && p4_quantize_importance(w->plan, i, weight.cols, w->h_importance)) {
        importance = w->h_importance;
    }
    if (!ops->host_memory) {
        const p4_weight *there = h_turned == NULL ? resident(w, i) : NULL;
        if (there == NULL) {
            ops->to_device(w->compute->device, w->memory, weight.data, weight_bytes(&weight));
        }
        weight.data = there != NULL ? there->data : w->memory;
        codes = (uint8_t *)w->memory + w->in_bytes;
        scale = (uint16_t *)(void *)(codes + w->code_bytes);
        if (importance != NULL) {
            importance = (float *)(void *)(codes + w->code_bytes + w->scale_bytes);
            ops->to_device(w->compute->device, (void *)(uintptr_t)importance, w->h_importance,
                           weight.cols * 4);
        }
    }
    by_scale = p4_weight_by_scale(&weight);
    ops->quantize(w->compute->device, codes, scale, &c->errors[i], &by_scale, w->plan->quantizer->method,
                  w->plan->threshold, importance);
    if (!ops->host_memory) {
        ops->to_host(w->compute->device, p4_packed_codes(c, i), codes,
                     weight.rows * p4_code_row_bytes(weight.cols));
        ops->to_host(w->compute->device, p4_packed_scale(c, i), scale, p4_weight_scale_count(&weight) * 2);
    }
    TRY(ops->sync(w->compute->device));
    CHECK(c->errors[i].nonfinite == 0, "%s: tensor %s holds values that are NaN or infinite, %lld of them",
          p4_hf_model_file_of(hf, &hf->model.weights[i]), hf->model.params[i].name,
          (long long)c->errors[i].nonfinite);
    CHECK(isfinite(c->errors[i].scale_max),
          "%s: tensor %s has a row whose scale fp16 cannot hold (up to 65504)",
          p4_hf_model_file_of(hf, &hf->model.weights[i]), hf->model.params[i].name);
done:
    free(h_turned);
    return rc;
}

/* This rank's own matrices, and its copy of what stays in high precision. Local. */
static p4_rc quantize_owned(work *w)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &w->original->hf.model;
    p4_progress progress;
    double total = 0, done_elements = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        bool mine = !model->params[i].ternary || is_mine(w, i);
        total += mine ? (double)(model->params[i].rows * model->params[i].cols) : 0.0;
    }
    p4_progress_start(&progress, "quantize", "weights", total);
    TRY(open_workspace(w));
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (p->ternary && !is_mine(w, i)) {
            continue;
        }
        TRY(p4_stop_check(w->compute->stop));
        if (p->ternary) {
            TRY(quantize_matrix(w, i));
            p4_hf_model_drop_pages(&w->original->hf, i);
        } else {
            const char *file = p4_hf_model_file_of(&w->original->hf, &model->weights[i]);
            TRY(p4_packed_preserve(w->packed, i, &model->weights[i], file, w->compute->threads));
        }
        done_elements += (double)(p->rows * p->cols);
        p4_progress_update(&progress, done_elements, NULL);
    }
done:
    p4_progress_end(&progress);
    free(w->h_importance);
    if (w->memory != NULL) {
        w->compute->ops->release(w->compute->device, w->memory);
    }
    return rc;
}

/* Everyone gets every owner's codes, scales and error figures. Collective. */
static void publish(const work *w)
{
    p4_packed *c = w->packed;
    for (int64_t i = 0; i < c->model->params_count && w->compute->group->ranks > 1; i++) {
        const p4_param *p = &c->model->params[i];
        if (!is_quantized_alone(w, i)) {
            continue;
        }
        int owner = w->original->shard.owner[i];
        p4_group_bcast(w->compute->group, p4_packed_codes(c, i), p->rows * p4_code_row_bytes(p->cols), owner);
        p4_group_bcast(w->compute->group, p4_packed_scale(c, i), p4_param_scale_count(p) * 2, owner);
        p4_group_bcast(w->compute->group, &c->errors[i], sizeof c->errors[i], owner);
    }
}

/* Experts that no token was routed to have no statistics: the quantizer's method without weights. Which they
 * are, calibration has said. */
static void warn_of_unreached(const work *w)
{
    const p4_model *model = &w->original->hf.model;
    int64_t matrices = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        matrices += p->ternary && p->expert >= 0 && !p4_statistics_reached(w->plan->statistics, i);
    }
    if (matrices > 0) {
        WARN("warning: quantizer \"%s\": calibration reached no token of %lld matrices of experts; they are "
             "quantized by rule \"exact\", with all input channels alike",
             w->plan->quantizer->name, (long long)matrices);
    }
}

p4_rc p4_quantize_original(p4_packed *packed, p4_compute *compute, const p4_original *original,
                           const p4_quantize_plan *plan)
{
    p4_rc rc = P4_OK;
    work w = {.packed = packed, .compute = compute, .original = original, .plan = plan};
    TRY_ALL(compute->group, p4_quantize_plan_check(plan));
    if (plan->quantizer->needs != P4_NEEDS_NO_STATISTICS) {
        warn_of_unreached(&w);
    }
    TRY_ALL(compute->group, p4_packed_alloc(packed, &original->hf.model));
    TRY_ALL(compute->group, quantize_owned(&w));
    publish(&w);
    if (plan->quantizer->needs == P4_NEEDS_HESSIAN) {
        TRY(p4_hessian_quantize_blocks(packed, compute, original, plan));
    }
    packed->is_compressed = true;
done:
    return rc;
}
