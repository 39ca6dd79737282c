#include <math.h>

#include "jobs/job.h"

bool p4_job_quantizes(const p4_job *job)
{
    return job->config.quantizer != P4_QUANTIZER_NONE;
}

p4_quant_method p4_job_method(const p4_job *job)
{
    return job->config.quantizer == P4_QUANTIZER_ABSMEAN ? P4_QUANT_ABSMEAN : P4_QUANT_EXACT;
}

/* Device memory to quantize one matrix after another in; on devices that compute in host memory there is
 * none. */
typedef struct workspace {
    void *memory;
    int64_t in_bytes, code_bytes; /* rounded to 64, of the largest matrix */
} workspace;

static int64_t weight_bytes(const p4_weight *weight)
{
    return weight->rows * weight->cols * p4_dtype_bytes(weight->dtype);
}

/* The matrix on the device already: this rank runs its layer and has opened the original. */
static const p4_weight *resident(const p4_job *job, int64_t i)
{
    const p4_weight *weight = job->original.ops != NULL ? &job->original.form.weights[i] : NULL;
    return weight != NULL && weight->data != NULL ? weight : NULL;
}

static bool is_mine(const p4_job *job, int64_t i)
{
    return job->hf.model.params[i].ternary && job->shard.owner[i] == job->compute.group->rank;
}

static p4_rc open_workspace(p4_job *job, workspace *w)
{
    int64_t scale_bytes = 0;
    const p4_model *model = &job->hf.model;
    if (job->compute.ops->host_memory) {
        return P4_OK;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_weight *weight = &model->weights[i];
        if (is_mine(job, i)) {
            w->in_bytes = p4_max_i64(w->in_bytes, resident(job, i) != NULL ? 0 : weight_bytes(weight));
            w->code_bytes = p4_max_i64(w->code_bytes, weight->rows * p4_code_row_bytes(weight->cols));
            scale_bytes = p4_max_i64(scale_bytes, weight->rows * 2);
        }
    }
    w->in_bytes = (w->in_bytes + 63) / 64 * 64;
    w->code_bytes = (w->code_bytes + 63) / 64 * 64;
    return job->compute.ops->alloc(job->compute.device, &w->memory,
                                   w->in_bytes + w->code_bytes + scale_bytes);
}

/* On devices with their own memory the matrix goes there, unless it is there, and the codes come back. Local.
 */
static p4_rc quantize_matrix(p4_job *job, const workspace *w, int64_t i)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = job->compute.ops;
    p4_packed *c = &job->compressed;
    p4_weight weight = job->hf.model.weights[i];
    uint8_t *codes = p4_packed_codes(c, i);
    uint16_t *scale = p4_packed_scale(c, i);
    if (!ops->host_memory) {
        const p4_weight *there = resident(job, i);
        if (there == NULL) {
            ops->to_device(job->compute.device, w->memory, weight.data, weight_bytes(&weight));
        }
        weight.data = there != NULL ? there->data : w->memory;
        codes = (uint8_t *)w->memory + w->in_bytes;
        scale = (uint16_t *)(void *)(codes + w->code_bytes);
    }
    ops->quantize(job->compute.device, codes, scale, &c->errors[i], &weight, c->method, c->threshold, NULL);
    if (!ops->host_memory) {
        ops->to_host(job->compute.device, p4_packed_codes(c, i), codes,
                     weight.rows * p4_code_row_bytes(weight.cols));
        ops->to_host(job->compute.device, p4_packed_scale(c, i), scale, weight.rows * 2);
    }
    TRY(ops->sync(job->compute.device));
    CHECK(c->errors[i].nonfinite == 0, "%s: tensor %s holds values that are NaN or infinite, %lld of them",
          job->hf.path, job->hf.model.params[i].name, (long long)c->errors[i].nonfinite);
    CHECK(isfinite(c->errors[i].scale_max),
          "%s: tensor %s has a row whose scale fp16 cannot hold (up to 65504)", job->hf.path,
          job->hf.model.params[i].name);
done:
    return rc;
}

/* This rank's own matrices, and its copy of what stays in high precision. Local. */
static p4_rc quantize_owned(p4_job *job)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &job->hf.model;
    workspace space = {0};
    p4_progress progress;
    double total = 0, done_elements = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        bool mine = !model->params[i].ternary || is_mine(job, i);
        total += mine ? (double)(model->params[i].rows * model->params[i].cols) : 0.0;
    }
    p4_progress_start(&progress, "quantize", "weights", total);
    TRY(open_workspace(job, &space));
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (p->ternary && !is_mine(job, i)) {
            continue;
        }
        if (p->ternary) {
            TRY(quantize_matrix(job, &space, i));
            p4_hf_model_drop_pages(&job->hf, i);
        } else {
            TRY(p4_packed_preserve(&job->compressed, i, &model->weights[i], job->compute.threads));
        }
        done_elements += (double)(p->rows * p->cols);
        p4_progress_update(&progress, done_elements, NULL);
    }
done:
    p4_progress_end(&progress);
    if (space.memory != NULL) {
        job->compute.ops->release(job->compute.device, space.memory);
    }
    return rc;
}

/* Everyone gets every owner's codes, scales and error figures. Collective. */
static void publish(p4_job *job)
{
    p4_packed *c = &job->compressed;
    for (int64_t i = 0; i < c->model->params_count && job->compute.group->ranks > 1; i++) {
        const p4_param *p = &c->model->params[i];
        if (!p->ternary) {
            continue;
        }
        int owner = job->shard.owner[i];
        p4_group_bcast(job->compute.group, p4_packed_codes(c, i), p->rows * p4_code_row_bytes(p->cols),
                       owner);
        p4_group_bcast(job->compute.group, p4_packed_scale(c, i), p->rows * 2, owner);
        p4_group_bcast(job->compute.group, &c->errors[i], sizeof c->errors[i], owner);
    }
}

p4_rc p4_stage_quantize(p4_job *job)
{
    p4_rc rc = P4_OK;
    p4_packed *c = &job->compressed;
    TRY_ALL(job->compute.group, p4_packed_alloc(c, &job->hf.model));
    c->method = p4_job_method(job);
    c->threshold = (float)job->config.sparsity_threshold;
    TRY_ALL(job->compute.group, quantize_owned(job));
    publish(job);
    c->is_compressed = true;
    double sq_error = 0, sq_norm = 0;
    int64_t matrices = 0;
    for (int64_t i = 0; i < job->hf.model.params_count; i++) {
        if (job->hf.model.params[i].ternary) {
            sq_error += c->errors[i].sq_error;
            sq_norm += c->errors[i].sq_norm;
            matrices++;
        }
    }
    if (matrices > 0) {
        INFO("      %lld %s ternary, %.1f %% zeros, relative error %.3f", (long long)matrices,
             matrices == 1 ? "matrix" : "matrices", 100.0 * p4_packed_sparsity(c),
             sq_norm > 0 ? sq_error / sq_norm : 0.0);
    } else {
        INFO("      off (quantizer is \"none\"): every tensor stays fp16");
    }
done:
    return rc;
}
