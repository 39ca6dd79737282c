/* Writing checkpoints: the half of jobs/resume.h that saves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/file/atomic_file.h"
#include "io/json/config.h"
#include "io/out/checkpoints.h"
#include "jobs/resume.h"
#include "jobs/resume_state.h"
#include "jobs/run_state.h"
#include "jobs/train/checkpoint.h"
#include "src/phase4.h"

bool p4_resume_is_due(const p4_run *run, int64_t step)
{
    const p4_config *c = &run->config;
    bool by_time =
        c->checkpoint_minutes > 0 && p4_now_s() - run->resume->saved_s >= 60.0 * c->checkpoint_minutes;
    return by_time || (step > 0 && c->checkpoint_every > 0 && step % c->checkpoint_every == 0);
}

const char *p4_resume_last(const p4_run *run)
{
    return run->resume != NULL && run->resume->last != NULL ? run->resume->last : "";
}

double p4_resume_earlier_s(const p4_run *run)
{
    return run->resume != NULL ? run->resume->earlier_s : 0.0;
}

p4_rc p4_resume_remove(const p4_run *run)
{
    return p4_checkpoints_remove(run->resume->folder);
}

/* A checkpoint on its way. */
typedef struct saving {
    p4_run *run;
    const p4_trainer *trainer;
    const p4_tuning_state *state;
    int64_t step;
    char *directory; /* where it is filled */
    double *bytes;   /* [ranks] of each rank's part; 0: it has none */
} saving;

/* Local. */
static p4_rc fill_part(const saving *s, p4_arrays_writer *w)
{
    p4_rc rc = P4_OK;
    TRY(p4_run_state_put(w, s->run, s->state, s->trainer != NULL ? s->trainer->bad_steps : 0));
    TRY(s->trainer != NULL ? p4_checkpoint_put_trainer(w, s->trainer) : P4_OK);
done:
    return rc;
}

/* This rank's part and its size. Local. */
static p4_rc write_part(saving *s)
{
    p4_rc rc = P4_OK;
    struct stat status;
    p4_arrays_writer *w = NULL;
    int rank = s->run->compute.group->rank;
    char *path = p4_checkpoint_part_path(s->directory, rank);
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_arrays_create(&w, path));
    rc = fill_part(s, w);
    bool empty = rc == P4_OK && p4_arrays_written(w) == 0;
    p4_rc finished = p4_arrays_finish(w, rc == P4_OK && !empty);
    TRY(rc != P4_OK ? rc : finished);
    if (!empty) {
        CHECK(stat(path, &status) == 0, "%s: vanished after it was written", path);
        s->bytes[rank] = (double)status.st_size;
    }
done:
    free(path);
    return rc;
}

static void take_stages(p4_manifest *m, const p4_run *run)
{
    const p4_results *r = &run->results;
    for (int i = 0; i < P4_MAX_STAGES; i++) {
        if (run->done[i] && run->resume->stages[i] != NULL) {
            snprintf(m->stages[m->stage_count++], sizeof m->stages[0], "%s", run->resume->stages[i]);
        }
    }
    m->time_count = r->stage_count;
    memcpy(m->times, r->stages, sizeof m->times);
}

static p4_rc take_parts(p4_manifest *m, const saving *s)
{
    int ranks = s->run->compute.group->ranks;
    m->parts = p4_alloc((size_t)ranks, sizeof *m->parts);
    for (int rank = 0; m->parts != NULL && rank < ranks; rank++) {
        if (s->bytes[rank] > 0) {
            m->parts[m->part_count++] = (p4_manifest_part){.rank = rank, .bytes = (int64_t)s->bytes[rank]};
        }
    }
    return m->parts != NULL ? P4_OK : P4_E_SYSTEM;
}

/* The manifest, and the name that makes it a checkpoint. Rank 0. */
static p4_rc publish(const saving *s)
{
    p4_rc rc = P4_OK;
    const struct p4_resume *r = s->run->resume;
    p4_manifest m = {.ranks = s->run->compute.group->ranks,
                     .continued = s->run->results.provenance.continued,
                     .step = s->step,
                     .updates = s->trainer != NULL ? s->trainer->optim.step : 0,
                     .training = s->trainer != NULL,
                     .elapsed_s = r->earlier_s + p4_now_s() - r->started_s};
    snprintf(m.producer, sizeof m.producer, "%s", p4_version());
    (void)p4_utc_now(m.created);
    snprintf(m.started, sizeof m.started, "%s", s->run->results.provenance.started);
    take_stages(&m, s->run);
    for (int64_t i = 0; i < r->inputs.input_count; i++) {
        TRY(p4_manifest_add_input(&m, r->inputs.inputs[i].name, r->inputs.inputs[i].fingerprint));
    }
    TRY(take_parts(&m, s));
    TRY(p4_config_print(&r->given, &m.config_json));
    TRY(p4_checkpoint_publish(s->directory, r->folder, &m));
done:
    p4_manifest_free(&m);
    return rc;
}

/* Where it is filled: rank 0 makes the directory, every rank knows its name. Local. */
static p4_rc begin(saving *s)
{
    p4_rc rc = P4_OK;
    const p4_group *group = s->run->compute.group;
    const char *folder = s->run->resume->folder;
    s->bytes = p4_alloc((size_t)group->ranks, sizeof *s->bytes);
    s->directory = p4_checkpoint_temporary(folder, s->step);
    TRY(s->bytes != NULL && s->directory != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(group->rank == 0 ? p4_checkpoint_begin(s->directory) : P4_OK);
done:
    return rc;
}

/* A failure here is no reason to end a run that works: no agreement but a question. Collective. */
static p4_rc write_checkpoint(saving *s)
{
    p4_rc rc = P4_OK;
    p4_group *group = s->run->compute.group;
    TRY(p4_consult(group, begin(s)));
    TRY(p4_consult(group, write_part(s)));
    p4_group_sum_f64(group, s->bytes, group->ranks);
    TRY(p4_consult(group, group->rank == 0 ? publish(s) : P4_OK));
done:
    return rc;
}

static void say_saved(const saving *s, double seconds)
{
    char size[32];
    double bytes = 0;
    for (int rank = 0; rank < s->run->compute.group->ranks; rank++) {
        bytes += s->bytes[rank];
    }
    INFO("      checkpoint %s: %s in %.1f s", s->run->resume->last, p4_format_bytes(size, bytes), seconds);
}

p4_rc p4_resume_save(p4_run *run, const p4_trainer *trainer, const p4_tuning_state *state)
{
    struct p4_resume *r = run->resume;
    double started_s = p4_now_s();
    saving s = {.run = run,
                .trainer = trainer,
                .state = state,
                .step = state != NULL ? state->step : run->results.fine_tuning.steps};
    p4_rc rc = write_checkpoint(&s);
    if (rc == P4_OK) {
        free(r->last);
        r->last = p4_format("%s/step-%lld", r->folder, (long long)s.step);
        r->saved_s = p4_now_s();
        say_saved(&s, r->saved_s - started_s);
    } else if (run->compute.group->rank == 0 && s.directory != NULL) {
        (void)p4_remove_tree(s.directory); /* it may fill the disk; the first error counts */
    }
    free(s.directory);
    free(s.bytes);
    return rc;
}
