/* linear.c - weights unpacked to fp32, the three products of a linear layer, bias gradient. */
#include <stdio.h>

#include "kernels/cpu/vmath.h"

enum { UNPACK_ROWS = 16, BIAS_COLS = 64 };

P4_MULTIVERSION static void from_f16(float *to, const p4_loose_u16 *from, int64_t stride, int64_t count)
{
    if (stride == 1) {
        for (int64_t i = 0; i < count; i++) {
            to[i] = p4_half_value(from[i]);
        }
    } else {
        for (int64_t i = 0; i < count; i++) {
            to[i] = p4_half_value(from[i * stride]);
        }
    }
}

P4_MULTIVERSION static void from_bf16(float *to, const p4_loose_u16 *from, int64_t stride, int64_t count)
{
    if (stride == 1) {
        for (int64_t i = 0; i < count; i++) {
            to[i] = p4_bfloat_value(from[i]);
        }
    } else {
        for (int64_t i = 0; i < count; i++) {
            to[i] = p4_bfloat_value(from[i * stride]);
        }
    }
}

static void from_f32(float *to, const p4_loose_f32 *from, int64_t stride, int64_t count)
{
    if (stride == 1) {
        memcpy(to, from, (size_t)count * sizeof *to);
    } else {
        for (int64_t i = 0; i < count; i++) {
            to[i] = from[i * stride];
        }
    }
}

/* Codes [first, first + count) of one row; first is a multiple of 4. */
P4_MULTIVERSION static void from_codes(float *to, const uint8_t *codes, float scale, int64_t first,
                                       int64_t count)
{
    const uint8_t *bytes = codes + first / 4;
    int64_t whole = count / 4;
    for (int64_t b = 0; b < whole; b++) {
        for (int i = 0; i < 4; i++) {
            to[4 * b + i] = (float)((bytes[b] >> 2 * i & 3) - 1) * scale;
        }
    }
    for (int64_t c = 4 * whole; c < count; c++) {
        to[c] = (float)((bytes[c / 4] >> 2 * (c % 4) & 3) - 1) * scale;
    }
}

void p4_cpu_half_to_f32(float *to, const void *from, p4_dtype dtype, int64_t count)
{
    if (dtype == P4_F16) {
        from_f16(to, from, 1, count);
    } else {
        from_bf16(to, from, 1, count);
    }
}

void p4_cpu_weight_row(float *to, const p4_weight *weight, int64_t row, int64_t first, int64_t count)
{
    if (weight->dtype == P4_TERNARY) {
        const uint8_t *codes = (const uint8_t *)weight->data + row * p4_code_row_bytes(weight->cols);
        int64_t cols = weight->cols, group = p4_scale_group(weight->scale_group, cols);
        for (int64_t c = first, end; c < first + count; c = end) {
            int64_t at = (row * cols + c) / group;
            end = p4_min_i64(first + count, (at + 1) * group - row * cols);
            from_codes(to + (c - first), codes, p4_f16_to_f32(weight->scale[at]), c, end - c);
        }
        return;
    }
    int64_t stride = weight->transposed ? weight->rows : 1;
    int64_t start = weight->transposed ? first * weight->rows + row : row * weight->cols + first;
    const char *from = (const char *)weight->data + start * p4_dtype_bytes(weight->dtype);
    if (weight->dtype == P4_F32) {
        from_f32(to, (const p4_loose_f32 *)from, stride, count);
    } else if (weight->dtype == P4_F16) {
        from_f16(to, (const p4_loose_u16 *)from, stride, count);
    } else {
        from_bf16(to, (const p4_loose_u16 *)from, stride, count);
    }
}

void p4_cpu_weight_unpack(p4_device *device, void *dst, const p4_weight *weight)
{
    enum { COLS = 256 }; /* a tile of a transposed weight that fits the first-level cache */
    float *to = dst;
    int64_t cols = weight->cols, col_step = weight->transposed ? COLS : p4_max_i64(cols, 1);
#pragma omp parallel for collapse(2) schedule(static) num_threads(device->threads)
    for (int64_t row = 0; row < weight->rows; row += UNPACK_ROWS) {
        for (int64_t col = 0; col < cols; col += col_step) {
            int64_t end = p4_min_i64(row + UNPACK_ROWS, weight->rows);
            for (int64_t r = row; r < end; r++) {
                p4_cpu_weight_row(to + r * cols + col, weight, r, col, p4_min_i64(col_step, cols - col));
            }
        }
    }
}

void p4_cpu_weight_f32(p4_device *device, float *dst, const p4_weight *weight)
{
    if (weight->dtype == P4_TERNARY) {
        snprintf(device->failure, sizeof device->failure, "weight_f32: a ternary weight");
        return;
    }
    p4_cpu_weight_unpack(device, dst, weight); /* activations are fp32 here */
}

void p4_cpu_linear_forward(p4_device *device, void *y, const void *x, const void *w, const float *bias,
                           int64_t N, int64_t in, int64_t out)
{
    p4_cpu_gemm(device, &(p4_gemm){.trans_b = true,
                                   .M = N,
                                   .N = out,
                                   .K = in,
                                   .alpha = 1.0f,
                                   .A = x,
                                   .lda = in,
                                   .B = w,
                                   .ldb = in,
                                   .C = y,
                                   .ldc = out,
                                   .bias = bias});
}

void p4_cpu_linear_backward_input(p4_device *device, void *dx, const void *dy, const void *w, int64_t N,
                                  int64_t in, int64_t out, bool accumulate)
{
    p4_cpu_gemm(device, &(p4_gemm){.M = N,
                                   .N = in,
                                   .K = out,
                                   .alpha = 1.0f,
                                   .beta = accumulate ? 1.0f : 0.0f,
                                   .A = dy,
                                   .lda = out,
                                   .B = w,
                                   .ldb = in,
                                   .C = dx,
                                   .ldc = in});
}

void p4_cpu_linear_backward_weight(p4_device *device, const p4_linear_backward_weight_args *args)
{
    p4_cpu_gemm(device, &(p4_gemm){.trans_a = true,
                                   .M = args->out,
                                   .N = args->in,
                                   .K = args->N,
                                   .alpha = 1.0f,
                                   .beta = args->accumulate ? 1.0f : 0.0f,
                                   .A = args->dy,
                                   .lda = args->ld_dy,
                                   .B = args->x,
                                   .ldb = args->in,
                                   .C = args->dw,
                                   .ldc = args->in});
}

P4_MULTIVERSION static void add_column_sums(float *db, const float *dy, int64_t N, int64_t ld, int64_t width)
{
    double sum[BIAS_COLS] = {0};
    for (int64_t n = 0; n < N; n++) {
        for (int64_t c = 0; c < width; c++) {
            sum[c] += (double)dy[n * ld + c];
        }
    }
    for (int64_t c = 0; c < width; c++) {
        db[c] += (float)sum[c];
    }
}

void p4_cpu_linear_backward_bias(p4_device *device, float *db, const void *dy, int64_t N, int64_t out,
                                 int64_t ld_dy)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t c = 0; c < out; c += BIAS_COLS) {
        add_column_sums(db + c, (const float *)dy + c, N, ld_dy, p4_min_i64(BIAS_COLS, out - c));
    }
}
