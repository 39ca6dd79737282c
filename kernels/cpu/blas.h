/* blas.h - OpenBLAS, loaded at run time. */
#ifndef P4_CPU_BLAS_H
#define P4_CPU_BLAS_H

#include "src/leaf/base.h"

/* cblas_sgemm: order 101 is row-major; 111 not transposed, 112 transposed. */
typedef void (*p4_sgemm_fn)(int order, int trans_a, int trans_b, int M, int N, int K, float alpha,
                            const float *A, int lda, const float *B, int ldb, float beta, float *C, int ldc);

typedef void (*p4_dgemm_fn)(int order, int trans_a, int trans_b, int M, int N, int K, double alpha,
                            const double *A, int lda, const double *B, int ldb, double beta, double *C,
                            int ldc);
/* cblas_dtrsm: side 142 is right; uplo 121 is upper; diag 131 is not unit. */
typedef void (*p4_dtrsm_fn)(int order, int side, int uplo, int trans_a, int diag, int M, int N, double alpha,
                            const double *A, int lda, double *B, int ldb);

typedef struct p4_cpu_blas {
    p4_sgemm_fn sgemm;
    p4_dgemm_fn dgemm;
    p4_dtrsm_fn dtrsm;
    char core[32];    /* the CPU whose code it runs: "SkylakeX" */
    char version[64]; /* "OpenBLAS 0.3.21" */
} p4_cpu_blas;

/* Loads OpenBLAS the first time; it stays loaded. *blas lives as long as the process. Any thread may call.
 * P4_E_SYSTEM: it is not there, or a limit leaves no address space for its buffers of `threads` threads.
 * Local. */
p4_rc p4_cpu_blas_open(const p4_cpu_blas **blas, int threads);

#endif
