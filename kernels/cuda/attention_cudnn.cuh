/* attention_cudnn.cuh - attention by cuDNN, as kernels/cuda/attention.cu calls it. */
#ifndef P4_ATTENTION_CUDNN_CUH
#define P4_ATTENTION_CUDNN_CUH

#include "kernels/cuda/cuda.cuh"

/* Loads cuDNN for a device of this major compute capability. `why` says why it cannot be used, "" when it
 * can; an error is a failure of the host. any_order: backward may add up dQ in any order, so that its bits
 * differ between runs. */
p4_rc p4_cudnn_attention_open(p4_device *device, int major, bool any_order, char *why, size_t why_bytes);
void p4_cudnn_attention_close(p4_device *device);
/* "cuDNN 9.19", or with any_order "cuDNN 9.19 in any order"; false when it is not open. */
bool p4_cudnn_attention_describe(const p4_device *device, char *text, size_t text_bytes);

/* Of an open cuDNN and a shape that it takes (kernels/cuda/attention.cu). Bytes of workspace; makes the plan,
 * so that steps make none. */
int64_t p4_cudnn_attention_work_bytes(p4_device *device, const p4_attention_shape *shape, bool backward);
/* False: nothing was queued: an array does not lie on 16 bytes, or cuDNN has no engine for the shape. */
bool p4_cudnn_attention_forward(p4_device *device, const p4_attention_forward_args *args);
bool p4_cudnn_attention_backward(p4_device *device, const p4_attention_backward_args *args);

#endif
