/* ops.h - the operations that a backend provides: one const p4_ops table for "cpu", one for "cuda".
 *
 * The signatures are written once, in kernels/op_list.h, with what each op does: the members of p4_ops, the
 * declarations of both columns (p4_cpu_NAME, p4_cuda_NAME) and both tables are generated from that list. The
 * CPU column is the specification.
 *
 * Activations ("act") are arrays of the device's compute type: fp32 on the CPU, bf16 or fp32 on CUDA (op
 * `open`). Gradients of weights, statistics and losses are fp32; optimizer state is fp32 or bf16. Shapes are
 * row-major. N = B * T tokens, C channels, H heads, D head dimension, F MLP width, V vocabulary.
 *
 * Pointers are device memory, unless their name starts with h_ (host). The small structs that describe
 * arrays (p4_weight, p4_int8_rows, ..._args) lie in host memory and hold device pointers; they are read
 * before the op returns. An op with more than eight parameters takes them as one struct, whose field
 * opt_NAME may be NULL.
 *
 * On CUDA an op is queued on the device's stream and returns; `sync` waits for it. (The first large product
 * of each shape is timed when it is queued, and waits for what was queued before.) Ops never allocate:
 * workspaces are arguments. Results do not depend on the number of threads. An op that fails at run time
 * records the error in the device, and `sync` returns it.
 */
#ifndef P4_OPS_H
#define P4_OPS_H

#include "kernels/experts.h"
#include "src/leaf/activation.h"
#include "src/leaf/tensor.h"

typedef struct p4_device p4_device;

typedef enum p4_norm_kind { P4_RMSNORM, P4_LAYERNORM } p4_norm_kind;
typedef enum p4_quant_method { P4_QUANT_ABSMEAN, P4_QUANT_EXACT } p4_quant_method;

/* Self-attention on one fused buffer. qkv is [N, (H + 2*Hkv) * D]: query heads, key heads, value heads. */
typedef struct p4_attention_shape {
    int64_t B, T, H, Hkv, D;
    int64_t window; /* query i sees keys j with i - window < j <= i; 0: all j <= i */
    float scale;    /* usually 1/sqrt(D) */
    float cap;      /* soft cap: a scaled score s becomes cap tanh(s / cap); 0: it stays */
} p4_attention_shape;

/* What the losses do to each logit x of a product with the head: x scale, and then the soft cap, z = cap
 * tanh(x scale / cap). Losses are those of z, gradients those at x. scale: 0 or above; 0: 1. cap: 0: none. */
typedef struct p4_logit_map {
    float scale, cap;
} p4_logit_map;

/* Running sums of an activation tensor's elements (calibration), one per projection. */
typedef struct p4_moments {
    double sum, sum_sq;
    double count;
    float min, max;
} p4_moments;

/* What `quantize` reports about a matrix: sums over all elements. */
typedef struct p4_quant_error {
    double sq_error; /* sum (w - t*scale)^2 */
    double sq_norm;  /* sum w^2 */
    int64_t zeros;   /* count of t == 0 */
    float scale_min, scale_max;
    int64_t nonfinite; /* NaN or infinite input elements; codes of such rows are unspecified */
} p4_quant_error;

/* Bytes of a row of C int8 elements in memory: C rounded up to 16. */
static inline int64_t p4_int8_width(int64_t C)
{
    return p4_ceil_div(C, 16) * 16;
}
enum { P4_INT8_PARTS = 3 }; /* q | k | v */

/* Activations x[N, C] rounded to int8 per token: s = 127 / max(max|x|, 1e-5), codes = clip(round(x s), -128,
 * 127). The codes stand for the values codes / s, in activation type. A token that contains a value that is
 * not finite gets s = 0, so that its values are not finite either; its codes are unspecified.
 *
 * Ops that can produce such rows take `rounded`. NULL: the output y is written as it is. Otherwise y is
 * computed as without `rounded` and then rounded: codes and s are written unless both are NULL, and the
 * values that the codes stand for are written to y unless that is NULL. */
typedef struct p4_int8_rows {
    int8_t *codes; /* [N, p4_int8_width(C)], zeros from C on; 16-byte aligned */
    float *s;      /* [N] */
} p4_int8_rows;

/* A device that this process may open. */
typedef struct p4_device_info {
    uint8_t id[16]; /* the same in every process of a node that sees this device */
    int32_t ordinal;
} p4_device_info;

/* What a device is and what it computes with, for the record of a run; "": it has none. */
typedef struct p4_device_identity {
    char name[128]; /* "NVIDIA H200", or the CPU's as the system knows it */
    char blas[128]; /* "OpenBLAS 0.3.21, SkylakeX", "cuBLASLt 13.1.0" */
    char cuda[64];  /* "runtime 13.0, driver 13.1" */
} p4_device_identity;

/* The numbers of an optimizer step that differ from step to step. They lie in device memory, so that the
 * arguments of the ops stay the same and a recorded step can be replayed. Each op's comment names the
 * fields that it reads. */
typedef struct p4_step_numbers {
    float lr, g_scale; /* gradients are multiplied by g_scale first; NaN: op `adamw` skips the step */
    float m_correction, v_correction; /* AdamW: 1 / (1 - beta^step), step from 1 */
    uint64_t key;                     /* random bits of this step, for state in bf16 */
    int32_t first;                    /* Grokfast: not 0: the average starts with this gradient */
    double divisor;                   /* of gradients that op `clip` scales */
} p4_step_numbers;

/* What a rank has found in a step: the squared error of its windows, and the squares of its share of the
 * gradients. */
typedef struct p4_clip_figures {
    double error, squares;
} p4_clip_figures;

/* All ranks together: the squared error, the norm of the gradients after division. */
typedef struct p4_clip_result {
    double error, norm;
} p4_clip_result;

/* Work that a device replays (op `repeat`): opaque. NULL before it has run, and where nothing is kept of it.
 */
typedef struct p4_recording p4_recording;

/* One matrix of a Muon step, and one array of an AdamW step. No two items overlap. `index`: the position in
 * the model of element 0, from which the random rounding of bf16 state is drawn (kernels/state.h). */
typedef struct p4_muon_item {
    float *w; /* [rows, cols] */
    void *buf;
    const float *g;
    uint64_t index;
} p4_muon_item;

typedef struct p4_adamw_item {
    float *w; /* [count] */
    void *m, *v;
    const float *g;
    int64_t count;
    uint64_t index;
    float decay;
} p4_adamw_item;

/* --- arguments of ops with more than eight --------------------------------------------------------- */

/* dw[out, in] (= or += when accumulate) dy^T x. */
typedef struct p4_linear_backward_weight_args {
    int64_t N, in, out;
    const void *dy; /* act [N, out], rows ld_dy >= out elements apart (a column slice of a fused buffer) */
    int64_t ld_dy;
    const void *x; /* act [N, in] */
    float *dw;     /* [out, in] */
    bool accumulate;
} p4_linear_backward_weight_args;

typedef struct p4_linear_activate_forward_args {
    p4_activation function;
    int64_t N, in, out;
    const void *x;         /* act [N, in] */
    const void *w;         /* act [out, in] */
    const float *opt_bias; /* [out] */
    void *up, *h;          /* act [N, out]: before and after the function */
} p4_linear_activate_forward_args;

/* Backward through the linear layer behind an activation function, and through the function. */
typedef struct p4_linear_activate_backward_args {
    p4_activation function;
    int64_t N, F, out;
    const void *dy; /* act [N, out] */
    const void *w;  /* act [out, F] */
    const void *up; /* act [N, F]: input of the function */
    void *dup;      /* act [N, F] */
    float *opt_db;  /* [F]: column sums of dup are added */
} p4_linear_activate_backward_args;

/* Backward through the linear layer behind a gated activation, and through the activation. */
typedef struct p4_linear_gated_backward_args {
    p4_activation function;
    int64_t N, F, out;
    const void *dy;      /* act [N, out] */
    const void *w;       /* act [out, F] */
    const void *gate_up; /* act [N, 2F]: gate | up */
    void *dgate_up;      /* act [N, 2F] */
    void *dh_work;       /* act [N, F]: workspace, content undefined before and after */
} p4_linear_gated_backward_args;

typedef struct p4_linear_forward_int8_args {
    int64_t N, in, out;
    p4_int8_rows x;           /* [N, in] */
    const p4_weight *weights; /* host array [parts], ternary: one below the other they are [out, in] */
    int64_t parts;            /* 1 to P4_INT8_PARTS */
    const float *opt_bias;    /* [out] */
    void *y;                  /* act [N, out] */
    /* Workspaces, 16-byte aligned, content undefined before and after. */
    void *x_work; /* act [N, in], for a device that multiplies activations */
    void *w_work; /* act [out, p4_int8_width(in)] */
} p4_linear_forward_int8_args;

typedef struct p4_linear_forward_weights_args {
    int64_t N, in, out;
    const void *x;            /* act [N, in] */
    const p4_weight *weights; /* host array [parts]: one below the other they are [out, in] */
    int64_t parts;            /* 1 to P4_INT8_PARTS */
    const float *opt_bias;    /* [out] */
    void *y;                  /* act [N, out] */
    void *w_work;             /* act [out, in], 16-byte aligned, content undefined before and after */
} p4_linear_forward_weights_args;

typedef struct p4_embed_forward_args {
    int64_t B, T, C;
    const int32_t *ids;            /* [B * T] */
    const p4_weight *token;        /* [V, C], any float form or ternary */
    const p4_weight *opt_position; /* [positions, C] */
    float scale;                   /* of token, rounded to the activation type first; 0: 1 */
    void *x;                       /* act [B * T, C] */
} p4_embed_forward_args;

typedef struct p4_embed_backward_args {
    int64_t B, T, C, V;
    const int32_t *ids;   /* [B * T] */
    const void *dx;       /* act [B * T, C] */
    float scale;          /* as in the forward pass */
    float *dtoken;        /* [V, C], += */
    float *opt_dposition; /* [positions, C], += */
} p4_embed_backward_args;

typedef struct p4_add_norm_forward_args {
    p4_norm_kind kind;
    int64_t N, C;
    float eps;
    const void *x;         /* act [N, C] */
    const void *opt_delta; /* act [N, C], added to x before the norm */
    float delta_scale;     /* of delta; 0: 1 */
    const float *gain;     /* [C] */
    float gain_offset;     /* the norm multiplies by gain + gain_offset */
    const float *opt_bias; /* [C] */
    void *opt_sum;         /* act [N, C] = x + delta_scale delta; may be x. Required with opt_delta */
    void *opt_y;           /* act [N, C]; NULL only with opt_rounded */
    const p4_int8_rows *opt_rounded;
    float *opt_mean, *opt_rstd; /* [N], for a backward pass; mean: of a layer norm only */
} p4_add_norm_forward_args;

typedef struct p4_norm_backward_args {
    p4_norm_kind kind;
    int64_t N, C;
    const void *dy;        /* act [N, C] */
    const void *x;         /* act [N, C]: the norm's input, which is the forward pass's sum */
    const float *opt_mean; /* [N]; required by a layer norm */
    const float *rstd;     /* [N] */
    const float *gain;     /* [C] */
    float gain_offset;     /* as in the forward pass */
    void *dx;              /* act [N, C], = or += */
    bool accumulate;
    float *opt_dx_sums;           /* [C] += column sums of the final dx, taken before or after rounding it */
    float *opt_dgain, *opt_dbias; /* [C], += */
} p4_norm_backward_args;

/* RMSNorm of parts of a row: of each of `heads` groups of D neighboring elements alone, all with the same
 * gain. One group of all query heads' elements is a norm of the whole projection. */
typedef struct p4_head_norm_forward_args {
    int64_t N, heads, D;
    float eps;
    const void *x; /* act [N, heads * D], rows ld_x elements apart */
    int64_t ld_x;
    const float *gain; /* [D] */
    float gain_offset; /* the norm multiplies by gain + gain_offset */
    void *y;           /* act [N, heads * D], rows ld_y elements apart; may be x, with the same ld */
    int64_t ld_y;
    float *opt_rstd; /* [N, heads], for a backward pass */
} p4_head_norm_forward_args;

typedef struct p4_head_norm_backward_args {
    int64_t N, heads, D;
    const void *dy; /* act [N, heads * D], rows ld_dy elements apart */
    int64_t ld_dy;
    const void *x; /* act, rows ld_x elements apart: the norm's input */
    int64_t ld_x;
    const float *rstd; /* [N, heads] */
    const float *gain; /* [D] */
    float gain_offset;
    void *dx; /* act, rows ld_dx elements apart; may be dy, with the same ld */
    int64_t ld_dx;
    float *opt_dgain; /* [D], += */
} p4_head_norm_backward_args;

/* Copies parts of rows, in two dimensions and from any order to any other: in each row n, for i < I and j <
 * J, the D elements of x from i x_i + j x_j on to y from i y_i + j y_j on. The rest of y stays. */
typedef struct p4_copy_groups_args {
    int64_t N, I, J, D;
    const void *x; /* act [N, ..], rows ld_x elements apart */
    int64_t ld_x, x_i, x_j;
    void *y; /* act [N, ..], rows ld_y elements apart; does not overlap x */
    int64_t ld_y, y_i, y_j;
} p4_copy_groups_args;

/* Rotates the first R elements of each of the first `heads` heads of every row in place, rotate-half pairs
 * (i, i + R/2) by the angle of the tables; the other D - R elements stay. Backward: by the negative angle.
 * Where the tables carry a factor (p4_rope_tables), the pairs are multiplied by it in both directions. */
typedef struct p4_rope_args {
    int64_t N, T, heads, D;
    int64_t R;                          /* even, at most D; 0: D */
    bool neighbors;                     /* pairs are (2i, 2i + 1) instead */
    void *qkv;                          /* act [N, row_width] */
    int64_t row_width;                  /* elements */
    const float *cos_table, *sin_table; /* [T, R/2] */
    bool backward;
} p4_rope_args;

typedef struct p4_attention_forward_args {
    p4_attention_shape shape;
    const void *qkv; /* act [N, (H + 2 * Hkv) * D] */
    void *out;       /* act [N, H * D] */
    float *opt_lse;  /* [B, H, T]: log-sum-exp of the scaled scores, for a backward pass */
    float *work;     /* attention_work_count elements, content undefined before and after */
} p4_attention_forward_args;

/* Attention of the T tokens of one sequence that follow *past others, whose keys and values are in a cache:
 * as attention_forward of all *past + T tokens gives for these. */
typedef struct p4_attention_cached_args {
    p4_attention_shape shape; /* B is 1 */
    const int64_t *past;      /* on the device, so that a step that is repeated finds another number there */
    int64_t capacity;         /* tokens: at least *past + T */
    const void *qkv;          /* act [T, (H + 2 * Hkv) * D] */
    p4_dtype type;            /* of the cache: P4_F16 or P4_F32 */
    void *keys, *values;      /* [Hkv, capacity, D] */
    void *out;                /* act [T, H * D] */
} p4_attention_cached_args;

typedef struct p4_attention_backward_args {
    p4_attention_shape shape;
    const void *qkv, *out; /* as in the forward pass */
    const float *lse;
    const void *dout; /* act [N, H * D] */
    void *dqkv;       /* act, as qkv */
    float *work;      /* attention_work_count elements, content undefined before and after */
} p4_attention_backward_args;

typedef struct p4_cross_entropy_args {
    int64_t N, V, ld;
    const void *logits; /* act [N, ld], of which the first V columns count */
    p4_logit_map map;
    const int32_t *targets; /* [N]; negative: the row does not count */
    float scale;            /* of opt_dlogits */
    float *nll;             /* [N]: 0 where the row does not count */
    float *opt_hit;         /* [N]: 1 where the largest logit (the first of equal ones) is the target's */
    void *opt_dlogits; /* act [N, ld] = (softmax - onehot) * scale * slope of the map; may be logits. Zero
                        * in the columns from V on, and in rows that do not count */
} p4_cross_entropy_args;

typedef struct p4_kl_divergence_args {
    int64_t N, V, ld;
    const void *reference, *logits; /* act [N, ld], of which the first V columns count */
    p4_logit_map map;               /* of both */
    const int32_t *targets;         /* [N]; negative: the row does not count */
    float *kl;                      /* [N]: 0 where the row does not count */
    float *opt_same; /* [N]: 1 where the largest logit of both (the first of equal ones) is of one class; 0
                        where the row does not count */
} p4_kl_divergence_args;

/* Rows of a distribution over V classes that are cut to k of them, 1 <= k <= V. */
typedef struct p4_top_rows {
    int64_t k;
    int32_t *ids; /* [N, k], different from each other in a row */
    float *logp;  /* [N, k + 1]: log-probabilities of ids; the last is that of all others, -inf if none */
} p4_top_rows;

typedef struct p4_top_k_args {
    int64_t N, V, ld;
    const void *logits; /* act [N, ld], of which the first V columns count */
    p4_logit_map map;
    float temperature;
    p4_top_rows top;
} p4_top_k_args;

typedef struct p4_distill_loss_args {
    int64_t N, V, ld;
    void *logits;           /* act [N, ld], of which the first V columns count: the student's; the gradient */
    void *opt_teacher;      /* act [N, ld]: the teacher's logits; content undefined after. NULL: top */
    p4_top_rows top;        /* of the teacher's softmax at `temperature`, of mapped logits */
    p4_logit_map map;       /* of both models' logits */
    const int32_t *targets; /* [N]; negative: the row does not count */
    float scale, weight, temperature;
    float *nll, *hit, *kl; /* [N]: 0 where the row does not count; hit as in cross_entropy */
} p4_distill_loss_args;
typedef struct p4_squared_error_args {
    int64_t count;
    const void *x;          /* act [count] */
    const void *opt_delta;  /* act [count]; NULL: zeros */
    float delta_scale;      /* 0: 1 */
    const void *opt_target; /* act [count]; NULL: zeros */
    float scale;            /* of opt_dx */
    double *sum;
    void *opt_dx; /* act [count]; may be x or opt_delta */
} p4_squared_error_args;

typedef struct p4_cosine_distance_args {
    int64_t N, C;
    const void *x, *target; /* act [N, C] */
    float scale;            /* of dx */
    double *sum;
    void *dx; /* act [N, C], apart from x and target */
    bool accumulate;
} p4_cosine_distance_args;

typedef struct p4_grokfast_args {
    int64_t count;
    float alpha, lambda;
    bool half;                      /* ema is bf16, else fp32 */
    uint64_t index;                 /* position in the model of element 0 */
    float *g;                       /* [count], changed in place */
    void *ema;                      /* [count] */
    const p4_step_numbers *numbers; /* first, key */
} p4_grokfast_args;

typedef struct p4_clip_args {
    const p4_clip_figures *figures; /* [ranks] */
    int64_t ranks;
    const double *squares;    /* of the gradients that are the same on all ranks */
    double clip;              /* the largest norm; 0: any */
    p4_step_numbers *numbers; /* reads divisor, writes g_scale */
    p4_clip_result *result;
} p4_clip_args;

typedef struct p4_muon_args {
    const p4_muon_item *h_items; /* [items]; free for reuse when the op returns */
    int64_t items, rows, cols;   /* all matrices are [rows, cols] */
    float momentum, decay;
    bool half;   /* buf is bf16, else fp32 */
    float *work; /* 64-byte aligned, muon_work_count elements for these items, rows, cols */
    const p4_step_numbers *numbers; /* lr, g_scale, key */
} p4_muon_args;

/* h += x' x of one micro-batch. */
typedef struct p4_hessian_add_args {
    int64_t N, C;
    const void *x; /* act [N, C] */
    float *work;   /* [C, C], content undefined before and after */
    double *h;     /* [C, C] */
    /* What is added is rounded to a multiple of this power of two first (0: not at all). As long as the sums
     * stay below 2^52 quanta they are exact, and do not depend on the order in which they are added. */
    double quantum;
} p4_hessian_add_args;

/* From sums to H: the mean, damped. An input that is always 0 has a diagonal entry of 0 before and after. */
typedef struct p4_hessian_finish_args {
    int64_t C;
    const double *sums; /* [C, C] */
    double scale;       /* of the sums: 1 / tokens */
    double damping; /* of the mean of the diagonal entries that are not 0, which is added to each of these */
    float *importance; /* [C]: the diagonal without damping */
    float *h;          /* [C, C] */
} p4_hessian_finish_args;

/* The damped Cholesky factor of H (op hessian_factor). */
typedef struct p4_hessian_factor_args {
    int64_t C;
    const float *h;   /* [C, C] */
    float *feedback;  /* [C, C] */
    double *work;     /* [C, C], content undefined before and after */
    double damping;   /* of the mean of the diagonal */
    bool *h_definite; /* host: whether the factor exists */
} p4_hessian_factor_args;

/* A matrix whose rows are quantized under H = X'X / N of its inputs (docs/methods.md 1). All arrays of
 * [rows, cols] are fp32, also the trits t. */
typedef struct p4_hessian_rows {
    int64_t rows, cols;
    const float *w;        /* 0 where the input is always 0 */
    const float *h;        /* [cols, cols] */
    const float *feedback; /* [cols, cols]: gptq */
    float *wh;             /* w h; for gptq, content undefined before and after */
    float *t;              /* -1, 0 or 1 */
    double *fit;           /* [rows, 2]: w h t', t h t' */
    uint16_t *scale;       /* fp16 [rows] */
    float *work;           /* [rows, P4_HESSIAN_BLOCK], content undefined before and after */
} p4_hessian_rows;
enum { P4_HESSIAN_BLOCK = 128 }; /* columns that are quantized between two products with the rest */

/* Of a matrix that a thread of a CPU should read at least: to wake it takes as long as that. */
enum { P4_THREAD_BYTES = 1 << 17 };

typedef struct p4_ops {
    const char *name;
    bool host_memory; /* device memory is host memory: views of mapped files may be used as weights */
    int64_t
        logits_chunk; /* elements of logits to compute at a time: what stays in the cache, or fills a GPU */
#define P4_OP(result, name, ...) result (*name)(__VA_ARGS__);
#include "kernels/op_list.h"
} p4_ops;

/* The table named "cpu" or "cuda"; NULL when this build has no such backend. */
const p4_ops *p4_ops_find(const char *name);

#endif
