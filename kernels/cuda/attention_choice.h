/* attention_choice.h - which implementation computes an attention, by the table in kernels/cuda/attention.cu.
 * The choice needs no GPU: it depends on the shape and on what a device supports. */
#ifndef P4_ATTENTION_CHOICE_H
#define P4_ATTENTION_CHOICE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/ops.h"

/* What an open device supports. The texts say why it does not: NULL: it does. They live as long as the
 * device. */
typedef struct p4_attention_support {
    bool half;            /* activations are bf16, else fp32 */
    const char *no_wgmma; /* the kernels for compute capability 9.0 */
    const char *no_cudnn;
    bool cudnn_first; /* P4_ATTENTION=cudnn or cudnn-any-order: cuDNN computes all that it can */
} p4_attention_support;

/* The name of the implementation that computes this shape: "cuDNN", "wgmma", "mma" or "fp32". `why` gets, in
 * the table's order, the implementations that are preferred to it and why each of them does not take the
 * shape: "cuDNN: fewer than 2 tokens; ". Local. */
const char *p4_attention_choice(const p4_attention_support *support, const p4_attention_shape *shape,
                                bool backward, char *why, size_t why_bytes);

#ifdef __cplusplus
}
#endif
#endif
