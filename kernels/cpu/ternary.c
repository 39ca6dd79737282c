/* ternary.c - quantize: weights to 2-bit codes and one fp16 scale a row. */
#include <float.h>
#include <math.h>
#include <stdio.h>

#include "kernels/cpu/vmath.h"
#include "src/leaf/absmean.h"

enum {
    TILE_ROWS = 16,   /* rows fetched together from a transposed weight: one cache line of its fp32 columns */
    PIECES = 256,     /* pieces of the matrix whose error sums are added in order */
    CODE_PIECE = 256, /* codes spread one a byte before they are packed */
    TILE_ELEMENTS = 1 << 20,
};

/* What one row needs besides its elements. */
typedef struct row_task {
    p4_quant_method method;
    float threshold;
    const float *importance;
    void *exact_work;
    bool wants_error;
} row_task;

P4_MULTIVERSION static double row_abs_sum(const p4_loose_f32 *w, int64_t cols)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < cols; c++) {
        sum += (double)fabsf(w[c]);
    }
    return sum;
}

static int64_t count_nonfinite(const p4_loose_f32 *w, int64_t cols)
{
    int64_t count = 0;
    for (int64_t c = 0; c < cols; c++) {
        count += (p4_bits_of(w[c]) & 0x7fffffffu) >= 0x7f800000u;
    }
    return count;
}

/* codes = 1 + t, t = sign(w) where |w| >= cut (cut > 0), four a byte, low bits first. */
P4_MULTIVERSION static void row_codes(uint8_t *codes, const p4_loose_f32 *w, float cut, int64_t cols)
{
    uint8_t spread[CODE_PIECE];
    for (int64_t first = 0; first < cols; first += CODE_PIECE) {
        int64_t count = p4_min_i64(CODE_PIECE, cols - first), bytes = (count + 3) / 4;
        for (int64_t i = 0; i < count; i++) {
            float value = w[first + i];
            spread[i] = (uint8_t)(1 + (value >= cut) - (value <= -cut));
        }
        for (int64_t i = count; i < 4 * bytes; i++) {
            spread[i] = 1;
        }
        for (int64_t b = 0; b < bytes; b++) {
            codes[first / 4 + b] = (uint8_t)(spread[4 * b] | spread[4 * b + 1] << 2 | spread[4 * b + 2] << 4 |
                                             spread[4 * b + 3] << 6);
        }
    }
}

P4_MULTIVERSION static void row_error(p4_quant_error *error, const p4_loose_f32 *w, float cut, float scale,
                                      int64_t cols)
{
    double sq_error = 0.0, sq_norm = 0.0;
    int64_t zeros = 0;
#pragma omp simd reduction(+ : sq_error, sq_norm, zeros)
    for (int64_t c = 0; c < cols; c++) {
        float magnitude = fabsf(w[c]);
        double kept = magnitude >= cut ? (double)scale : 0.0;
        double difference = (double)magnitude - kept;
        sq_error += difference * difference;
        sq_norm += (double)magnitude * (double)magnitude;
        zeros += magnitude >= cut ? 0 : 1;
    }
    error->sq_error += sq_error;
    error->sq_norm += sq_norm;
    error->zeros += zeros;
}

static void quantize_row(uint8_t *codes, uint16_t *scale, p4_quant_error *error, const p4_loose_f32 *w,
                         int64_t cols, const row_task *task)
{
    float cut, row_scale;
    if (task->method == P4_QUANT_EXACT) {
        p4_exact_set set = p4_cpu_exact_row(w, task->importance, cols, task->exact_work);
        cut = set.cut;
        row_scale = set.scale;
    } else {
        row_scale = p4_absmean_scale(row_abs_sum(w, cols), cols);
        cut = p4_absmean_cut(task->threshold, row_scale);
    }
    *scale = p4_f32_to_f16(row_scale);
    row_codes(codes, w, cut, cols);
    if (task->wants_error) {
        float stored = p4_f16_to_f32(*scale);
        row_error(error, w, cut, stored, cols);
        error->scale_min = fminf(error->scale_min, stored);
        error->scale_max = fmaxf(error->scale_max, stored);
        if (!isfinite(error->sq_norm)) {
            error->nonfinite += count_nonfinite(w, cols);
        }
    }
}

/* Rows [row, row + rows) of any weight as fp32, `tile` [rows, cols]. */
static void fetch_rows(float *tile, const p4_weight *weight, int64_t row, int64_t rows)
{
    enum { COLS = 256 };
    int64_t cols = weight->cols, step = weight->transposed ? COLS : cols;
    for (int64_t col = 0; col < cols; col += step) {
        for (int64_t r = 0; r < rows; r++) {
            p4_cpu_weight_row(tile + r * cols + col, weight, row + r, col, p4_min_i64(step, cols - col));
        }
    }
}

static p4_quant_error quantize_rows(uint8_t *codes, uint16_t *scale, const p4_weight *weight, int64_t row,
                                    int64_t end, int64_t tile_rows, float *tile, const row_task *task)
{
    p4_quant_error error = {.scale_min = INFINITY, .scale_max = -INFINITY};
    int64_t cols = weight->cols, row_bytes = p4_code_row_bytes(cols);
    for (; row < end; row += tile_rows) {
        int64_t rows = p4_min_i64(tile_rows, end - row);
        const p4_loose_f32 *elements = tile;
        if (weight->dtype == P4_F32 && !weight->transposed) {
            elements =
                (const p4_loose_f32 *)((const char *)weight->data + row * cols * (int64_t)sizeof(float));
        } else {
            fetch_rows(tile, weight, row, rows);
        }
        for (int64_t r = 0; r < rows; r++) {
            quantize_row(codes + (row + r) * row_bytes, scale + row + r, &error, elements + r * cols, cols,
                         task);
        }
    }
    return error;
}

static void add_error(p4_quant_error *sum, const p4_quant_error *part)
{
    sum->sq_error += part->sq_error;
    sum->sq_norm += part->sq_norm;
    sum->zeros += part->zeros;
    sum->nonfinite += part->nonfinite;
    sum->scale_min = fminf(sum->scale_min, part->scale_min);
    sum->scale_max = fmaxf(sum->scale_max, part->scale_max);
}

/* Rows that are brought into fp32 at a time, and what a thread needs for them. */
typedef struct tile {
    int64_t rows, tile_bytes, slice_bytes; /* of a thread: the tile, with the work of the rule */
    int64_t piece_rows, pieces;            /* of the matrix, which threads take one after another */
    int threads;
} tile;

static tile tile_of(p4_device *device, const p4_weight *weight, p4_quant_method method)
{
    int64_t rows = weight->rows, cols = weight->cols;
    bool in_place = weight->dtype == P4_F32 && !weight->transposed;
    tile t = {.rows = p4_max_i64(1, p4_min_i64(TILE_ROWS, TILE_ELEMENTS / p4_max_i64(cols, 1)))};
    t.tile_bytes = in_place ? 0 : p4_ceil_div(t.rows * cols * (int64_t)sizeof(float), 64) * 64;
    int64_t work_bytes = method == P4_QUANT_EXACT ? p4_ceil_div(p4_cpu_exact_work_bytes(cols), 64) * 64 : 0;
    t.slice_bytes = t.tile_bytes + work_bytes;
    t.piece_rows = TILE_ROWS * p4_max_i64(1, p4_ceil_div(rows, TILE_ROWS * PIECES));
    t.pieces = p4_ceil_div(rows, t.piece_rows);
    t.threads =
        t.pieces > 1 ? device->threads : 1; /* a piece is long: all threads are worth it from two on */
    return t;
}

int64_t p4_cpu_quantize_scratch_bytes(p4_device *device, const p4_weight *weight, p4_quant_method method)
{
    const tile t = tile_of(device, weight, method);
    return t.slice_bytes * t.threads;
}

void p4_cpu_quantize(p4_device *device, uint8_t *codes, uint16_t *scale, p4_quant_error *h_error,
                     const p4_weight *weight, p4_quant_method method, float threshold,
                     const float *importance)
{
    if (method != P4_QUANT_ABSMEAN && method != P4_QUANT_EXACT) {
        snprintf(device->failure, sizeof device->failure, "quantize: the CPU backend has no rule %d",
                 (int)method);
        return;
    }
    const tile t = tile_of(device, weight, method);
    const int64_t rows = weight->rows, slice = t.slice_bytes;
    char *scratch = slice ? p4_cpu_team_scratch(device, slice, t.threads) : NULL;
    if (slice && !scratch) {
        return;
    }
    p4_quant_error parts[PIECES];
#pragma omp parallel for schedule(dynamic) num_threads(t.threads)
    for (int64_t i = 0; i < t.pieces; i++) {
        char *own = scratch + (slice ? omp_get_thread_num() * slice : 0);
        row_task task = {.method = method,
                         .threshold = threshold,
                         .importance = importance,
                         .exact_work = own + t.tile_bytes,
                         .wants_error = h_error != NULL};
        parts[i] =
            quantize_rows(codes, scale, weight, i * t.piece_rows, p4_min_i64((i + 1) * t.piece_rows, rows),
                          t.rows, (float *)(void *)own, &task);
    }
    if (h_error) {
        *h_error = (p4_quant_error){.scale_min = INFINITY, .scale_max = -INFINITY};
        for (int64_t i = 0; i < t.pieces; i++) {
            add_error(h_error, &parts[i]);
        }
    }
}
