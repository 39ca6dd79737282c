#include "jobs/metrics.h"

#include <math.h>
#include <stdlib.h>

#include "io/out/outputs.h"

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

p4_rc p4_metrics_add_point(p4_run *run, const p4_training_point *point)
{
    p4_rc rc = open_log(run);
    return rc != P4_OK ? rc : p4_metrics_log_write(&run->metrics_log, point);
}

static p4_rc add_evaluation(p4_run *run, const char *stage, int64_t step, const p4_evaluation *evaluation)
{
    p4_rc rc = evaluation->tokens > 0 ? open_log(run) : P4_OK;
    return rc != P4_OK || evaluation->tokens == 0
               ? rc
               : p4_metrics_log_evaluation(&run->metrics_log, stage, step, evaluation);
}

p4_rc p4_metrics_add_evaluation(p4_run *run, const char *stage, const p4_evaluation *evaluation)
{
    return add_evaluation(run, stage, run->results.fine_tuning.steps, evaluation);
}

/* The text is that of the other evaluations. */
p4_rc p4_metrics_add_entry(p4_run *run, const p4_history_entry *entry)
{
    const p4_evaluation evaluation = {.loss = entry->eval_loss,
                                      .perplexity = entry->eval_perplexity,
                                      .accuracy = NAN,
                                      .kl = NAN,
                                      .tokens = isnan(entry->eval_loss) ? 0 : run->results.pre.tokens};
    return add_evaluation(run, "fine_tune", entry->step, &evaluation);
}

p4_rc p4_metrics_add_blocks(p4_run *run, const p4_block_loss *loss)
{
    p4_rc rc = open_log(run);
    return rc != P4_OK ? rc : p4_metrics_log_blocks(&run->metrics_log, loss);
}

/* Steps and evaluations of a training; an evaluation comes after the line of its step. */
static p4_rc restore_training(p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_fine_tuning *tuning = &run->results.fine_tuning;
    const p4_training_curve *curve = &run->curve;
    int64_t point = 0;
    for (int64_t i = 0; i <= tuning->history_count; i++) {
        bool rest = i == tuning->history_count;
        while (point < curve->count && (rest || curve->points[point].step <= tuning->history[i].step)) {
            TRY(p4_metrics_add_point(run, &curve->points[point++]));
        }
        TRY(rest ? P4_OK : p4_metrics_add_entry(run, &tuning->history[i]));
    }
done:
    return rc;
}

p4_rc p4_metrics_restore(p4_run *run, bool evaluated_final)
{
    p4_rc rc = P4_OK;
    const p4_results *r = &run->results;
    TRY(add_evaluation(run, "pre", 0, &r->pre));
    for (int64_t i = 0; i < r->reconstruction.losses_count; i++) {
        TRY(p4_metrics_add_blocks(run, &r->reconstruction.losses[i]));
    }
    TRY(add_evaluation(run, "post", 0, &r->post));
    TRY(restore_training(run));
    if (evaluated_final && r->fine_tuning.ran) {
        TRY(p4_metrics_add_evaluation(run, "final", &r->final));
    }
done:
    return rc;
}
