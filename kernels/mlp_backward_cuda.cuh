/* mlp_backward_cuda.cuh - the MLP's way back through its second matrix and its activation function, in one
 * kernel.
 *
 * Which way: `own` (mlp_backward_cuda_90a.cu), wgmma on compute capability 9.0 with bf16 activations, where
 * rows are multiples of 8 elements and arrays lie on 16 bytes; otherwise, and for all with
 * P4_MLP_BACKWARD=cublas in the environment, `cublas`: cuBLASLt's product, and the slope inside it
 * (gelu_cuda.cu) or in a kernel after it (mlp_cuda.cu). P4_MLP_BACKWARD=own is the rule, and an error on a
 * device without it. The ways sum in different orders. */
#ifndef P4_MLP_BACKWARD_CUDA_CUH
#define P4_MLP_BACKWARD_CUDA_CUH

#include "cuda.cuh"

typedef struct p4_mlp_backward {
    const void *dy, *w; /* [N, out], [out, F] */
    const void *x;      /* what the function was taken of: [N, F], or gate | up [N, 2F] */
    void *d;            /* as x, the gradient there */
    float *db;          /* GELU: [F] += the sums of d's columns, or NULL */
    int64_t N, F, out;
    bool gated; /* SwiGLU, else GELU */
} p4_mlp_backward;

/* Makes the kernels ready on the current device; false records a failure. */
bool p4_cuda_mlp_own_open(p4_device *device);
/* Queues it the way `own`. False: nothing was queued, the call goes the other way. */
bool p4_cuda_mlp_own_backward(p4_device *device, const p4_mlp_backward *call);

#endif
