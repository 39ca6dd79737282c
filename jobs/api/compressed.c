/* A checkpoint on its way to ternary weights: quantizing, logits, figures, outputs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/out/directory.h"
#include "io/tokenizer/tokenizer.h"
#include "jobs/api/api.h"
#include "jobs/export.h"

p4_rc p4_compressed_begin(p4_compressed **compressed, p4_session *session, const p4_config *config)
{
    p4_rc rc = P4_OK;
    p4_group *group = &session->group;
    p4_compressed *c = p4_alloc(1, sizeof *c);
    *compressed = NULL;
    TRY_ALL(group, c != NULL ? P4_OK : P4_E_SYSTEM);
    c->session = session;
    p4_results_init(&c->results);
    TRY(p4_session_share_config(session, &c->config, config));
    p4_compute_settings settings = p4_settings_compute(&c->config);
    TRY(p4_compute_open(&c->compute, group, &settings));
    *compressed = c;
done:
    if (rc != P4_OK) {
        p4_compressed_close(c);
    }
    return rc;
}

p4_rc p4_compressed_create(p4_compressed **compressed, p4_session *session, const p4_checkpoint *checkpoint,
                           const p4_config *config)
{
    p4_rc rc = P4_OK;
    p4_error_clear();
    TRY(p4_compressed_begin(compressed, session, config));
    p4_compressed *c = *compressed;
    TRY_ALL(&session->group,
            p4_checkpoint_reopen(&c->original, checkpoint, &c->config, session->group.ranks));
done:
    if (rc != P4_OK) {
        p4_compressed_close(*compressed);
        *compressed = NULL;
    }
    return rc;
}

void p4_compressed_close(p4_compressed *compressed)
{
    if (compressed != NULL) {
        p4_forward_view_close(compressed);
        p4_results_free(&compressed->results);
        p4_training_curve_free(&compressed->curve);
        p4_packed_release(&compressed->packed);
        p4_statistics_free(&compressed->statistics);
        p4_windows_free(&compressed->windows);
        p4_original_close(&compressed->original);
        p4_compute_close(&compressed->compute);
        free(compressed);
    }
}

/* The loader may be gone when the model is compressed. Local. */
static p4_rc keep_windows(p4_compressed *c, const p4_windows *windows)
{
    size_t elements = (size_t)(windows->count * windows->T);
    int32_t *ids = p4_alloc(elements, sizeof *ids);
    if (ids == NULL) {
        return P4_E_SYSTEM;
    }
    memcpy(ids, windows->ids, elements * sizeof *ids);
    p4_windows_free(&c->windows);
    c->windows = (p4_windows){.ids = ids,
                              .count = windows->count,
                              .T = windows->T,
                              .tokens_total = windows->tokens_total,
                              .documents = windows->documents}; /* nothing is scored on them: no parts */
    return P4_OK;
}

p4_rc p4_compressed_calibrate(p4_compressed *c, const p4_loader *loader)
{
    p4_rc rc = P4_OK;
    p4_group *group = c->compute.group;
    p4_pipeline_plan plan = p4_settings_pipeline(&c->config, loader->windows.T);
    p4_statistics seen = {0};
    p4_error_clear();
    if (c->was_loaded) {
        return p4_fail(P4_E_STATE, "%s: a loaded model has no original weights to calibrate",
                       c->original.hf.path);
    }
    TRY_ALL(group, p4_original_accepts(&c->original, loader));
    TRY_ALL(group, p4_original_load(&c->original, &c->compute));
    TRY(p4_statistics_collect(&seen, &c->compute, &c->original, &plan, &loader->windows));
    p4_statistics_free(&c->statistics);
    c->statistics = seen;
    if (p4_quantizers[c->config.quantizer].needs == P4_NEEDS_HESSIAN) {
        TRY_ALL(group, keep_windows(c, &loader->windows));
    }
done:
    return rc;
}

p4_rc p4_compressed_compress(p4_compressed *c)
{
    p4_quantize_plan plan = p4_settings_quantize(&c->config, &c->statistics, &c->windows);
    p4_error_clear();
    if (c->was_loaded) {
        return p4_fail(P4_E_STATE, "%s: a loaded model has no original weights to compress",
                       c->original.hf.path);
    }
    p4_forward_view_close(c);
    p4_packed_release(&c->packed);
    return p4_quantize_original(&c->packed, &c->compute, &c->original, &plan);
}

p4_rc p4_quantize_model(p4_compressed **compressed, p4_session *session, const p4_checkpoint *checkpoint,
                        const p4_config *config)
{
    p4_rc rc = p4_compressed_create(compressed, session, checkpoint, config);
    if (rc == P4_OK && (rc = p4_compressed_compress(*compressed)) != P4_OK) {
        p4_compressed_close(*compressed);
        *compressed = NULL;
    }
    return rc;
}

bool p4_compressed_is_compressed(const p4_compressed *compressed)
{
    return compressed->packed.is_compressed;
}

p4_rc p4_compressed_expect(const p4_compressed *compressed)
{
    return p4_compressed_is_compressed(compressed) ? P4_OK : p4_fail(P4_E_STATE, "Model not compressed yet");
}

int64_t p4_compressed_vocabulary(const p4_compressed *compressed)
{
    return compressed->original.hf.model.arch.V;
}

/* ---- logits ---- */

void p4_forward_view_close(p4_compressed *compressed)
{
    p4_forward_view *view = &compressed->view;
    if (view->x != NULL) {
        compressed->compute.ops->release(compressed->compute.device, view->x);
    }
    if (view->net.ops != NULL) {
        p4_net_close(&view->net);
    }
    if (view->form.ops != NULL) {
        p4_device_form_close(&view->form);
    }
    *view = (p4_forward_view){0};
}

static p4_rc open_view(p4_compressed *compressed, int64_t B, int64_t T)
{
    p4_rc rc = P4_OK;
    p4_forward_view *view = &compressed->view;
    const p4_ops *ops = compressed->compute.ops;
    p4_device *device = compressed->compute.device;
    const p4_model *model = &compressed->original.hf.model;
    const p4_packed *packed = &compressed->packed;
    p4_net_plan plan = {.B = B, .T = T, .activation_bits = compressed->config.activation_bits, .head = true};
    p4_forward_view_close(compressed);
    TRY(p4_device_form_open(&view->form, ops, device, model,
                            packed->is_compressed ? packed->weights : model->weights));
    TRY(p4_net_open(&view->net, ops, device, model, &plan));
    TRY(ops->alloc(device, &view->x, B * T * model->arch.C * ops->act_bytes(device)));
    view->is_open = true;
done:
    if (rc != P4_OK) {
        p4_forward_view_close(compressed);
    }
    return rc;
}

static p4_rc check_tokens(const p4_arch *arch, const int32_t *tokens, int64_t B, int64_t T)
{
    p4_rc rc = P4_OK;
    uint64_t logits;
    CHECK(B > 0 && T > 0, "a batch of %lld x %lld tokens: expected at least one", (long long)B, (long long)T);
    CHECK(T <= arch->positions, "sequences of %lld tokens: the model has %lld positions", (long long)T,
          (long long)arch->positions);
    CHECK(p4_mul3(&logits, (uint64_t)B, (uint64_t)T, 4 * (uint64_t)arch->V) && logits <= INT64_MAX,
          "a batch of %lld x %lld tokens is too large", (long long)B, (long long)T);
    for (int64_t i = 0; i < B * T; i++) {
        CHECK(tokens[i] >= 0 && tokens[i] < arch->V,
              "token %lld is %d, expected one of the %lld ids of the vocabulary", (long long)i,
              (int)tokens[i], (long long)arch->V);
    }
done:
    return rc;
}

p4_rc p4_compressed_forward(p4_compressed *compressed, const int32_t *tokens, int64_t B, int64_t T,
                            float *logits)
{
    p4_rc rc = P4_OK;
    p4_forward_view *view = &compressed->view;
    const p4_arch *arch = &compressed->original.hf.model.arch;
    p4_error_clear();
    TRY(check_tokens(arch, tokens, B, T));
    bool length_counts = p4_rope_needs_length(&arch->rope) || p4_rope_needs_length(&arch->windowed_rope);
    bool fits = view->is_open && B <= view->net.plan.B && T <= view->net.plan.T;
    if (!fits || (length_counts && T != view->net.plan.T)) {
        TRY(open_view(compressed, B, T));
    }
    p4_net_set_tokens(&view->net, tokens, B, T);
    p4_net_embed(&view->net, &view->form.form, view->x, B, T);
    p4_net_layers(&view->net, &(p4_net_pass){.form = &view->form.form, .B = B, .T = T}, 0, arch->L, view->x);
    p4_net_final_norm(&view->net, &view->form.form, view->x, false, B * T);
    TRY(p4_net_logits(&view->net, &view->form.form, logits, B * T));
done:
    return rc;
}

/* ---- figures ---- */

static void count_tensors(const p4_model *model, p4_quantizer_stats *stats)
{
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        stats->total_params += p->rows * p->cols;
        stats->quantized_params += p->ternary ? p->rows * p->cols : 0;
        stats->layers_quantized += p->ternary;
        stats->layers_preserved += !p->ternary;
    }
}

p4_rc p4_quant_stats(const p4_compressed *compressed, p4_quantizer_stats *stats)
{
    p4_error_clear();
    *stats = (p4_quantizer_stats){0};
    p4_rc rc = p4_compressed_expect(compressed);
    if (rc == P4_OK) {
        count_tensors(&compressed->original.hf.model, stats);
        stats->sparsity_ratio = p4_packed_sparsity(&compressed->packed);
    }
    return rc;
}

void p4_compression_stats(const p4_compressed *compressed, p4_compression_summary *stats)
{
    const double MB = 1048576.0;
    const p4_packed *packed = &compressed->packed;
    p4_quantizer_stats counts = {0};
    count_tensors(&compressed->original.hf.model, &counts);
    *stats = (p4_compression_summary){.is_compressed = p4_compressed_is_compressed(compressed),
                                      .original_size_mb = 4.0 * (double)counts.total_params / MB,
                                      .quantized_size_mb = NAN,
                                      .compression_ratio = NAN,
                                      .sparsity_ratio = NAN};
    if (stats->is_compressed) {
        p4_stored_bytes bytes =
            p4_packed_stored_bytes(packed, compressed->config.packing == P4_PACKING_2BIT ? 4 : 5);
        double sum = bytes.codes + bytes.scales + bytes.embedding + bytes.head + bytes.other;
        stats->quantized_size_mb = sum / MB;
        stats->compression_ratio = p4_compression_ratio(stats->original_size_mb, stats->quantized_size_mb);
        stats->layers_quantized = counts.layers_quantized;
        stats->layers_preserved = counts.layers_preserved;
        stats->sparsity_ratio = p4_packed_sparsity(packed);
    }
}

/* ---- outputs ---- */

static p4_rc take_output(p4_hold **hold, p4_config *config, const char *directory)
{
    p4_rc rc = P4_OK;
    int length = snprintf(config->output_path, sizeof config->output_path, "%s", directory);
    CHECK(length > 0 && length < P4_PATH_BYTES,
          "the output directory \"%.60s\": expected a path of 1 to %d bytes", directory, P4_PATH_BYTES - 1);
    TRY(p4_output_take(hold, directory, config->overwrite));
done:
    return rc;
}

/* The text of the model's tokenizer.json, or of the one that stands for its tokenizer files, which model.h5
 * holds; NULL: there is none. The caller frees. Rank 0.
 */
static p4_rc read_tokenizer(char **json, const p4_compressed *c)
{
    enum { MAX_TOKENIZER_BYTES = 1 << 28 };
    p4_rc rc = P4_OK;
    size_t bytes = 0;
    p4_tokenizer *tokenizer = NULL;
    char *path = p4_format("%s/tokenizer.json", c->original.hf.path);
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    if (p4_file_exists(path)) {
        TRY(p4_file_read(json, &bytes, path, MAX_TOKENIZER_BYTES));
    } else if (p4_tokenizer_present(c->original.hf.path)) {
        TRY(p4_tokenizer_open(&tokenizer, c->original.hf.path));
        *json = p4_strdup(p4_tokenizer_json(tokenizer));
        TRY(*json != NULL ? P4_OK : P4_E_SYSTEM);
    }
done:
    p4_tokenizer_close(tokenizer);
    free(path);
    return rc;
}

p4_rc p4_compressed_save(p4_compressed *c, const char *directory, p4_output_paths *paths)
{
    p4_rc rc = P4_OK;
    p4_group *group = c->compute.group;
    p4_output_paths *written = &c->results.output_paths;
    char *tokenizer_json = NULL;
    p4_hold *hold = NULL; /* rank 0 */
    p4_error_clear();
    TRY(p4_compressed_expect(c));
    if (c->was_loaded) {
        return p4_fail(P4_E_STATE, "%s: a loaded model has no checkpoint whose files go beside it",
                       c->original.hf.path);
    }
    TRY_ROOT(group, read_tokenizer(&tokenizer_json, c));
    TRY_ROOT(group, take_output(&hold, &c->config, directory));
    *written = (p4_output_paths){0};
    p4_export e = {.config = &c->config,
                   .compute = &c->compute,
                   .original = &c->original,
                   .packed = &c->packed,
                   .statistics = &c->statistics,
                   .curve = &c->curve,
                   .tokenizer_json = tokenizer_json,
                   .results = &c->results};
    TRY(p4_export_write(&e));
    p4_group_bcast(group, written, sizeof *written, 0);
    if (paths != NULL) {
        *paths = *written;
    }
done:
    free(tokenizer_json);
    p4_output_leave(hold, c->config.output_path, rc == P4_OK);
    return rc;
}
