#include <math.h>
#include <string.h>

#include "jobs/train/trainer.h"
#include "src/leaf/rng.h"

enum { BAD_STEPS_MAX = 5 };

/* Copies sequences [from, from + B) of this step to h_ids; the order of windows depends on seed and epoch
 * only. */
static void gather_sequences(p4_trainer *t, int64_t step, int64_t from, int64_t B)
{
    const p4_windows *train = &t->job->train;
    int64_t epoch = step / t->steps_per_epoch, within = step % t->steps_per_epoch;
    if (t->order_epoch != epoch) {
        p4_rng_permutation(t->order, (uint64_t)train->count, t->job->config.seed, (uint64_t)epoch + 1);
        t->order_epoch = epoch;
    }
    for (int64_t b = 0; b < B; b++) {
        uint64_t window = t->order[within * t->sequences + from + b];
        memcpy(t->h_ids + b * t->T, train->ids + (int64_t)window * t->T, (size_t)t->T * sizeof *t->h_ids);
    }
}

/* Zeroes the gradients that the backward pass adds to; of a rank that has no sequences, all that are summed.
 * Neighbours go together, with the padding between them, which is zero. */
static void zero_grad(p4_trainer *t)
{
    const p4_model *model = &t->job->hf.model;
    int64_t run = 0, end = 0;
    bool idle = t->low >= t->high;
    for (int64_t i = 0; i < model->params_count; i++) {
        bool owned = t->sharded[i] && t->job->compute.group->ranks > 1; /* written by the sums over ranks */
        int64_t at = t->optim.at[i];
        if (at < 0 || owned || (!idle && p4_trainer_overwrites(t, i))) {
            continue;
        }
        if (at < end || at >= end + P4_FLAT_GAP) {
            t->job->compute.ops->zero(t->job->compute.device, t->optim.grad + run, (end - run) * 4);
            run = at;
        }
        end = at + model->params[i].rows * model->params[i].cols;
    }
    t->job->compute.ops->zero(t->job->compute.device, t->optim.grad + run, (end - run) * 4);
}

static void start_sums(p4_trainer *t)
{
    t->job->compute.ops->zero(t->job->compute.device, t->figures, P4_FIGURES * (int64_t)sizeof *t->figures);
    zero_grad(t);
}

/* --- work to be repeated ---------------------------------------------------------------------- */

static void forward_work(void *user)
{
    p4_trainer *t = user;
    float loss_scale = 1.0f / (float)(t->sequences * (t->T - 1));
    p4_grad_sink sink = p4_trainer_sink(t);
    if (t->round == 0) {
        start_sums(t);
    }
    p4_net_train_forward(&t->net, &t->form, t->B, t->T, loss_scale, &sink);
}

static void layer_work(void *user)
{
    p4_trainer *t = user;
    p4_grad_sink sink = p4_trainer_sink(t);
    p4_net_train_block(&t->net, &t->form, t->layer, t->B, t->T, &sink);
}

static void embedding_work(void *user)
{
    p4_trainer *t = user;
    p4_grad_sink sink = p4_trainer_sink(t);
    p4_net_train_embedding(&t->net, t->B, t->T, &sink);
}

static void repeat(p4_trainer *t, p4_recording **recording, void (*work)(void *user))
{
    t->job->compute.ops->repeat(t->job->compute.device, recording, work, t);
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
    int64_t L = t->job->hf.model.arch.L;
    run_piece(t, records, L, forward_work);
    for (t->layer = L - 1; t->layer >= 0; t->layer--) {
        p4_trainer_sums_clear(t, t->layer);
        run_piece(t, records, t->layer, layer_work);
        p4_trainer_sums_send(t, t->layer);
    }
    run_piece(t, records, L + 1, embedding_work);
}

/* One micro-batch, when one rank is all there is, with what ends the last one. */
static void round_work(void *user)
{
    p4_trainer *t = user;
    run_pieces(t, NULL);
    if (t->round == t->rounds - 1) {
        p4_optim_sq_norms(&t->optim);
    }
}

static void filter_work(void *user)
{
    p4_trainer *t = user;
    p4_optim_grokfast(&t->optim);
    p4_optim_sq_norms(&t->optim);
}

static void update_work(void *user)
{
    p4_trainer *t = user;
    p4_optim_update(&t->optim);
    p4_trainer_quantize(t, NULL);
    if (t->job->compute.group->ranks == 1) {
        p4_trainer_unpack(t);
    }
}

/* The round at work, of which this rank has sequences [from, from + t->B). */
static void run_round(p4_trainer *t, int64_t step, int64_t from)
{
    int64_t kind = t->round == 0 ? 0 : t->round < t->rounds - 1 ? 1 : 2;
    p4_recording **records = t->records + kind * p4_trainer_pieces(t);
    gather_sequences(t, step, from, t->B);
    p4_net_set_tokens(&t->net, t->h_ids, t->B, t->T);
    if (t->job->compute.group->ranks == 1) {
        repeat(t, &records[0], round_work);
    } else {
        run_pieces(t, records);
    }
}

/* The host waits for no micro-batch, but where sums of an earlier one are under way: what it waits for next
 * would then wait for other ranks without a deadline. */
static void forward_backward(p4_trainer *t, int64_t step)
{
    p4_job *job = t->job;
    p4_trainer_sums_start(t);
    for (t->round = 0; t->round < t->rounds; t->round++) {
        int64_t from = t->low + t->round * t->micro_batch;
        t->B = p4_min_i64(t->micro_batch, t->high - from);
        if (t->round > 0 && !t->sums_once) {
            job->compute.coll.settle(&job->compute.coll, "training step %lld", (long long)step + 1);
        }
        if (t->round > 0 && t->round == t->rounds - 1 && t->sums_once && job->compute.group->ranks > 1 &&
            job->compute.ops->sync(job->compute.device) !=
                P4_OK) { /* own work is not to count as waiting for the others' sums */
            p4_abort(job->compute.group, "training step %lld: %s", (long long)step + 1, p4_last_error());
        }
        if (t->B > 0) {
            run_round(t, step, from);
            continue;
        }
        if (t->round == 0) {
            start_sums(t);
        }
        p4_trainer_sums_idle(t);
    }
    p4_trainer_sums_finish(t);
}

/* Waits for what is queued. Global sum of squares of the gradients; the loss rides along (NULL: does not).
 * Same result on every rank: of the replicated gradients rank 0's figure counts. Collective. */
static double total_sq_norm(p4_trainer *t, int64_t step, double *loss)
{
    p4_job *job = t->job;
    double figures[P4_FIGURES] = {0}, *squares = figures + P4_NET_SUMS;
    job->compute.ops->to_host(job->compute.device, figures, t->figures, sizeof figures);
    if (job->compute.ops->sync(job->compute.device) != P4_OK) {
        p4_abort(job->compute.group, "training step %lld: %s", (long long)step + 1, p4_last_error());
    }
    double sums[3] = {job->compute.group->rank == 0 ? squares[0] : 0, squares[1],
                      loss != NULL ? figures[0] : 0};
    p4_group_sum_f64(job->compute.group, sums, 3);
    if (loss != NULL) {
        *loss = sums[2];
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
        repeat(t, &t->filter_record, filter_work);
        squares = total_sq_norm(t, step, NULL);
    }
    double norm = sqrt(squares);
    p4_optim_put_update(&t->optim, (float)lr, clip > 0 && norm > clip ? (float)(clip / norm) : 1.0f);
    repeat(t, &t->update_record, update_work);
    if (t->job->compute.group->ranks > 1) {
        p4_trainer_share_codes(t);
        p4_trainer_unpack(t);
    }
    return norm;
}

p4_rc p4_trainer_step(p4_trainer *t, int64_t step, p4_step_result *result)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &t->job->config;
    double started_s = p4_now_s();
    p4_coll *coll = &t->job->compute.coll;
    forward_backward(t, step);
    coll->settle(coll, "training step %lld: gradient sums", (long long)step + 1);
    double loss = 0, squares = total_sq_norm(t, step, &loss);
    *result = (p4_step_result){
        .loss = loss / (double)(t->sequences * (t->T - 1)),
        .grad_norm = sqrt(squares),
        .lr = p4_schedule_lr(c->fine_tune_lr, c->lr_final_fraction, c->warmup_steps, step, t->steps),
        .tokens = t->sequences * t->T,
        .applied = isfinite(squares) && isfinite(loss)};
    if (result->applied) {
        t->bad_steps = 0;
        result->grad_norm = apply_gradient(t, step, squares, result->lr);
    } else {
        t->bad_steps++;
        WARN("warning: step %lld skipped: its gradient is not finite", (long long)step + 1);
    }
    if (t->job->compute.group->ranks > 1) { /* alone, the next step's wait is this one's too */
        coll->settle(coll, "training step %lld: new codes", (long long)step + 1);
        if (t->job->compute.ops->sync(t->job->compute.device) != P4_OK) {
            p4_abort(t->job->compute.group, "training step %lld: %s", (long long)step + 1, p4_last_error());
        }
    }
    result->seconds = p4_now_s() - started_s;
    CHECK(t->bad_steps < BAD_STEPS_MAX,
          "fine-tuning: the gradient was not finite for %d steps in a row; a smaller fine_tune_lr (now %g) "
          "may help",
          BAD_STEPS_MAX, c->fine_tune_lr);
done:
    return rc;
}
