/* Scales that are trained (scale_gradient, store_scales), of rows, of parts of rows and of whole matrices,
 * against plain loops in double. */
#include "ops_cases.h"

typedef struct shape {
    int64_t rows, cols, group; /* group 0: a scale a row */
} shape;

static const shape shapes[] = {{5, 19, 0}, {3, 384, 128}, {6, 20, 6 * 20}, {33, 40, 8},  {1, 512, 64},
                               {7, 1, 0},  {70, 300, 0},  {2, 5000, 0},    {1500, 8, 0}, {4, 256, 4 * 256}};

/* Random codes and a gradient or master; `from` elements before the first make accesses that are not wide. */
typedef struct subject {
    p4_weight codes;
    int64_t scales, each, from;
    int *trits;
    float *x; /* host [rows * cols] */
    const float *d_x;
} subject;

static subject make_subject(rig *r, const shape *s, int turn)
{
    const int64_t row_bytes = p4_code_row_bytes(s->cols), count = s->rows * s->cols;
    subject t = {.each = s->group > 0 ? s->group : s->cols, .from = turn % 2};
    t.scales = count / t.each;
    t.trits = rig_host(r, count * (int64_t)sizeof *t.trits);
    t.x = rig_random(r, count + t.from, 0.1);
    t.d_x = rig_put_f32(r, t.x, count + t.from);
    t.d_x += t.from;
    t.x += t.from;
    uint8_t *codes = rig_host(r, s->rows * row_bytes);
    for (int64_t i = 0; i < s->rows; i++) {
        for (int64_t c = 0; c < 4 * row_bytes; c++) {
            int code = c < s->cols ? (int)rig_integer(r, 0, 2) : 1;
            codes[i * row_bytes + c / 4] |= (uint8_t)(code << 2 * (c % 4));
            if (c < s->cols) {
                t.trits[i * s->cols + c] = code - 1;
            }
        }
    }
    t.codes = (p4_weight){.dtype = P4_TERNARY,
                          .rows = s->rows,
                          .cols = s->cols,
                          .data = rig_put(r, codes, s->rows * row_bytes),
                          .scale_group = s->group};
    return t;
}

static void check_gradient(rig *r)
{
    for (int i = 0; i < shapes_to_run(sizeof shapes / sizeof shapes[0], 4); i++) {
        const subject t = make_subject(r, &shapes[i], i);
        double *want = rig_host(r, t.scales * (int64_t)sizeof *want);
        float *gradient = rig_put_f32(r, NULL, t.scales);
        for (int64_t k = 0; k < t.scales * t.each; k++) {
            want[k / t.each] += (double)t.x[k] * (double)t.trits[k] / sqrt((double)t.each);
        }
        r->ops->scale_gradient(r->device, gradient, t.d_x, &t.codes);
        expect_array("scale_gradient", rig_get_f32(r, gradient, t.scales), want, t.scales, 1e-7, 0.0);
        rig_clear(r);
    }
}

/* Some learned scales are negative and become 0, in both arrays; one is more than fp16 holds. */
static void check_store(rig *r)
{
    for (int i = 0; i < shapes_to_run(sizeof shapes / sizeof shapes[0], 4); i++) {
        const subject t = make_subject(r, &shapes[i], i);
        float *learned = rig_random(r, t.scales, 0.1), largest = -INFINITY, least = INFINITY;
        uint16_t *scale = rig_put(r, NULL, t.scales * 2);
        learned[0] = -0.25f;
        learned[t.scales - 1] = t.scales > 1 ? 1e6f : learned[0];
        float *d_learned = rig_put_f32(r, learned, t.scales);
        r->ops->store_scales(r->device, scale, d_learned, NULL, &t.codes, t.d_x);
        const uint16_t *got = rig_get(r, scale, t.scales * 2);
        const float *kept = rig_get_f32(r, d_learned, t.scales);
        int64_t wrong = 0;
        for (int64_t s = 0; s < t.scales; s++) {
            float value = learned[s] < 0.0f ? 0.0f : learned[s];
            wrong += kept[s] != value || got[s] != p4_f32_to_f16(value);
        }
        EXPECT(wrong == 0, "store_scales: %lld of %lld scales are wrong", (long long)wrong,
               (long long)t.scales);
        EXPECT(t.scales == 1 || isinf(p4_f16_to_f32(got[t.scales - 1])),
               "a scale beyond fp16 is stored as %g", (double)p4_f16_to_f32(got[t.scales - 1]));
        learned[t.scales - 1] = 0.5f; /* and the figures, of finite scales */
        d_learned = rig_put_f32(r, learned, t.scales);
        p4_quant_error error = {0}, want = {0};
        r->ops->store_scales(r->device, scale, d_learned, &error, &t.codes, t.d_x);
        EXPECT_OK(r->ops->sync(r->device));
        got = rig_get(r, scale, t.scales * 2);
        for (int64_t k = 0; k < t.scales * t.each; k++) {
            float stored = p4_f16_to_f32(got[k / t.each]);
            double difference = (double)t.x[k] - (double)stored * (double)t.trits[k];
            want.sq_error += difference * difference;
            want.sq_norm += (double)t.x[k] * (double)t.x[k];
            want.zeros += t.trits[k] == 0;
            largest = fmaxf(largest, stored);
            least = fminf(least, stored);
        }
        EXPECT_NEAR(error.sq_error, want.sq_error, 1e-9 * want.sq_error);
        EXPECT_NEAR(error.sq_norm, want.sq_norm, 1e-9 * want.sq_norm);
        EXPECT(error.zeros == want.zeros && error.scale_min == least && error.scale_max == largest &&
                   error.nonfinite == 0,
               "figures of %lld scales: %lld zeros, scales %g to %g", (long long)t.scales,
               (long long)error.zeros, (double)error.scale_min, (double)error.scale_max);
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"scale_gradient", check_gradient}, {"store_scales", check_store}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
