#include "jobs/train/fine_tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/json/evaluation.h"
#include "io/out/report.h"
#include "jobs/train/evaluate.h"
#include "src/leaf/count.h"

/* What the steps share. */
typedef struct tuning {
    const p4_tuner *tuner;
    p4_trainer trainer;
    p4_packed *best, candidate;
    p4_fine_tuning *record;
    p4_tuning_state state;
    double started_s;                   /* by p4_now_s; before this process began if it continues another's */
    double interval_s, interval_tokens; /* of the steps since the last logged one */
} tuning;

/* Every log_every-th step, the first and the last. Rank 0 writes; all agree on a full disk. Collective. */
static p4_rc log_step(tuning *t, int64_t step, const p4_step_result *result)
{
    const p4_tuner *tuner = t->tuner;
    const p4_trainer_steps *steps = &t->trainer.steps;
    t->interval_s += result->seconds;
    t->interval_tokens += (double)result->tokens;
    bool due = step == 0 || (step + 1) % tuner->log_every == 0 || step + 1 == steps->total;
    if (!due) {
        return P4_OK;
    }
    p4_rc rc = P4_OK;
    if (tuner->compute->group->rank == 0 && tuner->on_point != NULL) {
        p4_training_point point = {.step = step + 1,
                                   .epoch = step / steps->per_epoch + 1,
                                   .tokens = t->state.tokens,
                                   .loss = result->loss,
                                   .kl = result->kl,
                                   .block_distance = result->block_distance,
                                   .lr = result->lr,
                                   .grad_norm = result->grad_norm,
                                   .tokens_per_s = t->interval_tokens / t->interval_s,
                                   .elapsed_s = p4_now_s() - t->started_s};
        rc = tuner->on_point(tuner->user, &point);
    }
    t->interval_s = t->interval_tokens = 0;
    return p4_agree_soon(tuner->compute->group, rc);
}

static bool ends_epoch(const tuning *t)
{
    const p4_trainer_steps *steps = &t->trainer.steps;
    return t->state.step % steps->per_epoch == 0 || t->state.step >= steps->total;
}

static void say_evaluation(const tuning *t, const p4_history_entry *entry)
{
    char when[64], perplexity[P4_NUMBER_BYTES];
    snprintf(when, sizeof when, ends_epoch(t) ? "epoch %lld" : "epoch %lld, step %lld",
             (long long)entry->epoch, (long long)entry->step);
    if (t->tuner->eval->count == 0) {
        INFO("      %s: training loss %.4f", when, entry->train_loss);
        return;
    }
    INFO("      %s: training loss %.4f, evaluation loss %.4f, perplexity %s%s", when, entry->train_loss,
         entry->eval_loss, p4_format_number(perplexity, entry->eval_perplexity, 3),
         entry->eval_perplexity < t->state.best_perplexity ? "" : " (not better: the earlier state is kept)");
}

/* An entry of the history, for all. Collective. */
static p4_rc record_evaluation(tuning *t, const p4_history_entry *entry)
{
    p4_rc rc = P4_OK;
    const p4_tuner *tuner = t->tuner;
    p4_group *group = tuner->compute->group;
    bool tells = tuner->on_evaluation != NULL && tuner->eval->count > 0;
    TRY_ALL(group, p4_fine_tuning_add_history(t->record, entry));
    TRY_ROOT(group, tells ? tuner->on_evaluation(tuner->user, entry) : P4_OK);
    say_evaluation(t, entry);
done:
    return rc;
}

/* Keeps the trainer's state when it evaluates better than the best one. Collective. */
static p4_rc judge(tuning *t)
{
    p4_rc rc = P4_OK;
    const p4_tuner *tuner = t->tuner;
    int64_t step = t->state.step, steps_per_epoch = t->trainer.steps.per_epoch;
    bool measures = tuner->eval->count > 0;
    p4_evaluator evaluator = {.compute = tuner->compute,
                              .original = tuner->original,
                              .plan = tuner->evaluation,
                              .windows = tuner->eval};
    p4_evaluation evaluation = p4_evaluation_none();
    TRY(p4_trainer_commit(&t->trainer, &t->candidate));
    TRY(measures ? p4_evaluate_packed(&evaluator, &t->candidate, false, &evaluation) : P4_OK);
    t->record->epochs_completed = (double)step / (double)steps_per_epoch;
    t->record->steps = step;
    t->record->tokens = t->state.tokens;
    t->record->final_loss = evaluation.loss;
    t->record->final_perplexity = evaluation.perplexity;
    p4_history_entry entry = {.epoch = p4_ceil_div(step, steps_per_epoch),
                              .step = step,
                              .train_loss = t->state.epoch_loss / (double)t->state.epoch_steps,
                              .eval_loss = evaluation.loss,
                              .eval_perplexity = evaluation.perplexity};
    TRY(record_evaluation(t, &entry));
    if (!measures || evaluation.perplexity < t->state.best_perplexity) {
        p4_packed better = t->candidate;
        t->candidate = *t->best;
        *t->best = better;
        t->state.best_perplexity = evaluation.perplexity;
    }
    t->record->best_perplexity = t->state.best_perplexity;
    t->state.epoch_loss = 0;
    t->state.epoch_steps = 0;
done:
    return rc;
}

static p4_rc save(tuning *t, bool beside)
{
    const p4_tuner *tuner = t->tuner;
    if (tuner->save == NULL) {
        return P4_OK;
    }
    t->state.elapsed_s = p4_now_s() - t->started_s;
    return tuner->save(tuner->user, &t->trainer, &t->state, beside);
}

static p4_rc finish_save(tuning *t, bool wait)
{
    return t->tuner->finish_save != NULL ? t->tuner->finish_save(t->tuner->user, wait) : P4_OK;
}

/* A checkpoint that could not be saved is no reason to end a training that works, unless the directory is
 * another run's. */
static p4_rc survive(p4_rc saved)
{
    if (saved == P4_OK || saved == P4_E_HOLD) {
        return saved;
    }
    WARN("warning: no checkpoint was saved: %s", p4_last_error());
    p4_error_clear();
    return P4_OK;
}

/* Is the state to be judged after the steps done so far, and has it not been? Always where an epoch or the
 * training ends. */
static bool is_due(const tuning *t)
{
    const p4_fine_tuning *record = t->record;
    const int64_t step = t->state.step, every = t->tuner->eval->count > 0 ? t->tuner->eval_every : 0;
    bool made = record->history_count > 0 && record->history[record->history_count - 1].step == step;
    return step > 0 && !made && (ends_epoch(t) || (every > 0 && step % every == 0));
}

/* A stop in the evaluation leaves it to the process that continues. */
static p4_rc judge_or_stop(tuning *t)
{
    p4_rc rc = judge(t);
    if (rc == P4_STOPPED) {
        p4_error_clear(); /* a failure to save says what ended the run */
        p4_rc saved = save(t, false);
        rc = saved != P4_OK ? saved : p4_stop_end(t->tuner->compute->stop);
    }
    return rc;
}

/* One step and what follows it, but for the evaluation. Collective. */
static p4_rc run_step(tuning *t, p4_step_result *result)
{
    p4_rc rc = P4_OK;
    const p4_tuner *tuner = t->tuner;
    int64_t step = t->state.step;
    t->trainer.wants_save = tuner->compute->group->rank == 0 && tuner->is_save_due != NULL &&
                            tuner->is_save_due(tuner->user, step + 1);
    t->trainer.is_saving = tuner->is_saving != NULL && tuner->is_saving(tuner->user);
    TRY(p4_trainer_step(&t->trainer, step, result));
    t->state.step++;
    t->state.tokens += result->tokens;
    t->record->block_distance = result->block_distance;
    if (result->applied) { /* a skipped step's loss may be no number */
        t->state.epoch_loss += result->loss;
        t->state.epoch_steps++;
    }
    TRY(log_step(t, step, result));
    if (result->stop) {
        TRY(save(t, false));
        rc = p4_stop_end(tuner->compute->stop);
    } else if (result->save) {
        rc = survive(save(t, true));
    } else if (!result->saving) {
        rc = survive(finish_save(t, false));
    }
done:
    return rc;
}

static p4_rc run_steps(tuning *t)
{
    p4_rc rc = P4_OK;
    const p4_trainer_steps *steps = &t->trainer.steps;
    const p4_train_plan *plan = t->tuner->plan;
    p4_progress progress;
    p4_step_result result;
    char note[128];
    TRY(is_due(t) ? judge_or_stop(t) : P4_OK); /* the process before was stopped in it */
    p4_progress_start(&progress, "fine-tune", "tokens", (double)(steps->total * plan->sequences * plan->T));
    progress.from = (double)t->state.tokens;
    while (t->state.step < steps->total) {
        TRY(run_step(t, &result));
        int used = snprintf(note, sizeof note, "step %lld/%lld, loss %.4f", (long long)t->state.step,
                            (long long)steps->total, result.loss);
        if (!isnan(result.kl)) {
            used += snprintf(note + used, sizeof note - (size_t)used, ", KL %.4f", result.kl);
        }
        if (!isnan(result.block_distance)) {
            snprintf(note + used, sizeof note - (size_t)used, ", blocks %.4f", result.block_distance);
        }
        p4_progress_update(&progress, (double)t->state.tokens, note);
        if (is_due(t)) {
            p4_progress_end(&progress);
            TRY(judge_or_stop(t));
        }
    }
done:
    p4_progress_end(&progress);
    return rc;
}

/* The state of the process before. Collective. */
static p4_rc restore(tuning *t)
{
    p4_rc rc = P4_OK;
    const p4_tuner *tuner = t->tuner;
    if (tuner->restore != NULL) {
        TRY(tuner->restore(tuner->user, &t->trainer, &t->state));
        TRY(p4_trainer_requantize(&t->trainer));
        t->started_s -= t->state.elapsed_s;
        INFO("      continues after step %lld", (long long)t->state.step);
    }
done:
    return rc;
}

static void say_plan(const tuning *t)
{
    const p4_train_plan *plan = t->tuner->plan;
    p4_trainer_memory bytes = p4_trainer_bytes(&t->trainer);
    char masters[32], codes[32], activations[32], teacher[32], steps[P4_COUNT_BYTES];
    bool distills = p4_teacher_is_open(&t->trainer.teacher);
    INFO("      %s step%s of %lld x %lld tokens; memory of rank 0: weights in fp32 and optimizer %s, "
         "ternary weights %s, activations %s%s%s",
         p4_format_count(steps, t->trainer.steps.total), p4_plural(t->trainer.steps.total),
         (long long)plan->sequences, (long long)plan->T,
         p4_format_bytes(masters, (double)t->trainer.optim.memory_bytes),
         p4_format_bytes(codes, (double)bytes.codes_bytes),
         p4_format_bytes(activations, (double)(bytes.activations_bytes + bytes.staging_bytes)),
         distills ? ", the original " : "",
         distills ? p4_format_bytes(teacher, (double)bytes.teacher_bytes) : "");
}

/* The last checkpoint is complete, or given up, before the trainer is closed; an error of the training, which
 * all ranks have, counts before one of the checkpoint. Collective. */
static p4_rc end_saving(tuning *t, p4_rc rc)
{
    char *message = p4_strdup(p4_last_error());
    p4_error_clear();
    p4_rc saved = survive(finish_save(t, true));
    if (rc != P4_OK && message != NULL) {
        p4_error_set(message);
    }
    free(message);
    return rc != P4_OK ? rc : saved;
}

p4_rc p4_tune(const p4_tuner *tuner, p4_packed *packed, p4_fine_tuning *record)
{
    p4_rc rc = P4_OK;
    p4_compute *compute = tuner->compute;
    tuning t = {.tuner = tuner,
                .best = packed,
                .record = record,
                .state.best_perplexity = tuner->start_perplexity,
                .started_s = p4_now_s()};
    if (!compute->ops->host_memory) {
        p4_original_unload(tuner->original);
    }
    TRY_ALL(compute->group, p4_packed_alloc(&t.candidate, &tuner->original->hf.model));
    TRY(p4_trainer_open(&t.trainer, compute, tuner->original, tuner->train, tuner->plan, tuner->masters));
    say_plan(&t);
    record->ran = true;
    TRY(restore(&t));
    TRY(run_steps(&t));
    p4_teacher_finish(&t.trainer.teacher);
done:
    rc = end_saving(&t, rc);
    p4_trainer_close(&t.trainer);
    p4_packed_release(&t.candidate);
    return rc;
}
