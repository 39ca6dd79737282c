/* report.h - what a run measured and wrote, and the forms in which it is handed on: results.json,
 * compression_metadata.json, metrics.jsonl and the final table. The types are in phase4.h.
 *
 * A number that was not measured is NaN in memory, null in JSON and "-" in the table. MB = 2^20 bytes.
 *
 * The functions _print, _store and _read do what p4_results_to_json, p4_results_write, p4_metadata_save and
 * p4_metadata_load of phase4.h do, without their first step, which clears the recorded error: they are for
 * calls inside the library. All Local. */
#ifndef P4_REPORT_H
#define P4_REPORT_H

#include <stdio.h>

#include "io/file/fingerprint.h"
#include "src/leaf/base.h"
#include "src/phase4/config.h"
#include "src/phase4/results.h"

/* ---- the results ---- */

p4_rc p4_fine_tuning_add_history(p4_fine_tuning *tuning, const p4_history_entry *entry);
/* A stage's seconds, added to those of the same name. At most P4_MAX_STAGES names (more: P4_E_SYSTEM). */
p4_rc p4_results_add_time(p4_results *results, const char *stage, double seconds);
/* Nothing measured. */
void p4_set_results_init(p4_set_results *set, const char *name);
/* Of the final evaluation: ratio and interval, and whether so much is allowed. */
void p4_quality_judge(p4_quality *quality, const p4_evaluation *pre, const p4_evaluation *final,
                      double max_accuracy_drop);

typedef enum p4_verdict {
    P4_VERDICT_NONE, /* not measured, or the original's perplexity is infinite */
    P4_VERDICT_PASSED,
    P4_VERDICT_FAILED
} p4_verdict;
/* Of one text. */
p4_verdict p4_quality_verdict(const p4_quality *quality);
/* Of all: one that failed decides, then one without a verdict. */
p4_verdict p4_sets_verdict(const p4_quality *quality, const p4_set_results *sets, int64_t set_count);
/* The same of a run, whose gradient-flow test may have failed. */
p4_verdict p4_results_verdict(const p4_results *results);
p4_rc p4_results_print(const p4_results *results, char **json);
p4_rc p4_results_store(const p4_results *results, const char *path);

/* A file or text that the run reads. */
p4_rc p4_provenance_add_input(p4_provenance *provenance, const char *name, const char *fingerprint);
/* As under "provenance" in results.json. The caller frees *json. */
p4_rc p4_provenance_print(const p4_provenance *provenance, char **json);
/* As under "experts" in results.json, of a mixture of experts. The caller frees *json. */
p4_rc p4_expert_loads_print(const p4_expert_loads *loads, char **json);
void p4_provenance_free(p4_provenance *provenance); /* Its lists. */
/* The fingerprint of an input in what p4_provenance_print made; "": it has none of this name. */
void p4_provenance_find_input(char fingerprint[P4_FINGERPRINT_BYTES], const char *json, const char *name);

/* The final table, for a person, of a run with this configuration. */
void p4_report_table(FILE *to, const p4_results *results, const p4_config *config);

/* ---- compression_metadata.json ---- */

enum { P4_METADATA_MAX_INPUTS = 4096 };

/* Adds an input file with its fingerprint. */
p4_rc p4_metadata_add_input(p4_metadata *metadata, const char *path);
p4_rc p4_metadata_add_fingerprint(p4_metadata *metadata, const char *path, const char *fingerprint);
/* Copies method, sizes, evaluations and verdict from the results. */
p4_rc p4_metadata_take_results(p4_metadata *metadata, const p4_results *results);
p4_rc p4_metadata_store(const char *directory, const p4_metadata *metadata);
p4_rc p4_metadata_read(p4_metadata *metadata, const char *directory);
/* From text in memory; `source` names it in messages. */
p4_rc p4_metadata_parse(p4_metadata *metadata, const char *json, size_t json_bytes, const char *source);

/* "+2.1 to +3.4", in percent, of an interval of (perplexity - original's) / original's, or "". Returns text.
 */
const char *p4_rise_interval(char text[32], double low, double high);
/* " (95 % interval: +2.1 to +3.4 %)" of the verdict's ratio, or "". Returns text. */
const char *p4_quality_interval(char text[64], const p4_quality *quality);
enum { P4_QUALITY_BYTES = 192, P4_SETS_BYTES = P4_SETS_MAX * (P4_SET_NAME_BYTES + 4) + 32 };
/* "perplexity rose by 2.8 % (95 % interval: ...), a rise of 10.0 % is allowed", of a finite ratio. Returns
 * text. */
const char *p4_quality_change(char text[P4_QUALITY_BYTES], const p4_quality *quality);
enum { P4_VERDICT_BYTES = P4_QUALITY_BYTES + P4_SETS_BYTES + 64 };
/* Why the verdict failed: p4_quality_change, that perplexity is not finite, what p4_sets_summary says ("":
 * nothing), that the gradient-flow test failed (flow_failed). Returns text. */
const char *p4_quality_explain_failure(char text[P4_VERDICT_BYTES], const p4_quality *quality,
                                       const char *sets, bool flow_failed);

/* The values of the keys that help after a verdict that failed because the perplexity rose too far. Below 0:
 * not known. */
typedef struct p4_next_values {
    int64_t fine_tunes; /* enable_fine_tuning */
    int64_t calibration_samples, train_files, fine_tune_max_steps, fine_tune_epochs;
    double passes; /* over the training text, by the fine-tuning; not above 0: not known */
    int64_t steps; /* that it made; 0: not known */
} p4_next_values;
p4_next_values p4_next_values_of(const p4_config *config, const p4_results *results);
/* What to try, the cheapest first, each key with its value. Returns text. */
enum { P4_NEXT_STEPS_BYTES = 512 };
const char *p4_next_steps(char text[P4_NEXT_STEPS_BYTES], const p4_next_values *now);

/* "failed on the sets: code, web", "passed on the sets: code", "" without sets. Returns text. */
const char *p4_sets_summary(char text[P4_SETS_BYTES], const p4_set_results *sets, int64_t set_count);

/* ---- metrics.jsonl ---- */

/* The one output that grows in place, so that it can be followed during a run: one line a measurement,
 * flushed. */
typedef struct p4_metrics_log {
    FILE *stream; /* NULL: not open */
    char *path;
} p4_metrics_log;
p4_rc p4_metrics_log_open(p4_metrics_log *log, const char *path);
/* A logged step of training. */
p4_rc p4_metrics_log_write(p4_metrics_log *log, const p4_training_point *point);
/* An evaluation after `step` steps of training; stage: "pre", "post", "fine_tune" or "final". opt_set: the
 * set of eval_sets; NULL: the evaluation text. */
p4_rc p4_metrics_log_evaluation(p4_metrics_log *log, const char *stage, const char *opt_set, int64_t step,
                                const p4_evaluation *evaluation);
/* Blocks that were reconstructed together. */
p4_rc p4_metrics_log_blocks(p4_metrics_log *log, const p4_block_loss *loss);
p4_rc p4_metrics_log_close(p4_metrics_log *log);

#endif
