#include <math.h>
#include <string.h>

#include "rng.h"
#include "trainer.h"

enum { BAD_STEPS_MAX = 5 };

/* Copies sequences [from, from + B) of this step to h_ids; the order of windows depends on seed and epoch only. */
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

/* Zeroes the gradients that the backward pass adds to; of a rank that has no sequences, all that are summed. */
static void zero_grad(p4_trainer *t)
{
    const p4_model *model = &t->job->hf.model;
    bool idle = t->low >= t->high;
    for (int64_t i = 0; i < model->params_count; i++) {
        bool owned = t->sharded[i] && t->job->dist->ranks > 1; /* written by the sums over ranks */
        if (t->optim.at[i] >= 0 && !owned && (idle || !p4_trainer_overwrites(t, i))) {
            t->job->ops->zero(t->job->device, t->optim.grad + t->optim.at[i],
                              model->params[i].rows * model->params[i].cols * 4);
        }
    }
}

/* The host waits for no micro-batch, but where sums of an earlier one are under way: what it waits for next would then
 * wait for other ranks without a deadline. */
static void forward_backward(p4_trainer *t, int64_t step)
{
    p4_job *job = t->job;
    float loss_scale = 1.0f / (float)(t->sequences * (t->T - 1));
    p4_grad_sink sink = p4_trainer_sink(t);
    p4_trainer_sums_start(t);
    for (t->round = 0; t->round < t->rounds; t->round++) {
        int64_t from = t->low + t->round * t->micro_batch, B = p4_min_i64(t->micro_batch, t->high - from);
        if (t->round > 0 && !t->sums_once) {
            job->coll.settle(&job->coll, "training step %lld", (long long)step + 1);
        }
        if (t->round > 0 && t->round == t->rounds - 1 && t->sums_once && job->dist->ranks > 1 &&
            job->ops->sync(job->device) != P4_OK) { /* own work is not to count as waiting for the others' sums */
            p4_abort(job->dist, "training step %lld: %s", (long long)step + 1, p4_last_error());
        }
        if (B <= 0) {
            p4_trainer_sums_idle(t);
            continue;
        }
        gather_sequences(t, step, from, B);
        p4_net_set_tokens(&t->net, t->h_ids, B, t->T);
        p4_net_train(&t->net, &t->form, B, t->T, loss_scale, &sink);
    }
    p4_trainer_sums_finish(t);
}

/* Global sum of squares of the gradients; the loss rides along (NULL: does not): this rank's in, all ranks' out. Same
 * result on every rank: of the replicated gradients rank 0's figure counts. Collective. */
static double total_sq_norm(p4_trainer *t, double *loss)
{
    double squares[2];
    if (p4_optim_sq_norms(&t->optim, squares) != P4_OK) {
        p4_abort(t->job->dist, "training step: %s", p4_last_error());
    }
    double sums[3] = {t->job->dist->rank == 0 ? squares[0] : 0, squares[1], loss != NULL ? *loss : 0};
    p4_dist_sum_f64(t->job->dist, sums, 3);
    if (loss != NULL) {
        *loss = sums[2];
    }
    return sums[0] + sums[1];
}

p4_rc p4_trainer_step(p4_trainer *t, int64_t step, p4_step_result *result)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &t->job->config;
    double started_s = p4_now_s();
    p4_coll *coll = &t->job->coll;
    p4_score score = {0};
    zero_grad(t);
    forward_backward(t, step);
    coll->settle(coll, "training step %lld: gradient sums", (long long)step + 1);
    if (p4_net_take_score(&t->net, &score) != P4_OK) {
        p4_abort(t->job->dist, "training step %lld: %s", (long long)step + 1, p4_last_error());
    }
    double loss = score.nll, squares = total_sq_norm(t, &loss);
    *result = (p4_step_result){.loss = loss / (double)(t->sequences * (t->T - 1)),
                               .lr = p4_schedule_lr(c->fine_tune_lr, c->lr_final_fraction, c->warmup_steps, step, t->steps),
                               .tokens = t->sequences * t->T,
                               .applied = isfinite(squares) && isfinite(loss)};
    if (result->applied) {
        t->bad_steps = 0;
        if (t->optim.settings.grokfast) {
            p4_optim_grokfast(&t->optim);
            squares = total_sq_norm(t, NULL);
        }
        double norm = sqrt(squares), clip = t->optim.settings.clip;
        p4_optim_update(&t->optim, (float)result->lr, clip > 0 && norm > clip ? (float)(clip / norm) : 1.0f);
        p4_trainer_publish(t, NULL);
    } else {
        t->bad_steps++;
        WARN("warning: step %lld skipped: its gradient is not finite", (long long)step + 1);
    }
    result->grad_norm = sqrt(squares);
    coll->settle(coll, "training step %lld: new codes", (long long)step + 1);
    if (t->job->ops->sync(t->job->device) != P4_OK) {
        p4_abort(t->job->dist, "training step %lld: %s", (long long)step + 1, p4_last_error());
    }
    result->seconds = p4_now_s() - started_s;
    CHECK(t->bad_steps < BAD_STEPS_MAX,
          "fine-tuning: the gradient was not finite for %d steps in a row; a smaller fine_tune_lr (now %g) may help",
          BAD_STEPS_MAX, c->fine_tune_lr);
done:
    return rc;
}
