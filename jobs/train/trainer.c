#include "jobs/train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Tensors that are not ternary are used as their FP32 masters. */
static void view_masters(p4_trainer *t)
{
    const p4_model *model = t->model;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (p->ternary) {
            continue;
        }
        float *master = t->optim.master + t->optim.at[i];
        t->form.weights[i] = (p4_weight){.dtype = P4_F32, .rows = p->rows, .cols = p->cols, .data = master};
        t->form.vectors[i] = p->vector ? master : NULL;
    }
}

static p4_rc size_steps(p4_trainer *t)
{
    const p4_train_plan *plan = &t->plan;
    int64_t rank = t->compute->group->rank, ranks = t->compute->group->ranks,
            windows = p4_training_set_count(t->training_set);
    p4_rc rc = P4_OK;
    CHECK(windows >= plan->sequences,
          "fine-tuning: found %lld window%s of %lld tokens in the training data, expected at least %lld: one "
          "step",
          (long long)windows, p4_plural(windows), (long long)plan->T, (long long)plan->sequences);
    t->batch.most = p4_ceil_div(plan->sequences, ranks);
    t->batch.low = plan->exact_sums ? 0 : plan->sequences * rank / ranks;
    t->batch.high = plan->exact_sums ? plan->sequences : plan->sequences * (rank + 1) / ranks;
    t->steps.per_epoch = windows / plan->sequences;
    t->steps.total = t->steps.per_epoch * plan->epochs;
    if (plan->max_steps > 0) {
        t->steps.total = p4_min_i64(t->steps.total, plan->max_steps);
    }
    TRY(p4_training_set_schedule(t->training_set, plan->seed, plan->sequences, t->batch.low, t->batch.high));
done:
    return rc;
}

/* Sizes and the order of windows. Local. */
static p4_rc open_plan(p4_trainer *t)
{
    p4_rc rc = P4_OK;
    CHECK(t->plan.lr > 0, "fine-tuning: found learning rate %g, expected more than 0", t->plan.lr);
    TRY(p4_quantize_plan_check(&t->plan.quantize));
    TRY(t->plan.exact_sums ? p4_compute_check_exact(t->compute) : P4_OK);
    TRY(size_steps(t));
    TRY(p4_trainer_open_tables(t));
done:
    return rc;
}

/* What training takes of the device at least, beside a teacher: an estimate. -1: out of host memory. Local.
 */
static int64_t least_bytes(const p4_trainer *t)
{
    int64_t element_bytes = 2 * 4 + (t->plan.optim.half_state ? 2 : 4) * (t->plan.optim.grokfast ? 3 : 2);
    int64_t bytes = 0;
    for (int64_t i = 0; i < t->model->params_count; i++) {
        const p4_param *p = &t->model->params[i];
        bytes += p4_trainer_holds(t, i) ? p->rows * p->cols * element_bytes : 0;
        bytes += p->ternary ? p->rows * p4_code_row_bytes(p->cols) : 0;
    }
    p4_net_plan plan = p4_trainer_net_plan(t, 1);
    int64_t net = p4_net_bytes(t->compute->ops, t->compute->device, t->model, &plan);
    return net < 0 ? -1 : bytes + net;
}

/* Collective. */
static p4_rc open_teacher(p4_trainer *t)
{
    p4_rc rc = P4_OK;
    if (t->plan.teacher.weight <= 0) {
        return P4_OK;
    }
    int64_t bytes = least_bytes(t);
    TRY_ALL(t->compute->group, bytes >= 0 ? P4_OK : P4_E_SYSTEM);
    p4_teacher_plan plan = t->plan.teacher;
    plan.steps = t->steps.total;
    plan.sequences = t->plan.sequences;
    if (t->plan.exact_sums && plan.kind == P4_TEACHER_AUTO) { /* not by memory, which depends on the ranks */
        plan.kind = P4_TEACHER_RESIDENT;
    }
    TRY(p4_teacher_open(&t->teacher, t->compute, t->original, t->training_set, &plan, bytes));
done:
    return rc;
}

/* What this rank holds: codes, masters and optimizer state. Local. */
static p4_rc open_holdings(p4_trainer *t, bool *held)
{
    p4_rc rc = P4_OK;
    const p4_model *model = t->model;
    TRY(held != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < model->params_count; i++) {
        held[i] = p4_trainer_holds(t, i);
    }
    TRY(p4_optim_open(&t->optim, t->compute->ops, t->compute->device, model, &t->plan.optim, held,
                      t->sharded));
    TRY(p4_trainer_codes_open(t));
    view_masters(t);
    TRY(p4_trainer_sums_layout(t));
    TRY(p4_trainer_norms_open(t));
    TRY(p4_trainer_choose_micro_batch(t, t->compute->ops->room_bytes(t->compute->device)));
done:
    return rc;
}

/* What a step computes in. Local. */
static p4_rc open_work(p4_trainer *t)
{
    p4_rc rc = P4_OK;
    const p4_model *model = t->model;
    p4_net_plan plan = p4_trainer_net_plan(t, t->batch.size);
    t->batch.count = t->plan.exact_sums
                         ? p4_ceil_div(p4_trainer_exact_micro_batches(t), t->compute->group->ranks)
                         : p4_ceil_div(t->batch.most, t->batch.size);
    t->batch.h_ids = p4_alloc((size_t)(t->batch.size * t->plan.T), sizeof *t->batch.h_ids);
    TRY(t->batch.h_ids != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_net_open(&t->net, t->compute->ops, t->compute->device, model, &plan));
    TRY(p4_teacher_reserve(&t->teacher, t->batch.size));
    t->net.teacher = p4_teacher_is_open(&t->teacher) ? &t->teacher.view : NULL;
    TRY(t->compute->ops->alloc(t->compute->device, (void **)&t->figures,
                               P4_FIGURES * (int64_t)sizeof *t->figures));
    t->compute->ops->zero(t->compute->device, t->figures, P4_FIGURES * (int64_t)sizeof *t->figures);
    t->net.sums = t->figures;
    t->optim.sums = t->figures + P4_NET_SUMS;
    TRY(p4_trainer_sums_open(t));
done:
    return rc;
}

static bool is_known(const p4_masters *masters, int64_t i)
{
    return masters != NULL && masters->known[i];
}

/* Masters that this rank has the value of. Local. */
static p4_rc set_own_masters(p4_trainer *t, const bool *held, const p4_masters *masters)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < t->model->params_count; i++) {
        const p4_param *p = &t->model->params[i];
        p4_weight known = {.dtype = P4_F32, .rows = p->rows, .cols = p->cols};
        if (!held[i]) {
            continue;
        }
        known.data = is_known(masters, i) ? masters->of[i] : NULL;
        if (known.data != NULL || !is_known(masters, i)) {
            TRY(p4_optim_set_master(&t->optim, i, known.data != NULL ? &known : &t->model->weights[i]));
        }
        p4_hf_model_drop_pages(&t->original->hf, i);
    }
done:
    return rc;
}

/* The values of the masters. A ternary matrix that is replicated is known to its owner alone. Collective. */
static p4_rc set_masters(p4_trainer *t, const bool *held, const p4_masters *masters)
{
    p4_rc rc = P4_OK;
    float *h_value = NULL;
    TRY_ALL(t->compute->group, set_own_masters(t, held, masters));
    for (int64_t i = 0; t->compute->group->ranks > 1 && i < t->model->params_count; i++) {
        const p4_param *p = &t->model->params[i];
        if (!is_known(masters, i) || !p->ternary || t->sharded[i]) {
            continue;
        }
        TRY(p4_masters_fetch(masters, t->compute->group, &t->original->shard, i, &h_value));
        p4_weight known = {.dtype = P4_F32, .rows = p->rows, .cols = p->cols, .data = h_value};
        TRY_ALL(t->compute->group, p4_optim_set_master(&t->optim, i, &known));
        free(h_value);
        h_value = NULL;
    }
done:
    free(h_value);
    return rc;
}

p4_rc p4_trainer_open(p4_trainer *t, p4_compute *compute, const p4_original *original,
                      p4_training_set *training_set, const p4_train_plan *plan, p4_masters *masters)
{
    p4_rc rc = P4_OK;
    bool *held = p4_alloc((size_t)original->hf.model.params_count, sizeof *held);
    *t = (p4_trainer){.compute = compute,
                      .original = original,
                      .model = &original->hf.model,
                      .training_set = training_set,
                      .plan = *plan};
    TRY_ALL(t->compute->group, open_plan(t));
    TRY(open_teacher(t));
    TRY_ALL(t->compute->group, open_holdings(t, held));
    double fewest = -(double)t->batch.size; /* ranks may hold more or less: as many micro-batches for all */
    p4_group_max_f64(t->compute->group, &fewest, 1);
    t->batch.size = (int64_t)-fewest;
    TRY(set_masters(t, held, masters));
    if (masters != NULL) {
        p4_masters_close(masters);
    }
    TRY_ALL(t->compute->group, open_work(t));
    TRY(p4_trainer_sums_share(t));
    TRY_ALL(t->compute->group, p4_trainer_start_scales(t));
    TRY(p4_trainer_requantize(t));
    TRY(p4_teacher_measure(&t->teacher, &t->net, &t->form));
done:
    free(held);
    if (rc != P4_OK) {
        p4_trainer_close(t);
    }
    return rc;
}

p4_rc p4_trainer_requantize(p4_trainer *t)
{
    p4_trainer_quantize(t, NULL);
    p4_trainer_publish_codes(t);
    p4_trainer_unpack(t);
    t->compute->coll.synchronize(&t->compute->coll, "fine-tuning: codes of the masters");
    return p4_agree(t->compute->group, t->compute->ops->sync(t->compute->device));
}

static void forget_all(p4_trainer *t)
{
    for (int64_t i = 0; t->records.pieces != NULL && i < P4_RECORDED_MICRO_BATCHES * p4_trainer_pieces(t);
         i++) {
        t->compute->ops->forget(t->compute->device, &t->records.pieces[i]);
    }
    t->compute->ops->forget(t->compute->device, &t->records.filter);
    t->compute->ops->forget(t->compute->device, &t->records.update);
}

void p4_trainer_close(p4_trainer *t)
{
    if (t->compute != NULL) {
        forget_all(t); /* before the memory goes */
    }
    if (t->figures != NULL) {
        t->compute->ops->release(t->compute->device, t->figures);
    }
    if (t->compute != NULL) {
        p4_trainer_sums_close(t); /* withdraws the codes' memory too */
        p4_trainer_codes_close(t);
        p4_trainer_norms_close(t);
    }
    if (t->optim.ops != NULL) {
        p4_optim_close(&t->optim);
    }
    if (t->net.ops != NULL) {
        p4_net_close(&t->net);
    }
    p4_teacher_close(&t->teacher);
    free(t->batch.h_ids);
    p4_trainer_close_tables(t);
    *t = (p4_trainer){0};
}

/* The fp16 values of a replicated master. Local. */
static p4_rc store_half(p4_trainer *t, p4_packed *c, int64_t i)
{
    const p4_param *p = &t->model->params[i];
    int64_t count = p->rows * p->cols;
    p4_weight master = {.dtype = P4_F32, .rows = p->rows, .cols = p->cols};
    float *h_master = p4_alloc((size_t)count, sizeof *h_master);
    if (h_master == NULL) {
        return P4_E_SYSTEM;
    }
    t->compute->ops->to_host(t->compute->device, h_master, t->optim.master + t->optim.at[i], count * 4);
    master.data = h_master;
    p4_rc rc = p4_packed_preserve(c, i, &master, "fine-tuning", t->compute->threads);
    free(h_master);
    return rc;
}

static p4_rc store_all(p4_trainer *t, p4_packed *c)
{
    p4_rc rc = P4_OK;
    const p4_model *model = t->model;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (p->ternary) {
            const p4_weight *live = &t->codes.of[i];
            t->compute->ops->to_host(t->compute->device, p4_packed_codes(c, i), live->data,
                                     p->rows * p4_code_row_bytes(p->cols));
            t->compute->ops->to_host(t->compute->device, p4_packed_scale(c, i), live->scale,
                                     p4_weight_scale_count(live) * 2);
            CHECK(isfinite(c->errors[i].scale_max),
                  "fine-tuning: tensor %s has a row whose scale fp16 cannot hold (up to "
                  "65504); a smaller fine_tune_lr (now %g) may help",
                  p->name, t->plan.lr);
        } else {
            TRY(store_half(t, c, i));
        }
    }
    TRY(t->compute->ops->sync(t->compute->device));
done:
    return rc;
}

p4_rc p4_trainer_commit(p4_trainer *t, p4_packed *c)
{
    p4_rc rc = P4_OK;
    const p4_model *model = t->model;
    p4_trainer_quantize(t, c->errors); /* of the masters that the unpacked weights are of */
    p4_trainer_publish_codes(t);
    t->compute->coll.synchronize(&t->compute->coll, "fine-tuning: the codes to keep");
    TRY_ALL(t->compute->group,
            t->compute->ops->sync(t->compute->device)); /* the figures are on the host from here */
    for (int64_t i = 0; t->compute->group->ranks > 1 && i < model->params_count; i++) {
        if (t->sharded[i]) {
            p4_group_bcast(t->compute->group, &c->errors[i], sizeof c->errors[i],
                           t->original->shard.owner[i]);
        }
    }
    TRY_ALL(t->compute->group, store_all(t, c));
    c->is_compressed = true;
done:
    return rc;
}

p4_trainer_memory p4_trainer_bytes(const p4_trainer *t)
{
    return (p4_trainer_memory){.optim = p4_optim_bytes(&t->optim),
                               .codes_bytes = t->codes.bytes,
                               .activations_bytes = t->net.memory_bytes,
                               .staging_bytes = p4_trainer_sums_bytes(t, t->batch.count),
                               .teacher_bytes = p4_teacher_bytes(&t->teacher)};
}
