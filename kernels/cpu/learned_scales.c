/* learned_scales.c - scales of ternary weights that are trained: their gradient, and storing them. */
#include <math.h>

#include "kernels/cpu/vmath.h"

enum {
    CODE_PIECE = 256, /* codes spread to one float each at a time */
    PIECES = 256      /* parts of the matrix whose error sums are added in order */
};

/* The trits of codes [first, first + count) of a row; first is a multiple of 4. */
static void spread_trits(float *trits, const uint8_t *codes, int64_t first, int64_t count)
{
    for (int64_t i = 0; i < count; i += 4) {
        const int byte = codes[(first + i) / 4];
        trits[i] = (float)((byte & 3) - 1);
        trits[i + 1] = (float)((byte >> 2 & 3) - 1);
        trits[i + 2] = (float)((byte >> 4 & 3) - 1);
        trits[i + 3] = (float)((byte >> 6 & 3) - 1);
    }
}

P4_MULTIVERSION static double piece_dot(const float *restrict g, const float *restrict trits, int64_t count)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        sum += (double)g[i] * (double)trits[i];
    }
    return sum;
}

static double row_dot(const float *g, const uint8_t *codes, int64_t cols)
{
    float trits[CODE_PIECE];
    double sum = 0.0;
    for (int64_t first = 0; first < cols; first += CODE_PIECE) {
        const int64_t count = p4_min_i64(CODE_PIECE, cols - first);
        spread_trits(trits, codes, first, count);
        sum += piece_dot(g + first, trits, count);
    }
    return sum;
}

void p4_cpu_scale_gradient(p4_device *device, float *gradient, const float *g, const p4_weight *codes)
{
    const p4_weight view = p4_weight_by_scale(codes);
    const int64_t cols = view.cols, row_bytes = p4_code_row_bytes(cols);
    const double factor = 1.0 / sqrt((double)cols);
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, view.rows))
    for (int64_t r = 0; r < view.rows; r++) {
        gradient[r] =
            (float)(factor * row_dot(g + r * cols, (const uint8_t *)view.data + r * row_bytes, cols));
    }
}

/* Adds what a row of weights differs by from its trits times the scale. */
P4_MULTIVERSION static void piece_error(p4_quant_error *error, const float *restrict w,
                                        const float *restrict trits, float scale, int64_t count)
{
    double sq_error = 0.0, sq_norm = 0.0;
    int64_t zeros = 0;
#pragma omp simd reduction(+ : sq_error, sq_norm, zeros)
    for (int64_t i = 0; i < count; i++) {
        const double value = (double)w[i], difference = value - (double)(scale * trits[i]);
        sq_error += difference * difference;
        sq_norm += value * value;
        zeros += trits[i] == 0.0f ? 1 : 0;
    }
    error->sq_error += sq_error;
    error->sq_norm += sq_norm;
    error->zeros += zeros;
}

static void row_error(p4_quant_error *error, const float *w, const uint8_t *codes, float scale, int64_t cols)
{
    float trits[CODE_PIECE];
    for (int64_t first = 0; first < cols; first += CODE_PIECE) {
        const int64_t count = p4_min_i64(CODE_PIECE, cols - first);
        spread_trits(trits, codes, first, count);
        piece_error(error, w + first, trits, scale, count);
    }
    error->scale_min = fminf(error->scale_min, scale);
    error->scale_max = fmaxf(error->scale_max, scale);
}

static void measure_error(p4_device *device, p4_quant_error *h_error, const p4_weight *view,
                          const uint16_t *scale, const float *w)
{
    p4_quant_error parts[PIECES];
    const int64_t each = p4_max_i64(1, p4_ceil_div(view->rows, PIECES)),
                  pieces = p4_ceil_div(view->rows, each), row_bytes = p4_code_row_bytes(view->cols);
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, pieces))
    for (int64_t i = 0; i < pieces; i++) {
        parts[i] = (p4_quant_error){.scale_min = INFINITY, .scale_max = -INFINITY};
        for (int64_t r = i * each; r < p4_min_i64((i + 1) * each, view->rows); r++) {
            row_error(&parts[i], w + r * view->cols, (const uint8_t *)view->data + r * row_bytes,
                      p4_f16_to_f32(scale[r]), view->cols);
        }
    }
    *h_error = (p4_quant_error){.scale_min = INFINITY, .scale_max = -INFINITY};
    for (int64_t i = 0; i < pieces; i++) {
        h_error->sq_error += parts[i].sq_error;
        h_error->sq_norm += parts[i].sq_norm;
        h_error->zeros += parts[i].zeros;
        h_error->scale_min = fminf(h_error->scale_min, parts[i].scale_min);
        h_error->scale_max = fmaxf(h_error->scale_max, parts[i].scale_max);
    }
}

void p4_cpu_store_scales(p4_device *device, uint16_t *scale, float *learned, p4_quant_error *h_error,
                         const p4_weight *codes, const float *w)
{
    const p4_weight view = p4_weight_by_scale(codes);
    for (int64_t r = 0; r < view.rows; r++) {
        learned[r] = learned[r] < 0.0f ? 0.0f : learned[r];
        scale[r] = p4_f32_to_f16(learned[r]);
    }
    if (h_error != NULL) {
        measure_error(device, h_error, &view, scale, w);
    }
}
