/* attention_cached.c - attention of new tokens to a cache of keys and values. Softmax is taken on the way, in
 * pieces of keys: the sums so far are rescaled when a larger score comes up. */
#include <math.h>

#include "kernels/cpu/dots.h"
#include "kernels/cpu/vmath.h"

enum {
    KEYS = 64,              /* of a piece */
    TEAM_ELEMENTS = 1 << 16 /* of keys that a thread should read: to wake it takes as long as that */
};

P4_MULTIVERSION static float row_max(const float *x, float largest, int64_t count)
{
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < count; i++) {
        largest = x[i] > largest ? x[i] : largest;
    }
    return largest;
}

/* x = exp(x - shift); the sum. */
P4_MULTIVERSION static float row_exp(float *x, float shift, int64_t count)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        x[i] = p4_exp_f32(x[i] - shift);
        sum += x[i];
    }
    return sum;
}

P4_MULTIVERSION static void row_cap(float *x, float cap, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] = cap * p4_tanh_f32(x[i] / cap);
    }
}

P4_MULTIVERSION static void row_scale(float *x, float factor, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] *= factor;
    }
}

P4_MULTIVERSION static void add_f32(float *to, const p4_loose_f32 *v, float p, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] += p * v[i];
    }
}

/* out [D] of one query: keys [from, to) of its head. */
static void attend(float *out, const p4_attention_cached_args *a, const float *q, int64_t kv, int64_t from,
                   int64_t to)
{
    const p4_dots *dots = p4_cpu_dots();
    int64_t D = a->shape.D, row_bytes = D * p4_dtype_bytes(a->type);
    const char *keys = (const char *)a->keys + kv * a->capacity * row_bytes,
               *values = (const char *)a->values + kv * a->capacity * row_bytes;
    float scores[KEYS], largest = -INFINITY, sum = 0.0f;
    memset(out, 0, (size_t)D * sizeof *out);
    for (int64_t first = from; first < to; first += KEYS) {
        int64_t count = p4_min_i64(KEYS, to - first);
        if (a->type == P4_F16) {
            dots->f16_rows(scores, keys + first * row_bytes, q, count, D);
        }
        for (int64_t i = 0; a->type == P4_F32 && i < count; i++) {
            scores[i] = dots->f32(keys + (first + i) * row_bytes, q, D);
        }
        row_scale(scores, a->shape.scale, count);
        if (a->shape.cap > 0.0f) {
            row_cap(scores, a->shape.cap, count);
        }
        float before = largest;
        largest = row_max(scores, largest, count);
        float factor = first > from ? expf(before - largest) : 0.0f;
        if (factor != 1.0f) {
            row_scale(out, factor, D);
        }
        sum = sum * factor + row_exp(scores, largest, count);
        if (a->type == P4_F16) {
            dots->add_f16_rows(out, values + first * row_bytes, scores, count, D);
        }
        for (int64_t i = 0; a->type == P4_F32 && i < count; i++) {
            add_f32(out, (const p4_loose_f32 *)(values + (first + i) * row_bytes), scores[i], D);
        }
    }
    row_scale(out, 1.0f / sum, D);
}

/* A row of the cache from the elements of a head. */
static void store(void *cache, p4_dtype type, int64_t at, const float *from, int64_t D)
{
    if (type == P4_F16) {
        p4_f32s_to_f16((uint16_t *)cache + at, from, D);
    } else {
        memcpy((float *)cache + at, from, (size_t)D * sizeof *from);
    }
}

void p4_cpu_attention_cached(p4_device *device, const p4_attention_cached_args *a)
{
    const p4_attention_shape *s = &a->shape;
    int64_t T = s->T, H = s->H, Hkv = s->Hkv, D = s->D, width = (H + 2 * Hkv) * D;
    const int64_t past = *a->past;
    const float *qkv = a->qkv;
    int64_t worth = T * H * (past + T) * D / TEAM_ELEMENTS;
#pragma omp parallel for collapse(2) schedule(static) num_threads(p4_cpu_team(device, T))
    for (int64_t t = 0; t < T; t++) {
        for (int64_t kv = 0; kv < Hkv; kv++) {
            int64_t at = (kv * a->capacity + past + t) * D;
            store(a->keys, a->type, at, qkv + t * width + (H + kv) * D, D);
            store(a->values, a->type, at, qkv + t * width + (H + Hkv + kv) * D, D);
        }
    }
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(p4_cpu_team(device, worth))
    for (int64_t t = 0; t < T; t++) {
        for (int64_t head = 0; head < H; head++) {
            int64_t end = past + t + 1, from = s->window > 0 ? p4_max_i64(0, end - s->window) : 0;
            attend((float *)a->out + (t * H + head) * D, a, qkv + t * width + head * D, head / (H / Hkv),
                   from, end);
        }
    }
}
