/* log_sink.h - where the log and the progress of a process go, for a program that works on several models. */
#ifndef P4_LOG_SINK_H
#define P4_LOG_SINK_H

#include <stdio.h>

#include "src/leaf/base.h"

/* From here on log and progress lines go to this stream, which the caller keeps open until the next call;
 * NULL: to stderr again. Local. */
void p4_log_set_stream(FILE *stream);

/* Sees every warning on the rank that speaks, escaped, as the log has it, also where its level hides
 * warnings; from any thread, one at a time. */
typedef void (*p4_warning_observer)(const char *text, void *user);
/* From here on; NULL: nobody. Local. */
void p4_warning_observe(p4_warning_observer observer, void *user);

/* Sees every update of a progress line on the rank that speaks, also under --quiet. left_s: seconds that the
 * run will take from here; NAN: not known. */
typedef void (*p4_progress_observer)(const p4_progress *progress, double left_s, void *user);
/* From here on; NULL: nobody. Local. */
void p4_progress_observe(p4_progress_observer observer, void *user);

#endif
