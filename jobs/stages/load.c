#include "jobs/stages/stages.h"

static void say_model(const p4_hf_model *hf, int64_t params)
{
    const p4_arch *a = &hf->model.arch;
    char stored[32];
    INFO("      %s, %lld layer%s, hidden %lld, vocabulary %lld: %.4g M parameters, %s as %s", a->family,
         (long long)a->L, p4_plural(a->L), (long long)a->C, (long long)a->V, (double)params * 1e-6,
         p4_format_bytes(stored, hf->stored_bytes), hf->stored_dtype);
}

p4_rc p4_stage_load(p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_group *group = run->compute.group;
    p4_original *original = &run->original;
    TRY_ALL(group, p4_settings_open_original(original, &run->config, group->ranks));
    TRY_ALL(group, p4_net_check_device(run->compute.ops, run->compute.device, &original->hf.model));
    TRY_ALL(group, p4_original_check_finite(original, &run->compute));
    /* Only what evaluates or calibrates runs the original; quantizing alone takes one matrix at a time. */
    bool runs = run->config.eval_samples > 0 || run->config.calibration_samples > 0;
    TRY_ALL(group, runs ? p4_original_load(original, &run->compute) : P4_OK);
    int64_t params = p4_model_count_elements(&original->hf.model);
    say_model(&original->hf, params);
    p4_config_adapt_to_model_size(&run->config, params);
    TRY(p4_load_text(run));
done:
    return rc;
}
