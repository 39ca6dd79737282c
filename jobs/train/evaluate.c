#include "jobs/train/evaluate.h"

#include <math.h>

p4_rc p4_evaluate(const p4_evaluator *e, const p4_form *form, const p4_form *reference,
                  p4_evaluation *quality)
{
    p4_rc rc = P4_OK;
    p4_pipeline pipeline = {0};
    p4_pipeline_plan plan = e->plan;
    p4_pass pass = {.form = form, .reference = reference, .windows = e->windows, .label = "evaluate"};
    p4_score score;
    plan.reference = reference != NULL;
    TRY_ALL(e->compute->group,
            p4_pipeline_open(&pipeline, e->compute, &e->original->hf.model, &e->original->shard, &plan));
    TRY(p4_pipeline_run(&pipeline, &pass, &score));
    quality->loss = score.nll / score.count;
    quality->perplexity = exp(quality->loss);
    quality->accuracy = score.hits / score.count;
    quality->kl = reference != NULL ? score.kl / score.count : (double)NAN;
    quality->tokens = (int64_t)score.count;
    char loss[P4_NUMBER_BYTES];
    CHECK(isfinite(quality->loss),
          "%s: the mean loss of the %s model is %s over %lld predictions, expected a finite number",
          e->original->hf.path, form == &e->original->form.form ? "original" : "compressed",
          p4_format_number(loss, quality->loss, 4), (long long)quality->tokens);
    CHECK(reference == NULL || isfinite(quality->kl),
          "%s: the KL divergence of the compressed model from the "
          "original is %s over %lld predictions, expected a finite number",
          e->original->hf.path, p4_format_number(loss, quality->kl, 4), (long long)quality->tokens);
done:
    p4_pipeline_close(&pipeline);
    return rc;
}

p4_rc p4_evaluate_original(const p4_evaluator *e, p4_evaluation *quality)
{
    return p4_evaluate(e, &e->original->form.form, NULL, quality);
}

p4_rc p4_evaluate_packed(const p4_evaluator *e, const p4_packed *packed, bool compare, p4_evaluation *quality)
{
    p4_rc rc = P4_OK;
    p4_device_form form = {0};
    compare = compare && p4_original_is_loaded(e->original);
    TRY_ALL(e->compute->group, p4_device_form_open(&form, e->compute->ops, e->compute->device,
                                                   &e->original->hf.model, packed->weights));
    TRY(p4_evaluate(e, &form.form, compare ? &e->original->form.form : NULL, quality));
done:
    p4_device_form_close(&form);
    return rc;
}
