#include "src/plan.h"

#include <stdlib.h>
#include <string.h>

const char *const p4_plan_stage_names[P4_PLAN_STAGES] = {
    "load",          "evaluate_pre", "calibrate",      "quantize",      "reconstruct",
    "evaluate_post", "fine_tune",    "evaluate_final", "gradient_flow", "export"};

const char *const p4_plan_stage_titles[P4_PLAN_STAGES] = {"Load the model and the text",
                                                          "Evaluate the original",
                                                          "Calibrate",
                                                          "Quantize",
                                                          "Reconstruct blocks",
                                                          "Evaluate the quantized model",
                                                          "Fine-tune",
                                                          "Evaluate what will be written",
                                                          "Test that training can go on",
                                                          "Write the outputs"};

const char *p4_plan_stage_title(const char *key)
{
    for (int i = 0; i < P4_PLAN_STAGES; i++) {
        if (strcmp(p4_plan_stage_names[i], key) == 0) {
            return p4_plan_stage_titles[i];
        }
    }
    return key;
}

const char *const p4_purpose_names[P4_MEMORY_PURPOSES] = {"original",  "codes",   "masters",     "gradients",
                                                          "optimizer", "staging", "activations", "workspace",
                                                          "states",    "teacher", "windows"};

double p4_memory_sum(const double bytes[P4_MEMORY_PURPOSES])
{
    double sum = 0;
    for (int i = 0; i < P4_MEMORY_PURPOSES; i++) {
        sum += bytes[i];
    }
    return sum;
}

p4_plan_stage_id p4_rank_plan_peak(const p4_rank_plan *plan, bool device, double *bytes)
{
    p4_plan_stage_id most = P4_PLAN_LOAD;
    *bytes = 0;
    for (int s = 0; s < P4_PLAN_STAGES; s++) {
        double sum = p4_memory_sum(device ? plan->stages[s].device : plan->stages[s].host);
        if (sum > *bytes) {
            most = (p4_plan_stage_id)s;
            *bytes = sum;
        }
    }
    return most;
}

void p4_plan_free(p4_plan *plan)
{
    free(plan->rank_plans);
    *plan = (p4_plan){0};
}
