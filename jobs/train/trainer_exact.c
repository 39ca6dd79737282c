/* trainer_exact.c - a step whose gradients, norm and losses have the same bits on any number of ranks
 * (exact_sums.h). The gradients of a micro-batch are leaves: those of the blocks' matrices lie in `staging`,
 * a layer at a time, all others in exact.leaf. They are added to optim.grad of the rank that holds the master
 * or, where all ranks hold it, in shares that are put together when the step's last micro-batch is done. */
#include <stdlib.h>
#include <string.h>

#include "jobs/train/trainer.h"

enum { LOSSES = P4_TRAIN_LOSSES, FLAGS = 3 };

int64_t p4_trainer_exact_micro_batches(const p4_trainer *t)
{
    return p4_ceil_div(t->plan.sequences, t->batch.size);
}

/* Gradients of everything but the matrices of blocks lie first in the flat array. */
static int64_t leaf_count(const p4_trainer *t)
{
    int64_t end = 0;
    for (int64_t i = 0; i < t->model->params_count; i++) {
        const p4_param *p = &t->model->params[i];
        if (!p4_role_is_matrix(p->role)) {
            end = p4_max_i64(end, t->optim.at[i] + p->rows * p->cols);
        }
    }
    return end;
}

int64_t p4_trainer_exact_bytes(const p4_trainer *t)
{
    return t->plan.exact_sums ? leaf_count(t) * (int64_t)sizeof(float) + p4_exact_sums_bytes(t->compute) : 0;
}

/* Every micro-batch's losses, the squares of every gradient, the step's flags. */
static int64_t figures_count(const p4_trainer *t)
{
    return LOSSES * p4_trainer_exact_micro_batches(t) + t->model->params_count + FLAGS;
}

p4_rc p4_trainer_exact_open(p4_trainer *t)
{
    p4_rc rc = P4_OK;
    p4_trainer_exact *e = &t->exact;
    if (!t->plan.exact_sums) {
        return P4_OK;
    }
    e->leaf_count = leaf_count(t);
    e->losses = p4_alloc((size_t)(LOSSES * p4_trainer_exact_micro_batches(t)), sizeof *e->losses);
    e->figures = p4_alloc((size_t)figures_count(t), sizeof *e->figures);
    TRY(e->losses != NULL && e->figures != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(t->compute->ops->alloc(t->compute->device, (void **)&e->leaf,
                               e->leaf_count * (int64_t)sizeof *e->leaf));
    t->compute->ops->zero(t->compute->device, e->leaf,
                          e->leaf_count * (int64_t)sizeof *e->leaf); /* also between parameters */
    TRY(p4_exact_sums_open(&e->sums, t->compute));
done:
    return rc;
}

void p4_trainer_exact_close(p4_trainer *t)
{
    p4_trainer_exact *e = &t->exact;
    if (e->leaf != NULL) {
        t->compute->ops->release(t->compute->device, e->leaf);
    }
    p4_exact_sums_close(&e->sums);
    free(e->losses);
    free(e->figures);
}

void p4_trainer_exact_start(p4_trainer *t)
{
    t->compute->ops->zero(t->compute->device, t->optim.grad, t->optim.count * (int64_t)sizeof *t->optim.grad);
    memset(t->exact.losses, 0,
           (size_t)(LOSSES * p4_trainer_exact_micro_batches(t)) * sizeof *t->exact.losses);
}

/* The head's leaves are overwritten (p4_trainer_overwrites), those of a slot too. */
void p4_trainer_exact_start_micro_batch(p4_trainer *t)
{
    for (int64_t i = 0; i < t->model->params_count; i++) {
        const p4_param *p = &t->model->params[i];
        if (!p4_role_is_matrix(p->role) && i != p4_net_head_param(&t->net)) {
            t->compute->ops->zero(t->compute->device, t->exact.leaf + t->optim.at[i],
                                  p->rows * p->cols * (int64_t)sizeof *t->exact.leaf);
        }
    }
}

static int givers(const p4_trainer *t)
{
    return p4_exact_givers(t->compute->group, p4_trainer_exact_micro_batches(t), t->batch.index);
}

void p4_trainer_exact_add(p4_trainer *t, int64_t param, const float *leaf)
{
    const p4_param *p = &t->model->params[param];
    int64_t count = p->rows * p->cols, at = t->optim.at[param];
    float *sum = at >= 0 ? t->optim.grad + at : NULL;
    if (t->sharded[param]) {
        p4_exact_sums_add(&t->exact.sums, sum, leaf, count, givers(t), t->original->shard.owner[param]);
    } else {
        p4_exact_sums_add_shares(&t->exact.sums, sum, leaf, count, givers(t));
    }
}

void p4_trainer_exact_end_micro_batch(p4_trainer *t)
{
    p4_trainer_exact *e = &t->exact;
    const p4_group *group = t->compute->group;
    p4_exact_sums_add_shares(&e->sums, t->optim.grad, e->leaf, e->leaf_count, givers(t));
    if (t->batch.B > 0) {
        double *losses = e->losses + LOSSES * (t->batch.index * group->ranks + group->rank), sums[P4_FIGURES];
        t->compute->ops->to_host(t->compute->device, sums, t->figures, sizeof sums);
        t->compute->ops->zero(t->compute->device, t->figures, sizeof sums);
        p4_trainer_losses(sums, losses);
    }
}

void p4_trainer_exact_finish(p4_trainer *t)
{
    p4_exact_sums_share(&t->exact.sums, t->optim.grad, t->exact.leaf_count);
    for (int64_t i = 0; i < t->model->params_count; i++) {
        const p4_param *p = &t->model->params[i];
        if (p4_role_is_matrix(p->role) && !t->sharded[i]) {
            p4_exact_sums_share(&t->exact.sums, t->optim.grad + t->optim.at[i], p->rows * p->cols);
        }
    }
}

/* The squares of what this rank speaks for: of sharded gradients the owner, of the others rank 0. */
static void put_squares(p4_trainer *t, double *squares)
{
    for (int64_t i = 0; i < t->model->params_count; i++) {
        const p4_param *p = &t->model->params[i];
        if (t->optim.at[i] >= 0 && (t->sharded[i] || t->compute->group->rank == 0)) {
            t->compute->ops->add_sq_norm(t->compute->device, &squares[i], t->optim.grad + t->optim.at[i],
                                         p->rows * p->cols);
        }
    }
}

void p4_trainer_exact_figures(p4_trainer *t, double *squares, double losses[LOSSES], double flags[3])
{
    double *figures = t->exact.figures;
    int64_t micro_batches = p4_trainer_exact_micro_batches(t), params = t->model->params_count,
            count = figures_count(t);
    memset(figures, 0, (size_t)count * sizeof *figures);
    for (int64_t i = 0; i < LOSSES * micro_batches; i++) { /* each kind together */
        figures[i % LOSSES * micro_batches + i / LOSSES] = t->exact.losses[i];
    }
    put_squares(t, figures + LOSSES * micro_batches);
    memcpy(figures + LOSSES * micro_batches + params, flags, FLAGS * sizeof *flags);
    p4_exact_gather(t->compute->group, figures, count);
    for (int i = 0; i < LOSSES; i++) {
        losses[i] = p4_exact_total(figures + i * micro_batches, micro_batches);
    }
    *squares = p4_exact_total(figures + LOSSES * micro_batches, params);
    memcpy(flags, figures + LOSSES * micro_batches + params, FLAGS * sizeof *flags);
}
