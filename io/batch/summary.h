/* summary.h - batch_results.json (docs/formats.md). */
#ifndef P4_BATCH_SUMMARY_H
#define P4_BATCH_SUMMARY_H

#include "io/batch/journal.h"

typedef struct p4_batch_summary_row {
    const char *state; /* "done", "waiting" */
    const p4_batch_record *record;
    double planned_s; /* on the ranks of the record, or the fewest; NAN: no plan */
} p4_batch_summary_row;

typedef struct p4_batch_summary {
    const char *queue, *text; /* text: the summary line */
    int64_t status, ranks, count;
    double seconds;
    const p4_batch_summary_row *rows; /* [count] */
    int64_t state_count;
    const char *const *state_names; /* [state_count] */
    const int64_t *state_counts;    /* [state_count] */
} p4_batch_summary;

/* Complete, or not there at all. Local. */
p4_rc p4_batch_summary_write(const p4_batch_summary *summary, const char *path);

#endif
