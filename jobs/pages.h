/* pages.h - what a run leaves for who looks at it: details.json and report.html. */
#ifndef P4_JOBS_PAGES_H
#define P4_JOBS_PAGES_H

#include "jobs/run.h"

/* Behind the last stage, with the results complete but for what is missing here: a file that cannot be
 * written is a warning, and its path is taken out of the results. Collective. */
void p4_pages_write(p4_run *run);

#endif
