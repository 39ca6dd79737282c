/* gemm.c - a matrix product over all threads, in blocks of the output that depend on the shape alone.
 * Each block is one single-threaded sgemm over the whole inner dimension, so the bits do not depend on the
 * number of threads. */
#include "kernels/cpu/cpu.h"

/* Blocks of 256 to 512 reach OpenBLAS's full speed. Smaller ones lose time to packing (128: 10 %, 64: 25
 * %), and are used only where there would otherwise be hardly any blocks. */
enum { BLOCK_MAX = 512, BLOCK_FAST = 256, BLOCK_MIN = 64, BLOCKS_WANTED = 64, BLOCKS_MIN = 8 };

typedef struct blocking {
    int64_t rows, cols; /* of one block */
    int64_t row_blocks, col_blocks;
} blocking;

/* Halves the longer side until there are `wanted` blocks or both sides are down to `least`. */
static void split_blocks(blocking *b, const p4_gemm *gemm, int64_t wanted, int64_t least)
{
    for (;;) {
        int64_t *longer = b->rows >= b->cols ? &b->rows : &b->cols;
        b->row_blocks = p4_ceil_div(gemm->M, b->rows);
        b->col_blocks = p4_ceil_div(gemm->N, b->cols);
        if (b->row_blocks * b->col_blocks >= wanted || *longer <= least) {
            return;
        }
        *longer = p4_max_i64(least, p4_ceil_div(*longer, 32) * 16);
    }
}

static blocking choose_blocks(const p4_gemm *gemm)
{
    blocking b = {.rows = p4_min_i64(gemm->M, BLOCK_MAX), .cols = p4_min_i64(gemm->N, BLOCK_MAX)};
    if (gemm->symmetric) { /* square blocks, so that the mirror image of a block is a block; ten of sixteen
                              are computed */
        b.rows = p4_min_i64(p4_max_i64(p4_ceil_div(gemm->M, 64) * 16, BLOCK_MIN), BLOCK_FAST);
        b.cols = b.rows;
        b.row_blocks = b.col_blocks = p4_ceil_div(gemm->M, b.rows);
        return b;
    }
    split_blocks(&b, gemm, BLOCKS_WANTED, BLOCK_FAST);
    split_blocks(&b, gemm, BLOCKS_MIN, BLOCK_MIN);
    return b;
}

static void mirror_block(const p4_gemm *gemm, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    for (int64_t c = 0; c < cols; c++) {
        float *to = gemm->C + (col + c) * gemm->ldc + row;
        const float *from = gemm->C + row * gemm->ldc + col + c;
        for (int64_t r = 0; r < rows; r++) {
            to[r] = from[r * gemm->ldc];
        }
    }
}

static void compute_block(const p4_device *device, const p4_gemm *gemm, int64_t row, int64_t rows,
                          int64_t col, int64_t cols)
{
    const float *A = gemm->A + (gemm->trans_a ? row : row * gemm->lda);
    const float *B = gemm->B + (gemm->trans_b ? col * gemm->ldb : col);
    float *C = gemm->C + row * gemm->ldc + col;
    float beta = gemm->beta;
    if (gemm->bias) {
        for (int64_t r = 0; r < rows; r++) {
            memcpy(C + r * gemm->ldc, gemm->bias + col, (size_t)cols * sizeof *C);
        }
        beta = 1.0f;
    }
    p4_cpu_sgemm(device, gemm->trans_a, gemm->trans_b, rows, cols, gemm->K, gemm->alpha, A, gemm->lda, B,
                 gemm->ldb, beta, C, gemm->ldc);
    if (gemm->symmetric && row != col) {
        mirror_block(gemm, row, rows, col, cols);
    }
}

void p4_cpu_gemm(const p4_device *device, const p4_gemm *gemm)
{
    if (gemm->M <= 0 || gemm->N <= 0) {
        return;
    }
    blocking b = choose_blocks(gemm);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(device->threads)
    for (int64_t i = 0; i < b.row_blocks; i++) {
        for (int64_t j = 0; j < b.col_blocks; j++) {
            int64_t row = i * b.rows, col = j * b.cols;
            if (!gemm->symmetric || j >= i) {
                compute_block(device, gemm, row, p4_min_i64(b.rows, gemm->M - row), col,
                              p4_min_i64(b.cols, gemm->N - col));
            }
        }
    }
}
