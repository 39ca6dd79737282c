/* muon.c - one Muon step (docs/methods.md 4): momentum, orthogonalisation by Newton-Schulz, update. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { PIECE = 8192, TILE = 32, STEPS = 5 };
static const float ns_a = 3.4445f, ns_b = -4.7750f, ns_c = 2.0315f;

/* work: X and its successor [m, n], A and bA + cA^2 [m, m], with m <= n, of one matrix after the other. */
int64_t p4_cpu_muon_work_count(p4_device *device, int64_t items, int64_t rows, int64_t cols)
{
    (void)device;
    (void)items;
    int64_t m = p4_min_i64(rows, cols);
    return 2 * rows * cols + 2 * m * m;
}

/* buf = momentum buf + g; x = g + momentum buf. */
P4_MULTIVERSION static void momentum_piece(float *restrict x, float *restrict buf, const float *restrict g,
                                           float g_scale, float momentum, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        float gradient = g[i] * g_scale;
        float next = momentum * buf[i] + gradient;
        buf[i] = next;
        x[i] = gradient + momentum * next;
    }
}

/* w -= lr (factor x + decay w) */
P4_MULTIVERSION static void update_piece(float *restrict w, const float *restrict x, float lr, float factor,
                                         float decay, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        w[i] -= lr * (factor * x[i] + decay * w[i]);
    }
}

/* a2 = b a + c a2 */
P4_MULTIVERSION static void combine_piece(float *restrict a2, const float *restrict a, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        a2[i] = ns_b * a[i] + ns_c * a2[i];
    }
}

/* to[cols, rows] = from[rows, cols]^T */
static void transpose(const p4_device *device, float *to, const float *from, int64_t rows, int64_t cols)
{
#pragma omp parallel for collapse(2) schedule(static) num_threads(device->threads)
    for (int64_t row = 0; row < rows; row += TILE) {
        for (int64_t col = 0; col < cols; col += TILE) {
            int64_t row_end = p4_min_i64(row + TILE, rows), col_end = p4_min_i64(col + TILE, cols);
            for (int64_t c = col; c < col_end; c++) {
                for (int64_t r = row; r < row_end; r++) {
                    to[c * rows + r] = from[r * cols + c];
                }
            }
        }
    }
}

/* One step X -> aX + (bA + cA^2) X, A = X X^T. x and next are [m, n]. */
static void newton_schulz_step(const p4_device *device, float *next, const float *x, float *A, float *A2,
                               int64_t m, int64_t n)
{
    p4_cpu_gemm(device, &(p4_gemm){.symmetric = true,
                                   .trans_b = true,
                                   .M = m,
                                   .N = m,
                                   .K = n,
                                   .alpha = 1.0f,
                                   .A = x,
                                   .lda = n,
                                   .B = x,
                                   .ldb = n,
                                   .C = A,
                                   .ldc = m});
    p4_cpu_gemm(device, &(p4_gemm){.symmetric = true,
                                   .trans_b = true,
                                   .M = m,
                                   .N = m,
                                   .K = m,
                                   .alpha = 1.0f,
                                   .A = A,
                                   .lda = m,
                                   .B = A,
                                   .ldb = m,
                                   .C = A2,
                                   .ldc = m});
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < m * m; i += PIECE) {
        combine_piece(A2 + i, A + i, p4_min_i64(PIECE, m * m - i));
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < m * n; i += PIECE) {
        memcpy(next + i, x + i, (size_t)p4_min_i64(PIECE, m * n - i) * sizeof *x);
    }
    p4_cpu_gemm(device, &(p4_gemm){.M = m,
                                   .N = n,
                                   .K = m,
                                   .alpha = 1.0f,
                                   .beta = ns_a,
                                   .A = A2,
                                   .lda = m,
                                   .B = x,
                                   .ldb = n,
                                   .C = next,
                                   .ldc = n});
}

P4_MULTIVERSION static void scale_piece(float *x, float factor, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] *= factor;
    }
}

/* x /= |x| + 1e-7 */
static void normalize(p4_device *device, float *x, int64_t count)
{
    double norm_sq = 0.0;
    p4_cpu_add_sq_norm(device, &norm_sq, x, count);
    float factor = (float)(1.0 / (sqrt(norm_sq) + 1e-7));
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += PIECE) {
        scale_piece(x + i, factor, p4_min_i64(PIECE, count - i));
    }
}

/* u and the momentum of the whole matrix. */
static void momentum_all(const p4_device *device, float *u, const p4_muon_item *item, const p4_muon_args *a)
{
    const p4_step_numbers *numbers = a->numbers;
    int64_t count = a->rows * a->cols;
    float g_scale = numbers->g_scale, momentum = a->momentum;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += P4_STATE_PIECE) {
        int64_t here = p4_min_i64(P4_STATE_PIECE, count - i);
        if (a->half) {
            float buf[P4_STATE_PIECE];
            uint16_t *stored = (uint16_t *)item->buf + i;
            p4_cpu_state_load(buf, stored, here);
            momentum_piece(u + i, buf, item->g + i, g_scale, momentum, here);
            p4_cpu_state_store(stored, buf, numbers->key, item->index + (uint64_t)i, 0, here);
        } else {
            momentum_piece(u + i, (float *)item->buf + i, item->g + i, g_scale, momentum, here);
        }
    }
}

static void step_one(p4_device *device, const p4_muon_item *item, const p4_muon_args *a)
{
    int64_t rows = a->rows, cols = a->cols;
    int64_t m = p4_min_i64(rows, cols), n = p4_max_i64(rows, cols), count = rows * cols;
    float *x = a->work, *next = x + count, *A = next + count, *A2 = A + m * m;
    bool tall = rows > cols;
    float *u = tall ? next : x;
    momentum_all(device, u, item, a);
    if (tall) {
        transpose(device, x, u, rows, cols);
    }
    normalize(device, x, count);
    for (int step = 0; step < STEPS; step++) {
        newton_schulz_step(device, next, x, A, A2, m, n);
        float *swap = x;
        x = next;
        next = swap;
    }
    if (tall) {
        transpose(device, next, x, cols, rows);
        x = next;
    }
    float factor = 0.2f * sqrtf((float)n);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += PIECE) {
        update_piece(item->w + i, x + i, a->numbers->lr, factor, a->decay, p4_min_i64(PIECE, count - i));
    }
}

void p4_cpu_muon(p4_device *device, const p4_muon_args *args)
{
    for (int64_t i = 0; i < args->items; i++) {
        step_one(device, &args->h_items[i], args);
    }
}
