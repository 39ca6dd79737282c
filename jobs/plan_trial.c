/* plan_trial.c - how fast a rank is, by what it does with small networks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "jobs/plan.h"
#include "jobs/plan_work.h"
#include "src/form.h"
#include "src/leaf/rng.h"

/* A network, and what a training pass over it needs. */
typedef struct trial {
    const p4_ops *ops;
    p4_device *device;
    p4_model model;
    p4_device_form form;
    p4_net net;
    void *weights; /* heap; in the type of activations */
    float *grad;   /* heap; device: of any parameter */
    int32_t *ids;  /* [B T] */
    int64_t B, T;
    p4_recording *recording;
} trial;

/* A block of this model's proportions, with its share of the head; narrow enough that a pass takes little
 * time: products of wider blocks are about as fast. */
static p4_rc shape_like(p4_arch *a, const p4_arch *of, int64_t T)
{
    enum { WIDTH = 256, HEAD = 64 };
    p4_rc rc = P4_OK;
    double part = fmin(1, WIDTH / (double)of->C);
    int64_t copies = of->experts > 0 ? p4_max_i64(1, of->experts_used) : 1;
    TRY(p4_arch_init(a, "llama"));
    a->C = p4_min_i64(of->C, WIDTH);
    a->L = 1;
    a->D = p4_min_i64(of->D / 2 * 2, HEAD);
    a->H = p4_max_i64(1, (int64_t)(part * (double)(of->H * of->D)) / p4_max_i64(2, a->D));
    a->D = p4_max_i64(2, a->D);
    a->Hkv = a->H % p4_max_i64(1, of->H / of->Hkv) == 0 ? a->H / p4_max_i64(1, of->H / of->Hkv) : a->H;
    a->F = p4_max_i64(16, (int64_t)(part * (double)(of->F * copies)));
    a->V = p4_max_i64(64, (int64_t)(part * (double)of->V / (double)of->L));
    a->positions = T;
done:
    return rc;
}

static p4_rc shape_trial(trial *t, p4_arch *a)
{
    p4_rc rc = P4_OK;
    a->norm_eps = 1e-5f;
    a->attention_scale = 1.0f / sqrtf((float)a->D);
    a->rope.theta = 10000;
    a->bos_id = a->eos_id = -1;
    TRY(p4_arch_check(a, "the network that is timed"));
    TRY(p4_model_init(&t->model, a, p4_family_prefix(a->family)));
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

/* Small numbers of both signs, as bf16 where activations are. */
static void fill_weights(void *weights, int64_t count, bool half)
{
    p4_rng rng = {.seed = 1, .stream = 1};
    for (int64_t i = 0; i < count; i++) {
        float value = 0.04f * (float)((double)p4_rng_below(&rng, 1 << 20) / (1 << 20) - 0.5);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        if (half) {
            ((uint16_t *)weights)[i] = (uint16_t)(bits >> 16);
        } else {
            ((float *)weights)[i] = value;
        }
    }
}

static p4_rc fill_trial(trial *t)
{
    p4_rc rc = P4_OK;
    p4_rng rng = {.seed = 2, .stream = 1};
    int64_t count = p4_model_count_elements(&t->model), largest = 0, tokens = t->B * t->T,
            each = t->ops->act_bytes(t->device);
    t->weights = p4_alloc((size_t)count, (size_t)each);
    t->ids = p4_alloc((size_t)tokens, sizeof *t->ids);
    TRY(t->weights != NULL && t->ids != NULL ? P4_OK : P4_E_SYSTEM);
    fill_weights(t->weights, count, each != 4);
    for (int64_t i = 0; i < tokens; i++) {
        t->ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)t->model.arch.V);
    }
    char *at = t->weights;
    for (int64_t i = 0; i < t->model.params_count; i++) {
        const p4_param *p = &t->model.params[i];
        t->model.weights[i] =
            (p4_weight){.dtype = each == 4 ? P4_F32 : P4_BF16, .rows = p->rows, .cols = p->cols, .data = at};
        at += p->rows * p->cols * each;
        largest = p4_max_i64(largest, p4_slot_rows(&t->model, i) * p->cols);
    }
    TRY(t->ops->alloc(t->device, (void **)&t->grad, 4 * largest));
    t->ops->zero(t->device, t->grad, 4 * largest);
done:
    return rc;
}

/* On a device that is open. Local. */
static p4_rc open_trial(trial *t, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    const p4_net_plan plan = {.B = t->B, .T = t->T, .train = true, .head = true};
    TRY(shape_trial(t, arch));
    TRY(fill_trial(t));
    TRY(p4_net_open(&t->net, t->ops, t->device, &t->model, &plan));
    TRY(p4_device_form_open(&t->form, t->ops, t->device, &t->model, t->model.weights));
done:
    return rc;
}

static void close_trial(trial *t)
{
    if (t->ops != NULL) {
        t->ops->forget(t->device, &t->recording);
    }
    if (t->form.ops != NULL) {
        p4_device_form_close(&t->form);
    }
    if (t->net.ops != NULL) {
        p4_net_close(&t->net);
    }
    if (t->grad != NULL) {
        t->ops->release(t->device, t->grad);
    }
    p4_model_close(&t->model);
    free(t->weights);
    free(t->ids);
}

static void pass_work(void *user)
{
    trial *t = user;
    const p4_grad_sink sink = {.grad = any_grad, .user = t};
    p4_net_train(&t->net, &t->form.form, t->B, t->T, 1.0f / (float)(t->B * t->T), &sink);
}

/* --- on CPUs, in a moment ----------------------------------------------------------------------- */

static double cpu_s(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + 1e-9 * (double)used.tv_nsec;
}

/* Of T tokens. *seconds: not much more than the processor time of each thread, beyond which the threads
 * waited for other programs: the plan is for cores that are free. */
static p4_rc time_pass(trial *t, int64_t T, int threads, double *seconds)
{
    const double WAITING = 1.5;
    const p4_grad_sink sink = {.grad = any_grad, .user = t};
    double started_s = p4_now_s(), used_s = cpu_s();
    p4_net_set_tokens(&t->net, t->ids, 1, T);
    p4_net_train(&t->net, &t->form.form, 1, T, 1.0f / (float)T, &sink);
    p4_rc rc = t->ops->sync(t->device);
    *seconds = fmin(p4_now_s() - started_s, WAITING * (cpu_s() - used_s) / threads);
    return rc;
}

/* The best of a few passes, none long: what else runs on the machine interrupts some. */
static p4_rc time_trial(trial *t, int threads, double *flops)
{
    enum { FIRST = 32, PASSES = 4 };
    const double PASS_S = 0.02, ALL_S = 0.1;
    p4_rc rc = P4_OK;
    double seconds, started_s = cpu_s();
    int64_t first = p4_min_i64(FIRST, t->T);
    TRY(time_pass(t, first, threads, &seconds)); /* takes pages and starts threads */
    TRY(time_pass(t, first, threads, &seconds));
    *flops = 3 * p4_plan_token_flops(&t->model, first) * (double)first / seconds;
    int64_t T = p4_min_i64(t->T, p4_max_i64(first, (int64_t)(PASS_S / seconds * (double)first)));
    for (int i = 0; i < PASSES && cpu_s() - started_s < ALL_S; i++) {
        TRY(time_pass(t, T, threads, &seconds));
        *flops = fmax(*flops, 3 * p4_plan_token_flops(&t->model, T) * (double)T / seconds);
    }
done:
    return rc;
}

/* Timed with one thread for each whole core that the rank has. More threads than cores would wait for each
 * other, and the trial would time that. Ranks that share a core do not run during the trial: it has the whole
 * core, and its result is scaled to the rank's share. */
p4_rc p4_plan_rates_here(p4_rates *rates, const p4_arch *arch, int64_t T, int threads, double cores)
{
    enum { LONGEST = 512 };
    p4_rc rc = P4_OK;
    char where[64];
    double flops, started_s = p4_now_s();
    int timed = (int)fmax(1, fmin(threads, cores));
    trial t = {.B = 1, .T = p4_min_i64(T, LONGEST)};
    p4_arch small;
    p4_plan_rates_table(rates, false, NULL, 0, timed, timed);
    t.ops = p4_ops_find("cpu");
    TRY(t.ops->open(&t.device, 0, timed, false));
    TRY(shape_like(&small, arch, t.T));
    TRY(open_trial(&t, &small));
    TRY(time_trial(&t, timed, &flops));
    double part = flops / rates->train_flops;
    double share = part * fmin(threads, cores) / timed;
    rates->forward_flops *= share;
    rates->train_flops *= share;
    rates->memory_bytes *= fmin(part, share);
    rates->text_bytes *= part;
    snprintf(where, sizeof where, "measured here in %.1f s", p4_now_s() - started_s);
    p4_plan_rates_name(rates, where, threads, cores);
done:
    close_trial(&t);
    if (t.device != NULL) {
        t.ops->close(t.device);
    }
    return rc;
}

/* --- on a device with kernels ------------------------------------------------------------------- */

/* Networks that the measured rates come from: of one, whose kernels are short, the time of a kernel; of the
 * other, whose products are long, their rate. */
typedef struct network {
    int64_t C, L, H, D, F, V, B, T;
} network;
static const network narrow = {.C = 256, .L = 4, .H = 4, .D = 64, .F = 688, .V = 1024, .B = 4, .T = 512},
                     wide = {.C = 2048, .L = 2, .H = 16, .D = 128, .F = 5632, .V = 4096, .B = 8, .T = 2048};

/* Seconds of a pass in the middle of passes for so long: a GPU that gets warm is slower than one that begins.
 * Local. */
static p4_rc time_passes(trial *t, double for_s, double *pass_s)
{
    enum { WARM_UP = 3, PASSES = 20 };
    p4_rc rc = P4_OK;
    double started_s = p4_now_s();
    p4_net_set_tokens(&t->net, t->ids, t->B, t->T);
    for (int i = 0; i < WARM_UP; i++) { /* algorithms are chosen, then the pass is recorded */
        t->ops->repeat(t->device, &t->recording, pass_work, t);
        TRY(t->ops->sync(t->device));
    }
    do {
        double from_s = p4_now_s();
        for (int i = 0; i < PASSES; i++) {
            t->ops->repeat(t->device, &t->recording, pass_work, t);
        }
        TRY(t->ops->sync(t->device));
        *pass_s = (p4_now_s() - from_s) / PASSES;
    } while (p4_now_s() - started_s < for_s);
done:
    return rc;
}

static p4_rc shape_network(p4_arch *a, const network *n)
{
    p4_rc rc = P4_OK;
    TRY(p4_arch_init(a, "llama"));
    a->C = n->C;
    a->L = n->L;
    a->H = a->Hkv = n->H;
    a->D = n->D;
    a->F = n->F;
    a->V = n->V;
    a->positions = n->T;
done:
    return rc;
}

static p4_rc time_network(const p4_compute *compute, const network *n, double for_s, double *pass_s)
{
    p4_rc rc = P4_OK;
    trial t = {.ops = compute->ops, .device = compute->device, .B = n->B, .T = n->T};
    p4_arch a;
    TRY(shape_network(&a, n));
    TRY(open_trial(&t, &a));
    TRY(time_passes(&t, for_s, pass_s));
done:
    close_trial(&t);
    return rc;
}

p4_rc p4_plan_networks_measure(p4_network_times *times, const p4_compute *compute)
{
    const double SHORT_S = 0.3, WARM_S = 2;
    p4_rc rc = P4_OK;
    TRY(time_network(compute, &narrow, SHORT_S, &times->narrow_s));
    TRY(time_network(compute, &wide, WARM_S, &times->wide_s));
done:
    return rc;
}

/* A pass over the network by these rates. */
static p4_work network_work(const p4_rates *rates, const p4_compute *compute, const network *n)
{
    p4_arch a;
    p4_work w = {.products = rates->train_flops,
                 .memory = rates->memory_bytes,
                 .kernel_s = rates->kernel_s,
                 .each = (double)compute->ops->act_bytes(compute->device)};
    const p4_work_tokens t = {.N = (double)(n->B * n->T), .T = (double)n->T};
    int64_t chunk = compute->ops->logits_chunk;
    if (shape_network(&a, n) != P4_OK) {
        return w; /* a family that is built in */
    }
    for (int64_t l = 0; l < a.L; l++) {
        p4_work_forward(&w, &a, l, t);
        p4_work_backward(&w, &a, l, t);
    }
    p4_work_ends(&w, &a, t, 0, chunk);
    p4_work_ends_backward(&w, &a, t, chunk);
    return w;
}

p4_network_times p4_plan_networks(const p4_rates *rates, const p4_compute *compute)
{
    return (p4_network_times){.narrow_s = network_work(rates, compute, &narrow).seconds,
                              .wide_s = network_work(rates, compute, &wide).seconds};
}

p4_rc p4_plan_rates_of_networks(p4_rates *rates, const p4_network_times *times, const p4_compute *compute)
{
    enum { ROUNDS = 8, HALVINGS = 60 };
    const double SLOWEST = 1e6, FASTEST = 1e18, SHORTEST_S = 1e-9;
    rates->kernel_s = SHORTEST_S;
    for (int round = 0; round < ROUNDS; round++) { /* each of the two changes the other a little */
        double low = SLOWEST, high = FASTEST;
        for (int i = 0; i < HALVINGS; i++) {
            rates->train_flops = sqrt(low * high);
            bool slow = network_work(rates, compute, &wide).seconds > times->wide_s;
            low = slow ? rates->train_flops : low;
            high = slow ? high : rates->train_flops;
        }
        const p4_work w = network_work(rates, compute, &narrow);
        double launches_s = times->narrow_s - (w.seconds - w.kernels * rates->kernel_s);
        rates->kernel_s = fmax(SHORTEST_S, launches_s / w.kernels);
    }
    rates->forward_flops = rates->train_flops;
    const p4_network_times found = p4_plan_networks(rates, compute);
    bool fits = fabs(found.narrow_s - times->narrow_s) <= 0.01 * times->narrow_s &&
                fabs(found.wide_s - times->wide_s) <= 0.01 * times->wide_s;
    return fits ? P4_OK
                : FAULT("training passes over a narrow and a wide network take %.3g s and %.3g s, which no "
                        "rate of products and no time of a kernel give with %.3g bytes/s of memory",
                        times->narrow_s, times->wide_s, rates->memory_bytes);
}
