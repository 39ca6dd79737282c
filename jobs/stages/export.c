#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/h5/artifact.h"
#include "io/out/output.h"
#include "jobs/job.h"

enum {
    ROWS_BYTES = 4 << 20, /* packed at a time */
    FP16_THREADS = 4,     /* they make numbers several times as fast as one file takes them */
};
static const uint64_t SHARD_BYTES = 5000000000;

static const char *method_name(const p4_job *job)
{
    static const char *const names[] = {"absmean", "exact", "none"};
    return names[job->config.quantizer];
}

/* Packs rows of codes, which are in host memory. Where the device has memory of its own, `memory` of it holds
 * codes and packed bytes of a block. */
static void pack_rows(const p4_job *job, uint8_t *packed, uint8_t *memory, const uint8_t *codes, int64_t rows,
                      int64_t cols)
{
    int64_t code_bytes = rows * p4_code_row_bytes(cols), packed_bytes = rows * p4_ceil_div(cols, 5);
    if (job->compute.ops->host_memory) {
        job->compute.ops->pack_base3(job->compute.device, packed, codes, rows, cols);
        return;
    }
    uint8_t *device_packed = memory + p4_ceil_div(code_bytes, 64) * 64;
    job->compute.ops->to_device(job->compute.device, memory, codes, code_bytes);
    job->compute.ops->pack_base3(job->compute.device, device_packed, memory, rows, cols);
    job->compute.ops->to_host(job->compute.device, packed, device_packed, packed_bytes);
}

/* One tensor in row blocks, so that memory stays small whatever its size. */
static p4_rc put_ternary(const p4_job *job, p4_artifact *artifact, const p4_artifact_tensor *tensor,
                         const p4_weight *w)
{
    p4_rc rc = P4_OK;
    int64_t code_bytes = p4_code_row_bytes(w->cols), row_bytes = p4_artifact_row_bytes(tensor);
    int64_t block = p4_min_i64(w->rows, p4_max_i64(1, ROWS_BYTES / row_bytes));
    uint8_t *packed = NULL;
    void *memory = NULL;
    if (tensor->encoding != P4_PACKING_BASE3X5) {
        return p4_artifact_append(artifact, w->data, w->scale, w->rows);
    }
    packed = p4_alloc((size_t)(block * row_bytes), 1);
    if (packed == NULL) {
        return P4_E_SYSTEM;
    }
    if (!job->compute.ops->host_memory) {
        TRY(job->compute.ops->alloc(job->compute.device, &memory, block * (code_bytes + row_bytes) + 64));
    }
    for (int64_t row = 0; row < w->rows; row += block) {
        int64_t rows = p4_min_i64(block, w->rows - row);
        pack_rows(job, packed, memory, (const uint8_t *)w->data + row * code_bytes, rows, w->cols);
        TRY(job->compute.ops->sync(job->compute.device));
        TRY(p4_artifact_append(artifact, packed, w->scale + row, rows));
    }
done:
    if (memory != NULL) {
        job->compute.ops->release(job->compute.device, memory);
    }
    free(packed);
    return rc;
}

static p4_rc put_tensors(const p4_job *job, p4_artifact *artifact)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &job->hf.model;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        const p4_weight *w = &job->compressed.weights[i];
        p4_artifact_tensor tensor = {.ternary = p->ternary,
                                     .vector = p->vector,
                                     .transposed = p->transposed,
                                     .rows = p->rows,
                                     .cols = p->cols,
                                     .encoding = job->config.packing};
        snprintf(tensor.name, sizeof tensor.name, "%s", p->name);
        snprintf(tensor.method, sizeof tensor.method, "%s", method_name(job));
        TRY(p4_artifact_begin(artifact, &tensor));
        TRY(p->ternary ? put_ternary(job, artifact, &tensor, w)
                       : p4_artifact_append(artifact, w->data, NULL, w->rows));
    }
done:
    return rc;
}

static p4_rc put_module(p4_artifact *artifact, const p4_activation_summary *seen)
{
    float *mean_square = p4_alloc((size_t)seen->inputs, sizeof *mean_square);
    if (mean_square == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t c = 0; c < seen->inputs; c++) {
        mean_square[c] = (float)seen->input_mean_square[c];
    }
    p4_artifact_module record = {.name = seen->name,
                                 .mean = seen->mean,
                                 .std = seen->std,
                                 .min = seen->min,
                                 .max = seen->max,
                                 .input_mean_square = mean_square,
                                 .inputs = seen->inputs};
    p4_rc rc = p4_artifact_put_calibration(artifact, &record);
    free(mean_square);
    return rc;
}

static p4_rc put_calibration(p4_job *job, p4_artifact *artifact)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; rc == P4_OK && job->stats != NULL && i < job->hf.model.params_count; i++) {
        p4_activation_summary seen;
        if (job->stats[i].input_mean_square == NULL) {
            continue;
        }
        if ((rc = p4_job_summarize(job, i, &seen)) == P4_OK) {
            rc = put_module(artifact, &seen);
            free(seen.name);
            free(seen.input_mean_square);
        }
    }
    return rc;
}

static p4_rc put_layers(p4_job *job, p4_artifact *artifact)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < job->hf.model.params_count; i++) {
        const p4_param *p = &job->hf.model.params[i];
        const p4_quant_error *e = &job->compressed.errors[i];
        if (!p->ternary) {
            continue;
        }
        p4_artifact_layer record = {.name = p->name,
                                    .relative_error = e->sq_norm > 0 ? e->sq_error / e->sq_norm : 0.0,
                                    .sparsity = (double)e->zeros / (double)(p->rows * p->cols),
                                    .scale_min = (double)e->scale_min,
                                    .scale_max = (double)e->scale_max};
        TRY(p4_artifact_put_layer(artifact, &record));
    }
done:
    return rc;
}

static p4_rc put_metrics(p4_job *job, p4_artifact *artifact)
{
    p4_rc rc = P4_OK;
    const p4_results *r = &job->results;
    const struct {
        const char *name;
        const p4_evaluation *evaluation;
    } evaluations[] = {{"pre", &r->pre}, {"post", &r->post}, {"final", &r->final}};
    for (size_t i = 0; i < sizeof evaluations / sizeof evaluations[0]; i++) {
        if (evaluations[i].evaluation->tokens > 0) {
            TRY(p4_artifact_put_evaluation(artifact, evaluations[i].name, evaluations[i].evaluation));
        }
    }
    if (job->curve_count > 0) {
        TRY(p4_artifact_put_training(artifact, job->curve, job->curve_count));
    }
done:
    return rc;
}

static p4_rc write_artifact(p4_job *job, const char *phase4_json)
{
    p4_rc rc = P4_OK;
    p4_artifact *artifact = NULL;
    p4_artifact_info info = {.producer = p4_version(),
                             .model_type = job->hf.model.arch.family,
                             .model_json = job->hf.config_json,
                             .phase4_json = phase4_json,
                             .tokenizer_json =
                                 job->tokenizer != NULL ? p4_tokenizer_json(job->tokenizer) : NULL};
    TRY(p4_artifact_open(&artifact, job->results.output_paths.quantized, &info));
    TRY(put_tensors(job, artifact));
    TRY(put_metrics(job, artifact));
    TRY(put_calibration(job, artifact));
    TRY(put_layers(job, artifact));
done:
    if (artifact != NULL) {
        p4_rc closed = p4_artifact_close(artifact, rc == P4_OK);
        rc = rc != P4_OK ? rc : closed;
    }
    return rc;
}

/* The packed model and the fp16 directory are written at once: model.h5 on a thread of its own, for HDF5 is
 * one thread's, the directory on the caller's and its helpers. As long as model.h5 may fail the directory
 * does not appear. */
typedef struct exporter {
    p4_job *job;
    const char *phase4_json;
    pthread_t thread;
    bool running;      /* the thread is to be joined */
    atomic_bool ended; /* model.h5 failed: no use in going on */
    p4_rc rc;          /* of model.h5, with its message (heap) */
    char *message;
} exporter;

static void *artifact_thread(void *user)
{
    exporter *e = user;
    e->rc = write_artifact(e->job, e->phase4_json);
    if (e->rc != P4_OK) {
        e->message = p4_strdup(p4_last_error());
        atomic_store(&e->ended, true);
    }
    return NULL;
}

/* Waits for model.h5. Its failure is the one to report: whatever else failed came of it or after it. */
static p4_rc artifact_result(void *user)
{
    exporter *e = user;
    if (e->running) {
        pthread_join(e->thread, NULL);
        e->running = false;
    }
    if (e->rc != P4_OK && e->message != NULL) {
        p4_error_set(e->message);
    }
    return e->rc;
}

static p4_rc fp16_rows(void *user, uint16_t *halves_out, int64_t param, int64_t first_row, int64_t rows)
{
    exporter *e = user;
    const p4_weight *w = &e->job->compressed.weights[param];
    if (atomic_load(&e->ended)) {
        return P4_E_INPUT; /* artifact_result has the message */
    }
    if (w->dtype == P4_F16) {
        memcpy(halves_out, (const uint16_t *)w->data + first_row * w->cols,
               (size_t)(rows * w->cols) * sizeof *halves_out);
        return P4_OK;
    }
    for (int64_t r = 0; r < rows; r++) {
        p4_ternary_row_f16(halves_out + r * w->cols, w, first_row + r);
    }
    return P4_OK;
}

static p4_rc write_models(p4_job *job, const char *phase4_json)
{
    p4_rc rc = P4_OK;
    exporter e = {.job = job, .phase4_json = phase4_json};
    const p4_hf_source source = {.rows = fp16_rows,
                                 .ready = artifact_result,
                                 .user = &e,
                                 .threads = (int)p4_min_i64(job->compute.threads, FP16_THREADS)};
    bool both = job->config.save_quantized && job->config.save_dequantized_fp16;
    atomic_init(&e.ended, false);
    e.running = both && pthread_create(&e.thread, NULL, artifact_thread, &e) == 0;
    if (job->config.save_quantized && !e.running) {
        TRY(write_artifact(job, phase4_json));
    }
    if (job->config.save_dequantized_fp16) {
        rc = p4_hf_model_write(job->results.output_paths.dequantized_fp16, &job->hf, SHARD_BYTES, &source);
    }
    p4_rc packed = artifact_result(&e);
    rc = packed != P4_OK ? packed : rc;
done:
    free(e.message);
    return rc;
}

void p4_job_measure_sizes(p4_job *job)
{
    const p4_model *model = &job->hf.model;
    const double MB = 1048576.0;
    p4_size_metrics *m = &job->results.metrics;
    p4_stored_bytes bytes =
        p4_packed_stored_bytes(&job->compressed, job->config.packing == P4_PACKING_2BIT ? 4 : 5);
    m->total_params = p4_model_count_elements(model);
    m->layers_quantized = m->layers_preserved = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        m->layers_quantized += model->params[i].ternary;
        m->layers_preserved += !model->params[i].ternary;
    }
    m->original_size_mb = 4.0 * (double)m->total_params / MB;
    m->stored_size_mb = job->hf.stored_bytes / MB;
    m->ternary_mb = bytes.codes / MB;
    m->scales_mb = bytes.scales / MB;
    m->embedding_mb = bytes.embedding / MB;
    m->head_mb = bytes.head / MB;
    m->other_mb = bytes.other / MB;
    m->compressed_size_mb = m->ternary_mb + m->scales_mb + m->embedding_mb + m->head_mb + m->other_mb;
    m->compression_ratio = m->original_size_mb / m->compressed_size_mb;
    m->target_compression_ratio = job->config.target_compression_ratio;
    m->sparsity_ratio = p4_packed_sparsity(&job->compressed);
}

static p4_rc set_path(const p4_job *job, char to[P4_PATH_BYTES], const char *name)
{
    int length = snprintf(to, P4_PATH_BYTES, "%s/%s", job->config.output_path, name);
    return length < P4_PATH_BYTES ? P4_OK
                                  : FAIL("output_path: %s/%s is longer than %d bytes",
                                         job->config.output_path, name, P4_PATH_BYTES - 1);
}

static p4_rc name_outputs(p4_job *job)
{
    p4_rc rc = P4_OK;
    p4_output_paths *paths = &job->results.output_paths;
    TRY(set_path(job, paths->config, "phase4_config.json"));
    TRY(set_path(job, paths->metadata, "compression_metadata.json"));
    if (job->config.save_quantized) {
        TRY(set_path(job, paths->quantized, "model.h5"));
        snprintf(paths->primary_output, sizeof paths->primary_output, "%s", paths->quantized);
    }
    if (job->config.save_dequantized_fp16) {
        TRY(set_path(job, paths->dequantized_fp16, "dequantized_fp16"));
        snprintf(paths->primary_output, sizeof paths->primary_output, "%s", paths->dequantized_fp16);
        TRY(job->tokenizer != NULL ? set_path(job, paths->tokenizer, "dequantized_fp16/tokenizer.json")
                                   : P4_OK);
    }
    TRY(job->curve_count > 0 ? set_path(job, paths->metrics, "metrics.jsonl") : P4_OK);
done:
    return rc;
}

static p4_rc write_metadata(p4_job *job, const char *phase4_json)
{
    p4_rc rc = P4_OK;
    p4_metadata metadata;
    p4_metadata_init(&metadata);
    snprintf(metadata.producer, sizeof metadata.producer, "%s", p4_version());
    metadata.bits = job->config.quantization_bits;
    p4_metadata_take_results(&metadata, &job->results);
    if ((metadata.config_json = p4_strdup(phase4_json)) == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (int64_t i = 0; i < job->hf.shard_count; i++) {
        TRY(p4_metadata_add_input(&metadata, job->hf.shards[i].path));
    }
    TRY(p4_metadata_save(job->config.output_path, &metadata));
done:
    p4_metadata_free(&metadata);
    return rc;
}

/* Rank 0: model files first, then the small files that speak of them. Local. */
static p4_rc write_all(p4_job *job)
{
    p4_rc rc = P4_OK;
    p4_output_paths *paths = &job->results.output_paths;
    char *phase4_json = NULL;
    TRY(name_outputs(job));
    TRY(p4_config_to_json(&job->config, &phase4_json));
    snprintf(job->results.model_type, sizeof job->results.model_type, "%s", job->hf.model.arch.family);
    snprintf(job->results.method, sizeof job->results.method, "%s", method_name(job));
    snprintf(job->results.packing, sizeof job->results.packing, "%s", p4_packing_name(job->config.packing));
    TRY(write_models(job, phase4_json));
    TRY(p4_atomic_write_all(paths->config, phase4_json, strlen(phase4_json)));
    TRY(write_metadata(job, phase4_json));
    TRY(p4_output_drop_stale(job->config.output_path, paths));
done:
    free(phase4_json);
    return rc;
}

p4_rc p4_stage_export(p4_job *job)
{
    p4_rc rc = P4_OK;
    p4_job_measure_sizes(job);
    TRY_ROOT(job->compute.group, write_all(job));
done:
    return rc;
}
