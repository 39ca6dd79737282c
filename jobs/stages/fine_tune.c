#include "jobs/train/fine_tune.h"

#include "jobs/keep.h"
#include "jobs/metrics.h"
#include "jobs/resume.h"
#include "jobs/stages/stages.h"
#include "src/phase4.h"

/* The curve, the caller's callback, metrics.jsonl. Rank 0. */
static p4_rc keep_point(void *user, const p4_training_point *point)
{
    p4_rc rc = P4_OK;
    p4_run *run = user;
    TRY(p4_hold_check(run->hold));
    TRY(p4_training_curve_add(&run->curve, point));
    if (run->log_callback != NULL) {
        run->log_callback(point, run->log_user);
    }
    TRY(p4_metrics_add_point(run, point));
done:
    return rc;
}

static p4_rc keep_evaluation(void *user, const p4_history_entry *entry)
{
    return p4_metrics_add_entry(user, entry);
}

static bool is_save_due(void *user, int64_t step)
{
    return p4_resume_is_due(user, step);
}

static p4_rc save(void *user, const p4_trainer *trainer, const p4_tuning_state *state, bool beside)
{
    /* What is not written beside the steps is the last of a training that is asked to stop. */
    return beside ? p4_resume_save(user, trainer, state, true) : p4_keep_stopped(user, trainer, state);
}

static bool is_saving(void *user)
{
    return p4_resume_is_saving(user);
}

static p4_rc finish_save(void *user, bool wait)
{
    return p4_resume_finish_save(user, wait);
}

static p4_rc restore(void *user, p4_trainer *trainer, p4_tuning_state *state)
{
    return p4_resume_take_training(user, trainer, state);
}

/* A training that is continued keeps its rate and its weight of distillation, also where its length, and so
 * what "auto" means, is another now. */
static void fit_tokens(p4_run *run, p4_train_plan *plan)
{
    if (p4_resume_has_training(run)) {
        if (plan->lr == 0) {
            INFO("      fine_tune_lr is %.2g, as the training began", p4_resume_lr(run));
        }
        plan->lr = p4_resume_lr(run);
        plan->teacher.weight = p4_resume_distill(run) >= 0 ? p4_resume_distill(run) : plan->teacher.weight;
    } else {
        p4_settings_fit_tokens(plan, &run->config, &run->original.hf.model, p4_training_set_count(run->train),
                               p4_settings_reconstruct_windows(&run->config, plan->T) > 0);
    }
    run->lr = plan->lr;
    run->distill = plan->teacher.weight;
}

static p4_rc tune(p4_run *run)
{
    const int64_t T = p4_training_set_length(run->train);
    p4_train_plan plan = p4_settings_train(&run->config, T, &run->statistics);
    fit_tokens(run, &plan);
    plan.teacher.key = run->compute.group->rank == 0 ? p4_resume_inputs_key(run) : 0;
    plan.teacher.keep_every_s = 60.0 * run->config.checkpoint_minutes;
    p4_tuner tuner = {.compute = &run->compute,
                      .original = &run->original,
                      .train = run->train,
                      .eval = &run->eval,
                      .plan = &plan,
                      .masters = run->masters.of != NULL ? &run->masters : NULL,
                      .evaluation = p4_settings_pipeline(&run->config, T),
                      .log_every = run->config.log_every,
                      .start_perplexity = run->results.post.perplexity,
                      .eval_every = run->config.eval_every,
                      .on_point = keep_point,
                      .on_evaluation = keep_evaluation,
                      .is_save_due = is_save_due,
                      .save = save,
                      .is_saving = is_saving,
                      .finish_save = finish_save,
                      .restore = p4_resume_has_training(run) ? restore : NULL,
                      .user = run};
    return p4_tune(&tuner, &run->packed, &run->results.fine_tuning);
}

/* By the evaluation text, or by one of the sets. */
static bool is_needed(const p4_run *run)
{
    const p4_results *r = &run->results;
    bool needed = p4_should_fine_tune(&run->config, r->pre.perplexity, r->post.perplexity);
    for (int64_t i = 0; i < r->set_count; i++) {
        const p4_set_results *set = &r->sets[i];
        needed = needed || p4_should_fine_tune(&run->config, set->pre.perplexity, set->post.perplexity);
    }
    return needed;
}

p4_rc p4_stage_fine_tune(p4_run *run)
{
    const p4_config *c = &run->config;
    const p4_evaluation *pre = &run->results.pre, *post = &run->results.post;
    if (!c->enable_fine_tuning) {
        p4_masters_close(&run->masters); /* of reconstruction; nobody starts from them */
        INFO("      off (enable_fine_tuning is false)");
        return P4_OK;
    }
    bool needed = !p4_settings_quantizes(c) || is_needed(run);
    if (run->eval.count > 0 && !needed) {
        p4_masters_close(&run->masters);
        INFO("      not needed: the perplexity changed by %+.1f %%, fine_tune_threshold is %.1f %%",
             100.0 * (post->perplexity - pre->perplexity) / pre->perplexity, 100.0 * c->fine_tune_threshold);
        return P4_OK;
    }
    return tune(run);
}
