#include "jobs/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/json/evaluation.h"
#include "io/out/outputs.h"
#include "jobs/resume.h"
#include "jobs/watch.h"

static p4_rc open_log(p4_run *run)
{
    p4_rc rc = P4_OK;
    char *path = NULL;
    if (run->metrics_log.stream != NULL) {
        return P4_OK;
    }
    path = p4_format("%s/" P4_METRICS_FILE, run->config.output_path);
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    rc = p4_metrics_log_open(&run->metrics_log, path);
done:
    free(path);
    return rc;
}

/* ---- the run's own file, and those who watch ---- */

/* When a measurement that is made now is made, by the run's clock. */
static double runtime_now(const p4_run *run)
{
    return p4_resume_earlier_s(run) + p4_now_s() - run->started_s;
}

static void watch(p4_run *run, const char *group, int64_t step, double runtime_s, const p4_metric *metrics,
                  size_t count)
{
    const p4_measurement measurement = {
        .group = group, .step = step, .runtime_s = runtime_s, .metrics = metrics, .count = count};
    p4_watch_add(run, &measurement);
}

static p4_rc add_point(p4_run *run, const p4_training_point *point, double runtime_s)
{
    p4_rc rc = P4_OK;
    const p4_metric metrics[] = {{"loss", point->loss},
                                 {"kl", point->kl},
                                 {"block_distance", point->block_distance},
                                 {"lr", point->lr},
                                 {"grad_norm", point->grad_norm},
                                 {"epoch", (double)point->epoch},
                                 {"tokens", (double)point->tokens},
                                 {"tokens_per_s", point->tokens_per_s}};
    TRY(open_log(run));
    TRY(p4_metrics_log_write(&run->metrics_log, point));
    watch(run, "train", point->step, runtime_s, metrics, sizeof metrics / sizeof metrics[0]);
done:
    return rc;
}

/* The groups keep curves apart: the original is measured once, the final model may be that of an earlier
 * step. */
static p4_rc add_evaluation(p4_run *run, const char *stage, const char *opt_set, int64_t step,
                            const p4_evaluation *evaluation, double runtime_s)
{
    p4_rc rc = P4_OK;
    const p4_metric metrics[] = {{"loss", evaluation->loss},
                                 {"perplexity", evaluation->perplexity},
                                 {"accuracy", evaluation->accuracy},
                                 {"kl", evaluation->kl},
                                 {"agreement", evaluation->agreement}};
    const char *group = strcmp(stage, "pre") == 0     ? "original"
                        : strcmp(stage, "final") == 0 ? "final"
                                                      : "evaluation";
    char set_group[16 + P4_SET_NAME_BYTES];
    if (evaluation->tokens == 0) {
        return P4_OK;
    }
    if (opt_set != NULL) {
        snprintf(set_group, sizeof set_group, "%s/%s", group, opt_set);
        group = set_group;
    }
    TRY(open_log(run));
    TRY(p4_metrics_log_evaluation(&run->metrics_log, stage, opt_set, step, evaluation));
    watch(run, group, step, runtime_s, metrics, sizeof metrics / sizeof metrics[0]);
done:
    return rc;
}

/* The text is that of the other evaluations. */
static p4_rc add_entry(p4_run *run, const p4_history_entry *entry, double runtime_s)
{
    p4_evaluation evaluation = p4_evaluation_none();
    evaluation.loss = entry->eval_loss;
    evaluation.perplexity = entry->eval_perplexity;
    evaluation.tokens = isnan(entry->eval_loss) ? 0 : run->results.pre.tokens;
    evaluation.documents = isnan(entry->eval_loss) ? 0 : run->results.pre.documents;
    return add_evaluation(run, "fine_tune", NULL, entry->step, &evaluation, runtime_s);
}

static p4_rc add_blocks(p4_run *run, const p4_block_loss *loss, double runtime_s)
{
    p4_rc rc = P4_OK;
    const p4_metric metrics[] = {{"loss_before", loss->before}, {"loss_after", loss->after}};
    TRY(open_log(run));
    TRY(p4_metrics_log_blocks(&run->metrics_log, loss));
    watch(run, "reconstruct", loss->first_block, runtime_s, metrics, sizeof metrics / sizeof metrics[0]);
done:
    return rc;
}

p4_rc p4_metrics_add_point(p4_run *run, const p4_training_point *point)
{
    return add_point(run, point, runtime_now(run));
}

p4_rc p4_metrics_add_evaluation(p4_run *run, const char *stage, const char *opt_set,
                                const p4_evaluation *evaluation)
{
    return add_evaluation(run, stage, opt_set, run->results.fine_tuning.steps, evaluation, runtime_now(run));
}

p4_rc p4_metrics_add_entry(p4_run *run, const p4_history_entry *entry)
{
    return add_entry(run, entry, runtime_now(run));
}

p4_rc p4_metrics_add_blocks(p4_run *run, const p4_block_loss *loss)
{
    return add_blocks(run, loss, runtime_now(run));
}

/* ---- continuing ---- */

/* When a stage that an earlier process finished had ended, by the run's clock. */
static double runtime_after(const p4_run *run, const char *stage)
{
    double sum = 0;
    for (int64_t i = 0; i < run->results.stage_count; i++) {
        sum += run->results.stages[i].seconds;
        if (strcmp(run->results.stages[i].stage, stage) == 0) {
            break;
        }
    }
    return fmin(sum, p4_resume_earlier_s(run));
}

/* Steps and evaluations of a training; an evaluation comes after the line of its step. */
static p4_rc restore_training(p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_fine_tuning *tuning = &run->results.fine_tuning;
    const p4_training_curve *curve = &run->curve;
    double begun_s = runtime_after(run, "evaluate_post"), runtime_s = begun_s;
    int64_t point = 0;
    for (int64_t i = 0; i <= tuning->history_count; i++) {
        bool rest = i == tuning->history_count;
        while (point < curve->count && (rest || curve->points[point].step <= tuning->history[i].step)) {
            runtime_s = fmin(begun_s + curve->points[point].elapsed_s, p4_resume_earlier_s(run));
            TRY(add_point(run, &curve->points[point++], runtime_s));
        }
        TRY(rest ? P4_OK : add_entry(run, &tuning->history[i], runtime_s));
    }
done:
    return rc;
}

p4_rc p4_metrics_restore(p4_run *run, int64_t final_texts)
{
    p4_rc rc = P4_OK;
    const p4_results *r = &run->results;
    double runtime_s = runtime_after(run, "evaluate_pre");
    TRY(add_evaluation(run, "pre", NULL, 0, &r->pre, runtime_s));
    for (int64_t i = 0; i < r->set_count; i++) {
        TRY(add_evaluation(run, "pre", r->sets[i].name, 0, &r->sets[i].pre, runtime_s));
    }
    for (int64_t i = 0; i < r->reconstruction.losses_count; i++) {
        TRY(add_blocks(run, &r->reconstruction.losses[i], runtime_after(run, "reconstruct")));
    }
    runtime_s = runtime_after(run, "evaluate_post");
    TRY(add_evaluation(run, "post", NULL, 0, &r->post, runtime_s));
    for (int64_t i = 0; i < r->set_count; i++) {
        TRY(add_evaluation(run, "post", r->sets[i].name, 0, &r->sets[i].post, runtime_s));
    }
    TRY(restore_training(run));
    runtime_s = runtime_after(run, "evaluate_final");
    for (int64_t i = 0; i < final_texts && r->fine_tuning.ran; i++) {
        TRY(add_evaluation(run, "final", i > 0 ? r->sets[i - 1].name : NULL, r->fine_tuning.steps,
                           i > 0 ? &r->sets[i - 1].final : &r->final, runtime_s));
    }
done:
    return rc;
}
