/* How good a model is, training it, and whether gradients reach all of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/api/api.h"
#include "src/leaf/rng.h"

enum { FLOW_TOKENS = 64 }; /* of the made-up window of the gradient-flow test, at most */

/* Evaluates the model as it is on job->eval. Collective. */
static p4_rc evaluate(p4_compressed *compressed, p4_evaluation *evaluation)
{
    p4_rc rc = P4_OK;
    p4_job *job = &compressed->job;
    if (!compressed->was_loaded) {
        TRY_ALL(job->compute.group, p4_job_open_original(job));
    }
    if (p4_compressed_is_compressed(compressed)) {
        TRY(p4_job_evaluate_compressed(job, "evaluate", evaluation));
    } else {
        TRY(p4_job_evaluate(job, &job->original.form, NULL, "evaluate", evaluation));
    }
done:
    return rc;
}

p4_rc p4_job_use_length(p4_job *job, const p4_loader *loader)
{
    p4_rc rc = P4_OK;
    const p4_windows *w = &loader->windows;
    const p4_arch *arch = &job->hf.model.arch;
    CHECK(w->T <= arch->positions, "the loader has windows of %lld tokens, but %s has %lld positions",
          (long long)w->T, job->hf.path, (long long)arch->positions);
    for (int64_t i = 0; i < w->count * w->T; i++) {
        CHECK(w->ids[i] < arch->V,
              "the loader's windows hold token %d, but the vocabulary of %s has %lld ids", (int)w->ids[i],
              job->hf.path, (long long)arch->V);
    }
    job->config.calibration_sequence_length = (int32_t)w->T;
done:
    return rc;
}

p4_rc p4_compressed_evaluate(p4_compressed *compressed, const p4_loader *loader, p4_evaluation *evaluation)
{
    p4_rc rc = P4_OK;
    p4_job *job = &compressed->job;
    p4_error_clear();
    *evaluation = (p4_evaluation){.loss = NAN, .perplexity = NAN, .accuracy = NAN, .kl = NAN};
    TRY_ALL(job->compute.group, p4_job_use_length(job, loader));
    job->eval = loader->windows;
    TRY(evaluate(compressed, evaluation));
done:
    job->eval = (p4_windows){0}; /* the loader's */
    return rc;
}

/* The keys of `from` but those that decided which tensors are ternary, and how. */
static void take_training_keys(p4_config *to, const p4_config *from)
{
    p4_config kept = *to;
    *to = *from;
    memcpy(to->model_path, kept.model_path, sizeof to->model_path);
    to->init = kept.init;
    to->device = kept.device;
    to->quantizer = kept.quantizer;
    to->sparsity_threshold = kept.sparsity_threshold;
    to->activation_bits = kept.activation_bits;
    to->preserve_embedding_precision = kept.preserve_embedding_precision;
    to->preserve_output_precision = kept.preserve_output_precision;
    to->preserve_layers = kept.preserve_layers;
    to->packing = kept.packing;
}

/* Collective. */
static p4_rc prepare_training(p4_compressed *compressed, const p4_loader *train, const p4_loader *eval,
                              const p4_config *config)
{
    p4_rc rc = P4_OK;
    p4_job *job = &compressed->job;
    p4_config *shared = NULL;
    TRY(p4_compressed_expect(compressed));
    if (compressed->was_loaded) {
        rc = p4_fail(P4_E_STATE, "%s: a loaded model has no original weights to train", job->hf.path);
        goto done;
    }
    if (config != NULL) {
        shared = p4_alloc(1, sizeof *shared);
        TRY_ALL(job->compute.group, shared != NULL ? P4_OK : P4_E_SYSTEM);
        TRY(p4_session_share_config(compressed->session, shared, config));
        take_training_keys(&job->config, shared);
    }
    TRY_ALL(job->compute.group, p4_job_use_length(job, train));
    TRY_ALL(
        job->compute.group,
        eval == NULL || eval->windows.T == train->windows.T
            ? P4_OK
            : FAIL("the evaluation windows have %lld tokens and the training windows %lld, expected the same",
                   (long long)eval->windows.T, (long long)train->windows.T));
    TRY_ALL(job->compute.group, eval == NULL ? P4_OK : p4_job_use_length(job, eval));
done:
    free(shared);
    return rc;
}

p4_rc p4_fine_tune(p4_compressed *compressed, const p4_loader *train, const p4_loader *eval,
                   const p4_config *config, p4_log_callback callback, void *user, p4_fine_tuning *result)
{
    p4_rc rc = P4_OK;
    p4_job *job = &compressed->job;
    p4_error_clear();
    p4_results_free(&job->results);
    p4_results_init(&job->results);
    *result = job->results.fine_tuning;
    TRY(prepare_training(compressed, train, eval, config));
    job->train = train->windows;
    job->log_callback = callback;
    job->log_user = user;
    job->curve_count = 0;
    if (eval != NULL) {
        job->eval = eval->windows;
        TRY(evaluate(compressed, &job->results.post));
    }
    p4_forward_view_close(compressed);
    TRY(p4_job_fine_tune(job));
    *result = job->results.fine_tuning;
    job->results.fine_tuning.history = NULL; /* the caller's now */
    job->results.fine_tuning.history_count = job->results.fine_tuning.history_capacity = 0;
done:
    job->train = job->eval = (p4_windows){0}; /* the loaders' */
    job->log_callback = NULL;
    return rc;
}

void p4_fine_tuning_free(p4_fine_tuning *result)
{
    free(result->history);
    result->history = NULL;
    result->history_count = result->history_capacity = 0;
}

p4_rc p4_test_gradient_flow(p4_compressed *compressed, bool *passed, char *error, size_t error_bytes)
{
    p4_rc rc = P4_OK;
    p4_job *job = &compressed->job;
    const p4_arch *arch = &job->hf.model.arch;
    p4_gradient_flow *record = &job->results.gradient_flow;
    int32_t ids[FLOW_TOKENS];
    p4_rng rng = {.seed = job->config.seed};
    p4_error_clear();
    *passed = false;
    CHECK(arch->positions > 1, "%s: a model of one position predicts no token: there is no gradient",
          job->hf.path);
    for (int i = 0; i < FLOW_TOKENS; i++) {
        ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)arch->V);
    }
    *record = (p4_gradient_flow){0};
    job->eval = (p4_windows){.ids = ids, .count = 1, .T = p4_min_i64(FLOW_TOKENS, arch->positions)};
    TRY(p4_stage_gradient_flow(job));
    *passed = record->passed;
    if (error_bytes > 0) {
        snprintf(error, error_bytes, "%s", record->error);
    }
done:
    job->eval = (p4_windows){0};
    return rc;
}
