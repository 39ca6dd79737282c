/* phase4_bench - speed of whole pieces of work, to set beside a peer of tests/bench in one run.
 *
 *   phase4_bench train --model DIR [--batch 4] [--seq 512] [--threads N] [--steps 20] [--ste absmean|exact|none]
 *                      [--optimizer adamw|muon] [--grokfast] [--recompute]
 *   phase4_bench load  --model DIR
 *
 * train: one optimizer step (forward, backward, optimizer, requantizing) on random tokens; tokens/s, median of the steps after
 * two warm-up steps. load: opening and reading every weight once, MB/s. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "trainer.h"

typedef struct arguments {
    const char *mode, *model;
    int64_t batch, seq, steps;
    int threads;
    p4_quantizer ste;
    p4_optimizer optimizer;
    bool grokfast, recompute;
} arguments;

static int usage(void)
{
    fprintf(stderr, "usage: phase4_bench train|load --model DIR [--batch N] [--seq N] [--threads N] [--steps N]\n"
                    "       [--ste absmean|exact|none] [--optimizer adamw|muon] [--grokfast] [--recompute]\n");
    return P4_E_INPUT;
}

static bool parse_value(arguments *a, const char *key, const char *value)
{
    static const char *const quantizers[] = {"absmean", "exact", "none"};
    if (strcmp(key, "--model") == 0) {
        a->model = value;
    } else if (strcmp(key, "--batch") == 0) {
        a->batch = atoll(value);
    } else if (strcmp(key, "--seq") == 0) {
        a->seq = atoll(value);
    } else if (strcmp(key, "--steps") == 0) {
        a->steps = atoll(value);
    } else if (strcmp(key, "--threads") == 0) {
        a->threads = atoi(value);
    } else if (strcmp(key, "--optimizer") == 0) {
        a->optimizer = strcmp(value, "muon") == 0 ? P4_OPTIMIZER_MUGROKFAST : P4_OPTIMIZER_ADAMW;
    } else if (strcmp(key, "--ste") == 0) {
        for (int i = 0; i < 3; i++) {
            a->ste = strcmp(value, quantizers[i]) == 0 ? (p4_quantizer)i : a->ste;
        }
    } else {
        return false;
    }
    return true;
}

static bool parse(arguments *a, int argc, char **argv)
{
    *a = (arguments){.mode = argc > 1 ? argv[1] : "", .batch = 4, .seq = 512, .steps = 20, .ste = P4_QUANTIZER_EXACT};
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--grokfast") == 0) {
            a->grokfast = true;
        } else if (strcmp(argv[i], "--recompute") == 0) {
            a->recompute = true;
        } else if (i + 1 >= argc || !parse_value(a, argv[i], argv[i + 1])) {
            return false;
        } else {
            i++;
        }
    }
    return a->model != NULL && a->batch > 0 && a->seq > 1 && a->steps > 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static p4_rc random_windows(p4_windows *windows, int64_t count, int64_t T, int64_t V)
{
    p4_rng rng = {.seed = 1, .stream = 1};
    *windows = (p4_windows){.count = count, .T = T};
    windows->ids = p4_alloc((size_t)(count * T), sizeof *windows->ids);
    for (int64_t i = 0; windows->ids != NULL && i < count * T; i++) {
        windows->ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)V);
    }
    return windows->ids != NULL ? P4_OK : P4_E_SYSTEM;
}

static p4_rc bench_train(p4_job *job, const arguments *a)
{
    enum { WARM_UP = 2 };
    p4_rc rc = P4_OK;
    p4_trainer trainer = {0};
    double *seconds = p4_alloc((size_t)a->steps, sizeof *seconds);
    TRY(seconds != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(random_windows(&job->train, a->batch * (a->steps + WARM_UP), a->seq, job->hf.model.arch.V));
    TRY(p4_trainer_open(&trainer, job));
    for (int64_t step = 0; step < a->steps + WARM_UP; step++) {
        p4_step_result result;
        TRY(p4_trainer_step(&trainer, step, &result));
        if (step >= WARM_UP) {
            seconds[step - WARM_UP] = result.seconds;
        }
    }
    qsort(seconds, (size_t)a->steps, sizeof *seconds, ascending);
    double tokens = (double)(a->batch * a->seq);
    p4_trainer_memory bytes = p4_trainer_bytes(&trainer);
    if (job->dist->rank == 0) {
        printf("train %s: %.0f tokens/s median (best %.0f), %lld x %lld tokens a step, %s\n", a->model,
               tokens / seconds[a->steps / 2], tokens / seconds[0], (long long)a->batch, (long long)a->seq,
               job->ops->describe(job->device));
        printf("memory MiB: masters and optimizer %.1f, codes %.1f, activations %.1f\n",
               (double)bytes.masters_bytes / 1048576.0, (double)bytes.codes_bytes / 1048576.0,
               (double)bytes.activations_bytes / 1048576.0);
    }
done:
    p4_trainer_close(&trainer);
    free(seconds);
    return rc;
}

static p4_rc bench_load(p4_job *job)
{
    p4_rc rc = P4_OK;
    double started_s = p4_now_s(), bytes = 0;
    for (int64_t i = 0; i < job->hf.model.params_count; i++) {
        const p4_weight *w = &job->hf.model.weights[i];
        CHECK(p4_weight_find_nonfinite(w) < 0, "tensor %s is not finite", job->hf.model.params[i].name);
        bytes += (double)(w->rows * w->cols * p4_dtype_bytes(w->dtype));
    }
    double elapsed_s = p4_now_s() - started_s;
    printf("load %s: %.1f MB/s (%.1f MB in %.3f s)\n", job->hf.path, bytes / 1e6 / elapsed_s, bytes / 1e6, elapsed_s);
done:
    return rc;
}

int main(int argc, char **argv)
{
    p4_rc rc = P4_OK;
    arguments a;
    p4_dist dist = {0};
    if (!parse(&a, argc, argv)) {
        return usage();
    }
    p4_job *job = p4_alloc(1, sizeof *job);
    TRY(job != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_dist_open(&dist, 600));
    p4_config_recipe(&job->config, P4_RECIPE_QUALITY);
    snprintf(job->config.model_path, sizeof job->config.model_path, "%s", a.model);
    job->config.quantizer = a.ste;
    job->config.optimizer = a.optimizer;
    job->config.enable_grokfast = a.grokfast;
    job->config.recompute = a.recompute;
    job->config.threads_per_rank = a.threads;
    job->config.fine_tune_epochs = 1;
    job->config.calibration_batch_size = (int32_t)a.batch;
    job->config.calibration_sequence_length = (int32_t)a.seq;
    job->dist = &dist;
    TRY(p4_job_open_device(job));
    TRY(p4_job_open_model(job));
    TRY(strcmp(a.mode, "train") == 0 ? bench_train(job, &a) : strcmp(a.mode, "load") == 0 ? bench_load(job) : P4_E_INPUT);
done:
    if (rc != P4_OK) {
        fprintf(stderr, "phase4_bench: %s\n", p4_last_error());
    }
    if (job != NULL) {
        p4_job_close(job);
        free(job);
    }
    p4_dist_close(&dist);
    return (int)rc;
}
