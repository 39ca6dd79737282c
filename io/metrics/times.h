/* times.h - the start of a run, a text of provenance, as its watchers want it. All Local. */
#ifndef P4_METRICS_TIMES_H
#define P4_METRICS_TIMES_H

enum { P4_STAMP_BYTES = 24 };

/* Unix seconds of "2026-01-31T12:00:00Z"; 0 of another text. */
double p4_time_seconds(const char *utc);
/* "20260131_120000" */
void p4_time_stamp(char stamp[P4_STAMP_BYTES], const char *utc);

#endif
