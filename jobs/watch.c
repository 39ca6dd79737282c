#include "jobs/watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/json/config.h"
#include "io/metrics/tensorboard.h"
#include "io/metrics/wandb.h"
#include "jobs/resume.h"

/* One warning; the caller closes what was lost. */
static bool is_lost(p4_rc rc, const char *what)
{
    if (rc != P4_OK) {
        WARN("warning: %s: %s; the run goes on without", what, p4_last_error());
        p4_error_clear();
    }
    return rc != P4_OK;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

static void lose_wandb(p4_run *run)
{
    p4_wandb_close(run->watch.wandb);
    run->watch.wandb = NULL;
}

static void lose_board(p4_run *run)
{
    (void)p4_tensorboard_close(run->watch.board);
    run->watch.board = NULL;
}

static void open_all(p4_run *run)
{
    const p4_config *c = &run->config;
    char *json = NULL;
    if (run->watch.opened || !(c->wandb_enabled || c->tensorboard_enabled)) {
        return;
    }
    run->watch.opened = true;
    if (is_lost(p4_config_print_anchored(c, &json), "metrics for W&B and TensorBoard")) {
        return;
    }
    const p4_watched_run watched = {.output_path = c->output_path,
                                    .project = c->wandb_project,
                                    .name = last_part(c->output_path),
                                    .host = run->compute.group->machine->host,
                                    .started = run->results.provenance.started,
                                    .config_json = json};
    if (c->wandb_enabled) {
        (void)is_lost(p4_wandb_open(&run->watch.wandb, &watched), "W&B run");
    }
    if (c->tensorboard_enabled) {
        (void)is_lost(p4_tensorboard_open(&run->watch.board, &watched), "TensorBoard events");
    }
    free(json);
}

void p4_watch_add(p4_run *run, const p4_measurement *measurement)
{
    p4_measurement m = *measurement;
    open_all(run);
    m.runtime_s = run->watch.runtime_s = fmax(m.runtime_s, run->watch.runtime_s); /* never backwards */
    if (run->watch.wandb != NULL && is_lost(p4_wandb_add(run->watch.wandb, &m), "W&B run")) {
        lose_wandb(run);
    }
    if (run->watch.board != NULL && is_lost(p4_tensorboard_add(run->watch.board, &m), "TensorBoard events")) {
        lose_board(run);
    }
}

void p4_watch_finish(p4_run *run, bool success, const char *results_json, const char *report)
{
    p4_output_paths *paths = &run->results.output_paths;
    open_all(run);
    if (run->watch.wandb != NULL) {
        double runtime_s = p4_resume_earlier_s(run) + p4_now_s() - run->started_s;
        p4_rc rc = p4_wandb_finish(run->watch.wandb, success, runtime_s, results_json, report);
        if (is_lost(rc, "W&B run")) {
            lose_wandb(run);
        } else {
            INFO("W&B run, to upload it: wandb sync %s", p4_wandb_directory(run->watch.wandb));
        }
    }
    if (run->watch.wandb == NULL) {
        paths->wandb[0] = '\0';
    }
    if (run->watch.board == NULL || is_lost(p4_tensorboard_close(run->watch.board), "TensorBoard events")) {
        paths->tensorboard[0] = '\0';
    }
    run->watch.board = NULL;
}

void p4_watch_close(p4_run *run)
{
    lose_wandb(run);
    lose_board(run);
}
