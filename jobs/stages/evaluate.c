#include "jobs/train/evaluate.h"

#include <math.h>
#include <stdio.h>

#include "jobs/metrics.h"
#include "jobs/stages/stages.h"

static p4_evaluator evaluator_of(p4_run *run)
{
    return (p4_evaluator){.compute = &run->compute,
                          .original = &run->original,
                          .plan = p4_settings_pipeline(&run->config, run->eval.T),
                          .windows = &run->eval,
                          .opt_losses = &run->original_losses,
                          .seed = run->config.seed};
}

/* A model that has learned nothing gives each of V tokens the same probability: its perplexity is V. */
static void warn_of_guessing(const p4_run *run)
{
    const int64_t V = run->original.hf.model.arch.V;
    if (run->config.init == P4_INIT_CHECKPOINT && run->results.pre.perplexity > (double)V) {
        char perplexity[P4_NUMBER_BYTES];
        WARN("warning: the original's perplexity is %s, above that of guessing among its %lld tokens: do "
             "model, tokenizer and text belong together? The verdict compares with this",
             p4_format_number(perplexity, run->results.pre.perplexity, 0), (long long)V);
    }
}

static bool is_off(const p4_run *run)
{
    if (run->eval.count == 0) {
        INFO("      off (eval_samples is 0)");
    }
    return run->eval.count == 0;
}

p4_rc p4_stage_evaluate_pre(p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_evaluator evaluator = evaluator_of(run);
    p4_evaluation *pre = &run->results.pre;
    if (is_off(run)) {
        return P4_OK;
    }
    TRY(p4_evaluate_original(&evaluator, pre));
    char perplexity[P4_NUMBER_BYTES], low[P4_NUMBER_BYTES], high[P4_NUMBER_BYTES], interval[96] = "";
    if (isfinite(pre->perplexity_low)) {
        snprintf(interval, sizeof interval, " (95 %% interval: %s to %s)",
                 p4_format_number(low, pre->perplexity_low, 3),
                 p4_format_number(high, pre->perplexity_high, 3));
    }
    INFO("      loss %.4f, perplexity %s%s, accuracy %.2f %% over %lld prediction%s of %lld document%s",
         pre->loss, p4_format_number(perplexity, pre->perplexity, 3), interval, 100.0 * pre->accuracy,
         (long long)pre->tokens, p4_plural(pre->tokens), (long long)pre->documents,
         p4_plural(pre->documents));
    warn_of_guessing(run);
    TRY_ROOT(run->compute.group, p4_metrics_add_evaluation(run, "pre", pre));
done:
    return rc;
}

/* Training may have unloaded the original. */
static p4_rc evaluate_packed(p4_run *run, const char *stage, p4_evaluation *quality)
{
    p4_rc rc = P4_OK;
    p4_evaluator evaluator = evaluator_of(run);
    const p4_evaluation *pre = &run->results.pre;
    if (is_off(run)) {
        return P4_OK;
    }
    TRY_ALL(run->compute.group, p4_original_load(&run->original, &run->compute));
    TRY(p4_evaluate_packed(&evaluator, &run->packed, true, quality));
    char perplexity[P4_NUMBER_BYTES], change[128] = "";
    if (isfinite(pre->perplexity) && isfinite(quality->perplexity)) {
        p4_quality of = {.degradation_low = quality->degradation_low,
                         .degradation_high = quality->degradation_high};
        char interval[64];
        snprintf(change, sizeof change, " (%+.1f %%)%s",
                 100.0 * (quality->perplexity - pre->perplexity) / pre->perplexity,
                 p4_quality_interval(interval, &of));
    }
    INFO("      loss %.4f, perplexity %s%s, accuracy %.2f %%, KL to the original %.4f", quality->loss,
         p4_format_number(perplexity, quality->perplexity, 3), change, 100.0 * quality->accuracy,
         quality->kl);
    TRY_ROOT(run->compute.group, p4_metrics_add_evaluation(run, stage, quality));
done:
    return rc;
}

p4_rc p4_stage_evaluate_post(p4_run *run)
{
    p4_rc rc = evaluate_packed(run, "post", &run->results.post);
    run->results.final = run->results.post;
    return rc;
}

p4_rc p4_stage_evaluate_final(p4_run *run)
{
    if (!run->results.fine_tuning.ran) {
        INFO("      as before: nothing was fine-tuned");
        return P4_OK;
    }
    return evaluate_packed(run, "final", &run->results.final);
}
