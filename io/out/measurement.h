/* measurement.h - a result that was measured again: phase4_evaluate's table and JSON. A number that was not
 * measured is NaN, an evaluation that was not made has 0 tokens. All Local. */
#ifndef P4_MEASUREMENT_H
#define P4_MEASUREMENT_H

#include <stdio.h>

#include "src/phase4/results.h"

/* Is what is measured now the text on which the run measured? */
typedef enum p4_same_text {
    P4_TEXT_UNKNOWN, /* the run's metadata are not beside the file, or do not say what text it was */
    P4_TEXT_SAME,
    P4_TEXT_OTHER
} p4_same_text;

typedef struct p4_measurement {
    char path[P4_PATH_BYTES];          /* model.h5 */
    char original_path[P4_PATH_BYTES]; /* ""; not at hand */
    char why_not[512];                 /* why it is not */
    char model_type[32];
    int64_t windows, window_tokens;
    p4_evaluation original, compressed;
    p4_evaluation recorded_original, recorded; /* by the run, on its own text */
    p4_same_text same_text;
    p4_quality quality;    /* passed: on each set too */
    bool original_guesses; /* as of p4_results */
    int64_t set_count;
    p4_set_results sets[P4_SETS_MAX];          /* pre and final: the original, the compressed model */
    p4_set_results recorded_sets[P4_SETS_MAX]; /* the same by the run, where it had a set of this name */
    p4_same_text set_same_text[P4_SETS_MAX];
    int64_t set_windows[P4_SETS_MAX];
} p4_measurement;

void p4_measurement_table(FILE *to, const p4_measurement *measurement);
/* The caller frees; NULL: out of memory. */
char *p4_measurement_json(const p4_measurement *measurement);

#endif
