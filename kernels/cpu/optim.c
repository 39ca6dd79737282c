/* optim.c - sums of whole arrays, Grokfast and AdamW. */
#include <math.h>

#include "kernels/cpu/vmath.h"

enum { SUM_PIECES = 256, SUM_LANES = 512 };

/* Squares and sums are double throughout: in fp32, large gradients would overflow. */
P4_MULTIVERSION static double piece_sum_sq(const float *g, int64_t count)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        sum += (double)g[i] * (double)g[i];
    }
    return sum;
}

void p4_cpu_add_sq_norm(p4_device *device, double *sum, const float *g, int64_t count)
{
    double parts[SUM_PIECES];
    int64_t each = p4_max_i64(SUM_LANES, p4_ceil_div(count, SUM_PIECES)), pieces = p4_ceil_div(count, each);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < pieces; i++) {
        parts[i] = piece_sum_sq(g + i * each, p4_min_i64(each, count - i * each));
    }
    for (int64_t i = 0; i < pieces; i++) {
        *sum += parts[i];
    }
}

/* On one thread: these are a few thousand losses. */
void p4_cpu_add_sum(p4_device *device, double *sum, const float *x, int64_t count)
{
    (void)device;
    for (int64_t i = 0; i < count; i++) {
        *sum += (double)x[i];
    }
}

void p4_cpu_clip(p4_device *device, const p4_clip_args *a)
{
    double error = 0.0, squares = *a->squares;
    (void)device;
    for (int64_t r = 0; r < a->ranks; r++) {
        error += a->figures[r].error;
        squares += a->figures[r].squares;
    }
    const double divisor = a->numbers->divisor, norm = sqrt(squares) / divisor;
    const double factor = a->clip > 0 && norm > a->clip ? a->clip / norm : 1.0;
    *a->result = (p4_clip_result){.error = error, .norm = norm};
    a->numbers->g_scale = isfinite(norm) && isfinite(error) ? (float)(factor / divisor) : NAN;
}

void p4_cpu_add_f32(p4_device *device, float *sum, const float *addend, int64_t count)
{
    p4_cpu_add(device, sum, sum, addend, 1.0f, count); /* activations are fp32 here */
}

P4_MULTIVERSION static void load_state(float *restrict to, const uint16_t *restrict from, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(&to[i], &bits, sizeof bits);
    }
}

P4_MULTIVERSION static void store_state(uint16_t *restrict to, const float *restrict from, uint64_t key,
                                        uint64_t index, int shift, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &from[i], sizeof bits);
        to[i] = p4_state_round_bits(bits, p4_state_draw(key, index + (uint64_t)i) >> shift);
    }
}

/* The versions of a function that is not static would be exported by the library, hence these wrappers. */
void p4_cpu_state_load(float *to, const uint16_t *from, int64_t count)
{
    load_state(to, from, count);
}

void p4_cpu_state_store(uint16_t *to, const float *from, uint64_t key, uint64_t index, int shift,
                        int64_t count)
{
    store_state(to, from, key, index, shift, count);
}

P4_MULTIVERSION static void grokfast_piece(float *restrict g, float *restrict ema, float alpha, float lambda,
                                           bool first, int64_t count)
{
    if (first) {
        memcpy(ema, g, (size_t)count * sizeof *g);
    }
    for (int64_t i = 0; i < count && !first; i++) {
        ema[i] = alpha * ema[i] + (1.0f - alpha) * g[i];
    }
    for (int64_t i = 0; i < count; i++) {
        g[i] += lambda * ema[i];
    }
}

void p4_cpu_grokfast(p4_device *device, const p4_grokfast_args *a)
{
    bool first = a->numbers->first != 0;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < a->count; i += P4_STATE_PIECE) {
        int64_t here = p4_min_i64(P4_STATE_PIECE, a->count - i);
        if (a->half) {
            float wide[P4_STATE_PIECE];
            uint16_t *stored = (uint16_t *)a->ema + i;
            p4_cpu_state_load(wide, stored, here);
            grokfast_piece(a->g + i, wide, a->alpha, a->lambda, first, here);
            p4_cpu_state_store(stored, wide, a->numbers->key, a->index + (uint64_t)i, 0, here);
        } else {
            grokfast_piece(a->g + i, (float *)a->ema + i, a->alpha, a->lambda, first, here);
        }
    }
}

/* The numbers of an AdamW step that are the same for every element. */
typedef struct adam_step {
    float g_scale, lr, beta1, beta2, eps, decay;
    float m_correction, v_correction;
} adam_step;

P4_MULTIVERSION static void adamw_piece(float *restrict w, float *restrict m, float *restrict v,
                                        const float *restrict g, const adam_step *step, int64_t count)
{
    adam_step s = *step;
    for (int64_t i = 0; i < count; i++) {
        float gradient = g[i] * s.g_scale;
        m[i] = s.beta1 * m[i] + (1.0f - s.beta1) * gradient;
        v[i] = s.beta2 * v[i] + (1.0f - s.beta2) * gradient * gradient;
        float update = m[i] * s.m_correction / (sqrtf(v[i] * s.v_correction) + s.eps);
        w[i] -= s.lr * (update + s.decay * w[i]);
    }
}

/* The same on bf16 state. */
static void adamw_half_piece(const p4_adamw_item *a, int64_t i, const adam_step *s, uint64_t key,
                             int64_t count)
{
    float m[P4_STATE_PIECE], v[P4_STATE_PIECE];
    uint16_t *stored_m = (uint16_t *)a->m + i, *stored_v = (uint16_t *)a->v + i;
    p4_cpu_state_load(m, stored_m, count);
    p4_cpu_state_load(v, stored_v, count);
    adamw_piece(a->w + i, m, v, a->g + i, s, count);
    p4_cpu_state_store(stored_m, m, key, a->index + (uint64_t)i, 0, count);
    p4_cpu_state_store(stored_v, v, key, a->index + (uint64_t)i, 16, count);
}

void p4_cpu_adamw(p4_device *device, const p4_adamw_item *h_items, int64_t items, float beta1, float beta2,
                  float eps, bool half, const p4_step_numbers *numbers)
{
    adam_step s = {.g_scale = numbers->g_scale,
                   .lr = numbers->lr,
                   .beta1 = beta1,
                   .beta2 = beta2,
                   .eps = eps,
                   .m_correction = numbers->m_correction,
                   .v_correction = numbers->v_correction};
    items = isnan(s.g_scale) ? 0 : items;
    for (const p4_adamw_item *a = h_items; a < h_items + items; a++) {
        s.decay = a->decay;
#pragma omp parallel for schedule(static) num_threads(device->threads)
        for (int64_t i = 0; i < a->count; i += P4_STATE_PIECE) {
            int64_t count = p4_min_i64(P4_STATE_PIECE, a->count - i);
            if (half) {
                adamw_half_piece(a, i, &s, numbers->key, count);
            } else {
                adamw_piece(a->w + i, (float *)a->m + i, (float *)a->v + i, a->g + i, &s, count);
            }
        }
    }
}
