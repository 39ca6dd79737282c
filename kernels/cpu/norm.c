/* norm.c - RMSNorm and LayerNorm with the residual sum in front, and their gradients. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { NORM_ROWS = 16, GAIN_COLS = 64 };

P4_MULTIVERSION static float row_sum(const float *x, int64_t C)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < C; c++) {
        sum += x[c];
    }
    return sum;
}

/* sum of (x - center)^2 */
P4_MULTIVERSION static float row_sum_sq(const float *x, float center, int64_t C)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < C; c++) {
        sum += (x[c] - center) * (x[c] - center);
    }
    return sum;
}

P4_MULTIVERSION static void row_add(float *sum, const float *x, const float *delta, float scale, int64_t C)
{
    for (int64_t c = 0; c < C; c++) {
        sum[c] = x[c] + scale * delta[c];
    }
}

P4_MULTIVERSION static void row_normalize(float *y, const float *x, const float *gain, float offset,
                                          const float *bias, float center, float rstd, int64_t C)
{
    if (bias) {
        for (int64_t c = 0; c < C; c++) {
            y[c] = (x[c] - center) * rstd * (gain[c] + offset) + bias[c];
        }
    } else {
        for (int64_t c = 0; c < C; c++) {
            y[c] = (x[c] - center) * rstd * (gain[c] + offset);
        }
    }
}

void p4_cpu_add_norm_forward(p4_device *device, const p4_add_norm_forward_args *a)
{
    const float *x = a->x, *delta = a->opt_delta;
    float *sum = a->opt_sum, *y = a->opt_y;
    int64_t C = a->C, stride = 0;
    float *rows = y ? NULL : p4_cpu_round_rows(device, C, &stride);
    if (!y && !rows) {
        return;
    }
#pragma omp parallel for schedule(static, NORM_ROWS) num_threads(p4_cpu_team(device, a->N))
    for (int64_t n = 0; n < a->N; n++) {
        const float *row = x + n * C;
        if (delta) {
            float *total = sum + n * C;
            row_add(total, row, delta + n * C, a->delta_scale > 0.0f ? a->delta_scale : 1.0f, C);
            row = total;
        } else if (sum && sum != x) {
            memcpy(sum + n * C, row, (size_t)C * sizeof *row);
        }
        float center = a->kind == P4_LAYERNORM ? row_sum(row, C) / (float)C : 0.0f;
        float scale = 1.0f / sqrtf(row_sum_sq(row, center, C) / (float)C + a->eps);
        float *to = y ? y + n * C : rows + omp_get_thread_num() * stride;
        row_normalize(to, row, a->gain, a->gain_offset, a->opt_bias, center, scale, C);
        if (a->opt_rounded) {
            p4_cpu_round_row(a->opt_rounded, n, y ? to : NULL, to, C);
        }
        if (a->opt_mean) {
            a->opt_mean[n] = center;
        }
        if (a->opt_rstd) {
            a->opt_rstd[n] = scale;
        }
    }
}

/* With xhat = (x - center) rstd and g = dy (gain + offset): dx += rstd (g - xhat mean(g xhat) - mean(g)), the
 * last for LayerNorm. */
P4_MULTIVERSION static void row_backward(float *dx, const float *dy, const float *x, const float *gain,
                                         float offset, float center, float rstd, bool centered, int64_t C)
{
    float dot = 0.0f, sum = 0.0f;
#pragma omp simd reduction(+ : dot, sum)
    for (int64_t c = 0; c < C; c++) {
        float g = dy[c] * (gain[c] + offset);
        dot += g * ((x[c] - center) * rstd);
        sum += g;
    }
    dot /= (float)C;
    sum = centered ? sum / (float)C : 0.0f;
    for (int64_t c = 0; c < C; c++) {
        dx[c] += rstd * (dy[c] * (gain[c] + offset) - (x[c] - center) * rstd * dot - sum);
    }
}

/* Gradients of a slice of the gain and the bias, over all rows in order. */
P4_MULTIVERSION static void gain_backward(float *dgain, float *dbias, const float *dy, const float *x,
                                          const float *mean, const float *rstd, int64_t N, int64_t C,
                                          int64_t width)
{
    double gain_sum[GAIN_COLS] = {0}, bias_sum[GAIN_COLS] = {0};
    for (int64_t n = 0; n < N; n++) {
        float center = mean ? mean[n] : 0.0f, scale = rstd[n];
        for (int64_t c = 0; c < width; c++) {
            gain_sum[c] += (double)(dy[n * C + c] * ((x[n * C + c] - center) * scale));
            bias_sum[c] += (double)dy[n * C + c];
        }
    }
    for (int64_t c = 0; c < width; c++) {
        if (dgain) {
            dgain[c] += (float)gain_sum[c];
        }
        if (dbias) {
            dbias[c] += (float)bias_sum[c];
        }
    }
}

void p4_cpu_norm_backward(p4_device *device, const p4_norm_backward_args *a)
{
    const float *dy = a->dy, *x = a->x;
    float *dx = a->dx, *dgain = a->opt_dgain, *dbias = a->opt_dbias;
    int64_t N = a->N, C = a->C;
    bool centered = a->kind == P4_LAYERNORM;
#pragma omp parallel num_threads(device->threads)
    {
        if (dgain || dbias) {
#pragma omp for schedule(static) nowait
            for (int64_t c = 0; c < C; c += GAIN_COLS) {
                gain_backward(dgain ? dgain + c : NULL, dbias ? dbias + c : NULL, dy + c, x + c,
                              centered ? a->opt_mean : NULL, a->rstd, N, C, p4_min_i64(GAIN_COLS, C - c));
            }
        }
#pragma omp for schedule(static, NORM_ROWS)
        for (int64_t n = 0; n < N; n++) {
            if (!a->accumulate) {
                memset(dx + n * C, 0, (size_t)C * sizeof(float));
            }
            row_backward(dx + n * C, dy + n * C, x + n * C, a->gain, a->gain_offset,
                         centered ? a->opt_mean[n] : 0.0f, a->rstd[n], centered, C);
        }
    }
    if (a->opt_dx_sums) {
        p4_cpu_linear_backward_bias(device, a->opt_dx_sums, dx, N, C, C);
    }
}
