/* experts.cuh - products of each expert's rows with its matrix.
 *
 * Implementations: `own` (kernels/sm90/experts.cu), with wgmma, for bf16 activations on compute capability
 * 9.0 where `in` and `out` are multiples of 8 and arrays lie on 16 bytes; elsewhere `plain`
 * (kernels/cuda/experts_products.cu), with fp32 multiplications. P4_EXPERTS=plain in the environment uses the
 * latter everywhere; P4_EXPERTS=own is the default, and an error on a device that cannot run it. The two sum
 * in different orders. */
#ifndef P4_EXPERTS_CUDA_CUH
#define P4_EXPERTS_CUDA_CUH

#include "kernels/cuda/cuda.cuh"

/* Prepares the kernels of `own` on the current device; false records a failure. */
bool p4_cuda_experts_own_open(p4_device *device);
/* Queue `own`. False: nothing was queued, and the call is left to `plain`. */
bool p4_cuda_experts_own_forward(p4_device *device, const p4_experts_args *call);
bool p4_cuda_experts_own_backward_input(p4_device *device, const p4_experts_args *call);
bool p4_cuda_experts_own_backward_weight(p4_device *device, const p4_experts_args *call);

#endif
