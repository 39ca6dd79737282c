/* measurement.h - one measurement of a run, in the form in which it is handed to those who watch. */
#ifndef P4_METRICS_MEASUREMENT_H
#define P4_METRICS_MEASUREMENT_H

#include "src/leaf/base.h"

typedef struct p4_metric {
    const char *key;
    double value; /* NaN: not measured, and left out */
} p4_metric;

typedef struct p4_measurement {
    const char
        *group;   /* "train", "evaluation", "original", "final", "reconstruct": the first part of the keys */
    int64_t step; /* of training; of "reconstruct": the first block */
    double
        runtime_s; /* of the run when it was made, over all processes of the run, without the time between */
    const p4_metric *metrics;
    size_t count;
} p4_measurement;

/* What a run is called where it is watched. */
typedef struct p4_watched_run {
    const char *output_path;
    const char *project, *name, *host;
    const char *started;     /* "2026-01-31T12:00:00Z", the same in every process of the run */
    const char *config_json; /* the effective configuration */
} p4_watched_run;

enum { P4_MEASUREMENT_METRICS = 16 };

#endif
