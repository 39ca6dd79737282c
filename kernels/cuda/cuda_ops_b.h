/* cuda_ops_b.h - the CUDA ops of attention and ternary weights that kernels/cuda/device.cu puts into the
 * table; see ops.h for what each does. */
#ifndef P4_KERNELS_CUDA_OPS_B_H
#define P4_KERNELS_CUDA_OPS_B_H

#include "kernels/cuda/cuda.cuh"

/* kernels/cuda/attention.cu */
void p4_cuda_attention_forward(p4_device *device, void *out, float *lse, const void *qkv,
                               const p4_attention_shape *shape, float *work);
void p4_cuda_attention_backward(p4_device *device, void *dqkv, const void *dout, const void *out,
                                const float *lse, const void *qkv, const p4_attention_shape *shape,
                                float *work);
int64_t p4_cuda_attention_work_count(p4_device *device, const p4_attention_shape *shape, bool backward);

/* kernels/cuda/attention_sm90.cu. Says whether the kernels for compute capability 9.0 are used: on a device
 * that has it (encode_tiles), with bf16, unless P4_ATTENTION is `mma`; before p4_cudnn_open. */
void p4_attention_open(p4_device *device);

/* kernels/cuda/cudnn.cu. Open loads cuDNN for a device of this compute capability where P4_ATTENTION and the
 * device allow it (device->cudnn); it fails when cuDNN is demanded and cannot be used. `said`: "attention:
 * cuDNN 9.19", or that own kernels compute it and why. */
p4_rc p4_cudnn_open(p4_device *device, int major, char *said, size_t said_bytes);
void p4_cudnn_close(p4_device *device);

/* kernels/cuda/attention_cudnn.cu. As the ops; false: nothing was done, the call is not cuDNN's. */
bool p4_cudnn_attention_forward(p4_device *device, void *out, float *lse, const void *qkv,
                                const p4_attention_shape *shape, float *work);
bool p4_cudnn_attention_backward(p4_device *device, void *dqkv, const void *dout, const void *out,
                                 const float *lse, const void *qkv, const p4_attention_shape *shape,
                                 float *work);
/* Bytes of `work` that these want, 0 for shapes that are not cuDNN's; makes the plan. */
int64_t p4_cudnn_attention_work_bytes(p4_device *device, const p4_attention_shape *shape, bool backward);

/* kernels/cuda/ternary.cu */
void p4_cuda_quantize(p4_device *device, uint8_t *codes, uint16_t *scale, p4_quant_error *h_error,
                      const p4_weight *weight, p4_quant_method method, float threshold,
                      const float *importance);

/* kernels/cuda/pack.cu */
void p4_cuda_pack_base3(p4_device *device, uint8_t *packed, const uint8_t *codes, int64_t rows, int64_t cols);
void p4_cuda_unpack_base3(p4_device *device, uint8_t *codes, const uint8_t *packed, int64_t rows,
                          int64_t cols);

#endif
