/* How good a model is, training it, and whether gradients reach all of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json/evaluation.h"
#include "io/out/directory.h"
#include "io/out/report.h"
#include "jobs/api/api.h"
#include "jobs/train/evaluate.h"
#include "jobs/train/fine_tune.h"
#include "jobs/train/gradient_flow.h"
#include "src/config.h"
#include "src/leaf/rng.h"

enum { FLOW_TOKENS = 64 }; /* of the made-up window of the gradient-flow test, at most */

/* The model as it is on the loader's windows. Collective. */
static p4_rc evaluate(p4_compressed *c, const p4_loader *loader, p4_evaluation *evaluation)
{
    p4_rc rc = P4_OK;
    p4_part_losses losses = {.nll = NULL};
    p4_evaluator evaluator = {.compute = &c->compute,
                              .original = &c->original,
                              .plan = p4_settings_pipeline(&c->config, loader->windows.T),
                              .windows = &loader->windows,
                              .opt_losses = &losses,
                              .seed = c->config.seed};
    if (!c->was_loaded) {
        TRY_ALL(c->compute.group, p4_original_load(&c->original, &c->compute));
    }
    if (p4_compressed_is_compressed(c)) {
        TRY(p4_evaluate_packed(&evaluator, &c->packed, true, evaluation));
    } else {
        TRY(p4_evaluate_original(&evaluator, evaluation));
    }
done:
    free(losses.nll);
    return rc;
}

p4_rc p4_compressed_evaluate(p4_compressed *compressed, const p4_loader *loader, p4_evaluation *evaluation)
{
    p4_rc rc = P4_OK;
    p4_error_clear();
    *evaluation = p4_evaluation_none();
    TRY_ALL(compressed->compute.group, p4_original_accepts(&compressed->original, loader));
    TRY(evaluate(compressed, loader, evaluation));
done:
    return rc;
}

/* ---- training ---- */

/* What a training keeps of itself, and whom it tells. */
typedef struct listener {
    p4_training_curve *curve;
    p4_log_callback callback; /* NULL: nobody */
    void *user;
} listener;

static p4_rc keep_point(void *user, const p4_training_point *point)
{
    listener *l = user;
    if (l->callback != NULL) {
        l->callback(point, l->user);
    }
    return p4_training_curve_add(l->curve, point);
}

/* Trains on windows of T tokens, by the caller's configuration (NULL: as before) except the keys that are
 * fixed for an open model; what comes of it must be valid. Collective. */
static p4_rc take_config(p4_compressed *c, const p4_config *config, int64_t T)
{
    p4_rc rc = P4_OK;
    p4_group *group = c->compute.group;
    p4_config *shared = p4_alloc(1, sizeof *shared), *merged = p4_alloc(1, sizeof *merged);
    TRY_ALL(group, shared != NULL && merged != NULL ? P4_OK : P4_E_SYSTEM);
    *merged = c->config;
    if (config != NULL) {
        TRY(p4_session_share_config(c->session, shared, config));
        p4_config_take(merged, shared);
    }
    merged->calibration_sequence_length = (int32_t)T;
    TRY_ALL(group, p4_config_check(merged));
    c->config = *merged;
done:
    free(shared);
    free(merged);
    return rc;
}

/* Collective. */
static p4_rc prepare_training(p4_compressed *c, const p4_loader *train, const p4_loader *eval,
                              const p4_config *config)
{
    p4_rc rc = P4_OK;
    p4_group *group = c->compute.group;
    TRY(p4_compressed_expect(c));
    if (c->was_loaded) {
        rc = p4_fail(P4_E_STATE, "%s: a loaded model has no original weights to train", c->original.hf.path);
        goto done;
    }
    TRY_ALL(group, p4_original_accepts(&c->original, train));
    TRY_ALL(
        group,
        eval == NULL || eval->windows.T == train->windows.T
            ? P4_OK
            : FAIL("the evaluation windows have %lld tokens and the training windows %lld, expected the same",
                   (long long)eval->windows.T, (long long)train->windows.T));
    TRY_ALL(group, eval == NULL ? P4_OK : p4_original_accepts(&c->original, eval));
    TRY(take_config(c, config, train->windows.T));
done:
    return rc;
}

p4_rc p4_fine_tune(p4_compressed *c, const p4_loader *train, const p4_loader *eval, const p4_config *config,
                   p4_log_callback callback, void *user, p4_fine_tuning *result)
{
    p4_rc rc = P4_OK;
    const p4_windows none = {0};
    p4_training_set *set = NULL;
    p4_masters masters = {0};
    p4_hold *hold = NULL; /* rank 0: a cached teacher writes a file into output_path */
    p4_results fresh;
    listener kept = {.curve = &c->curve, .callback = callback, .user = user};
    p4_error_clear();
    p4_results_init(&fresh);
    *result = fresh.fine_tuning;
    TRY(prepare_training(c, train, eval, config));
    p4_results_free(&c->results);
    c->results = fresh;
    p4_training_curve_free(&c->curve);
    TRY_ALL(c->compute.group, p4_training_set_of_windows(&set, &train->windows));
    if (eval != NULL) {
        TRY(evaluate(c, eval, &c->results.post));
    }
    p4_forward_view_close(c);
    p4_train_plan plan = p4_settings_train(&c->config, train->windows.T, &c->statistics);
    p4_settings_fit_tokens(&plan, &c->config, &c->original.hf.model, train->windows.count, false);
    if (p4_quantizers[c->config.quantizer].needs == P4_NEEDS_HESSIAN) { /* training starts from these codes */
        TRY_ALL(c->compute.group, p4_masters_open(&masters, &c->original.hf.model));
        TRY(p4_masters_of_codes(&masters, &c->packed, c->compute.group, &c->original.shard,
                                c->compute.threads));
    }
    p4_tuner tuner = {.compute = &c->compute,
                      .masters = masters.of != NULL ? &masters : NULL,
                      .original = &c->original,
                      .train = set,
                      .eval = eval != NULL ? &eval->windows : &none,
                      .plan = &plan,
                      .evaluation = p4_settings_pipeline(&c->config, train->windows.T),
                      .log_every = c->config.log_every,
                      .eval_every = c->config.eval_every,
                      .start_perplexity = c->results.post.perplexity,
                      .on_point = keep_point,
                      .user = &kept};
    TRY_ROOT(c->compute.group, plan.teacher.weight > 0 && plan.teacher.kind == P4_TEACHER_CACHED
                                   ? p4_output_borrow(&hold, c->config.output_path)
                                   : P4_OK);
    TRY(p4_tune(&tuner, &c->packed, &c->results.fine_tuning));
    *result = c->results.fine_tuning;
    c->results.fine_tuning.history = NULL; /* the caller's now */
    c->results.fine_tuning.history_count = c->results.fine_tuning.history_capacity = 0;
done:
    p4_output_leave(hold, c->config.output_path, true);
    p4_masters_close(&masters);
    p4_training_set_close(set);
    return rc;
}

void p4_fine_tuning_free(p4_fine_tuning *result)
{
    free(result->history);
    result->history = NULL;
    result->history_count = result->history_capacity = 0;
}

/* ---- gradients ---- */

p4_rc p4_test_gradient_flow(p4_compressed *c, bool *passed, char *error, size_t error_bytes)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &c->original.hf.model;
    const p4_arch *arch = &model->arch;
    p4_gradient_flow *record = &c->results.gradient_flow;
    int32_t ids[FLOW_TOKENS];
    p4_rng rng = {.seed = c->config.seed};
    p4_error_clear();
    *passed = false;
    CHECK(arch->positions > 1, "%s: a model of one position predicts no token: there is no gradient",
          c->original.hf.path);
    for (int i = 0; i < FLOW_TOKENS; i++) {
        ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)arch->V);
    }
    p4_flow_test test = {.compute = &c->compute,
                         .model = model,
                         .weights = c->packed.is_compressed ? c->packed.weights : model->weights,
                         .activation_bits = c->config.activation_bits,
                         .scales = c->config.learn_scales && c->packed.is_compressed,
                         .ids = ids,
                         .T = p4_min_i64(FLOW_TOKENS, arch->positions)};
    TRY(p4_gradient_flow_run(&test, record));
    if (record->passed) {
        INFO("      passed: %lld tensor%s, each with a finite, non-zero gradient",
             (long long)record->tensors_checked, p4_plural(record->tensors_checked));
    } else {
        WARN("      FAILED: %s", record->error);
    }
    *passed = record->passed;
    if (error_bytes > 0) {
        snprintf(error, error_bytes, "%s", record->error);
    }
done:
    return rc;
}
