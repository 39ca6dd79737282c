#include "jobs/export.h"

#include "io/out/outputs.h"
#include "jobs/stages/stages.h"

p4_rc p4_stage_export(p4_run *run)
{
    p4_export e = {.config = &run->config,
                   .compute = &run->compute,
                   .original = &run->original,
                   .packed = &run->packed,
                   .statistics = &run->statistics,
                   .curve = &run->curve,
                   .tokenizer_json = run->tokenizer != NULL ? p4_tokenizer_json(run->tokenizer) : NULL,
                   .inputs = &run->inputs,
                   .has = P4_NEEDS_RUN | (run->metrics_log.stream != NULL ? P4_NEEDS_METRICS : 0u),
                   .hold = run->hold,
                   .results = &run->results,
                   .unfit = &run->unfit};
    return p4_export_write(&e);
}
