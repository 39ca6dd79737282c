#include "jobs/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "io/out/directory.h"
#include "io/out/outputs.h"
#include "jobs/check.h"
#include "jobs/stages/stages.h"
#include "src/phase4.h"

static const struct {
    const char *key, *title;
    p4_rc (*run)(p4_run *run);
} stages[] = {
    {"load", "Load the model and the text", p4_stage_load},
    {"evaluate_pre", "Evaluate the original", p4_stage_evaluate_pre},
    {"calibrate", "Calibrate", p4_stage_calibrate},
    {"quantize", "Quantize", p4_stage_quantize},
    {"reconstruct", "Reconstruct blocks", p4_stage_reconstruct},
    {"evaluate_post", "Evaluate the quantized model", p4_stage_evaluate_post},
    {"fine_tune", "Fine-tune", p4_stage_fine_tune},
    {"evaluate_final", "Evaluate what will be written", p4_stage_evaluate_final},
    {"gradient_flow", "Test the gradient flow", p4_stage_gradient_flow},
    {"export", "Write the outputs", p4_stage_export},
};
enum { STAGES = sizeof stages / sizeof stages[0] };
_Static_assert((int)STAGES <= (int)P4_MAX_STAGES, "p4_results and p4_run keep so many stages");

/* The largest rank's peak resident memory so far, bytes. Collective. */
static double peak_memory(p4_group *group)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double bytes = 1024.0 * (double)usage.ru_maxrss;
    p4_group_max_f64(group, &bytes, 1);
    return bytes;
}

static void say_setup(const p4_run *run)
{
    const p4_compute *c = &run->compute;
    bool nccl = !c->ops->host_memory && c->group->ranks > 1;
    INFO("phase4 %s", p4_version());
    INFO("%d rank%s, %s%s%s", c->group->ranks, p4_plural(c->group->ranks), c->ops->describe(c->device),
         nccl ? ", sums by " : "", nccl ? c->coll.name : "");
    INFO("model %s -> %s", run->config.model_path, run->config.output_path);
    if (run->config.wandb_enabled) {
        INFO("metrics go to " P4_METRICS_FILE "; a W&B run is not written by this version");
    }
}

static void judge(p4_run *run)
{
    p4_results *r = &run->results;
    r->quality.max_accuracy_drop = run->config.max_accuracy_drop;
    r->quality.degradation_ratio = NAN;
    if (r->pre.tokens > 0 && r->final.tokens > 0) {
        r->quality.passed =
            p4_validate_compression_quality(r->pre.perplexity, r->final.perplexity,
                                            run->config.max_accuracy_drop, &r->quality.degradation_ratio);
    }
    if (r->gradient_flow.ran && !r->gradient_flow.passed) { /* whatever the perplexity is */
        r->quality.passed = false;
    }
}

static p4_rc run_stages(p4_run *run)
{
    p4_rc rc = P4_OK;
    for (int i = 0; i < STAGES; i++) {
        if (run->done[i]) {
            continue;
        }
        double started_s = p4_now_s();
        INFO("[%d/%d] %s", i + 1, STAGES, stages[i].title);
        p4_rc outcome = stages[i].run(run);
        TRY(p4_results_add_time(&run->results, stages[i].key, p4_now_s() - started_s));
        TRY(outcome);
        TRY_ALL(run->compute.group, p4_inputs_check(&run->inputs));
        run->done[i] = true;
    }
done:
    return rc;
}

/* results.json: the last file of a run, also of one that failed after its output directory was taken. A
 * directory that is no longer this run's is left alone. Rank 0. */
static p4_rc write_results(p4_run *run, p4_rc outcome)
{
    char *path = p4_format("%s/" P4_RESULTS_FILE, run->config.output_path);
    if (path == NULL || p4_hold_check(run->hold) != P4_OK) {
        free(path);
        return path == NULL ? P4_E_SYSTEM : P4_E_INPUT;
    }
    p4_rc gone = outcome == P4_OK ? p4_output_check(&run->results.output_paths) : P4_OK;
    run->results.success = outcome == P4_OK && gone == P4_OK;
    if (!run->results.success) { /* it hands nothing on */
        snprintf(run->results.error, sizeof run->results.error, "%s", p4_last_error());
        run->results.output_paths = (p4_output_paths){.primary_output = ""};
    }
    p4_rc rc = p4_results_store(&run->results, path); /* the first error counts: what ended the run */
    free(path);
    return gone != P4_OK ? gone : rc;
}

/* The output directory, with a results.json that counts when the run is killed: nothing else there is this
 * run's. Rank 0. */
static p4_rc take_output(p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_results unfinished = run->results;
    char *path = p4_format("%s/" P4_RESULTS_FILE, run->config.output_path);
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_output_take(&run->hold, run->config.output_path, run->config.overwrite));
    snprintf(unfinished.error, sizeof unfinished.error,
             "the run has not ended: it is under way, or was stopped");
    TRY(p4_results_store(&unfinished, path));
done:
    free(path);
    return rc;
}

static void close_run(p4_run *run)
{
    p4_statistics_free(&run->statistics);
    p4_training_set_close(run->train);
    p4_windows_free(&run->calibration);
    p4_windows_free(&run->eval);
    p4_windows_free(&run->reconstruction);
    p4_masters_close(&run->masters);
    p4_packed_release(&run->packed);
    p4_original_close(&run->original);
    p4_inputs_free(&run->inputs);
    p4_tokenizer_close(run->tokenizer);
    p4_training_curve_free(&run->curve);
    p4_compute_close(&run->compute);
}

/* Device, output directory, stages, verdict. Collective. */
static p4_rc execute(p4_run *run, p4_group *group, bool *output_taken)
{
    p4_rc rc = P4_OK;
    p4_compute_settings settings = p4_settings_compute(&run->config);
    TRY(p4_compute_open(&run->compute, group, &settings));
    say_setup(run);
    TRY(p4_check_run(run, false));
    TRY_ROOT(group, take_output(run));
    *output_taken = true;
    TRY(run_stages(run));
    judge(run);
    run->results.metrics.peak_memory_mb = peak_memory(group) / 1048576.0;
done:
    return rc;
}

p4_rc p4_run_check(p4_group *group, const p4_config *config)
{
    p4_rc rc = P4_OK;
    p4_run *run = p4_alloc(1, sizeof *run);
    TRY_ALL(group, run != NULL ? P4_OK : P4_E_SYSTEM);
    run->config = *config;
    p4_compute_settings settings = p4_settings_compute(config);
    TRY(p4_compute_open(&run->compute, group, &settings));
    say_setup(run);
    TRY(p4_check_run(run, true));
done:
    if (run != NULL) {
        close_run(run);
    }
    free(run);
    return rc;
}

p4_rc p4_run_execute(p4_group *group, const p4_config *config, p4_log_callback log_callback, void *log_user,
                     p4_results *results)
{
    p4_rc rc = P4_OK;
    bool output_taken = false;
    double started_s = p4_now_s();
    p4_results_init(results);
    p4_run *run = p4_alloc(1, sizeof *run);
    TRY_ALL(group, run != NULL ? P4_OK : P4_E_SYSTEM);
    run->config = *config;
    run->log_callback = log_callback;
    run->log_user = log_user;
    p4_results_init(&run->results);
    rc = execute(run, group, &output_taken);
    run->results.total_s = p4_now_s() - started_s;
    if (output_taken) {
        p4_rc written = p4_agree_root(group, group->rank == 0 ? write_results(run, rc) : P4_OK);
        if (rc == P4_OK && written != P4_OK && group->rank == 0) { /* the file must not speak of success */
            (void)write_results(run, written);
        }
        rc = rc != P4_OK ? rc : written;
    }
    p4_output_leave(run->hold, run->config.output_path, rc == P4_OK);
    *results = run->results;
    close_run(run);
done:
    free(run);
    return rc;
}
