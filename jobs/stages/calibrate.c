#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/stages/stages.h"
#include "src/leaf/count.h"
#include "src/leaf/names.h"

/* Which experts no token was routed to. Local. */
static p4_rc say_loads(const p4_run *run)
{
    const p4_model *model = &run->original.hf.model;
    p4_expert_loads loads = {0};
    p4_name_sample names = {.count = 0};
    p4_rc rc = p4_statistics_loads(&run->statistics, model, &loads);
    for (int64_t i = 0; loads.tokens != NULL && i < loads.layers * loads.experts; i++) {
        char name[64];
        if (!p4_arch_has_experts(&model->arch, i / loads.experts)) {
            continue;
        }
        snprintf(name, sizeof name, "expert %lld of layer %lld", (long long)(i % loads.experts),
                 (long long)(i / loads.experts));
        if (loads.tokens[i] == 0) {
            p4_name_sample_add(&names, name);
        }
    }
    if (names.count > 0) {
        WARN("warning: calibration: no token was routed to %lld of %lld experts: %s; more "
             "calibration_samples may "
             "reach them",
             (long long)names.count, (long long)(loads.mixtures * loads.experts),
             p4_name_sample_text(&names));
    } else if (loads.tokens != NULL) {
        INFO("      every expert got tokens");
    }
    free(loads.tokens);
    return rc;
}

p4_rc p4_stage_calibrate(p4_run *run)
{
    char tokens[P4_COUNT_BYTES];
    const p4_windows *windows = &run->calibration;
    if (run->config.calibration_samples == 0) {
        INFO("      off (calibration_samples is 0)");
        return P4_OK;
    }
    p4_pipeline_plan plan = p4_settings_pipeline(&run->config, windows->T);
    p4_rc rc = p4_statistics_collect(&run->statistics, &run->compute, &run->original, &plan, windows);
    if (rc == P4_OK) {
        INFO("      statistics of every projection over %s tokens, loss %.4f",
             p4_format_count(tokens, llround(run->statistics.tokens)), run->statistics.loss);
        rc = p4_agree(run->compute.group, say_loads(run));
    }
    return rc;
}
