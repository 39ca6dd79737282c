/* hessian.c - H = X'X of the inputs of a matrix, and its Cholesky factor. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { BLOCK = 128 }; /* of the factorization */

/* Adding and subtracting 1.5 * 2^52 quanta rounds to a multiple of one quantum. */
P4_MULTIVERSION static void add_rounded(double *sum, const float *addend, double shift, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        double shifted = (double)addend[i] + shift;
        sum[i] += shifted - shift;
    }
}

void p4_cpu_hessian_add(p4_device *device, const p4_hessian_add_args *a)
{
    int64_t C = a->C;
    p4_cpu_gemm(device, &(p4_gemm){.trans_a = true,
                                   .symmetric = true,
                                   .M = C,
                                   .N = C,
                                   .K = a->N,
                                   .alpha = 1.0f,
                                   .A = a->x,
                                   .lda = C,
                                   .B = a->x,
                                   .ldb = C,
                                   .C = a->work,
                                   .ldc = C});
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t row = 0; row < C; row++) {
        add_rounded(a->h + row * C, a->work + row * C, 0x1.8p52 * a->quantum, C);
    }
}

/* The mean of the elements that are not 0, `stride` elements apart; 0 if all are. */
static double mean_of_live(const float *diagonal, int64_t count, int64_t stride)
{
    double sum = 0.0;
    int64_t live = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)diagonal[i * stride];
        live += diagonal[i * stride] != 0.0f;
    }
    return live > 0 ? sum / (double)live : 0.0;
}

void p4_cpu_hessian_finish(p4_device *device, const p4_hessian_finish_args *a)
{
    int64_t C = a->C;
    for (int64_t i = 0; i < C; i++) {
        a->importance[i] = (float)(a->sums[i * C + i] * a->scale);
    }
    double damping = a->damping * mean_of_live(a->importance, C, 1);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t row = 0; row < C; row++) {
        float *h = a->h + row * C;
        for (int64_t c = 0; c < C; c++) {
            h[c] = (float)(a->sums[row * C + c] * a->scale);
        }
        h[row] = h[row] != 0.0f ? (float)((double)h[row] + damping) : 0.0f;
    }
}

/* --- the factor ------------------------------------------------------------------------------- */

/* work = h + damping, in double. */
static void load_damped(const p4_device *device, const p4_hessian_factor_args *a)
{
    int64_t C = a->C;
    double damping = a->damping * mean_of_live(a->h, C, C + 1);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t row = 0; row < C; row++) {
        for (int64_t c = row; c < C; c++) {
            a->work[row * C + c] = (double)a->h[row * C + c];
        }
        double *diagonal = &a->work[row * C + row];
        *diagonal = *diagonal != 0.0 ? *diagonal + damping : 1.0;
    }
}

/* The block [first, end) of the diagonal becomes R, upper triangular, with R R' = the block. False: a pivot
 * is not positive. */
static bool factor_block(double *A, int64_t ld, int64_t first, int64_t end)
{
    for (int64_t j = end - 1; j >= first; j--) {
        double pivot = A[j * ld + j];
        if (!(pivot > 0.0) || !isfinite(pivot)) {
            return false;
        }
        double root = sqrt(pivot);
        A[j * ld + j] = root;
        for (int64_t i = first; i < j; i++) {
            A[i * ld + j] /= root;
        }
        for (int64_t i = first; i < j; i++) {
            double factor = A[i * ld + j];
            for (int64_t k = i; k < j; k++) {
                A[i * ld + k] -= factor * A[k * ld + j];
            }
        }
    }
    return true;
}

/* A[row tile, column tile] -= X[row tile] X[column tile]' with X the columns [first, end). */
static void update_tile(const p4_device *device, double *A, int64_t ld, int64_t row, int64_t col,
                        int64_t first, int64_t end)
{
    int64_t rows = p4_min_i64(BLOCK, first - row), cols = p4_min_i64(BLOCK, first - col);
    device->dgemm(101, 111, 112, (int)rows, (int)cols, (int)(end - first), -1.0, A + row * ld + first,
                  (int)ld, A + col * ld + first, (int)ld, 1.0, A + row * ld + col, (int)ld);
}

/* The upper triangle of A becomes R with R R' = A: block columns from the last to the first. */
static bool factor(const p4_device *device, double *A, int64_t C)
{
    for (int64_t end = C, first; end > 0; end = first) {
        first = (end - 1) / BLOCK * BLOCK;
        if (!factor_block(A, C, first, end)) {
            return false;
        }
        int64_t tiles = first / BLOCK;
#pragma omp parallel for schedule(static) num_threads(device->threads)
        for (int64_t tile = 0; tile < tiles; tile++) {
            device->dtrsm(101, 142, 121, 112, 131, BLOCK, (int)(end - first), 1.0, A + first * C + first,
                          (int)C, A + tile * BLOCK * C + first, (int)C);
        }
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(device->threads)
        for (int64_t i = 0; i < tiles; i++) {
            for (int64_t j = 0; j < tiles; j++) {
                if (i <= j) {
                    update_tile(device, A, C, i * BLOCK, j * BLOCK, first, end);
                }
            }
        }
    }
    return true;
}

void p4_cpu_hessian_factor(p4_device *device, const p4_hessian_factor_args *a)
{
    int64_t C = a->C;
    double *R = a->work, *diagonal = R + (C - 1) * C; /* the last row of R has only its diagonal entry */
    load_damped(device, a);
    *a->h_definite = factor(device, R, C);
    if (!*a->h_definite) {
        return;
    }
    for (int64_t j = 0; j < C - 1; j++) {
        diagonal[j] = R[j * C + j];
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t row = 0; row < C; row++) {
        for (int64_t c = row + 1; c < C; c++) {
            a->feedback[row * C + c] = (float)(R[row * C + c] / diagonal[c]);
        }
    }
}
