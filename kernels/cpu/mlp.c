/* mlp.c - the sum of two arrays; activation functions, alone and together with the products beside them. */
#include "kernels/cpu/vmath.h"

enum { PIECE = 8192, MLP_ROWS = 8 };

P4_MULTIVERSION static void add_piece(float *out, const float *a, const float *b, float scale, int64_t count)
{
    if (a) {
        for (int64_t i = 0; i < count; i++) {
            out[i] = a[i] + scale * b[i];
        }
    } else {
        for (int64_t i = 0; i < count; i++) {
            out[i] = scale * b[i];
        }
    }
}

void p4_cpu_add(p4_device *device, void *out, const void *a, const void *b, float scale, int64_t count)
{
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, p4_ceil_div(count, PIECE)))
    for (int64_t i = 0; i < count; i += PIECE) {
        add_piece((float *)out + i, a ? (const float *)a + i : NULL, (const float *)b + i, scale,
                  p4_min_i64(PIECE, count - i));
    }
}

/* gelu(x) = x (1 + tanh(u)) / 2 = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation for x <
 * 0. */
static const float gelu_slope = 2.0f * 0.7978845608028654f, gelu_cubic = 0.044715f;
static const float inverse_sqrt_2pi = 0.3989422804014327f;

P4_INLINE float value_of(p4_activation function, float x)
{
    float density;
    switch (function) {
    case P4_GELU_TANH:
        return x * p4_sigmoid_f32(gelu_slope * x * (1.0f + gelu_cubic * x * x));
    case P4_GELU_ERF:
        return x * p4_normal_f32(x, &density);
    case P4_SILU:
        return x * p4_sigmoid_f32(x);
    case P4_RELU:
        return x < 0.0f ? 0.0f : x;
    case P4_RELU_SQ:
        return x < 0.0f ? 0.0f : x * x;
    case P4_ACTIVATION_COUNT:
        break;
    }
    return x;
}

/* The slope; *value: as value_of. */
P4_INLINE float slope_of(p4_activation function, float x, float *value)
{
    float slope, s, square;
    switch (function) {
    case P4_GELU_TANH:
        square = gelu_cubic * x * x;
        s = p4_sigmoid_slope_f32(gelu_slope * x * (1.0f + square), &slope);
        *value = x * s;
        return s + x * slope * gelu_slope * (1.0f + 3.0f * square);
    case P4_GELU_ERF:
        s = p4_normal_f32(x, &slope);
        *value = x * s;
        return s + x * inverse_sqrt_2pi * slope;
    case P4_SILU:
        s = p4_sigmoid_slope_f32(x, &slope);
        *value = x * s;
        return s + x * slope;
    case P4_RELU:
        *value = x < 0.0f ? 0.0f : x;
        return x > 0.0f ? 1.0f : 0.0f;
    case P4_RELU_SQ:
        *value = x < 0.0f ? 0.0f : x * x;
        return x < 0.0f ? 0.0f : 2.0f * x;
    case P4_ACTIVATION_COUNT:
        break;
    }
    *value = x;
    return 1.0f;
}

/* Calls `loop` with the function as a constant, so that each function gets a loop of its own. */
#define P4_BY_FUNCTION(function, loop, ...)  \
    do {                                     \
        switch (function) {                  \
        case P4_GELU_TANH:                   \
            loop(P4_GELU_TANH, __VA_ARGS__); \
            break;                           \
        case P4_GELU_ERF:                    \
            loop(P4_GELU_ERF, __VA_ARGS__);  \
            break;                           \
        case P4_SILU:                        \
            loop(P4_SILU, __VA_ARGS__);      \
            break;                           \
        case P4_RELU:                        \
            loop(P4_RELU, __VA_ARGS__);      \
            break;                           \
        case P4_RELU_SQ:                     \
            loop(P4_RELU_SQ, __VA_ARGS__);   \
            break;                           \
        case P4_ACTIVATION_COUNT:            \
            break;                           \
        }                                    \
    } while (0)

P4_INLINE void plain_loop(p4_activation function, float *h, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        h[i] = value_of(function, x[i]);
    }
}

P4_MULTIVERSION static void plain_piece(p4_activation function, float *h, const float *x, int64_t count)
{
    P4_BY_FUNCTION(function, plain_loop, h, x, count);
}

P4_INLINE void gated_loop(p4_activation function, float *restrict h, const float *restrict gate_up,
                          int64_t rows, int64_t F)
{
    for (int64_t n = 0; n < rows; n++) {
        const float *gate = gate_up + n * 2 * F, *up = gate + F;
        float *to = h + n * F;
        for (int64_t f = 0; f < F; f++) {
            to[f] = value_of(function, gate[f]) * up[f];
        }
    }
}

P4_MULTIVERSION static void gated_rows(p4_activation function, float *h, const float *gate_up, int64_t rows,
                                       int64_t F)
{
    P4_BY_FUNCTION(function, gated_loop, h, gate_up, rows, F);
}

P4_INLINE void plain_backward_loop(p4_activation function, float *d, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        float value;
        d[i] *= slope_of(function, x[i], &value);
    }
}

P4_MULTIVERSION static void plain_backward(p4_activation function, float *d, const float *x, int64_t count)
{
    P4_BY_FUNCTION(function, plain_backward_loop, d, x, count);
}

P4_INLINE void gated_backward_loop(p4_activation function, float *restrict d, const float *restrict dh,
                                   const float *restrict gate_up, int64_t rows, int64_t F)
{
    for (int64_t n = 0; n < rows; n++) {
        const float *gate = gate_up + n * 2 * F, *up = gate + F, *from = dh + n * F;
        float *dgate = d + n * 2 * F, *dup = dgate + F;
        for (int64_t f = 0; f < F; f++) {
            float value, slope = slope_of(function, gate[f], &value);
            dgate[f] = from[f] * up[f] * slope;
            dup[f] = from[f] * value;
        }
    }
}

P4_MULTIVERSION static void gated_backward(p4_activation function, float *d, const float *dh,
                                           const float *gate_up, int64_t rows, int64_t F)
{
    P4_BY_FUNCTION(function, gated_backward_loop, d, dh, gate_up, rows, F);
}

/* Rows rounded one by one. */
static void round_rows(p4_device *device, float *y, const p4_int8_rows *rounded, const float *x,
                       p4_activation function, bool gated, int64_t N, int64_t F)
{
    int64_t stride = 0;
    float *rows = y ? NULL : p4_cpu_round_rows(device, F, &stride);
    if (!y && !rows) {
        return;
    }
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, N))
    for (int64_t n = 0; n < N; n++) {
        float *to = y ? y + n * F : rows + omp_get_thread_num() * stride;
        if (gated) {
            gated_rows(function, to, x + n * 2 * F, 1, F);
        } else {
            plain_piece(function, to, x + n * F, F);
        }
        p4_cpu_round_row(rounded, n, y ? to : NULL, to, F);
    }
}

void p4_cpu_activate(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x,
                     p4_activation function, bool gated, int64_t N, int64_t F)
{
    int64_t count = N * F;
    if (rounded) {
        round_rows(device, y, rounded, x, function, gated, N, F);
        return;
    }
    if (gated) {
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, p4_ceil_div(N, MLP_ROWS)))
        for (int64_t n = 0; n < N; n += MLP_ROWS) {
            gated_rows(function, (float *)y + n * F, (const float *)x + n * 2 * F,
                       p4_min_i64(MLP_ROWS, N - n), F);
        }
        return;
    }
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, p4_ceil_div(count, PIECE)))
    for (int64_t i = 0; i < count; i += PIECE) {
        plain_piece(function, (float *)y + i, (const float *)x + i, p4_min_i64(PIECE, count - i));
    }
}

void p4_cpu_linear_activate_forward(p4_device *device, const p4_linear_activate_forward_args *a)
{
    p4_cpu_linear_forward(device, a->up, a->x, a->w, a->opt_bias, a->N, a->in, a->out);
    p4_cpu_activate(device, a->h, NULL, a->up, a->function, false, a->N, a->out);
}

void p4_cpu_linear_activate_backward(p4_device *device, const p4_linear_activate_backward_args *a)
{
    float *dup = a->dup;
    const float *up = a->up;
    int64_t count = a->N * a->F;
    p4_cpu_linear_backward_input(device, dup, a->dy, a->w, a->N, a->F, a->out, false);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += PIECE) {
        plain_backward(a->function, dup + i, up + i, p4_min_i64(PIECE, count - i));
    }
    if (a->opt_db) {
        p4_cpu_linear_backward_bias(device, a->opt_db, dup, a->N, a->F, a->F);
    }
}

void p4_cpu_gated_backward(p4_device *device, void *dgate_up, const void *dh, const void *gate_up,
                           p4_activation function, int64_t N, int64_t F)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < N; n += MLP_ROWS) {
        gated_backward(function, (float *)dgate_up + n * 2 * F, (const float *)dh + n * F,
                       (const float *)gate_up + n * 2 * F, p4_min_i64(MLP_ROWS, N - n), F);
    }
}

void p4_cpu_linear_gated_backward(p4_device *device, const p4_linear_gated_backward_args *a)
{
    p4_cpu_linear_backward_input(device, a->dh_work, a->dy, a->w, a->N, a->F, a->out, false);
    p4_cpu_gated_backward(device, a->dgate_up, a->dh_work, a->gate_up, a->function, a->N, a->F);
}
