#include "jobs/execute.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "io/out/output.h"

static const struct {
    const char *key, *title;
    p4_rc (*run)(p4_job *job);
} stages[] = {
    {"load", "Load the model and the text", p4_stage_load},
    {"evaluate_pre", "Evaluate the original", p4_stage_evaluate_pre},
    {"calibrate", "Calibrate", p4_stage_calibrate},
    {"quantize", "Quantize", p4_stage_quantize},
    {"evaluate_post", "Evaluate the quantized model", p4_stage_evaluate_post},
    {"fine_tune", "Fine-tune", p4_stage_finetune},
    {"evaluate_final", "Evaluate what will be written", p4_stage_evaluate_final},
    {"gradient_flow", "Test the gradient flow", p4_stage_gradient_flow},
    {"export", "Write the outputs", p4_stage_export},
};
enum { STAGES = sizeof stages / sizeof stages[0] };

char *p4_job_output(const p4_job *job, const char *name)
{
    return p4_format("%s/%s", job->config.output_path, name);
}

double p4_job_peak_memory(p4_job *job)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double bytes = 1024.0 * (double)usage.ru_maxrss;
    p4_group_max_f64(job->compute.group, &bytes, 1);
    return bytes;
}

static void say_setup(const p4_job *job)
{
    INFO("phase4 %s", p4_version());
    bool nccl = !job->compute.ops->host_memory && job->compute.group->ranks > 1;
    INFO("%d rank%s, %s%s%s", job->compute.group->ranks, p4_plural(job->compute.group->ranks),
         job->compute.ops->describe(job->compute.device), nccl ? ", sums by " : "",
         nccl ? job->compute.coll.name : "");
    INFO("model %s -> %s", job->config.model_path, job->config.output_path);
    if (job->config.wandb_enabled) {
        INFO("metrics go to metrics.jsonl; a W&B run is not written by this version");
    }
}

static void judge(p4_job *job)
{
    p4_results *r = &job->results;
    r->quality.max_accuracy_drop = job->config.max_accuracy_drop;
    r->quality.degradation_ratio = NAN;
    if (r->pre.tokens > 0 && r->final.tokens > 0) {
        r->quality.passed =
            p4_validate_compression_quality(r->pre.perplexity, r->final.perplexity,
                                            job->config.max_accuracy_drop, &r->quality.degradation_ratio);
    }
}

static p4_rc run_stages(p4_job *job)
{
    p4_rc rc = P4_OK;
    for (int i = 0; i < STAGES; i++) {
        double started_s = p4_now_s();
        INFO("[%d/%d] %s", i + 1, STAGES, stages[i].title);
        p4_rc outcome = stages[i].run(job);
        TRY(p4_results_add_time(&job->results, stages[i].key, p4_now_s() - started_s));
        TRY(outcome);
    }
done:
    return rc;
}

/* results.json: the last file of a run, also of one that failed after its output directory was taken. Rank 0.
 */
static p4_rc write_results(p4_job *job, p4_rc outcome)
{
    char *path = p4_job_output(job, "results.json");
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    job->results.success = outcome == P4_OK;
    if (outcome != P4_OK) {
        snprintf(job->results.error, sizeof job->results.error, "%s", p4_last_error());
    }
    char *message = p4_strdup(p4_last_error()); /* p4_results_write forgets it */
    p4_rc rc = p4_results_write(&job->results, path);
    if (message != NULL &&
        (rc == P4_OK || outcome != P4_OK)) { /* what ended the run counts, not what came of it */
        p4_error_set(message);
    }
    free(message);
    free(path);
    return rc;
}

/* The output directory, with a results.json that counts when the run is killed: nothing else there is this
 * run's. Rank 0. */
static p4_rc take_output(const p4_job *job)
{
    p4_rc rc = P4_OK;
    p4_results unfinished = job->results;
    char *path = p4_job_output(job, "results.json");
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_output_prepare(job->config.output_path, job->config.overwrite, NULL));
    snprintf(unfinished.error, sizeof unfinished.error,
             "the run has not ended: it is under way, or was stopped");
    TRY(p4_results_write(&unfinished, path));
done:
    free(path);
    return rc;
}

void p4_job_close(p4_job *job)
{
    if (job->stats != NULL) {
        for (int64_t i = 0; i < job->hf.model.params_count; i++) {
            if (job->stats[i].owns_input) {
                free(job->stats[i].input_mean_square);
            }
        }
        free(job->stats);
    }
    if (job->train.ids != job->calibration.ids) {
        p4_windows_free(&job->train);
    }
    p4_windows_free(&job->calibration);
    p4_windows_free(&job->eval);
    if (job->original.ops != NULL) {
        p4_device_form_close(&job->original);
    }
    p4_packed_release(&job->compressed);
    p4_shard_free(&job->shard);
    p4_tokenizer_close(job->tokenizer);
    p4_hf_model_close(&job->hf);
    free(job->random_weights);
    free(job->curve);
    p4_compute_close(&job->compute);
}

p4_rc p4_job_open_compute(p4_job *job, p4_group *group)
{
    const p4_config *c = &job->config;
    p4_compute_settings settings = {
        .device = c->device, .threads = c->threads_per_rank, .half = c->mixed_precision};
    return p4_compute_open(&job->compute, group, &settings);
}

p4_rc p4_execute_on(p4_group *group, const p4_config *config, p4_log_callback log_callback, void *log_user,
                    p4_results *results)
{
    p4_rc rc = P4_OK;
    bool output_taken = false;
    double started_s = p4_now_s();
    p4_results_init(results);
    p4_job *job = p4_alloc(1, sizeof *job);
    TRY_ALL(group, job != NULL ? P4_OK : P4_E_SYSTEM);
    job->config = *config;
    job->log_callback = log_callback;
    job->log_user = log_user;
    p4_results_init(&job->results);
    TRY(p4_job_open_compute(job, group));
    say_setup(job);
    TRY_ROOT(group, take_output(job));
    output_taken = true;
    TRY(run_stages(job));
    judge(job);
    job->results.metrics.peak_memory_mb = p4_job_peak_memory(job) / 1048576.0;
done:
    if (job != NULL) {
        job->results.total_s = p4_now_s() - started_s;
        if (output_taken) {
            p4_rc written = p4_agree_root(group, group->rank == 0 ? write_results(job, rc) : P4_OK);
            if (rc == P4_OK && written != P4_OK &&
                group->rank == 0) { /* the file must not speak of success */
                (void)write_results(job, written);
            }
            rc = rc != P4_OK ? rc : written;
        }
        *results = job->results;
        p4_job_close(job);
        free(job);
    }
    return rc;
}
