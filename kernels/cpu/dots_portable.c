/* dots_portable.c - the dot products in portable C: the reference. */
#include "kernels/cpu/dots.h"

#include "kernels/cpu/vmath.h"

P4_MULTIVERSION static int32_t planes_of(int8_t *planes, const int8_t *x, int64_t cols)
{
    enum { PLANE = P4_PLANES_BLOCK / 4 };
    int32_t sum = 0;
    int64_t whole = cols / P4_PLANES_BLOCK * P4_PLANES_BLOCK;
    for (int64_t block = 0; block < whole; block += P4_PLANES_BLOCK) {
        for (int64_t b = 0; b < PLANE; b++) {
            for (int64_t i = 0; i < 4; i++) {
                int8_t value = x[block + 4 * b + i];
                planes[block + i * PLANE + b] = value;
                sum += value;
            }
        }
    }
    if (whole < cols) {
        memset(planes + whole, 0, P4_PLANES_BLOCK);
    }
    for (int64_t c = whole; c < cols; c++) {
        planes[whole + c % 4 * PLANE + (c - whole) / 4] = x[c];
        sum += x[c];
    }
    return sum;
}

static int32_t dot_planes(const uint8_t *codes, const int8_t *planes, int64_t cols)
{
    int32_t sum = 0;
    for (int64_t c = 0; c < cols; c++) {
        int64_t within = c % P4_PLANES_BLOCK;
        sum += (codes[c / 4] >> 2 * (c % 4) & 3) *
               planes[c - within + within % 4 * (P4_PLANES_BLOCK / 4) + within / 4];
    }
    return sum;
}

static void rows(int32_t *sums, const uint8_t *codes, int64_t row_bytes, const int8_t *planes, int64_t cols)
{
    for (int r = 0; r < P4_DOT_LANES; r++) {
        sums[r] = dot_planes(codes + r * row_bytes, planes, cols);
    }
}

static void tokens(int32_t *sums, const uint8_t *codes, const int8_t *planes, int64_t stride, int64_t cols)
{
    for (int n = 0; n < P4_DOT_LANES; n++) {
        sums[n] = dot_planes(codes, planes + n * stride, cols);
    }
}

P4_MULTIVERSION static float dot_f32(const void *w, const float *x, int64_t cols)
{
    const p4_loose_f32 *row = w;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < cols; c++) {
        sum += row[c] * x[c];
    }
    return sum;
}

P4_MULTIVERSION static float dot_f16(const void *w, const float *x, int64_t cols)
{
    const p4_loose_u16 *row = w;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < cols; c++) {
        sum += p4_half_value(row[c]) * x[c];
    }
    return sum;
}

P4_MULTIVERSION static float dot_bf16(const void *w, const float *x, int64_t cols)
{
    const p4_loose_u16 *row = w;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < cols; c++) {
        sum += p4_bfloat_value(row[c]) * x[c];
    }
    return sum;
}

P4_MULTIVERSION static float dot_codes(const void *w, const float *x, int64_t cols)
{
    const uint8_t *codes = w;
    float sum = 0.0f;
    int64_t whole = cols / 4 * 4;
    for (int64_t c = 0; c < whole; c += 4) {
        for (int i = 0; i < 4; i++) {
            sum += (float)((codes[c / 4] >> 2 * i & 3) - 1) * x[c + i];
        }
    }
    for (int64_t c = whole; c < cols; c++) {
        sum += (float)((codes[c / 4] >> 2 * (c % 4) & 3) - 1) * x[c];
    }
    return sum;
}

P4_MULTIVERSION static void add_f16_row(float *to, const p4_loose_u16 *row, float p, int64_t cols)
{
    for (int64_t c = 0; c < cols; c++) {
        to[c] += p * p4_half_value(row[c]);
    }
}

static void f16_rows(float *to, const void *w, const float *x, int64_t count, int64_t cols)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = dot_f16((const char *)w + 2 * i * cols, x, cols);
    }
}

/* Versions for several machines are static: the linker exports the others, whatever their visibility. */
int32_t p4_dots_planes(int8_t *planes, const int8_t *x, int64_t cols)
{
    return planes_of(planes, x, cols);
}

float p4_dots_f32(const void *w, const float *x, int64_t cols)
{
    return dot_f32(w, x, cols);
}

void p4_dots_add_f16_rows(float *to, const void *w, const float *p, int64_t count, int64_t cols)
{
    for (int64_t i = 0; i < count; i++) {
        add_f16_row(to, (const p4_loose_u16 *)w + i * cols, p[i], cols);
    }
}

const p4_dots p4_cpu_dots_portable = {.name = "portable",
                                      .planes = p4_dots_planes,
                                      .rows = rows,
                                      .tokens = tokens,
                                      .f32 = p4_dots_f32,
                                      .f16 = dot_f16,
                                      .bf16 = dot_bf16,
                                      .codes = dot_codes,
                                      .f16_rows = f16_rows,
                                      .add_f16_rows = p4_dots_add_f16_rows};
