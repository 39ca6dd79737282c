/* hessian_rows.c - the rows of a matrix quantized under H: GPTQ and coordinate descent.
 *
 * Rows are independent of each other. A tile of rows passes over the columns in blocks of P4_HESSIAN_BLOCK:
 * the influence of all other columns on a block is one product, and inside the block the trits follow one
 * another. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { ROWS = 64, BLOCK = P4_HESSIAN_BLOCK };
static const float LEAST_GAIN = 1e-5f; /* of scale^2 h_jj: smaller ones are rounding errors */

void p4_cpu_hessian_weights(p4_device *device, float *w, const p4_weight *weight, const float *importance)
{
    enum { COLS = 256 }; /* a tile of a transposed weight that fits the first-level cache */
    int64_t cols = weight->cols, step = weight->transposed ? COLS : p4_max_i64(cols, 1);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t row = 0; row < weight->rows; row += ROWS) {
        int64_t end = p4_min_i64(row + ROWS, weight->rows);
        for (int64_t col = 0; col < cols; col += step) {
            for (int64_t r = row; r < end; r++) {
                p4_cpu_weight_row(w + r * cols + col, weight, r, col, p4_min_i64(step, cols - col));
            }
        }
        for (int64_t r = row; r < end; r++) {
            for (int64_t c = 0; c < cols; c++) {
                w[r * cols + c] = importance[c] != 0.0f ? w[r * cols + c] : 0.0f;
            }
        }
    }
}

/* --- GPTQ ------------------------------------------------------------------------------------- */

/* One row of a block: v [width] holds w plus the feedback of the columns before the block, and becomes
 * undefined. F [width, width], rows ld elements apart. */
P4_MULTIVERSION static void sweep_gptq(float *t, float *error, float *v, const float *w, const float *F,
                                       int64_t ld, int64_t width, float scale)
{
    float cut = 0.5f * scale;
    for (int64_t j = 0; j < width; j++) {
        t[j] = scale > 0.0f ? (float)((v[j] >= cut) - (v[j] <= -cut)) : 0.0f;
        error[j] = w[j] - scale * t[j];
        for (int64_t c = j + 1; c < width; c++) {
            v[c] += error[j] * F[j * ld + c];
        }
    }
}

static void gptq_tile(const p4_device *device, const p4_hessian_rows *m, int64_t row, float *v)
{
    int64_t cols = m->cols, rows = p4_min_i64(ROWS, m->rows - row);
    float *error = m->wh + row * cols;
    for (int64_t first = 0; first < cols; first += BLOCK) {
        int64_t width = p4_min_i64(BLOCK, cols - first);
        for (int64_t r = 0; r < rows; r++) {
            memcpy(v + r * width, m->w + (row + r) * cols + first, (size_t)width * sizeof *v);
        }
        if (first > 0) {
            p4_cpu_sgemm(device, false, false, rows, width, first, 1.0f, error, cols, m->feedback + first,
                         cols, 1.0f, v, width);
        }
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = (row + r) * cols + first;
            sweep_gptq(m->t + at, m->wh + at, v + r * width, m->w + at, m->feedback + first * cols + first,
                       cols, width, p4_f16_to_f32(m->scale[row + r]));
        }
    }
}

void p4_cpu_gptq(p4_device *device, const p4_hessian_rows *m)
{
    float *v = p4_cpu_scratch(device, ROWS * BLOCK * (int64_t)sizeof *v);
#pragma omp parallel for schedule(dynamic) num_threads(device->threads)
    for (int64_t row = 0; row < (v ? m->rows : 0); row += ROWS) {
        gptq_tile(device, m, row, v + omp_get_thread_num() * ROWS * BLOCK);
    }
}

/* --- coordinate descent ----------------------------------------------------------------------- */

/* The best scale for the row's trits, rounded to what is stored. Of the values of fp16 the one nearest to the
 * minimum of a parabola is the best, so a refit never raises the error. */
static void refit(uint16_t *scale, const double *fit)
{
    if (fit[0] > 0.0 && fit[1] > 0.0) {
        *scale = p4_f32_to_f16((float)(fit[0] / fit[1]));
    }
}

P4_MULTIVERSION static double dot(const float *a, const float *b, int64_t count)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

static void start_tile(const p4_device *device, const p4_hessian_rows *m, int64_t row, float *th)
{
    int64_t cols = m->cols, rows = p4_min_i64(ROWS, m->rows - row);
    double *fit = m->fit + row * 2;
    memset(fit, 0, (size_t)rows * 2 * sizeof *fit);
    for (int64_t first = 0; first < cols; first += BLOCK) {
        int64_t width = p4_min_i64(BLOCK, cols - first);
        p4_cpu_sgemm(device, false, false, rows, width, cols, 1.0f, m->w + row * cols, cols, m->h + first,
                     cols, 0.0f, m->wh + row * cols + first, cols);
        p4_cpu_sgemm(device, false, false, rows, width, cols, 1.0f, m->t + row * cols, cols, m->h + first,
                     cols, 0.0f, th, width);
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = (row + r) * cols + first;
            fit[2 * r] += dot(m->wh + at, m->t + at, width);
            fit[2 * r + 1] += dot(th + r * width, m->t + at, width);
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        refit(&m->scale[row + r], fit + 2 * r);
    }
}

void p4_cpu_descend_start(p4_device *device, const p4_hessian_rows *m)
{
    float *th = p4_cpu_scratch(device, ROWS * BLOCK * (int64_t)sizeof *th);
#pragma omp parallel for schedule(dynamic) num_threads(device->threads)
    for (int64_t row = 0; row < (th ? m->rows : 0); row += ROWS) {
        start_tile(device, m, row, th + omp_get_thread_num() * ROWS * BLOCK);
    }
}

/* The trit of column j with the smallest error. th = (t h)_j, wh = (w h)_j, hjj the diagonal. */
P4_INLINE float best_trit(float t, float th, float wh, float hjj, float scale)
{
    float g = scale * th - wh, best = t, least = -LEAST_GAIN * scale * scale * hjj;
    for (float c = -1.0f; c <= 1.0f; c += 1.0f) {
        float d = scale * (c - t), gain = d * (2.0f * g + d * hjj);
        if (gain < least) {
            least = gain;
            best = c;
        }
    }
    return best;
}

/* One row of a block: th [width] = t h of the row before the block, and becomes undefined. H [width, width],
 * rows ld elements apart. The number of trits that change. */
P4_MULTIVERSION static int64_t sweep_descend(float *t, double *fit, float *th, const float *wh,
                                             const float *H, int64_t ld, int64_t width, float scale)
{
    int64_t changed = 0;
    for (int64_t j = 0; j < width; j++) {
        float hjj = H[j * ld + j], to = best_trit(t[j], th[j], wh[j], hjj, scale), step = to - t[j];
        if (step == 0.0f) {
            continue;
        }
        fit[0] += (double)step * (double)wh[j];
        fit[1] += (double)step * (2.0 * (double)th[j] + (double)step * (double)hjj);
        for (int64_t c = j + 1; c < width; c++) {
            th[c] += step * H[j * ld + c];
        }
        t[j] = to;
        changed++;
    }
    return changed;
}

static int64_t descend_tile(const p4_device *device, const p4_hessian_rows *m, int64_t row, float *th)
{
    int64_t cols = m->cols, rows = p4_min_i64(ROWS, m->rows - row), changed = 0;
    for (int64_t first = 0; first < cols; first += BLOCK) {
        int64_t width = p4_min_i64(BLOCK, cols - first);
        p4_cpu_sgemm(device, false, false, rows, width, cols, 1.0f, m->t + row * cols, cols, m->h + first,
                     cols, 0.0f, th, width);
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = (row + r) * cols + first;
            float scale = p4_f16_to_f32(m->scale[row + r]);
            if (scale > 0.0f) {
                changed += sweep_descend(m->t + at, m->fit + 2 * (row + r), th + r * width, m->wh + at,
                                         m->h + first * cols + first, cols, width, scale);
            }
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        refit(&m->scale[row + r], m->fit + 2 * (row + r));
    }
    return changed;
}

void p4_cpu_descend(p4_device *device, const p4_hessian_rows *m, int64_t *h_changed)
{
    int64_t changed = 0;
    float *th = p4_cpu_scratch(device, ROWS * BLOCK * (int64_t)sizeof *th);
#pragma omp parallel for schedule(dynamic) num_threads(device->threads) reduction(+ : changed)
    for (int64_t row = 0; row < (th ? m->rows : 0); row += ROWS) {
        changed += descend_tile(device, m, row, th + omp_get_thread_num() * ROWS * BLOCK);
    }
    *h_changed = changed;
}

/* --- codes ------------------------------------------------------------------------------------ */

P4_MULTIVERSION static void row_error(p4_quant_error *error, const float *w, const float *t, float scale,
                                      int64_t cols)
{
    double sq_error = 0.0, sq_norm = 0.0;
    int64_t zeros = 0;
#pragma omp simd reduction(+ : sq_error, sq_norm, zeros)
    for (int64_t c = 0; c < cols; c++) {
        double kept = t[c] != 0.0f ? (double)(scale * t[c]) : 0.0, difference = (double)w[c] - kept;
        sq_error += difference * difference;
        sq_norm += (double)w[c] * (double)w[c];
        zeros += t[c] == 0.0f ? 1 : 0;
    }
    error->sq_error += sq_error;
    error->sq_norm += sq_norm;
    error->zeros += zeros;
    error->scale_min = fminf(error->scale_min, scale);
    error->scale_max = fmaxf(error->scale_max, scale);
}

static void row_codes(uint8_t *codes, const float *t, int64_t cols)
{
    for (int64_t b = 0; b < p4_code_row_bytes(cols); b++) {
        unsigned byte = 0;
        for (int64_t i = 0; i < 4; i++) {
            unsigned code = 4 * b + i < cols ? (unsigned)(t[4 * b + i] + 1.0f) : 1u;
            byte |= code << 2 * i;
        }
        codes[b] = (uint8_t)byte;
    }
}

void p4_cpu_pack_trits(p4_device *device, uint8_t *codes, p4_quant_error *h_error, const float *t,
                       const uint16_t *scale, const p4_weight *weight)
{
    enum { PIECES = 64 };
    int64_t cols = weight->cols, each = p4_max_i64(1, p4_ceil_div(weight->rows, PIECES));
    int64_t stride = p4_ceil_div(cols, 16) * 16;
    p4_quant_error parts[PIECES], sum = {.scale_min = INFINITY, .scale_max = -INFINITY};
    float *memory = p4_cpu_scratch(device, stride * (int64_t)sizeof *memory);
    int64_t pieces = memory ? p4_ceil_div(weight->rows, each) : 0;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < pieces; i++) {
        float *w = memory + omp_get_thread_num() * stride;
        parts[i] = sum;
        for (int64_t r = i * each; r < p4_min_i64((i + 1) * each, weight->rows); r++) {
            p4_cpu_weight_row(w, weight, r, 0, cols);
            row_codes(codes + r * p4_code_row_bytes(cols), t + r * cols, cols);
            row_error(&parts[i], w, t + r * cols, p4_f16_to_f32(scale[r]), cols);
        }
    }
    for (int64_t i = 0; i < pieces; i++) {
        sum.sq_error += parts[i].sq_error;
        sum.sq_norm += parts[i].sq_norm;
        sum.zeros += parts[i].zeros;
        sum.scale_min = fminf(sum.scale_min, parts[i].scale_min);
        sum.scale_max = fmaxf(sum.scale_max, parts[i].scale_max);
    }
    *h_error = sum;
}
