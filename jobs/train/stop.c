#include "jobs/train/stop.h"

#include <sys/stat.h>

#include "src/leaf/stop.h"

enum { LOOK_MS = 200 };

static bool file_is_there(p4_stop *stop)
{
    struct stat status;
    int64_t now_ms = (int64_t)(1000.0 * p4_now_s());
    if (stop->file == NULL || now_ms < stop->next_look_ms) {
        return false;
    }
    stop->next_look_ms = now_ms + LOOK_MS;
    return stat(stop->file, &status) == 0;
}

bool p4_stop_is_asked(p4_stop *stop)
{
    if (stop == NULL) {
        return false;
    }
    if (stop->reason == P4_STOP_NONE) {
        stop->reason = p4_stop_signal() != NULL                                 ? P4_STOP_SIGNAL
                       : stop->deadline_s > 0 && p4_now_s() >= stop->deadline_s ? P4_STOP_TIME
                       : file_is_there(stop)                                    ? P4_STOP_FILE
                                                                                : P4_STOP_NONE;
    }
    return stop->reason != P4_STOP_NONE;
}

p4_rc p4_stop_end(p4_stop *stop)
{
    (void)p4_stop_is_asked(stop); /* a signal to all ranks may come here a little later than to others */
    int reason = stop->reason;    /* clang before 15 takes no atomic in a switch */
    switch (reason) {
    case P4_STOP_SIGNAL:
        return p4_fail(P4_STOPPED, "stopped by %s", p4_stop_signal());
    case P4_STOP_TIME:
        p4_stop_drop_notice(); /* a launcher's signal to the last ranks is not what ends the run */
        return p4_fail(P4_STOPPED, "stopped because max_minutes have passed");
    case P4_STOP_FILE:
        p4_stop_drop_notice();
        return p4_fail(P4_STOPPED, "stopped by the file %s", stop->file);
    default:
        return p4_fail(P4_STOPPED, "stopped by a signal to another rank");
    }
}

p4_rc p4_stop_check(p4_stop *stop)
{
    return p4_stop_is_asked(stop) ? p4_stop_end(stop) : P4_OK;
}

p4_rc p4_stop_agree(p4_stop *stop, p4_group *group)
{
    if (stop == NULL) {
        return P4_OK;
    }
    p4_group_ask(group, p4_stop_is_asked(stop));
    return p4_group_answer(group) ? p4_stop_end(stop) : P4_OK;
}
