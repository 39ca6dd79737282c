/* Calibration text as windows of tokens, and what the original model makes of it. */
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/json/config.h"
#include "io/text/chat.h"
#include "jobs/api/api.h"
#include "jobs/train/statistics.h"
#include "jobs/train/windows.h"

struct p4_calib {
    p4_config config;
    char *model_path;
    int64_t vocab, positions;
    int32_t end_id;
    p4_tokenizer *tokenizer; /* NULL: the checkpoint has none */
    p4_chat *chat;           /* beside the tokenizer */
    char **samples;          /* [sample_count], NULL: the files that the configuration names */
    int64_t sample_count;
};

static void free_samples(p4_calib *calib)
{
    for (int64_t i = 0; calib->samples != NULL && i < calib->sample_count; i++) {
        free(calib->samples[i]);
    }
    free(calib->samples);
    calib->samples = NULL;
    calib->sample_count = 0;
}

void p4_calib_free(p4_calib *calib)
{
    if (calib != NULL) {
        free_samples(calib);
        p4_chat_close(calib->chat);
        p4_tokenizer_close(calib->tokenizer);
        free(calib->model_path);
        free(calib);
    }
}

static p4_rc open_tokenizer(p4_calib *calib)
{
    p4_rc rc = P4_OK;
    if (p4_tokenizer_present(calib->model_path)) {
        TRY(p4_tokenizer_open(&calib->tokenizer, calib->model_path));
        TRY(p4_chat_open(&calib->chat, calib->model_path, calib->config.chat_template));
    }
done:
    return rc;
}

p4_rc p4_calib_create(p4_calib **calib, const p4_checkpoint *checkpoint, const p4_config *config,
                      const char *dataset)
{
    p4_rc rc = P4_OK;
    const p4_arch *arch = &checkpoint->hf.model.arch;
    p4_error_clear();
    p4_calib *c = *calib = p4_alloc(1, sizeof *c);
    if (c == NULL) {
        return P4_E_SYSTEM;
    }
    c->config = *config;
    c->vocab = arch->V;
    c->positions = arch->positions;
    c->end_id = arch->eos_id;
    c->model_path = p4_strdup(checkpoint->hf.path);
    if (c->model_path == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    if (dataset != NULL) {
        TRY(p4_config_set_key(&c->config, "calibration_dataset", dataset));
        if (c->config.calibration_dataset != P4_DATASET_CUSTOM) {
            c->config.calibration_files = (p4_list){0}; /* they are custom data */
        }
    }
    TRY(p4_config_check(&c->config));
    TRY(open_tokenizer(c));
done:
    if (rc != P4_OK) {
        p4_calib_free(c);
        *calib = NULL;
    }
    return rc;
}

p4_rc p4_calib_set_custom_samples(p4_calib *calib, const char *const *samples, int64_t count)
{
    p4_rc rc = P4_OK;
    p4_error_clear();
    CHECK(samples != NULL && count > 0, "custom samples: none are given");
    CHECK(calib->tokenizer != NULL, "%s/tokenizer.json is not there: custom samples need a tokenizer",
          calib->model_path);
    free_samples(calib);
    calib->samples = p4_alloc((size_t)count, sizeof *calib->samples);
    if (calib->samples == NULL) {
        return P4_E_SYSTEM;
    }
    for (; calib->sample_count < count; calib->sample_count++) {
        char *copy = p4_strdup(samples[calib->sample_count]);
        if (copy == NULL) {
            free_samples(calib);
            return P4_E_SYSTEM;
        }
        calib->samples[calib->sample_count] = copy;
    }
done:
    return rc;
}

/* ---- the loader ---- */

static p4_rc read_windows(p4_windows *windows, const p4_calib *calib)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &calib->config;
    int64_t T = c->calibration_sequence_length;
    p4_split_files files = {.paths = NULL};
    CHECK(T <= calib->positions,
          "key \"calibration_sequence_length\": found %lld, expected at most the %lld positions of %s",
          (long long)T, (long long)calib->positions, calib->model_path);
    p4_windowing how = {.tokenizer = calib->tokenizer,
                        .T = T,
                        .vocab = calib->vocab,
                        .end_id = calib->end_id,
                        .threads = c->num_workers,
                        .seed = c->seed,
                        .json = {.opt_field = c->text_field, .chat = calib->chat}};
    if (calib->samples != NULL) {
        TRY(p4_windows_from_samples(windows, (const char *const *)calib->samples, calib->sample_count, &how,
                                    c->calibration_samples));
    } else {
        TRY(p4_dataset_files(&files, c, P4_SPLIT_CALIBRATION));
        how.opt_mixture = &files.mixture;
        TRY(p4_windows_read(windows, files.paths, files.count, &how, c->calibration_samples));
    }
done:
    p4_split_files_free(&files);
    return rc;
}

p4_rc p4_loader_create(p4_loader **loader, p4_session *session, const p4_calib *calib)
{
    p4_rc rc = P4_OK;
    p4_group *group = &session->group;
    p4_error_clear();
    p4_loader *l = *loader = p4_alloc(1, sizeof *l);
    TRY_ALL(group, l != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_session_share_config(session, &l->config, &calib->config));
    TRY_ROOT(group, read_windows(&l->windows, calib));
    TRY(p4_windows_publish(group, &l->windows));
done:
    if (rc != P4_OK) {
        p4_loader_free(l);
        *loader = NULL;
    }
    return rc;
}

void p4_loader_free(p4_loader *loader)
{
    if (loader != NULL) {
        p4_windows_free(&loader->windows);
        free(loader);
    }
}

void p4_loader_next(p4_loader *loader, const int32_t **ids, int64_t *B, int64_t *T)
{
    const p4_windows *w = &loader->windows;
    *T = w->T;
    *B = p4_min_i64(loader->config.calibration_batch_size, w->count - loader->next);
    *ids = *B > 0 ? w->ids + loader->next * w->T : NULL;
    loader->next += *B;
}

void p4_loader_rewind(p4_loader *loader)
{
    loader->next = 0;
}

int64_t p4_loader_windows(const p4_loader *loader)
{
    return loader->windows.count;
}

p4_rc p4_original_accepts(const p4_original *original, const p4_loader *loader)
{
    p4_rc rc = P4_OK;
    const p4_windows *w = &loader->windows;
    const p4_arch *arch = &original->hf.model.arch;
    CHECK(w->T <= arch->positions, "the loader has windows of %lld tokens, but %s has %lld positions",
          (long long)w->T, original->hf.path, (long long)arch->positions);
    for (int64_t i = 0; i < w->count * w->T; i++) {
        CHECK(w->ids[i] < arch->V,
              "the loader's windows hold token %d, but the vocabulary of %s has %lld ids", (int)w->ids[i],
              original->hf.path, (long long)arch->V);
    }
done:
    return rc;
}

/* ---- statistics ---- */

void p4_activation_summary_free(p4_activation_summary *stats, int64_t count)
{
    for (int64_t i = 0; stats != NULL && i < count; i++) {
        free(stats[i].name);
        free(stats[i].input_mean_square);
    }
    free(stats);
}

/* Local. */
static p4_rc take_summaries(const p4_statistics *seen, const p4_model *model, p4_activation_summary **stats,
                            int64_t *count)
{
    p4_rc rc = P4_OK;
    *stats = p4_alloc((size_t)model->params_count, sizeof **stats);
    if (*stats == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        if (p4_statistics_reached(seen, i)) {
            TRY(p4_statistics_summarize(seen, model, i, &(*stats)[*count]));
            (*count)++;
        }
    }
done:
    return rc;
}

/* Loads the original to the loader's device for this pass alone. Collective. */
static p4_rc collect(p4_compute *compute, const p4_checkpoint *checkpoint, const p4_loader *loader,
                     p4_activation_summary **stats, int64_t *count)
{
    p4_rc rc = P4_OK;
    p4_group *group = compute->group;
    p4_original original = {0};
    p4_statistics seen = {0};
    p4_config config = loader->config;
    p4_pipeline_plan plan = p4_settings_pipeline(&config, loader->windows.T);
    TRY_ALL(group, p4_checkpoint_reopen(&original, checkpoint, &config, group->ranks));
    TRY_ALL(group, p4_original_accepts(&original, loader));
    TRY_ALL(group, p4_original_load(&original, compute));
    TRY(p4_statistics_collect(&seen, compute, &original, &plan, &loader->windows));
    TRY_ALL(group, take_summaries(&seen, &original.hf.model, stats, count));
done:
    p4_statistics_free(&seen);
    p4_original_close(&original);
    return rc;
}

p4_rc p4_calib_collect_statistics(p4_session *session, const p4_checkpoint *checkpoint,
                                  const p4_loader *loader, p4_activation_summary **stats, int64_t *count)
{
    p4_rc rc = P4_OK;
    p4_compute compute = {0};
    p4_compute_settings settings = p4_settings_compute(&loader->config);
    p4_error_clear();
    *stats = NULL;
    *count = 0;
    TRY(p4_compute_open(&compute, &session->group, &settings));
    TRY(collect(&compute, checkpoint, loader, stats, count));
done:
    p4_compute_close(&compute);
    if (rc != P4_OK) {
        p4_activation_summary_free(*stats, *count);
        *stats = NULL;
        *count = 0;
    }
    return rc;
}
