/* pages.h - what a run leaves for who looks at it: details.json, report.html, and the ends of the records for
 * W&B and TensorBoard. */
#ifndef P4_JOBS_PAGES_H
#define P4_JOBS_PAGES_H

#include "jobs/run.h"

/* The run ended with `outcome`, and the results are complete but for what is missing here. A file that cannot
 * be written is a warning, and its path is taken out of the results. A run that failed leaves the ends of the
 * records alone; one that was stopped will be continued, and leaves nothing. Collective. */
void p4_pages_write(p4_run *run, p4_rc outcome);

#endif
