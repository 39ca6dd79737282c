/* linear_direct.c - products with weights as they are stored, without unpacking them: what decoding spends
 * its time on, one token at a time, and every product of int8 activations with codes (kernels/cpu/dots.h).
 *
 * Without contraction (cmake/flags of this file): what follows a sum of integers is rounded step by step. */
#include "kernels/cpu/dots.h"
#include "kernels/cpu/vmath.h"

enum {
    DIRECT_TOKENS = 4, /* up to so many, unpacking a weight takes longer than to read it once a token */
    DIRECT_COLS = 64,  /* from here on the workspace for activations has room for planes */
    DIRECT_ROWS = 64   /* of weights at a time: their codes stay in the second cache while tokens pass */
};

static int64_t row_bytes_of(const p4_weight *w)
{
    return w->dtype == P4_TERNARY ? p4_code_row_bytes(w->cols) : w->cols * p4_dtype_bytes(w->dtype);
}

/* Does each row have one scale, of its own or the whole matrix's? Other weights are unpacked. */
static bool has_row_scale(const p4_weight *w)
{
    return p4_scale_group(w->scale_group, w->cols) >= w->cols;
}

/* Pieces of DIRECT_ROWS rows, each of one part. */
static int64_t pieces_of(const p4_weight *weights, int64_t parts)
{
    int64_t pieces = 0;
    for (int64_t i = 0; i < parts; i++) {
        pieces += p4_ceil_div(weights[i].rows, DIRECT_ROWS);
    }
    return pieces;
}

/* Rows [row, end) of a part; first: the part's first channel among all of them. scale_rows: rows with one
 * scale. */
typedef struct piece {
    const p4_weight *weight;
    int64_t first, row, end, scale_rows;
} piece;

static piece piece_at(const p4_weight *weights, int64_t index)
{
    piece p = {.weight = weights};
    int64_t pieces;
    for (; index >= (pieces = p4_ceil_div(p.weight->rows, DIRECT_ROWS)); p.weight++) {
        index -= pieces;
        p.first += p.weight->rows;
    }
    p.row = index * DIRECT_ROWS;
    p.end = p4_min_i64(p.row + DIRECT_ROWS, p.weight->rows);
    p.scale_rows = p4_scale_group(p.weight->scale_group, p.weight->cols) / p.weight->cols;
    return p;
}

static inline float row_scale(const piece *p, int64_t row)
{
    return p4_half_value(p->weight->scale[p->scale_rows == 1 ? row : row / p->scale_rows]);
}

/* Threads for so many pieces of all parts and N tokens. */
static int team(const p4_device *device, const p4_weight *weights, int64_t parts, int64_t pieces, int64_t N)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < parts; i++) {
        bytes += row_bytes_of(&weights[i]) * weights[i].rows;
    }
    return p4_cpu_team(device, p4_min_i64(pieces, bytes * N / P4_THREAD_BYTES));
}

/* --- int8 activations and codes ---------------------------------------------------------------- */

/* All tokens, and what reads them. */
typedef struct int8_tokens {
    const p4_dots *dots;
    const p4_linear_forward_int8_args *a;
    int8_t *planes; /* [N, stride] */
    int32_t *sums;  /* [N]: of the tokens' activations */
    int64_t stride;
} int8_tokens;

/* The output of token n and row `row` of the part, from the sum of u x. inverse: 1 / s of the token. */
static inline void finish(const int8_tokens *t, const piece *p, int64_t n, float inverse, int64_t row,
                          int32_t dot)
{
    const p4_linear_forward_int8_args *a = t->a;
    float value = (float)(dot - t->sums[n]) * inverse;
    value = value * row_scale(p, row);
    if (a->opt_bias) {
        value = value + a->opt_bias[p->first + row];
    }
    ((float *)a->y)[n * a->out + p->first + row] = value;
}

static void rows_of_token(const int8_tokens *t, const piece *p, int64_t n)
{
    int64_t bytes = p4_code_row_bytes(t->a->in), row = p->row;
    const uint8_t *codes = p->weight->data;
    const int8_t *planes = t->planes + n * t->stride;
    const float inverse = 1.0f / t->a->x.s[n];
    int32_t sums[P4_DOT_LANES];
    for (; row + P4_DOT_LANES <= p->end; row += P4_DOT_LANES) {
        t->dots->rows(sums, codes + row * bytes, bytes, planes, t->a->in);
        for (int i = 0; i < P4_DOT_LANES; i++) {
            finish(t, p, n, inverse, row + i, sums[i]);
        }
    }
    for (; row < p->end; row++) { /* the same token in all lanes */
        t->dots->tokens(sums, codes + row * bytes, planes, 0, t->a->in);
        finish(t, p, n, inverse, row, sums[0]);
    }
}

static void rows_of_tokens(const int8_tokens *t, const piece *p)
{
    int64_t bytes = p4_code_row_bytes(t->a->in), n = 0;
    int32_t sums[P4_DOT_LANES];
    float inverse[P4_DOT_LANES];
    for (; n + P4_DOT_LANES <= t->a->N; n += P4_DOT_LANES) {
        for (int i = 0; i < P4_DOT_LANES; i++) {
            inverse[i] = 1.0f / t->a->x.s[n + i];
        }
        for (int64_t r = p->row; r < p->end; r++) {
            t->dots->tokens(sums, (const uint8_t *)p->weight->data + r * bytes, t->planes + n * t->stride,
                            t->stride, t->a->in);
            for (int i = 0; i < P4_DOT_LANES; i++) {
                finish(t, p, n + i, inverse[i], r, sums[i]);
            }
        }
    }
    for (; n < t->a->N; n++) {
        rows_of_token(t, p, n);
    }
}

bool p4_cpu_linear_int8_direct(p4_device *device, const p4_linear_forward_int8_args *a)
{
    const p4_dots *dots = p4_cpu_dots();
    bool direct = a->in >= DIRECT_COLS && (dots != &p4_cpu_dots_portable || a->N <= DIRECT_TOKENS);
    for (int64_t i = 0; i < a->parts; i++) {
        direct = direct && has_row_scale(&a->weights[i]);
    }
    if (!direct) {
        return false;
    }
    int8_tokens t = {.dots = dots,
                     .a = a,
                     .planes = (int8_t *)a->x_work + p4_ceil_div(a->N, 16) * 64,
                     .sums = a->x_work,
                     .stride = p4_planes_bytes(a->in)};
    int64_t width = p4_int8_width(a->in), pieces = pieces_of(a->weights, a->parts);
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, a->N))
    for (int64_t n = 0; n < a->N; n++) {
        t.sums[n] = dots->planes(t.planes + n * t.stride, a->x.codes + n * width, a->in);
    }
#pragma omp parallel for schedule(static) num_threads(team(device, a->weights, a->parts, pieces, a->N))
    for (int64_t i = 0; i < pieces; i++) {
        const piece p = piece_at(a->weights, i);
        rows_of_tokens(&t, &p);
    }
    return true;
}

/* --- fp32 activations and weights of any form --------------------------------------------------- */

static void direct_rows(const p4_linear_forward_weights_args *a, const piece *p)
{
    const p4_dots *dots = p4_cpu_dots();
    const p4_weight *w = p->weight;
    int64_t bytes = row_bytes_of(w);
    float (*dot)(const void *, const float *, int64_t) = w->dtype == P4_TERNARY ? dots->codes
                                                         : w->dtype == P4_F32   ? dots->f32
                                                         : w->dtype == P4_F16   ? dots->f16
                                                                                : dots->bf16;
    for (int64_t row = p->row; row < p->end; row++) {
        float scale = w->dtype == P4_TERNARY ? row_scale(p, row) : 1.0f,
              bias = a->opt_bias ? a->opt_bias[p->first + row] : 0.0f;
        for (int64_t n = 0; n < a->N; n++) {
            float sum = dot((const char *)w->data + row * bytes, (const float *)a->x + n * a->in, a->in);
            ((float *)a->y)[n * a->out + p->first + row] = sum * scale + bias;
        }
    }
}

static bool is_direct(const p4_linear_forward_weights_args *a)
{
    bool direct = a->N <= DIRECT_TOKENS;
    for (int64_t i = 0; i < a->parts; i++) {
        direct = direct && !a->weights[i].transposed && has_row_scale(&a->weights[i]);
    }
    return direct;
}

void p4_cpu_linear_forward_weights(p4_device *device, const p4_linear_forward_weights_args *a)
{
    if (!is_direct(a)) {
        float *to = a->w_work;
        for (int64_t i = 0; i < a->parts; i++) {
            p4_cpu_weight_unpack(device, to, &a->weights[i]);
            to += a->weights[i].rows * a->weights[i].cols;
        }
        p4_cpu_linear_forward(device, a->y, a->x, a->w_work, a->opt_bias, a->N, a->in, a->out);
        return;
    }
    int64_t pieces = pieces_of(a->weights, a->parts);
#pragma omp parallel for schedule(static) num_threads(team(device, a->weights, a->parts, pieces, a->N))
    for (int64_t i = 0; i < pieces; i++) {
        const piece p = piece_at(a->weights, i);
        direct_rows(a, &p);
    }
}
