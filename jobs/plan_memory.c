/* plan_memory.c - the memory of one rank, stage after stage. */
#include <stdlib.h>

#include "jobs/plan.h"
#include "jobs/samples.h"
#include "jobs/train/checkpoint.h"
#include "jobs/train/gradient_flow.h"
#include "jobs/train/hessian.h"
#include "jobs/train/layers.h"

/* One rank as it is planned. */
typedef struct planner {
    const p4_plan_input *in;
    const p4_config *c;
    const p4_original *original;
    const p4_model *model;
    p4_compute *compute;
    p4_weight *packed; /* [params_count] the compressed model's forms, whose data are only marked as there */
    int64_t T;
    bool host;
    /* What several stages hold; -1: not measured yet. A model may have tens of thousands of tensors. */
    int64_t original_bytes, packed_form_bytes, packed_bytes, statistics_bytes, scratch_bytes;
    p4_rank_plan *out;
} planner;

/* What stands for data that are there. */
static const _Alignas(64) char somewhere[64];

/* --- where bytes go ---------------------------------------------------------------------------- */

static void on_host(p4_memory_use *use, p4_purpose purpose, double bytes)
{
    use->host[purpose] += bytes;
}

static void on_device(const planner *p, p4_memory_use *use, p4_purpose purpose, double bytes)
{
    (p->host ? use->host : use->device)[purpose] += bytes;
}

/* The stage's peak is the larger of the two. */
static void keep_larger(p4_memory_use *stage, const p4_memory_use *other)
{
    double here = p4_memory_sum(stage->device), there = p4_memory_sum(other->device);
    if (there > here || (there >= here && p4_memory_sum(other->host) > p4_memory_sum(stage->host))) {
        *stage = *other;
    }
}

static p4_memory_use *begin(planner *p, p4_plan_stage_id stage)
{
    p->out->runs[stage] = true;
    return &p->out->stages[stage];
}

static void put_optim(const planner *p, p4_memory_use *use, const p4_optim_memory *o)
{
    on_device(p, use, P4_MEMORY_MASTERS, (double)o->masters);
    on_device(p, use, P4_MEMORY_GRADIENTS, (double)o->gradients);
    on_device(p, use, P4_MEMORY_OPTIMIZER, (double)o->state);
    on_device(p, use, P4_MEMORY_WORKSPACE, (double)o->work);
}

/* --- stages ------------------------------------------------------------------------------------ */

/* A pass of the pipeline; windows: of an evaluation, 0: it is another. */
static p4_rc put_pass(const planner *p, p4_memory_use *use, int64_t windows, bool reference)
{
    p4_pipeline_plan plan = p4_settings_pipeline(p->c, p->T);
    plan.B = windows > 0 ? p4_pipeline_batch(p->compute, p->model, plan.B, p->T, windows) : plan.B;
    plan.reference = reference;
    int64_t bytes = p4_pipeline_bytes(p->compute, p->model, &p->original->shard, &plan);
    on_device(p, use, P4_MEMORY_ACTIVATIONS, (double)bytes);
    return bytes >= 0 ? P4_OK : P4_E_SYSTEM;
}

/* The original's layers, where they have been loaded. */
static p4_rc put_original(planner *p, p4_memory_use *use)
{
    if (p->original_bytes < 0) {
        p->original_bytes = p4_original_bytes(p->original, p->compute);
    }
    on_device(p, use, P4_MEMORY_ORIGINAL, (double)p->original_bytes);
    return p->original_bytes >= 0 ? P4_OK : P4_E_SYSTEM;
}

/* The compressed model as a form on the device. */
static p4_rc put_packed_form(planner *p, p4_memory_use *use)
{
    if (p->packed_form_bytes < 0) {
        p->packed_form_bytes = p4_device_form_bytes(p->compute->ops, p->compute->device, p->model, p->packed);
    }
    on_device(p, use, P4_MEMORY_CODES, (double)p->packed_form_bytes);
    return p->packed_form_bytes >= 0 ? P4_OK : P4_E_SYSTEM;
}

static p4_rc plan_passes(planner *p)
{
    p4_rc rc = P4_OK;
    bool evaluates = p->in->windows.eval > 0, calibrates = p->c->calibration_samples > 0;
    int64_t scored = p4_max_i64(p->in->windows.eval, p->in->windows.longest_set);
    p4_memory_use *load = begin(p, P4_PLAN_LOAD), *use;
    TRY(evaluates || calibrates ? put_original(p, load) : P4_OK);
    if (evaluates) {
        use = begin(p, P4_PLAN_EVALUATE_PRE);
        TRY(put_original(p, use));
        TRY(put_pass(p, use, scored, false));
    }
    if (calibrates) {
        use = begin(p, P4_PLAN_CALIBRATE);
        TRY(put_original(p, use));
        TRY(put_pass(p, use, 0, false));
        on_device(p, use, P4_MEMORY_WORKSPACE, (double)p4_statistics_work_bytes(p->compute, p->original));
    }
    for (int i = 0; evaluates && i < (p->c->enable_fine_tuning ? 2 : 1); i++) {
        use = begin(p, i == 0 ? P4_PLAN_EVALUATE_POST : P4_PLAN_EVALUATE_FINAL);
        TRY(put_original(p, use));
        TRY(put_packed_form(p, use));
        TRY(put_pass(p, use, scored, true));
    }
done:
    return rc;
}

static p4_rc plan_quantize(planner *p)
{
    p4_rc rc = P4_OK;
    p4_memory_use *use = begin(p, P4_PLAN_QUANTIZE);
    p4_quantize_plan plan = p4_settings_quantize(p->c, NULL, NULL);
    bool loaded = p->in->windows.eval > 0 || p->c->calibration_samples > 0;
    TRY(loaded ? put_original(p, use) : P4_OK);
    p->scratch_bytes = p4_quantize_scratch_bytes(p->compute, p->original, &plan);
    if (plan.quantizer->needs == P4_NEEDS_HESSIAN) {
        p4_layers_memory pass;
        const p4_layers_plan layers = {
            .B = p->c->calibration_batch_size, .T = p->T, .activation_bits = p->c->activation_bits};
        TRY(p4_layers_bytes(&pass, p->compute, p->original, p->in->windows.calibration, &layers));
        on_device(p, use, P4_MEMORY_ACTIVATIONS, (double)pass.work);
        on_device(p, use, P4_MEMORY_STATES, (double)pass.states);
        int64_t original = loaded ? p->original_bytes : 0;
        int64_t room = p->in->room_bytes - original - pass.work - pass.states;
        p4_hessian_memory h = p4_hessian_plan_bytes(p->compute, p->original, plan.h_bytes, room);
        on_device(p, use, P4_MEMORY_WORKSPACE, (double)(h.sums + h.others));
        p->out->hessian_passes = h.passes;
    } else {
        on_device(p, use, P4_MEMORY_WORKSPACE, (double)p4_quantize_bytes(p->compute, p->original, &plan));
    }
done:
    return rc;
}

static p4_rc plan_reconstruct(planner *p)
{
    p4_rc rc = P4_OK;
    p4_reconstruct_memory m;
    const p4_windows windows = {
        .count = p4_min_i64(p4_settings_reconstruct_windows(p->c, p->T), p->in->windows.calibration),
        .T = p->T};
    if (windows.count <= 0) {
        return P4_OK;
    }
    p4_reconstruct_plan plan = p4_settings_reconstruct(p->c, windows.count, p->T, NULL);
    TRY(p4_reconstruct_plan_bytes(&m, p->compute, p->original, &windows, &plan, p->in->room_bytes));
    p4_memory_use *use = begin(p, P4_PLAN_RECONSTRUCT);
    put_optim(p, use, &m.block.optim);
    on_device(p, use, P4_MEMORY_CODES, (double)m.block.codes_bytes);
    on_device(p, use, P4_MEMORY_STAGING, (double)m.block.staging_bytes);
    on_device(p, use, P4_MEMORY_ACTIVATIONS, (double)(m.block.activations_bytes + m.pass_bytes));
    if (m.states_on_host) {
        on_host(use, P4_MEMORY_STATES, (double)m.states_bytes);
    } else {
        on_device(p, use, P4_MEMORY_STATES, (double)m.states_bytes);
    }
    p->out->reconstruct_batch = m.B;
    p->out->reconstruct_pass_batch = m.pass_B;
done:
    return rc;
}

/* Full-precision values that stages hand on, from which training starts. */
static double masters_bytes(const planner *p, p4_plan_stage_id stage)
{
    const p4_quantize_plan plan = p4_settings_quantize(p->c, NULL, NULL);
    bool reconstructs = p4_settings_reconstruct_windows(p->c, p->T) > 0, tunes = p->c->enable_fine_tuning;
    bool of_codes = plan.quantizer->needs == P4_NEEDS_HESSIAN && (reconstructs || tunes);
    bool trained = reconstructs && stage >= P4_PLAN_RECONSTRUCT; /* of ternary tensors where any are kept */
    return (double)p4_masters_bytes(p->model, p->compute->group, &p->original->shard,
                                    of_codes || (trained && tunes), trained);
}

/* The largest tensor that stays in high precision: its values pass through the host when a state is kept. */
static double largest_preserved(const p4_model *model)
{
    double most = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        double count = (double)(model->params[i].rows * model->params[i].cols);
        most = !model->params[i].ternary && count > most ? count : most;
    }
    return most;
}

/* An epoch's end, beside what training holds: the state is copied, then evaluated. */
static p4_rc plan_epoch_end(planner *p, p4_memory_use *use, const p4_memory_use *training)
{
    p4_rc rc = P4_OK;
    p4_memory_use copying = *training, evaluating = *training;
    on_host(&copying, P4_MEMORY_WORKSPACE, 4 * largest_preserved(p->model));
    on_host(&copying, P4_MEMORY_CODES, (double)p->packed_bytes); /* the candidate */
    on_host(&evaluating, P4_MEMORY_CODES, (double)p->packed_bytes);
    if (p->in->windows.eval > 0) {
        TRY(put_packed_form(p, &evaluating));
        TRY(put_pass(p, &evaluating, p->in->windows.eval, false));
    }
    keep_larger(use, &copying);
    keep_larger(use, &evaluating);
done:
    return rc;
}

static p4_rc plan_fine_tune(planner *p)
{
    p4_rc rc = P4_OK;
    p4_trainer_memory m;
    if (!p->c->enable_fine_tuning) {
        return P4_OK;
    }
    p4_train_plan plan = p4_settings_train(p->c, p->T, NULL);
    plan.teacher.kind = plan.teacher.kind == P4_TEACHER_AUTO ? P4_TEACHER_RESIDENT : plan.teacher.kind;
    int64_t drawn = p4_min_i64(p->in->windows.train, p4_plan_steps(p->c, &p->in->windows) * plan.sequences);
    TRY(p4_trainer_plan_bytes(&m, p->compute, p->original, &plan, p->in->room_bytes, drawn));
    p4_memory_use *use = begin(p, P4_PLAN_FINE_TUNE), opening = {.host = {0}}, training,
                  making = {.host = {0}};
    put_optim(p, &opening, &m.optim);
    on_device(p, &opening, P4_MEMORY_CODES, (double)m.codes_bytes);
    on_device(p, &opening, P4_MEMORY_TEACHER, (double)m.teacher.held);
    training = opening;
    on_device(p, &training, P4_MEMORY_STAGING, (double)m.staging_bytes);
    on_device(p, &training, P4_MEMORY_ACTIVATIONS, (double)m.activations_bytes);
    on_device(p, &training, P4_MEMORY_TEACHER, (double)m.teacher.work);
    on_host(&opening, P4_MEMORY_MASTERS, masters_bytes(p, P4_PLAN_FINE_TUNE)); /* until they are taken */
    on_host(&making, P4_MEMORY_MASTERS, masters_bytes(p, P4_PLAN_FINE_TUNE));
    on_device(p, &making, P4_MEMORY_TEACHER, (double)m.teacher.making);
    keep_larger(use, &opening);
    keep_larger(use, &making);
    TRY(plan_epoch_end(p, use, &training));
    p->out->micro_batch = m.micro_batch;
    p->out->teacher_file_bytes = (double)m.teacher.file;
    if (p->c->checkpoint_minutes > 0 || p->c->checkpoint_every > 0) {
        p->out->checkpoint_copy_bytes = (double)m.checkpoint_bytes;
    }
done:
    return rc;
}

/* Blocks of rows at work: one of packed codes, one of halves a thread (jobs/export.c, io/hf/hf_write.c). */
static double export_bytes(const planner *p)
{
    enum { PACKED = 4 << 20, HALVES = 2 << 20, THREADS = 4 };
    double largest = 0, bytes = 0;
    for (int64_t i = 0; i < p->model->params_count; i++) {
        double count = (double)(p->model->params[i].rows * p->model->params[i].cols);
        largest = count > largest ? count : largest;
    }
    bytes += p->c->save_quantized ? (largest / 4 < PACKED ? largest / 4 : PACKED) : 0;
    double halves = 2 * largest < HALVES ? 2 * largest : HALVES;
    bytes += p->c->save_dequantized_fp16 ? halves * (double)p4_min_i64(p->compute->threads, THREADS) : 0;
    return bytes;
}

/* The sample texts, behind the stages: the original continues them, then the compressed model as it was
 * written, each read anew from its files, on the CPU. Rank 0 alone. */
static p4_rc plan_samples(planner *p, p4_memory_use *use)
{
    p4_rc rc = P4_OK;
    p4_samples_memory m;
    p4_memory_use original = {.host = {0}}, packed;
    TRY(p4_samples_plan_bytes(&m, p->c, &p->original->hf, p->packed, p->compute->threads));
    TRY(put_original(p, &original)); /* the run's own, still loaded */
    packed = original;
    on_host(&original, P4_MEMORY_ORIGINAL, (double)m.original);
    on_host(&original, P4_MEMORY_ACTIVATIONS, (double)m.original_pass);
    on_host(&packed, P4_MEMORY_CODES, (double)m.packed);
    on_host(&packed, P4_MEMORY_ACTIVATIONS, (double)m.packed_pass);
    keep_larger(use, &original);
    keep_larger(use, &packed);
done:
    return rc;
}

/* Rank 0 alone. */
static p4_rc plan_last(planner *p)
{
    p4_rc rc = P4_OK;
    p4_memory_use *use;
    bool again = p->in->windows.eval > 0, first = p->compute->group->rank == 0;
    if (p->in->windows.eval + p->in->windows.calibration + p->in->windows.train > 0) {
        use = begin(p, P4_PLAN_GRADIENT_FLOW);
        TRY(again ? put_original(p, use) : P4_OK);
        TRY(first ? put_packed_form(p, use) : P4_OK);
        int64_t bytes = first ? p4_gradient_flow_bytes(p->compute, p->model, p->T, p->c->activation_bits,
                                                       p->c->learn_scales && p4_settings_quantizes(p->c))
                              : 0;
        TRY(bytes >= 0 ? P4_OK : P4_E_SYSTEM);
        on_device(p, use, P4_MEMORY_ACTIVATIONS, (double)bytes);
    }
    use = begin(p, P4_PLAN_EXPORT);
    TRY(again ? put_original(p, use) : P4_OK);
    on_host(use, P4_MEMORY_WORKSPACE, first ? export_bytes(p) : 0);
    TRY(first && again ? plan_samples(p, use) : P4_OK);
done:
    return rc;
}

/* --- what outlives a stage --------------------------------------------------------------------- */

static void add_lasting(planner *p)
{
    const p4_plan_windows *w = &p->in->windows;
    double ids = 4.0 * (double)p->T;
    int64_t reconstruct = p4_min_i64(p4_settings_reconstruct_windows(p->c, p->T), w->calibration);
    double order =
        p->c->train_weights.count > 0 ? 12 : 4; /* a window's place; what mixes sources, two more */
    double windows = ids * (double)(p4_min_i64(w->calibration, p->c->calibration_samples) + w->eval +
                                    w->sets + reconstruct) +
                     (p->c->enable_fine_tuning ? order * (double)w->train : 0);
    const double of_codes = masters_bytes(p, P4_PLAN_QUANTIZE),
                 trained = masters_bytes(p, P4_PLAN_RECONSTRUCT);
    double random = p->c->init == P4_INIT_RANDOM ? 4.0 * (double)p4_model_count_elements(p->model) : 0;
    for (int s = 0; s < P4_PLAN_STAGES; s++) {
        p4_memory_use *use = &p->out->stages[s];
        if (!p->out->runs[s]) {
            continue;
        }
        on_host(use, P4_MEMORY_WINDOWS, windows);
        on_host(use, P4_MEMORY_ORIGINAL, random);
        on_host(use, P4_MEMORY_WORKSPACE,
                s >= P4_PLAN_CALIBRATE && p->c->calibration_samples > 0 ? (double)p->statistics_bytes : 0);
        on_host(use, P4_MEMORY_CODES, s >= P4_PLAN_QUANTIZE ? (double)p->packed_bytes : 0);
        on_host(use, P4_MEMORY_WORKSPACE, s >= P4_PLAN_QUANTIZE ? (double)p->scratch_bytes : 0);
        on_host(use, P4_MEMORY_MASTERS,
                s < P4_PLAN_QUANTIZE || s >= P4_PLAN_FINE_TUNE ? 0
                : s < P4_PLAN_RECONSTRUCT                      ? of_codes
                                                               : trained);
    }
}

static p4_rc mark_packed(planner *p)
{
    p->packed = p4_alloc((size_t)p->model->params_count, sizeof *p->packed);
    for (int64_t i = 0; p->packed != NULL && i < p->model->params_count; i++) {
        const p4_param *param = &p->model->params[i];
        p->packed[i] =
            (p4_weight){.dtype = param->ternary ? P4_TERNARY : P4_F16,
                        .rows = param->rows,
                        .cols = param->cols,
                        .scale_group = param->ternary ? param->scale_group : 0,
                        .data = somewhere,
                        .scale = param->ternary ? (const uint16_t *)(const void *)somewhere : NULL};
    }
    return p->packed != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_plan_rank_memory(p4_rank_plan *plan, const p4_plan_input *in)
{
    p4_rc rc = P4_OK;
    planner p = {.in = in,
                 .c = in->config,
                 .original = in->original,
                 .model = &in->original->hf.model,
                 .compute = in->compute,
                 .T = in->config->calibration_sequence_length,
                 .host = in->compute->ops->host_memory,
                 .original_bytes = -1,
                 .packed_form_bytes = -1,
                 .packed_bytes = p4_packed_bytes(&in->original->hf.model),
                 .statistics_bytes = p4_statistics_bytes(&in->original->hf.model),
                 .out = plan};
    *plan = (p4_rank_plan){.rank = in->compute->group->rank, .alike = 1};
    TRY(mark_packed(&p));
    TRY(plan_passes(&p));
    TRY(plan_quantize(&p));
    TRY(plan_reconstruct(&p));
    TRY(plan_fine_tune(&p));
    TRY(plan_last(&p));
    add_lasting(&p);
done:
    free(p.packed);
    return rc;
}
