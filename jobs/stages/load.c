#include <stdlib.h>

#include "jobs/stages/stages.h"
#include "src/leaf/names.h"

static void say_model(const p4_hf_model *hf, int64_t params)
{
    const p4_arch *a = &hf->model.arch;
    char stored[32];
    INFO("      %s, %lld layer%s, hidden %lld, vocabulary %lld: %.4g M parameters, %s as %s", a->family,
         (long long)a->L, p4_plural(a->L), (long long)a->C, (long long)a->V, (double)params * 1e-6,
         p4_format_bytes(stored, hf->stored_bytes), hf->stored_dtype);
}

/* Every weight is finite; a matrix of zeros is read as it is, but hardly anyone means it. Collective. */
static p4_rc check_values(const p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_original *original = &run->original;
    const p4_model *model = &original->hf.model;
    p4_name_sample zero = {.count = 0};
    double *nonzero = p4_alloc((size_t)model->params_count, sizeof *nonzero);
    TRY_ALL(run->compute.group, nonzero != NULL ? P4_OK : P4_E_SYSTEM);
    TRY_ALL(run->compute.group, p4_original_check_values(original, &run->compute, nonzero));
    p4_group_max_f64(run->compute.group, nonzero, model->params_count);
    for (int64_t i = 0; i < model->params_count; i++) {
        if (nonzero[i] == 0.0 && !model->params[i].vector) {
            p4_name_sample_add(&zero, model->params[i].name);
        }
    }
    if (zero.count > 0) {
        WARN("warning: %s: every value is zero in %lld %s: %s", original->hf.path, (long long)zero.count,
             zero.count == 1 ? "matrix" : "matrices", p4_name_sample_text(&zero));
    }
done:
    free(nonzero);
    return rc;
}

/* Local. */
static p4_rc remember_model(p4_inputs *inputs, const p4_hf_model *hf)
{
    p4_rc rc = P4_OK;
    char *config = p4_format("%s/config.json", hf->path);
    TRY(config != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_inputs_add(inputs, config, true));
    for (int64_t i = 0; i < hf->shard_count; i++) {
        TRY(p4_inputs_add(inputs, hf->shards[i].path, true));
    }
done:
    free(config);
    return rc;
}

p4_rc p4_stage_load(p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_group *group = run->compute.group;
    p4_original *original = &run->original;
    TRY_ALL(group, remember_model(&run->inputs, &original->hf));
    TRY(p4_inputs_compare(group, &run->inputs));
    TRY(check_values(run));
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
