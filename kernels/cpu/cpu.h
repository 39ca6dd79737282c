/* cpu.h - inside the CPU column of ops.h: the device, the matrix product every op shares, and the ops
 * themselves.
 *
 * Results do not depend on the number of threads: work is cut into pieces by shape alone, each output element
 * is computed by one piece, and sums over pieces are taken in their order. */
#ifndef P4_CPU_H
#define P4_CPU_H

#include <omp.h>
#include <string.h>

#include "kernels/ledger.h"
#include "kernels/ops.h"
#include "kernels/state.h"

#if defined(__clang__) /* instrumented builds do not vectorise "omp simd" loops and clang would warn of each \
                        */
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

/* A function of plain loops compiled for baseline x86-64, AVX2 and AVX-512, chosen when the program is
 * loaded. OpenMP regions stay outside of it: their bodies would be compiled for the baseline only. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define P4_MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define P4_MULTIVERSION
#endif
/* Helpers of such functions must be inlined to be compiled for the same machine. */
#define P4_INLINE static inline __attribute__((always_inline))

/* An fp32 element at any address (weights may lie unaligned in a mapped file). */
typedef float p4_loose_f32 __attribute__((aligned(1), may_alias));
typedef uint16_t p4_loose_u16 __attribute__((aligned(1), may_alias));

/* cblas_sgemm of OpenBLAS: row-major 101, not transposed 111, transposed 112. */
typedef void (*p4_sgemm_fn)(int order, int trans_a, int trans_b, int M, int N, int K, float alpha,
                            const float *A, int lda, const float *B, int ldb, float beta, float *C, int ldc);

struct p4_device {
    int threads;
    p4_sgemm_fn sgemm;
    char description[128];
    void *scratch; /* threads slices, owned: p4_cpu_scratch */
    int64_t scratch_bytes;
    p4_ledger ledger;  /* of what alloc gave */
    char failure[128]; /* the first run-time failure, returned by sync; "" when there is none */
};

/* `bytes` of working memory for each thread, one slice after another (slice t starts at t * bytes; bytes is a
 * multiple of 64). It grows when a shape needs more than any before; NULL when memory is out, which sync then
 * returns. */
void *p4_cpu_scratch(p4_device *device, int64_t bytes);

/* One product on the calling thread, row-major: C[M, N] = alpha op(A) op(B) + beta C. */
static inline void p4_cpu_sgemm(const p4_device *device, bool trans_a, bool trans_b, int64_t M, int64_t N,
                                int64_t K, float alpha, const float *A, int64_t lda, const float *B,
                                int64_t ldb, float beta, float *C, int64_t ldc)
{
    device->sgemm(101, trans_a ? 112 : 111, trans_b ? 112 : 111, (int)M, (int)N, (int)K, alpha, A, (int)lda,
                  B, (int)ldb, beta, C, (int)ldc);
}

/* The operands of a product over all threads, row-major: C[M, N] = alpha op(A) op(B) + beta C (+ bias[N] on
 * every row, which then takes the place of beta C). */
typedef struct p4_gemm {
    bool trans_a, trans_b;
    bool symmetric; /* C is known to be symmetric: the blocks below the diagonal are copied, not computed
                       (beta 0) */
    int64_t M, N, K;
    float alpha, beta;
    const float *A, *B, *bias;
    float *C;
    int64_t lda, ldb, ldc;
} p4_gemm;
void p4_cpu_gemm(const p4_device *device, const p4_gemm *gemm);

/* Elements [first, first + count) of row `row` of any weight -> floats (dequantised when ternary). */
void p4_cpu_weight_row(float *to, const p4_weight *weight, int64_t row, int64_t first, int64_t count);
/* count F16 or BF16 elements -> float. */
void p4_cpu_half_to_f32(float *to, const void *from, p4_dtype dtype, int64_t count);

/* The exact least-squares ternary set of one row (kernels/cpu/ternary_exact.c). */
typedef struct p4_exact_set {
    float cut;   /* t = sign(w) where |w| >= cut; infinite when nothing is chosen */
    float scale; /* least-squares scale of that set, 0 when nothing is chosen */
} p4_exact_set;
int64_t p4_cpu_exact_work_bytes(int64_t cols);
p4_exact_set p4_cpu_exact_row(const p4_loose_f32 *w, const float *importance, int64_t cols, void *work);

/* kernels/cpu/device.c */
extern const p4_ops p4_cpu_ops;

/* kernels/cpu/linear.c */
void p4_cpu_weight_unpack(p4_device *device, void *dst, const p4_weight *weight);
void p4_cpu_linear_forward(p4_device *device, void *y, const void *x, const void *w, const float *bias,
                           int64_t N, int64_t in, int64_t out);
void p4_cpu_linear_backward_input(p4_device *device, void *dx, const void *dy, const void *w, int64_t N,
                                  int64_t in, int64_t out, bool accumulate);
void p4_cpu_linear_backward_weight(p4_device *device, float *dw, const void *dy, int64_t ld_dy, const void *x,
                                   int64_t N, int64_t in, int64_t out, bool accumulate);
void p4_cpu_linear_backward_bias(p4_device *device, float *db, const void *dy, int64_t N, int64_t out);

/* kernels/cpu/int8.c */
/* Row n of `rounded` from x[C], and what it stands for into y[C] (may be x, or NULL). */
void p4_cpu_round_row(const p4_int8_rows *rounded, int64_t n, float *y, const float *x, int64_t C);
/* Where each thread puts a row that is only rounded: *stride floats from thread to thread. NULL: out of
 * memory, which is recorded. */
float *p4_cpu_round_rows(p4_device *device, int64_t C, int64_t *stride);
void p4_cpu_quantize_int8(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t N,
                          int64_t C);
void p4_cpu_dequantize_int8(p4_device *device, void *y, const p4_int8_rows *x, int64_t N, int64_t C);
void p4_cpu_linear_forward_int8(p4_device *device, void *y, const p4_int8_rows *x, const p4_weight *weights,
                                int64_t parts, const float *bias, void *x_work, void *w_work, int64_t N,
                                int64_t in, int64_t out);

/* kernels/cpu/embed.c */
void p4_cpu_embed_forward(p4_device *device, void *x, const int32_t *ids, const p4_weight *token,
                          const p4_weight *position, int64_t B, int64_t T, int64_t C);
void p4_cpu_embed_backward(p4_device *device, float *dtoken, float *dposition, const int32_t *ids,
                           const void *dx, int64_t B, int64_t T, int64_t C, int64_t V);
void p4_cpu_rope(p4_device *device, void *qkv, const float *cos_table, const float *sin_table, int64_t N,
                 int64_t T, int64_t heads, int64_t D, int64_t row_width, bool backward);

/* kernels/cpu/norm.c */
void p4_cpu_add_norm_forward(p4_device *device, p4_norm_kind kind, void *y, const p4_int8_rows *rounded,
                             void *sum, float *mean, float *rstd, const void *x, const void *delta,
                             const float *gain, const float *bias, int64_t N, int64_t C, float eps);
void p4_cpu_norm_backward(p4_device *device, p4_norm_kind kind, void *dx, bool accumulate, float *dx_sums,
                          float *dgain, float *dbias, const void *dy, const void *x, const float *mean,
                          const float *rstd, const float *gain, int64_t N, int64_t C);

/* kernels/cpu/mlp.c */
void p4_cpu_add(p4_device *device, void *out, const void *a, const void *b, int64_t count);
void p4_cpu_swiglu_forward(p4_device *device, void *y, const p4_int8_rows *rounded, const void *gate_up,
                           int64_t N, int64_t F);
void p4_cpu_swiglu_backward(p4_device *device, void *dgate_up, const void *dh, const void *gate_up, int64_t N,
                            int64_t F);
void p4_cpu_gelu_forward(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t N,
                         int64_t F);
void p4_cpu_linear_gelu_forward(p4_device *device, void *h, void *up, const void *x, const void *w,
                                const float *bias, int64_t N, int64_t in, int64_t out);
void p4_cpu_linear_gelu_backward(p4_device *device, void *dup, float *db, const void *dy, const void *w,
                                 const void *up, int64_t N, int64_t F, int64_t out);
void p4_cpu_linear_swiglu_backward(p4_device *device, void *dgate_up, void *dh, const void *dy, const void *w,
                                   const void *gate_up, int64_t N, int64_t F, int64_t out);

/* kernels/cpu/attention.c */
void p4_cpu_attention_forward(p4_device *device, void *out, float *lse, const void *qkv,
                              const p4_attention_shape *shape, float *work);
void p4_cpu_attention_backward(p4_device *device, void *dqkv, const void *dout, const void *out,
                               const float *lse, const void *qkv, const p4_attention_shape *shape,
                               float *work);
int64_t p4_cpu_attention_work_count(p4_device *device, const p4_attention_shape *shape, bool backward);

/* kernels/cpu/loss.c */
void p4_cpu_cross_entropy(p4_device *device, float *nll, float *hit, void *dlogits, const void *logits,
                          const int32_t *targets, int64_t N, int64_t V, int64_t ld, float scale);
void p4_cpu_kl_divergence(p4_device *device, float *kl, const void *reference, const void *logits,
                          const int32_t *targets, int64_t N, int64_t V, int64_t ld);

/* kernels/cpu/calib.c */
void p4_cpu_channel_sum_sq(p4_device *device, double *sum_sq, const void *x, int64_t N, int64_t C);
void p4_cpu_moments(p4_device *device, p4_moments *moments, const void *x, int64_t N, int64_t width,
                    int64_t ld);

/* kernels/cpu/ternary.c, kernels/cpu/pack.c */
void p4_cpu_quantize(p4_device *device, uint8_t *codes, uint16_t *scale, p4_quant_error *h_error,
                     const p4_weight *weight, p4_quant_method method, float threshold,
                     const float *importance);
void p4_cpu_pack_base3(p4_device *device, uint8_t *packed, const uint8_t *codes, int64_t rows, int64_t cols);
void p4_cpu_unpack_base3(p4_device *device, uint8_t *codes, const uint8_t *packed, int64_t rows,
                         int64_t cols);

/* kernels/cpu/optim.c, kernels/cpu/muon.c */
enum { P4_STATE_PIECE = 4096 }; /* elements of state widened at once, on the stack */
/* bf16 state <-> fp32; index: of element 0; shift: of the 16 bits of a draw that round it. */
void p4_cpu_state_load(float *to, const uint16_t *from, int64_t count);
void p4_cpu_state_store(uint16_t *to, const float *from, uint64_t key, uint64_t index, int shift,
                        int64_t count);
void p4_cpu_add_sq_norm(p4_device *device, double *sum, const float *g, int64_t count);
void p4_cpu_add_sum(p4_device *device, double *sum, const float *x, int64_t count);
void p4_cpu_scale(p4_device *device, float *x, float factor, int64_t count);
void p4_cpu_add_f32(p4_device *device, float *sum, const float *addend, int64_t count);
void p4_cpu_grokfast(p4_device *device, float *g, void *ema, float alpha, float lambda, int64_t count,
                     bool half, uint64_t index, const p4_step_numbers *numbers);
void p4_cpu_adamw(p4_device *device, const p4_adamw_item *h_items, int64_t items, float beta1, float beta2,
                  float eps, bool half, const p4_step_numbers *numbers);
void p4_cpu_muon(p4_device *device, const p4_muon_item *h_items, int64_t items, int64_t rows, int64_t cols,
                 float momentum, float decay, float *work, bool half, const p4_step_numbers *numbers);
int64_t p4_cpu_muon_work_count(p4_device *device, int64_t items, int64_t rows, int64_t cols);
void p4_cpu_round_to_f16(p4_device *device, float *x, int64_t count);

#endif
