/* device.c - the device of a benchmark, random arrays on it, its ceilings, and the clock. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "src/leaf/rng.h"

enum { RUNS = 5, CALLS_MAX = 4096, PATTERN_COUNT = 1048583 /* a prime */ };
static const double run_s = 0.02;

p4_dtype bench_act_dtype(const bench_device *d)
{
    return d->ops->act_bytes(d->device) == 2 ? P4_BF16 : P4_F32;
}

p4_rc bench_device_open(bench_device *d, const bench_options *o)
{
    p4_rc rc = P4_OK;
    bool asked = strcmp(o->device, "cuda") == 0;
    *d = (bench_device){.ops = strcmp(o->device, "cpu") == 0 ? NULL : p4_ops_find("cuda")};
    CHECK(d->ops != NULL || !asked, "--device cuda: this build has no CUDA backend");
    if (d->ops != NULL) {
        rc = d->ops->open(&d->device, 0, o->threads, !o->fp32);
        d->cuda = rc == P4_OK;
        TRY(asked ? rc : P4_OK);
    }
    if (!d->cuda) { /* auto takes what is there; the line below says what that is */
        p4_error_clear();
        d->ops = p4_ops_find("cpu");
        TRY(d->ops->open(&d->device, 0, o->threads, false));
    }
    printf("# %s\n", d->ops->describe(d->device));
    TRY(bench_measure_ceilings(d));
done:
    if (rc != P4_OK) {
        bench_device_close(d);
    }
    return rc;
}

void bench_device_close(bench_device *d)
{
    if (d->device != NULL) {
        d->ops->close(d->device);
    }
    *d = (bench_device){0};
}

p4_rc bench_fill(const bench_device *d, void *to, p4_dtype dtype, int64_t count, float deviation,
                 float offset)
{
    p4_rng rng = {.seed = 1, .stream = 3};
    int64_t each = p4_dtype_bytes(dtype), first = p4_min_i64(count, PATTERN_COUNT);
    void *pattern = p4_alloc((size_t)first, (size_t)each);
    if (pattern == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < first; i++) {
        float value = offset + deviation * (float)p4_rng_normal(&rng);
        if (dtype == P4_F32) {
            ((float *)pattern)[i] = value;
        } else {
            ((uint16_t *)pattern)[i] = p4_f32_to_bf16(value);
        }
    }
    d->ops->to_device(d->device, to, pattern, first * each);
    for (int64_t have = first; have < count; have *= 2) {
        d->ops->copy(d->device, (char *)to + have * each, to, p4_min_i64(have, count - have) * each);
    }
    p4_rc rc = d->ops->sync(d->device);
    free(pattern);
    return rc;
}

/* --- time ------------------------------------------------------------------------------------- */

static p4_rc run(double *seconds, const bench_device *d, void (*work)(void *user), void *user, int calls)
{
    double started_s = p4_now_s();
    for (int i = 0; i < calls; i++) {
        work(user);
    }
    p4_rc rc = d->ops->sync(d->device);
    *seconds = p4_now_s() - started_s;
    return rc;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, int64_t count)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}

p4_rc bench_measure(bench_time *time, const bench_device *d, void (*work)(void *user), void *user)
{
    p4_rc rc = P4_OK;
    double seconds[RUNS], taken_s;
    int calls = 1;
    TRY(run(&taken_s, d, work, user, 1));
    TRY(run(&taken_s, d, work, user, 1));
    while (taken_s < 0.6 * run_s &&
           calls < CALLS_MAX) { /* one call alone is mostly the wait: approach in steps */
        double wanted = (double)calls * run_s / (taken_s + 1e-9);
        calls = (int)p4_min_i64(CALLS_MAX,
                                p4_max_i64(calls + 1, wanted > 16.0 * calls ? 16 * calls : (int)wanted));
        TRY(run(&taken_s, d, work, user, calls));
    }
    for (int i = 0; i < RUNS; i++) {
        TRY(run(&seconds[i], d, work, user, calls));
    }
    *time = (bench_time){.median_s = bench_median(seconds, RUNS) / calls, .calls = calls, .runs = RUNS};
done:
    return rc;
}

/* --- ceilings --------------------------------------------------------------------------------- */

typedef struct ceiling {
    const bench_device *d;
    void *a, *b, *c;
    int64_t bytes, n;
} ceiling;

static void copy_once(void *user)
{
    ceiling *x = user;
    x->d->ops->copy(x->d->device, x->b, x->a, x->bytes);
}

static void multiply_once(void *user)
{
    ceiling *x = user;
    x->d->ops->linear_forward(x->d->device, x->c, x->a, x->b, NULL, x->n, x->n, x->n);
}

/* Three arrays of x->bytes. */
static p4_rc take(ceiling *x)
{
    p4_rc rc = P4_OK;
    const bench_device *d = x->d;
    p4_dtype act = bench_act_dtype(d);
    void **arrays[] = {&x->a, &x->b, &x->c};
    for (int i = 0; i < 3; i++) {
        TRY(d->ops->alloc(d->device, arrays[i], x->bytes));
        TRY(bench_fill(d, *arrays[i], act, x->bytes / p4_dtype_bytes(act), 1.0f, 0.0f));
    }
done:
    return rc;
}

static void give_back(ceiling *x)
{
    void *arrays[] = {x->a, x->b, x->c};
    for (int i = 0; i < 3; i++) {
        if (arrays[i] != NULL) {
            x->d->ops->release(x->d->device, arrays[i]);
        }
    }
    *x = (ceiling){.d = x->d};
}

p4_rc bench_measure_ceilings(bench_device *d)
{
    p4_rc rc = P4_OK;
    bench_time time;
    ceiling x = {.d = d, .bytes = d->cuda ? (int64_t)2 << 30 : (int64_t)256 << 20};
    TRY(take(&x));
    TRY(bench_measure(&time, d, copy_once, &x));
    d->copy_gbs = 2.0 * (double)x.bytes / time.median_s * 1e-9;
    bench_line("copy", d->copy_gbs, "GB/s", NULL, 0.0, "%lld MiB read and written",
               (long long)(x.bytes >> 20));
    give_back(&x);
    x.n = d->cuda ? 8192 : 1024;
    x.bytes = x.n * x.n * p4_dtype_bytes(bench_act_dtype(d));
    TRY(take(&x));
    TRY(bench_measure(&time, d, multiply_once, &x));
    d->gemm_tflops = 2.0 * (double)x.n * (double)x.n * (double)x.n / time.median_s * 1e-12;
    bench_line(bench_act_dtype(d) == P4_BF16 ? "gemm bf16" : "gemm fp32", d->gemm_tflops, "TFLOP/s", NULL,
               0.0, "%lld^3 through linear_forward", (long long)x.n);
done:
    give_back(&x);
    return rc;
}

/* --- lines ------------------------------------------------------------------------------------ */

static void put_figure(double value)
{
    printf(value >= 1000.0 ? "%.0f" : value >= 100.0 ? "%.1f" : "%.3g", value);
}

void bench_line(const char *name, double ours, const char *unit, const char *beside, double figure,
                const char *note_format, ...)
{
    bool less_is_better = strcmp(unit, "ms") == 0 || strcmp(unit, "s") == 0 || strcmp(unit, "GiB") == 0;
    printf("%-34s | ", name);
    put_figure(ours);
    printf(" %s | ", unit);
    if (beside != NULL) {
        printf("%s ", beside);
        put_figure(figure);
        printf(" | %.2f | ", less_is_better ? figure / ours : ours / figure);
    } else {
        printf("- | - | ");
    }
    va_list arguments;
    va_start(arguments, note_format);
    vprintf(note_format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
}
