/* block_trainer_step.c - a training step of a few blocks, and what they differ from their targets by. */
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
    p4_block_ranks_settle(t);
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
    p4_net_blocks_error(&t->net, t->windows, plan->T, t->target, scale, t->figures, &sink);
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
        ops->to_host(t->compute->device, &t->errors[t->round * group->ranks + group->rank], t->figures,
                     sizeof *t->errors);
        ops->zero(t->compute->device, t->figures, sizeof *t->figures);
    }
    p4_exact_sums_add_shares(&t->sums, t->optim.grad, t->leaf, t->optim.count,
                             p4_exact_givers(group, micro_batches(t), t->round));
    t->round++;
}

/* Of several ranks: sums start between the launches of the last backward pass, so that it is not recorded.
 * Blocks that are worth several GPUs hide its launches behind its kernels. Collective. */
static void add_beside_sums(p4_block_trainer *t)
{
    p4_grad_sink sink = sink_of(t);
    sink.ready = t->round == t->rounds_count - 1 ? p4_block_ranks_ready : NULL;
    t->compute->ops->repeat(t->compute->device, &t->steps[t->windows], forward, t);
    backward(t, &sink);
}

void p4_block_trainer_add(p4_block_trainer *t, int64_t windows)
{
    int64_t later = t->round > 0 ? t->plan.B + 1 : 0;
    if (t->plan.exact_sums) {
        add_exact(t, windows);
        return;
    }
    t->windows = windows;
    if (t->compute->group->ranks > 1) {
        add_beside_sums(t);
    } else {
        t->compute->ops->repeat(t->compute->device, &t->steps[later + windows], forward_backward, t);
    }
    t->round++;
}

static void update(void *user)
{
    p4_block_trainer *t = user;
    p4_optim_update(&t->optim);
    p4_block_trainer_quantize(t, NULL);
}

/* Of several ranks: what this one updates. */
static void update_own(void *user)
{
    p4_block_trainer *t = user;
    p4_optim_update(&t->optim);
    p4_block_trainer_quantize_own(t);
}

static void unpack(void *user)
{
    p4_block_trainer_unpack(user);
}

/* Collective. */
static void update_all(p4_block_trainer *t)
{
    const p4_ops *ops = t->compute->ops;
    if (t->compute->group->ranks == 1) {
        ops->repeat(t->compute->device, &t->update, update, t);
        return;
    }
    ops->repeat(t->compute->device, &t->update, update_own, t);
    p4_block_ranks_publish(t);
    if (t->plan.activation_bits == 0) { /* integer products take codes */
        ops->repeat(t->compute->device, &t->unpack, unpack, t);
    }
}

/* Sums the gradients over the ranks. figures: the squared error, the squares of the gradient; the same on
 * every rank. Collective. */
static void sum_over_ranks(p4_block_trainer *t, double figures[2])
{
    p4_compute *c = t->compute;
    double h_figures[P4_BLOCK_FIGURES] = {0};
    if (t->plan.exact_sums) {
        p4_exact_sums_share(&t->sums, t->optim.grad, t->optim.count);
    }
    if (c->group->ranks > 1 && !t->plan.exact_sums) {
        p4_block_ranks_finish(t);
    } else {
        p4_optim_sq_norms(&t->optim);
    }
    c->coll.synchronize(&c->coll, "reconstruction of layer %lld: gradient sums", (long long)t->layer);
    c->ops->to_host(c->device, h_figures, t->figures, sizeof h_figures);
    c->ops->zero(c->device, t->figures, sizeof h_figures);
    if (c->ops->sync(c->device) != P4_OK) {
        p4_abort(c->group, "reconstruction of layer %lld: %s", (long long)t->layer, p4_last_error());
    }
    figures[0] = h_figures[0];
    figures[1] = (c->group->rank == 0 ? h_figures[1] : 0.0) + h_figures[2];
    p4_group_sum_f64(c->group, figures, 2);
    if (t->plan.exact_sums) {
        p4_exact_gather(c->group, t->errors, micro_batches(t));
        figures[0] = p4_exact_total(t->errors, micro_batches(t));
    }
}

p4_rc p4_block_trainer_end(p4_block_trainer *t, float lr, double mean_square, double *error)
{
    p4_rc rc = P4_OK;
    const p4_block_plan *plan = &t->plan;
    double figures[2];
    sum_over_ranks(t, figures);
    double norm = sqrt(figures[1]) / mean_square, clip = plan->optim.clip;
    *error = figures[0] / ((double)(plan->sequences * plan->T * t->part.arch.C) * mean_square);
    if (isfinite(norm) && isfinite(*error)) {
        double g_scale = (clip > 0 && norm > clip ? clip / norm : 1.0) / mean_square;
        t->bad_steps = 0;
        p4_optim_put_update(&t->optim, lr, (float)g_scale);
        update_all(t);
    } else {
        t->bad_steps++;
        WARN("warning: reconstruction of layer %lld: a step is skipped: its gradient is not finite",
             (long long)t->layer);
    }
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
    p4_net_blocks_error(&t->net, windows, t->plan.T, t->target, 1.0f, t->figures, NULL);
}

p4_rc p4_block_trainer_take_error(p4_block_trainer *t, double *sum)
{
    t->compute->ops->to_host(t->compute->device, sum, t->figures, sizeof *sum);
    t->compute->ops->zero(t->compute->device, t->figures, sizeof *sum);
    return t->compute->ops->sync(t->compute->device);
}
