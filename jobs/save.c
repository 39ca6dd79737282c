/* Writing checkpoints: the half of jobs/resume.h that saves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/json/config.h"
#include "io/out/checkpoints.h"
#include "jobs/details.h"
#include "jobs/resume.h"
#include "jobs/resume_state.h"
#include "jobs/run_state.h"
#include "jobs/train/checkpoint.h"
#include "src/leaf/background.h"
#include "src/leaf/limits.h"
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

/* A checkpoint on its way. First every rank writes its part, then rank 0 writes the manifest and publishes
 * the directory; each of the two may be beside other work. */
typedef struct p4_saving {
    p4_run *run;
    int64_t step;
    char *directory;         /* where it is filled */
    char *part;              /* the path of this rank's part */
    p4_arrays_writer *image; /* its content, until it is written; NULL: the part is written */
    const void *image_bytes; /* the image's */
    int64_t image_count;
    double *bytes;        /* [ranks] of each rank's part; 0: it has none. The others' once all are written */
    p4_manifest manifest; /* rank 0: what it will be, without the parts */
    p4_background *work;  /* writes the image, or publishes */
    bool publishing;
    double started_s, taken_s; /* by p4_now_s: it was begun, the state was taken */
} p4_saving;

static void free_saving(p4_saving *s)
{
    (void)p4_arrays_finish(s->image, false); /* it is in memory: nothing can fail */
    p4_manifest_free(&s->manifest);
    free(s->directory);
    free(s->part);
    free(s->bytes);
    free(s);
}

/* ---- the state ---- */

/* Local. */
static p4_rc fill_part(const p4_saving *s, p4_arrays_writer *w, const p4_trainer *trainer,
                       const p4_tuning_state *state)
{
    p4_rc rc = P4_OK;
    TRY(p4_run_state_put(w, s->run, state, trainer != NULL ? trainer->bad_steps : 0));
    TRY(trainer != NULL ? p4_checkpoint_put_trainer(w, trainer) : P4_OK);
done:
    return rc;
}

/* The part as a file. Local. */
static p4_rc write_part(p4_saving *s, const p4_trainer *trainer, const p4_tuning_state *state)
{
    p4_rc rc = P4_OK;
    int64_t bytes;
    p4_arrays_writer *w = NULL;
    TRY(p4_arrays_create(&w, s->part));
    rc = fill_part(s, w, trainer, state);
    bool empty = rc == P4_OK && p4_arrays_written(w) == 0;
    p4_rc finished = p4_arrays_finish(w, rc == P4_OK && !empty);
    TRY(rc != P4_OK ? rc : finished);
    if (!empty) {
        TRY(p4_file_bytes(&bytes, s->part));
        s->bytes[s->run->compute.group->rank] = (double)bytes;
    }
done:
    return rc;
}

/* The image as a file. On its own thread: neither HDF5 nor MPI. */
static p4_rc write_image(void *user)
{
    enum { PIECE_BYTES = 16 << 20 }; /* writeback is begun that often */
    p4_rc rc = P4_OK;
    const p4_saving *s = user;
    p4_atomic_file file;
    TRY(p4_atomic_open(&file, s->part));
    for (int64_t at = 0; rc == P4_OK && at < s->image_count; at += PIECE_BYTES) {
        rc = p4_atomic_write(&file, (const char *)s->image_bytes + at,
                             (size_t)p4_min_i64(PIECE_BYTES, s->image_count - at));
        p4_atomic_begin_sync(&file);
    }
    p4_rc closed = p4_atomic_close(&file, rc == P4_OK);
    rc = rc != P4_OK ? rc : closed;
done:
    return rc;
}

/* The part as it will be in the file, and a thread that writes it. Local. */
static p4_rc copy_part(p4_saving *s, const p4_trainer *trainer, const p4_tuning_state *state)
{
    p4_rc rc = P4_OK;
    TRY(p4_arrays_create_image(&s->image, s->part));
    TRY(fill_part(s, s->image, trainer, state));
    if (p4_arrays_written(s->image) > 0) {
        TRY(p4_arrays_image(s->image, &s->image_bytes, &s->image_count));
        s->bytes[s->run->compute.group->rank] = (double)s->image_count;
        TRY(p4_background_start(&s->work, write_image, s));
    }
done:
    return rc;
}

/* Is there memory for the copies of this node's ranks? A quarter is left to what the run allocates meanwhile.
 */
static bool has_room(const p4_saving *s, const p4_trainer *trainer)
{
    double bytes = (double)p4_checkpoint_copy_bytes(trainer);
    return bytes * s->run->compute.group->local_ranks <= 0.75 * (double)p4_memory_free("");
}

/* ---- the manifest ---- */

/* A stage under way, which the process that continues does not begin anew, has taken some time too. */
static void add_running(p4_manifest *m, const p4_run *run)
{
    double seconds;
    int64_t i = 0;
    const char *running = p4_timeline_running(run, &seconds);
    while (running != NULL && i < m->time_count && strcmp(m->times[i].stage, running) != 0) {
        i++;
    }
    if (running == NULL || i == P4_MAX_STAGES) {
        return;
    }
    if (i == m->time_count) {
        m->times[m->time_count++] = (p4_stage_time){.seconds = 0};
        snprintf(m->times[i].stage, sizeof m->times[i].stage, "%s", running);
    }
    m->times[i].seconds += seconds;
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
    add_running(m, run);
}

/* Everything but the parts. Rank 0. */
static p4_rc describe(p4_saving *s, const p4_trainer *trainer)
{
    p4_rc rc = P4_OK;
    const struct p4_resume *r = s->run->resume;
    p4_manifest *m = &s->manifest;
    *m = (p4_manifest){.ranks = s->run->compute.group->ranks,
                       .continued = s->run->results.provenance.continued,
                       .step = s->step,
                       .updates = trainer != NULL ? trainer->optim.step : 0,
                       .training = trainer != NULL,
                       .lr = trainer != NULL ? s->run->lr : 0,
                       .distill = trainer != NULL ? s->run->distill : 0,
                       .text_windows = s->run->text_windows,
                       .elapsed_s = r->earlier_s + p4_now_s() - r->started_s};
    snprintf(m->producer, sizeof m->producer, "%s", p4_version());
    (void)p4_utc_now(m->created);
    snprintf(m->started, sizeof m->started, "%s", s->run->results.provenance.started);
    take_stages(m, s->run);
    for (int64_t i = 0; i < r->inputs.input_count; i++) {
        TRY(p4_manifest_add_input(m, r->inputs.inputs[i].name, r->inputs.inputs[i].fingerprint));
    }
    p4_results *results = &s->run->results;
    p4_warnings_copy(&s->run->warnings, results);
    for (int64_t i = 0; i < p4_min_i64(results->warning_count, P4_WARNINGS_MAX); i++) {
        TRY(results->warnings[i] != NULL ? p4_manifest_add_warning(m, results->warnings[i]) : P4_OK);
    }
    TRY(p4_config_print(&r->given, &m->config_json));
done:
    return rc;
}

static p4_rc take_parts(p4_manifest *m, const p4_saving *s)
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

/* Local. */
static p4_rc check_hold(const p4_run *run)
{
    return run->hold != NULL ? p4_hold_check(run->hold) : P4_OK;
}

/* The manifest, the name that makes it a checkpoint, and the end of older ones. On its own thread of rank 0,
 * which may be suspended at any place while another run takes the directory over. */
static p4_rc publish(void *user)
{
    p4_rc rc = P4_OK;
    const p4_saving *s = user;
    const char *folder = s->run->resume->folder;
    TRY(p4_checkpoint_publish(s->directory, folder, &s->manifest, s->run->hold));
    TRY(p4_checkpoints_prune(folder, s->step, s->run->hold));
done:
    return rc;
}

/* Rank 0. */
static p4_rc start_publishing(p4_saving *s)
{
    p4_rc rc = P4_OK;
    TRY(check_hold(s->run));
    TRY(take_parts(&s->manifest, s));
    TRY(p4_background_start(&s->work, publish, s));
done:
    return rc;
}

/* ---- the course of a save. A failure is no reason to end a run that works: the ranks consult. ---- */

/* Every rank has it, or none. Collective. */
static p4_rc open_saving(p4_run *run, const p4_tuning_state *state)
{
    p4_saving *s = p4_alloc(1, sizeof *s);
    p4_rc rc = p4_consult(run->compute.group, s != NULL ? P4_OK : P4_E_SYSTEM);
    if (rc != P4_OK) {
        free(s);
        return rc;
    }
    *s = (p4_saving){.run = run,
                     .step = state != NULL ? state->step : run->results.fine_tuning.steps,
                     .started_s = p4_now_s()};
    run->resume->saving = s;
    return P4_OK;
}

/* Where it is filled: rank 0 makes the directory, every rank knows its name. Local. */
static p4_rc begin(p4_saving *s)
{
    p4_rc rc = P4_OK;
    const p4_group *group = s->run->compute.group;
    const struct p4_resume *r = s->run->resume;
    s->bytes = p4_alloc((size_t)group->ranks, sizeof *s->bytes);
    s->directory = p4_checkpoint_temporary(r->folder, s->step, r->owner);
    TRY(s->bytes != NULL && s->directory != NULL ? P4_OK : P4_E_SYSTEM);
    s->part = p4_checkpoint_part_path(s->directory, group->rank);
    TRY(s->part != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(group->rank == 0 ? p4_checkpoint_begin(r->folder, s->directory, r->owner) : P4_OK);
done:
    return rc;
}

/* Local. */
static p4_rc take_state(p4_saving *s, const p4_trainer *trainer, const p4_tuning_state *state, bool beside)
{
    p4_rc rc = P4_OK;
    TRY(s->run->compute.group->rank == 0 ? describe(s, trainer) : P4_OK);
    if (beside && trainer != NULL && has_room(s, trainer)) {
        rc = copy_part(s, trainer, state);
    } else {
        rc = write_part(s, trainer, state);
    }
    s->taken_s = p4_now_s();
done:
    return rc;
}

/* A save that failed on some rank. What is there of it may fill the disk; it is removed when no rank writes
 * there any more. A run that lost the directory changes nothing there. Collective. */
static void give_up(p4_saving *s, p4_rc why)
{
    p4_group *group = s->run->compute.group;
    (void)p4_background_end(s->work); /* the first error counts */
    p4_group_barrier(group);
    if (why != P4_E_HOLD && group->rank == 0 && s->directory != NULL) {
        (void)p4_remove_tree(s->directory);
    }
    free_saving(s);
}

static void say_saved(const p4_saving *s)
{
    char size[32];
    double bytes = 0, waited_s = s->taken_s - s->started_s, whole_s = p4_now_s() - s->started_s;
    for (int rank = 0; rank < s->run->compute.group->ranks; rank++) {
        bytes += s->bytes[rank];
    }
    p4_format_bytes(size, bytes);
    if (s->image != NULL) {
        INFO("      checkpoint %s: %s in %.1f s, for which the training waited %.2f s", s->run->resume->last,
             size, whole_s, waited_s);
    } else {
        INFO("      checkpoint %s: %s in %.1f s", s->run->resume->last, size, whole_s);
    }
}

/* Parts to publication to the end. Collective. */
static p4_rc advance(p4_saving *s, bool *complete)
{
    p4_rc rc = P4_OK;
    p4_group *group = s->run->compute.group;
    p4_background *work = s->work;
    s->work = NULL;
    TRY(p4_consult(group, p4_background_end(work)));
    *complete = s->publishing;
    if (!s->publishing) {
        s->publishing = true;
        p4_group_sum_f64(group, s->bytes, group->ranks);
        TRY(p4_consult(group, group->rank == 0 ? start_publishing(s) : P4_OK));
    }
done:
    return rc;
}

static void keep_name(p4_saving *s)
{
    struct p4_resume *r = s->run->resume;
    free(r->last);
    r->last = p4_format("%s/step-%lld", r->folder, (long long)s->step);
    say_saved(s);
}

bool p4_resume_is_saving(const p4_run *run)
{
    return run->resume->saving != NULL && p4_background_works(run->resume->saving->work);
}

p4_rc p4_resume_finish_save(p4_run *run, bool wait)
{
    p4_rc rc = P4_OK;
    struct p4_resume *r = run->resume;
    bool complete = false;
    for (int turn = 0; rc == P4_OK && r->saving != NULL && !complete && (wait || turn == 0); turn++) {
        rc = advance(r->saving, &complete);
    }
    if (rc != P4_OK) {
        give_up(r->saving, rc);
        r->saving = NULL;
    } else if (complete) {
        keep_name(r->saving);
        free_saving(r->saving);
        r->saving = NULL;
    }
    return rc;
}

p4_rc p4_resume_save(p4_run *run, const p4_trainer *trainer, const p4_tuning_state *state, bool beside)
{
    p4_rc rc = P4_OK;
    struct p4_resume *r = run->resume;
    p4_group *group = run->compute.group;
    rc = p4_resume_finish_save(run, true);
    if (rc != P4_OK && rc != P4_E_HOLD) {
        WARN("warning: the checkpoint before was not saved: %s", p4_last_error());
        p4_error_clear();
        rc = P4_OK;
    }
    TRY(rc);
    TRY(p4_agree_root(group, check_hold(run))); /* what is there under a checkpoint's name is another run's */
    TRY(open_saving(run, state));
    r->saved_s = r->saving->started_s; /* also of one that fails: the next is due as long after it */
    TRY(p4_consult(group, begin(r->saving)));
    TRY(p4_consult(group, take_state(r->saving, trainer, state, beside)));
done:
    if (rc != P4_OK && r->saving != NULL) {
        give_up(r->saving, rc);
        r->saving = NULL;
    }
    return rc != P4_OK || beside ? rc : p4_resume_finish_save(run, true);
}

p4_rc p4_resume_save_or_warn(p4_run *run)
{
    p4_rc rc = p4_resume_save(run, NULL, NULL, false);
    if (rc != P4_OK && rc != P4_E_HOLD) {
        WARN("warning: no checkpoint was saved: %s", p4_last_error());
        p4_error_clear();
        rc = P4_OK;
    }
    return rc;
}
