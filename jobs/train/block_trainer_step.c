/* block_trainer_step.c - a training step of a few blocks, and what they differ from their targets by. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "jobs/train/block_trainer.h"

enum { BAD_STEPS_MAX = 5 };

/* Gradients lie where the optimizer has them, those of a micro-batch by itself in `leaf`. The first
 * micro-batch of a step writes the matrices; all else is added to. */
static float *grad_buffer(void *user, int64_t param, bool *accumulate)
{
    p4_block_trainer *t = user;
    *accumulate = t->round > 0 || t->plan.exact_sums || !p4_role_is_matrix(t->part.params[param].role);
    return (t->plan.exact_sums ? t->leaf : t->optim.grad) + t->optim.at[param];
}

static int64_t micro_batches(const p4_block_trainer *t)
{
    return p4_ceil_div(t->plan.sequences, t->plan.B);
}

void p4_block_trainer_begin(p4_block_trainer *t, int64_t rounds)
{
    t->round = 0;
    t->rounds_count = rounds;
    p4_block_ranks_keep_up(t);
    if (t->plan.exact_sums) {
        t->compute->ops->zero(t->compute->device, t->optim.grad, t->optim.count * 4);
        memset(t->errors, 0, (size_t)micro_batches(t) * sizeof *t->errors);
    } else {
        p4_block_ranks_begin(t);
    }
}

static p4_grad_sink sink_of(p4_block_trainer *t)
{
    return (p4_grad_sink){.grad = grad_buffer, .user = t};
}

/* The gradient of half the mean squared error over the step's windows, times 2, at the blocks' output. */
static void forward(void *user)
{
    p4_block_trainer *t = user;
    const p4_block_plan *plan = &t->plan;
    const p4_grad_sink sink = sink_of(t);
    float scale = 2.0f / (float)(plan->sequences * plan->T * t->part.arch.C);
    p4_net_blocks_forward(&t->net, &t->form, t->windows, plan->T);
    p4_net_blocks_error(&t->net, t->windows, plan->T, t->target, scale, &t->own->error, &sink);
}

static void backward(p4_block_trainer *t, const p4_grad_sink *sink)
{
    for (int64_t l = t->plan.blocks - 1; l >= 0; l--) {
        p4_net_train_block(&t->net, &t->form, l, t->windows, t->plan.T, sink);
    }
}

static void forward_backward(void *user)
{
    p4_block_trainer *t = user;
    const p4_grad_sink sink = sink_of(t);
    forward(t);
    backward(t, &sink);
}

/* Collective. */
static void add_exact(p4_block_trainer *t, int64_t windows)
{
    const p4_ops *ops = t->compute->ops;
    const p4_group *group = t->compute->group;
    t->windows = windows;
    if (windows > 0) {
        ops->zero(t->compute->device, t->leaf, t->optim.count * 4);
        forward_backward(t);
        ops->to_host(t->compute->device, &t->errors[t->round * group->ranks + group->rank], &t->own->error,
                     sizeof *t->errors);
        ops->zero(t->compute->device, &t->own->error, sizeof t->own->error);
    }
    p4_exact_sums_add_shares(&t->sums, t->optim.grad, t->leaf, t->optim.count,
                             p4_exact_givers(group, micro_batches(t), t->round));
    t->round++;
}

/* What has not run before, or is not kept, may make the host wait for the device, which is to wait for no
 * other rank then. */
static void repeat(p4_block_trainer *t, p4_recording **recording, void (*work)(void *user))
{
    if (*recording == NULL) {
        p4_block_ranks_drain(t);
    }
    t->compute->ops->repeat(t->compute->device, recording, work, t);
}

static void ready(void *user, int64_t first)
{
    p4_block_trainer *t = user;
    t->compute->ops->callout(t->compute->device, p4_block_ranks_ready, t, first);
}

/* Of several ranks: sums start within the last backward pass. */
static void forward_backward_sums(void *user)
{
    p4_block_trainer *t = user;
    p4_grad_sink sink = sink_of(t);
    sink.ready = ready;
    forward(t);
    backward(t, &sink);
}

void p4_block_trainer_add(p4_block_trainer *t, int64_t windows)
{
    bool sums = t->compute->group->ranks > 1 && t->round == t->rounds_count - 1;
    p4_recording **steps = &t->steps[((sums ? 2 : 0) + (t->round > 0 ? 1 : 0)) * (t->plan.B + 1)];
    if (t->plan.exact_sums) {
        add_exact(t, windows);
        return;
    }
    t->windows = windows;
    repeat(t, &steps[windows], sums ? forward_backward_sums : forward_backward);
    t->round++;
}

/* From the figures of all ranks; with exact_sums every rank has the whole gradient. `clip` has read the
 * figures when they are zeroed for the next step. */
static void update_masters(p4_block_trainer *t)
{
    bool whole = t->plan.exact_sums;
    p4_optim_clip(&t->optim, whole ? t->own : t->figures, whole ? 1 : t->compute->group->ranks, t->result);
    t->compute->ops->zero(t->compute->device, t->own, sizeof *t->own);
    p4_optim_update(&t->optim);
}

static void update(void *user)
{
    p4_block_trainer *t = user;
    update_masters(t);
    p4_block_trainer_quantize(t, NULL);
}

/* Of several ranks: what this one updates. */
static void update_own(void *user)
{
    p4_block_trainer *t = user;
    update_masters(t);
    p4_block_trainer_quantize_own(t);
}

static void unpack_own(void *user)
{
    p4_block_trainer_unpack_owned(user, true);
}

static void unpack_others(void *user)
{
    p4_block_trainer_unpack_owned(user, false);
}

/* Collective. */
static void update_all(p4_block_trainer *t)
{
    if (t->compute->group->ranks == 1) {
        repeat(t, &t->update, update);
        return;
    }
    repeat(t, &t->update, update_own);
    p4_block_ranks_publish(t);
    repeat(t, &t->unpack_own, unpack_own); /* while the others' are on their way */
    t->compute->coll.order_after(&t->compute->coll, t->ranks.published);
    repeat(t, &t->unpack_others, unpack_others);
}

void p4_block_trainer_sum(p4_block_trainer *t)
{
    if (t->plan.exact_sums) {
        p4_exact_sums_share(&t->sums, t->optim.grad, t->optim.count);
        p4_exact_gather(t->compute->group, t->errors, micro_batches(t));
        t->totals[t->queued] = p4_exact_total(t->errors, micro_batches(t));
    } else if (t->compute->group->ranks > 1) {
        p4_block_ranks_sum(t);
    }
}

void p4_block_trainer_end(p4_block_trainer *t, float lr, double mean_square)
{
    const p4_ops *ops = t->compute->ops;
    assert(t->queued < P4_BLOCK_STEPS_AHEAD);
    p4_optim_put_unclipped(&t->optim, lr, mean_square);
    if (t->compute->group->ranks > 1 && !t->plan.exact_sums) {
        p4_block_ranks_join(t);
    } else {
        p4_optim_sq_norms(&t->optim);
    }
    update_all(t);
    ops->copy(t->compute->device, &t->results[t->queued], t->result, sizeof *t->result);
    t->mean_square = mean_square;
    t->queued++;
}

/* Counts those that were skipped. */
static void note_results(p4_block_trainer *t, const p4_clip_result *h_results)
{
    for (int64_t i = 0; i < t->queued && t->bad_steps < BAD_STEPS_MAX; i++) {
        if (isfinite(h_results[i].norm) && isfinite(h_results[i].error)) {
            t->bad_steps = 0;
        } else {
            t->bad_steps++;
            WARN("warning: reconstruction of layer %lld: a step is skipped: its gradient is not finite",
                 (long long)t->layer);
        }
    }
}

p4_rc p4_block_trainer_look(p4_block_trainer *t, double *error)
{
    p4_rc rc = P4_OK;
    p4_compute *c = t->compute;
    p4_clip_result h_results[P4_BLOCK_STEPS_AHEAD];
    const int64_t last = t->queued - 1, values = t->plan.sequences * t->plan.T * t->part.arch.C;
    if (last < 0) {
        return P4_OK;
    }
    c->coll.synchronize(&c->coll, "reconstruction of layer %lld: gradient sums", (long long)t->layer);
    c->ops->to_host(c->device, h_results, t->results, t->queued * (int64_t)sizeof *h_results);
    if (c->ops->sync(c->device) != P4_OK) {
        p4_abort(c->group, "reconstruction of layer %lld: %s", (long long)t->layer, p4_last_error());
    }
    note_results(t, h_results);
    *error = t->plan.exact_sums ? t->totals[last] : h_results[last].error;
    *error /= (double)values * t->mean_square;
    t->queued = 0;
    CHECK(t->bad_steps < BAD_STEPS_MAX,
          "reconstruction of layer %lld: the gradient was not finite for %d steps in a row; a smaller "
          "reconstruct_lr may help",
          (long long)t->layer, BAD_STEPS_MAX);
done:
    return rc;
}

void p4_block_trainer_measure(p4_block_trainer *t, int64_t windows)
{
    p4_block_ranks_settle(t);
    p4_net_blocks_forward(&t->net, &t->form, windows, t->plan.T);
    p4_net_blocks_error(&t->net, windows, t->plan.T, t->target, 1.0f, &t->own->error, NULL);
}

p4_rc p4_block_trainer_take_error(p4_block_trainer *t, double *sum)
{
    t->compute->ops->to_host(t->compute->device, sum, &t->own->error, sizeof *sum);
    t->compute->ops->zero(t->compute->device, &t->own->error, sizeof *sum);
    return t->compute->ops->sync(t->compute->device);
}
