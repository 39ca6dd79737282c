/* pipeline.h - evaluation and calibration: micro-batches of hidden states flow through the ranks, each of
 * which runs its own contiguous layers. While rank r works on micro-batch m, rank r-1 works on m+1. */
#ifndef P4_PIPELINE_H
#define P4_PIPELINE_H

#include "jobs/job.h"

typedef struct p4_pipeline {
    p4_job *job;
    p4_net net;
    int64_t B, T;
    void *memory;
    void *x[2][2]; /* [form][micro-batch parity]: hidden states that come in and go out */
    p4_request sending[2][2];
} p4_pipeline;

/* `reference`: two forms will run side by side. Takes device memory. The caller closes. Collective. */
p4_rc p4_pipeline_open(p4_pipeline *pipeline, p4_job *job, bool reference);
void p4_pipeline_close(p4_pipeline *pipeline);

/* All windows through the model; *score is the same on every rank. Forms need this rank's layers, the
 * embedding on the first stage, the head on the last. reference and probe may be NULL. Collective. */
p4_rc p4_pipeline_run(p4_pipeline *pipeline, const p4_form *form, const p4_form *reference,
                      const p4_windows *windows, const p4_probe *probe, const char *label, p4_score *score);

#endif
