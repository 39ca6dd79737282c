#include "jobs/keep.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "jobs/resume.h"

enum { ROOM_BYTES = 96 };
static const double SCRATCH = 1.5; /* times the estimate: documents reach beyond the blocks that are drawn */

/* What the disk lacks for the same command; "" where it lacks nothing. It tokenizes the text anew, into a
 * temporary file whose size is an estimate, before it writes the outputs. saved: the state is saved. Else the
 * work and its checkpoints come in between. The figure is rounded up. Rank 0. */
static void say_room(char text[ROOM_BYTES], const p4_run *run, bool saved)
{
    struct statvfs disk;
    char bytes[32];
    text[0] = '\0';
    if (statvfs(run->config.output_path, &disk) == 0 && disk.f_blocks > 0) {
        const double missing = run->output_bytes + SCRATCH * run->scratch_bytes +
                               (saved ? 0 : run->checkpoints_bytes) -
                               (double)disk.f_bavail * (double)disk.f_frsize;
        if (missing > 0) {
            snprintf(text, ROOM_BYTES, "free %s on the disk, and ",
                     p4_format_bytes(bytes, 1.01 * missing + 1024.0));
        }
    }
}

/* The cause and how to go on, heap. why: why no state was saved; NULL: it was. */
static char *explain(const p4_run *run, const char *cause, const char *why)
{
    char room[ROOM_BYTES] = "";
    const char *last = p4_resume_last(run);
    /* A batch does not try a model that failed again by itself. */
    const char *again = run->in_batch ? "phase4_batch with --failed-only" : "the same command";
    if (run->unfit) { /* the disk has nothing to do with it, and the same command would fail again */
        return why == NULL
                   ? p4_format("%s; the state of the run is in %s: a run with another value of exports, "
                               "save_quantized or save_dequantized_fp16 continues it",
                               cause, last)
                   : p4_format("%s; the state of the run could not be saved (%s)", cause, why);
    }
    if (run->compute.group->rank == 0) {
        say_room(room, run, why == NULL);
    }
    if (why == NULL) {
        return p4_format("%s; the state of the run is in %s: %s%s continues it", cause, last, room, again);
    }
    if (last[0] != '\0') {
        return p4_format("%s; the state of the run could not be saved (%s): %s%s continues from %s", cause,
                         why, room, again, last);
    }
    return p4_format("%s; the state of the run could not be saved (%s): %s%s starts anew", cause, why, room,
                     again);
}

p4_rc p4_keep_state(p4_run *run, p4_rc outcome)
{
    char *cause = p4_strdup(p4_last_error()), *why = NULL, *message = NULL;
    p4_error_clear();
    p4_rc saved = p4_resume_save(run, NULL, NULL, false);
    if (saved == P4_E_HOLD) {
        free(cause);
        return saved;
    }
    why = saved != P4_OK ? p4_strdup(p4_last_error()) : NULL;
    if (cause != NULL && (saved == P4_OK || why != NULL)) {
        message = explain(run, cause, why);
    }
    p4_error_set(message != NULL ? message : cause != NULL ? cause : "out of memory");
    free(cause);
    free(why);
    free(message);
    return outcome;
}
