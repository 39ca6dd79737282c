/* forecast.h - how long the stages of a run will take, from how long those before them took. Work is counted
 * in tokens that pass forward through the whole model: a backward pass counts as two, the original beside the
 * ternary model as one more. All Local. */
#ifndef P4_FORECAST_H
#define P4_FORECAST_H

#include "jobs/run.h"

/* Work of a stage as the configuration and the text have it, when both are loaded. A stage that turns out to
 * have nothing to do has less. */
double p4_work_evaluate_original(const p4_run *run);
double p4_work_evaluate_packed(const p4_run *run);
double p4_work_evaluate_trained(const p4_run *run);
double p4_work_calibrate(const p4_run *run);
double p4_work_reconstruct(const p4_run *run);
double p4_work_fine_tune(const p4_run *run);

/* Of planned_s, what a run takes still that continues from a checkpoint: done: the part of each stage that
 * this has, 0 to 1. */
double p4_forecast_left(const double planned_s[P4_MAX_STAGES], const double done[P4_MAX_STAGES]);

#endif
