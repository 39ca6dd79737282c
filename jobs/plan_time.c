/* plan_time.c - operations, traffic and seconds of the stages, from rates that were measured.
 *
 * The model: ranks that run a pipeline or share windows divide the operations evenly. A training step takes
 * its operations at the rate of training steps, in which the optimizer and everything but the sums is
 * counted; sums of gradients run beside the backward pass, two thirds of the step, and what is left of them
 * is waited for; codes and the sums of replicated tensors are waited for whole. A ring over n ranks moves 2
 * (n-1)/n of what is summed to all, and (n-1)/n of what is summed to its owner or published by it, over the
 * slowest link: between nodes if there are several. */
#include <math.h>
#include <string.h>

#include "jobs/plan.h"

typedef struct estimate {
    p4_plan *plan;
    const p4_plan_input *in;
    const p4_config *c;
    const p4_model *model;
    double T, ranks;
    double matrices, head, replicated, ternary; /* elements: of blocks, of the head, not ternary, ternary */
    double active;                              /* of blocks, that a token goes through */
    double attention;                           /* operations of a token's attention in all blocks, forward */
    double model_bytes;
} estimate;

/* The share of tokens that go through a matrix: of an expert, if all get equally many. */
static double share_of(const p4_model *model, const p4_param *p)
{
    const p4_arch *a = &model->arch;
    return p->expert >= 0 ? (double)a->experts_used / (double)a->experts : 1.0;
}

static double link_rate(const estimate *k)
{
    return k->plan->ranks > k->plan->ranks_per_node ? k->plan->rates.net_link : k->plan->rates.node_link;
}

/* What each rank moves of `bytes` that all ranks sum: to all, or each part to its owner. */
static double ring(const estimate *k, double bytes, bool to_all)
{
    return (to_all ? 2 : 1) * bytes * (k->ranks - 1) / k->ranks;
}

static double forward_flops(const estimate *k, double tokens, bool head)
{
    return tokens * (2 * (k->active + (head ? k->head : 0)) + k->attention);
}

/* A pass of `windows` windows through the pipeline of the ranks, `forms` models side by side. */
static p4_stage_work pass_work(const estimate *k, double windows, int forms)
{
    p4_stage_work w = {.flops = 0};
    const p4_arch *a = &k->model->arch;
    if (windows <= 0) {
        return w;
    }
    double stages = fmin(k->ranks, (double)a->L), batches = ceil(windows / k->c->calibration_batch_size);
    double each = (double)k->in->compute->ops->act_bytes(k->in->compute->device);
    double fill = (batches + stages - 1) / batches; /* of the pipeline */
    w.flops = forms * forward_flops(k, windows * k->T, true);
    w.sent_bytes = forms * (stages - 1) * windows * k->T * (double)a->C * each;
    w.seconds = fill * w.flops / (stages * k->plan->rates.forward_flops) +
                w.sent_bytes / fmax(1, stages - 1) / link_rate(k);
    return w;
}

/* So many passes alike. */
static void add_passes(const estimate *k, p4_plan_stage_id stage, const p4_stage_work *pass, double count)
{
    p4_stage_work *w = &k->plan->work[stage];
    w->flops += count * pass->flops;
    w->sent_bytes += count * pass->sent_bytes;
    w->seconds += count * pass->seconds;
}

static void time_pass(const estimate *k, p4_plan_stage_id stage, int64_t windows, int forms)
{
    const p4_stage_work pass = pass_work(k, (double)windows, forms);
    add_passes(k, stage, &pass, 1);
}

static void time_quantize(estimate *k)
{
    p4_stage_work *w = &k->plan->work[P4_PLAN_QUANTIZE];
    const p4_quantize_plan plan = p4_settings_quantize(k->c, NULL, NULL);
    w->read_bytes = k->model_bytes;
    w->seconds = k->model_bytes / (k->ranks * k->plan->rates.memory_bytes);
    w->sent_bytes = k->ranks > 1 ? k->ranks * ring(k, k->ternary / 4, false) : 0;
    w->seconds += w->sent_bytes / k->ranks / link_rate(k);
    if (plan.quantizer->needs == P4_NEEDS_HESSIAN) {
        double tokens = (double)k->in->windows.calibration * k->T, gram = 0, solve = 0;
        for (int64_t i = 0; i < k->model->params_count; i++) {
            const p4_param *p = &k->model->params[i];
            bool matrix = p->ternary && p4_role_is_matrix(p->role);
            double cols = (double)p->cols;
            gram += matrix && p->input_offset == 0 ? 2 * tokens * share_of(k->model, p) * cols * cols : 0;
            solve += matrix ? 2 * (double)p->rows * cols * cols + cols * cols * cols : 0;
        }
        /* Through each block as often as memory requires, and once to the next. */
        double times = (double)k->plan->rank_plans[0].hessian_passes / (double)k->model->arch.L + 1,
               passes = times * forward_flops(k, tokens, false);
        w->flops = gram + solve + passes;
        w->seconds += w->flops / (k->ranks * k->plan->rates.forward_flops);
    }
}

static void time_reconstruct(estimate *k)
{
    p4_stage_work *w = &k->plan->work[P4_PLAN_RECONSTRUCT];
    int64_t T = k->c->calibration_sequence_length,
            windows = p4_min_i64(p4_settings_reconstruct_windows(k->c, T), k->in->windows.calibration);
    const p4_reconstruct_plan plan = p4_settings_reconstruct(k->c, windows, T, NULL);
    double sets = ceil((double)k->model->arch.L / (double)plan.blocks), steps = (double)plan.steps;
    double sequences = (double)p4_min_i64(plan.sequences, windows);
    double working = fmin(k->ranks, sequences);
    /* Each step trains a set; per window three measures and the original's pass. */
    double tokens = steps * sequences * k->T, passes = 4 * (double)windows * k->T;
    w->flops = 3 * forward_flops(k, tokens, false) + forward_flops(k, passes, false);
    w->read_bytes = k->model_bytes;
    /* Sums run beside the backward pass; each rank updates its share and sends its codes. */
    double sums = k->ranks > 1 ? ring(k, 4 * k->matrices / sets, true) : 0;
    double codes = k->ranks > 1 ? ring(k, k->ternary / 4 / sets, false) : 0;
    double compute =
        3 * forward_flops(k, tokens, false) / (sets * steps) / (working * k->plan->rates.train_flops);
    double hidden = k->c->exact_sums ? 0 : 2.0 / 3.0 * compute;
    double update = 32 * (k->matrices / sets) / k->plan->rates.memory_bytes / k->ranks;
    w->sent_bytes = sets * steps * k->ranks * (sums + codes);
    w->seconds = w->flops / (working * k->plan->rates.train_flops) +
                 sets * steps * (fmax(0, sums / link_rate(k) - hidden) + codes / link_rate(k) + update);
}

/* Passes beside the steps: evaluations at the ends of epochs and by eval_every, and the one that makes a
 * cached teacher. */
static void time_passes_of_training(const estimate *k, const p4_train_plan *plan)
{
    const p4_plan_windows *windows = &k->in->windows;
    int64_t steps = k->plan->train_steps, every = k->c->eval_every,
            per_epoch = p4_max_i64(1, windows->train / plan->sequences), a = per_epoch, b = every;
    int64_t evaluations = p4_ceil_div(steps, per_epoch);
    while (b > 0) { /* until a divides both */
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    if (every > 0) { /* what falls on the end of an epoch or of the training is one evaluation */
        bool last = steps % every == 0 && steps % per_epoch != 0;
        evaluations += steps / every - steps / (per_epoch / a * every) - last;
    }
    const p4_stage_work evaluation = pass_work(k, (double)windows->eval, 1);
    add_passes(k, P4_PLAN_FINE_TUNE, &evaluation, (double)evaluations);
    if (plan->teacher.weight > 0 && plan->teacher.kind == P4_TEACHER_CACHED) {
        int64_t drawn = p4_min_i64(windows->train, steps * plan->sequences);
        const p4_stage_work making = pass_work(k, (double)drawn, 1);
        add_passes(k, P4_PLAN_FINE_TUNE, &making, 1);
    }
}

/* Gradients of `bytes` that are summed over ranks in a step: to all, or to their owners in each of its
 * `batches`. exact_sums sends those of each micro-batch, and gives the sums to all at the end. */
static double sums_of_step(const estimate *k, double bytes, bool to_all, double batches)
{
    if (k->c->exact_sums) {
        return (batches + (to_all ? 1 : 0)) * ring(k, bytes, false);
    }
    return to_all ? ring(k, bytes, true) : batches * ring(k, bytes, false);
}

static void time_fine_tune(estimate *k)
{
    p4_stage_work *w = &k->plan->work[P4_PLAN_FINE_TUNE];
    int64_t T = k->c->calibration_sequence_length;
    const p4_train_plan plan = p4_settings_train(k->c, T, NULL);
    bool shards = plan.zero_stage > 0, teaches = plan.teacher.weight > 0;
    double sequences = (double)plan.sequences, steps = (double)k->plan->train_steps;
    double share = ceil(sequences / k->ranks), micro = fmax(1, (double)k->plan->rank_plans[0].micro_batch);
    double batches = plan.zero_stage == 2 || plan.exact_sums ? ceil(share / micro) : 1;
    double forward = forward_flops(k, sequences * k->T, true);
    double passes = 3 + (plan.recompute == P4_RECOMPUTE_BLOCKS ? 1 : 0) +
                    (teaches && plan.teacher.kind != P4_TEACHER_CACHED ? 1 : 0);
    double compute =
        passes * forward * share * k->ranks / sequences / (k->ranks * k->plan->rates.train_flops);
    double gradients = 0, rest = 0;
    if (k->ranks > 1) {
        gradients = sums_of_step(k, 4 * k->ternary, !shards, batches);
        rest =
            sums_of_step(k, 4 * k->replicated, true, batches) + (shards ? ring(k, k->ternary / 4, false) : 0);
    }
    double hidden = 2.0 / 3.0 * compute;
    double step = compute + fmax(0, gradients / link_rate(k) - hidden) + rest / link_rate(k);
    w->flops = steps * passes * forward;
    w->sent_bytes = steps * k->ranks * (gradients + rest);
    w->seconds = steps * step;
    time_passes_of_training(k, &plan);
    double kept = k->plan->disk.kept > 0 ? k->plan->disk.checkpoint : 0;
    double saves = k->c->checkpoint_minutes > 0 ? floor(w->seconds / (60 * k->c->checkpoint_minutes)) : 0;
    saves += k->c->checkpoint_every > 0 ? floor(steps / (double)k->c->checkpoint_every) : 0;
    w->written_bytes = saves * kept + k->plan->disk.scratch;
    w->seconds += saves * kept / (k->plan->rates.disk_write * ceil(k->ranks / k->plan->ranks_per_node));
}

/* Elements and attention of the model, by which operations are counted. */
static void count(estimate *k)
{
    const p4_arch *a = &k->model->arch;
    k->head = (double)(a->V * a->C);
    for (int64_t i = 0; i < k->model->params_count; i++) {
        const p4_param *p = &k->model->params[i];
        double elements = (double)(p->rows * p->cols);
        k->matrices += p4_role_is_matrix(p->role) ? elements : 0;
        k->active += p4_role_is_matrix(p->role) ? elements * share_of(k->model, p) : 0;
        k->ternary += p->ternary ? elements : 0;
        k->replicated += p->ternary ? 0 : elements;
    }
    for (int64_t l = 0; l < a->L; l++) {
        double window = (double)p4_arch_window(a, l);
        double keys = window > 0 ? fmin(k->T / 2, window) : k->T / 2; /* that a query sees */
        k->attention += 4 * keys * (double)(a->H * a->D);
    }
}

double p4_plan_token_flops(const p4_model *model, int64_t T)
{
    estimate k = {.model = model, .T = (double)T};
    count(&k);
    return forward_flops(&k, 1, true);
}

static estimate start(p4_plan *plan, const p4_plan_input *in)
{
    estimate k = {.plan = plan,
                  .in = in,
                  .c = in->config,
                  .model = &in->original->hf.model,
                  .T = in->config->calibration_sequence_length,
                  .ranks = plan->ranks,
                  .model_bytes = in->original->hf.stored_bytes};
    count(&k);
    return k;
}

void p4_plan_time(p4_plan *plan, const p4_plan_input *in)
{
    estimate k = start(plan, in);
    const bool *runs = plan->rank_plans[0].runs;
    const p4_plan_windows *w = &in->windows;
    p4_stage_work *load = &plan->work[P4_PLAN_LOAD], *last = &plan->work[P4_PLAN_EXPORT];
    double nodes = ceil(k.ranks / plan->ranks_per_node);
    memset(plan->work, 0, sizeof plan->work);
    load->read_bytes = k.model_bytes + w->text_bytes;
    load->seconds = k.model_bytes / (nodes * plan->rates.disk_read) + w->text_bytes / plan->rates.text_bytes;
    if (runs[P4_PLAN_EVALUATE_PRE]) {
        time_pass(&k, P4_PLAN_EVALUATE_PRE, w->eval + w->sets, 1);
        time_pass(&k, P4_PLAN_EVALUATE_POST, w->eval + w->sets, 2);
    }
    if (runs[P4_PLAN_CALIBRATE]) {
        time_pass(&k, P4_PLAN_CALIBRATE, p4_min_i64(w->calibration, in->config->calibration_samples), 1);
    }
    time_quantize(&k);
    if (runs[P4_PLAN_RECONSTRUCT]) {
        time_reconstruct(&k);
    }
    if (runs[P4_PLAN_FINE_TUNE]) {
        time_fine_tune(&k);
    }
    if (runs[P4_PLAN_EVALUATE_FINAL]) {
        time_pass(&k, P4_PLAN_EVALUATE_FINAL, w->eval + w->sets, 2);
    }
    if (runs[P4_PLAN_GRADIENT_FLOW]) {
        p4_stage_work *flow = &plan->work[P4_PLAN_GRADIENT_FLOW];
        flow->flops = 4 * forward_flops(&k, k.T, true);
        flow->seconds = flow->flops / plan->rates.train_flops;
    }
    last->written_bytes = plan->disk.outputs;
    last->seconds = plan->disk.outputs / plan->rates.disk_write;
    plan->total_s = 0;
    for (int s = 0; s < P4_PLAN_STAGES; s++) {
        plan->total_s += plan->work[s].seconds;
    }
}
