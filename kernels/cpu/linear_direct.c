/* linear_direct.c - products with weights as they are stored, without unpacking them: what decoding spends
 * its time on, one token at a time, and every product of int8 activations with codes (kernels/cpu/dots.h).
 *
 * Without contraction (cmake/flags of this file): what follows a sum of integers is rounded step by step. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dots.h"

enum {
    DIRECT_TOKENS = 4,   /* up to so many, unpacking a weight takes longer than to read it once a token */
    DIRECT_COLS = 64,    /* from here on the workspace for activations has room for planes */
    DIRECT_ROWS = 64,    /* of weights at a time: their codes stay in the second cache while tokens pass */
    TEAM_BYTES = 1 << 17 /* of weights that a thread should read: to wake it takes as long as that */
};

static int64_t row_bytes_of(const p4_weight *w)
{
    return w->dtype == P4_TERNARY ? p4_code_row_bytes(w->cols) : w->cols * p4_dtype_bytes(w->dtype);
}

/* Threads for one part and N tokens. */
static int team(const p4_device *device, const p4_weight *w, int64_t N)
{
    int64_t pieces = p4_ceil_div(w->rows, DIRECT_ROWS), worth = row_bytes_of(w) * w->rows * N / TEAM_BYTES;
    return p4_cpu_team(device, p4_min_i64(pieces, worth));
}

/* --- int8 activations and codes ---------------------------------------------------------------- */

/* One product of all tokens with one part of the weights. */
typedef struct int8_part {
    const p4_dots *dots;
    const p4_linear_forward_int8_args *a;
    const p4_weight *weight;
    const int8_t *planes;  /* [N, stride] */
    const int32_t *sums;   /* [N]: of the tokens' activations */
    int64_t stride, first; /* first: the part's first channel among all of them */
} int8_part;

/* The output of token n and row `row` of the part, from the sum of u x. */
static inline void finish(const int8_part *p, int64_t n, int64_t row, int32_t dot)
{
    const p4_linear_forward_int8_args *a = p->a;
    float value = (float)(dot - p->sums[n]) * (1.0f / a->x.s[n]);
    value = value * p4_f16_to_f32(p->weight->scale[row]);
    if (a->opt_bias) {
        value = value + a->opt_bias[p->first + row];
    }
    ((float *)a->y)[n * a->out + p->first + row] = value;
}

/* Rows [row, end) for one token. */
static void rows_of_token(const int8_part *p, int64_t n, int64_t row, int64_t end)
{
    int64_t bytes = p4_code_row_bytes(p->a->in);
    const uint8_t *codes = p->weight->data;
    const int8_t *planes = p->planes + n * p->stride;
    int32_t sums[P4_DOT_LANES];
    for (; row + P4_DOT_LANES <= end; row += P4_DOT_LANES) {
        p->dots->rows(sums, codes + row * bytes, bytes, planes, p->a->in);
        for (int i = 0; i < P4_DOT_LANES; i++) {
            finish(p, n, row + i, sums[i]);
        }
    }
    for (; row < end; row++) { /* the same token in all lanes */
        p->dots->tokens(sums, codes + row * bytes, planes, 0, p->a->in);
        finish(p, n, row, sums[0]);
    }
}

static void rows_of_tokens(const int8_part *p, int64_t row, int64_t end)
{
    int64_t bytes = p4_code_row_bytes(p->a->in), n = 0;
    int32_t sums[P4_DOT_LANES];
    for (; n + P4_DOT_LANES <= p->a->N; n += P4_DOT_LANES) {
        for (int64_t r = row; r < end; r++) {
            p->dots->tokens(sums, (const uint8_t *)p->weight->data + r * bytes, p->planes + n * p->stride,
                            p->stride, p->a->in);
            for (int i = 0; i < P4_DOT_LANES; i++) {
                finish(p, n + i, r, sums[i]);
            }
        }
    }
    for (; n < p->a->N; n++) {
        rows_of_token(p, n, row, end);
    }
}

/* Sums of whole rows are multiplied by one scale each: other scales take the way through activations. */
static bool has_row_scales(const p4_weight *weights, int64_t parts)
{
    bool all = true;
    for (int64_t i = 0; i < parts; i++) {
        all = all && weights[i].scale_group == 0;
    }
    return all;
}

bool p4_cpu_linear_int8_direct(p4_device *device, const p4_linear_forward_int8_args *a)
{
    const p4_dots *dots = p4_cpu_dots();
    if (!has_row_scales(a->weights, a->parts) || a->in < DIRECT_COLS ||
        (dots == &p4_cpu_dots_portable && a->N > DIRECT_TOKENS)) {
        return false;
    }
    int32_t *sums = a->x_work;
    int8_t *planes = (int8_t *)a->x_work + p4_ceil_div(a->N, 16) * 64;
    int64_t stride = p4_planes_bytes(a->in), width = p4_int8_width(a->in), first = 0;
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, a->N))
    for (int64_t n = 0; n < a->N; n++) {
        sums[n] = dots->planes(planes + n * stride, a->x.codes + n * width, a->in);
    }
    for (int64_t i = 0; i < a->parts; i++) {
        int8_part p = {.dots = dots,
                       .a = a,
                       .weight = &a->weights[i],
                       .planes = planes,
                       .sums = sums,
                       .stride = stride,
                       .first = first};
        int64_t rows = a->weights[i].rows;
#pragma omp parallel for schedule(static) num_threads(team(device, &a->weights[i], a->N))
        for (int64_t row = 0; row < rows; row += DIRECT_ROWS) {
            rows_of_tokens(&p, row, p4_min_i64(row + DIRECT_ROWS, rows));
        }
        first += rows;
    }
    return true;
}

/* --- fp32 activations and weights of any form --------------------------------------------------- */

static void direct_rows(const p4_linear_forward_weights_args *a, const p4_weight *w, int64_t first,
                        int64_t row, int64_t end)
{
    const p4_dots *dots = p4_cpu_dots();
    int64_t bytes = row_bytes_of(w);
    float (*dot)(const void *, const float *, int64_t) = w->dtype == P4_TERNARY ? dots->codes
                                                         : w->dtype == P4_F32   ? dots->f32
                                                         : w->dtype == P4_F16   ? dots->f16
                                                                                : dots->bf16;
    for (; row < end; row++) {
        float scale = w->dtype == P4_TERNARY ? p4_f16_to_f32(w->scale[row]) : 1.0f,
              bias = a->opt_bias ? a->opt_bias[first + row] : 0.0f;
        for (int64_t n = 0; n < a->N; n++) {
            float sum = dot((const char *)w->data + row * bytes, (const float *)a->x + n * a->in, a->in);
            ((float *)a->y)[n * a->out + first + row] = sum * scale + bias;
        }
    }
}

static bool is_direct(const p4_linear_forward_weights_args *a)
{
    bool direct = a->N <= DIRECT_TOKENS && has_row_scales(a->weights, a->parts);
    for (int64_t i = 0; i < a->parts; i++) {
        direct = direct && !a->weights[i].transposed;
    }
    return direct;
}

void p4_cpu_linear_forward_weights(p4_device *device, const p4_linear_forward_weights_args *a)
{
    int64_t first = 0;
    if (!is_direct(a)) {
        float *to = a->w_work;
        for (int64_t i = 0; i < a->parts; i++) {
            p4_cpu_weight_unpack(device, to, &a->weights[i]);
            to += a->weights[i].rows * a->weights[i].cols;
        }
        p4_cpu_linear_forward(device, a->y, a->x, a->w_work, a->opt_bias, a->N, a->in, a->out);
        return;
    }
    for (int64_t i = 0; i < a->parts; i++) {
        const p4_weight *w = &a->weights[i];
#pragma omp parallel for schedule(static) num_threads(team(device, w, a->N))
        for (int64_t row = 0; row < w->rows; row += DIRECT_ROWS) {
            direct_rows(a, w, first, row, p4_min_i64(row + DIRECT_ROWS, w->rows));
        }
        first += w->rows;
    }
}
