/* ops.c - phase4_bench ops: the shapes, the arrays, and the timing of one case. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops_bench.h"
#include "src/leaf/rng.h"

enum {
    ROTATION_BYTES = 256 << 20 /* several times the cache of a GPU */,
    PLACE_BYTES = 256,
    LOGIT_ROWS = 4096
};

/* Models, the tokens a training step of theirs computes at once, and the matrix that is quantized (0: the
 * MLP's first). */
static const struct {
    const char *name, *model;
    int64_t B, T, quantize_rows, quantize_cols;
} shapes[] = {{"llama", "llama1b", 8, 2048, 0, 0},
              {"gpt2", "gpt2", 32, 1024, 0, 0},
              {"demo", "demo", 4, 512, 4096, 4096},
              {"middle", "mixture8-active", 8, 1024, 0, 0}};

void *ops_at(const ops_bench *x, ops_pool pool, int64_t bytes)
{
    int64_t stride = p4_ceil_div(p4_max_i64(bytes, 1), PLACE_BYTES) * PLACE_BYTES;
    int64_t places = x->d.cuda ? p4_max_i64(1, x->pool_bytes[pool] / stride) : 1;
    return x->memory[pool] + x->turn % places * stride;
}

int64_t ops_acts(const ops_bench *x, int64_t count)
{
    return count * x->d.ops->act_bytes(x->d.device);
}

void ops_case(ops_bench *x, void (*work)(void *user), double flop, double bytes, const char *name_format, ...)
{
    char name[64];
    va_list arguments;
    int used = snprintf(name, sizeof name, "ops %s ", x->shape);
    va_start(arguments, name_format);
    vsnprintf(name + used, sizeof name - (size_t)used, name_format, arguments);
    va_end(arguments);
    if (x->rc != P4_OK || strstr(name, x->filter) == NULL) {
        return;
    }
    bench_time time;
    x->turn = 0;
    x->rc = bench_measure(&time, &x->d, work, x);
    if (x->rc != P4_OK) {
        return;
    }
    double flop_s = flop * 1e-12 / x->d.gemm_tflops, bytes_s = bytes * 1e-9 / x->d.copy_gbs;
    double tflops = flop / time.median_s * 1e-12, gbs = bytes / time.median_s * 1e-9;
    if (flop_s > bytes_s) {
        bench_line(name, tflops, "TFLOP/s", "gemm", x->d.gemm_tflops, "%.4f ms, %d calls, %.0f GB/s",
                   1e3 * time.median_s, time.calls, gbs);
    } else {
        bench_line(name, gbs, "GB/s", "copy", x->d.copy_gbs, "%.4f ms, %d calls", 1e3 * time.median_s,
                   time.calls);
    }
}

/* --- arrays ----------------------------------------------------------------------------------- */

static p4_rc take(ops_bench *x, void *pointer, int64_t bytes)
{
    void *memory = NULL;
    p4_rc rc = x->d.ops->alloc(x->d.device, &memory, bytes);
    if (rc == P4_OK) {
        memcpy(pointer, &memory, sizeof memory);
        x->blocks[x->block_count++] = memory;
    }
    return rc;
}

static p4_rc take_pool(ops_bench *x, ops_pool pool, int64_t bytes)
{
    x->pool_bytes[pool] =
        p4_max_i64(p4_ceil_div(bytes, PLACE_BYTES) * PLACE_BYTES, x->d.cuda ? ROTATION_BYTES : 0);
    return take(x, &x->memory[pool], x->pool_bytes[pool]);
}

/* The largest array of activations, and of fp32, that any case uses; elements. */
static void largest(const ops_bench *x, int64_t *act, int64_t *f32)
{
    const p4_arch *a = &x->arch;
    int64_t wide = p4_max_i64(p4_max_i64(2 * a->F, x->up), p4_max_i64(x->width, a->C));
    *act = p4_max_i64(p4_max_i64(x->N * wide, x->NV * ops_logits_ld(x)),
                      p4_max_i64(ops_logits_ld(x), wide) * a->C);
    *f32 = p4_max_i64(p4_max_i64(a->V * a->C, x->rows * x->cols), p4_max_i64(wide * a->C, 4 * x->N));
}

/* The activations of X0, over and over, in int8: random bits would take more power than they do. */
static p4_rc fill_rounded(ops_bench *x)
{
    enum { C = 4096 };
    p4_rc rc = P4_OK;
    int64_t widest = p4_max_i64(x->arch.F, p4_max_i64(x->arch.C, x->arch.H * x->arch.D));
    TRY(take_pool(x, ROUNDED, x->N * p4_int8_width(widest)));
    int64_t rows = x->pool_bytes[ROUNDED] / C, most = x->pool_bytes[X0] / ops_acts(x, C);
    TRY(take(x, &x->s, p4_max_i64(x->N, rows) * 4));
    for (int64_t row = 0; row < rows; row += most) {
        p4_int8_rows to = {.codes = (int8_t *)x->memory[ROUNDED] + row * C, .s = x->s + row};
        x->d.ops->quantize_int8(x->d.device, NULL, &to, x->memory[X0], p4_min_i64(most, rows - row), C);
    }
done:
    return rc;
}

static p4_rc fill_pools(ops_bench *x)
{
    p4_rc rc = P4_OK;
    int64_t act, f32;
    p4_dtype dtype = bench_act_dtype(&x->d);
    largest(x, &act, &f32);
    for (ops_pool pool = X0; pool <= Y1; pool++) {
        TRY(take_pool(x, pool, ops_acts(x, act)));
        TRY(bench_fill(&x->d, x->memory[pool], dtype, x->pool_bytes[pool] / ops_acts(x, 1), 1.0f, 0.0f));
    }
    for (ops_pool pool = F0; pool <= F3; pool++) {
        bool ones = pool >= F2;
        TRY(take_pool(x, pool, f32 * 4));
        TRY(bench_fill(&x->d, x->memory[pool], P4_F32, x->pool_bytes[pool] / 4, ones ? 0.001f : 0.02f,
                       ones ? 1 : 0));
    }
    TRY(take_pool(x, CODES,
                  p4_max_i64(x->rows * p4_code_row_bytes(x->cols), x->up * p4_code_row_bytes(x->arch.C))));
    TRY(take_pool(x, PACKED, x->rows * ((x->cols + 4) / 5)));
    TRY(fill_rounded(x));
done:
    return rc;
}

/* Random ids, and the tables of rotary positions. */
static p4_rc fill_small(ops_bench *x)
{
    p4_rc rc = P4_OK;
    int64_t half = x->arch.D / 2;
    p4_rng rng = {.seed = 1, .stream = 1};
    int32_t *h_ids = p4_alloc((size_t)x->N, sizeof *h_ids);
    float *h_tables = p4_alloc((size_t)(2 * x->T * half), sizeof *h_tables);
    TRY(h_ids != NULL && h_tables != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t n = 0; n < x->N; n++) {
        h_ids[n] = (int32_t)p4_rng_below(&rng, (uint64_t)x->arch.V);
    }
    for (int64_t i = 0; i < x->T * half; i++) {
        double angle = (double)(i / half) * pow(10000.0, -(double)(i % half) / (double)half);
        h_tables[i] = (float)cos(angle);
        h_tables[x->T * half + i] = (float)sin(angle);
    }
    TRY(take(x, &x->ids, x->N * 4));
    TRY(take(x, &x->cos_table, 2 * x->T * half * 4));
    x->sin_table = x->cos_table + x->T * half;
    x->d.ops->to_device(x->d.device, x->ids, h_ids, x->N * 4);
    x->d.ops->to_device(x->d.device, x->cos_table, h_tables, 2 * x->T * half * 4);
    TRY(x->d.ops->sync(x->d.device));
done:
    free(h_ids);
    free(h_tables);
    return rc;
}

static p4_rc take_arrays(ops_bench *x)
{
    p4_rc rc = P4_OK;
    const p4_arch *a = &x->arch;
    const p4_step_numbers numbers = {
        .lr = 1e-9f, .g_scale = 1.0f, .m_correction = 1.0f, .v_correction = 1.0f, .key = 1};
    int64_t sums_bytes = p4_max_i64(p4_max_i64(a->F, x->up), 8) * 8;
    TRY(fill_pools(x));
    TRY(fill_small(x));
    const int64_t past = x->T - 1;
    TRY(take(x, &x->past, (int64_t)sizeof past));
    x->d.ops->to_device(x->d.device, x->past, &past, sizeof past);
    TRY(take(x, &x->lse, x->B * a->H * x->T * 4)); /* about what the scores of X0 give */
    TRY(bench_fill(&x->d, x->lse, P4_F32, x->B * a->H * x->T, 0.001f, logf((float)x->T) + 0.5f));
    TRY(take(x, &x->work, x->d.ops->attention_work_count(x->d.device, &x->attention, true) * 4));
    TRY(take(x, &x->importance, x->cols * 4));
    TRY(bench_fill(&x->d, x->importance, P4_F32, x->cols, 0.001f, 1.0f));
    TRY(take(x, &x->scale, p4_max_i64(x->rows, x->up) * 2));
    TRY(take(x, &x->sums, sums_bytes));
    x->d.ops->zero(x->d.device, x->sums, sums_bytes);
    TRY(take(x, &x->numbers, sizeof numbers));
    x->d.ops->to_device(x->d.device, x->numbers, &numbers, sizeof numbers);
    TRY(x->d.ops->sync(x->d.device));
done:
    return rc;
}

static p4_rc set_shape(ops_bench *x, const bench_options *o)
{
    p4_rc rc = P4_OK;
    size_t i = 0, count = sizeof shapes / sizeof shapes[0];
    while (i < count && strcmp(shapes[i].name, o->shape) != 0) {
        i++;
    }
    CHECK(i < count, "--shape %s: expected llama, gpt2, demo or middle", o->shape);
    x->shape = shapes[i].name;
    x->model = shapes[i].model;
    x->filter = o->filter;
    const p4_arch *a = &x->arch;
    TRY(bench_arch_read(&x->arch, NULL, x->model));
    x->B = o->batch > 0 ? o->batch : shapes[i].B;
    x->T = o->length > 0 ? o->length : shapes[i].T;
    x->N = x->B * x->T;
    x->NV = p4_min_i64(x->N, LOGIT_ROWS);
    x->width = (a->H + 2 * a->Hkv) * a->D;
    x->up = a->gated_mlp ? 2 * a->F : a->F;
    x->rows = shapes[i].quantize_rows > 0 ? shapes[i].quantize_rows : x->up;
    x->cols = shapes[i].quantize_cols > 0 ? shapes[i].quantize_cols : a->C;
    x->attention = (p4_attention_shape){
        .B = x->B, .T = x->T, .H = a->H, .Hkv = a->Hkv, .D = a->D, .scale = a->attention_scale};
done:
    return rc;
}

p4_rc bench_ops(const bench_options *o)
{
    p4_rc rc = P4_OK;
    ops_bench *x = p4_alloc(1, sizeof *x);
    TRY(x != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(set_shape(x, o));
    TRY(bench_device_open(&x->d, o));
    printf("# ops at the shapes of %s: B %lld, T %lld\n", x->model, (long long)x->B, (long long)x->T);
    TRY(take_arrays(x));
    ops_ternary_cases(x); /* first: the codes that unpacking reads are made here */
    ops_linear_cases(x);
    ops_layer_cases(x);
    ops_optim_cases(x);
    rc = x->rc;
done:
    if (x != NULL) {
        for (int i = 0; i < x->block_count; i++) {
            x->d.ops->release(x->d.device, x->blocks[i]);
        }
        bench_device_close(&x->d);
    }
    free(x);
    return rc;
}
