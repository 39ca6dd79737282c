/* outcome.h - what a finished run left in its output directory, as an event of a batch. */
#ifndef P4_BATCH_OUTCOME_H
#define P4_BATCH_OUTCOME_H

#include "io/batch/journal.h"

/* Does results.json of output_path tell of a run that succeeded, at `since` (UTC as p4_utc_now, "": ever) or
 * later? Then the record's event and measurements are taken from it. A file that is not there or cannot be
 * read tells of none. `error` becomes heap. Local. */
bool p4_outcome_read(p4_batch_record *record, const char *output_path, const char *since);

enum { P4_VERDICT_BYTES = 256 };
/* Why the quality verdict failed: "perplexity rose by 55.2 %, a rise of 10.0 % is allowed". sets: what
 * p4_sets_summary says, "": nothing. flow_failed: the gradient-flow test did. Local. */
char *p4_outcome_explain_verdict(char text[P4_VERDICT_BYTES], double degradation_ratio,
                                 double max_accuracy_drop, const char *sets, bool flow_failed);

#endif
