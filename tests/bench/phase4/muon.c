/* muon.c - phase4_bench muon: the optimizer's update of all block matrices of a model, through src/optim.h.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "src/optim.h"

static void update_once(void *user)
{
    p4_optim_update(user);
}

p4_rc bench_muon(const bench_options *o)
{
    p4_rc rc = P4_OK;
    bench_device d = {0};
    p4_arch arch;
    p4_model model = {0};
    p4_optim optim = {0};
    bool *held = NULL, *sharded = NULL;
    bench_time time;
    char name[64];
    p4_optim_settings settings = {
        .muon = true, .momentum = 0.95f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f};
    TRY(bench_arch_read(&arch, NULL, o->model));
    TRY(bench_device_open(&d, o));
    TRY(p4_model_init(&model, &arch, ""));
    held = p4_alloc((size_t)model.params_count, sizeof *held);
    sharded = p4_alloc((size_t)model.params_count, sizeof *sharded);
    TRY(held != NULL && sharded != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < model.params_count; i++) {
        held[i] = p4_role_is_matrix(model.params[i].role);
    }
    TRY(p4_optim_open(&optim, d.ops, d.device, &model, &settings, held, sharded));
    TRY(bench_fill(&d, optim.grad, P4_F32, optim.count, 1e-3f, 0.0f));
    TRY(bench_fill(&d, optim.master, P4_F32, optim.count, 0.02f, 0.0f));
    p4_optim_put_update(&optim, 1e-9f, 1.0f); /* so small a rate leaves the masters where they are */
    TRY(bench_measure(&time, &d, update_once, &optim));
    double count = (double)optim.count, tflops = bench_muon_flop(&model, held) / time.median_s * 1e-12;
    snprintf(name, sizeof name, "muon %s", o->model);
    bench_line(name, 1e3 * time.median_s, "ms", NULL, 0.0, "%.0f M parameters", 1e-6 * count);
    snprintf(name, sizeof name, "muon %s rate", o->model);
    bench_line(name, tflops, "TFLOP/s", "gemm", d.gemm_tflops, "optimizer memory %.2f GiB",
               (double)optim.memory_bytes / (double)(1 << 30));
done:
    if (optim.ops != NULL) {
        p4_optim_close(&optim);
    }
    p4_model_close(&model);
    free(held);
    free(sharded);
    bench_device_close(&d);
    return rc;
}
