/* run_files.h - what a page shows of one run, read from the files of its output directory. */
#ifndef P4_PAGE_RUN_FILES_H
#define P4_PAGE_RUN_FILES_H

#include <cjson/cJSON.h>

#include "src/leaf/base.h"
#include "src/phase4/results.h"

typedef struct p4_page_evaluation {
    char stage[16]; /* "pre", "post", "fine_tune", "final" */
    double step, loss, perplexity;
} p4_page_evaluation;

typedef struct p4_page_run {
    char *directory;
    char *name; /* of the model: the last part of its path */
    cJSON *results;
    cJSON *config, *details, *samples; /* NULL: the directory has no such file */
    bool reconstructs;                 /* metrics.jsonl has a reconstructed block */
    int64_t point_count, evaluation_count, point_capacity, evaluation_capacity;
    p4_training_point *points; /* logged steps of metrics.jsonl, in order */
    p4_page_evaluation *evaluations;
} p4_page_run;

/* results_json: instead of the file, which a run that is about to end has not written; else NULL. The caller
 * frees, also after an error. P4_E_INPUT names a file that is not what it should be. Local. */
p4_rc p4_page_run_read(p4_page_run *run, const char *directory, const char *results_json);
void p4_page_run_free(p4_page_run *run);

/* Whether a run without success is none that failed. Of a run that was killed, results.json says the same as
 * of one that is under way. */
typedef enum p4_page_state { P4_PAGE_ENDED, P4_PAGE_UNDER_WAY, P4_PAGE_STOPPED } p4_page_state;
p4_page_state p4_page_state_of(const p4_page_run *run);
/* The last evaluation of a stage in metrics.jsonl, "": of any that evaluates the compressed model; NULL:
 * none. */
const p4_page_evaluation *p4_page_last_evaluation(const p4_page_run *run, const char *stage);
/* A member of the evaluation of the model in the files; NaN for a run without success, which has none. */
double p4_page_final(const p4_page_run *run, const char *member);
/* Of the original model: from metrics.jsonl where results.json has none yet; NaN: not measured. */
double p4_page_original_loss(const p4_page_run *run);
double p4_page_original_perplexity(const p4_page_run *run);

/* Members of a tree by a dotted path ("quality.passed"); absent or of another type: NaN, "", NULL. */
double p4_page_real(const cJSON *root, const char *path);
const char *p4_page_string(const cJSON *root, const char *path);
const cJSON *p4_page_item(const cJSON *root, const char *path);

#endif
