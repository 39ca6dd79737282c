/* compare_sets.h - inside io/page: the part of a comparison that shows the evaluation sets. Local. */
#ifndef P4_PAGE_COMPARE_SETS_H
#define P4_PAGE_COMPARE_SETS_H

#include <stdio.h>

#include "io/page/run_files.h"

/* The final model on each set of `eval_sets`; nothing where no run has one. */
void p4_page_compare_sets(FILE *to, const p4_page_run *runs, int64_t count);

#endif
