#include "jobs/export.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/h5/artifact.h"
#include "io/json/config.h"
#include "io/out/directory.h"
#include "io/out/outputs.h"
#include "jobs/exports.h"
#include "src/phase4.h"
#include "src/quantizer.h"

enum {
    ROWS_BYTES = 4 << 20, /* packed at a time */
    FP16_THREADS = 4,     /* they make numbers several times as fast as one file takes them */
};
static const uint64_t SHARD_BYTES = 5000000000;

/* Packs rows of codes, which are in host memory. Where the device has memory of its own, `memory` of it holds
 * codes and packed bytes of a block. */
static void pack_rows(const p4_export *x, uint8_t *packed, uint8_t *memory, const uint8_t *codes,
                      int64_t rows, int64_t cols)
{
    int64_t code_bytes = rows * p4_code_row_bytes(cols), packed_bytes = rows * p4_ceil_div(cols, 5);
    if (x->compute->ops->host_memory) {
        x->compute->ops->pack_base3(x->compute->device, packed, codes, rows, cols);
        return;
    }
    uint8_t *device_packed = memory + p4_ceil_div(code_bytes, 64) * 64;
    x->compute->ops->to_device(x->compute->device, memory, codes, code_bytes);
    x->compute->ops->pack_base3(x->compute->device, device_packed, memory, rows, cols);
    x->compute->ops->to_host(x->compute->device, packed, device_packed, packed_bytes);
}

/* One tensor in row blocks, so that memory stays small whatever its size. */
static p4_rc put_ternary(const p4_export *x, p4_artifact *artifact, const p4_artifact_tensor *tensor,
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
    if (!x->compute->ops->host_memory) {
        TRY(x->compute->ops->alloc(x->compute->device, &memory, block * (code_bytes + row_bytes) + 64));
    }
    for (int64_t row = 0; row < w->rows; row += block) {
        int64_t rows = p4_min_i64(block, w->rows - row);
        TRY(p4_stop_check(x->compute->stop));
        pack_rows(x, packed, memory, (const uint8_t *)w->data + row * code_bytes, rows, w->cols);
        TRY(x->compute->ops->sync(x->compute->device));
        TRY(p4_artifact_append(artifact, packed, w->scale + p4_artifact_scale_at(tensor, row), rows));
    }
done:
    if (memory != NULL) {
        x->compute->ops->release(x->compute->device, memory);
    }
    free(packed);
    return rc;
}

static p4_rc put_tensors(const p4_export *x, p4_artifact *artifact)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &x->original->hf.model;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        const p4_weight *w = &x->packed->weights[i];
        p4_artifact_tensor tensor = {.ternary = p->ternary,
                                     .vector = p->vector,
                                     .transposed = p->transposed,
                                     .rows = p->rows,
                                     .cols = p->cols,
                                     .encoding = x->config->packing,
                                     .scale_group = p->scale_group};
        snprintf(tensor.name, sizeof tensor.name, "%s", p->name);
        snprintf(tensor.method, sizeof tensor.method, "%s", p4_quantizers[x->config->quantizer].name);
        TRY(p4_artifact_begin(artifact, &tensor));
        TRY(p->ternary ? put_ternary(x, artifact, &tensor, w)
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

static p4_rc put_calibration(const p4_export *x, p4_artifact *artifact)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; rc == P4_OK && i < x->original->hf.model.params_count; i++) {
        p4_activation_summary seen;
        if (!p4_statistics_reached(x->statistics, i)) {
            continue;
        }
        if ((rc = p4_statistics_summarize(x->statistics, &x->original->hf.model, i, &seen)) == P4_OK) {
            rc = put_module(artifact, &seen);
            free(seen.name);
            free(seen.input_mean_square);
        }
    }
    return rc;
}

static p4_rc put_layers(const p4_export *x, p4_artifact *artifact)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < x->original->hf.model.params_count; i++) {
        const p4_param *p = &x->original->hf.model.params[i];
        const p4_quant_error *e = &x->packed->errors[i];
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

static p4_rc put_metrics(const p4_export *x, p4_artifact *artifact)
{
    p4_rc rc = P4_OK;
    const p4_results *r = x->results;
    const struct {
        const char *name;
        const p4_evaluation *evaluation;
    } evaluations[] = {{"pre", &r->pre}, {"post", &r->post}, {"final", &r->final}};
    for (size_t i = 0; i < sizeof evaluations / sizeof evaluations[0]; i++) {
        if (evaluations[i].evaluation->tokens > 0) {
            TRY(p4_artifact_put_evaluation(artifact, NULL, evaluations[i].name, evaluations[i].evaluation));
        }
    }
    for (int64_t i = 0; i < r->set_count && r->pre.tokens > 0; i++) {
        const p4_set_results *set = &r->sets[i];
        TRY(p4_artifact_put_evaluation(artifact, set->name, "pre", &set->pre));
        TRY(p4_artifact_put_evaluation(artifact, set->name, "post", &set->post));
        TRY(p4_artifact_put_evaluation(artifact, set->name, "final", &set->final));
    }
    if (x->curve->count > 0) {
        TRY(p4_artifact_put_training(artifact, x->curve->points, x->curve->count));
    }
done:
    return rc;
}

static p4_rc write_artifact(const p4_export *x, const char *phase4_json)
{
    p4_rc rc = P4_OK;
    p4_artifact *artifact = NULL;
    p4_artifact_info info = {.producer = p4_version(),
                             .model_type = x->original->hf.model.arch.family,
                             .model_json = x->original->hf.config_json,
                             .phase4_json = phase4_json,
                             .tokenizer_json = x->tokenizer_json};
    TRY(p4_artifact_open(&artifact, x->results->output_paths.quantized, &info));
    TRY(put_tensors(x, artifact));
    TRY(put_metrics(x, artifact));
    TRY(put_calibration(x, artifact));
    TRY(put_layers(x, artifact));
done:
    if (artifact != NULL) {
        p4_rc closed = p4_artifact_close(artifact, rc == P4_OK);
        rc = rc != P4_OK ? rc : closed;
    }
    return rc;
}

/* What the writers of one export share. model.h5 and dequantized_fp16 are written at the same time: model.h5
 * on a thread of its own, because one thread only may use HDF5, the directory on the calling thread and its
 * helpers. The directory does not appear as long as model.h5 may still fail. */
typedef struct exporter {
    const p4_export *x;
    const char *phase4_json;
    pthread_t thread;
    bool running;      /* the thread must be joined */
    atomic_bool ended; /* model.h5 failed: the directory need not be finished */
    p4_rc rc;          /* of model.h5, with its message (heap) */
    char *message;
} exporter;

static void *artifact_thread(void *user)
{
    exporter *e = user;
    e->rc = write_artifact(e->x, e->phase4_json);
    if (e->rc != P4_OK) {
        e->message = p4_strdup(p4_last_error());
        atomic_store(&e->ended, true);
    }
    return NULL;
}

/* Waits for model.h5. Its failure is the one to report: other failures are consequences of it or came later.
 */
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
    const p4_weight *w = &e->x->packed->weights[param];
    if (atomic_load(&e->ended)) {
        return P4_E_INPUT; /* artifact_result has the message */
    }
    if (p4_stop_is_asked(e->x->compute->stop)) {
        return p4_stop_end(e->x->compute->stop);
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

static p4_rc write_quantized(exporter *e)
{
    e->running =
        e->x->config->save_dequantized_fp16 && pthread_create(&e->thread, NULL, artifact_thread, e) == 0;
    return e->running ? P4_OK : write_artifact(e->x, e->phase4_json);
}

static p4_rc write_dequantized_fp16(exporter *e)
{
    const p4_export *x = e->x;
    const p4_hf_source source = {.rows = fp16_rows,
                                 .ready = artifact_result,
                                 .user = e,
                                 .threads = (int)p4_min_i64(x->compute->threads, FP16_THREADS)};
    return p4_hf_model_write(x->results->output_paths.dequantized_fp16, &x->original->hf, SHARD_BYTES,
                             &source);
}

static p4_rc go_on(void *user)
{
    const p4_export *x = user;
    return p4_stop_is_asked(x->compute->stop) ? p4_stop_end(x->compute->stop) : P4_OK;
}

/* Weights are known after the training only. What a format cannot hold does not cost the run its other
 * outputs. */
static p4_rc leave_out(exporter *e, const char *writer)
{
    const p4_output_paths *paths = &e->x->results->output_paths;
    p4_outputs_leave_out(&e->x->results->output_paths, writer);
    if (paths->primary_output[0] == '\0') { /* it was the only model */
        if (e->x->unfit != NULL) {
            *e->x->unfit = true;
        }
        return P4_E_INPUT;
    }
    WARN("warning: %s; this output is left out, the others are written", p4_last_error());
    p4_error_clear();
    return P4_OK;
}

static p4_rc write_format(exporter *e, const char *writer, const char *path)
{
    p4_rc rc = P4_OK;
    const p4_export *x = e->x;
    p4_tokenizer *tokenizer = NULL;
    if (x->tokenizer_json != NULL) {
        TRY(p4_tokenizer_parse(&tokenizer, x->tokenizer_json, strlen(x->tokenizer_json), "tokenizer.json"));
    }
    const p4_export_source source = {.hf = &x->original->hf,
                                     .tokenizer = tokenizer,
                                     .weights = x->packed->weights,
                                     .threads = (int)p4_min_i64(x->compute->threads, FP16_THREADS),
                                     .go_on = go_on,
                                     .user = (void *)(uintptr_t)x};
    rc = p4_exports_check_weights(x->config, writer, &source);
    TRY(rc == P4_E_INPUT ? leave_out(e, writer) : rc);
    TRY(path[0] != '\0' ? p4_exports_write(x->config, writer, &source, path) : P4_OK);
done:
    p4_tokenizer_close(tokenizer);
    return rc;
}

static p4_rc write_gguf(exporter *e)
{
    return write_format(e, "gguf", e->x->results->output_paths.gguf);
}

static p4_rc write_compressed_tensors(exporter *e)
{
    return write_format(e, "compressed_tensors", e->x->results->output_paths.compressed_tensors);
}

static p4_rc write_mlx(exporter *e)
{
    return write_format(e, "mlx", e->x->results->output_paths.mlx);
}

static p4_rc write_bitnet(exporter *e)
{
    return write_format(e, "bitnet", e->x->results->output_paths.bitnet);
}

static p4_rc write_config(exporter *e)
{
    return p4_atomic_write_all(e->x->results->output_paths.config, e->phase4_json, strlen(e->phase4_json));
}

/* NaN: there are none. */
static double stored_files_bytes(const p4_hf_model *hf)
{
    double sum = hf->shard_count > 0 ? 0 : NAN;
    for (int64_t i = 0; i < hf->shard_count; i++) {
        sum += (double)hf->shards[i].mapping_bytes;
    }
    return sum;
}

void p4_export_measure(const p4_export *x)
{
    const p4_model *model = &x->original->hf.model;
    const double MB = 1048576.0;
    p4_size_metrics *m = &x->results->metrics;
    p4_stored_bytes bytes = p4_packed_stored_bytes(x->packed, x->config->packing == P4_PACKING_2BIT ? 4 : 5);
    m->total_params = p4_model_count_elements(model);
    m->layers_quantized = m->layers_preserved = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        m->layers_quantized += model->params[i].ternary;
        m->layers_preserved += !model->params[i].ternary;
    }
    m->original_size_mb = 4.0 * (double)m->total_params / MB;
    m->stored_size_mb = x->original->hf.stored_bytes / MB;
    m->stored_files_mb = stored_files_bytes(&x->original->hf) / MB;
    m->ternary_mb = bytes.codes / MB;
    m->scales_mb = bytes.scales / MB;
    m->embedding_mb = bytes.embedding / MB;
    m->head_mb = bytes.head / MB;
    m->other_mb = bytes.other / MB;
    m->compressed_size_mb = m->ternary_mb + m->scales_mb + m->embedding_mb + m->head_mb + m->other_mb;
    m->compression_ratio = m->original_size_mb / m->compressed_size_mb;
    m->target_compression_ratio = x->config->target_compression_ratio;
    m->sparsity_ratio = p4_packed_sparsity(x->packed);
}

/* The fingerprints of what was read, taken then if the run kept them. */
static p4_rc put_inputs(p4_metadata *metadata, const p4_export *x)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; x->inputs == NULL && i < x->original->hf.shard_count; i++) {
        TRY(p4_metadata_add_input(metadata, x->original->hf.shards[i].path));
    }
    for (int64_t i = 0; x->inputs != NULL && i < x->inputs->count; i++) {
        const p4_read_file *input = &x->inputs->files[i];
        if (input->fingerprint[0] != '\0') {
            TRY(p4_metadata_add_fingerprint(metadata, input->path, input->fingerprint));
        }
    }
done:
    return rc;
}

/* model.h5 is complete when the files behind the models are written. */
static p4_rc measure_file(const p4_export *x)
{
    const char *path = x->results->output_paths.quantized;
    p4_size_metrics *m = &x->results->metrics;
    int64_t bytes = 0;
    p4_rc rc = path[0] != '\0' ? p4_file_bytes(&bytes, path) : P4_OK;
    if (bytes > 0) {
        m->packed_file_mb = (double)bytes / 1048576.0;
        m->stored_files_ratio = m->stored_files_mb / m->packed_file_mb;
    }
    return rc;
}

static p4_rc write_metadata(exporter *e)
{
    p4_rc rc = P4_OK;
    const p4_export *x = e->x;
    p4_metadata metadata;
    p4_metadata_init(&metadata);
    TRY(measure_file(x));
    snprintf(metadata.producer, sizeof metadata.producer, "%s", p4_version());
    metadata.bits = x->config->quantization_bits;
    TRY(p4_metadata_take_results(&metadata, x->results));
    if ((metadata.config_json = p4_strdup(e->phase4_json)) == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    p4_provenance now = x->results->provenance; /* a run of the library alone has none */
    (void)p4_utc_now(now.ended);
    TRY(now.ranks > 0 ? p4_provenance_print(&now, &metadata.provenance_json) : P4_OK);
    const p4_expert_loads *loads = &x->results->experts;
    TRY(loads->experts > 0 ? p4_expert_loads_print(loads, &metadata.experts_json) : P4_OK);
    TRY(put_inputs(&metadata, x));
    TRY(p4_metadata_store(x->config->output_path, &metadata));
done:
    p4_metadata_free(&metadata);
    return rc;
}

/* The functions of the EXPORTED rows of the writer table (io/out/outputs.h); NULL for the OTHER rows. */
#define EXPORTED(id, ...) write_##id,
#define OTHER(...) NULL,
static p4_rc (*const writers[P4_OUTPUTS])(exporter *) = {P4_OUTPUT_TABLE(EXPORTED, OTHER)};
#undef EXPORTED
#undef OTHER

/* Rank 0, in the order of the writer table. Local. */
static p4_rc write_all(const p4_export *x)
{
    p4_rc rc = P4_OK;
    p4_output_paths *paths = &x->results->output_paths;
    exporter e = {.x = x};
    char *phase4_json = NULL;
    char *tokenizer = p4_format("%s/tokenizer.json", x->original->hf.path); /* copied where it is */
    unsigned has = (tokenizer != NULL && p4_file_exists(tokenizer) ? P4_NEEDS_TOKENIZER : 0u) | x->has;
    atomic_init(&e.ended, false);
    TRY(p4_outputs_name(paths, x->config, has));
    TRY(p4_config_print_anchored(x->config, &phase4_json));
    e.phase4_json = phase4_json;
    snprintf(x->results->model_type, sizeof x->results->model_type, "%s", x->original->hf.model.arch.family);
    snprintf(x->results->method, sizeof x->results->method, "%s", p4_quantizers[x->config->quantizer].name);
    snprintf(x->results->scale_granularity, sizeof x->results->scale_granularity, "%s",
             p4_scale_granularity_names[x->config->scale_granularity]);
    snprintf(x->results->packing, sizeof x->results->packing, "%s", p4_packing_name(x->config->packing));
    for (int i = 0; i < P4_OUTPUTS; i++) {
        if (writers[i] != NULL && p4_output_path(paths, &p4_outputs[i])[0] != '\0') {
            TRY(x->hold != NULL ? p4_hold_check(x->hold) : P4_OK);
            TRY(writers[i](&e));
        }
    }
    TRY(artifact_result(&e));
    TRY(p4_output_drop_stale(x->config->output_path, paths));
done:
    if (artifact_result(&e) != P4_OK) {
        rc = e.rc;
    }
    free(tokenizer);
    free(e.message);
    free(phase4_json);
    return rc;
}

p4_rc p4_export_write(const p4_export *x)
{
    p4_rc rc = P4_OK;
    p4_export_measure(x);
    TRY_ALL(x->compute->group,
            p4_statistics_loads(x->statistics, &x->original->hf.model, &x->results->experts));
    TRY_ROOT(x->compute->group, write_all(x));
done:
    return rc;
}
