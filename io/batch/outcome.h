/* outcome.h - what a finished run left in its output directory, as an event of a batch. */
#ifndef P4_BATCH_OUTCOME_H
#define P4_BATCH_OUTCOME_H

#include "io/batch/journal.h"

/* Does results.json of output_path tell of a run that succeeded, at `since` (UTC as p4_utc_now, "": ever) or
 * later? Then the record's event and measurements are taken from it. A file that is not there or cannot be
 * read tells of none. `error` becomes heap. Local. */
bool p4_outcome_read(p4_batch_record *record, const char *output_path, const char *since);

/* Does it tell of the run of this record, which is completed: are its results still there? Records of
 * versions that kept no `ended`: of one that succeeded at their `time` or before. Local. */
bool p4_outcome_stands(const p4_batch_record *record);

/* Are the model's files that the run of output_path read, by its compression_metadata.json, as they were
 * then? *same is false where that does not say. Local. */
p4_rc p4_outcome_compare_model(bool *same, const char *output_path, const char *model_path);

#endif
