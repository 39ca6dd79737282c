/* cpu.h - inside the CPU column of ops.h: the device, the matrix product, the helpers that ops share, and
 * the ops themselves: p4_cpu_NAME for every NAME of kernels/op_list.h.
 *
 * Results do not depend on the number of threads: the shape alone decides how work is cut into pieces, each
 * output element is computed by one piece, and sums over pieces are added in their order. */
#ifndef P4_CPU_H
#define P4_CPU_H

#include <omp.h>
#include <string.h>

#include "kernels/cpu/blas.h"
#include "kernels/ledger.h"
#include "kernels/ops.h"
#include "kernels/state.h"

#if defined(__clang__) /* does not vectorise "omp simd" loops of instrumented builds, and warns of each */
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

/* A function of plain loops that is compiled for baseline x86-64, AVX2 and AVX-512; the loader chooses.
 * OpenMP regions stay outside of such functions: their bodies would be compiled for the baseline only. */
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

struct p4_device {
    int threads;
    p4_sgemm_fn sgemm;
    p4_dgemm_fn dgemm;
    p4_dtrsm_fn dtrsm;
    char description[128];
    const char *blas_version, *blas_core; /* the process's */
    void *scratch;                        /* slices of threads, owned: p4_cpu_scratch */
    int64_t scratch_bytes;
    p4_ledger ledger;  /* of what alloc gave */
    char failure[128]; /* the first run-time failure, returned by sync; "" when there is none */
};

/* `bytes` of working memory for each thread, one slice after another (slice t starts at t * bytes; bytes is a
 * multiple of 64). It grows when a shape needs more than any before. NULL: out of memory, which is recorded.
 * team: for a team of so many threads. kernels/cpu/device.c. */
void *p4_cpu_scratch(p4_device *device, int64_t bytes);
void *p4_cpu_team_scratch(p4_device *device, int64_t bytes, int threads);

/* Threads for so many short pieces of work: all, or the calling one alone where more than half of them would
 * wait for nothing. Never some of them: libgomp ends the others, and the next larger team starts them anew.
 */
static inline int p4_cpu_team(const p4_device *device, int64_t pieces)
{
    return 2 * pieces > device->threads ? device->threads : 1;
}

/* One product on the calling thread, row-major: C[M, N] = alpha op(A) op(B) + beta C. */
static inline void p4_cpu_sgemm(const p4_device *device, bool trans_a, bool trans_b, int64_t M, int64_t N,
                                int64_t K, float alpha, const float *A, int64_t lda, const float *B,
                                int64_t ldb, float beta, float *C, int64_t ldc)
{
    device->sgemm(101, trans_a ? 112 : 111, trans_b ? 112 : 111, (int)M, (int)N, (int)K, alpha, A, (int)lda,
                  B, (int)ldb, beta, C, (int)ldc);
}

/* A product on all threads, row-major: C[M, N] = alpha op(A) op(B) + beta C, or with a bias alpha op(A) op(B)
 * + bias[N] on every row. */
typedef struct p4_gemm {
    bool trans_a, trans_b;
    bool symmetric; /* C is symmetric: blocks below the diagonal are copied, not computed (beta 0) */
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

/* Rounds rows to int8 for the ops that take `rounded` (kernels/cpu/int8.c). */
/* Row n of `rounded` from x[C]; the values that its codes stand for go to y[C], which may be x or NULL. */
void p4_cpu_round_row(const p4_int8_rows *rounded, int64_t n, float *y, const float *x, int64_t C);
/* Memory for a row a thread, for outputs that are only rounded: *stride floats from thread to thread. NULL:
 * out of memory, which is recorded. */
float *p4_cpu_round_rows(p4_device *device, int64_t C, int64_t *stride);

/* linear_forward_int8 on integers (kernels/cpu/linear_direct.c). False: nothing was done, for the shape or
 * the machine is none for which that is faster. */
bool p4_cpu_linear_int8_direct(p4_device *device, const p4_linear_forward_int8_args *args);

/* Logits through a map (kernels/cpu/logit_map.c). is_mapped: whether the map changes anything. z may be x. */
bool p4_cpu_is_mapped(p4_logit_map map);
void p4_cpu_map_row(float *z, const float *x, p4_logit_map map, int64_t V);
/* d, gradients at mapped logits z, become gradients at the logits. */
void p4_cpu_map_gradient(float *d, const float *z, p4_logit_map map, int64_t V);
/* `rows` mapped rows of V a thread, the first at offset thread * *stride. NULL: out of memory, which is
 * recorded. */
float *p4_cpu_map_rows(p4_device *device, int64_t rows, int64_t V, int64_t *stride);

/* bf16 state <-> fp32 (kernels/cpu/optim.c). index: the position in the model of element 0; shift: of the 16
 * bits of a draw that round it. */
enum { P4_STATE_PIECE = 4096 }; /* elements of state that are widened at a time, on the stack */
void p4_cpu_state_load(float *to, const uint16_t *from, int64_t count);
void p4_cpu_state_store(uint16_t *to, const float *from, uint64_t key, uint64_t index, int shift,
                        int64_t count);

/* kernels/cpu/column.c */
extern const p4_ops p4_cpu_ops;

#define P4_OP(result, name, ...) result p4_cpu_##name(__VA_ARGS__);
#include "kernels/op_list.h"

#endif
