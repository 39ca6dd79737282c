/* swiglu_backward.cuh - SwiGLU's gradient together with the product in front of it.
 *
 * Implementations: `own` (kernels/sm90/swiglu_backward.cu), with wgmma, for bf16 activations on compute
 * capability 9.0 where row lengths are multiples of 8 elements and arrays lie on 16 bytes, for products that
 * are large enough; elsewhere `cublas`: cuBLASLt's product and a kernel after it (kernels/cuda/mlp.cu).
 * P4_SWIGLU_BACKWARD=cublas in the environment uses the latter everywhere. P4_SWIGLU_BACKWARD=own uses the
 * former for small products too, and is an error on a device that cannot run it. The two sum in different
 * orders. */
#ifndef P4_SWIGLU_BACKWARD_CUDA_CUH
#define P4_SWIGLU_BACKWARD_CUDA_CUH

#include "kernels/cuda/cuda.cuh"

/* Prepares the kernel of `own` on the current device; false records a failure. */
bool p4_cuda_swiglu_own_open(p4_device *device);
/* Queues `own`. False: nothing was queued, and the call is left to `cublas`. */
bool p4_cuda_swiglu_own_backward(p4_device *device, const p4_linear_gated_backward_args *call);

#endif
