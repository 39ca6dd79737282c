/* quality.c - what follows from two perplexities: whether to fine-tune, and the verdict. */
#include "src/phase4.h"

bool p4_should_fine_tune(const p4_config *config, double pre_perplexity, double post_perplexity)
{
    double drop = (post_perplexity - pre_perplexity) / pre_perplexity;
    return config->enable_fine_tuning && !(drop <= config->fine_tune_threshold);
}

bool p4_validate_compression_quality(double pre_perplexity, double post_perplexity, double max_accuracy_drop,
                                     double *degradation_ratio)
{
    *degradation_ratio = (post_perplexity - pre_perplexity) / pre_perplexity;
    return *degradation_ratio <= max_accuracy_drop;
}
