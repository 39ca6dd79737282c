/* train.c - phase4_bench train and load: training steps through jobs/train/trainer.h on random tokens, and
 * reading a model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "jobs/measure_rates.h"
#include "jobs/settings.h"
#include "jobs/train/trainer.h"
#include "src/config.h"

enum { WARM_UP = 3 };

static void configure(p4_config *config, const bench_options *o)
{
    p4_config_recipe(config, P4_RECIPE_QUALITY);
    config->fine_tune_lr = 1e-3;
    snprintf(config->model_path, sizeof config->model_path, "%s", o->model);
    config->device = strcmp(o->device, "cpu") == 0    ? P4_DEVICE_CPU
                     : strcmp(o->device, "cuda") == 0 ? P4_DEVICE_CUDA
                                                      : P4_DEVICE_AUTO;
    config->mixed_precision = !o->fp32;
    config->quantizer = o->quantizer;
    config->activation_bits = o->activation_bits;
    config->optimizer = o->optimizer;
    config->optimizer_state = o->optimizer_state;
    config->enable_grokfast = o->grokfast;
    config->zero_stage = o->zero_stage;
    config->recompute = o->recompute;
    config->distill = o->teacher != P4_TEACHER_AUTO ? 0.9 : 0.0;
    config->distill_teacher = o->teacher;
    config->distill_blocks = o->blocks ? 1.0 : 0.0;
    config->threads_per_rank = o->threads;
    config->fine_tune_epochs = 1;
    config->micro_batch_size = (int32_t)o->micro;
    config->calibration_batch_size = (int32_t)(o->batch > 0 ? o->batch : 4);
    config->calibration_sequence_length = (int32_t)(o->length > 0 ? o->length : 512);
}

/* The weights of a directory that has some, else random ones of its architecture. Local. */
static p4_rc open_model(p4_original *original, const p4_config *c, int ranks)
{
    p4_rc rc = P4_OK;
    p4_model *model = &original->hf.model;
    bool has_weights = bench_model_has_weights(c->model_path);
    TRY(has_weights ? p4_original_open(original, c->model_path, false, c->seed)
                    : bench_model_open(&original->hf, &original->random_weights, c->model_path));
    CHECK(c->calibration_sequence_length <= model->arch.positions, "--length %d, but %s has %lld positions",
          c->calibration_sequence_length, c->model_path, (long long)model->arch.positions);
    TRY(p4_settings_mark_original(original, c, ranks));
done:
    return rc;
}

/* --- train ------------------------------------------------------------------------------------ */

/* "train llama1b exact adamw int8": what decides the work; batch and length stand in the note. */
static void name_run(char *name, size_t bytes, const bench_options *o, int ranks)
{
    static const char *const recomputes[] = {"", " light", " recompute"}, *const teachers[] = {
                                                                              "", " distill",
                                                                              " distill sharded",
                                                                              " distill cached"};
    const char *model = strrchr(o->model, '/') != NULL ? strrchr(o->model, '/') + 1 : o->model;
    int used =
        snprintf(name, bytes, "train %s %s %s%s%s%s%s%s%s%s", model, p4_quantizer_names[o->quantizer],
                 o->optimizer == P4_OPTIMIZER_ADAMW ? "adamw" : "mugrokfast", o->grokfast ? " grokfast" : "",
                 o->activation_bits == 8 ? " int8" : "",
                 o->optimizer_state == P4_OPTIMIZER_STATE_BF16 ? " bf16-state" : "", teachers[o->teacher],
                 o->blocks ? " blocks" : "", recomputes[o->recompute], o->fp32 ? " fp32" : "");
    if (ranks > 1 && used > 0 && (size_t)used < bytes) {
        snprintf(name + used, bytes - (size_t)used, " x%d zero%d", ranks, o->zero_stage);
    }
}

/* What is read off a trainer before it goes. */
typedef struct figures {
    double median_s, best_s, tokens, model_flop, loss, grad_norm;
    int64_t sequences, micro_batch, T, peak_bytes;
    p4_trainer_memory bytes;
} figures;

static void read_figures(figures *f, const p4_trainer *t, double *seconds, int64_t steps)
{
    const p4_compute *compute = t->compute;
    f->median_s = bench_median(seconds, steps);
    f->best_s = seconds[0];
    f->sequences = t->plan.sequences;
    f->micro_batch = t->batch.size;
    f->T = t->plan.T;
    f->tokens = (double)(f->sequences * f->T);
    f->model_flop = f->tokens * bench_train_flop(t->model, f->T) / (double)compute->group->ranks;
    f->peak_bytes = compute->ops->peak_bytes(compute->device);
    f->bytes = p4_trainer_bytes(t);
}

static p4_rc time_steps(figures *f, p4_compute *compute, const p4_original *original, const p4_config *config,
                        int64_t timed)
{
    p4_rc rc = P4_OK;
    p4_trainer trainer = {0};
    p4_windows windows = {0};
    p4_training_set *set = NULL;
    p4_step_result result;
    int64_t steps = timed + WARM_UP, T = config->calibration_sequence_length;
    p4_train_plan plan = p4_settings_train(config, T, NULL);
    double *seconds = p4_alloc((size_t)timed, sizeof *seconds);
    TRY(seconds != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_random_windows(&windows, plan.sequences * steps, T, original->hf.model.arch.V));
    TRY(p4_training_set_of_windows(&set, &windows));
    TRY(p4_trainer_open(&trainer, compute, original, set, &plan, NULL));
    for (int64_t step = 0; step < steps; step++) {
        TRY(p4_trainer_step(&trainer, step, &result));
        CHECK(result.applied, "step %lld: the gradient was not finite", (long long)step);
        if (step >= WARM_UP) {
            seconds[step - WARM_UP] = result.seconds;
        }
    }
    read_figures(f, &trainer, seconds, timed);
    f->loss = result.loss;
    f->grad_norm = result.grad_norm;
done:
    p4_trainer_close(&trainer);
    p4_training_set_close(set);
    p4_windows_free(&windows);
    free(seconds);
    return rc;
}

static void report(const figures *f, const char *name, double gemm_tflops)
{
    char line[160];
    double GiB = (double)(1 << 30);
    bench_line(name, f->tokens / f->median_s, "tokens/s", NULL, 0.0,
               "B %lld, micro %lld, T %lld, %.1f ms a step (best %.1f)", (long long)f->sequences,
               (long long)f->micro_batch, (long long)f->T, 1e3 * f->median_s, 1e3 * f->best_s);
    snprintf(line, sizeof line, "%s memory", name);
    bench_line(line, (double)f->peak_bytes / GiB, "GiB", NULL, 0.0,
               "masters and optimizer %.2f, codes %.2f, activations %.2f, teacher %.2f",
               (double)p4_optim_memory_sum(&f->bytes.optim) / GiB, (double)f->bytes.codes_bytes / GiB,
               (double)(f->bytes.activations_bytes + f->bytes.staging_bytes) / GiB,
               (double)f->bytes.teacher_bytes / GiB);
    snprintf(line, sizeof line, "%s model flop", name);
    bench_line(line, f->model_flop / f->median_s * 1e-12, "TFLOP/s", "gemm", gemm_tflops,
               "a device, without recomputation; last loss %.3f, gradient norm %.3g", f->loss, f->grad_norm);
}

static p4_rc train(p4_compute *compute, const p4_config *config, const bench_options *o)
{
    p4_rc rc = P4_OK;
    char name[128];
    figures f = {0};
    p4_group *group = compute->group;
    p4_original original = {0};
    bench_device d = {.ops = compute->ops, .device = compute->device, .cuda = !compute->ops->host_memory};
    TRY_ALL(group, open_model(&original, config, group->ranks));
    name_run(name, sizeof name, o, group->ranks);
    if (group->rank == 0) {
        bool sums = d.cuda && group->ranks > 1;
        printf("# %d rank%s, %s%s%s\n", group->ranks, p4_plural(group->ranks), d.ops->describe(d.device),
               sums ? ", sums by " : "", sums ? compute->coll.name : "");
    }
    TRY(time_steps(&f, compute, &original, config, o->steps));
    /* Now, not before: the arrays of the ceilings would count in the peak. */
    TRY_ROOT(group, bench_measure_ceilings(&d));
    if (group->rank == 0) {
        report(&f, name, d.gemm_tflops);
    }
done:
    p4_original_close(&original);
    return rc;
}

/* Opens the ranks and their devices for some work. Collective over MPI_COMM_WORLD. */
static p4_rc on_ranks(const bench_options *o,
                      p4_rc (*work)(p4_compute *compute, const p4_config *config, const bench_options *o))
{
    p4_rc rc = P4_OK;
    static p4_config config;
    p4_machine machine = {0};
    p4_group group = {0};
    p4_compute compute = {0};
    configure(&config, o);
    p4_compute_settings settings = p4_settings_compute(&config);
    TRY(p4_machine_open(&machine));
    TRY(p4_group_open(&group, &machine, NULL, 600));
    TRY(p4_compute_open(&compute, &group, &settings));
    TRY(work(&compute, &config, o));
done:
    p4_compute_close(&compute);
    p4_group_close(&group);
    p4_machine_close(&machine);
    return rc;
}

p4_rc bench_train(const bench_options *o)
{
    return on_ranks(o, train);
}

/* --- load ------------------------------------------------------------------------------------- */

p4_rc bench_load(const bench_options *o)
{
    p4_rc rc = P4_OK;
    static p4_config config;
    p4_original original = {0};
    double bytes = 0;
    configure(&config, o);
    CHECK(bench_model_has_weights(o->model), "load: --model %s has no model.safetensors", o->model);
    double started_s = p4_now_s();
    TRY(p4_settings_open_original(&original, &config, 1));
    for (int64_t i = 0; i < original.hf.model.params_count; i++) {
        const p4_weight *w = &original.hf.model.weights[i];
        CHECK(p4_weight_find_nonfinite(w) < 0, "tensor %s is not finite", original.hf.model.params[i].name);
        bytes += (double)(w->rows * w->cols * p4_dtype_bytes(w->dtype));
    }
    double elapsed_s = p4_now_s() - started_s;
    bench_line("load", bytes * 1e-9 / elapsed_s, "GB/s", NULL, 0.0, "%.1f MB in %.3f s", bytes * 1e-6,
               elapsed_s);
done:
    p4_original_close(&original);
    return rc;
}
