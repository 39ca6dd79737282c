/* details.h - details.json: what the report of a run shows and results.json is too small for: every tensor,
 * what calibration saw of every projection, and the time of every rank. */
#ifndef P4_OUT_DETAILS_H
#define P4_OUT_DETAILS_H

#include "src/leaf/base.h"
#include "src/phase4/results.h"

/* A tensor of the compressed model. The last five are NaN for one that is preserved. */
typedef struct p4_tensor_detail {
    const char *name;
    int64_t layer; /* -1: outside the blocks */
    int64_t rows, cols;
    bool ternary;
    double bytes; /* codes and scales as they are packed, or halves */
    double relative_error, sparsity, scale_min, scale_mean, scale_max;
} p4_tensor_detail;

/* What calibration saw of the projection of tensor `tensor`. */
typedef struct p4_activation_detail {
    int64_t tensor;
    double mean, std, min, max; /* of its output */
    double input_peak; /* the largest mean square of an input channel, over the mean of all channels */
} p4_activation_detail;

/* A stage of this process, as one rank lived it. */
typedef struct p4_stage_detail {
    double started_s, seconds; /* after the process's start; wall time */
    double cpu_s, waited_s;    /* processor time of all threads; time in waits for other ranks */
} p4_stage_detail;

typedef struct p4_details {
    int64_t tensor_count, activation_count, stage_count, rank_count;
    const p4_tensor_detail *tensors;
    const p4_activation_detail *activations;
    const char *stage_names[P4_MAX_STAGES]; /* those that ran in this process */
    const p4_stage_detail *stages;          /* [rank_count][stage_count] */
    const double *peak_memory_mb;           /* [rank_count] */
} p4_details;

/* The file, complete or not at all. Local. */
p4_rc p4_details_store(const char *path, const p4_details *details);

#endif
