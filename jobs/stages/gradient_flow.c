#include "jobs/train/gradient_flow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/stages/stages.h"

/* A window to test on: [T], heap. Local. */
static int32_t *take_window(const p4_run *run, int64_t T)
{
    const p4_windows *windows = run->eval.count > 0 ? &run->eval : &run->calibration;
    int32_t *ids = p4_alloc((size_t)T, sizeof *ids);
    if (ids != NULL && windows->count > 0) {
        memcpy(ids, windows->ids, (size_t)T * sizeof *ids);
    } else if (ids != NULL && run->compute.group->rank == 0) { /* the test runs there */
        p4_training_set_window(run->train, ids, 0);
    }
    return ids;
}

p4_rc p4_stage_gradient_flow(p4_run *run)
{
    p4_rc rc = P4_OK;
    const int64_t T = run->config.calibration_sequence_length;
    int32_t *ids = NULL;
    p4_gradient_flow *record = &run->results.gradient_flow;
    if (run->eval.count + run->calibration.count == 0 && run->train == NULL) {
        INFO("      not run: there are no tokens (no evaluation, no calibration, no training)");
        return P4_OK;
    }
    ids = take_window(run, T);
    TRY_ALL(run->compute.group, ids != NULL ? P4_OK : P4_E_SYSTEM);
    p4_flow_test test = {.compute = &run->compute,
                         .model = &run->original.hf.model,
                         .weights = run->packed.weights,
                         .activation_bits = run->config.activation_bits,
                         .scales = run->config.learn_scales && p4_settings_quantizes(&run->config),
                         .ids = ids,
                         .T = T};
    TRY(p4_gradient_flow_run(&test, record));
    if (record->passed) {
        char unused[64] = "";
        if (record->tensors_unused > 0) {
            snprintf(unused, sizeof unused, "; %lld of experts without tokens have none",
                     (long long)record->tensors_unused);
        }
        INFO("      passed: %lld tensor%s, each with a finite, non-zero gradient%s: the model can be trained "
             "further",
             (long long)record->tensors_checked, p4_plural(record->tensors_checked), unused);
    } else {
        WARN("warning: the gradient-flow test failed: %s", record->error);
    }
done:
    free(ids);
    return rc;
}
