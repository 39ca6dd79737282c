/* report.h - what a run found, and the forms in which it is handed on: results.json,
 * compression_metadata.json, metrics.jsonl and the final table (docs/formats.md).
 *
 * A number that was not measured is NaN in memory, null in JSON and "-" in the table. MB = 2^20 bytes. */
#ifndef P4_REPORT_H
#define P4_REPORT_H

#include <stdio.h>

#include "src/leaf/base.h"
#include "src/phase4.h"

/* ---- the results: p4_results and what a user does with it are in phase4.h ---- */

p4_rc p4_fine_tuning_add_history(p4_fine_tuning *tuning, const p4_history_entry *entry); /* Local. */
/* A stage's seconds; a stage named again is added to. At most P4_MAX_STAGES names (more: P4_E_SYSTEM). Local.
 */
p4_rc p4_results_add_time(p4_results *results, const char *stage, double seconds);

/* The final table, for a person. Local. */
void p4_report_table(FILE *to, const p4_results *results);

/* ---- compression_metadata.json: p4_metadata, _save and _load are in phase4.h ---- */

enum { P4_METADATA_MAX_INPUTS = 4096 };

/* Fingerprints an input file and adds it. Local. */
p4_rc p4_metadata_add_input(p4_metadata *metadata, const char *path);
/* What the results say of method, sizes and perplexities. Local. */
void p4_metadata_take_results(p4_metadata *metadata, const p4_results *results);
/* From text in memory; `source` names it in messages (fuzzing). Local. */
p4_rc p4_metadata_parse(p4_metadata *metadata, const char *json, size_t json_bytes, const char *source);

/* ---- metrics.jsonl and the training curve ---- */

/* The one output that grows in place, so that it can be followed during a run: a line a point, flushed. */
typedef struct p4_metrics_log {
    FILE *stream; /* NULL: not open */
    char *path;
} p4_metrics_log;
p4_rc p4_metrics_log_open(p4_metrics_log *log, const char *path, bool append);
p4_rc p4_metrics_log_write(p4_metrics_log *log, const p4_training_point *point);
p4_rc p4_metrics_log_close(p4_metrics_log *log);

#endif
