#include "jobs/keep.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "jobs/resume.h"

enum { ROOM_BYTES = 96 };

/* What the disk lacks for the same command; "" where it lacks nothing. saved: the state is saved, so that
 * only the outputs are left to write; else checkpoints come before them again. The figure is rounded up. Rank
 * 0. */
static void say_room(char text[ROOM_BYTES], const p4_run *run, bool saved)
{
    struct statvfs disk;
    char bytes[32];
    text[0] = '\0';
    if (statvfs(run->config.output_path, &disk) == 0 && disk.f_blocks > 0) {
        const double missing = run->disk_bytes + (saved ? 0 : run->checkpoints_bytes) -
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
    if (run->compute.group->rank == 0) {
        say_room(room, run, why == NULL);
    }
    if (why == NULL) {
        return p4_format("%s; the state of the run is in %s: %sthe same command continues it", cause, last,
                         room);
    }
    if (last[0] != '\0') {
        return p4_format(
            "%s; the state of the run could not be saved (%s): %sthe same command continues from "
            "%s",
            cause, why, room, last);
    }
    return p4_format("%s; the state of the run could not be saved (%s): %sthe same command starts anew",
                     cause, why, room);
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
