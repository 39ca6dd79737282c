#include "jobs/measure_rates.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/out/plan_json.h"
#include "jobs/check.h"
#include "jobs/plan.h"
#include "jobs/train/evaluate.h"
#include "jobs/train/trainer.h"
#include "src/config.h"
#include "src/leaf/limits.h"
#include "src/leaf/rng.h"

/* Where nothing is measured: tokenizing by a thread, and links. */
static const double TEXT_OF_THREAD = 5e6, LINK = 10e9;

p4_rc p4_random_windows(p4_windows *windows, int64_t count, int64_t T, int64_t V)
{
    p4_rng rng = {.seed = 1, .stream = 1};
    *windows = (p4_windows){.count = count, .T = T};
    windows->ids = p4_alloc((size_t)(count * T), sizeof *windows->ids);
    for (int64_t i = 0; windows->ids != NULL && i < count * T; i++) {
        windows->ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)V);
    }
    return windows->ids != NULL ? P4_OK : P4_E_SYSTEM;
}

/* Seconds of the fastest pass of the original over `count` windows; the first warms up. Collective. */
static p4_rc time_forward(double *best_s, p4_compute *compute, p4_original *original, const p4_config *c,
                          int64_t count)
{
    enum { PASSES = 4 };
    p4_rc rc = P4_OK;
    p4_windows windows = {0};
    p4_evaluation quality;
    const p4_evaluator evaluator = {.compute = compute,
                                    .original = original,
                                    .plan = p4_settings_pipeline(c, c->calibration_sequence_length),
                                    .windows = &windows};
    TRY_ALL(compute->group,
            p4_random_windows(&windows, count, c->calibration_sequence_length, original->hf.model.arch.V));
    TRY_ALL(compute->group, p4_original_load(original, compute));
    *best_s = INFINITY;
    for (int i = 0; i < PASSES; i++) {
        double started_s = p4_now_s();
        TRY(p4_evaluate_original(&evaluator, &quality));
        *best_s = i > 0 ? fmin(*best_s, p4_now_s() - started_s) : INFINITY;
    }
done:
    p4_original_unload(original);
    p4_windows_free(&windows);
    return rc;
}

/* Seconds of the fastest step after those that warm up (on a GPU the second is recorded). Enough steps, or
 * enough time, the same on all ranks. Collective. */
static p4_rc time_steps(double *best_s, int64_t *tokens, p4_compute *compute, const p4_original *original,
                        const p4_config *c)
{
    enum { WARM_UP = 3, STEPS = 13, FEWEST = 5 };
    const double ENOUGH_S = 30;
    p4_rc rc = P4_OK;
    p4_trainer trainer = {0};
    p4_windows windows = {0};
    p4_training_set *set = NULL;
    p4_step_result result;
    int64_t T = c->calibration_sequence_length;
    const p4_train_plan plan = p4_settings_train(c, T, NULL);
    double elapsed_s = 0;
    *tokens = plan.sequences * T;
    *best_s = INFINITY;
    TRY_ALL(compute->group,
            p4_random_windows(&windows, STEPS * plan.sequences, T, original->hf.model.arch.V));
    TRY_ALL(compute->group, p4_training_set_of_windows(&set, &windows));
    TRY(p4_trainer_open(&trainer, compute, original, set, &plan, NULL));
    for (int step = 0; step < STEPS && (step < FEWEST || elapsed_s < ENOUGH_S); step++) {
        TRY(p4_trainer_step(&trainer, step, &result));
        *best_s = step >= WARM_UP ? fmin(*best_s, result.seconds) : INFINITY;
        elapsed_s += result.seconds;
        p4_group_max_f64(compute->group, &elapsed_s, 1);
    }
done:
    p4_trainer_close(&trainer);
    p4_training_set_close(set);
    p4_windows_free(&windows);
    return rc;
}

/* Seconds of a sum of `count` numbers over all ranks, and of a copy of them on the device. Collective. */
static p4_rc time_sum_and_copy(double *sum_s, double *copy_s, p4_compute *compute, int64_t count)
{
    enum { RUNS = 5 };
    p4_rc rc = P4_OK;
    p4_coll *coll = &compute->coll;
    const p4_ops *ops = compute->ops;
    char *data = NULL;
    *sum_s = *copy_s = INFINITY;
    TRY_ALL(compute->group, ops->alloc(compute->device, (void **)&data, 2 * count * 4));
    ops->zero(compute->device, data, 2 * count * 4);
    for (int i = 0; i < RUNS; i++) {
        double started_s = p4_now_s();
        ops->copy(compute->device, data + 4 * count, data, 4 * count);
        TRY_ALL(compute->group, ops->sync(compute->device));
        *copy_s = fmin(*copy_s, p4_now_s() - started_s);
    }
    for (int i = 0; i < RUNS && compute->group->ranks > 1; i++) {
        p4_group_barrier(compute->group);
        double started_s = p4_now_s();
        coll->begin(coll);
        coll->sum_f32(coll, (float *)(void *)data, count);
        coll->end(coll);
        p4_coll_join(coll);
        coll->synchronize(coll, "rates: a sum");
        *sum_s = fmin(*sum_s, p4_now_s() - started_s);
    }
done:
    if (data != NULL) {
        ops->release(compute->device, data);
    }
    return rc;
}

/* A file beside the one that is written. Local. */
static p4_rc time_disk(p4_rates *rates, const char *beside)
{
    enum { PIECE = 4 << 20, PIECES = 64 };
    p4_rc rc = P4_OK;
    int fd = -1;
    char *path = p4_format("%s.XXXXXX", beside), *piece = p4_alloc(PIECE, 1);
    TRY(path != NULL && piece != NULL ? P4_OK : P4_E_SYSTEM);
    memset(piece, 0x5a, PIECE);
    fd = mkstemp(path);
    CHECK(fd >= 0, "%s: cannot create a file beside it", beside);
    bool ok = true;
    double started_s = p4_now_s();
    for (int i = 0; ok && i < PIECES; i++) {
        ok = write(fd, piece, PIECE) == PIECE;
    }
    ok = ok && fsync(fd) == 0;
    double written_s = p4_now_s();
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    for (int i = 0; ok && i < PIECES; i++) {
        ok = pread(fd, piece, PIECE, (off_t)i * PIECE) == PIECE;
    }
    CHECK(ok, "%s: cannot write and read %d MiB beside it", beside, PIECES * (PIECE >> 20));
    rates->disk_write = (double)PIECE * PIECES / (written_s - started_s);
    rates->disk_read = (double)PIECE * PIECES / (p4_now_s() - written_s);
done:
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    free(path);
    free(piece);
    return rc;
}

/* What decides how long a step takes, as the run would choose it. */
static void say_training(const p4_config *c)
{
    char recompute[64], micro_batch[64];
    INFO("      training steps with recompute %s, micro_batch_size %s",
         p4_config_format_scalar(recompute, c, &p4_config_table[p4_config_find("recompute")]),
         p4_config_format_scalar(micro_batch, c, &p4_config_table[p4_config_find("micro_batch_size")]));
}

static void say(const p4_rates *r)
{
    INFO("      GFLOP/s of a rank: forward passes %.4g, training steps %.4g", r->forward_flops * 1e-9,
         r->train_flops * 1e-9);
    if (r->kernel_s > 0) {
        INFO("      microseconds of a small kernel: %.3g", 1e6 * r->kernel_s);
    }
    INFO("      GB/s: memory %.3g, disk %.3g read and %.3g written, links %.3g in a node and %.3g between "
         "nodes",
         r->memory_bytes * 1e-9, r->disk_read * 1e-9, r->disk_write * 1e-9, r->node_link * 1e-9,
         r->net_link * 1e-9);
}

/* Seconds of a training step by these rates, without evaluations and checkpoints. Local. */
static double planned_step_s(p4_run *run, const p4_outlook *outlook, const p4_rates *rates)
{
    enum { STEPS = 1000 };
    const p4_config *c = &run->config;
    int64_t sequences = p4_settings_train(c, c->calibration_sequence_length, NULL).sequences;
    p4_rank_plan rank = outlook->rank;
    const p4_plan_input in = {.config = c,
                              .original = &run->original,
                              .compute = &run->compute,
                              .windows = {.train = STEPS * sequences}};
    p4_plan plan = {.ranks = run->compute.group->ranks,
                    .ranks_per_node = run->compute.group->local_ranks,
                    .rank_plans_count = 1,
                    .rank_plans = &rank,
                    .train_steps = STEPS,
                    .rates = *rates};
    memset(rank.runs, 0, sizeof rank.runs);
    rank.runs[P4_PLAN_FINE_TUNE] = true;
    p4_plan_time(&plan, &in);
    return plan.work[P4_PLAN_FINE_TUNE].seconds / STEPS;
}

/* train_flops with which a step takes so long by the plan. Where no rate is enough, because what a step does
 * with weights takes longer than copies of as many bytes, products get all of the time. Local. */
static void fit_train_flops(p4_rates *rates, p4_run *run, const p4_outlook *outlook, double step_s,
                            double products)
{
    enum { HALVINGS = 60 };
    const double SLOWEST = 1e6, FASTEST = 1e18;
    double low = SLOWEST, high = FASTEST;
    rates->train_flops = FASTEST;
    if (planned_step_s(run, outlook, rates) >= step_s) {
        rates->train_flops = products / step_s;
        INFO("      no rate of products explains the step beside these rates of memory and links: products "
             "get all of "
             "its time");
        return;
    }
    for (int i = 0; i < HALVINGS; i++) {
        rates->train_flops = sqrt(low * high);
        bool slow = planned_step_s(run, outlook, rates) > step_s;
        low = slow ? rates->train_flops : low;
        high = slow ? high : rates->train_flops;
    }
}

/* What is measured besides. */
typedef struct times {
    double forward_s, step_s, sum_s, copy_s;
    int64_t tokens;           /* of a step */
    int64_t count;            /* numbers summed and copied */
    p4_network_times network; /* on a device with kernels */
} times;

/* Collective. */
static p4_rc take_times(times *t, p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_compute *compute = &run->compute;
    const p4_config *c = &run->config;
    bool cpu = compute->ops->host_memory;
    t->count = (int64_t)(cpu ? 16 : 256) << 20;
    if (!cpu) {
        TRY_ALL(compute->group, p4_plan_networks_measure(&t->network, compute));
        double slowest[] = {t->network.narrow_s, t->network.wide_s};
        p4_group_max_f64(compute->group, slowest, 2);
        t->network = (p4_network_times){.narrow_s = slowest[0], .wide_s = slowest[1]};
    }
    TRY(time_forward(&t->forward_s, compute, &run->original, c, 8 * (int64_t)c->calibration_batch_size));
    TRY(time_steps(&t->step_s, &t->tokens, compute, &run->original, c));
    TRY(time_sum_and_copy(&t->sum_s, &t->copy_s, compute, t->count));
done:
    return rc;
}

static p4_rc measure(p4_run *run, const p4_outlook *outlook, const char *path)
{
    p4_rc rc = P4_OK;
    p4_compute *compute = &run->compute;
    const p4_group *group = compute->group;
    int64_t T = run->config.calibration_sequence_length,
            windows = 8 * (int64_t)run->config.calibration_batch_size;
    double ranks = group->ranks, flops = p4_plan_token_flops(&run->original.hf.model, T);
    bool nodes = group->local_ranks < group->ranks;
    times t = {.forward_s = 0};
    p4_rates rates = {.ranks = group->ranks,
                      .ranks_per_node = group->local_ranks,
                      .threads = compute->threads,
                      .text_bytes = TEXT_OF_THREAD * compute->threads,
                      .device = compute->ops->host_memory ? P4_RATES_OF_CPU : P4_RATES_OF_GPU};
    TRY_ROOT(compute->group,
             time_disk(&rates, path)); /* first: a path that cannot be written costs no time */
    TRY(take_times(&t, run));
    double link = ranks > 1 ? 2 * (ranks - 1) / ranks * 4 * (double)t.count / t.sum_s : LINK;
    rates.memory_bytes = 2 * 4 * (double)t.count / t.copy_s;
    rates.node_link = nodes ? LINK : link;
    rates.net_link = nodes ? link : LINK;
    if (compute->ops->host_memory) {
        rates.forward_flops = flops * (double)(windows * T) / ranks / t.forward_s;
        fit_train_flops(&rates, run, outlook, t.step_s, 3 * flops * (double)t.tokens / ranks);
    } else {
        TRY_ALL(compute->group, p4_plan_rates_of_networks(&rates, &t.network, compute));
    }
    snprintf(rates.name, sizeof rates.name, "measured: %.60s%s", compute->ops->describe(compute->device),
             ranks > 1 ? "" : ", links assumed");
    TRY_ROOT(compute->group, p4_rates_write(&rates, path));
    if (group->rank == 0) {
        say(&rates);
        INFO("      a training step of this model takes %.4g s; by these rates %.4g s", t.step_s,
             planned_step_s(run, outlook, &rates));
    }
done:
    return rc;
}

/* The original, and values of the keys that the configuration leaves open: those of a run. Collective. */
static p4_rc open_run(p4_run *run, p4_group *group, p4_outlook *outlook)
{
    p4_rc rc = P4_OK;
    p4_config *c = &run->config;
    const double process_bytes = p4_memory_resident();
    const p4_compute_settings settings = p4_settings_compute(c);
    TRY(p4_compute_open(&run->compute, group, &settings));
    INFO("%d rank%s, %s", group->ranks, p4_plural(group->ranks),
         run->compute.ops->describe(run->compute.device));
    TRY_ALL(group, p4_settings_open_original(&run->original, c, group->ranks));
    TRY(p4_check_memory(run, process_bytes, outlook));
    say_training(c);
done:
    return rc;
}

p4_rc p4_rates_measure(p4_group *group, const p4_config *config, const char *path)
{
    p4_rc rc = P4_OK;
    p4_outlook outlook;
    p4_run *run = p4_alloc(1, sizeof *run);
    TRY_ALL(group, run != NULL ? P4_OK : P4_E_SYSTEM);
    p4_config *c = &run->config;
    *c = *config;
    c->quantizer = P4_QUANTIZER_ABSMEAN; /* of no statistics */
    c->fine_tune_lr = 1e-5;              /* "auto" tries several */
    p4_settings_resolve(c);
    TRY(open_run(run, group, &outlook));
    c->distill = 0; /* a plan counts the teacher's pass; the run made room for the teacher */
    c->distill_blocks = 0;
    c->checkpoint_minutes = 0; /* a plan of steps alone */
    c->checkpoint_every = 0;
    c->eval_every = 0;
    TRY(measure(run, &outlook, path));
done:
    if (run != NULL) {
        p4_original_close(&run->original);
        p4_compute_close(&run->compute);
    }
    free(run);
    return rc;
}
