#include "jobs/export.h"

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
                   .has_metrics = run->metrics_log.stream != NULL,
                   .results = &run->results};
    p4_rc rc = P4_OK;
    TRY_ROOT(run->compute.group, p4_hold_check(run->hold));
    rc = p4_export_write(&e);
done:
    return rc;
}
