#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/train/trainer.h"

/* What the epochs share: the best state is what job->compressed holds. */
typedef struct tuning {
    p4_job *job;
    p4_trainer trainer;
    p4_packed candidate;
    double best_perplexity, epoch_loss, started_s;
    int64_t epoch_steps, tokens;
} tuning;

static p4_rc keep_point(p4_job *job, const p4_training_point *point)
{
    if (job->curve_count == job->curve_capacity) {
        int64_t capacity = p4_max_i64(256, 2 * job->curve_capacity);
        p4_training_point *more = p4_resize(job->curve, (size_t)capacity, sizeof *more);
        if (more == NULL) {
            return P4_E_SYSTEM;
        }
        job->curve = more;
        job->curve_capacity = capacity;
    }
    job->curve[job->curve_count++] = *point;
    if (job->log_callback != NULL) {
        job->log_callback(point, job->log_user);
    }
    return job->metrics_log.stream != NULL ? p4_metrics_log_write(&job->metrics_log, point) : P4_OK;
}

/* Every log_every-th step, the first and the last. Rank 0 writes; all agree on a full disk. Collective. */
static p4_rc log_step(tuning *t, int64_t step, const p4_step_result *result)
{
    const p4_trainer *trainer = &t->trainer;
    bool due = step == 0 || (step + 1) % t->job->config.log_every == 0 || step + 1 == trainer->steps;
    if (!due) {
        return P4_OK;
    }
    p4_rc rc = P4_OK;
    if (t->job->compute.group->rank == 0) {
        p4_training_point point = {.step = step + 1,
                                   .epoch = step / trainer->steps_per_epoch + 1,
                                   .tokens = t->tokens,
                                   .loss = result->loss,
                                   .lr = result->lr,
                                   .grad_norm = result->grad_norm,
                                   .tokens_per_s = (double)result->tokens / result->seconds,
                                   .elapsed_s = p4_now_s() - t->started_s};
        rc = keep_point(t->job, &point);
    }
    return p4_agree_soon(t->job->compute.group, rc);
}

/* Takes the trainer's state as the job's model when it evaluates better than what the job holds. Collective.
 */
static p4_rc end_epoch(tuning *t, int64_t step)
{
    p4_rc rc = P4_OK;
    p4_job *job = t->job;
    p4_device_form form = {0};
    p4_fine_tuning *record = &job->results.fine_tuning;
    p4_evaluation evaluation = {.loss = NAN, .perplexity = NAN};
    TRY(p4_trainer_commit(&t->trainer, &t->candidate));
    if (job->eval.count > 0) {
        TRY_ALL(job->compute.group, p4_device_form_open(&form, job->compute.ops, job->compute.device,
                                                        &job->hf.model, t->candidate.weights));
        TRY(p4_job_evaluate(job, &form.form, NULL, "evaluate", &evaluation));
    }
    record->epochs_completed = step / t->trainer.steps_per_epoch;
    record->steps = step;
    record->tokens = t->tokens;
    record->final_loss = evaluation.loss;
    record->final_perplexity = evaluation.perplexity;
    p4_history_entry entry = {.epoch = p4_ceil_div(step, t->trainer.steps_per_epoch),
                              .step = step,
                              .train_loss = t->epoch_loss / (double)t->epoch_steps,
                              .eval_loss = evaluation.loss,
                              .eval_perplexity = evaluation.perplexity};
    TRY_ALL(job->compute.group, p4_results_add_history(&job->results, &entry));
    if (job->eval.count > 0) {
        INFO("      epoch %lld: training loss %.4f, evaluation loss %.4f, perplexity %.3f%s",
             (long long)entry.epoch, entry.train_loss, evaluation.loss, evaluation.perplexity,
             evaluation.perplexity < t->best_perplexity ? "" : " (not better: the earlier state is kept)");
    } else {
        INFO("      epoch %lld: training loss %.4f", (long long)entry.epoch, entry.train_loss);
    }
    if (job->eval.count == 0 || evaluation.perplexity < t->best_perplexity) {
        p4_packed better = t->candidate;
        t->candidate = job->compressed;
        job->compressed = better;
        t->best_perplexity = evaluation.perplexity;
    }
    record->best_perplexity = t->best_perplexity;
    t->epoch_loss = 0;
    t->epoch_steps = 0;
done:
    p4_device_form_close(&form);
    return rc;
}

static p4_rc run_steps(tuning *t)
{
    p4_rc rc = P4_OK;
    const p4_trainer *trainer = &t->trainer;
    p4_progress progress;
    p4_step_result result;
    char note[64];
    p4_progress_start(&progress, "fine-tune", "tokens",
                      (double)(trainer->steps * trainer->sequences * trainer->T));
    for (int64_t step = 0; step < trainer->steps; step++) {
        TRY(p4_trainer_step(&t->trainer, step, &result));
        t->tokens += result.tokens;
        if (result.applied) { /* a skipped step's loss may be no number */
            t->epoch_loss += result.loss;
            t->epoch_steps++;
        }
        TRY(log_step(t, step, &result));
        snprintf(note, sizeof note, "step %lld/%lld, loss %.4f", (long long)step + 1,
                 (long long)trainer->steps, result.loss);
        p4_progress_update(&progress, (double)t->tokens, note);
        if ((step + 1) % trainer->steps_per_epoch == 0 || step + 1 == trainer->steps) {
            p4_progress_end(&progress);
            TRY(end_epoch(t, step + 1));
        }
    }
done:
    p4_progress_end(&progress);
    return rc;
}

static void say_plan(const tuning *t)
{
    const p4_trainer *trainer = &t->trainer;
    p4_trainer_memory bytes = p4_trainer_bytes(trainer);
    char masters[32], codes[32], activations[32];
    INFO("      %lld step%s of %lld x %lld tokens; memory of rank 0: masters and optimizer %s, codes %s, "
         "activations %s",
         (long long)trainer->steps, p4_plural(trainer->steps), (long long)trainer->sequences,
         (long long)trainer->T, p4_format_bytes(masters, (double)bytes.masters_bytes),
         p4_format_bytes(codes, (double)bytes.codes_bytes),
         p4_format_bytes(activations, (double)bytes.activations_bytes));
}

p4_rc p4_job_fine_tune(p4_job *job)
{
    p4_rc rc = P4_OK;
    tuning t = {.job = job, .best_perplexity = job->results.post.perplexity, .started_s = p4_now_s()};
    if (!job->compute.ops->host_memory &&
        job->original.ops != NULL) { /* its memory is for the training; it can be opened again */
        p4_device_form_close(&job->original);
    }
    TRY_ALL(job->compute.group, p4_packed_alloc(&t.candidate, &job->hf.model));
    TRY(p4_trainer_open(&t.trainer, job));
    say_plan(&t);
    job->results.fine_tuning.ran = true;
    TRY(run_steps(&t));
done:
    p4_trainer_close(&t.trainer);
    p4_packed_release(&t.candidate);
    return rc;
}

/* With metrics.jsonl in the output directory. Collective. */
static p4_rc fine_tune_logged(p4_job *job)
{
    p4_rc rc = P4_OK;
    char *path = p4_job_output(job, "metrics.jsonl");
    TRY_ALL(job->compute.group, path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY_ROOT(job->compute.group, p4_metrics_log_open(&job->metrics_log, path, false));
    rc = p4_job_fine_tune(job);
    p4_rc closed = p4_agree(job->compute.group, p4_metrics_log_close(&job->metrics_log));
    rc = rc != P4_OK ? rc : closed;
done:
    free(path);
    return rc;
}

p4_rc p4_stage_finetune(p4_job *job)
{
    const p4_results *r = &job->results;
    bool measured = job->eval.count > 0;
    if (!job->config.enable_fine_tuning) {
        INFO("      off (enable_fine_tuning is false)");
        return P4_OK;
    }
    bool needed = p4_job_quantizes(job)
                      ? p4_should_fine_tune(&job->config, r->pre.perplexity, r->post.perplexity)
                      : true;
    if (measured && !needed) {
        INFO("      not needed: the perplexity changed by %+.1f %%, fine_tune_threshold is %.1f %%",
             100.0 * (r->post.perplexity - r->pre.perplexity) / r->pre.perplexity,
             100.0 * job->config.fine_tune_threshold);
        return P4_OK;
    }
    return fine_tune_logged(job);
}
