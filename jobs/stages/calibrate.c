#include "jobs/stages/stages.h"

p4_rc p4_stage_calibrate(p4_run *run)
{
    const p4_windows *windows = &run->calibration;
    if (run->config.calibration_samples == 0) {
        INFO("      off (calibration_samples is 0)");
        return P4_OK;
    }
    p4_pipeline_plan plan = p4_settings_pipeline(&run->config, windows->T);
    p4_rc rc = p4_statistics_collect(&run->statistics, &run->compute, &run->original, &plan, windows);
    if (rc == P4_OK) {
        INFO("      statistics of every projection over %.0f tokens, loss %.4f", run->statistics.tokens,
             run->statistics.loss);
    }
    return rc;
}
