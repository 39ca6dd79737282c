/* plan_time.c - operations, traffic and seconds of the stages, from rates that were measured.
 *
 * The model: what a rank computes is timed kernel by kernel (jobs/plan_work.h). Ranks that run a pipeline or
 * share windows divide the work evenly. Sums of gradients run beside the backward pass, two thirds of what a
 * step computes before its update, and what is left of them is waited for; codes and the sums of replicated
 * tensors are waited for whole. A ring over n ranks moves 2 (n-1)/n of what is summed to all, and (n-1)/n of
 * what is summed to its owner or published by it, over the slowest link: between nodes if there are several.
 */
#include <math.h>
#include <string.h>

#include "jobs/plan.h"
#include "jobs/plan_work.h"

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

/* Of passes, or of training steps. */
static p4_work work_of(const estimate *k, double products)
{
    const p4_compute *compute = k->in->compute;
    return (p4_work){.products = products,
                     .memory = k->plan->rates.memory_bytes,
                     .kernel_s = k->plan->rates.kernel_s,
                     .each = (double)compute->ops->act_bytes(compute->device)};
}

static void forward_all(const estimate *k, p4_work *w, p4_work_tokens t)
{
    for (int64_t l = 0; l < k->model->arch.L; l++) {
        p4_work_forward(w, &k->model->arch, l, t);
    }
}

static void unpack_all(const estimate *k, p4_work *w)
{
    for (int64_t l = 0; l < k->model->arch.L; l++) {
        p4_work_unpack(w, &k->model->arch, l);
    }
}

/* Who goes through a pass. */
typedef enum models { ORIGINAL, COMPRESSED, BOTH } models;

/* What it is for. */
typedef enum purpose { SCORES, STATISTICS, TEACHER } purpose;

/* A pass of `windows` windows through the pipeline of the ranks. */
static p4_stage_work pass_work(const estimate *k, double windows, models who, purpose what)
{
    p4_stage_work w = {.flops = 0};
    const p4_arch *a = &k->model->arch;
    if (windows <= 0) {
        return w;
    }
    int forms = who == BOTH ? 2 : 1;
    const int64_t least = k->c->calibration_batch_size, count = (int64_t)windows;
    const double batch =
        (double)(what == SCORES ? p4_pipeline_batch(k->in->compute, k->model, least, (int64_t)k->T, count)
                                : least);
    double stages = fmin(k->ranks, (double)a->L), batches = ceil(windows / batch);
    const p4_work_tokens t = {.N = windows * k->T / batches, .T = k->T};
    p4_work one = work_of(k, k->plan->rates.forward_flops);
    for (int i = 0; i < forms; i++) {
        forward_all(k, &one, t);
    }
    if (who != ORIGINAL) {
        unpack_all(k, &one);
    }
    for (int64_t l = 0; what == STATISTICS && l < a->L; l++) {
        p4_work_observe(&one, a, l, t);
    }
    p4_work_ends(&one, a, t, forms - 1, k->in->compute->ops->logits_chunk);
    w.flops = forms * forward_flops(k, windows * k->T, true);
    w.sent_bytes = forms * (stages - 1) * windows * k->T * (double)a->C * one.each;
    w.seconds = (batches + stages - 1) / stages * one.seconds + /* the pipeline fills first */
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

static void time_pass(const estimate *k, p4_plan_stage_id stage, int64_t windows, models who)
{
    const p4_stage_work pass =
        pass_work(k, (double)windows, who, stage == P4_PLAN_CALIBRATE ? STATISTICS : SCORES);
    add_passes(k, stage, &pass, 1);
}

/* The evaluation text and the sets, each by itself. */
static void time_scores(const estimate *k, p4_plan_stage_id stage, models who)
{
    const p4_plan_windows *w = &k->in->windows;
    double sets = (double)k->c->eval_sets.count;
    time_pass(k, stage, w->eval, who);
    if (w->sets > 0) {
        const p4_stage_work pass = pass_work(k, (double)w->sets / sets, who, SCORES);
        add_passes(k, stage, &pass, sets);
    }
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

/* Seconds of so many micro-batches beside which sums of gradients run: their backward passes. Sums of CPU
 * ranks are waited for. */
static double hiding_s(const estimate *k, const p4_work *micro, double micros)
{
    return k->in->compute->ops->host_memory ? 0 : 2.0 / 3.0 * micros * micro->seconds;
}

/* Of a set of blocks: a rank's part of a step before its update, of the update, in which each matrix belongs
 * to one rank, and of the passes beside the steps. hiding: seconds of a step beside which sums run. */
typedef struct set_work {
    p4_work step, update, passes;
    double hiding;
} set_work;

static set_work work_of_set(const estimate *k, double windows, int64_t blocks,
                            const p4_reconstruct_plan *plan)
{
    const p4_work training = work_of(k, k->plan->rates.train_flops);
    set_work w = {.step = training, .update = training, .passes = work_of(k, k->plan->rates.forward_flops)};
    const p4_arch *a = &k->model->arch;
    const p4_rank_plan *rank = &k->plan->rank_plans[0];
    double share = fmin((double)plan->sequences, windows) / fmin(k->ranks, (double)plan->sequences),
           batches = ceil(share / fmax(1, (double)rank->reconstruct_batch)), own = windows / k->ranks,
           pass_batches = ceil(own / fmax(1, (double)rank->reconstruct_pass_batch));
    const p4_work_tokens t = {.N = share * k->T / batches, .T = k->T},
                         pass_t = {.N = own * k->T / pass_batches, .T = k->T};
    p4_work micro = w.step, pass = w.passes;
    for (int64_t l = 0; l < blocks; l++) {
        p4_work_forward(&micro, a, l, t);
        p4_work_backward(&micro, a, l, t);
        if (plan->recompute == P4_RECOMPUTE_BLOCKS) {
            p4_work_forward(&micro, a, l, t);
        }
        for (int i = 0; i < 3; i++) { /* the original's, and the errors before and after */
            p4_work_forward(&pass, a, l, pass_t);
        }
    }
    p4_work_compare(&micro, a, t);                     /* the error and its gradient */
    p4_work_copies(&micro, 2, 4 * t.N * (double)a->C); /* states of the windows */
    p4_work_copies(&pass, 2 * 4, 2 * 4 * pass_t.N * (double)a->C);
    w.step.seconds = batches * micro.seconds;
    w.hiding = k->c->exact_sums ? 0 : hiding_s(k, &micro, 1);
    w.passes.seconds = pass_batches * pass.seconds;
    p4_work_optimizer(&w.update, &(p4_work_update){.model = k->model,
                                                   .optim = &plan->optim,
                                                   .blocks = blocks,
                                                   .owners = k->ranks,
                                                   .unpacks = plan->activation_bits == 0});
    return w;
}

static void time_reconstruct(estimate *k)
{
    p4_stage_work *w = &k->plan->work[P4_PLAN_RECONSTRUCT];
    int64_t T = k->c->calibration_sequence_length,
            windows = p4_min_i64(p4_settings_reconstruct_windows(k->c, T), k->in->windows.calibration);
    const p4_reconstruct_plan plan = p4_settings_reconstruct(k->c, windows, T, NULL);
    int64_t blocks = p4_min_i64(plan.blocks, k->model->arch.L);
    double sets = (double)k->model->arch.L / (double)blocks, steps = (double)plan.steps;
    double sequences = (double)p4_min_i64(plan.sequences, windows);
    double tokens = steps * sequences * k->T, passes = 3 * (double)windows * k->T;
    const set_work set = work_of_set(k, (double)windows, blocks, &plan);
    w->flops = 3 * forward_flops(k, tokens, false) + forward_flops(k, passes, false);
    w->read_bytes = k->model_bytes;
    /* Sums run beside the last micro-batch's backward pass; each rank sends the codes of its matrices. */
    double sums = k->ranks > 1 ? ring(k, 4 * k->matrices / sets, true) : 0;
    double codes = k->ranks > 1 ? ring(k, k->ternary / 4 / sets, false) : 0;
    double step = set.step.seconds + set.update.seconds + fmax(0, sums / link_rate(k) - set.hiding) +
                  codes / link_rate(k);
    w->sent_bytes = sets * steps * k->ranks * (sums + codes);
    w->seconds = sets * (steps * step + set.passes.seconds);
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
    const p4_stage_work evaluation = pass_work(k, (double)windows->eval, COMPRESSED, SCORES);
    add_passes(k, P4_PLAN_FINE_TUNE, &evaluation, (double)evaluations);
    if (plan->teacher.weight > 0 && plan->teacher.kind == P4_TEACHER_CACHED) {
        int64_t drawn = p4_min_i64(windows->train, steps * plan->sequences);
        const p4_stage_work making = pass_work(k, (double)drawn, ORIGINAL, TEACHER);
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

/* Weights are kept unpacked where that takes little memory (jobs/train/trainer_codes.c). */
static bool keeps_unpacked(const estimate *k, const p4_train_plan *plan, double each)
{
    const double MOST = 64.0 * (1 << 20);
    return plan->activation_bits == 0 && k->ternary * each <= MOST;
}

/* A micro-batch of a training step, forward and back. */
static void micro_batch(const estimate *k, p4_work *w, p4_work_tokens t, const p4_train_plan *plan)
{
    const p4_arch *a = &k->model->arch;
    int64_t chunk = k->in->compute->ops->logits_chunk;
    bool teaches = plan->teacher.weight > 0,
         runs_teacher = teaches && plan->teacher.kind != P4_TEACHER_CACHED;
    int forwards = 1 + (runs_teacher ? 1 : 0) + (plan->recompute == P4_RECOMPUTE_BLOCKS ? 1 : 0),
        unpacks = keeps_unpacked(k, plan, w->each) ? 0 : 2;
    for (int i = 0; i < forwards; i++) {
        forward_all(k, w, t);
    }
    for (int i = 0; i < unpacks; i++) {
        unpack_all(k, w);
    }
    p4_work_ends(w, a, t, runs_teacher ? 1 : 0, chunk);
    p4_work_ends_backward(w, a, t, chunk);
    for (int64_t l = 0; l < a->L; l++) {
        p4_work_backward(w, a, l, t);
        if (runs_teacher && plan->teacher.blocks > 0) {
            p4_work_compare(w, a, t);
        }
    }
}

static void time_fine_tune(estimate *k)
{
    p4_stage_work *w = &k->plan->work[P4_PLAN_FINE_TUNE];
    int64_t T = k->c->calibration_sequence_length;
    const p4_train_plan plan = p4_settings_train(k->c, T, NULL);
    bool shards = plan.zero_stage > 0, teaches = plan.teacher.weight > 0;
    double sequences = (double)plan.sequences, steps = (double)k->plan->train_steps;
    double share = ceil(sequences / k->ranks), micro = fmax(1, (double)k->plan->rank_plans[0].micro_batch);
    double micros = ceil(share / micro), batches = plan.zero_stage == 2 || plan.exact_sums ? micros : 1;
    double forward = forward_flops(k, sequences * k->T, true);
    double passes = 3 + (plan.recompute == P4_RECOMPUTE_BLOCKS ? 1 : 0) +
                    (teaches && plan.teacher.kind != P4_TEACHER_CACHED ? 1 : 0);
    p4_work one = work_of(k, k->plan->rates.train_flops), update = one;
    micro_batch(k, &one, (p4_work_tokens){.N = share * k->T / micros, .T = k->T}, &plan);
    p4_work_optimizer(&update, &(p4_work_update){.model = k->model,
                                                 .optim = &plan.optim,
                                                 .owners = shards ? k->ranks : 1,
                                                 .unpacks = keeps_unpacked(k, &plan, one.each)});
    double compute = micros * one.seconds;
    double gradients = 0, rest = 0;
    if (k->ranks > 1) {
        gradients = sums_of_step(k, 4 * k->ternary, !shards, batches);
        rest =
            sums_of_step(k, 4 * k->replicated, true, batches) + (shards ? ring(k, k->ternary / 4, false) : 0);
    }
    double hiding = hiding_s(k, &one, batches);
    double step = compute + update.seconds + fmax(0, gradients / link_rate(k) - hiding) + rest / link_rate(k);
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
        time_scores(&k, P4_PLAN_EVALUATE_PRE, ORIGINAL);
        time_scores(&k, P4_PLAN_EVALUATE_POST, BOTH);
    }
    if (runs[P4_PLAN_CALIBRATE]) {
        time_pass(&k, P4_PLAN_CALIBRATE, p4_min_i64(w->calibration, in->config->calibration_samples),
                  ORIGINAL);
    }
    time_quantize(&k);
    if (runs[P4_PLAN_RECONSTRUCT]) {
        time_reconstruct(&k);
    }
    if (runs[P4_PLAN_FINE_TUNE]) {
        time_fine_tune(&k);
    }
    if (runs[P4_PLAN_EVALUATE_FINAL]) {
        time_scores(&k, P4_PLAN_EVALUATE_FINAL, BOTH);
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
