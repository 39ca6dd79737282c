#include "jobs/train/evaluate.h"

#include <math.h>
#include <stdio.h>

#include "jobs/metrics.h"
#include "jobs/stages/stages.h"
#include "src/leaf/count.h"

/* A text to evaluate on. */
typedef struct text {
    const char *set; /* of eval_sets; NULL: the evaluation text */
    const p4_windows *windows;
    p4_part_losses *original_losses;
    p4_evaluation *pre, *post, *final;
} text;

/* Number 0 is the evaluation text, the sets follow. */
static text text_at(p4_run *run, int64_t number)
{
    p4_results *r = &run->results;
    if (number == 0) {
        return (text){.windows = &run->eval,
                      .original_losses = &run->original_losses,
                      .pre = &r->pre,
                      .post = &r->post,
                      .final = &r->final};
    }
    p4_set_results *set = &r->sets[number - 1];
    p4_run_set *of = &run->sets[number - 1];
    return (text){.set = set->name,
                  .windows = &of->windows,
                  .original_losses = &of->original_losses,
                  .pre = &set->pre,
                  .post = &set->post,
                  .final = &set->final};
}

static p4_evaluator evaluator_of(p4_run *run, const text *t)
{
    return (p4_evaluator){.compute = &run->compute,
                          .original = &run->original,
                          .plan = p4_settings_pipeline(&run->config, t->windows->T),
                          .windows = t->windows,
                          .opt_losses = t->original_losses,
                          .seed = run->config.seed,
                          .opt_set = t->set};
}

/* `set "code": `, or "". */
static const char *prefix_of(char words[P4_SET_NAME_BYTES + 16], const text *t)
{
    words[0] = '\0';
    if (t->set != NULL) {
        snprintf(words, P4_SET_NAME_BYTES + 16, "set \"%s\": ", t->set);
    }
    return words;
}

/* A model that has learned nothing gives each of V tokens the same probability: its perplexity is V. */
bool p4_evaluation_guesses(const p4_run *run, const p4_evaluation *original)
{
    return run->config.init == P4_INIT_CHECKPOINT && original->tokens > 0 &&
           original->perplexity >= (double)run->original.hf.model.arch.V;
}

static void warn_of_guessing(const p4_run *run, const text *t)
{
    const int64_t V = run->original.hf.model.arch.V;
    if (p4_evaluation_guesses(run, t->pre)) {
        char perplexity[P4_NUMBER_BYTES], prefix[P4_SET_NAME_BYTES + 16];
        WARN("warning: %sthe original's perplexity is %s, no better than guessing among its %lld tokens: do "
             "model, tokenizer and text belong together? The verdict compares with this",
             prefix_of(prefix, t), p4_format_number(perplexity, t->pre->perplexity, 0), (long long)V);
    }
}

static bool is_off(const p4_run *run)
{
    if (run->eval.count == 0) {
        INFO("      off (eval_samples is 0)");
    }
    return run->eval.count == 0;
}

static p4_rc evaluate_original(p4_run *run, const text *t)
{
    p4_rc rc = P4_OK;
    p4_evaluator evaluator = evaluator_of(run, t);
    p4_evaluation *pre = t->pre;
    TRY(p4_evaluate_original(&evaluator, pre));
    char perplexity[P4_NUMBER_BYTES], low[P4_NUMBER_BYTES], high[P4_NUMBER_BYTES],
        interval[96] = "", prefix[P4_SET_NAME_BYTES + 16], tokens[P4_COUNT_BYTES], documents[P4_COUNT_BYTES];
    if (isfinite(pre->perplexity_low)) {
        snprintf(interval, sizeof interval, " (95 %% interval: %s to %s)",
                 p4_format_number(low, pre->perplexity_low, 3),
                 p4_format_number(high, pre->perplexity_high, 3));
    }
    const bool by_window = interval[0] != '\0' && pre->documents < P4_FEWEST_DOCUMENTS;
    INFO("      %sloss %.4f, perplexity %s%s, accuracy %.2f %% over %s prediction%s of %s document%s%s",
         prefix_of(prefix, t), pre->loss, p4_format_number(perplexity, pre->perplexity, 3), interval,
         100.0 * pre->accuracy, p4_format_count(tokens, pre->tokens), p4_plural(pre->tokens),
         p4_format_count(documents, pre->documents), p4_plural(pre->documents),
         by_window ? ", the interval by windows" : "");
    warn_of_guessing(run, t);
    TRY_ROOT(run->compute.group, p4_metrics_add_evaluation(run, "pre", t->set, pre));
done:
    return rc;
}

static p4_rc evaluate_packed(p4_run *run, const text *t, const char *stage, p4_evaluation *quality)
{
    p4_rc rc = P4_OK;
    p4_evaluator evaluator = evaluator_of(run, t);
    const p4_evaluation *pre = t->pre;
    TRY(p4_evaluate_packed(&evaluator, &run->packed, true, quality));
    char perplexity[P4_NUMBER_BYTES], change[128] = "", prefix[P4_SET_NAME_BYTES + 16];
    if (isfinite(pre->perplexity) && isfinite(quality->perplexity)) {
        char range[32];
        p4_rise_interval(range, quality->degradation_low, quality->degradation_high);
        snprintf(change, sizeof change,
                 range[0] != '\0' ? " (%+.1f %%, 95 %% interval %s %%)" : " (%+.1f %%)",
                 100.0 * (quality->perplexity - pre->perplexity) / pre->perplexity, range);
    }
    INFO("      %sloss %.4f, perplexity %s%s, accuracy %.2f %%, KL to the original %.4f",
         prefix_of(prefix, t), quality->loss, p4_format_number(perplexity, quality->perplexity, 3), change,
         100.0 * quality->accuracy, quality->kl);
    TRY_ROOT(run->compute.group, p4_metrics_add_evaluation(run, stage, t->set, quality));
done:
    return rc;
}

p4_rc p4_stage_evaluate_pre(p4_run *run)
{
    p4_rc rc = P4_OK;
    if (is_off(run)) {
        return P4_OK;
    }
    for (; run->texts_evaluated <= run->results.set_count; run->texts_evaluated++) {
        const text t = text_at(run, run->texts_evaluated);
        TRY(evaluate_original(run, &t));
    }
    run->texts_evaluated = 0;
done:
    return rc;
}

/* All texts with the packed model. Training may have unloaded the original. */
static p4_rc evaluate_all_packed(p4_run *run, bool final)
{
    p4_rc rc = P4_OK;
    if (is_off(run)) {
        return P4_OK;
    }
    TRY_ALL(run->compute.group, p4_original_load(&run->original, &run->compute));
    for (; run->texts_evaluated <= run->results.set_count; run->texts_evaluated++) {
        const text t = text_at(run, run->texts_evaluated);
        TRY(evaluate_packed(run, &t, final ? "final" : "post", final ? t.final : t.post));
    }
    run->texts_evaluated = 0;
done:
    return rc;
}

p4_rc p4_stage_evaluate_post(p4_run *run)
{
    p4_rc rc = evaluate_all_packed(run, false);
    for (int64_t i = 0; i <= run->results.set_count; i++) {
        const text t = text_at(run, i);
        *t.final = *t.post;
    }
    return rc;
}

p4_rc p4_stage_evaluate_final(p4_run *run)
{
    if (!run->results.fine_tuning.ran) {
        INFO("      as before: nothing was fine-tuned");
        return P4_OK;
    }
    return evaluate_all_packed(run, true);
}
