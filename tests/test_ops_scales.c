/* Ternary weights whose scales are those of rows, of parts of rows, or one: every op that reads such weights,
 * and quantizing to them, against plain loops over p4_weight's definition. */
#include "ops_cases.h"

typedef struct shape {
    int64_t rows, cols, group; /* group 0: a scale a row */
} shape;

static const shape shapes[] = {
    {5, 128, 64}, {3, 384, 128}, {7, 64, 64}, {4, 256, 4 * 256}, {6, 20, 6 * 20},
    {9, 132, 44}, {1, 512, 64},  {33, 40, 8}, {4, 48, 0},        {5, 19, 0},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* A weight on the device and what it stands for. */
typedef struct ternary {
    p4_weight weight;
    float *values; /* host [rows * cols] */
} ternary;

static ternary random_ternary(rig *r, const shape *s)
{
    int64_t row_bytes = p4_code_row_bytes(s->cols), group = s->group > 0 ? s->group : s->cols;
    int64_t scales = s->rows * s->cols / group;
    uint8_t *codes = rig_host(r, s->rows * row_bytes);
    uint16_t *scale = rig_host(r, scales * 2);
    ternary t = {.values = rig_host(r, s->rows * s->cols * (int64_t)sizeof(float))};
    for (int64_t i = 0; i < scales; i++) {
        scale[i] = p4_f32_to_f16((float)(0.01 + p4_rng_uniform(&r->rng)));
    }
    for (int64_t i = 0; i < s->rows; i++) {
        for (int64_t c = 0; c < 4 * row_bytes; c++) {
            int code = c < s->cols ? (int)rig_integer(r, 0, 2) : 1;
            codes[i * row_bytes + c / 4] |= (uint8_t)(code << 2 * (c % 4));
            if (c < s->cols) {
                float one = p4_f16_to_f32(scale[(i * s->cols + c) / group]);
                t.values[i * s->cols + c] = (float)(code - 1) * one;
            }
        }
    }
    t.weight = (p4_weight){.dtype = P4_TERNARY,
                           .rows = s->rows,
                           .cols = s->cols,
                           .data = rig_put(r, codes, s->rows * row_bytes),
                           .scale = rig_put(r, scale, scales * 2),
                           .scale_group = s->group};
    p4_weight host = t.weight; /* the conversions on the host read the same definition */
    host.data = codes;
    host.scale = scale;
    float *row = rig_host(r, s->cols * (int64_t)sizeof *row);
    uint16_t *halves = rig_host(r, s->cols * 2);
    int64_t wrong = p4_weight_scale_count(&host) != scales;
    for (int64_t i = 0; i < s->rows; i++) {
        p4_weight_row_f32(row, &host, i);
        p4_ternary_row_f16(halves, &host, i);
        for (int64_t c = 0; c < s->cols; c++) {
            wrong += row[c] != t.values[i * s->cols + c];
            wrong += p4_f16_to_f32(halves[c]) != t.values[i * s->cols + c];
        }
    }
    EXPECT(wrong == 0, "[%lld, %lld] group %lld: %lld values on the host are wrong", (long long)s->rows,
           (long long)s->cols, (long long)s->group, (long long)wrong);
    return t;
}

static float as_act(const rig *r, float x)
{
    return r->ops->act_bytes(r->device) == 2 ? p4_bf16_to_f32(p4_f32_to_bf16(x)) : x;
}

static void expect_values(rig *r, const char *what, const shape *s, const void *act, const float *want,
                          int64_t count)
{
    int64_t wrong = 0;
    const float *got = rig_get_act(r, act, count);
    for (int64_t i = 0; i < count; i++) {
        wrong += got[i] != as_act(r, want[i]);
    }
    EXPECT(wrong == 0, "%s [%lld, %lld] group %lld: %lld of %lld values are wrong", what, (long long)s->rows,
           (long long)s->cols, (long long)s->group, (long long)wrong, (long long)count);
}

static void check_unpack(rig *r)
{
    for (int i = 0; i < SHAPES; i++) {
        const shape *s = &shapes[i];
        ternary t = random_ternary(r, s);
        void *dense = rig_put_act(r, NULL, s->rows * s->cols);
        r->ops->weight_unpack(r->device, dense, &t.weight);
        expect_values(r, "weight_unpack", s, dense, t.values, s->rows * s->cols);
        rig_clear(r);
    }
}

static void check_embed(rig *r)
{
    enum { T = 6 };
    for (int i = 0; i < SHAPES; i++) {
        const shape *s = &shapes[i];
        ternary t = random_ternary(r, s);
        int32_t *ids = rig_ids(r, T, 0, s->rows - 1);
        void *x = rig_put_act(r, NULL, T * s->cols);
        float *want = rig_host(r, T * s->cols * (int64_t)sizeof *want);
        for (int64_t n = 0; n < T; n++) {
            memcpy(want + n * s->cols, t.values + ids[n] * s->cols, (size_t)s->cols * sizeof *want);
        }
        r->ops->embed_forward(
            r->device,
            &(p4_embed_forward_args){
                .B = 1, .T = T, .C = s->cols, .ids = rig_put(r, ids, T * 4), .token = &t.weight, .x = x});
        expect_values(r, "embed_forward", s, x, want, T * s->cols);
        rig_clear(r);
    }
}

/* Two parts below one another, as gate and up are. */
static void check_int8(rig *r)
{
    enum { N = 5, PARTS = 2 };
    for (int i = 0; i < SHAPES; i++) {
        const shape *s = &shapes[i];
        ternary parts[PARTS] = {random_ternary(r, s), random_ternary(r, s)};
        const p4_weight weights[PARTS] = {parts[0].weight, parts[1].weight};
        int64_t in = s->cols, out = PARTS * s->rows, width = p4_int8_width(in);
        p4_int8_rows x = {.codes = rig_put(r, NULL, N * width), .s = rig_put_f32(r, NULL, N)};
        void *y = rig_put_act(r, NULL, N * out);
        r->ops->quantize_int8(r->device, NULL, &x, rig_put_act(r, rig_random_act(r, N * in, 1.0), N * in), N,
                              in);
        r->ops->linear_forward_int8(
            r->device, &(p4_linear_forward_int8_args){.N = N,
                                                      .in = in,
                                                      .out = out,
                                                      .x = x,
                                                      .weights = weights,
                                                      .parts = PARTS,
                                                      .y = y,
                                                      .x_work = rig_put_act(r, NULL, N * in),
                                                      .w_work = rig_put_act(r, NULL, out * width)});
        const int8_t *codes = rig_get(r, x.codes, N * width);
        const float *scale = rig_get_f32(r, x.s, N), *got = rig_get_act(r, y, N * out);
        double *want = rig_doubles(r, NULL, N * out), magnitude = 0; /* of the sums that may cancel */
        for (int64_t k = 0; k < N * out; k++) {
            const float *w = parts[k % out / s->rows].values + k % out % s->rows * in;
            double size = 0;
            for (int64_t c = 0; c < in; c++) {
                double one = (double)codes[k / out * width + c] / (double)scale[k / out] * (double)w[c];
                want[k] += one;
                size += fabs(one);
            }
            magnitude = fmax(magnitude, size);
        }
        expect_array("linear_forward_int8", got, want, N * out, 4.0 * r->eps, 4.0 * r->eps * magnitude);
        rig_clear(r);
    }
}

/* The same of activations that are not rounded, few enough to be multiplied with codes where rows have one
 * scale. */
static void check_weights(rig *r)
{
    enum { N = 2, PARTS = 2 };
    for (int i = 0; i < SHAPES; i++) {
        const shape *s = &shapes[i];
        ternary parts[PARTS] = {random_ternary(r, s), random_ternary(r, s)};
        const p4_weight weights[PARTS] = {parts[0].weight, parts[1].weight};
        int64_t in = s->cols, out = PARTS * s->rows;
        float *x = rig_random_act(r, N * in, 1.0);
        void *y = rig_put_act(r, NULL, N * out);
        r->ops->linear_forward_weights(
            r->device, &(p4_linear_forward_weights_args){.N = N,
                                                         .in = in,
                                                         .out = out,
                                                         .x = rig_put_act(r, x, N * in),
                                                         .weights = weights,
                                                         .parts = PARTS,
                                                         .y = y,
                                                         .w_work = rig_put_act(r, NULL, out * in)});
        const float *got = rig_get_act(r, y, N * out);
        double *want = rig_doubles(r, NULL, N * out), magnitude = 0; /* of the sums that may cancel */
        for (int64_t k = 0; k < N * out; k++) {
            const float *w = parts[k % out / s->rows].values + k % out % s->rows * in;
            double size = 0;
            for (int64_t c = 0; c < in; c++) {
                double one = (double)x[k / out * in + c] * (double)w[c];
                want[k] += one;
                size += fabs(one);
            }
            magnitude = fmax(magnitude, size);
        }
        expect_array("linear_forward_weights", got, want, N * out, 4.0 * r->eps, 4.0 * r->eps * magnitude);
        rig_clear(r);
    }
}

/* absmean on a view with a row for each scale. */
static void check_quantize(rig *r)
{
    const float threshold = 0.5f;
    for (int i = 0; i < SHAPES; i++) {
        const shape *s = &shapes[i];
        int64_t count = s->rows * s->cols, group = s->group > 0 ? s->group : s->cols, scales = count / group,
                row_bytes = p4_code_row_bytes(s->cols), wrong = 0;
        float *w = rig_random(r, count, 1.0);
        const p4_weight master = {.dtype = P4_F32,
                                  .rows = s->rows,
                                  .cols = s->cols,
                                  .data = rig_put_f32(r, w, count),
                                  .scale_group = s->group},
                        view = p4_weight_by_scale(&master);
        uint8_t *d_codes = rig_put(r, NULL, s->rows * row_bytes);
        uint16_t *d_scale = rig_put(r, NULL, scales * 2);
        p4_quant_error error;
        r->ops->quantize(r->device, d_codes, d_scale, &error, &view, P4_QUANT_ABSMEAN, threshold, NULL);
        const uint8_t *codes = rig_get(r, d_codes, s->rows * row_bytes);
        const uint16_t *scale = rig_get(r, d_scale, scales * 2);
        for (int64_t g = 0; g < scales; g++) {
            double sum = 0.0;
            for (int64_t e = g * group; e < (g + 1) * group; e++) {
                sum += (double)fabsf(w[e]);
            }
            float mean = (float)(sum / (double)group);
            wrong += scale[g] != p4_f32_to_f16(mean);
            for (int64_t e = g * group; e < (g + 1) * group; e++) {
                int64_t c = e % s->cols;
                int code = codes[e / s->cols * row_bytes + c / 4] >> 2 * (c % 4) & 3;
                int want = fabsf(w[e]) >= threshold * mean ? (w[e] > 0.0f) - (w[e] < 0.0f) : 0;
                wrong += code != want + 1;
            }
        }
        EXPECT(wrong == 0, "quantize [%lld, %lld] group %lld: %lld codes or scales are wrong",
               (long long)s->rows, (long long)s->cols, (long long)s->group, (long long)wrong);
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {
        {"weight_unpack", check_unpack},     {"embed_forward", check_embed},
        {"linear_forward_int8", check_int8}, {"linear_forward_weights", check_weights},
        {"quantize", check_quantize},
    };
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
