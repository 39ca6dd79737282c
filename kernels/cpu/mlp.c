/* mlp.c - the sum of two arrays; SwiGLU and GELU, alone and together with the products beside them. */
#include "kernels/cpu/vmath.h"

enum { PIECE = 8192, MLP_ROWS = 8 };

P4_MULTIVERSION static void add_piece(float *out, const float *a, const float *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        out[i] = a[i] + b[i];
    }
}

void p4_cpu_add(p4_device *device, void *out, const void *a, const void *b, int64_t count)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += PIECE) {
        add_piece((float *)out + i, (const float *)a + i, (const float *)b + i, p4_min_i64(PIECE, count - i));
    }
}

P4_MULTIVERSION static void swiglu_rows(float *restrict h, const float *restrict gate_up, int64_t rows,
                                        int64_t F)
{
    for (int64_t n = 0; n < rows; n++) {
        const float *gate = gate_up + n * 2 * F, *up = gate + F;
        float *to = h + n * F;
        for (int64_t f = 0; f < F; f++) {
            to[f] = gate[f] * p4_sigmoid_f32(gate[f]) * up[f];
        }
    }
}

P4_MULTIVERSION static void swiglu_backward_rows(float *restrict d, const float *restrict dh,
                                                 const float *restrict gate_up, int64_t rows, int64_t F)
{
    for (int64_t n = 0; n < rows; n++) {
        const float *gate = gate_up + n * 2 * F, *up = gate + F, *from = dh + n * F;
        float *dgate = d + n * 2 * F, *dup = dgate + F;
        for (int64_t f = 0; f < F; f++) {
            float slope, s = p4_sigmoid_slope_f32(gate[f], &slope);
            dgate[f] = from[f] * up[f] * (s + gate[f] * slope);
            dup[f] = from[f] * gate[f] * s;
        }
    }
}

/* gelu(x) = x (1 + tanh(u)) / 2 = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation for x <
 * 0. */
static const float gelu_slope = 2.0f * 0.7978845608028654f, gelu_cubic = 0.044715f;

P4_MULTIVERSION static void gelu_piece(float *h, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        h[i] = x[i] * p4_sigmoid_f32(gelu_slope * x[i] * (1.0f + gelu_cubic * x[i] * x[i]));
    }
}

/* Rows of an activation function, rounded one by one; gated: x holds gate | up. */
static void round_rows(p4_device *device, float *y, const p4_int8_rows *rounded, const float *x, bool gated,
                       int64_t N, int64_t F)
{
    int64_t stride = 0;
    float *rows = y ? NULL : p4_cpu_round_rows(device, F, &stride);
    if (!y && !rows) {
        return;
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < N; n++) {
        float *to = y ? y + n * F : rows + omp_get_thread_num() * stride;
        if (gated) {
            swiglu_rows(to, x + n * 2 * F, 1, F);
        } else {
            gelu_piece(to, x + n * F, F);
        }
        p4_cpu_round_row(rounded, n, y ? to : NULL, to, F);
    }
}

void p4_cpu_swiglu_forward(p4_device *device, void *y, const p4_int8_rows *rounded, const void *gate_up,
                           int64_t N, int64_t F)
{
    if (rounded) {
        round_rows(device, y, rounded, gate_up, true, N, F);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < N; n += MLP_ROWS) {
        swiglu_rows((float *)y + n * F, (const float *)gate_up + n * 2 * F, p4_min_i64(MLP_ROWS, N - n), F);
    }
}

P4_MULTIVERSION static void gelu_backward_piece(float *d, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        float square = gelu_cubic * x[i] * x[i];
        float slope, s = p4_sigmoid_slope_f32(gelu_slope * x[i] * (1.0f + square), &slope);
        d[i] *= s + x[i] * slope * gelu_slope * (1.0f + 3.0f * square);
    }
}

void p4_cpu_gelu_forward(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t N,
                         int64_t F)
{
    int64_t count = N * F;
    if (rounded) {
        round_rows(device, y, rounded, x, false, N, F);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += PIECE) {
        gelu_piece((float *)y + i, (const float *)x + i, p4_min_i64(PIECE, count - i));
    }
}

void p4_cpu_linear_gelu_forward(p4_device *device, const p4_linear_gelu_forward_args *a)
{
    p4_cpu_linear_forward(device, a->up, a->x, a->w, a->opt_bias, a->N, a->in, a->out);
    p4_cpu_gelu_forward(device, a->h, NULL, a->up, a->N, a->out);
}

void p4_cpu_linear_gelu_backward(p4_device *device, const p4_linear_gelu_backward_args *a)
{
    float *dup = a->dup;
    const float *up = a->up;
    int64_t count = a->N * a->F;
    p4_cpu_linear_backward_input(device, dup, a->dy, a->w, a->N, a->F, a->out, false);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += PIECE) {
        gelu_backward_piece(dup + i, up + i, p4_min_i64(PIECE, count - i));
    }
    if (a->opt_db) {
        p4_cpu_linear_backward_bias(device, a->opt_db, dup, a->N, a->F);
    }
}

void p4_cpu_linear_swiglu_backward(p4_device *device, const p4_linear_swiglu_backward_args *a)
{
    float *dgate_up = a->dgate_up;
    const float *gate_up = a->gate_up, *dh = a->dh_work;
    int64_t N = a->N, F = a->F;
    p4_cpu_linear_backward_input(device, a->dh_work, a->dy, a->w, N, F, a->out, false);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t n = 0; n < N; n += MLP_ROWS) {
        swiglu_backward_rows(dgate_up + n * 2 * F, dh + n * F, gate_up + n * 2 * F,
                             p4_min_i64(MLP_ROWS, N - n), F);
    }
}
