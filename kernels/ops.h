/* ops.h - the table of operations a backend provides: one const p4_ops for "cpu", one for "cuda".
 *
 * Activations ("act") are arrays of the device's compute type: fp32 on the CPU; bf16 or fp32 on CUDA
 * (p4_device_open). Gradients of weights, statistics and losses are fp32; optimizer state is fp32 or bf16.
 * All pointers are device memory unless they are named h_ or the comment says host; p4_weight structs are
 * passed on the host and hold device pointers. On CUDA an op is queued on the device's stream and returns;
 * `sync` waits. (The first large product of a shape is timed there, and waits for what is queued.) Ops never
 * allocate: workspaces are arguments. Shapes are row-major. N = B * T tokens, C channels, H heads, D head
 * dimension, F MLP width, V vocabulary. The CPU column is the specification. Results do not depend on the
 * number of threads. Ops that can fail at run time (CUDA) record the error in the device; `sync` returns it.
 */
#ifndef P4_OPS_H
#define P4_OPS_H

#include "src/leaf/tensor.h"

typedef struct p4_device p4_device;

typedef enum p4_norm_kind { P4_RMSNORM, P4_LAYERNORM } p4_norm_kind;
typedef enum p4_quant_method { P4_QUANT_ABSMEAN, P4_QUANT_EXACT } p4_quant_method;

/* Self-attention on one fused buffer. qkv is [N, (H + 2*Hkv) * D]: query heads, key heads, value heads. */
typedef struct p4_attention_shape {
    int64_t B, T, H, Hkv, D;
    int64_t window; /* query i sees keys j with i - window < j <= i; 0: all j <= i */
    float scale;    /* usually 1/sqrt(D) */
} p4_attention_shape;

/* Running sums of an activation tensor's elements (calibration), one per projection. */
typedef struct p4_moments {
    double sum, sum_sq;
    double count;
    float min, max;
} p4_moments;

/* What quantize reports of a matrix: sums over all elements. */
typedef struct p4_quant_error {
    double sq_error; /* sum (w - t*scale)^2 */
    double sq_norm;  /* sum w^2 */
    int64_t zeros;   /* count of t == 0 */
    float scale_min, scale_max;
    int64_t nonfinite; /* NaN or infinite input elements; codes of such rows are unspecified */
} p4_quant_error;

/* A row of C int8 elements in memory: whole groups of 16 bytes. */
static inline int64_t p4_int8_width(int64_t C)
{
    return p4_ceil_div(C, 16) * 16;
}
enum { P4_INT8_PARTS = 3 }; /* q | k | v */

/* Activations x[N, C] rounded to int8 per token (METHODS 3): s = 127 / max(max|x|, 1e-5), codes =
 * clip(round(x s), -128, 127), and codes / s in activation type is what they stand for. A token with a value
 * that is not finite has s = 0, so that it stands for nothing finite; its codes may be anything.
 *
 * Ops that make such rows take `rounded`: NULL: their output y is written as it is. Otherwise y, as it would
 * have been written, is rounded: codes and s are kept, or both are NULL, and y becomes what the codes stand
 * for, or is NULL. */
typedef struct p4_int8_rows {
    int8_t *codes; /* [N, p4_int8_width(C)], zeros from C on; 16-byte aligned */
    float *s;      /* [N] */
} p4_int8_rows;

/* A device that this process may open. */
typedef struct p4_device_info {
    uint8_t id[16]; /* the same in every process of a node that sees this device */
    int32_t ordinal;
} p4_device_info;

/* What changes from one step of an optimizer to the next. It lies in device memory, so that the arguments of
 * the ops stay the same and the step can be repeated. An op reads what its comment names. */
typedef struct p4_step_numbers {
    float lr, g_scale;                /* gradients are multiplied by g_scale first */
    float m_correction, v_correction; /* AdamW: 1 / (1 - beta^step), step from 1 */
    uint64_t key;                     /* random bits of this step, for state in bf16 */
    int32_t first;                    /* Grokfast: not 0: the average starts with this gradient */
} p4_step_numbers;

/* Work that a device has been told to repeat: opaque, NULL at first. */
typedef struct p4_recording p4_recording;

/* One matrix of a Muon step and one array of an AdamW step: device memory, no two items overlap. */
typedef struct p4_muon_item {
    float *w; /* [rows, cols] */
    void *buf;
    const float *g;
    uint64_t index; /* of element 0 in the model: state.h */
} p4_muon_item;

typedef struct p4_adamw_item {
    float *w; /* [count] */
    void *m, *v;
    const float *g;
    int64_t count;
    uint64_t index; /* of element 0 in the model: state.h */
    float decay;
} p4_adamw_item;

typedef struct p4_ops {
    const char *name;
    bool host_memory; /* device memory is host memory: views of mapped files may be given as weights */
    int64_t
        logits_chunk; /* elements of logits to compute at a time: what stays in the cache, or fills a GPU */

    /* --- device ------------------------------------------------------------------------------- */
    /* The devices of this backend that this process sees and this build can use, in order, at most
     * `capacity`. An error that says why when there is none. */
    p4_rc (*list)(p4_device_info *devices, int capacity, int *count);
    /* Opens device `ordinal` with `threads` of the host (CUDA: they copy; 0 = all this process may use);
     * half_compute: bf16 activations (CUDA). The caller closes. */
    p4_rc (*open)(p4_device **device, int ordinal, int threads, bool half_compute);
    void (*close)(p4_device *device);
    const char *(*describe)(p4_device *device); /* "CPU, 2 threads, OpenBLAS SkylakeX": owned by the device */
    int64_t (*act_bytes)(p4_device *device);    /* bytes of one activation element: 4 or 2 */
    p4_rc (*alloc)(p4_device *device, void **memory,
                   int64_t bytes); /* 64-byte aligned; content undefined; once, at start */
    void (*release)(p4_device *device, void *memory);
    /* The most device memory held at once since open, bytes: what alloc gave, and the device's own scratch.
     */
    int64_t (*peak_bytes)(p4_device *device);
    /* The device's own memory less what alloc has given and not got back; 0 where it is the host's. Not what
     * happens to be free: the same run on the same kind of device gets the same answer. */
    int64_t (*room_bytes)(p4_device *device);
    /* h_from has been read when it returns. */
    void (*to_device)(p4_device *device, void *to, const void *h_from, int64_t bytes);
    void (*to_host)(p4_device *device, void *h_to, const void *from, int64_t bytes); /* returns when done */
    void (*copy)(p4_device *device, void *to, const void *from, int64_t bytes);
    void (*zero)(p4_device *device, void *memory, int64_t bytes);
    p4_rc (*sync)(p4_device *device);
    /* Does work(user), which calls ops of this device; the host does not depend on its running: with one
     * *recording, NULL before the first call, always the same ops with the same arguments. So a device may do
     * it once, record what it queues the second time, and from then on queue the record without calling
     * `work` (CUDA, as a graph). Ops that wait for the device cannot be recorded: such work is done anew
     * every time, which the log says once. */
    void (*repeat)(p4_device *device, p4_recording **recording, void (*work)(void *user), void *user);
    /* Waits for the device and drops the record: before the memory that it names is released. */
    void (*forget)(p4_device *device, p4_recording **recording);
    /* The queue itself, for what is ordered with it from outside (dist/coll.h): the CUDA stream; NULL on the
     * CPU. */
    void *(*stream)(p4_device *device);
    void (*act_to_f32)(p4_device *device, float *to, const void *act, int64_t count);
    void (*f32_to_act)(p4_device *device, void *act, const float *from, int64_t count);

    /* --- linear ------------------------------------------------------------------------------- */
    /* act dst[rows, cols] = the weight in any form (dequantised, transposed back). */
    void (*weight_unpack)(p4_device *device, void *dst, const p4_weight *weight);
    /* act y[N, out] = x[N, in] w^T (+ bias: fp32 [out] or NULL); w act [out, in]. */
    void (*linear_forward)(p4_device *device, void *y, const void *x, const void *w, const float *bias,
                           int64_t N, int64_t in, int64_t out);
    /* act dx[N, in] (= or += when accumulate) dy[N, out] w[out, in]. */
    void (*linear_backward_input)(p4_device *device, void *dx, const void *dy, const void *w, int64_t N,
                                  int64_t in, int64_t out, bool accumulate);
    /* fp32 dw[out, in] (= or +=) dy^T x; `ld_dy`: elements between rows of dy (>= out; a column slice of a
     * fused buffer). */
    void (*linear_backward_weight)(p4_device *device, float *dw, const void *dy, int64_t ld_dy, const void *x,
                                   int64_t N, int64_t in, int64_t out, bool accumulate);
    /* fp32 db[out] += sum over N of dy[N, out]. */
    void (*linear_backward_bias)(p4_device *device, float *db, const void *dy, int64_t N, int64_t out);
    /* linear_forward into `up` and gelu_forward of it into h, act [N, out] both. A device may apply GELU
     * before it rounds `up`. */
    void (*linear_gelu_forward)(p4_device *device, void *h, void *up, const void *x, const void *w,
                                const float *bias, int64_t N, int64_t in, int64_t out);
    /* The way back, through the linear layer behind the GELU: act dup[N, F] = (dy[N, out] w[out, F]) * slope
     * of gelu at up[N, F]; fp32 db[F] += the sums of dup's columns, before or after they are rounded (NULL:
     * skip). */
    void (*linear_gelu_backward)(p4_device *device, void *dup, float *db, const void *dy, const void *w,
                                 const void *up, int64_t N, int64_t F, int64_t out);
    /* linear_backward_input into dh, act [N, F], and swiglu_backward of it into dgate_up. A device may do
     * both at once: then dh is memory that it leaves alone. */
    void (*linear_swiglu_backward)(p4_device *device, void *dgate_up, void *dh, const void *dy, const void *w,
                                   const void *gate_up, int64_t N, int64_t F, int64_t out);
    /* x[N, C] rounded (not NULL): to codes, to y (act, or NULL), or to both. */
    void (*quantize_int8)(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t N,
                          int64_t C);
    /* act y[N, C] = what the codes of x stand for, the bits that an op with `rounded` writes to its y. */
    void (*dequantize_int8)(p4_device *device, void *y, const p4_int8_rows *x, int64_t N, int64_t C);
    /* act y[N, out] = x w^T (+ bias: fp32 [out] or NULL): x [N, in] what its codes stand for, w the ternary
     * `weights`, `parts` of them (1 to P4_INT8_PARTS), one below the other, out rows in all. A device that
     * multiplies integers sums exactly and gives y = ((float)sum * (1 / s)) * scale of the row (+ bias), in
     * fp32 and in this order, each step rounded. Memory to work in, 16-byte aligned, content undefined before
     * and after: x_work act [N, in], for a device that multiplies activations; w_work act
     * [out, p4_int8_width(in)]. */
    void (*linear_forward_int8)(p4_device *device, void *y, const p4_int8_rows *x, const p4_weight *weights,
                                int64_t parts, const float *bias, void *x_work, void *w_work, int64_t N,
                                int64_t in, int64_t out);

    /* --- layers ------------------------------------------------------------------------------- */
    /* act x[N, C] = token[id] (+ position[n mod T]); token [V, C] and position [P, C] (or NULL) in any float
     * form. */
    void (*embed_forward)(p4_device *device, void *x, const int32_t *ids, const p4_weight *token,
                          const p4_weight *position, int64_t B, int64_t T, int64_t C);
    /* fp32 dtoken[V, C] += , dposition[P, C] += (or NULL); the same bits on every run. */
    void (*embed_backward)(p4_device *device, float *dtoken, float *dposition, const int32_t *ids,
                           const void *dx, int64_t B, int64_t T, int64_t C, int64_t V);
    /* sum = x + delta (delta NULL: sum may be NULL, the norm reads x); y = norm(sum) * gain (+ bias). mean
     * (layer norm only, else NULL) and rstd: fp32 [N], or NULL when no backward follows. sum may alias x. */
    void (*add_norm_forward)(p4_device *device, p4_norm_kind kind, void *y, const p4_int8_rows *rounded,
                             void *sum, float *mean, float *rstd, const void *x, const void *delta,
                             const float *gain, const float *bias, int64_t N, int64_t C, float eps);
    /* dx[N, C] (= or += when accumulate) backward of norm at its input x (= the forward's sum); dx_sums fp32
     * [C] += the sums of the columns of what dx is then, before or after it is rounded; dgain, dbias fp32 [C]
     * += (each NULL: skip). */
    void (*norm_backward)(p4_device *device, p4_norm_kind kind, void *dx, bool accumulate, float *dx_sums,
                          float *dgain, float *dbias, const void *dy, const void *x, const float *mean,
                          const float *rstd, const float *gain, int64_t N, int64_t C);
    /* act out = a + b. */
    void (*add)(p4_device *device, void *out, const void *a, const void *b, int64_t count);
    /* Rotates the first `heads` heads of every row of qkv [N, row_width] in place, rotate-half pairs (i, i +
     * D/2), angle = (n mod T) * inv_freq[i]; tables cos/sin fp32 [T, D/2]; backward: the inverse rotation. */
    void (*rope)(p4_device *device, void *qkv, const float *cos_table, const float *sin_table, int64_t N,
                 int64_t T, int64_t heads, int64_t D, int64_t row_width, bool backward);
    /* act out[N, H*D]; lse fp32 [B, H, T]: log-sum-exp of the scaled scores (NULL when no backward follows).
     * `work`: fp32, attention_work_count elements. */
    void (*attention_forward)(p4_device *device, void *out, float *lse, const void *qkv,
                              const p4_attention_shape *shape, float *work);
    void (*attention_backward)(p4_device *device, void *dqkv, const void *dout, const void *out,
                               const float *lse, const void *qkv, const p4_attention_shape *shape,
                               float *work);
    /* Elements of `work`; -1 when no kernel here takes the shape (heads that are too large). */
    int64_t (*attention_work_count)(p4_device *device, const p4_attention_shape *shape, bool backward);
    /* gate_up [N, 2F] = gate | up; act y[N, F] = silu(gate) * up. */
    void (*swiglu_forward)(p4_device *device, void *y, const p4_int8_rows *rounded, const void *gate_up,
                           int64_t N, int64_t F);
    void (*swiglu_backward)(p4_device *device, void *dgate_up, const void *dh, const void *gate_up, int64_t N,
                            int64_t F);
    /* act y[N, F] by the tanh approximation (gelu_new). */
    void (*gelu_forward)(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t N,
                         int64_t F);

    /* --- losses ------------------------------------------------------------------------------- */
    /* logits act [N, ld], of which the first V columns count -> nll fp32 [N] (0 where target < 0); hit fp32
     * [N]: 1 when the largest logit (first on ties) is the target, or NULL; dlogits [N, ld] (may alias
     * logits, or NULL) = (softmax - onehot) * scale, zero in rows where target < 0 and in the columns from V
     * on. */
    void (*cross_entropy)(p4_device *device, float *nll, float *hit, void *dlogits, const void *logits,
                          const int32_t *targets, int64_t N, int64_t V, int64_t ld, float scale);
    /* kl fp32 [N] = KL(softmax(reference) || softmax(logits)) over the first V of ld columns, 0 where target
     * < 0. */
    void (*kl_divergence)(p4_device *device, float *kl, const void *reference, const void *logits,
                          const int32_t *targets, int64_t N, int64_t V, int64_t ld);

    /* --- calibration -------------------------------------------------------------------------- */
    /* double sum_sq[C] += sum over N of x[N, C]^2. */
    void (*channel_sum_sq)(p4_device *device, double *sum_sq, const void *x, int64_t N, int64_t C);
    /* Adds a column slice [N, width] (ld elements between rows) to *moments (device memory). Start from
     * {0, 0, 0, +FLT_MAX, -FLT_MAX}. */
    void (*moments)(p4_device *device, p4_moments *moments, const void *x, int64_t N, int64_t width,
                    int64_t ld);

    /* --- ternary ------------------------------------------------------------------------------ */
    /* Quantizes a weight (F32, F16, BF16; rows x cols, transposed or not) row by row: codes [rows, row_bytes]
     * with padding codes 1 (t = 0), scale fp16 [rows]. t = sign(w) where |w| >= cut, so equal magnitudes
     * share a side. absmean: cut = threshold * scale in fp32, scale = max(mean |w|, 1e-8) (mean summed in
     * double), stored as fp16. exact: the cut with the largest S^2 / P (METHODS 1; h = importance, fp32
     * [cols], >= 0, or NULL for 1), of equal ones the smallest set; scale = S / P. A row of zeros, or one
     * whose weights have no importance, gets t = 0 and the scale 0 (absmean stores 1e-8, which is 0 in fp16).
     * A scale beyond fp16 is stored as infinity and shows in scale_max. The error is measured with the stored
     * scale; h_error is host memory, or NULL (faster). The CPU keeps scratch memory in the device that grows
     * with cols; out of memory is reported by sync. */
    void (*quantize)(p4_device *device, uint8_t *codes, uint16_t *scale, p4_quant_error *h_error,
                     const p4_weight *weight, p4_quant_method method, float threshold,
                     const float *importance);
    /* 2-bit codes [rows, (cols + 3) / 4] -> base 3, five trits u = t + 1 a byte, [rows, (cols + 4) / 5]: byte
     * = sum of u_k 3^(4-k), k = 0 first; the missing trits of a row's last byte are u = 1 (t = 0). And back;
     * the reader of foreign bytes has refused those above 242. */
    void (*pack_base3)(p4_device *device, uint8_t *packed, const uint8_t *codes, int64_t rows, int64_t cols);
    void (*unpack_base3)(p4_device *device, uint8_t *codes, const uint8_t *packed, int64_t rows,
                         int64_t cols);

    /* --- optimizer ------------------------------------------------------------------------------------
     * State (void *) is kept in fp32, or, `half`, in bf16 rounded at random with numbers->key, as state.h
     * describes: an op computes with fp32 and rounds what it stores, nothing else. */
    /* *sum (device) += sum of squares of g, in double. */
    void (*add_sq_norm)(p4_device *device, double *sum, const float *g, int64_t count);
    void (*scale)(p4_device *device, float *x, float factor, int64_t count);
    /* *sum (device) += x[0] + x[1] + ..., in double. */
    void (*add_sum)(p4_device *device, double *sum, const float *x, int64_t count);
    /* fp32 sum += addend. */
    void (*add_f32)(p4_device *device, float *sum, const float *addend, int64_t count);
    /* Grokfast: ema = first ? g : alpha*ema + (1-alpha)*g; g += lambda*ema. In bf16 the low half of an
     * element's draw rounds ema; index: of element 0 in the model. Reads first, key. */
    void (*grokfast)(p4_device *device, float *g, void *ema, float alpha, float lambda, int64_t count,
                     bool half, uint64_t index, const p4_step_numbers *numbers);
    /* AdamW on `items` arrays (h_items: host, free again on return), g pre-multiplied by g_scale: m, v
     * updated, mhat = m*m_correction, vhat = v*v_correction; w -= lr*(mhat/(sqrt(vhat)+eps) + decay*w). In
     * bf16 the low half of an element's draw rounds m, the high half v. Reads all but first. */
    void (*adamw)(p4_device *device, const p4_adamw_item *h_items, int64_t items, float beta1, float beta2,
                  float eps, bool half, const p4_step_numbers *numbers);
    /* Muon (METHODS 4) on `items` matrices [rows, cols] (h_items: host, free again on return), reads lr,
     * g_scale, key: g pre-multiplied by g_scale; buf = momentum*buf + g; u = g + momentum*buf; X = u / (|u| +
     * 1e-7), 5 steps of Newton-Schulz; w -= lr * (0.2*sqrt(max(rows, cols)) * X + decay*w). On CUDA the
     * squares of u must lie in fp32's range. In bf16 the low half of an element's draw rounds buf. work:
     * fp32, 64-byte aligned, muon_work_count elements of these items, rows, cols. */
    void (*muon)(p4_device *device, const p4_muon_item *h_items, int64_t items, int64_t rows, int64_t cols,
                 float momentum, float decay, float *work, bool half, const p4_step_numbers *numbers);
    /* At most 1 GiB, or what one matrix takes (CUDA: X and its successor, 2 m^2, m the shorter side, in the
     * compute type; CPU: the same of one matrix in fp32). */
    int64_t (*muon_work_count)(p4_device *device, int64_t items, int64_t rows, int64_t cols);
    /* fp32 -> fp16 bits and back, in place: the value that will be stored. */
    void (*round_to_f16)(p4_device *device, float *x, int64_t count);
} p4_ops;

/* The table named "cpu" or "cuda"; NULL when this build has no such backend. */
const p4_ops *p4_ops_find(const char *name);

#endif
