#include "jobs/train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool holds(const p4_trainer *t, int64_t i)
{
    return !t->sharded[i] || t->job->shard.owner[i] == t->job->compute.group->rank;
}

/* Tensors that are not ternary are used as their FP32 masters. */
static void view_masters(p4_trainer *t)
{
    const p4_model *model = &t->job->hf.model;
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

static p4_optim_settings settings_of(const p4_config *c)
{
    return (p4_optim_settings){.muon = c->optimizer == P4_OPTIMIZER_MUGROKFAST,
                               .grokfast = c->enable_grokfast,
                               .ema_alpha = (float)c->grokfast_ema_alpha,
                               .ema_lambda = (float)c->grokfast_lambda,
                               .momentum = 0.95f,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .eps = 1e-8f,
                               .weight_decay = (float)c->weight_decay,
                               .clip = (float)c->gradient_clip,
                               .half_state = c->optimizer_state == P4_OPTIMIZER_STATE_BF16,
                               .seed = c->seed};
}

static p4_rc size_steps(p4_trainer *t)
{
    const p4_config *c = &t->job->config;
    int64_t ranks = t->job->compute.group->ranks, windows = t->job->train.count;
    p4_rc rc = P4_OK;
    t->T = c->calibration_sequence_length;
    t->sequences = c->global_batch_tokens > 0 ? c->global_batch_tokens / t->T : c->calibration_batch_size;
    CHECK(windows >= t->sequences,
          "fine-tuning: found %lld window%s of %lld tokens in the training data, expected at least %lld, one "
          "step's worth",
          (long long)windows, p4_plural(windows), (long long)t->T, (long long)t->sequences);
    t->share = p4_ceil_div(t->sequences, ranks);
    t->low = t->sequences * t->job->compute.group->rank / ranks;
    t->high = t->sequences * (t->job->compute.group->rank + 1) / ranks;
    t->steps_per_epoch = windows / t->sequences;
    t->steps = t->steps_per_epoch * c->fine_tune_epochs;
    if (c->fine_tune_max_steps > 0) {
        t->steps = p4_min_i64(t->steps, c->fine_tune_max_steps);
    }
    t->order_epoch = -1;
done:
    return rc;
}

static p4_net_plan plan_of(const p4_trainer *t, int64_t micro_batch)
{
    const p4_config *c = &t->job->config;
    return (p4_net_plan){.B = micro_batch,
                         .T = t->T,
                         .train = true,
                         .recompute = c->recompute,
                         .activation_bits = c->activation_bits,
                         .head = true};
}

/* Sequences at once where the configuration leaves it open. CPU: at most 8. GPU: what fills it
 * (MICRO_BATCH_TOKENS), in equal parts of the share, as long as activations and gradients on their way to
 * owners take at most ROOM_SHARE of the memory that the optimizer left: the rest is for evaluation. Local. */
static p4_rc choose_micro_batch(p4_trainer *t, int64_t share)
{
    enum { CPU_MOST = 8, MICRO_BATCH_TOKENS = 32768 };
    const double ROOM_SHARE = 0.75;
    p4_job *job = t->job;
    int64_t room = job->compute.ops->room_bytes(job->compute.device);
    int64_t most = job->compute.ops->host_memory ? CPU_MOST : p4_max_i64(1, MICRO_BATCH_TOKENS / t->T);
    for (int64_t parts = p4_ceil_div(share, most);; parts++) {
        int64_t micro_batch = p4_ceil_div(share, parts);
        if (micro_batch == t->micro_batch) {
            continue; /* as with fewer parts */
        }
        t->micro_batch = micro_batch;
        p4_net_plan plan = plan_of(t, micro_batch);
        int64_t bytes = p4_net_bytes(job->compute.ops, job->compute.device, &job->hf.model, &plan);
        if (bytes < 0) {
            return P4_E_SYSTEM;
        }
        bytes += p4_trainer_sums_bytes(t, p4_ceil_div(share, micro_batch));
        if (job->compute.ops->host_memory || micro_batch == 1 || (double)bytes <= ROOM_SHARE * (double)room) {
            return P4_OK;
        }
    }
}

static p4_rc take_host_memory(p4_trainer *t)
{
    const p4_model *model = &t->job->hf.model;
    size_t params = (size_t)model->params_count;
    t->sharded = p4_alloc(params, sizeof *t->sharded);
    t->form.weights = p4_alloc(params, sizeof *t->form.weights);
    t->form.vectors = p4_alloc(params, sizeof *t->form.vectors);
    t->order = p4_alloc((size_t)t->job->train.count, sizeof *t->order);
    t->records = p4_alloc((size_t)(P4_ROUND_RECORDS * p4_trainer_pieces(t)), sizeof *t->records);
    bool all = t->sharded != NULL && t->form.weights != NULL && t->form.vectors != NULL && t->order != NULL &&
               t->records != NULL;
    for (int64_t i = 0; all && i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        t->sharded[i] = t->job->config.zero_stage > 0 && p->ternary && p4_role_is_matrix(p->role);
    }
    return all ? P4_OK : P4_E_SYSTEM;
}

/* Sizes, and what this rank holds: codes, masters and optimizer state. Local. */
static p4_rc open_holdings(p4_trainer *t, bool *held)
{
    p4_rc rc = P4_OK;
    p4_job *job = t->job;
    const p4_model *model = &job->hf.model;
    TRY(held != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(size_steps(t));
    TRY(take_host_memory(t));
    for (int64_t i = 0; i < model->params_count; i++) {
        held[i] = holds(t, i);
    }
    p4_optim_settings settings = settings_of(&job->config);
    TRY(p4_optim_open(&t->optim, job->compute.ops, job->compute.device, model, &settings, held, t->sharded));
    TRY(p4_trainer_codes_open(t));
    view_masters(t);
    TRY(p4_trainer_sums_layout(t));
    TRY(p4_trainer_norms_open(t));
    if (job->config.micro_batch_size > 0) {
        t->micro_batch = p4_min_i64(t->share, job->config.micro_batch_size);
    } else {
        TRY(choose_micro_batch(t, t->share));
    }
done:
    return rc;
}

/* What a step computes in, and the masters' values. Local. */
static p4_rc open_work(p4_trainer *t, const bool *held)
{
    p4_rc rc = P4_OK;
    p4_job *job = t->job;
    const p4_model *model = &job->hf.model;
    p4_net_plan plan = plan_of(t, t->micro_batch);
    t->rounds = p4_ceil_div(t->share, t->micro_batch);
    t->h_ids = p4_alloc((size_t)(t->micro_batch * t->T), sizeof *t->h_ids);
    TRY(t->h_ids != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_net_open(&t->net, job->compute.ops, job->compute.device, model, &plan));
    TRY(job->compute.ops->alloc(job->compute.device, (void **)&t->figures,
                                P4_FIGURES * (int64_t)sizeof *t->figures));
    t->net.sums = t->figures;
    t->optim.sums = t->figures + P4_NET_SUMS;
    TRY(p4_trainer_sums_open(t));
    for (int64_t i = 0; i < model->params_count; i++) {
        if (held[i]) {
            TRY(p4_optim_set_master(&t->optim, i, &model->weights[i]));
            p4_hf_model_drop_pages(&job->hf, i);
        }
    }
done:
    return rc;
}

p4_rc p4_trainer_open(p4_trainer *t, p4_job *job)
{
    p4_rc rc = P4_OK;
    bool *held = p4_alloc((size_t)job->hf.model.params_count, sizeof *held);
    *t = (p4_trainer){.job = job};
    TRY_ALL(job->compute.group, open_holdings(t, held));
    double fewest = -(double)t->micro_batch; /* ranks may hold more or less: the same rounds for all */
    p4_group_max_f64(job->compute.group, &fewest, 1);
    t->micro_batch = (int64_t)-fewest;
    TRY_ALL(job->compute.group, open_work(t, held));
    TRY(p4_trainer_sums_share(t));
    p4_trainer_quantize(t, NULL);
    p4_trainer_share_codes(t);
    p4_trainer_unpack(t);
    job->compute.coll.settle(&job->compute.coll, "fine-tuning: the first codes");
    TRY_ALL(job->compute.group, job->compute.ops->sync(job->compute.device));
done:
    free(held);
    if (rc != P4_OK) {
        p4_trainer_close(t);
    }
    return rc;
}

static void forget_all(p4_trainer *t)
{
    p4_job *job = t->job;
    for (int64_t i = 0; t->records != NULL && i < P4_ROUND_RECORDS * p4_trainer_pieces(t); i++) {
        job->compute.ops->forget(job->compute.device, &t->records[i]);
    }
    job->compute.ops->forget(job->compute.device, &t->filter_record);
    job->compute.ops->forget(job->compute.device, &t->update_record);
}

void p4_trainer_close(p4_trainer *t)
{
    if (t->job != NULL) {
        forget_all(t); /* before the memory goes */
    }
    if (t->figures != NULL) {
        t->job->compute.ops->release(t->job->compute.device, t->figures);
    }
    if (t->job != NULL) {
        p4_trainer_codes_close(t);
        p4_trainer_sums_close(t);
        p4_trainer_norms_close(t);
    }
    if (t->optim.ops != NULL) {
        p4_optim_close(&t->optim);
    }
    if (t->net.ops != NULL) {
        p4_net_close(&t->net);
    }
    free(t->sharded);
    free(t->form.weights);
    free(t->form.vectors);
    free(t->h_ids);
    free(t->order);
    free(t->records);
    *t = (p4_trainer){0};
}

/* The fp16 values of a replicated master. Local. */
static p4_rc store_half(p4_trainer *t, p4_packed *c, int64_t i)
{
    const p4_param *p = &t->job->hf.model.params[i];
    int64_t count = p->rows * p->cols;
    p4_weight master = {.dtype = P4_F32, .rows = p->rows, .cols = p->cols};
    float *h_master = p4_alloc((size_t)count, sizeof *h_master);
    if (h_master == NULL) {
        return P4_E_SYSTEM;
    }
    t->job->compute.ops->to_host(t->job->compute.device, h_master, t->optim.master + t->optim.at[i],
                                 count * 4);
    master.data = h_master;
    p4_rc rc = p4_packed_preserve(c, i, &master, t->job->compute.threads);
    free(h_master);
    return rc;
}

static p4_rc store_all(p4_trainer *t, p4_packed *c)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &t->job->hf.model;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (p->ternary) {
            const p4_weight *live = &t->codes_of[i];
            t->job->compute.ops->to_host(t->job->compute.device, p4_packed_codes(c, i), live->data,
                                         p->rows * p4_code_row_bytes(p->cols));
            t->job->compute.ops->to_host(t->job->compute.device, p4_packed_scale(c, i), live->scale,
                                         p->rows * 2);
            CHECK(isfinite(c->errors[i].scale_max),
                  "fine-tuning: tensor %s has a row whose scale fp16 cannot hold (up to "
                  "65504); a smaller fine_tune_lr (now %g) may help",
                  p->name, t->job->config.fine_tune_lr);
        } else {
            TRY(store_half(t, c, i));
        }
    }
    TRY(t->job->compute.ops->sync(t->job->compute.device));
done:
    return rc;
}

p4_rc p4_trainer_commit(p4_trainer *t, p4_packed *c)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &t->job->hf.model;
    p4_trainer_quantize(t, c->errors); /* of the masters that the unpacked weights are of */
    p4_trainer_share_codes(t);
    t->job->compute.coll.settle(&t->job->compute.coll, "fine-tuning: the codes to keep");
    TRY_ALL(t->job->compute.group,
            t->job->compute.ops->sync(t->job->compute.device)); /* the figures are on the host from here */
    for (int64_t i = 0; t->job->compute.group->ranks > 1 && i < model->params_count; i++) {
        if (t->sharded[i]) {
            p4_group_bcast(t->job->compute.group, &c->errors[i], sizeof c->errors[i], t->job->shard.owner[i]);
        }
    }
    TRY_ALL(t->job->compute.group, store_all(t, c));
    c->method = p4_job_method(t->job);
    c->threshold = (float)t->job->config.sparsity_threshold;
    c->is_compressed = true;
done:
    return rc;
}

p4_trainer_memory p4_trainer_bytes(const p4_trainer *t)
{
    return (p4_trainer_memory){.masters_bytes = t->optim.memory_bytes,
                               .codes_bytes = t->codes_bytes,
                               .activations_bytes = t->net.memory_bytes + t->buffers * t->layer_count * 4};
}
