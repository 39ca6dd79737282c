/* trainer_memory.c - the tables of a trainer and how much memory a training takes: what p4_trainer_open
 * decides by, and what a plan says before anything is opened. */
#include <stdlib.h>

#include "jobs/train/checkpoint.h"
#include "jobs/train/trainer.h"

bool p4_trainer_holds(const p4_trainer *t, int64_t i)
{
    return !t->sharded[i] || t->original->shard.owner[i] == t->compute->group->rank;
}

/* Which parameters only their owner holds: the one table by which sizes are decided. */
static p4_rc open_sharded(p4_trainer *t)
{
    const p4_model *model = t->model;
    t->sharded = p4_alloc((size_t)model->params_count, sizeof *t->sharded);
    for (int64_t i = 0; t->sharded != NULL && i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        t->sharded[i] = t->plan.zero_stage > 0 && p->ternary && p4_role_is_matrix(p->role);
    }
    return t->sharded != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_trainer_open_tables(p4_trainer *t)
{
    size_t params = (size_t)t->model->params_count;
    p4_rc rc = open_sharded(t);
    t->form.weights = p4_alloc(params, sizeof *t->form.weights);
    t->form.vectors = p4_alloc(params, sizeof *t->form.vectors);
    t->records.pieces =
        p4_alloc((size_t)(P4_RECORDED_MICRO_BATCHES * p4_trainer_pieces(t)), sizeof *t->records.pieces);
    bool all = t->form.weights != NULL && t->form.vectors != NULL && t->records.pieces != NULL;
    return rc == P4_OK && all ? P4_OK : P4_E_SYSTEM;
}

void p4_trainer_close_tables(p4_trainer *t)
{
    free(t->sharded);
    free(t->form.weights);
    free(t->form.vectors);
    free(t->records.pieces);
}

p4_net_plan p4_trainer_net_plan(const p4_trainer *t, int64_t micro_batch)
{
    return (p4_net_plan){.B = micro_batch,
                         .T = t->plan.T,
                         .train = true,
                         .recompute = t->plan.recompute,
                         .activation_bits = t->plan.activation_bits,
                         .head = true,
                         .reference = p4_teacher_is_open(&t->teacher),
                         .blocks = p4_teacher_is_open(&t->teacher) && t->plan.teacher.blocks > 0};
}

/* What depends on the micro-batch; -1: out of host memory. */
static int64_t work_bytes(const p4_trainer *t, int64_t micro_batch)
{
    p4_net_plan plan = p4_trainer_net_plan(t, micro_batch);
    int64_t net = p4_net_bytes(t->compute->ops, t->compute->device, t->model, &plan),
            teacher = p4_teacher_work_bytes(&t->teacher, micro_batch),
            staging = p4_trainer_sums_bytes(t, p4_ceil_div(t->batch.most, micro_batch));
    return net < 0 || teacher < 0 ? -1 : net + teacher + staging;
}

/* Where the configuration leaves it open. CPU: at most 8. GPU: what fills it (MICRO_BATCH_TOKENS), in equal
 * parts of the rank's sequences, as long as activations and gradients on their way to owners take at most
 * MEMORY_PART of what the optimizer left: the rest is for evaluation. With exact_sums it depends on the step
 * alone. */
p4_rc p4_trainer_choose_micro_batch(p4_trainer *t, int64_t room_bytes)
{
    enum { CPU_MOST = 8, MICRO_BATCH_TOKENS = 32768 };
    const double MEMORY_PART = 0.75;
    int64_t sequences = t->batch.most;
    bool host = t->compute->ops->host_memory;
    int64_t most = host ? CPU_MOST : p4_max_i64(1, MICRO_BATCH_TOKENS / t->plan.T);
    if (t->plan.exact_sums) {
        t->batch.size = t->plan.micro_batch > 0 ? p4_min_i64(t->plan.sequences, t->plan.micro_batch)
                                                : p4_exact_micro_batch(t->plan.sequences);
        return P4_OK;
    }
    if (t->plan.micro_batch > 0) {
        t->batch.size = p4_min_i64(sequences, t->plan.micro_batch);
        return P4_OK;
    }
    for (int64_t parts = p4_ceil_div(sequences, most);; parts++) {
        int64_t micro_batch = p4_ceil_div(sequences, parts);
        if (micro_batch == t->batch.size) {
            continue; /* as with fewer parts */
        }
        t->batch.size = micro_batch;
        int64_t bytes = work_bytes(t, micro_batch);
        if (bytes < 0) {
            return P4_E_SYSTEM;
        }
        if (host || micro_batch == 1 || (double)bytes <= MEMORY_PART * (double)room_bytes) {
            return P4_OK;
        }
    }
}

/* Every table that decides sizes. Local. */
static p4_rc lay_out(p4_trainer *t, bool *held)
{
    p4_rc rc = P4_OK;
    TRY(held != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(open_sharded(t));
    for (int64_t i = 0; i < t->model->params_count; i++) {
        held[i] = p4_trainer_holds(t, i);
    }
    TRY(p4_optim_lay_out(&t->optim, t->compute->ops, t->compute->device, t->model, &t->plan.optim, held,
                         t->sharded));
    TRY(p4_trainer_codes_lay_out(t));
    TRY(p4_trainer_sums_layout(t));
done:
    return rc;
}

/* room_bytes: before anything of the training is there. */
static p4_rc measure(p4_trainer *t, int64_t room_bytes, int64_t windows, p4_trainer_memory *memory)
{
    p4_rc rc = P4_OK;
    bool distills = t->plan.teacher.weight > 0;
    p4_teacher_memory *teacher = &memory->teacher;
    if (distills) {
        TRY(p4_teacher_plan_bytes(teacher, t->compute, t->original, &t->plan.teacher, 1, windows));
        t->teacher.compute = t->compute; /* as open: its work counts */
        t->teacher.original = t->original;
        t->teacher.plan = t->plan.teacher;
    }
    int64_t left = room_bytes - t->optim.memory_bytes - t->codes.bytes - teacher->held;
    TRY(p4_trainer_choose_micro_batch(t, left));
    memory->micro_batch = t->batch.size;
    if (distills) {
        teacher->work = p4_teacher_work_bytes(&t->teacher, t->batch.size);
        TRY(teacher->work >= 0 ? P4_OK : P4_E_SYSTEM);
    }
    p4_net_plan plan = p4_trainer_net_plan(t, t->batch.size);
    memory->activations_bytes = p4_net_bytes(t->compute->ops, t->compute->device, t->model, &plan);
    TRY(memory->activations_bytes >= 0 ? P4_OK : P4_E_SYSTEM);
    memory->staging_bytes = p4_trainer_sums_bytes(t, p4_ceil_div(t->batch.most, t->batch.size));
    memory->teacher_bytes = teacher->held + teacher->work;
    memory->optim = p4_optim_bytes(&t->optim);
    memory->codes_bytes = t->codes.bytes;
    memory->checkpoint_bytes = p4_checkpoint_copy_bytes(t);
done:
    t->teacher = (p4_teacher){0};
    return rc;
}

p4_rc p4_trainer_plan_bytes(p4_trainer_memory *memory, p4_compute *compute, const p4_original *original,
                            const p4_train_plan *plan, int64_t room_bytes, int64_t windows)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &original->hf.model;
    bool *held = p4_alloc((size_t)model->params_count, sizeof *held);
    p4_trainer t = {.compute = compute, .original = original, .model = model, .plan = *plan};
    t.batch.most = p4_ceil_div(plan->sequences, compute->group->ranks);
    *memory = (p4_trainer_memory){0};
    TRY(lay_out(&t, held));
    TRY(measure(&t, room_bytes, windows, memory));
done:
    if (t.optim.ops != NULL) {
        p4_optim_close(&t.optim);
    }
    p4_trainer_codes_close(&t);
    p4_trainer_sums_free(&t);
    p4_trainer_close_tables(&t);
    free(held);
    return rc;
}
