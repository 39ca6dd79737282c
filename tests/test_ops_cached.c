/* What decoding calls: attention of new tokens to a cache, and products with weights as they are stored,
 * against loops in double. */
#include "ops_cases.h"

/* --- attention --------------------------------------------------------------------------------- */

typedef struct cached_case {
    int64_t past, T, H, Hkv, D, window;
    float cap;
    p4_dtype type;
} cached_case;

static double as_stored(p4_dtype type, float x)
{
    return (double)(type == P4_F16 ? p4_f16_to_f32(p4_f32_to_f16(x)) : x);
}

/* rows [past + T, width]: the queries, keys and values of all tokens; out [T, H D]. */
static double *attention(rig *r, const cached_case *c, const float *rows, float scale)
{
    int64_t width = (c->H + 2 * c->Hkv) * c->D, all = c->past + c->T;
    double *out = rig_host(r, c->T * c->H * c->D * 8), *p = rig_host(r, all * 8);
    for (int64_t t = 0; t < c->T; t++) {
        for (int64_t h = 0; h < c->H; h++) {
            int64_t end = c->past + t + 1, from = c->window > 0 ? p4_max_i64(0, end - c->window) : 0;
            int64_t kv = h / (c->H / c->Hkv);
            double sum = 0;
            for (int64_t j = from; j < end; j++) {
                double dot = 0;
                for (int64_t d = 0; d < c->D; d++) {
                    dot += (double)rows[(c->past + t) * width + h * c->D + d] *
                           as_stored(c->type, rows[j * width + (c->H + kv) * c->D + d]);
                }
                dot *= (double)scale;
                p[j] = exp(c->cap > 0 ? (double)c->cap * tanh(dot / (double)c->cap) : dot);
                sum += p[j];
            }
            for (int64_t j = from; j < end; j++) {
                for (int64_t d = 0; d < c->D; d++) {
                    out[(t * c->H + h) * c->D + d] +=
                        p[j] / sum * as_stored(c->type, rows[j * width + (c->H + c->Hkv + kv) * c->D + d]);
                }
            }
        }
    }
    return out;
}

/* The tokens before come in two pieces, whose outputs do not matter. */
static void check_attention(rig *r)
{
    static const cached_case cases[] = {
        {0, 1, 1, 1, 8, 0, 0, P4_F32},       {0, 7, 4, 2, 16, 0, 0, P4_F32},
        {9, 1, 6, 3, 24, 0, 0, P4_F16},      {5, 3, 4, 1, 40, 4, 0, P4_F32},
        {150, 2, 2, 2, 64, 0, 2.0f, P4_F32}, {300, 1, 4, 2, 128, 70, 0, P4_F16},
        {129, 130, 2, 1, 32, 0, 0, P4_F16},  {64, 64, 2, 1, 256, 65, 5.0f, P4_F32}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const cached_case c = cases[i];
        int64_t width = (c.H + 2 * c.Hkv) * c.D, all = c.past + c.T, capacity = all + 3;
        int64_t act = r->ops->act_bytes(r->device), cache_count = c.Hkv * capacity * c.D;
        float *rows = rig_random_act(r, all * width, 1.0), scale = 1.0f / sqrtf((float)c.D);
        char *qkv = rig_put_act(r, rows, all * width);
        void *out = rig_put_act(r, NULL, all * c.H * c.D);
        p4_attention_cached_args a = {
            .shape =
                {.B = 1, .H = c.H, .Hkv = c.Hkv, .D = c.D, .window = c.window, .scale = scale, .cap = c.cap},
            .capacity = capacity,
            .type = c.type,
            .keys = rig_put(r, NULL, cache_count * p4_dtype_bytes(c.type)),
            .values = rig_put(r, NULL, cache_count * p4_dtype_bytes(c.type)),
            .out = out};
        int64_t past = 0;
        const int64_t pieces[] = {c.past / 3, c.past - c.past / 3, c.T};
        for (int k = 0; k < 3; k++) {
            a.qkv = qkv + past * width * act;
            a.past = rig_put(r, &past, sizeof past);
            a.shape.T = pieces[k];
            if (pieces[k] > 0) {
                r->ops->attention_cached(r->device, &a);
            }
            past += pieces[k];
        }
        double bound = 16.0 * r->eps;
        expect_array("attention_cached", rig_get_act(r, out, c.T * c.H * c.D), attention(r, &c, rows, scale),
                     c.T * c.H * c.D, bound, bound);
        rig_clear(r);
    }
}

/* --- products ---------------------------------------------------------------------------------- */

/* A weight of random elements; values [rows, cols]: what it stands for. */
static p4_weight random_weight(rig *r, float *values, p4_dtype dtype, bool transposed, int64_t rows,
                               int64_t cols)
{
    int64_t row_bytes = p4_code_row_bytes(cols), each = p4_dtype_bytes(dtype);
    int64_t bytes = dtype == P4_TERNARY ? rows * row_bytes : rows * cols * each;
    uint8_t *data = rig_host(r, bytes);
    uint16_t *scale = rig_host(r, rows * 2);
    for (int64_t i = 0; i < rows * cols; i++) {
        int64_t row = i / cols, col = i % cols, at = transposed ? col * rows + row : i;
        float value = (float)p4_rng_normal(&r->rng);
        uint16_t half = dtype == P4_F16 ? p4_f32_to_f16(value) : p4_f32_to_bf16(value);
        if (dtype == P4_TERNARY) {
            int64_t code = rig_integer(r, 0, 2);
            scale[row] = col == 0 ? p4_f32_to_f16(value) : scale[row];
            data[row * row_bytes + col / 4] |= (uint8_t)(code << 2 * (col % 4));
            value = (float)(code - 1) * p4_f16_to_f32(scale[row]);
        } else if (dtype == P4_F32) {
            memcpy(data + 4 * at, &value, 4);
        } else {
            memcpy(data + 2 * at, &half, 2);
            value = dtype == P4_F16 ? p4_f16_to_f32(half) : p4_bf16_to_f32(half);
        }
        values[i] = value;
    }
    return (p4_weight){.dtype = dtype,
                       .transposed = transposed,
                       .rows = rows,
                       .cols = cols,
                       .data = rig_put(r, data, bytes),
                       .scale = dtype == P4_TERNARY ? rig_put(r, scale, rows * 2) : NULL};
}

static void check_product(rig *r, p4_dtype dtype, bool transposed, int64_t N, int64_t in, int64_t out)
{
    float *x = rig_random_act(r, N * in, 1.0), *bias = rig_random(r, out, 1.0),
          *w = rig_host(r, out * in * 4);
    double *want = rig_host(r, N * out * 8), magnitude = 0;
    p4_weight weights[P4_INT8_PARTS];
    int64_t parts = p4_min_i64(out, P4_INT8_PARTS), row = 0;
    for (int64_t i = 0; i < parts; i++) {
        int64_t rows = i == parts - 1 ? out - row : p4_max_i64(1, out / 4);
        weights[i] = random_weight(r, w + row * in, dtype, transposed, rows, in);
        row += rows;
    }
    for (int64_t i = 0; i < N * out; i++) {
        double size = 0;
        want[i] = (double)bias[i % out];
        for (int64_t c = 0; c < in; c++) {
            double one = (double)x[i / out * in + c] * (double)w[i % out * in + c];
            want[i] += one;
            size += fabs(one);
        }
        magnitude = fmax(magnitude, size);
    }
    void *y = rig_put_act(r, NULL, N * out);
    r->ops->linear_forward_weights(
        r->device, &(p4_linear_forward_weights_args){.N = N,
                                                     .in = in,
                                                     .out = out,
                                                     .x = rig_put_act(r, x, N * in),
                                                     .weights = weights,
                                                     .parts = parts,
                                                     .opt_bias = rig_put_f32(r, bias, out),
                                                     .y = y,
                                                     .w_work = rig_put_act(r, NULL, out * in)});
    /* On a GPU in bf16 the weight is rounded too. */
    expect_array("linear_forward_weights", rig_get_act(r, y, N * out), want, N * out, 4.0 * r->eps,
                 4.0 * r->eps * magnitude);
    rig_clear(r);
}

static void check_products(rig *r)
{
    static const p4_dtype dtypes[] = {P4_F32, P4_F16, P4_BF16, P4_TERNARY};
    static const int64_t shapes[][3] = {{1, 1, 1},     {1, 48, 70}, {2, 131, 33},
                                        {4, 640, 200}, {5, 96, 64}, {37, 100, 130}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (int i = 0; i < 7; i++) { /* all forms; those that are not ternary also transposed */
            check_product(r, dtypes[i % 4], i >= 4, shapes[s][0], shapes[s][1], shapes[s][2]);
        }
    }
}

int main(void)
{
    static const ops_case cases[] = {{"attention_cached", check_attention},
                                     {"linear_forward_weights", check_products}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
