/* gradient_flow.h - a test of a model: one forward and backward pass on one window of tokens, after which
 * every tensor must have a gradient that is finite and not zero. */
#ifndef P4_GRADIENT_FLOW_H
#define P4_GRADIENT_FLOW_H

#include "jobs/train/compute.h"
#include "src/net.h"
#include "src/phase4/results.h"

typedef struct p4_flow_test {
    p4_compute *compute;
    const p4_model *model;
    const p4_weight *weights; /* [params_count]: host views of the weights to test; rank 0's count */
    int activation_bits;
    bool scales;        /* those of ternary tensors too are trained, and must have a gradient */
    const int32_t *ids; /* [T] */
    int64_t T;
} p4_flow_test;

/* Rank 0 runs the test; *record is the same on every rank. A model that fails it is no error. Collective. */
p4_rc p4_gradient_flow_run(const p4_flow_test *test, p4_gradient_flow *record);
/* The device memory that the test takes beside the form of the weights, bytes; -1: out of host memory. Local.
 */
int64_t p4_gradient_flow_bytes(const p4_compute *compute, const p4_model *model, int64_t T,
                               int activation_bits, bool scales);

#endif
