/* int8.c - activations rounded to int8 per token, and the product of such rows with ternary weights. */
#include <float.h>
#include <math.h>

#include "kernels/cpu/vmath.h"

/* |x|, infinite if x is NaN. */
P4_INLINE float magnitude(float x)
{
    float size = fabsf(x);
    return size <= FLT_MAX ? size : INFINITY;
}

P4_MULTIVERSION static float largest_of(const float *x, int64_t C)
{
    float largest = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t c = 0; c < C; c++) {
        float size = magnitude(x[c]);
        largest = size > largest ? size : largest;
    }
    return largest;
}

P4_MULTIVERSION static void round_values(int8_t *codes, float *y, const float *x, float s, int64_t C)
{
    for (int64_t c = 0; c < C; c++) {
        float code = rintf(x[c] * s);
        code = code > -128.0f ? code : -128.0f; /* also for NaN */
        code = code < 127.0f ? code : 127.0f;
        if (codes) {
            codes[c] = (int8_t)code;
        }
        if (y) {
            y[c] = (code + 0.0f) / s; /* as from the code: no negative zero */
        }
    }
}

void p4_cpu_round_row(const p4_int8_rows *rounded, int64_t n, float *y, const float *x, int64_t C)
{
    int64_t width = p4_int8_width(C);
    float s = 127.0f / fmaxf(largest_of(x, C), 1e-5f);
    int8_t *codes = rounded->codes ? rounded->codes + n * width : NULL;
    round_values(codes, y, x, s, C);
    if (codes) {
        memset(codes + C, 0, (size_t)(width - C));
        rounded->s[n] = s;
    }
}

float *p4_cpu_round_rows(p4_device *device, int64_t C, int64_t *stride)
{
    *stride = p4_ceil_div(C, 16) * 16;
    return p4_cpu_scratch(device, *stride * (int64_t)sizeof(float));
}

void p4_cpu_quantize_int8(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t N,
                          int64_t C)
{
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, N))
    for (int64_t n = 0; n < N; n++) {
        p4_cpu_round_row(rounded, n, y ? (float *)y + n * C : NULL, (const float *)x + n * C, C);
    }
}

P4_MULTIVERSION static void expand_row(float *y, const int8_t *codes, float s, int64_t C)
{
    for (int64_t c = 0; c < C; c++) {
        y[c] = (float)codes[c] / s;
    }
}

void p4_cpu_dequantize_int8(p4_device *device, void *y, const p4_int8_rows *x, int64_t N, int64_t C)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < N; n++) {
        expand_row((float *)y + n * C, x->codes + n * p4_int8_width(C), x->s[n], C);
    }
}

/* The sums of integers where kernels for them are at hand; else both factors as activations, and their
 * product. */
void p4_cpu_linear_forward_int8(p4_device *device, const p4_linear_forward_int8_args *a)
{
    float *w = a->w_work;
    if (p4_cpu_linear_int8_direct(device, a)) {
        return;
    }
    p4_cpu_dequantize_int8(device, a->x_work, &a->x, a->N, a->in);
    for (int64_t i = 0; i < a->parts; i++) {
        p4_cpu_weight_unpack(device, w, &a->weights[i]);
        w += a->weights[i].rows * a->weights[i].cols;
    }
    p4_cpu_linear_forward(device, a->y, a->x_work, a->w_work, a->opt_bias, a->N, a->in, a->out);
}
