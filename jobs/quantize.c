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

/* Room on a device with memory of its own: for one matrix where the original is not there already, its codes and scales. */
typedef struct room {
    void *memory;
    int64_t in_bytes, code_bytes, scale_bytes; /* of the largest matrix, in multiples of 64 */
} room;

static int64_t line_up(int64_t bytes)
{
    return p4_ceil_div(bytes, 64) * 64;
}

static bool is_mine(const p4_job *job, int64_t i)
{
    return !job->hf.model.params[i].ternary || job->shard.owner[i] == job->dist->rank;
}

/* The matrix as evaluation and calibration hold it on the device, or NULL. */
static const void *on_device(const p4_job *job, int64_t i)
{
    bool there = job->original.ops != NULL && !job->hf.model.params[i].vector;
    return there ? job->original.form.weights[i].data : NULL;
}

static p4_rc take_room(const p4_job *job, room *r)
{
    for (int64_t i = 0; i < job->hf.model.params_count; i++) {
        const p4_weight *w = &job->hf.model.weights[i];
        if (!job->hf.model.params[i].ternary || !is_mine(job, i)) {
            continue;
        }
        int64_t in_bytes = on_device(job, i) == NULL ? w->rows * w->cols * p4_dtype_bytes(w->dtype) : 0;
        r->in_bytes = p4_max_i64(r->in_bytes, line_up(in_bytes));
        r->code_bytes = p4_max_i64(r->code_bytes, line_up(w->rows * p4_code_row_bytes(w->cols)));
        r->scale_bytes = p4_max_i64(r->scale_bytes, line_up(w->rows * 2));
    }
    return job->ops->alloc(job->device, &r->memory, r->in_bytes + r->code_bytes + r->scale_bytes);
}

/* From the file into the room, or where the matrix is on the device already, from there; the codes come back. Local. */
static void quantize_away(p4_job *job, const room *r, int64_t i)
{
    const p4_ops *ops = job->ops;
    p4_packed *c = &job->compressed;
    p4_weight weight = job->hf.model.weights[i];
    const void *there = on_device(job, i);
    uint8_t *codes = (uint8_t *)r->memory + r->in_bytes;
    uint16_t *scale = (uint16_t *)(void *)(codes + r->code_bytes);
    if (there == NULL) {
        ops->to_device(job->device, r->memory, weight.data, weight.rows * weight.cols * p4_dtype_bytes(weight.dtype));
    }
    weight.data = there != NULL ? there : r->memory;
    ops->quantize(job->device, codes, scale, &c->errors[i], &weight, c->method, c->threshold, NULL);
    ops->to_host(job->device, p4_packed_codes(c, i), codes, weight.rows * p4_code_row_bytes(weight.cols));
    ops->to_host(job->device, p4_packed_scale(c, i), scale, weight.rows * 2);
}

static p4_rc quantize_matrix(p4_job *job, const room *r, int64_t i)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = job->ops;
    p4_packed *c = &job->compressed;
    if (ops->host_memory) {
        ops->quantize(job->device, p4_packed_codes(c, i), p4_packed_scale(c, i), &c->errors[i], &job->hf.model.weights[i],
                      c->method, c->threshold, NULL);
    } else {
        quantize_away(job, r, i);
    }
    TRY(ops->sync(job->device));
    CHECK(c->errors[i].nonfinite == 0, "%s: tensor %s holds %lld values that are NaN or infinite", job->hf.path,
          job->hf.model.params[i].name, (long long)c->errors[i].nonfinite);
    CHECK(isfinite(c->errors[i].scale_max), "%s: tensor %s has a row whose scale fp16 cannot hold (up to 65504)",
          job->hf.path, job->hf.model.params[i].name);
done:
    return rc;
}

/* This rank's own matrices, and its copy of what stays in high precision. Local. */
static p4_rc quantize_owned(p4_job *job)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &job->hf.model;
    p4_progress progress;
    room r = {0};
    double total = 0, done_elements = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        total += is_mine(job, i) ? (double)(model->params[i].rows * model->params[i].cols) : 0.0;
    }
    p4_progress_start(&progress, "quantize", "weights", total);
    TRY(job->ops->host_memory ? P4_OK : take_room(job, &r));
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (!is_mine(job, i)) {
            continue;
        }
        if (p->ternary) {
            TRY(quantize_matrix(job, &r, i));
            p4_hf_model_drop_pages(&job->hf, i);
        } else {
            TRY(p4_packed_preserve(&job->compressed, i, &model->weights[i], job->threads));
        }
        done_elements += (double)(p->rows * p->cols);
        p4_progress_update(&progress, done_elements, NULL);
    }
done:
    if (r.memory != NULL) {
        job->ops->release(job->device, r.memory);
    }
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
