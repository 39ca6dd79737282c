#include "jobs/keep.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "io/file/files.h"
#include "io/out/checkpoints.h"
#include "src/packed.h"

enum { ROOM_BYTES = 96 };
static const double SCRATCH = 1.5; /* times the estimate: documents reach beyond the blocks that are drawn */

/* Of the checkpoints that are there and can be looked at: all of them, and the largest. */
static double checkpoint_bytes(const char *output_path, double *largest)
{
    double all = 0;
    char **paths = NULL, *folder = p4_format("%s/checkpoints", output_path);
    int64_t count = 0;
    p4_rc rc = folder != NULL ? p4_checkpoints_list(&paths, &count, folder) : P4_E_SYSTEM;
    *largest = 0;
    for (int64_t i = 0; rc == P4_OK && i < count; i++) {
        double bytes;
        if (p4_path_bytes(&bytes, paths[i]) == P4_OK) {
            all += bytes;
            *largest = fmax(*largest, bytes);
        }
    }
    p4_error_clear(); /* the message is about another one */
    p4_names_free(paths, count);
    free(folder);
    return all;
}

double p4_keep_missing(const p4_keep_room *r)
{
    double at_work = r->there, at_export = r->there;
    if (r->saves == P4_KEEP_SAVES_ONE) {
        at_work = at_export = r->there + r->checkpoint;
    } else if (r->saves == P4_KEEP_SAVES_MANY) { /* beside what is there; beside those that are kept */
        at_work = fmax(r->there + r->checkpoint, (P4_CHECKPOINTS_KEPT + 1) * r->checkpoint);
        at_export = fmax(r->there, P4_CHECKPOINTS_KEPT * r->checkpoint);
    }
    return SCRATCH * r->scratch + fmax(at_work, at_export + r->outputs) - r->there - r->free;
}

/* What the same command takes on the disk. saved: the state is saved, so that only the outputs are to be
 * written. Else the work and its checkpoints come before them. A run that saves none by itself saves one
 * before the first stage that changes weights. Rank 0. */
static p4_keep_room find_room(const p4_run *run, bool saved, double free_bytes)
{
    double largest;
    const p4_model *model = &run->original.hf.model;
    const bool many = run->checkpoints_bytes > 0,
               one = run->reconstruction.count > 0 && p4_resume_last(run)[0] == '\0';
    const double planned = many ? run->checkpoints_bytes / (P4_CHECKPOINTS_KEPT + 1)
                                : (double)p4_packed_bytes(model) + (double)p4_statistics_bytes(model);
    p4_keep_room room = {.outputs = run->output_bytes, .scratch = run->scratch_bytes, .free = free_bytes};
    room.there = checkpoint_bytes(run->config.output_path, &largest);
    room.checkpoint = fmax(planned, largest);
    room.saves = saved  ? P4_KEEP_SAVES_NONE
                 : many ? P4_KEEP_SAVES_MANY
                 : one  ? P4_KEEP_SAVES_ONE
                        : P4_KEEP_SAVES_NONE;
    return room;
}

/* What the disk lacks for the same command; "" where it lacks nothing. It tokenizes the text anew, into a
 * temporary file whose size is an estimate. The figure is rounded up. Rank 0. */
static void say_room(char text[ROOM_BYTES], const p4_run *run, bool saved)
{
    struct statvfs disk;
    char bytes[32];
    text[0] = '\0';
    if (statvfs(run->config.output_path, &disk) == 0 && disk.f_blocks > 0) {
        const p4_keep_room room = find_room(run, saved, (double)disk.f_bavail * (double)disk.f_frsize);
        const double missing = p4_keep_missing(&room);
        if (missing > 0) {
            snprintf(text, ROOM_BYTES, "free %s on the disk, and ",
                     p4_format_bytes(bytes, 1.01 * missing + 1024.0));
        }
    }
}

/* The cause and how to go on, heap. why: why no state was saved; NULL: it was. */
static char *explain(const p4_run *run, const char *cause, const char *why)
{
    char room[ROOM_BYTES] = "", *made = NULL;
    const char *last = p4_resume_last(run);
    /* A batch does not try a model that failed again by itself. */
    const char *again = run->in_batch ? "phase4_batch with --failed-only" : "the same command";
    char *besides = p4_resume_besides(run, run->in_batch || run->unfit ? "and" : "with");
    if (run->compute.group->rank == 0 && !run->unfit) {
        say_room(room, run, why == NULL);
    }
    if (besides == NULL) {
        return NULL;
    }
    if (run->unfit &&
        why == NULL) { /* the disk has nothing to do with it: the same command would fail again */
        made = p4_format("%s; the state of the run is in %s: a run with another value of exports, "
                         "save_quantized or save_dequantized_fp16%s continues it",
                         cause, last, besides);
    } else if (run->unfit) {
        made = p4_format("%s; the state of the run could not be saved (%s)", cause, why);
    } else if (why == NULL) {
        made = p4_format("%s; the state of the run is in %s: %s%s%s continues it", cause, last, room, again,
                         besides);
    } else if (last[0] != '\0') {
        made = p4_format("%s; the state of the run could not be saved (%s): %s%s%s continues from %s", cause,
                         why, room, again, besides, last);
    } else {
        made = p4_format("%s; the state of the run could not be saved (%s): %s%s starts anew", cause, why,
                         room, again);
    }
    free(besides);
    return made;
}

/* Records the cause with how to go on; takes both texts. */
static void record(const p4_run *run, char *cause, char *why, p4_rc saved)
{
    char *message = NULL;
    if (cause != NULL && (saved == P4_OK || why != NULL)) {
        message = explain(run, cause, why);
    }
    p4_error_set(message != NULL ? message : cause != NULL ? cause : "out of memory");
    free(cause);
    free(why);
    free(message);
}

p4_rc p4_keep_state(p4_run *run, p4_rc outcome)
{
    char *cause = p4_strdup(p4_last_error());
    p4_error_clear();
    p4_rc saved = p4_resume_save(run, NULL, NULL, false);
    if (saved == P4_E_HOLD) {
        free(cause);
        return saved;
    }
    record(run, cause, saved != P4_OK ? p4_strdup(p4_last_error()) : NULL, saved);
    return outcome;
}

p4_rc p4_keep_stopped(p4_run *run, const p4_trainer *trainer, const p4_tuning_state *state)
{
    p4_rc saved = p4_resume_save(run, trainer, state, false);
    if (saved == P4_OK || saved == P4_E_HOLD) {
        return saved;
    }
    char *why = p4_strdup(p4_last_error());
    p4_error_clear();
    (void)p4_stop_end(&run->stop);
    char *cause = p4_strdup(p4_last_error());
    p4_error_clear();
    record(run, cause, why, saved);
    return saved;
}
