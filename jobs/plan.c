#include "jobs/plan.h"

#include "src/packed.h"

enum { CPU_MOST = 8 }; /* sequences at once, where the configuration leaves it open (jobs/train/trainer.c) */

/* The compressed model, as every rank holds it. */
static double packed_bytes(const p4_model *model)
{
    double bytes = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bytes += p->ternary ? (double)p->rows * (double)(p4_code_row_bytes(p->cols) + 2)
                            : 2.0 * (double)p->rows * (double)p->cols;
    }
    return bytes;
}

/* Layers of the original that this rank runs. */
static double original_bytes(const p4_run *run)
{
    const p4_model *model = &run->original.hf.model;
    const p4_shard *shard = &run->original.shard;
    double bytes = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        int64_t layer = model->params[i].layer;
        bool runs = layer >= 0 ? shard->stage[layer] == run->compute.group->rank : true;
        bytes += runs ? 2.0 * (double)model->params[i].rows * (double)model->params[i].cols : 0;
    }
    return bytes;
}

/* Masters, gradients and optimizer state of what this rank holds. */
static double optimizer_bytes(const p4_run *run, const p4_train_plan *train)
{
    const p4_model *model = &run->original.hf.model;
    const p4_optim_settings *o = &train->optim;
    double state = o->half_state ? 2 : 4, bytes = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bool matrix = p4_role_is_matrix(p->role), sharded = train->zero_stage > 0 && p->ternary && matrix;
        bool held = !sharded || run->original.shard.owner[i] == run->compute.group->rank;
        double each = 8 + state * (o->muon && matrix ? 1 : 2) + (o->grokfast ? state : 0);
        bytes += held ? each * (double)p->rows * (double)p->cols : 0;
    }
    return bytes;
}

/* Memory of a pass; -1 (out of memory) becomes an error. */
static p4_rc net_bytes(double *bytes, const p4_run *run, const p4_net_plan *plan)
{
    int64_t found = p4_net_bytes(run->compute.ops, run->compute.device, &run->original.hf.model, plan);
    *bytes = (double)found;
    return found < 0 ? P4_E_SYSTEM : P4_OK;
}

p4_rc p4_plan_memory(p4_memory_plan *plan, const p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    const p4_model *model = &run->original.hf.model;
    int64_t T = c->calibration_sequence_length;
    bool host = run->compute.ops->host_memory;
    *plan = (p4_memory_plan){.model = packed_bytes(model)};
    if (c->eval_samples > 0 || c->calibration_samples > 0) {
        const p4_net_plan pass = {.B = c->calibration_batch_size,
                                  .T = T,
                                  .activation_bits = c->activation_bits,
                                  .head = true,
                                  .reference = c->eval_samples > 0};
        TRY(net_bytes(&plan->evaluation, run, &pass));
        plan->evaluation += host ? 0 : original_bytes(run);
    }
    if (c->enable_fine_tuning) {
        p4_train_plan train = p4_settings_train(c, T, NULL);
        int64_t share = p4_ceil_div(train.sequences, run->compute.group->ranks);
        int64_t at_once = train.micro_batch > 0 ? train.micro_batch : host ? CPU_MOST : 1;
        const p4_net_plan step = {.B = p4_min_i64(share, at_once),
                                  .T = T,
                                  .train = true,
                                  .recompute = train.recompute,
                                  .activation_bits = train.activation_bits,
                                  .head = true};
        TRY(net_bytes(&plan->training, run, &step));
        /* The state to keep, the candidate for it, and the codes that are trained. */
        plan->training += optimizer_bytes(run, &train) + (host ? 2 : 1) * packed_bytes(model);
    }
done:
    return rc;
}
