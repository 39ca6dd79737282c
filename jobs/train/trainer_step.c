#include <math.h>
#include <string.h>

#include "jobs/train/trainer.h"

enum { BAD_STEPS_MAX = 5 };

/* Zeroes the gradients that the backward pass adds to; of a rank that has no sequences, all that are summed.
 * Neighbours go together, with the padding between them, which is zero. */
static void zero_grad(p4_trainer *t)
{
    const p4_model *model = t->model;
    int64_t run = 0, end = 0;
    bool idle = t->batch.low >= t->batch.high;
    for (int64_t i = 0; i < model->params_count; i++) {
        bool owned = t->sharded[i] && t->compute->group->ranks > 1; /* written by the sums over ranks */
        int64_t at = t->optim.at[i];
        if (at < 0 || owned || (!idle && p4_trainer_overwrites(t, i))) {
            continue;
        }
        if (at < end || at >= end + P4_FLAT_GAP) {
            t->compute->ops->zero(t->compute->device, t->optim.grad + run, (end - run) * 4);
            run = at;
        }
        end = at + model->params[i].rows * model->params[i].cols;
    }
    t->compute->ops->zero(t->compute->device, t->optim.grad + run, (end - run) * 4);
}

static void start_sums(p4_trainer *t)
{
    t->compute->ops->zero(t->compute->device, t->figures, P4_FIGURES * (int64_t)sizeof *t->figures);
    if (t->plan.exact_sums) {
        p4_trainer_exact_start(t);
    } else {
        zero_grad(t);
    }
}

/* --- work to be repeated ---------------------------------------------------------------------- */

static void forward_work(void *user)
{
    p4_trainer *t = user;
    float loss_scale = 1.0f / (float)(t->plan.sequences * (t->plan.T - 1));
    p4_grad_sink sink = p4_trainer_sink(t);
    if (t->batch.index == 0) {
        start_sums(t);
    }
    if (t->plan.exact_sums) {
        p4_trainer_exact_start_micro_batch(t);
    }
    p4_teacher_forward(&t->teacher, t->batch.B);
    p4_net_train_forward(&t->net, &t->form, t->batch.B, t->plan.T, loss_scale, &sink);
}

static void layer_work(void *user)
{
    p4_trainer *t = user;
    p4_grad_sink sink = p4_trainer_sink(t);
    p4_net_train_block(&t->net, &t->form, t->batch.layer, t->batch.B, t->plan.T, &sink);
}

static void embedding_work(void *user)
{
    p4_trainer *t = user;
    p4_grad_sink sink = p4_trainer_sink(t);
    p4_net_train_embedding(&t->net, t->batch.B, t->plan.T, &sink);
}

static void repeat(p4_trainer *t, p4_recording **recording, void (*work)(void *user))
{
    t->compute->ops->repeat(t->compute->device, recording, work, t);
}

/* records NULL: what is around it is recorded. */
static void run_piece(p4_trainer *t, p4_recording **records, int64_t piece, void (*work)(void *user))
{
    if (records != NULL) {
        repeat(t, &records[piece], work);
    } else {
        work(t);
    }
}

/* One micro-batch: a layer's sums go on beside the backward pass of those before it. */
static void run_pieces(p4_trainer *t, p4_recording **records)
{
    int64_t L = t->model->arch.L;
    run_piece(t, records, L, forward_work);
    for (t->batch.layer = L - 1; t->batch.layer >= 0; t->batch.layer--) {
        p4_trainer_sums_clear(t, t->batch.layer);
        run_piece(t, records, t->batch.layer, layer_work);
        p4_trainer_sums_send(t, t->batch.layer);
    }
    run_piece(t, records, L + 1, embedding_work);
}

/* One micro-batch, when one rank is all there is, with what ends the last one. */
static void micro_batch_work(void *user)
{
    p4_trainer *t = user;
    run_pieces(t, NULL);
    if (t->batch.index == t->batch.count - 1 && !t->plan.exact_sums) {
        p4_optim_sq_norms(&t->optim);
    }
}

static void filter_work(void *user)
{
    p4_trainer *t = user;
    p4_optim_grokfast(&t->optim);
    if (!t->plan.exact_sums) {
        p4_optim_sq_norms(&t->optim);
    }
}

static void update_work(void *user)
{
    p4_trainer *t = user;
    p4_trainer_scale_gradients(t);
    p4_optim_update(&t->optim);
    p4_trainer_quantize(t, NULL);
    if (t->compute->group->ranks == 1) {
        p4_trainer_unpack(t);
    }
}

/* The micro-batch at work, of which this rank has t->batch.B sequences. */
static void run_micro_batch(p4_trainer *t)
{
    int64_t kind = t->batch.index == 0 ? 0 : t->batch.index < t->batch.count - 1 ? 1 : 2;
    p4_recording **records = t->records.pieces + kind * p4_trainer_pieces(t);
    p4_net_set_tokens(&t->net, t->batch.h_ids, t->batch.B, t->plan.T);
    if (t->compute->group->ranks == 1) {
        repeat(t, &records[0], micro_batch_work);
    } else {
        run_pieces(t, records);
    }
}

/* The first of this rank's sequences in the micro-batch at work. */
static int64_t first_sequence(const p4_trainer *t)
{
    const p4_group *group = t->compute->group;
    int64_t index = t->plan.exact_sums ? t->batch.index * group->ranks + group->rank : t->batch.index;
    return t->batch.low + index * t->batch.size;
}

/* For a rank without sequences in this micro-batch. */
static void run_idle(p4_trainer *t)
{
    if (t->batch.index == 0) {
        start_sums(t);
    }
    p4_trainer_sums_idle(t);
}

/* The host waits for no micro-batch, but where sums of an earlier one are under way: what it waits for next
 * would then wait for other ranks without a deadline. */
static void forward_backward(p4_trainer *t, int64_t step)
{
    p4_trainer_sums_start(t);
    for (t->batch.index = 0; t->batch.index < t->batch.count; t->batch.index++) {
        int64_t from = first_sequence(t);
        t->batch.B = p4_max_i64(0, p4_min_i64(t->batch.size, t->batch.high - from));
        if (t->batch.index > 0 && !t->sums.once) {
            t->compute->coll.synchronize(&t->compute->coll, "training step %lld", (long long)step + 1);
        }
        if (t->batch.index > 0 && t->batch.index == t->batch.count - 1 && t->sums.once &&
            t->compute->group->ranks > 1 &&
            t->compute->ops->sync(t->compute->device) !=
                P4_OK) { /* own work is not to count as waiting for the others' sums */
            p4_abort(t->compute->group, "training step %lld: %s", (long long)step + 1, p4_last_error());
        }
        if (t->batch.B > 0) {
            p4_training_set_sequences(t->training_set, t->batch.h_ids, from, t->batch.B);
        }
        p4_teacher_prepare(&t->teacher, t->batch.h_ids, step, from, t->batch.B);
        if (t->batch.B > 0) {
            run_micro_batch(t);
        } else {
            run_idle(t);
        }
        if (t->plan.exact_sums) {
            p4_trainer_exact_end_micro_batch(t);
        }
    }
    p4_trainer_sums_finish(t);
}

/* Waits for what is queued. Global sum of squares of the gradients; the sums of the losses and the requests
 * to stop and to save ride along (result NULL: they do not). Same result on every rank: of the replicated
 * gradients rank 0's figure counts. Collective. */
static double total_sq_norm(p4_trainer *t, int64_t step, p4_step_result *result)
{
    double figures[P4_FIGURES] = {0}, *squares = figures + P4_NET_SUMS;
    t->compute->ops->to_host(t->compute->device, figures, t->figures, sizeof figures);
    if (t->compute->ops->sync(t->compute->device) != P4_OK) {
        p4_abort(t->compute->group, "training step %lld: %s", (long long)step + 1, p4_last_error());
    }
    bool speaks = t->compute->group->rank == 0;
    double flags[] = {p4_stop_is_asked(t->compute->stop), speaks && t->wants_save, t->is_saving};
    double sums[5 + P4_TRAIN_LOSSES] = {speaks ? squares[0] : 0, squares[1], flags[0], flags[1], flags[2]};
    double *losses = sums + 5;
    p4_trainer_losses(figures, losses);
    if (t->plan.exact_sums) {
        sums[1] = 0;
        p4_trainer_exact_figures(t, &sums[0], losses, flags);
        memcpy(&sums[2], flags, sizeof flags);
    } else {
        p4_group_sum_f64(t->compute->group, sums, sizeof sums / sizeof *sums);
    }
    if (result != NULL) {
        result->loss = losses[0];
        result->kl = losses[1];
        result->block_distance = losses[2];
        result->stop = sums[2] > 0;
        result->save = sums[3] > 0;
        result->saving = sums[4] > 0;
    }
    return sums[0] + sums[1];
}

/* Grokfast, where it is on, and the update; the norm of the gradient that was applied, before clipping.
 * Collective. */
static double apply_gradient(p4_trainer *t, int64_t step, double squares, double lr)
{
    double clip = t->optim.settings.clip;
    if (t->optim.settings.grokfast) {
        p4_optim_put_grokfast(&t->optim);
        repeat(t, &t->records.filter, filter_work);
        squares = total_sq_norm(t, step, NULL);
    }
    double norm = sqrt(squares);
    p4_optim_put_update(&t->optim, (float)lr, clip > 0 && norm > clip ? (float)(clip / norm) : 1.0f);
    repeat(t, &t->records.update, update_work);
    if (t->compute->group->ranks > 1) {
        p4_trainer_publish_codes(t);
        p4_trainer_unpack(t);
    }
    return norm;
}

/* Is the gradient of this parameter, which is held here, finite? Local. */
static bool is_finite(p4_trainer *t, int64_t i)
{
    enum { PIECE = 4096 };
    float piece[PIECE];
    const p4_param *p = &t->model->params[i];
    for (int64_t first = 0; first < p->rows * p->cols; first += PIECE) {
        int64_t count = p4_min_i64(PIECE, p->rows * p->cols - first);
        t->compute->ops->to_host(t->compute->device, piece, t->optim.grad + t->optim.at[i] + first,
                                 count * (int64_t)sizeof *piece);
        (void)t->compute->ops->sync(t->compute->device); /* a fault of the device reads as not finite */
        for (int64_t k = 0; k < count; k++) {
            if (!isfinite(piece[k])) {
                return false;
            }
        }
    }
    return true;
}

/* Too many steps in a row were skipped: says which tensor's gradient, the first of the model, is to blame.
 * Collective. */
static p4_rc refuse_gradient(p4_trainer *t, const p4_step_result *result)
{
    char loss[P4_NUMBER_BYTES];
    int64_t bad = 0, count = t->model->params_count;
    while (bad < count && (t->optim.at[bad] < 0 || is_finite(t, bad))) {
        bad++;
    }
    double first = -(double)bad;
    p4_group_max_f64(t->compute->group, &first, 1);
    bad = -(int64_t)first;
    return FAIL(
        "fine-tuning: the gradient was not finite for %d steps in a row: that of %s (loss %s); a smaller "
        "fine_tune_lr (now %g) may help",
        BAD_STEPS_MAX, bad < count ? t->model->params[bad].name : "no single tensor, but their norm",
        p4_format_number(loss, result->loss, 4), t->plan.lr);
}

p4_rc p4_trainer_step(p4_trainer *t, int64_t step, p4_step_result *result)
{
    const p4_train_plan *plan = &t->plan;
    double started_s = p4_now_s();
    p4_coll *coll = &t->compute->coll;
    p4_training_set_step(t->training_set, step);
    forward_backward(t, step);
    coll->synchronize(coll, "training step %lld: gradient sums", (long long)step + 1);
    *result = (p4_step_result){
        .lr = p4_schedule_lr(plan->lr, plan->lr_final_fraction, plan->warmup, step, t->steps.total),
        .tokens = t->plan.sequences * t->plan.T};
    double squares = total_sq_norm(t, step, result),
           predictions = (double)(t->plan.sequences * (t->plan.T - 1));
    result->grad_norm = sqrt(squares);
    result->applied = isfinite(squares) && isfinite(result->loss) && isfinite(result->kl) &&
                      isfinite(result->block_distance);
    result->loss /= predictions;
    result->kl = p4_teacher_is_open(&t->teacher) ? result->kl / predictions : (double)NAN;
    result->block_distance = t->net.plan.blocks
                                 ? result->block_distance / (double)(t->model->arch.L * result->tokens)
                                 : (double)NAN;
    if (result->applied) {
        t->bad_steps = 0;
        result->grad_norm = apply_gradient(t, step, squares, result->lr);
    } else {
        t->bad_steps++;
        WARN("warning: step %lld skipped: its gradient is not finite", (long long)step + 1);
    }
    if (t->compute->group->ranks > 1) { /* alone, the next step's wait is this one's too */
        coll->synchronize(coll, "training step %lld: new codes", (long long)step + 1);
        if (t->compute->ops->sync(t->compute->device) != P4_OK) {
            p4_abort(t->compute->group, "training step %lld: %s", (long long)step + 1, p4_last_error());
        }
    }
    result->seconds = p4_now_s() - started_s;
    return t->bad_steps < BAD_STEPS_MAX ? P4_OK : refuse_gradient(t, result);
}
