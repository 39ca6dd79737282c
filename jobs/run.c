#include "jobs/run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "dist/launcher.h"
#include "io/file/files.h"
#include "io/out/directory.h"
#include "io/out/outputs.h"
#include "jobs/check.h"
#include "jobs/details.h"
#include "jobs/forecast.h"
#include "jobs/keep.h"
#include "jobs/metrics.h"
#include "jobs/pages.h"
#include "jobs/provenance.h"
#include "jobs/resume.h"
#include "jobs/stages/stages.h"
#include "jobs/watch.h"
#include "src/leaf/log_sink.h"
#include "src/leaf/shell.h"
#include "src/phase4.h"
#include "src/plan.h"

/* What a process that continues the run does with a stage that is finished. */
typedef enum keeping {
    REPEATED, /* it runs again: what it makes is in no checkpoint */
    RESTORED, /* a checkpoint has it: the process comes to this from a border between stages */
    CHANGING, /* the same, and it changes what stages before it made: the border before it is saved, and it
                 saves its own state when it is stopped */
    SAVING,   /* RESTORED, and it saves its own state when it is stopped */
} keeping;

static const struct {
    p4_rc (*run)(p4_run *run);
    keeping keeping;
    double (*work)(const p4_run *run); /* forecast.h; NULL: not counted, it takes little time */
} stages[P4_PLAN_STAGES] = {
    [P4_PLAN_LOAD] = {p4_stage_load, REPEATED, NULL},
    [P4_PLAN_EVALUATE_PRE] = {p4_stage_evaluate_pre, RESTORED, p4_work_evaluate_original},
    [P4_PLAN_CALIBRATE] = {p4_stage_calibrate, RESTORED, p4_work_calibrate},
    [P4_PLAN_QUANTIZE] = {p4_stage_quantize, RESTORED, NULL},
    [P4_PLAN_RECONSTRUCT] = {p4_stage_reconstruct, CHANGING, p4_work_reconstruct},
    [P4_PLAN_EVALUATE_POST] = {p4_stage_evaluate_post, RESTORED, p4_work_evaluate_packed},
    [P4_PLAN_FINE_TUNE] = {p4_stage_fine_tune, SAVING, p4_work_fine_tune},
    [P4_PLAN_EVALUATE_FINAL] = {p4_stage_evaluate_final, RESTORED, p4_work_evaluate_trained},
    [P4_PLAN_GRADIENT_FLOW] = {p4_stage_gradient_flow, REPEATED, NULL},
    [P4_PLAN_EXPORT] = {p4_stage_export, REPEATED, NULL},
};
enum { STAGES = P4_PLAN_STAGES };
_Static_assert((int)STAGES <= (int)P4_MAX_STAGES, "p4_results and p4_run keep so many stages");

/* The peak resident memory of the largest rank so far. Collective. */
static void note_peak_memory(p4_run *run)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double mb = (double)usage.ru_maxrss / 1024.0; /* from KiB */
    p4_group_max_f64(run->compute.group, &mb, 1);
    run->results.metrics.peak_memory_mb = mb;
}

static void say_setup(const p4_run *run)
{
    const p4_compute *c = &run->compute;
    bool nccl = !c->ops->host_memory && c->group->ranks > 1;
    INFO("phase4 %s", p4_version());
    INFO("%d rank%s, %s%s%s", c->group->ranks, p4_plural(c->group->ranks), c->ops->describe(c->device),
         nccl ? ", sums by " : "", nccl ? c->coll.name : "");
    INFO("model %s -> %s", run->config.model_path, run->config.output_path);
}

/* Where the launcher may kill the ranks before they have saved. A batch has a file to stop all its models. */
static void say_stop(const p4_run *run)
{
    if (run->compute.group->rank == 0 && run->compute.group->ranks > 1 && !run->in_batch &&
        p4_launched_by_mpirun()) {
        char *path = p4_format("%s/" P4_STOP_REQUEST_FILE, run->config.output_path);
        char *word = path != NULL ? p4_shell_word(path) : NULL;
        if (word != NULL) {
            INFO("      to stop it with its state saved: touch %s (after Ctrl-C mpirun may kill it before)",
                 word);
        }
        p4_error_clear(); /* without the line the run goes on */
        free(word);
        free(path);
    }
}

static void judge(p4_run *run)
{
    p4_results *r = &run->results;
    p4_quality_judge(&r->quality, &r->pre, &r->final, run->config.max_accuracy_drop);
    for (int64_t i = 0; i < r->set_count; i++) {
        p4_set_results *set = &r->sets[i];
        p4_quality_judge(&set->quality, &set->pre, &set->final, run->config.max_accuracy_drop);
    }
    r->quality.passed = p4_results_verdict(r) == P4_VERDICT_PASSED;
    r->original_guesses = p4_evaluation_guesses(run, &r->pre);
}

/* Saves what a run that is asked to stop has finished, unless its last checkpoint has it or the model and the
 * text were not yet there. The message then says how to go on. Collective. */
static p4_rc stop(p4_run *run, bool saved)
{
    p4_rc rc = P4_OK;
    char *message = NULL, *besides = NULL;
    if (!saved && run->done[0] && !p4_resume_has_training(run)) {
        p4_error_clear(); /* a failure to save says what ended the run */
        TRY(p4_keep_stopped(run, NULL, NULL));
        (void)p4_stop_end(&run->stop);
    }
    besides = p4_resume_besides(run, "with");
    TRY_ALL(run->compute.group, besides != NULL ? P4_OK : P4_E_SYSTEM);
    const char *last = p4_resume_last(run),
               *first = p4_file_exists(run->stop.file) ? "once that file is removed, " : "";
    message =
        last[0] != '\0'
            ? p4_format("%s; the state of the run is in %s: %sthe same command%s continues it",
                        p4_last_error(), last, first, besides)
            : p4_format("%s; no stage was finished: %sthe same command starts anew", p4_last_error(), first);
    TRY_ALL(run->compute.group, message != NULL ? P4_OK : P4_E_SYSTEM);
    p4_error_set(message);
    rc = P4_STOPPED;
done:
    free(message);
    free(besides);
    return rc;
}

/* Is a checkpoint due before stage `next`? Around a stage that changes what is there: before it, and behind
 * it, where it is usually most of the work, unless the run saves none by itself. Rank 0's answer counts. */
static bool is_save_due(const p4_run *run, int next)
{
    const p4_config *c = &run->config;
    const bool saves = c->checkpoint_minutes > 0 || c->checkpoint_every > 0,
               works = run->reconstruction.count > 0;
    bool changes = works && stages[next].keeping == CHANGING && !run->done[next];
    bool changed = works && stages[next - 1].keeping == CHANGING && saves;
    return !p4_resume_has_training(run) && (p4_resume_is_due(run, 0) || changes || changed);
}

/* Before stage `next`: is the run asked to stop, is it time to save? Collective. */
static p4_rc pass_border(p4_run *run, int next)
{
    p4_rc rc = p4_stop_agree(&run->stop, run->compute.group);
    if (rc == P4_STOPPED) {
        return stop(run, false);
    }
    double due = run->compute.group->rank == 0 && is_save_due(run, next);
    p4_group_max_f64(run->compute.group, &due, 1);
    TRY_ROOT(run->compute.group, p4_hold_check(run->hold));
    rc = due > 0 ? p4_resume_save_or_warn(run) : P4_OK;
done:
    return rc;
}

static double seconds_of(const p4_results *results, const char *stage)
{
    for (int64_t i = 0; i < results->stage_count; i++) {
        if (strcmp(results->stages[i].stage, stage) == 0) {
            return results->stages[i].seconds;
        }
    }
    return 0;
}

/* Seconds that the stages behind this one will take: at the speed of those before it or, where there are none
 * to judge by, as planned. */
static double forecast_after(const p4_run *run, int stage)
{
    double done = 0, seconds = 0, after = 0, planned_s = 0;
    for (int i = 0; i < STAGES; i++) {
        double work = run->done[0] && stages[i].work != NULL ? stages[i].work(run) : 0;
        if (run->done[i] && work > 0) {
            done += work;
            seconds += seconds_of(&run->results, p4_plan_stage_names[i]);
        }
        after += i > stage ? work : 0;
        planned_s += i > stage && !run->done[i] ? run->planned_s[i] : 0;
    }
    return done > 0 ? after * seconds / done : planned_s;
}

/* A results.json that counts when the run is killed: nothing else there is this run's. opt_stage: the title
 * of the stage that begins. Rank 0. */
static p4_rc mark_unfinished(p4_run *run, const char *opt_stage)
{
    p4_rc rc = P4_OK;
    p4_warnings_copy(&run->warnings, &run->results);
    p4_results unfinished = run->results;
    char *path = p4_format("%s/" P4_RESULTS_FILE, run->config.output_path);
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    snprintf(unfinished.error, sizeof unfinished.error, "%s%s%s", P4_UNFINISHED_ERROR,
             opt_stage != NULL ? P4_UNFINISHED_STAGE : "", opt_stage != NULL ? opt_stage : "");
    TRY(p4_results_store(&unfinished, path));
done:
    free(path);
    return rc;
}

/* The stage, for reports of a run under way or killed: what cannot be written there ends no run. */
static void mark_stage(p4_run *run, int i)
{
    if (run->compute.group->rank == 0 && stages[i].work != NULL && p4_hold_check(run->hold) == P4_OK) {
        (void)mark_unfinished(run, p4_plan_stage_titles[i]);
    }
    p4_error_clear();
}

static p4_rc run_stage(p4_run *run, int i)
{
    p4_rc rc = P4_OK, outcome = P4_OK;
    INFO("[%d/%d] %s", i + 1, STAGES, p4_plan_stage_titles[i]);
    p4_progress_set_after(forecast_after(run, i));
    mark_stage(run, i);
    p4_timeline_begin(run, p4_plan_stage_names[i]);
    outcome = stages[i].run(run);
    p4_timeline_end(run);
    TRY(p4_results_add_time(&run->results, p4_plan_stage_names[i], p4_timeline_last_s(run)));
    TRY(outcome);
    TRY_ALL(run->compute.group, p4_inputs_check(&run->inputs));
    run->done[i] = true;
done:
    if (rc == P4_STOPPED) { /* of a training, once it has begun */
        bool saves = stages[i].keeping == SAVING && run->results.fine_tuning.ran;
        rc = stop(run, stages[i].keeping == CHANGING || saves);
    } else if (i == P4_PLAN_EXPORT && outcome == P4_E_INPUT) {
        rc = p4_keep_state(run, outcome);
    }
    return rc;
}

static bool is_done(const p4_run *run, p4_rc (*stage)(p4_run *run))
{
    int i = 0;
    while (i < STAGES && stages[i].run != stage) {
        i++;
    }
    return i < STAGES && run->done[i];
}

/* Takes the state of the processes before this one. Collective. */
static p4_rc take_up(p4_run *run)
{
    p4_rc rc = P4_OK;
    TRY(p4_resume_restore(run));
    int64_t final_texts = is_done(run, p4_stage_evaluate_final) ? 1 + run->results.set_count
                          : is_done(run, p4_stage_fine_tune)    ? run->texts_evaluated
                                                                : 0;
    TRY_ROOT(run->compute.group, p4_metrics_restore(run, final_texts));
done:
    return rc;
}

/* load comes first: a checkpoint can be compared and taken when the model and the text are there. */
static p4_rc run_stages(p4_run *run)
{
    p4_rc rc = P4_OK;
    for (int i = 0; i < STAGES; i++) {
        if (run->done[i]) {
            continue;
        }
        if (i == P4_PLAN_EXPORT) { /* the metadata have the verdict */
            judge(run);
        }
        TRY(run_stage(run, i));
        note_peak_memory(run); /* the metadata, which the last stage writes, have it up to then */
        TRY(i == 0 ? take_up(run) : P4_OK);
        TRY(i + 1 < STAGES ? pass_border(run, i + 1) : P4_OK);
    }
done:
    return rc;
}

static p4_rc open_resume(p4_run *run)
{
    const char *keys[P4_MAX_STAGES] = {NULL};
    for (int i = 0; i < STAGES; i++) {
        keys[i] = stages[i].keeping != REPEATED ? p4_plan_stage_names[i] : NULL;
    }
    return p4_resume_open(run, keys);
}

/* results.json: the last file of a run, also of one that failed after its output directory was taken. A
 * directory that is no longer this run's is left alone. Rank 0. */
static p4_rc write_results(p4_run *run, p4_rc outcome)
{
    char *path = p4_format("%s/" P4_RESULTS_FILE, run->config.output_path);
    p4_rc held = path != NULL ? p4_hold_check(run->hold) : P4_E_SYSTEM;
    if (held != P4_OK) {
        free(path);
        return held;
    }
    p4_output_free_reserve(run->config.output_path);
    p4_rc gone = outcome == P4_OK ? p4_output_check(&run->results.output_paths) : P4_OK;
    run->results.success = outcome == P4_OK && gone == P4_OK;
    if (!run->results.success) { /* it hands nothing on */
        snprintf(run->results.error, sizeof run->results.error, "%s", p4_last_error());
        run->results.output_paths = (p4_output_paths){.primary_output = ""};
    }
    p4_warnings_copy(&run->warnings, &run->results);
    p4_rc rc = p4_results_store(&run->results, path); /* the first error counts: what ended the run */
    free(path);
    return gone != P4_OK ? gone : rc;
}

/* A results.json that cannot be written must speak neither of success nor of a run that is under way. Rank 0.
 */
static void drop_results(const p4_run *run)
{
    char *path = p4_format("%s/" P4_RESULTS_FILE, run->config.output_path);
    if (path != NULL && p4_hold_check(run->hold) == P4_OK && unlink(path) != 0 && errno != ENOENT) {
        WARN("warning: %s: does not say how the run ended: it can be neither written nor removed", path);
    }
    free(path);
}

/* The output directory. Rank 0. */
static p4_rc take_output(p4_run *run)
{
    p4_rc rc = P4_OK;
    CHECK(!p4_file_exists(run->stop.file), "%s: asks runs in this directory to stop; remove it to start one",
          run->stop.file);
    TRY(p4_output_take(&run->hold, run->config.output_path, run->config.overwrite));
done:
    return rc;
}

static void keep_warning(const char *text, void *user)
{
    p4_warnings_add(user, text);
}

static void close_run(p4_run *run)
{
    p4_resume_close(run);
    p4_statistics_free(&run->statistics);
    p4_training_set_close(run->train);
    p4_windows_free(&run->calibration);
    p4_windows_free(&run->eval);
    p4_windows_free(&run->reconstruction);
    free(run->original_losses.nll);
    p4_free_sets(run);
    p4_masters_close(&run->masters);
    p4_packed_release(&run->packed);
    p4_original_close(&run->original);
    p4_inputs_free(&run->inputs);
    p4_chat_close(run->chat);
    p4_tokenizer_close(run->tokenizer);
    p4_training_curve_free(&run->curve);
    p4_watch_close(run);
    (void)p4_metrics_log_close(&run->metrics_log); /* of a run that failed: its error counts */
    p4_compute_close(&run->compute);
}

/* Device, output directory, stages, verdict. Collective. */
static p4_rc execute(p4_run *run, p4_group *group, bool measures, bool *output_taken)
{
    p4_rc rc = P4_OK;
    p4_compute_settings settings = p4_settings_compute(&run->config);
    TRY(p4_compute_open(&run->compute, group, &settings));
    say_setup(run);
    say_stop(run);
    TRY(p4_provenance_begin(run));
    TRY(open_resume(run));
    TRY(p4_check_run(run, false, measures));
    TRY_ROOT(group, take_output(run));
    TRY(p4_resume_choose(run));
    if (group->rank == 0) {
        p4_check_time_left(run);
    }
    TRY_ROOT(group, mark_unfinished(run, NULL));
    *output_taken = true;
    TRY(run_stages(run));
    TRY_ROOT(group, p4_metrics_log_close(&run->metrics_log));
done:
    return rc;
}

p4_rc p4_run_check(p4_group *group, const p4_config *config, bool measures)
{
    p4_rc rc = P4_OK;
    p4_run *run = p4_alloc(1, sizeof *run);
    TRY_ALL(group, run != NULL ? P4_OK : P4_E_SYSTEM);
    run->config = *config;
    p4_settings_resolve(&run->config);
    p4_compute_settings settings = p4_settings_compute(config);
    TRY(p4_compute_open(&run->compute, group, &settings));
    say_setup(run);
    TRY(open_resume(run));
    TRY(p4_check_run(run, true, measures));
    p4_resume_say(run, "would continue");
done:
    if (run != NULL) {
        close_run(run);
    }
    free(run);
    return rc;
}

p4_rc p4_run_execute(p4_group *group, const p4_config *config, bool measures, bool in_batch,
                     p4_log_callback log_callback, void *log_user, p4_results *results)
{
    p4_rc rc = P4_OK;
    bool output_taken = false;
    double started_s = p4_now_s();
    p4_results_init(results);
    p4_run *run = p4_alloc(1, sizeof *run);
    TRY_ALL(group, run != NULL ? P4_OK : P4_E_SYSTEM);
    run->config = *config;
    run->started_s = started_s;
    run->in_batch = in_batch;
    run->log_callback = log_callback;
    run->log_user = log_user;
    p4_results_init(&run->results);
    p4_warnings_open(&run->warnings);
    p4_warning_observe(keep_warning, &run->warnings);
    rc = execute(run, group, measures, &output_taken);
    run->results.total_s = p4_now_s() - started_s + p4_resume_earlier_s(run);
    (void)p4_utc_now(run->results.provenance.ended);
    if (output_taken) {
        p4_pages_write(run, rc);
        p4_rc written = p4_agree_root(group, group->rank == 0 ? write_results(run, rc) : P4_OK);
        if (written != P4_OK && group->rank == 0 && (rc != P4_OK || write_results(run, written) != P4_OK)) {
            drop_results(run);
        }
        rc = rc != P4_OK ? rc : written;
    }
    if (rc == P4_OK && group->rank == 0 && p4_resume_remove(run) != P4_OK) {
        WARN("warning: the run is complete, its checkpoints are left: %s", p4_last_error());
        p4_error_clear();
    }
    p4_output_leave(run->hold, run->config.output_path, rc == P4_OK);
    p4_warning_observe(NULL, NULL); /* no thread is in keep_warning behind it */
    p4_warnings_copy(&run->warnings, &run->results);
    p4_warnings_close(&run->warnings);
    *results = run->results;
    close_run(run);
done:
    free(run);
    return rc;
}
