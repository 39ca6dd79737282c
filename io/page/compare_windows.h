/* compare_windows.h - inside io/page: whether two runs were evaluated on the same windows of text. All Local.
 */
#ifndef P4_PAGE_COMPARE_WINDOWS_H
#define P4_PAGE_COMPARE_WINDOWS_H

#include "io/page/run_files.h"

/* The fingerprint of a text among the inputs of a run; "": not known, or not until the run has ended. */
const char *p4_page_fingerprint(const p4_page_run *run, const char *input);
double p4_page_window_tokens(const p4_page_run *run);
/* Predictions of the original's evaluation in results.json, or in one of its sets; NaN: not evaluated, or not
 * yet. */
double p4_page_predictions(const cJSON *evaluated);
/* What tells the windows of an evaluation from others. What is not known does not differ. */
typedef struct p4_page_windows {
    const char *fingerprint;
    double tokens, predictions;
} p4_page_windows;
bool p4_page_same_windows(p4_page_windows a, p4_page_windows b);

#endif
