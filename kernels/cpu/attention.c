/* attention.c - causal self-attention in blocks of query rows. The scores of a block against all keys it
 * may see are one product; keys after the block (and before its window) are never touched. Backward
 * recomputes the probabilities from the saved log-sum-exp. Work: forward one [QUERIES, T] array a thread,
 * backward two and one row. */
#include <math.h>

#include "kernels/cpu/vmath.h"

enum { QUERIES = 128 };

/* One block of queries of one head: rows [first, end) against keys [key_first, end). */
typedef struct block {
    const p4_attention_shape *shape;
    int64_t width; /* of a row of qkv */
    int64_t first, end, key_first;
    int64_t rows, keys; /* end - first, end - key_first */
} block;

static int64_t row_width(const p4_attention_shape *shape)
{
    return (shape->H + 2 * shape->Hkv) * shape->D;
}

static block make_block(const p4_attention_shape *shape, int64_t index)
{
    block b = {.shape = shape, .width = row_width(shape), .first = index * QUERIES};
    b.end = p4_min_i64(b.first + QUERIES, shape->T);
    b.key_first = shape->window > 0 ? p4_max_i64(0, b.first - shape->window + 1) : 0;
    b.rows = b.end - b.first;
    b.keys = b.end - b.key_first;
    return b;
}

/* Keys that query row `row` of the block sees: columns [*from, *to) of the scores. */
P4_INLINE void visible(const block *b, int64_t row, int64_t *from, int64_t *to)
{
    int64_t query = b->first + row, window = b->shape->window;
    int64_t key = window > 0 ? p4_max_i64(b->key_first, query - window + 1) : 0;
    *from = key - b->key_first;
    *to = query + 1 - b->key_first;
}

P4_MULTIVERSION static float row_max(const float *x, int64_t count)
{
    float largest = x[0];
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < count; i++) {
        largest = x[i] > largest ? x[i] : largest;
    }
    return largest;
}

/* p = exp(x - shift) in place; the sum. */
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

/* The soft cap of scaled scores. */
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

/* dp becomes the gradient of the raw scores: p (dp - delta) scale. */
P4_MULTIVERSION static void row_score_gradient(float *dp, const float *p, float delta, float scale,
                                               int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        dp[i] = p[i] * (dp[i] - delta) * scale;
    }
}

/* Scaled scores p, and dp, become probabilities and the gradient of the raw scores, through the cap. */
P4_MULTIVERSION static void row_capped_gradient(float *dp, float *p, float lse, float delta, float scale,
                                                float cap, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        float t = p4_tanh_f32(p[i] / cap);
        p[i] = p4_exp_f32(cap * t - lse);
        dp[i] = p[i] * (dp[i] - delta) * scale * (1.0f - t * t);
    }
}

P4_MULTIVERSION static float row_dot(const float *a, const float *b, int64_t count)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void clear_hidden(float *row, int64_t from, int64_t to, int64_t keys)
{
    memset(row, 0, (size_t)from * sizeof *row);
    memset(row + to, 0, (size_t)(keys - to) * sizeof *row);
}

int64_t p4_cpu_attention_work_count(p4_device *device, const p4_attention_shape *shape, bool backward)
{
    int64_t scores = p4_min_i64(QUERIES, shape->T) * shape->T;
    return device->threads * p4_ceil_div(backward ? 2 * scores : scores, 16) * 16;
}

/* q, k, v: this head's first element in the sequence's first row of qkv. */
static void forward_block(const p4_device *device, const block *b, float *out, float *lse, const float *q,
                          const float *k, const float *v, float *scores)
{
    int64_t D = b->shape->D, out_width = b->shape->H * D;
    p4_cpu_sgemm(device, false, true, b->rows, b->keys, D, b->shape->scale, q + b->first * b->width, b->width,
                 k + b->key_first * b->width, b->width, 0.0f, scores, b->keys);
    float inverse[QUERIES];
    for (int64_t r = 0; r < b->rows; r++) {
        int64_t from, to;
        float *row = scores + r * b->keys;
        visible(b, r, &from, &to);
        if (b->shape->cap > 0.0f) {
            row_cap(row + from, b->shape->cap, to - from);
        }
        float largest = row_max(row + from, to - from);
        float sum = row_exp(row + from, largest, to - from);
        clear_hidden(row, from, to, b->keys);
        inverse[r] = 1.0f / sum;
        if (lse) {
            lse[b->first + r] = largest + logf(sum);
        }
    }
    out += b->first * out_width;
    p4_cpu_sgemm(device, false, false, b->rows, D, b->keys, 1.0f, scores, b->keys,
                 v + b->key_first * b->width, b->width, 0.0f, out, out_width);
    for (int64_t r = 0; r < b->rows; r++) {
        row_scale(out + r * out_width, inverse[r], D);
    }
}

void p4_cpu_attention_forward(p4_device *device, const p4_attention_forward_args *args)
{
    const p4_attention_shape *shape = &args->shape;
    float *lse = args->opt_lse;
    int64_t T = shape->T, H = shape->H, D = shape->D, width = row_width(shape);
    int64_t blocks = p4_ceil_div(T, QUERIES),
            slice = p4_cpu_attention_work_count(device, shape, false) / device->threads;
#pragma omp parallel for collapse(3) schedule(dynamic) num_threads(device->threads)
    for (int64_t batch = 0; batch < shape->B; batch++) {
        for (int64_t head = 0; head < H; head++) {
            for (int64_t i = 0; i < blocks; i++) {
                const float *rows = (const float *)args->qkv + batch * T * width;
                int64_t kv = head / (H / shape->Hkv);
                block b = make_block(shape, i);
                forward_block(device, &b, (float *)args->out + batch * T * H * D + head * D,
                              lse ? lse + (batch * H + head) * T : NULL, rows + head * D, rows + (H + kv) * D,
                              rows + (H + shape->Hkv + kv) * D, args->work + omp_get_thread_num() * slice);
            }
        }
    }
}

/* One head's arrays, each at the sequence's first row. */
typedef struct head_arrays {
    const float *q, *k, *v, *out, *dout, *lse;
    float *dq, *dk, *dv;
} head_arrays;

/* Fills p (probabilities) and ds (gradient of the raw scores) of one block, both [rows, keys]. */
static void score_gradients(const p4_device *device, const block *b, const head_arrays *a, float *p,
                            float *ds)
{
    int64_t D = b->shape->D, out_width = b->shape->H * D;
    const float *dout = a->dout + b->first * out_width, *out = a->out + b->first * out_width;
    p4_cpu_sgemm(device, false, true, b->rows, b->keys, D, b->shape->scale, a->q + b->first * b->width,
                 b->width, a->k + b->key_first * b->width, b->width, 0.0f, p, b->keys);
    p4_cpu_sgemm(device, false, true, b->rows, b->keys, D, 1.0f, dout, out_width,
                 a->v + b->key_first * b->width, b->width, 0.0f, ds, b->keys);
    for (int64_t r = 0; r < b->rows; r++) {
        int64_t from, to;
        float *p_row = p + r * b->keys, *ds_row = ds + r * b->keys;
        visible(b, r, &from, &to);
        float lse = a->lse[b->first + r], scale = b->shape->scale, cap = b->shape->cap;
        float delta = row_dot(dout + r * out_width, out + r * out_width, D); /* = sum of p dp over the row */
        if (cap > 0.0f) {
            row_capped_gradient(ds_row + from, p_row + from, lse, delta, scale, cap, to - from);
        } else {
            row_exp(p_row + from, lse, to - from);
            row_score_gradient(ds_row + from, p_row + from, delta, scale, to - from);
        }
        clear_hidden(p_row, from, to, b->keys);
        clear_hidden(ds_row, from, to, b->keys);
    }
}

static void backward_head(const p4_device *device, const p4_attention_shape *shape, const head_arrays *a,
                          float *work)
{
    int64_t D = shape->D, out_width = shape->H * D;
    float *p = work, *ds = work + p4_min_i64(QUERIES, shape->T) * shape->T;
    for (int64_t i = 0; i < p4_ceil_div(shape->T, QUERIES); i++) {
        block b = make_block(shape, i);
        int64_t row = b.first * b.width, key_row = b.key_first * b.width;
        score_gradients(device, &b, a, p, ds);
        p4_cpu_sgemm(device, false, false, b.rows, D, b.keys, 1.0f, ds, b.keys, a->k + key_row, b.width, 0.0f,
                     a->dq + row, b.width);
        p4_cpu_sgemm(device, true, false, b.keys, D, b.rows, 1.0f, ds, b.keys, a->q + row, b.width, 1.0f,
                     a->dk + key_row, b.width);
        p4_cpu_sgemm(device, true, false, b.keys, D, b.rows, 1.0f, p, b.keys, a->dout + b.first * out_width,
                     out_width, 1.0f, a->dv + key_row, b.width);
    }
}

/* The gradient of a key head is the sum over its query heads in order; one thread owns it. */
void p4_cpu_attention_backward(p4_device *device, const p4_attention_backward_args *args)
{
    const p4_attention_shape *shape = &args->shape;
    int64_t T = shape->T, H = shape->H, Hkv = shape->Hkv, D = shape->D, group = H / Hkv,
            width = row_width(shape);
    int64_t slice = p4_cpu_attention_work_count(device, shape, true) / device->threads;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(device->threads)
    for (int64_t batch = 0; batch < shape->B; batch++) {
        for (int64_t kv = 0; kv < Hkv; kv++) {
            const float *rows = (const float *)args->qkv + batch * T * width;
            float *d_rows = (float *)args->dqkv + batch * T * width;
            head_arrays a = {.k = rows + (H + kv) * D,
                             .v = rows + (H + Hkv + kv) * D,
                             .dk = d_rows + (H + kv) * D,
                             .dv = d_rows + (H + Hkv + kv) * D};
            for (int64_t t = 0; t < T; t++) {
                memset(a.dk + t * width, 0, (size_t)D * sizeof(float));
                memset(a.dv + t * width, 0, (size_t)D * sizeof(float));
            }
            for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
                int64_t at = batch * T * H * D + head * D;
                a.q = rows + head * D;
                a.dq = d_rows + head * D;
                a.out = (const float *)args->out + at;
                a.dout = (const float *)args->dout + at;
                a.lse = args->lse + (batch * H + head) * T;
                backward_head(device, shape, &a, args->work + omp_get_thread_num() * slice);
            }
        }
    }
}
