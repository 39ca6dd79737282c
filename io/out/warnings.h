/* warnings.h - the warnings of a run while it is under way. They come from any thread; what is written is
 * copied from here. */
#ifndef P4_WARNINGS_H
#define P4_WARNINGS_H

#include <pthread.h>

#include "src/phase4/results.h"

enum { P4_WARNINGS_TOLD_APART = 1024 }; /* different texts; further ones are not counted */

typedef struct p4_warnings {
    pthread_mutex_t lock;
    int64_t count;
    char *texts[P4_WARNINGS_TOLD_APART]; /* heap: different ones, without "warning: " */
} p4_warnings;

/* Local. */
void p4_warnings_open(p4_warnings *warnings);
/* When no other thread adds any more. Local. */
void p4_warnings_close(p4_warnings *warnings);
/* Keeps a text unless it is there already; "warning: " in front of it is left out. Where memory is out only
 * the log has it. From any thread. */
void p4_warnings_add(p4_warnings *warnings, const char *text);
/* warning_count and warnings of the results become what was added until now. Local. */
void p4_warnings_copy(p4_warnings *warnings, p4_results *results);

#endif
