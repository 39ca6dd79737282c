/* cuda_ops.h - the CUDA ops that kernels/cuda/device.cu puts into the table; see ops.h for what each does. */
#ifndef P4_KERNELS_CUDA_OPS_H
#define P4_KERNELS_CUDA_OPS_H

#include "kernels/cuda/cuda.cuh"

/* kernels/cuda/copy.cu; the stages are opened (failures are recorded in the device) and closed with it */
bool p4_cuda_stages_open(p4_device *device);
void p4_cuda_stages_close(p4_device *device);
void p4_cuda_to_device(p4_device *device, void *to, const void *h_from, int64_t bytes);
void p4_cuda_to_host(p4_device *device, void *h_to, const void *from, int64_t bytes);

/* kernels/cuda/record.cu; open reads P4_GRAPH */
p4_rc p4_cuda_repeat_open(p4_device *device);
void p4_cuda_repeat(p4_device *device, p4_recording **recording, void (*work)(void *user), void *user);
void p4_cuda_forget(p4_device *device, p4_recording **recording);

/* kernels/cuda/linear.cu, kernels/cuda/unpack.cu */
void p4_cuda_weight_unpack(p4_device *device, void *dst, const p4_weight *weight);
void p4_cuda_linear_forward(p4_device *device, void *y, const void *x, const void *w, const float *bias,
                            int64_t N, int64_t in, int64_t out);
void p4_cuda_linear_backward_input(p4_device *device, void *dx, const void *dy, const void *w, int64_t N,
                                   int64_t in, int64_t out, bool accumulate);
void p4_cuda_linear_backward_weight(p4_device *device, float *dw, const void *dy, int64_t ld_dy,
                                    const void *x, int64_t N, int64_t in, int64_t out, bool accumulate);
void p4_cuda_linear_backward_bias(p4_device *device, float *db, const void *dy, int64_t N, int64_t out);

/* The products of linear_forward and of linear_backward_input (beta 0). Of the first, a bias in bf16 lies in
 * scratch memory until the next op. */
p4_cuda_gemm p4_cuda_forward_product(p4_device *device, void *y, const void *x, const void *w,
                                     const float *bias, int64_t N, int64_t in, int64_t out);
p4_cuda_gemm p4_cuda_backward_input_product(const p4_device *device, void *dx, const void *dy, const void *w,
                                            int64_t N, int64_t in, int64_t out);

/* kernels/cuda/gelu.cu */
void p4_cuda_gelu_forward(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t N,
                          int64_t F);
void p4_cuda_linear_gelu_forward(p4_device *device, void *h, void *up, const void *x, const void *w,
                                 const float *bias, int64_t N, int64_t in, int64_t out);
void p4_cuda_linear_gelu_backward(p4_device *device, void *dup, float *db, const void *dy, const void *w,
                                  const void *up, int64_t N, int64_t F, int64_t out);

/* kernels/cuda/int8_rows.cu, kernels/cuda/int8.cu */
void p4_cuda_quantize_int8(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t N,
                           int64_t C);
void p4_cuda_dequantize_int8(p4_device *device, void *y, const p4_int8_rows *x, int64_t N, int64_t C);
void p4_cuda_linear_forward_int8(p4_device *device, void *y, const p4_int8_rows *x, const p4_weight *weights,
                                 int64_t parts, const float *bias, void *x_work, void *w_work, int64_t N,
                                 int64_t in, int64_t out);

/* kernels/cuda/embed.cu */
void p4_cuda_embed_forward(p4_device *device, void *x, const int32_t *ids, const p4_weight *token,
                           const p4_weight *position, int64_t B, int64_t T, int64_t C);
void p4_cuda_embed_backward(p4_device *device, float *dtoken, float *dposition, const int32_t *ids,
                            const void *dx, int64_t B, int64_t T, int64_t C, int64_t V);
void p4_cuda_rope(p4_device *device, void *qkv, const float *cos_table, const float *sin_table, int64_t N,
                  int64_t T, int64_t heads, int64_t D, int64_t row_width, bool backward);

/* kernels/cuda/norm.cu */
void p4_cuda_add_norm_forward(p4_device *device, p4_norm_kind kind, void *y, const p4_int8_rows *rounded,
                              void *sum, float *mean, float *rstd, const void *x, const void *delta,
                              const float *gain, const float *bias, int64_t N, int64_t C, float eps);
void p4_cuda_norm_backward(p4_device *device, p4_norm_kind kind, void *dx, bool accumulate, float *dx_sums,
                           float *dgain, float *dbias, const void *dy, const void *x, const float *mean,
                           const float *rstd, const float *gain, int64_t N, int64_t C);

/* kernels/cuda/mlp.cu */
void p4_cuda_act_to_f32(p4_device *device, float *to, const void *act, int64_t count);
void p4_cuda_f32_to_act(p4_device *device, void *act, const float *from, int64_t count);
void p4_cuda_add(p4_device *device, void *out, const void *a, const void *b, int64_t count);
void p4_cuda_swiglu_forward(p4_device *device, void *y, const p4_int8_rows *rounded, const void *gate_up,
                            int64_t N, int64_t F);
void p4_cuda_swiglu_backward(p4_device *device, void *dgate_up, const void *dh, const void *gate_up,
                             int64_t N, int64_t F);
void p4_cuda_linear_swiglu_backward(p4_device *device, void *dgate_up, void *dh, const void *dy,
                                    const void *w, const void *gate_up, int64_t N, int64_t F, int64_t out);

/* kernels/cuda/loss.cu */
void p4_cuda_cross_entropy(p4_device *device, float *nll, float *hit, void *dlogits, const void *logits,
                           const int32_t *targets, int64_t N, int64_t V, int64_t ld, float scale);
void p4_cuda_kl_divergence(p4_device *device, float *kl, const void *reference, const void *logits,
                           const int32_t *targets, int64_t N, int64_t V, int64_t ld);

/* kernels/cuda/calib.cu */
void p4_cuda_channel_sum_sq(p4_device *device, double *sum_sq, const void *x, int64_t N, int64_t C);
void p4_cuda_moments(p4_device *device, p4_moments *moments, const void *x, int64_t N, int64_t width,
                     int64_t ld);

/* kernels/cuda/optim.cu, kernels/cuda/muon.cu */
void p4_cuda_add_sq_norm(p4_device *device, double *sum, const float *g, int64_t count);
void p4_cuda_add_sum(p4_device *device, double *sum, const float *x, int64_t count);
void p4_cuda_scale(p4_device *device, float *x, float factor, int64_t count);
void p4_cuda_add_f32(p4_device *device, float *sum, const float *addend, int64_t count);
void p4_cuda_grokfast(p4_device *device, float *g, void *ema, float alpha, float lambda, int64_t count,
                      bool half, uint64_t index, const p4_step_numbers *numbers);
void p4_cuda_adamw(p4_device *device, const p4_adamw_item *h_items, int64_t items, float beta1, float beta2,
                   float eps, bool half, const p4_step_numbers *numbers);
void p4_cuda_muon(p4_device *device, const p4_muon_item *h_items, int64_t items, int64_t rows, int64_t cols,
                  float momentum, float decay, float *work, bool half, const p4_step_numbers *numbers);
int64_t p4_cuda_muon_work_count(p4_device *device, int64_t items, int64_t rows, int64_t cols);
void p4_cuda_round_to_f16(p4_device *device, float *x, int64_t count);

#endif
