/* head_norm.c - RMSNorm of parts of a row: of each query or key head, or of a whole projection. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { HEAD_ROWS = 16, GAIN_COLS = 64 };

P4_MULTIVERSION static float mean_square(const float *x, int64_t D)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < D; d++) {
        sum += x[d] * x[d];
    }
    return sum / (float)D;
}

P4_MULTIVERSION static void normalize(float *y, const float *x, const float *gain, float offset, float rstd,
                                      int64_t D)
{
    for (int64_t d = 0; d < D; d++) {
        y[d] = x[d] * rstd * (gain[d] + offset);
    }
}

void p4_cpu_head_norm_forward(p4_device *device, const p4_head_norm_forward_args *a)
{
#pragma omp parallel for schedule(static, HEAD_ROWS) num_threads(p4_cpu_team(device, a->N))
    for (int64_t n = 0; n < a->N; n++) {
        for (int64_t h = 0; h < a->heads; h++) {
            const float *x = (const float *)a->x + n * a->ld_x + h * a->D;
            float rstd = 1.0f / sqrtf(mean_square(x, a->D) + a->eps);
            normalize((float *)a->y + n * a->ld_y + h * a->D, x, a->gain, a->gain_offset, rstd, a->D);
            if (a->opt_rstd) {
                a->opt_rstd[n * a->heads + h] = rstd;
            }
        }
    }
}

/* With xhat = x rstd and g = dy (gain + offset): dx = rstd (g - xhat mean(g xhat)). */
P4_MULTIVERSION static void head_backward(float *dx, const float *dy, const float *x, const float *gain,
                                          float offset, float rstd, int64_t D)
{
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t d = 0; d < D; d++) {
        dot += dy[d] * (gain[d] + offset) * (x[d] * rstd);
    }
    dot /= (float)D;
    for (int64_t d = 0; d < D; d++) {
        dx[d] = rstd * (dy[d] * (gain[d] + offset) - x[d] * rstd * dot);
    }
}

P4_MULTIVERSION static void add_gain(double *sum, const float *dy, const float *x, float rstd, int64_t width)
{
    for (int64_t d = 0; d < width; d++) {
        sum[d] += (double)(dy[d] * (x[d] * rstd));
    }
}

/* Elements [first, first + width) of the gain's gradient, over all rows and heads in order. */
static void gain_backward(const p4_head_norm_backward_args *a, int64_t first, int64_t width)
{
    double sum[GAIN_COLS] = {0};
    for (int64_t n = 0; n < a->N; n++) {
        for (int64_t h = 0; h < a->heads; h++) {
            int64_t at = h * a->D + first;
            add_gain(sum, (const float *)a->dy + n * a->ld_dy + at, (const float *)a->x + n * a->ld_x + at,
                     a->rstd[n * a->heads + h], width);
        }
    }
    for (int64_t d = 0; d < width; d++) {
        a->opt_dgain[first + d] += (float)sum[d];
    }
}

void p4_cpu_head_norm_backward(p4_device *device, const p4_head_norm_backward_args *a)
{
    int64_t gain_cols = a->opt_dgain ? a->D : 0;
    /* All of dy is read before dx, which may be dy, is written. */
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t d = 0; d < gain_cols; d += GAIN_COLS) {
        gain_backward(a, d, p4_min_i64(GAIN_COLS, a->D - d));
    }
#pragma omp parallel for schedule(static, HEAD_ROWS) num_threads(device->threads)
    for (int64_t n = 0; n < a->N; n++) {
        for (int64_t h = 0; h < a->heads; h++) {
            int64_t at = h * a->D;
            head_backward((float *)a->dx + n * a->ld_dx + at, (const float *)a->dy + n * a->ld_dy + at,
                          (const float *)a->x + n * a->ld_x + at, a->gain, a->gain_offset,
                          a->rstd[n * a->heads + h], a->D);
        }
    }
}
