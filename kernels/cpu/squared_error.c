/* squared_error.c - the distance between two arrays of activations, and its gradient. */
#include "kernels/cpu/cpu.h"

enum { PIECES = 256, PIECE_LEAST = 8192, BLOCK = 512 };

/* Where there is no delta or target, zeros stand in for them; the sums are double throughout. */
P4_MULTIVERSION static double block_error(float *error, const float *x, const float *delta,
                                          const float *target, float scale, int64_t count)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        float e = x[i] + scale * delta[i] - target[i];
        sum += (double)e * (double)e;
        error[i] = e;
    }
    return sum;
}

P4_MULTIVERSION static void scale_block(float *to, const float *error, float scale, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = scale * error[i];
    }
}

static double piece_error(const p4_squared_error_args *a, int64_t first, int64_t end)
{
    static const float zeros[BLOCK] = {0};
    float error[BLOCK];
    double sum = 0.0;
    for (int64_t i = first; i < end; i += BLOCK) {
        int64_t count = p4_min_i64(BLOCK, end - i);
        sum += block_error(error, (const float *)a->x + i,
                           a->opt_delta != NULL ? (const float *)a->opt_delta + i : zeros,
                           a->opt_target != NULL ? (const float *)a->opt_target + i : zeros,
                           a->delta_scale > 0.0f ? a->delta_scale : 1.0f, count);
        if (a->opt_dx != NULL) {
            scale_block((float *)a->opt_dx + i, error, a->scale, count);
        }
    }
    return sum;
}

void p4_cpu_squared_error(p4_device *device, const p4_squared_error_args *a)
{
    double parts[PIECES];
    int64_t each = p4_max_i64(PIECE_LEAST, p4_ceil_div(a->count, PIECES)),
            pieces = p4_ceil_div(a->count, each);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < pieces; i++) {
        parts[i] = piece_error(a, i * each, p4_min_i64(a->count, (i + 1) * each));
    }
    for (int64_t i = 0; i < pieces; i++) {
        *a->sum += parts[i];
    }
}
