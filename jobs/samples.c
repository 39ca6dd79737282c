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
    bool copied = false;
    for (int64_t i = 0; i < hf->model.params_count; i++) {
        copied = copied || hf->model.params[i].transposed;
    }
    return copied ? 2 * hf->stored_bytes : hf->stored_bytes;
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

static int64_t prompt_tokens(const p4_run *run)
{
    return p4_min_i64(PROMPT_TOKENS, p4_max_i64(1, run->eval.T / 2));
}

/* The beginning of a document inside a window, else that of the window. */
static void choose_prompt(p4_ids *prompt, const p4_run *run, int64_t window)
{
    const int32_t *ids = run->eval.ids + window * run->eval.T;
    int64_t T = run->eval.T, count = prompt_tokens(run), first = 0;
    for (int64_t i = 1; i + count <= T; i++) {
        if (ids[i - 1] == run->original.hf.model.arch.eos_id) {
            first = i;
            break;
        }
    }
    *prompt = (p4_ids){.ids = (int32_t *)(uintptr_t)(ids + first), .count = count}; /* the run's, only read */
}

/* Texts of one model, into the samples: of the original or of the packed model. */
static p4_rc continue_all(p4_sample *samples, int64_t count, const p4_run *run, const char *path,
                          bool original)
{
    p4_rc rc = P4_OK;
    p4_language_model m;
    p4_generator g = {0};
    p4_ids prompt;
    int64_t most = p4_min_i64(PROMPT_TOKENS + TEXT_TOKENS, run->original.hf.model.arch.positions);
    const p4_generate_settings settings = {.device = "cpu",
                                           .threads = run->compute.threads,
                                           .tokens = most - prompt_tokens(run),
                                           .sampling = {.top_p = 1},
                                           .activation_bits = run->config.activation_bits,
                                           .cache_type = P4_F32};
    TRY(p4_language_model_open(&m, path, run->compute.threads));
    TRY(p4_generator_open(&g, &m, &settings, most));
    for (int64_t i = 0; i < count; i++) {
        choose_prompt(&prompt, run, i * run->eval.count / count);
        TRY(p4_generator_run(&g, original ? &samples[i].original : &samples[i].packed, &prompt, NULL, NULL));
    }
done:
    p4_generator_close(&g);
    p4_language_model_close(&m);
    return rc;
}

p4_rc p4_samples_write(const p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_output_paths *paths = &run->results.output_paths;
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
        return P4_OK;
    }
    samples = p4_alloc((size_t)count, sizeof *samples);
    TRY(samples != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < count; i++) {
        choose_prompt(&prompt, run, i * run->eval.count / count);
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
