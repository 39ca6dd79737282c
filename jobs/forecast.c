#include "jobs/forecast.h"

#include "src/plan.h"

enum { FORWARD = 1, FORWARD_BACKWARD = 3 };

static double tokens(const p4_windows *windows)
{
    return (double)windows->count * (double)windows->T;
}

/* Of the evaluation text and the sets. */
static double evaluated_tokens(const p4_run *run)
{
    double sum = tokens(&run->eval);
    for (int i = 0; i < run->config.eval_sets.count; i++) {
        sum += tokens(&run->sets[i].windows);
    }
    return sum;
}

double p4_work_evaluate_original(const p4_run *run)
{
    return evaluated_tokens(run);
}

double p4_work_evaluate_packed(const p4_run *run)
{
    return 2 * evaluated_tokens(run);
}

double p4_work_evaluate_trained(const p4_run *run)
{
    return run->config.enable_fine_tuning ? 2 * evaluated_tokens(run) : 0;
}

double p4_work_calibrate(const p4_run *run)
{
    return tokens(&run->calibration);
}

/* Each block is trained once; both models move on from block to block, and the error is measured around it.
 */
double p4_work_reconstruct(const p4_run *run)
{
    const p4_windows *windows = &run->reconstruction;
    if (windows->count == 0) {
        return 0;
    }
    p4_reconstruct_plan plan =
        p4_settings_reconstruct(&run->config, windows->count, windows->T, &run->statistics);
    double trained = (double)(plan.steps * p4_min_i64(plan.sequences, windows->count) * windows->T);
    return FORWARD_BACKWARD * trained + 3 * tokens(windows);
}

double p4_work_fine_tune(const p4_run *run)
{
    const p4_config *c = &run->config;
    if (!c->enable_fine_tuning || run->train == NULL) {
        return 0;
    }
    const int64_t T = p4_training_set_length(run->train);
    p4_train_plan plan = p4_settings_train(c, T, &run->statistics);
    int64_t per_epoch = p4_training_set_count(run->train) / plan.sequences;
    double steps = (double)plan.epochs * (double)per_epoch;
    steps = plan.max_steps > 0 && (double)plan.max_steps < steps ? (double)plan.max_steps : steps;
    double evaluations = per_epoch > 0 ? steps / (double)per_epoch : 0;
    evaluations += c->eval_every > 0 ? steps / (double)c->eval_every : 0;
    double passes = FORWARD_BACKWARD + (plan.teacher.weight > 0 ? FORWARD : 0);
    return passes * steps * (double)(plan.sequences * T) + evaluations * tokens(&run->eval);
}

double p4_forecast_left(const double planned_s[P4_MAX_STAGES], const double done[P4_MAX_STAGES])
{
    double left = 0;
    for (int i = 0; i < P4_PLAN_STAGES; i++) {
        left += planned_s[i] * (1 - done[i]);
    }
    return left;
}
