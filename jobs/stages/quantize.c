#include "jobs/stages/stages.h"

static void say_errors(const p4_packed *packed)
{
    double sq_error = 0, sq_norm = 0;
    int64_t matrices = 0;
    for (int64_t i = 0; i < packed->model->params_count; i++) {
        if (packed->model->params[i].ternary) {
            sq_error += packed->errors[i].sq_error;
            sq_norm += packed->errors[i].sq_norm;
            matrices++;
        }
    }
    if (matrices == 0) {
        INFO("      off (quantizer is \"none\"): every tensor stays fp16");
        return;
    }
    INFO("      %lld %s ternary, %.1f %% zeros, relative error %.3f", (long long)matrices,
         matrices == 1 ? "matrix" : "matrices", 100.0 * p4_packed_sparsity(packed),
         sq_norm > 0 ? sq_error / sq_norm : 0.0);
}

p4_rc p4_stage_quantize(p4_run *run)
{
    p4_quantize_plan plan = p4_settings_quantize(&run->config, &run->statistics, &run->calibration);
    p4_group *group = run->compute.group;
    p4_rc rc = P4_OK;
    TRY(p4_quantize_original(&run->packed, &run->compute, &run->original, &plan));
    say_errors(&run->packed);
    if (plan.quantizer->needs == P4_NEEDS_HESSIAN &&
        (run->config.reconstruct || run->config.enable_fine_tuning)) { /* training starts from these codes */
        TRY_ALL(group, p4_masters_open(&run->masters, &run->original.hf.model));
        TRY(p4_masters_of_codes(&run->masters, &run->packed, group, &run->original.shard,
                                run->compute.threads));
    }
done:
    return rc;
}
