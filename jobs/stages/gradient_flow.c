#include "jobs/train/gradient_flow.h"

#include "jobs/stages/stages.h"

p4_rc p4_stage_gradient_flow(p4_run *run)
{
    p4_gradient_flow *record = &run->results.gradient_flow;
    const p4_windows *windows = run->eval.count > 0 ? &run->eval : p4_run_train_windows(run);
    if (windows->count == 0) {
        INFO("      not run: there are no tokens (no evaluation, no calibration, no training)");
        return P4_OK;
    }
    p4_flow_test test = {.compute = &run->compute,
                         .model = &run->original.hf.model,
                         .weights = run->packed.weights,
                         .activation_bits = run->config.activation_bits,
                         .ids = windows->ids,
                         .T = windows->T};
    p4_rc rc = p4_gradient_flow_run(&test, record);
    if (rc == P4_OK && record->passed) {
        INFO("      passed: %lld tensor%s, each with a finite, non-zero gradient",
             (long long)record->tensors_checked, p4_plural(record->tensors_checked));
    } else if (rc == P4_OK) {
        WARN("      FAILED: %s", record->error);
    }
    return rc;
}
