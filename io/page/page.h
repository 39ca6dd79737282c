/* page.h - the pages for a person: report.html of one run, and the comparison of several. Each is one file
 * without scripts that loads nothing. All Local. */
#ifndef P4_PAGE_H
#define P4_PAGE_H

#include "io/page/run_files.h"

/* The file, complete or not at all. P4_E_INPUT: it cannot be written. */
p4_rc p4_page_write_report(const char *path, const p4_page_run *run);
/* At least two runs. */
p4_rc p4_page_write_comparison(const char *path, const p4_page_run *runs, int64_t count);

#endif
