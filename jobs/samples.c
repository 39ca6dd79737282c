#include "jobs/samples.h"

#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "jobs/generate.h"
#include "src/leaf/limits.h"

enum { PROMPT_TOKENS = 24, TEXT_TOKENS = 48 };
static const double original_bytes_max = 8.0 * (1 << 30); /* each token reads all of them */

/* Memory for the original: its mapped files, and of matrices that they hold as [in, out] a copy. */
static double memory_of(const p4_hf_model *hf)
{
    return hf->stored_bytes + (double)p4_language_model_turned_bytes(&hf->model, false);
}

/* Why there are no samples; NULL: there can be some. */
static const char *why_none(const p4_run *run)
{
    const p4_output_paths *paths = &run->results.output_paths;
    return run->config.init != P4_INIT_CHECKPOINT ? "the original has random weights"
           : run->tokenizer == NULL               ? "there is no tokenizer"
           : run->eval.count == 0                 ? "there is no evaluation text"
           : paths->quantized[0] == '\0' && paths->dequantized_fp16[0] == '\0' ? "no model was written"
           : run->original.hf.stored_bytes > original_bytes_max ||
                   memory_of(&run->original.hf) > (double)p4_memory_free("")
               ? "the original is too large to continue texts on one CPU"
               : NULL;
}

static int64_t prompt_tokens(int64_t T)
{
    return p4_min_i64(PROMPT_TOKENS, p4_max_i64(1, T / 2));
}

/* *most: tokens of the longest text. */
static p4_generate_settings generate_settings(const p4_config *c, const p4_arch *arch, int64_t T, int threads,
                                              int64_t *most)
{
    *most = p4_min_i64(PROMPT_TOKENS + TEXT_TOKENS, arch->positions);
    return (p4_generate_settings){.device = "cpu",
                                  .most_threads = threads,
                                  .tokens = *most - prompt_tokens(T),
                                  .sampling = {.top_p = 1},
                                  .activation_bits = c->activation_bits,
                                  .cache_type = P4_F32};
}

p4_rc p4_samples_plan_bytes(p4_samples_memory *bytes, const p4_config *c, const p4_hf_model *hf,
                            const p4_weight *packed, int threads)
{
    p4_rc rc = P4_OK;
    int64_t most;
    const p4_model *model = &hf->model;
    p4_generator_memory original, own;
    const p4_generate_settings settings =
        generate_settings(c, &model->arch, c->calibration_sequence_length, threads, &most);
    *bytes = (p4_samples_memory){.original = 0};
    if (c->sample_texts == 0 || c->init != P4_INIT_CHECKPOINT || !p4_tokenizer_present(hf->path) ||
        !(c->save_quantized || c->save_dequantized_fp16) || hf->stored_bytes > original_bytes_max) {
        return P4_OK;
    }
    TRY(p4_generator_plan_bytes(&original, &settings, model, model->weights, most, false));
    TRY(p4_generator_plan_bytes(&own, &settings, model, packed, most, c->save_quantized));
    bytes->original = p4_language_model_turned_bytes(model, false) + original.form;
    bytes->original_pass = original.decoder + original.logits;
    bytes->packed =
        own.form + (c->save_quantized ? p4_packed_bytes(model) : p4_language_model_turned_bytes(model, true));
    bytes->packed_pass = own.decoder + own.logits;
done:
    return rc;
}

/* Whether the token at `i` begins a word, as far as the text says: a decoder may leave out the space before
 * the first token that it is given. */
static p4_rc begins_word(const p4_tokenizer *tokenizer, const int32_t *ids, int64_t i, bool *begins)
{
    p4_rc rc = P4_OK;
    char *before = NULL, *both = NULL;
    TRY(p4_tokenizer_decode(tokenizer, ids + i - 1, 1, &before));
    TRY(p4_tokenizer_decode(tokenizer, ids + i - 1, 2, &both));
    size_t length = strlen(before);
    char next = strncmp(both, before, length) == 0 ? both[length] : '\0';
    *begins = next == ' ' || next == '\n' ||
              (length > 0 && (before[length - 1] == ' ' || before[length - 1] == '\n'));
done:
    free(before);
    free(both);
    return rc;
}

/* The beginning of a document inside a window, else of a word, else of the window. */
static p4_rc choose_prompt(p4_ids *prompt, const p4_run *run, int64_t window)
{
    p4_rc rc = P4_OK;
    const int32_t *ids = run->eval.ids + window * run->eval.T;
    int64_t T = run->eval.T, count = prompt_tokens(T), first = 0;
    for (int64_t i = 1; i + count <= T && first == 0; i++) {
        first = ids[i - 1] == run->original.hf.model.arch.eos_id ? i : 0;
    }
    bool begins = first > 0;
    for (int64_t i = 1; i + count <= T && !begins; i++) {
        TRY(begins_word(run->tokenizer, ids, i, &begins));
        first = begins ? i : 0;
    }
    *prompt = (p4_ids){.ids = (int32_t *)(uintptr_t)(ids + first), .count = count}; /* the run's, only read */
done:
    return rc;
}

/* Texts of one model, into the samples: of the original or of the packed model. */
static p4_rc continue_all(p4_sample *samples, int64_t count, const p4_run *run, const char *path,
                          bool original)
{
    p4_rc rc = P4_OK;
    p4_language_model m;
    p4_generator g = {0};
    p4_ids prompt;
    int64_t most;
    const p4_generate_settings settings = generate_settings(&run->config, &run->original.hf.model.arch,
                                                            run->eval.T, run->compute.threads, &most);
    TRY(p4_language_model_open(&m, path, run->compute.threads));
    TRY(p4_generator_open(&g, &m, &settings, most));
    for (int64_t i = 0; i < count; i++) {
        TRY(choose_prompt(&prompt, run, i * run->eval.count / count));
        TRY(p4_generator_run(&g, original ? &samples[i].original : &samples[i].packed, &prompt, NULL, NULL));
    }
done:
    p4_generator_close(&g);
    p4_language_model_close(&m);
    return rc;
}

p4_rc p4_samples_write(p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_output_paths *paths = &run->results.output_paths;
    const char *packed = paths->quantized[0] != '\0' ? paths->quantized : paths->dequantized_fp16;
    int64_t count = p4_min_i64(run->config.sample_texts, run->eval.count);
    p4_sample *samples = NULL;
    p4_ids prompt;
    char *json = NULL;
    if (paths->samples[0] == '\0') {
        return P4_OK;
    }
    if (why_none(run) != NULL) {
        INFO("samples.json is not written: %s", why_none(run));
        paths->samples[0] = '\0'; /* nothing to miss */
        return P4_OK;
    }
    samples = p4_alloc((size_t)count, sizeof *samples);
    TRY(samples != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < count; i++) {
        TRY(choose_prompt(&prompt, run, i * run->eval.count / count));
        TRY(p4_tokenizer_decode(run->tokenizer, prompt.ids, prompt.count, &samples[i].prompt));
    }
    TRY(continue_all(samples, count, run, run->config.model_path, true));
    TRY(continue_all(samples, count, run, packed, false));
    json = p4_samples_json(samples, count, packed == paths->quantized ? run->config.activation_bits : 0);
    TRY(json != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_atomic_write_all(paths->samples, json, strlen(json)));
done:
    for (int64_t i = 0; samples != NULL && i < count; i++) {
        p4_sample_free(&samples[i]);
    }
    free(samples);
    free(json);
    return rc;
}
