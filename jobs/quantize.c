#include <math.h>

#include "job.h"

bool p4_job_quantizes(const p4_job *job)
{
    return job->config.quantizer != P4_QUANTIZER_NONE;
}

p4_quant_method p4_job_method(const p4_job *job)
{
    return job->config.quantizer == P4_QUANTIZER_ABSMEAN ? P4_QUANT_ABSMEAN : P4_QUANT_EXACT;
}

/* On devices with their own memory the matrix goes there and the codes come back. Local. */
static p4_rc quantize_matrix(p4_job *job, int64_t i)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = job->ops;
    p4_packed *c = &job->compressed;
    p4_weight weight = job->hf.model.weights[i];
    uint8_t *codes = p4_packed_codes(c, i);
    uint16_t *scale = p4_packed_scale(c, i);
    void *memory = NULL;
    if (!ops->host_memory) {
        int64_t in_bytes = (weight.rows * weight.cols * p4_dtype_bytes(weight.dtype) + 63) / 64 * 64;
        int64_t code_bytes = (weight.rows * p4_code_row_bytes(weight.cols) + 63) / 64 * 64;
        TRY(ops->alloc(job->device, &memory, in_bytes + code_bytes + weight.rows * 2));
        ops->to_device(job->device, memory, weight.data, weight.rows * weight.cols * p4_dtype_bytes(weight.dtype));
        weight.data = memory;
        codes = (uint8_t *)memory + in_bytes;
        scale = (uint16_t *)(void *)(codes + code_bytes);
    }
    ops->quantize(job->device, codes, scale, &c->errors[i], &weight, c->method, c->threshold, NULL);
    if (!ops->host_memory) {
        ops->to_host(job->device, p4_packed_codes(c, i), codes, weight.rows * p4_code_row_bytes(weight.cols));
        ops->to_host(job->device, p4_packed_scale(c, i), scale, weight.rows * 2);
    }
    TRY(ops->sync(job->device));
    CHECK(c->errors[i].nonfinite == 0, "%s: tensor %s holds %lld values that are NaN or infinite", job->hf.path,
          job->hf.model.params[i].name, (long long)c->errors[i].nonfinite);
    CHECK(isfinite(c->errors[i].scale_max), "%s: tensor %s has a row whose scale fp16 cannot hold (up to 65504)",
          job->hf.path, job->hf.model.params[i].name);
done:
    if (memory != NULL) {
        ops->release(job->device, memory);
    }
    return rc;
}

/* This rank's own matrices, and its copy of what stays in high precision. Local. */
static p4_rc quantize_owned(p4_job *job)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &job->hf.model;
    p4_progress progress;
    double total = 0, done_elements = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        bool mine = !model->params[i].ternary || job->shard.owner[i] == job->dist->rank;
        total += mine ? (double)(model->params[i].rows * model->params[i].cols) : 0.0;
    }
    p4_progress_start(&progress, "quantize", "weights", total);
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (p->ternary && job->shard.owner[i] != job->dist->rank) {
            continue;
        }
        if (p->ternary) {
            TRY(quantize_matrix(job, i));
            p4_hf_model_drop_pages(&job->hf, i);
        } else {
            TRY(p4_packed_preserve(&job->compressed, i, &model->weights[i]));
        }
        done_elements += (double)(p->rows * p->cols);
        p4_progress_update(&progress, done_elements, NULL);
    }
done:
    p4_progress_end(&progress);
    return rc;
}

/* Everyone gets every owner's codes, scales and error figures. Collective. */
static void publish(p4_job *job)
{
    p4_packed *c = &job->compressed;
    for (int64_t i = 0; i < c->model->params_count && job->dist->ranks > 1; i++) {
        const p4_param *p = &c->model->params[i];
        if (!p->ternary) {
            continue;
        }
        int owner = job->shard.owner[i];
        p4_dist_bcast(job->dist, p4_packed_codes(c, i), p->rows * p4_code_row_bytes(p->cols), owner);
        p4_dist_bcast(job->dist, p4_packed_scale(c, i), p->rows * 2, owner);
        p4_dist_bcast(job->dist, &c->errors[i], sizeof c->errors[i], owner);
    }
}

p4_rc p4_stage_quantize(p4_job *job)
{
    p4_rc rc = P4_OK;
    p4_packed *c = &job->compressed;
    TRY_ALL(job->dist, p4_packed_alloc(c, &job->hf.model));
    c->method = p4_job_method(job);
    c->threshold = (float)job->config.sparsity_threshold;
    TRY_ALL(job->dist, quantize_owned(job));
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
        INFO("      %lld matrices ternary, %.1f %% zeros, relative error %.3f", (long long)matrices,
             100.0 * p4_packed_sparsity(c), sq_norm > 0 ? sq_error / sq_norm : 0.0);
    } else {
        INFO("      off (quantizer is \"none\"): every tensor stays fp16");
    }
done:
    return rc;
}
