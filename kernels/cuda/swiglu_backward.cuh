/* swiglu_backward.cuh - SwiGLU's gradient together with the product that it is taken of.
 *
 * Which way: `own` (kernels/sm90/swiglu_backward.cu), wgmma on compute capability 9.0 with bf16 activations,
 * where rows are multiples of 8 elements and arrays lie on 16 bytes; otherwise, and for all with
 * P4_SWIGLU_BACKWARD=cublas in the environment, `cublas`: cuBLASLt's product and a kernel after it
 * (kernels/cuda/mlp.cu). P4_SWIGLU_BACKWARD=own is the rule, and an error on a device without it. The ways
 * sum in different orders. */
#ifndef P4_SWIGLU_BACKWARD_CUDA_CUH
#define P4_SWIGLU_BACKWARD_CUDA_CUH

#include "kernels/cuda/cuda.cuh"

typedef struct p4_swiglu_product {
    const void *dy, *w;  /* [N, out], [out, F] */
    const void *gate_up; /* gate | up [N, 2F] */
    void *d;             /* as gate_up, the gradient there */
    int64_t N, F, out;
} p4_swiglu_product;

/* Makes the kernel ready on the current device; false records a failure. */
bool p4_cuda_swiglu_own_open(p4_device *device);
/* Queues it the way `own`. False: nothing was queued, the call goes the other way. */
bool p4_cuda_swiglu_own_backward(p4_device *device, const p4_swiglu_product *call);

#endif
