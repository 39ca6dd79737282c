/* embed.c - token and position embeddings, rotary positions. */
#include "kernels/cpu/cpu.h"

enum { EMBED_ROWS = 16, EMBED_COLS = 64, ROPE_ROWS = 16 };

P4_MULTIVERSION static void add_to(float *to, const float *from, float scale, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] += scale * from[i];
    }
}

P4_MULTIVERSION static void scale_row(float *x, float scale, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] *= scale;
    }
}

/* Adds a piece of a position row, through a small buffer: ops do not allocate. */
static void add_position(float *x, const p4_weight *position, int64_t row, int64_t C)
{
    enum { PIECE = 512 };
    float piece[PIECE];
    for (int64_t c = 0; c < C; c += PIECE) {
        int64_t count = p4_min_i64(PIECE, C - c);
        p4_cpu_weight_row(piece, position, row, c, count);
        add_to(x + c, piece, 1.0f, count);
    }
}

void p4_cpu_embed_forward(p4_device *device, const p4_embed_forward_args *a)
{
    int64_t C = a->C;
#pragma omp parallel for schedule(static, EMBED_ROWS) num_threads(p4_cpu_team(device, a->B * a->T))
    for (int64_t n = 0; n < a->B * a->T; n++) {
        float *to = (float *)a->x + n * C;
        p4_cpu_weight_row(to, a->token, a->ids[n], 0, C);
        if (a->scale > 0.0f) {
            scale_row(to, a->scale, C);
        }
        if (a->opt_position) {
            add_position(to, a->opt_position, n % a->T, C);
        }
    }
}

/* A thread owns a slice of the channels and walks over all tokens in order: no two threads write one element,
 * and the order of the sum is fixed. */
void p4_cpu_embed_backward(p4_device *device, const p4_embed_backward_args *a)
{
    const float *from = a->dx;
    const int32_t *ids = a->ids;
    float *dtoken = a->dtoken, *dposition = a->opt_dposition, scale = a->scale > 0.0f ? a->scale : 1.0f;
    int64_t B = a->B, T = a->T, C = a->C;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t c = 0; c < C; c += EMBED_COLS) {
        int64_t width = p4_min_i64(EMBED_COLS, C - c);
        for (int64_t n = 0; n < B * T; n++) {
            add_to(dtoken + ids[n] * C + c, from + n * C + c, scale, width);
            if (dposition) {
                add_to(dposition + n % T * C + c, from + n * C + c, 1.0f, width);
            }
        }
    }
}

P4_MULTIVERSION static void rotate_row(float *row, const float *cosine, const float *sine, int64_t heads,
                                       int64_t D, int64_t R, float direction)
{
    int64_t half = R / 2;
    for (int64_t h = 0; h < heads; h++) {
        float *first = row + h * D, *second = first + half;
        for (int64_t i = 0; i < half; i++) {
            float a = first[i], b = second[i], s = direction * sine[i];
            first[i] = a * cosine[i] - b * s;
            second[i] = b * cosine[i] + a * s;
        }
    }
}

P4_MULTIVERSION static void rotate_neighbors(float *row, const float *cosine, const float *sine,
                                             int64_t heads, int64_t D, int64_t R, float direction)
{
    for (int64_t h = 0; h < heads; h++) {
        float *pair = row + h * D;
        for (int64_t i = 0; i < R / 2; i++) {
            float a = pair[2 * i], b = pair[2 * i + 1], s = direction * sine[i];
            pair[2 * i] = a * cosine[i] - b * s;
            pair[2 * i + 1] = b * cosine[i] + a * s;
        }
    }
}

void p4_cpu_rope(p4_device *device, const p4_rope_args *a)
{
    float direction = a->backward ? -1.0f : 1.0f;
    int64_t R = a->R > 0 ? a->R : a->D;
#pragma omp parallel for schedule(static, ROPE_ROWS) num_threads(p4_cpu_team(device, a->N))
    for (int64_t n = 0; n < a->N; n++) {
        int64_t at = n % a->T * (R / 2);
        float *row = (float *)a->qkv + n * a->row_width;
        if (a->neighbors) {
            rotate_neighbors(row, a->cos_table + at, a->sin_table + at, a->heads, a->D, R, direction);
        } else {
            rotate_row(row, a->cos_table + at, a->sin_table + at, a->heads, a->D, R, direction);
        }
    }
}
