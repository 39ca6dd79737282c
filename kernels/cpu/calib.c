/* calib.c - running sums over activations for calibration. */
#include <float.h>

#include "kernels/cpu/cpu.h"

enum { CHANNELS = 64, PIECES = 64 };

P4_MULTIVERSION static void add_squares(double *sum_sq, const float *x, int64_t N, int64_t ld, int64_t width)
{
    double sum[CHANNELS] = {0};
    for (int64_t n = 0; n < N; n++) {
        for (int64_t c = 0; c < width; c++) {
            double value = (double)x[n * ld + c];
            sum[c] += value * value;
        }
    }
    for (int64_t c = 0; c < width; c++) {
        sum_sq[c] += sum[c];
    }
}

void p4_cpu_channel_sum_sq(p4_device *device, double *sum_sq, const void *x, int64_t N, int64_t C)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t c = 0; c < C; c += CHANNELS) {
        add_squares(sum_sq + c, (const float *)x + c, N, C, p4_min_i64(CHANNELS, C - c));
    }
}

P4_MULTIVERSION static p4_moments rows_moments(const float *x, int64_t rows, int64_t width, int64_t ld)
{
    double sum = 0.0, sum_sq = 0.0;
    float low = FLT_MAX, high = -FLT_MAX;
    for (int64_t n = 0; n < rows; n++) {
        const float *row = x + n * ld;
#pragma omp simd reduction(+ : sum, sum_sq) reduction(min : low) reduction(max : high)
        for (int64_t c = 0; c < width; c++) {
            double value = (double)row[c];
            sum += value;
            sum_sq += value * value;
            low = row[c] < low ? row[c] : low;
            high = row[c] > high ? row[c] : high;
        }
    }
    return (p4_moments){
        .sum = sum, .sum_sq = sum_sq, .count = (double)(rows * width), .min = low, .max = high};
}

void p4_cpu_moments(p4_device *device, p4_moments *moments, const void *x, int64_t N, int64_t width,
                    int64_t ld)
{
    p4_moments parts[PIECES];
    int64_t rows = p4_max_i64(1, p4_ceil_div(N, PIECES)), pieces = p4_ceil_div(N, rows);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < pieces; i++) {
        parts[i] = rows_moments((const float *)x + i * rows * ld, p4_min_i64(rows, N - i * rows), width, ld);
    }
    for (int64_t i = 0; i < pieces; i++) {
        moments->sum += parts[i].sum;
        moments->sum_sq += parts[i].sum_sq;
        moments->count += parts[i].count;
        moments->min = parts[i].min < moments->min ? parts[i].min : moments->min;
        moments->max = parts[i].max > moments->max ? parts[i].max : moments->max;
    }
}
