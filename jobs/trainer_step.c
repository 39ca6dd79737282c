#include <math.h>
#include <string.h>

#include "rng.h"
#include "trainer.h"

enum { BAD_STEPS_MAX = 5 };

/* The parts of a slot lie one after another in the flat gradient array, so that its GEMM can add to it directly. */
static bool in_one_piece(const p4_trainer *t, int64_t first)
{
    const p4_model *model = &t->job->hf.model;
    for (int64_t i = first; i < first + p4_model_parts(model, first); i++) {
        const p4_param *p = &model->params[i];
        bool here = t->optim.at[i] == t->optim.at[first] + p->row_offset * p->cols && t->optim.at[i] >= 0;
        if (!here || (t->sharded[i] && t->job->dist->ranks > 1)) {
            return false;
        }
    }
    return true;
}

static float *grad_buffer(void *user, int64_t param, bool *accumulate)
{
    p4_trainer *t = user;
    if (!p4_role_is_matrix(t->job->hf.model.params[param].role) || in_one_piece(t, param)) {
        return t->optim.grad + t->optim.at[param]; /* accumulates */
    }
    *accumulate = false;
    return t->slot_grad;
}

/* A slot's gradient of this micro-batch is complete: its parts go to their owners, which add them up. */
static void slot_ready(void *user, int64_t first)
{
    p4_trainer *t = user;
    p4_job *job = t->job;
    const p4_model *model = &job->hf.model;
    if (in_one_piece(t, first)) {
        return;
    }
    for (int64_t i = first; i < first + p4_model_parts(model, first); i++) {
        const p4_param *p = &model->params[i];
        float *part = t->slot_grad + p->row_offset * p->cols;
        int64_t count = p->rows * p->cols;
        if (t->sharded[i]) {
            job->coll.reduce_f32(&job->coll, part, count, job->shard.owner[i]);
        }
        if (t->optim.at[i] >= 0) {
            job->ops->add_f32(job->device, t->optim.grad + t->optim.at[i], part, count);
        }
    }
}

/* A rank without sequences in this round still takes part in the sums, in the order of the backward pass. */
static void idle_round(p4_trainer *t)
{
    static const p4_role order[] = {P4_ROLE_DOWN, P4_ROLE_UP, P4_ROLE_O, P4_ROLE_QKV};
    const p4_model *model = &t->job->hf.model;
    for (int64_t l = model->arch.L - 1; l >= 0; l--) {
        for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
            t->job->ops->zero(t->job->device, t->slot_grad, t->slot_count * 4);
            slot_ready(t, p4_model_find(model, order[i], l));
        }
    }
}

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

static void forward_backward(p4_trainer *t, int64_t step)
{
    p4_dist *dist = t->job->dist;
    int64_t low = t->sequences * dist->rank / dist->ranks, high = t->sequences * (dist->rank + 1) / dist->ranks;
    int64_t rounds = p4_ceil_div(p4_ceil_div(t->sequences, dist->ranks), t->micro_batch);
    float loss_scale = 1.0f / (float)(t->sequences * (t->T - 1));
    p4_grad_sink sink = {.grad = grad_buffer, .ready = slot_ready, .user = t};
    for (int64_t round = 0; round < rounds; round++) {
        int64_t from = low + round * t->micro_batch, B = p4_min_i64(t->micro_batch, high - from);
        if (B <= 0) {
            idle_round(t);
            continue;
        }
        gather_sequences(t, step, from, B);
        p4_net_set_tokens(&t->net, t->h_ids, B, t->T);
        p4_net_train(&t->net, &t->form, B, t->T, loss_scale, &sink);
    }
}

/* Global sum of squares of the gradients; the loss sums ride along. Same result on every rank. Collective. */
static double total_sq_norm(p4_trainer *t, p4_score *score)
{
    double squares[2];
    if (p4_optim_sq_norms(&t->optim, squares) != P4_OK) {
        p4_abort(t->job->dist, "training step: %s", p4_last_error());
    }
    double sums[4] = {squares[1], score->nll, score->count, score->hits};
    p4_dist_sum_f64(t->job->dist, sums, 4);
    score->nll = sums[1];
    score->count = sums[2];
    score->hits = sums[3];
    return squares[0] + sums[0];
}

p4_rc p4_trainer_step(p4_trainer *t, int64_t step, p4_step_result *result)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &t->job->config;
    double started_s = p4_now_s();
    p4_score score = {0}, unused = {0};
    p4_optim_zero_grad(&t->optim);
    forward_backward(t, step);
    t->job->coll.sum_f32(&t->job->coll, t->optim.grad, t->optim.replicated_count);
    if (p4_net_take_score(&t->net, &score) != P4_OK) {
        p4_abort(t->job->dist, "training step %lld: %s", (long long)step, p4_last_error());
    }
    double squares = total_sq_norm(t, &score);
    *result = (p4_step_result){.loss = score.nll / score.count,
                               .lr = p4_schedule_lr(c->fine_tune_lr, c->lr_final_fraction, c->warmup_steps, step, t->steps),
                               .tokens = t->sequences * t->T,
                               .applied = isfinite(squares) && isfinite(score.nll)};
    if (result->applied) {
        t->bad_steps = 0;
        if (t->optim.settings.grokfast) {
            p4_optim_grokfast(&t->optim);
            squares = total_sq_norm(t, &unused);
        }
        double norm = sqrt(squares), clip = t->optim.settings.clip;
        p4_optim_update(&t->optim, (float)result->lr, clip > 0 && norm > clip ? (float)(clip / norm) : 1.0f);
        p4_trainer_publish(t, NULL);
    } else {
        t->bad_steps++;
        WARN("warning: step %lld skipped: its gradient is not finite", (long long)step + 1);
    }
    result->grad_norm = sqrt(squares);
    if (t->job->ops->sync(t->job->device) != P4_OK) {
        p4_abort(t->job->dist, "training step %lld: %s", (long long)step, p4_last_error());
    }
    result->seconds = p4_now_s() - started_s;
    CHECK(t->bad_steps < BAD_STEPS_MAX,
          "fine-tuning: the gradient was not finite for %d steps in a row; a smaller fine_tune_lr (now %g) may help",
          BAD_STEPS_MAX, c->fine_tune_lr);
done:
    return rc;
}
