/* plan_rates.c - how fast a rank is: by a table or, on the CPUs of this machine, by what it does with a small
 * network. Rates say how long a run takes and nothing about its results. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "jobs/plan.h"
#include "src/form.h"
#include "src/leaf/rng.h"

/* Estimates, where a file of rates is not given. The training rate of an H200 is near what was measured
 * (docs/gpus.md: 78,080 tokens/s of the Llama 1.1B step are 484 TFLOP/s); the others were not. */
static const p4_rates h200 = {.name = "built-in table, NVIDIA H200",
                              .forward_flops = 600e12,
                              .train_flops = 470e12,
                              .memory_bytes = 3.0e12,
                              .disk_read = 5e9,
                              .disk_write = 2e9,
                              .node_link = 360e9,
                              .net_link = 45e9,
                              .text_bytes = 50e6};
static const p4_rates h100 = {.name = "built-in table, NVIDIA H100",
                              .forward_flops = 580e12,
                              .train_flops = 430e12,
                              .memory_bytes = 2.2e12,
                              .disk_read = 5e9,
                              .disk_write = 2e9,
                              .node_link = 360e9,
                              .net_link = 45e9,
                              .text_bytes = 50e6};
/* Of one thread. */
static const p4_rates cpu_thread = {.name = "built-in table, CPU",
                                    .forward_flops = 90e9,
                                    .train_flops = 60e9,
                                    .memory_bytes = 4e9,
                                    .disk_read = 1e9,
                                    .disk_write = 0.5e9,
                                    .node_link = 3e9,
                                    .net_link = 10e9,
                                    .text_bytes = 5e6};

/* A part of a GPU (MIG) is slower than the whole. */
static void take_gpu(p4_rates *rates, const char *opt_gpu, double room_bytes)
{
    const double H100_BYTES = 100e9; /* an H200 has 141 GB */
    bool whole = opt_gpu != NULL && strstr(opt_gpu, "MIG") == NULL,
         is_h200 = whole && strstr(opt_gpu, "NVIDIA H200") != NULL,
         is_h100 = whole && strstr(opt_gpu, "NVIDIA H100") != NULL;
    *rates = is_h200 || (!is_h100 && room_bytes > H100_BYTES) ? h200 : h100;
    if (opt_gpu != NULL && !is_h100 && !is_h200) {
        size_t used = strlen(rates->name);
        snprintf(rates->name + used, sizeof rates->name - used,
                 "; this GPU is not in it: phase4_mpi --measure-rates");
    }
}

void p4_plan_rates_table(p4_rates *rates, bool on_gpu, const char *opt_gpu, double room_bytes, int threads)
{
    if (on_gpu) {
        take_gpu(rates, opt_gpu, room_bytes);
        return;
    }
    *rates = cpu_thread;
    snprintf(rates->name, sizeof rates->name, "built-in table, CPU, %d thread%s a rank", threads,
             p4_plural(threads));
    rates->forward_flops *= threads;
    rates->train_flops *= threads;
    rates->text_bytes *= threads;
}

/* --- measured here ----------------------------------------------------------------------------- */

/* One block of the model's proportions, with its share of the head, and what a training pass over it needs.
 */
typedef struct trial {
    const p4_ops *ops;
    p4_device *device;
    p4_model model;
    p4_device_form form;
    p4_net net;
    float *weights, *grad; /* heap; device: of any parameter */
    int32_t *ids;          /* [T] */
    int64_t T;
    int threads;
} trial;

/* Narrow enough that a pass takes little time; products of wider blocks are about as fast. */
static p4_rc shape_trial(trial *t, const p4_arch *of)
{
    enum { WIDTH = 256, HEAD = 64 };
    p4_rc rc = P4_OK;
    p4_arch a;
    double part = fmin(1, WIDTH / (double)of->C);
    int64_t copies = of->experts > 0 ? p4_max_i64(1, of->experts_used) : 1;
    TRY(p4_arch_init(&a, "llama"));
    a.C = p4_min_i64(of->C, WIDTH);
    a.L = 1;
    a.D = p4_min_i64(of->D / 2 * 2, HEAD);
    a.H = p4_max_i64(1, (int64_t)(part * (double)(of->H * of->D)) / p4_max_i64(2, a.D));
    a.D = p4_max_i64(2, a.D);
    a.Hkv = a.H % p4_max_i64(1, of->H / of->Hkv) == 0 ? a.H / p4_max_i64(1, of->H / of->Hkv) : a.H;
    a.F = p4_max_i64(16, (int64_t)(part * (double)(of->F * copies)));
    a.V = p4_max_i64(64, (int64_t)(part * (double)of->V / (double)of->L));
    a.positions = t->T;
    a.norm_eps = 1e-5f;
    a.attention_scale = 1.0f / sqrtf((float)a.D);
    a.rope.theta = 10000;
    a.bos_id = a.eos_id = -1;
    TRY(p4_arch_check(&a, "the network that is timed"));
    TRY(p4_model_init(&t->model, &a, p4_family_prefix(a.family)));
done:
    return rc;
}

static float *any_grad(void *user, int64_t param, bool *accumulate)
{
    const trial *t = user;
    (void)param;
    (void)accumulate;
    return t->grad;
}

static p4_rc fill_trial(trial *t)
{
    p4_rc rc = P4_OK;
    p4_rng rng = {.seed = 1, .stream = 1};
    int64_t count = p4_model_count_elements(&t->model), largest = 0;
    t->weights = p4_alloc((size_t)count, sizeof *t->weights);
    t->ids = p4_alloc((size_t)t->T, sizeof *t->ids);
    TRY(t->weights != NULL && t->ids != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < count; i++) {
        t->weights[i] = 0.04f * (float)((double)p4_rng_below(&rng, 1 << 20) / (1 << 20) - 0.5);
    }
    for (int64_t i = 0; i < t->T; i++) {
        t->ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)t->model.arch.V);
    }
    float *at = t->weights;
    for (int64_t i = 0; i < t->model.params_count; i++) {
        const p4_param *p = &t->model.params[i];
        t->model.weights[i] = (p4_weight){.dtype = P4_F32, .rows = p->rows, .cols = p->cols, .data = at};
        at += p->rows * p->cols;
        largest = p4_max_i64(largest, p4_slot_rows(&t->model, i) * p->cols);
    }
    TRY(t->ops->alloc(t->device, (void **)&t->grad, 4 * largest));
    t->ops->zero(t->device, t->grad, 4 * largest);
done:
    return rc;
}

static p4_rc open_trial(trial *t, const p4_arch *of)
{
    p4_rc rc = P4_OK;
    const p4_net_plan plan = {.B = 1, .T = t->T, .train = true, .head = true};
    t->ops = p4_ops_find("cpu");
    TRY(t->ops->open(&t->device, 0, t->threads, false));
    TRY(shape_trial(t, of));
    TRY(fill_trial(t));
    TRY(p4_net_open(&t->net, t->ops, t->device, &t->model, &plan));
    TRY(p4_device_form_open(&t->form, t->ops, t->device, &t->model, t->model.weights));
done:
    return rc;
}

static void close_trial(trial *t)
{
    if (t->form.ops != NULL) {
        p4_device_form_close(&t->form);
    }
    if (t->net.ops != NULL) {
        p4_net_close(&t->net);
    }
    if (t->grad != NULL) {
        t->ops->release(t->device, t->grad);
    }
    if (t->device != NULL) {
        t->ops->close(t->device);
    }
    p4_model_close(&t->model);
    free(t->weights);
    free(t->ids);
}

static double cpu_s(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + 1e-9 * (double)used.tv_nsec;
}

/* *seconds: not much more than the processor time of each thread, beyond which the threads waited for other
 * programs: the plan is for cores that are free. */
static p4_rc time_pass(trial *t, int64_t T, double *seconds)
{
    const double WAITING = 1.5;
    const p4_grad_sink sink = {.grad = any_grad, .user = t};
    double started_s = p4_now_s(), used_s = cpu_s();
    p4_net_set_tokens(&t->net, t->ids, 1, T);
    p4_net_train(&t->net, &t->form.form, 1, T, 1.0f / (float)T, &sink);
    p4_rc rc = t->ops->sync(t->device);
    *seconds = fmin(p4_now_s() - started_s, WAITING * (cpu_s() - used_s) / t->threads);
    return rc;
}

/* The best of a few passes, none long: what else runs on the machine interrupts some. */
static p4_rc time_trial(trial *t, double *flops)
{
    enum { FIRST = 32, PASSES = 4 };
    const double PASS_S = 0.02, ALL_S = 0.1;
    p4_rc rc = P4_OK;
    double seconds, started_s = cpu_s();
    int64_t first = p4_min_i64(FIRST, t->T);
    TRY(time_pass(t, first, &seconds)); /* takes pages and starts threads */
    TRY(time_pass(t, first, &seconds));
    *flops = 3 * p4_plan_token_flops(&t->model, first) * (double)first / seconds;
    int64_t T = p4_min_i64(t->T, p4_max_i64(first, (int64_t)(PASS_S / seconds * (double)first)));
    for (int i = 0; i < PASSES && cpu_s() - started_s < ALL_S; i++) {
        TRY(time_pass(t, T, &seconds));
        *flops = fmax(*flops, 3 * p4_plan_token_flops(&t->model, T) * (double)T / seconds);
    }
done:
    return rc;
}

p4_rc p4_plan_rates_here(p4_rates *rates, const p4_arch *arch, int64_t T, int threads)
{
    enum { LONGEST = 512 };
    p4_rc rc = P4_OK;
    double flops, started_s = p4_now_s();
    trial t = {.T = p4_min_i64(T, LONGEST), .threads = threads};
    p4_plan_rates_table(rates, false, NULL, 0, threads);
    TRY(open_trial(&t, arch));
    TRY(time_trial(&t, &flops));
    double part = flops / rates->train_flops;
    rates->forward_flops *= part;
    rates->train_flops *= part;
    rates->memory_bytes *= part;
    rates->text_bytes *= part;
    snprintf(rates->name, sizeof rates->name, "measured here in %.1f s, %d thread%s a rank",
             p4_now_s() - started_s, threads, p4_plural(threads));
done:
    close_trial(&t);
    return rc;
}
