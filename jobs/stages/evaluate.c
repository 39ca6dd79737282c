#include <math.h>

#include "jobs/train/pipeline.h"

p4_rc p4_job_evaluate(p4_job *job, const p4_form *form, const p4_form *reference, const char *label,
                      p4_evaluation *quality)
{
    p4_rc rc = P4_OK;
    p4_pipeline pipeline = {0};
    p4_score score;
    TRY_ALL(job->compute.group, p4_pipeline_open(&pipeline, job, reference != NULL));
    TRY(p4_pipeline_run(&pipeline, form, reference, &job->eval, NULL, label, &score));
    quality->loss = score.nll / score.count;
    quality->perplexity = exp(quality->loss);
    quality->accuracy = score.hits / score.count;
    quality->kl = reference != NULL ? score.kl / score.count : (double)NAN;
    quality->tokens = (int64_t)score.count;
    CHECK(isfinite(quality->loss), "%s: the mean loss is %g over %lld predictions, expected a finite number",
          label, quality->loss, (long long)quality->tokens);
done:
    p4_pipeline_close(&pipeline);
    return rc;
}

p4_rc p4_job_evaluate_compressed(p4_job *job, const char *label, p4_evaluation *quality)
{
    p4_rc rc = P4_OK;
    p4_device_form form = {0};
    TRY_ALL(job->compute.group, p4_device_form_open(&form, job->compute.ops, job->compute.device,
                                                    &job->hf.model, job->compressed.weights));
    TRY(p4_job_evaluate(job, &form.form, job->original.ops != NULL ? &job->original.form : NULL, label,
                        quality));
done:
    p4_device_form_close(&form);
    return rc;
}

/* Whoever knows nothing of a text gives each of V tokens the same probability, and has perplexity V. */
static void warn_of_guessing(const p4_job *job)
{
    const int64_t V = job->hf.model.arch.V;
    if (job->config.init == P4_INIT_CHECKPOINT && job->results.pre.perplexity > (double)V) {
        WARN("warning: the original's perplexity is %.0f, above that of guessing among its %lld tokens: do "
             "model, tokenizer "
             "and text belong together? The verdict compares with this",
             job->results.pre.perplexity, (long long)V);
    }
}

p4_rc p4_stage_evaluate_pre(p4_job *job)
{
    if (job->eval.count == 0) {
        INFO("      off (eval_samples is 0)");
        return P4_OK;
    }
    p4_rc rc = p4_job_evaluate(job, &job->original.form, NULL, "evaluate", &job->results.pre);
    if (rc == P4_OK) {
        INFO("      loss %.4f, perplexity %.3f, accuracy %.2f %% over %lld prediction%s",
             job->results.pre.loss, job->results.pre.perplexity, 100.0 * job->results.pre.accuracy,
             (long long)job->results.pre.tokens, p4_plural(job->results.pre.tokens));
        warn_of_guessing(job);
    }
    return rc;
}

static p4_rc evaluate_and_say(p4_job *job, const char *label, p4_evaluation *quality)
{
    if (job->eval.count == 0) {
        INFO("      off (eval_samples is 0)");
        return P4_OK;
    }
    p4_rc rc = p4_job_evaluate_compressed(job, label, quality);
    if (rc == P4_OK) {
        double drop = (quality->perplexity - job->results.pre.perplexity) / job->results.pre.perplexity;
        INFO("      loss %.4f, perplexity %.3f (%+.1f %%), accuracy %.2f %%, KL to the original %.4f",
             quality->loss, quality->perplexity, 100.0 * drop, 100.0 * quality->accuracy, quality->kl);
    }
    return rc;
}

p4_rc p4_stage_evaluate_post(p4_job *job)
{
    p4_rc rc = evaluate_and_say(job, "evaluate", &job->results.post);
    job->results.final = job->results.post;
    return rc;
}

p4_rc p4_stage_evaluate_final(p4_job *job)
{
    p4_rc rc = P4_OK;
    if (!job->results.fine_tuning.ran) {
        INFO("      as after quantizing: nothing was trained");
        return P4_OK;
    }
    TRY_ALL(job->compute.group,
            job->eval.count > 0 ? p4_job_open_original(job) : P4_OK); /* training may have closed it */
    TRY(evaluate_and_say(job, "evaluate", &job->results.final));
done:
    return rc;
}
