/* ops_optim.c - quantizing and packing, the elementwise optimizer ops, and Muon on one layer. */
#include <stdlib.h>

#include "ops_bench.h"
#include "src/optim.h"

/* One weight through a rule; `importance` and the error report cost extra. */
static void quantize(ops_bench *x, p4_quant_method method, const float *importance, p4_quant_error *h_error)
{
    p4_weight w = {.dtype = P4_F32, .rows = x->rows, .cols = x->cols, .data = F32(F0, x->rows * x->cols)};
    uint8_t *codes = ops_at(x, CODES, x->rows * p4_code_row_bytes(x->cols));
    x->d.ops->quantize(x->d.device, codes, x->scale, h_error, &w, method, 0.1f, importance);
}

#define CODE_PLACE ops_at(x, CODES, x->rows *p4_code_row_bytes(x->cols))
#define PACKED_PLACE ops_at(x, PACKED, x->rows *((x->cols + 4) / 5))
#define QUANTIZE(name, ...)            \
    static void run_##name(void *user) \
    {                                  \
        ops_bench *x = user;           \
        x->turn++;                     \
        __VA_ARGS__;                   \
    }
QUANTIZE(absmean, quantize(x, P4_QUANT_ABSMEAN, NULL, NULL))
QUANTIZE(absmean_report, quantize(x, P4_QUANT_ABSMEAN, NULL, &x->error))
QUANTIZE(exact, quantize(x, P4_QUANT_EXACT, NULL, NULL))
QUANTIZE(exact_report, quantize(x, P4_QUANT_EXACT, NULL, &x->error))
QUANTIZE(exact_weighted, quantize(x, P4_QUANT_EXACT, x->importance, NULL))
OP(pack_base3, ops->pack_base3(device, PACKED_PLACE, CODE_PLACE, x->rows, x->cols))
OP(unpack_base3, ops->unpack_base3(device, CODE_PLACE, PACKED_PLACE, x->rows, x->cols))

#define COUNT (x->arch.V * x->arch.C)
OP(add_sq_norm, ops->add_sq_norm(device, x->sums, F32(F0, COUNT), COUNT))
OP(add_f32, ops->add_f32(device, F32(F1, COUNT), F32(F0, COUNT), COUNT))
OP(grokfast, ops->grokfast(device, &(p4_grokfast_args){.count = COUNT,
                                                       .alpha = 0.98f,
                                                       .lambda = 0.001f,
                                                       .g = F32(F1, COUNT),
                                                       .ema = F32(F2, COUNT),
                                                       .numbers = x->numbers}))
OP(grokfast_bf16, ops->grokfast(device, &(p4_grokfast_args){.count = COUNT,
                                                            .alpha = 0.98f,
                                                            .lambda = 0.001f,
                                                            .g = F32(F1, COUNT),
                                                            .ema = F32(F2, COUNT),
                                                            .numbers = x->numbers,
                                                            .half = true}))
OP(adamw, p4_adamw_item item = {.w = F32(F1, COUNT),
                                .m = F32(F2, COUNT),
                                .v = F32(F3, COUNT),
                                .g = F32(F0, COUNT),
                                .count = COUNT};
   ops->adamw(device, &item, 1, 0.9f, 0.95f, 1e-8f, false, x->numbers))
OP(adamw_bf16, p4_adamw_item item = {.w = F32(F1, COUNT),
                                     .m = F32(F2, COUNT),
                                     .v = F32(F3, COUNT),
                                     .g = F32(F0, COUNT),
                                     .count = COUNT};
   ops->adamw(device, &item, 1, 0.9f, 0.95f, 1e-8f, true, x->numbers))

/* The scales of one layer's weight, of which F0 is the gradient and the masters. */
static p4_weight scaled_codes(ops_bench *x)
{
    return (p4_weight){.dtype = P4_TERNARY, .rows = x->rows, .cols = x->cols, .data = CODE_PLACE};
}
OP(scale_gradient, const p4_weight codes = scaled_codes(x);
   ops->scale_gradient(device, F32(F1, x->rows), F32(F0, x->rows * x->cols), &codes))
OP(store_scales, const p4_weight codes = scaled_codes(x);
   ops->store_scales(device, x->scale, F32(F1, x->rows), NULL, &codes, F32(F0, x->rows * x->cols)))

/* Fills a pool with copies of its first `have` bytes: every place then holds codes that exist. */
static void spread(ops_bench *x, ops_pool pool, int64_t have)
{
    for (int64_t bytes = x->pool_bytes[pool]; have < bytes; have *= 2) {
        x->d.ops->copy(x->d.device, x->memory[pool] + have, x->memory[pool], p4_min_i64(have, bytes - have));
    }
}

void ops_ternary_cases(ops_bench *x)
{
    double count = (double)x->rows * (double)x->cols, quantized = 4.25 * count, packed = 0.45 * count;
    x->turn = 0;
    quantize(x, P4_QUANT_ABSMEAN, NULL, NULL);
    x->d.ops->pack_base3(x->d.device, PACKED_PLACE, CODE_PLACE, x->rows, x->cols);
    spread(x, CODES, x->rows * p4_code_row_bytes(x->cols));
    spread(x, PACKED, x->rows * ((x->cols + 4) / 5));
    x->rc = x->d.ops->sync(x->d.device);
    ops_case(x, run_absmean, 0.0, quantized, "quantize_absmean");
    ops_case(x, run_absmean_report, 0.0, quantized, "quantize_absmean_report");
    ops_case(x, run_exact, 0.0, quantized, "quantize_exact");
    ops_case(x, run_exact_report, 0.0, quantized, "quantize_exact_report");
    ops_case(x, run_exact_weighted, 0.0, quantized, "quantize_exact_weighted");
    ops_case(x, run_pack_base3, 0.0, packed, "pack_base3");
    ops_case(x, run_unpack_base3, 0.0, packed, "unpack_base3");
    ops_case(x, run_scale_gradient, 0.0, quantized, "scale_gradient");
    ops_case(x, run_store_scales, 0.0, 10.0 * (double)x->rows, "store_scales");
}

/* --- Muon ------------------------------------------------------------------------------------- */

static void run_update(void *user)
{
    ops_bench *x = user;
    p4_optim_update(x->updated);
}

/* The update of some matrices of one layer: those of this role, or all (P4_ROLE_COUNT). */
static void muon_case(ops_bench *x, p4_role role, const char *name)
{
    p4_rc rc = x->rc;
    p4_model model = {0};
    p4_optim optim = {0};
    p4_arch arch = x->arch;
    bool *held = NULL, *sharded = NULL;
    p4_optim_settings settings = {
        .muon = true, .momentum = 0.95f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f};
    arch.L = 1;
    TRY(rc);
    TRY(p4_model_init(&model, &arch, ""));
    held = p4_alloc((size_t)model.params_count, sizeof *held);
    sharded = p4_alloc((size_t)model.params_count, sizeof *sharded);
    TRY(held != NULL && sharded != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < model.params_count; i++) {
        p4_role its = model.params[i].role;
        held[i] = p4_role_is_matrix(its) &&
                  (role == P4_ROLE_COUNT || (its == role && model.params[i].row_offset == 0));
    }
    TRY(p4_optim_open(&optim, x->d.ops, x->d.device, &model, &settings, held, sharded));
    TRY(bench_fill(&x->d, optim.grad, P4_F32, optim.count, 1e-3f, 0.0f));
    TRY(bench_fill(&x->d, optim.master, P4_F32, optim.count, 0.02f, 0.0f));
    p4_optim_put_update(&optim, 1e-9f, 1.0f); /* so small a rate leaves the masters where they are */
    x->updated = &optim;
    ops_case(x, run_update, bench_muon_flop(&model, held), 20.0 * (double)optim.count, "%s", name);
    rc = x->rc;
done:
    x->rc = rc;
    if (optim.ops != NULL) {
        p4_optim_close(&optim);
    }
    p4_model_close(&model);
    free(held);
    free(sharded);
}

void ops_optim_cases(ops_bench *x)
{
    double bytes = 4.0 * (double)COUNT;
    ops_case(x, run_add_sq_norm, 0.0, bytes, "add_sq_norm");
    ops_case(x, run_add_f32, 0.0, 3.0 * bytes, "add_f32");
    ops_case(x, run_grokfast, 0.0, 4.0 * bytes, "grokfast");
    ops_case(x, run_grokfast_bf16, 0.0, 3.0 * bytes, "grokfast_bf16");
    ops_case(x, run_adamw, 0.0, 7.0 * bytes, "adamw");
    ops_case(x, run_adamw_bf16, 0.0, 5.0 * bytes, "adamw_bf16");
    muon_case(x, P4_ROLE_QKV, "muon_q");
    muon_case(x, P4_ROLE_UP, "muon_up");
    muon_case(x, P4_ROLE_COUNT, "muon_layer");
}
