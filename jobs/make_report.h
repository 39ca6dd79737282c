/* make_report.h - the report of a finished run again, or the comparison of several: phase4_report. */
#ifndef P4_MAKE_REPORT_H
#define P4_MAKE_REPORT_H

#include "jobs/options.h"

extern const p4_program p4_report_program;
enum { P4_REPORT_OUTPUT = P4_OPTION_OWN };

/* Makes the page of one output directory, or a comparison of several, from the files in them, and prints its
 * path. output: where it goes; NULL: report.html in the one directory, or comparison.html here. P4_E_INPUT: a
 * directory without results, a damaged file, a path that cannot be written. Local. */
p4_rc p4_make_report(char *const *directories, int count, const char *output);

#endif
