#include "jobs/train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/json/evaluation.h"
#include "io/text/window_parts.h"
#include "jobs/train/bootstrap.h"

enum { LABEL_BYTES = P4_SET_NAME_BYTES + 40 };

/* Which model passes over which text: an evaluation may be several passes, one after another. */
static void write_label(char label[LABEL_BYTES], const p4_evaluator *e, const char *which)
{
    snprintf(label, LABEL_BYTES, e->opt_set != NULL ? "evaluate %s, set \"%s\"" : "evaluate %s", which,
             e->opt_set);
}

p4_rc p4_evaluate(const p4_evaluator *e, const p4_form *form, const p4_form *reference,
                  p4_evaluation *quality, p4_part_losses *opt_losses)
{
    p4_rc rc = P4_OK;
    p4_pipeline pipeline = {0};
    p4_pipeline_plan plan = e->plan;
    const char *which = form == &e->original->form.form ? "original" : "compressed";
    char label[LABEL_BYTES];
    p4_pass pass = {.form = form, .reference = reference, .windows = e->windows, .label = label};
    p4_score score;
    write_label(label, e, which);
    plan.reference = reference != NULL;
    plan.B = p4_pipeline_batch(e->compute, &e->original->hf.model, plan.B, plan.T, e->windows->count);
    *quality = p4_evaluation_none();
    if (opt_losses != NULL) {
        opt_losses->count = e->windows->part_count;
        opt_losses->nll = p4_alloc((size_t)opt_losses->count, sizeof *opt_losses->nll);
        TRY_ALL(e->compute->group, opt_losses->nll != NULL ? P4_OK : P4_E_SYSTEM);
        pass.part_nll = opt_losses->nll;
    }
    TRY_ALL(e->compute->group,
            p4_pipeline_open(&pipeline, e->compute, &e->original->hf.model, &e->original->shard, &plan));
    TRY(p4_pipeline_run(&pipeline, &pass, &score));
    quality->loss = score.nll / score.count;
    quality->perplexity = exp(quality->loss);
    quality->accuracy = score.hits / score.count;
    quality->kl = reference != NULL ? score.kl / score.count : (double)NAN;
    quality->agreement = reference != NULL ? score.same / score.count : (double)NAN;
    quality->tokens = (int64_t)score.count;
    quality->documents = e->windows->part_documents;
    const p4_text_share text = p4_window_parts_text(e->windows);
    quality->bits_per_byte = score.nll / (log(2.0) * text.bytes);
    quality->word_perplexity = exp(score.nll / text.words);
    if (opt_losses != NULL) { /* from the head's rank to all */
        p4_group_sum_f64(e->compute->group, opt_losses->nll, opt_losses->count);
    }
    char loss[P4_NUMBER_BYTES];
    CHECK(isfinite(quality->loss),
          "%s: the mean loss of the %s model is %s over %lld predictions, expected a finite number",
          e->original->hf.path, which, p4_format_number(loss, quality->loss, 4), (long long)quality->tokens);
    CHECK(reference == NULL || isfinite(quality->kl),
          "%s: the KL divergence of the compressed model from the "
          "original is %s over %lld predictions, expected a finite number",
          e->original->hf.path, p4_format_number(loss, quality->kl, 4), (long long)quality->tokens);
done:
    p4_pipeline_close(&pipeline);
    return rc;
}

/* original_nll NULL: not known. P4_STOPPED: this rank was asked to stop. Local. */
static p4_rc set_intervals(const p4_evaluator *e, p4_evaluation *quality, const p4_part_losses *losses,
                           const double *original_nll)
{
    p4_interval perplexity, rise = {.low = NAN, .high = NAN};
    p4_rc rc =
        p4_bootstrap(&perplexity, &rise, e->windows, losses->nll, original_nll, e->seed, e->compute->stop);
    if (rc == P4_OK) {
        quality->perplexity_low = perplexity.low;
        quality->perplexity_high = perplexity.high;
        quality->degradation_low = rise.low;
        quality->degradation_high = rise.high;
    }
    return rc;
}

p4_rc p4_evaluate_original(const p4_evaluator *e, p4_evaluation *quality)
{
    p4_rc rc = P4_OK;
    p4_part_losses losses = {.nll = NULL};
    p4_evaluation measured = *quality; /* a run that is stopped keeps no part of it */
    bool tells = e->opt_losses != NULL;
    TRY(p4_evaluate(e, &e->original->form.form, NULL, &measured, tells ? &losses : NULL));
    if (tells) {
        TRY_ALL(e->compute->group, set_intervals(e, &measured, &losses, NULL));
        free(e->opt_losses->nll);
        *e->opt_losses = losses;
        losses.nll = NULL;
    }
    *quality = measured;
done:
    free(losses.nll);
    return rc;
}

p4_rc p4_evaluate_packed(const p4_evaluator *e, const p4_packed *packed, bool compare, p4_evaluation *quality)
{
    p4_rc rc = P4_OK;
    p4_device_form form = {0};
    p4_part_losses losses = {.nll = NULL};
    p4_evaluation measured = *quality; /* as above */
    bool tells = e->opt_losses != NULL;
    compare = compare && p4_original_is_loaded(e->original);
    TRY_ALL(e->compute->group, p4_device_form_open(&form, e->compute->ops, e->compute->device,
                                                   &e->original->hf.model, packed->weights));
    TRY(p4_evaluate(e, &form.form, compare ? &e->original->form.form : NULL, &measured,
                    tells ? &losses : NULL));
    if (tells) {
        bool known = e->opt_losses->nll != NULL && e->opt_losses->count == losses.count;
        TRY_ALL(e->compute->group, set_intervals(e, &measured, &losses, known ? e->opt_losses->nll : NULL));
    }
    *quality = measured;
done:
    free(losses.nll);
    p4_device_form_close(&form);
    return rc;
}
