/* The optimizer's ops: one step from random state, against double. */
#include "ops_state.h"

static const int64_t counts[] = {17, 8193, 1, 15, 1000, 150000};
enum { COUNTS = sizeof counts / sizeof counts[0], COUNTS_FEW = 2 };

/* A step's numbers on the device; those that the op is not to read are no numbers. */
static const p4_step_numbers *grokfast_numbers(rig *r, bool first, uint64_t key)
{
    p4_step_numbers n = {NAN, NAN, NAN, NAN, .key = key, .first = first};
    return rig_put(r, &n, sizeof n);
}

static const p4_step_numbers *adamw_numbers(rig *r, int64_t step, uint64_t key)
{
    float m_correction = (float)(1.0 / (1.0 - pow((double)0.9f, (double)step)));
    float v_correction = (float)(1.0 / (1.0 - pow((double)0.95f, (double)step)));
    p4_step_numbers n = {0.01f, 0.5f, m_correction, v_correction, .key = key, .first = 1};
    return rig_put(r, &n, sizeof n);
}

/* On state in fp32, and in bf16. */
static void grokfast(rig *r, float *g, float *ema, float lambda, int64_t count,
                     const p4_step_numbers *numbers)
{
    r->ops->grokfast(
        r->device,
        &(p4_grokfast_args){
            .count = count, .alpha = 0.98f, .lambda = lambda, .g = g, .ema = ema, .numbers = numbers});
}

static void half_grokfast(rig *r, float *g, uint16_t *ema, float lambda, int64_t count, uint64_t index,
                          const p4_step_numbers *numbers)
{
    r->ops->grokfast(r->device, &(p4_grokfast_args){.count = count,
                                                    .alpha = 0.98f,
                                                    .lambda = lambda,
                                                    .half = true,
                                                    .index = index,
                                                    .g = g,
                                                    .ema = ema,
                                                    .numbers = numbers});
}

static void check_elementwise(rig *r)
{
    for (int s = 0; s < shapes_to_run(COUNTS, COUNTS_FEW); s++) {
        int64_t count = counts[s];
        float *g = rig_random(r, count, 1.0), *ema = rig_random(r, count, 1.0);
        double *want_g = rig_doubles(r, g, count), *want_ema = rig_doubles(r, ema, count);
        double sum = 2.5, plain = -3.5, size = 3.5;
        double *d_sum = rig_put(r, &sum, 8), *d_plain = rig_put(r, &plain, 8);
        float *d_g = rig_put_f32(r, g, count), *d_ema = rig_put_f32(r, s % 2 == 0 ? NULL : ema, count);
        r->ops->add_sq_norm(r->device, d_sum, d_g, count);
        r->ops->add_sum(r->device, d_plain, d_g, count);
        grokfast(r, d_g, d_ema, 2.0f, count, grokfast_numbers(r, s % 2 == 0, 0));
        r->ops->add_f32(r->device, d_g, d_ema, count);
        for (int64_t i = 0; i < count; i++) {
            sum += want_g[i] * want_g[i];
            plain += want_g[i];
            size += fabs(want_g[i]);
            want_ema[i] = s % 2 == 0 ? want_g[i] : 0.98 * want_ema[i] + 0.02 * want_g[i];
            want_g[i] += 3.0 * want_ema[i];
        }
        EXPECT_NEAR(*(double *)rig_get(r, d_sum, 8), sum, 1e-12 * sum);
        EXPECT_NEAR(*(double *)rig_get(r, d_plain, 8), plain, 1e-12 * size);
        expect_array("grokfast ema", rig_get_f32(r, d_ema, count), want_ema, count, 5e-7, 0.0);
        expect_array("grokfast, add_f32", rig_get_f32(r, d_g, count), want_g, count, 5e-7, 0.0);
        rig_clear(r);
    }
}

/* All counts and many short arrays in one call, more than a launch takes, aligned and not, decayed and not.
 */
static void check_adamw(rig *r)
{
    enum { ITEMS = 160, SHORT = 40 };
    for (int64_t step = 1; step < 30; step += 13) {
        p4_adamw_item item[ITEMS];
        int64_t at[ITEMS], total = 0;
        for (int i = 0; i < ITEMS; i++) {
            item[i].count =
                i % 20 == 3 ? counts[i / 20 % shapes_to_run(COUNTS, COUNTS_FEW)] : rig_integer(r, 0, SHORT);
            item[i].decay = i % 3 == 0 ? 0.0f : 0.1f;
            at[i] = i % 5 == 0 ? total : p4_ceil_div(total, 16) * 16;
            total = at[i] + item[i].count;
        }
        float *w = rig_random(r, total, 1.0), *m = rig_random(r, total, 0.1), *v = rig_random(r, total, 0.1);
        float *g = rig_random(r, total, 1.0);
        for (int64_t i = 0; i < total; i++) {
            v[i] = step == 1 ? 0.0f : v[i] * v[i];
            m[i] = step == 1 ? 0.0f : m[i];
            g[i] = i % 7 == 3 ? 0.0f : g[i];
        }
        float *d_w = rig_put_f32(r, w, total), *d_m = rig_put_f32(r, m, total);
        float *d_v = rig_put_f32(r, v, total), *d_g = rig_put_f32(r, g, total);
        double *want_w = rig_doubles(r, w, total), *want_m = rig_doubles(r, m, total),
               *want_v = rig_doubles(r, v, total);
        double b1 = (double)0.9f, b2 = (double)0.95f;
        for (int k = 0; k < ITEMS; k++) {
            item[k].w = d_w + at[k];
            item[k].m = d_m + at[k];
            item[k].v = d_v + at[k];
            item[k].g = d_g + at[k];
            for (int64_t i = at[k]; i < at[k] + item[k].count; i++) {
                double gradient = 0.5 * (double)g[i];
                want_m[i] = b1 * want_m[i] + (1.0 - b1) * gradient;
                want_v[i] = b2 * want_v[i] + (1.0 - b2) * gradient * gradient;
                double mhat = want_m[i] / (1.0 - pow(b1, (double)step)),
                       vhat = want_v[i] / (1.0 - pow(b2, (double)step));
                want_w[i] -=
                    (double)0.01f * (mhat / (sqrt(vhat) + (double)1e-8f) + (double)item[k].decay * want_w[i]);
            }
        }
        r->ops->adamw(r->device, item, ITEMS, 0.9f, 0.95f, 1e-8f, false, adamw_numbers(r, step, 0));
        expect_array("adamw m", rig_get_f32(r, d_m, total), want_m, total, 5e-7, 0.0);
        expect_array("adamw v", rig_get_f32(r, d_v, total), want_v, total, 5e-7, 0.0);
        expect_array("adamw w", rig_get_f32(r, d_w, total), want_w, total, 5e-7, 1e-7);
        rig_clear(r);
    }
}

/* Of ranks together, within and beyond the norm that is wanted, and with figures that are no numbers. */
static void check_clip(rig *r)
{
    enum { RANKS = 5 };
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int turn = 0; turn < 12; turn++) {
        p4_clip_figures figures[RANKS] = {{0}};
        p4_step_numbers numbers = {.lr = 0.5f, .g_scale = -7.0f, .key = 11, .first = 3, .divisor = 0.3};
        int64_t ranks = turn == 0 ? 1 : RANKS;
        double error = 0.0, squares, clip = turn % 3 == 0 ? 0.0 : turn % 3 == 1 ? 1e-3 : 1e3;
        bool finite = turn < 9;
        double replicated = (double)rig_integer(r, 1, 1000) / 3.0;
        for (int i = 0; i < RANKS; i++) {
            figures[i] = (p4_clip_figures){.error = (double)rig_integer(r, 1, 1000) / 7.0,
                                           .squares = (double)rig_integer(r, 1, 1000) / 3.0};
        }
        if (!finite) {
            *(turn == 9 ? &replicated : turn == 10 ? &figures[4].squares : &figures[2].error) = bad[turn - 9];
        }
        squares = replicated;
        for (int i = 0; i < ranks; i++) {
            error += figures[i].error;
            squares += figures[i].squares;
        }
        double norm = sqrt(squares) / 0.3, factor = clip > 0 && norm > clip ? clip / norm : 1.0;
        p4_step_numbers *d_numbers = rig_put(r, &numbers, sizeof numbers);
        p4_clip_result *d_result = rig_put(r, NULL, sizeof *d_result);
        r->ops->clip(r->device, &(p4_clip_args){.figures = rig_put(r, figures, sizeof figures),
                                                .ranks = ranks,
                                                .squares = rig_put(r, &replicated, sizeof replicated),
                                                .clip = clip,
                                                .numbers = d_numbers,
                                                .result = d_result});
        const p4_clip_result *got = rig_get(r, d_result, sizeof *got);
        const p4_step_numbers *after = rig_get(r, d_numbers, sizeof *after);
        EXPECT(after->lr == 0.5f && after->key == 11 && after->first == 3, "other numbers are changed");
        if (finite) {
            EXPECT_NEAR(got->error, error, 1e-14 * error);
            EXPECT_NEAR(got->norm, norm, 1e-14 * norm);
            EXPECT_NEAR((double)after->g_scale, factor / 0.3, 1e-7 * factor / 0.3);
        } else {
            EXPECT(isnan(after->g_scale), "turn %d: g_scale is %g", turn, (double)after->g_scale);
            EXPECT(!isfinite(got->error) || !isfinite(got->norm), "turn %d: the result is finite", turn);
        }
        rig_clear(r);
    }
}

/* A step without a factor changes nothing, whatever the state is kept in. */
static void check_skipped(rig *r)
{
    const int64_t count = 8193;
    p4_step_numbers numbers = {0.01f, NAN, 1.0f, 1.0f, .key = 5};
    for (int half = 0; half < 2; half++) {
        int64_t state_bytes = count * (half ? 2 : 4);
        float *w = rig_random(r, count, 1.0), *g = rig_random(r, count, 1.0);
        const char *m = (const char *)rig_random(r, count, 1.0), *v = (const char *)rig_random(r, count, 1.0);
        p4_adamw_item item = {.w = rig_put_f32(r, w, count),
                              .m = rig_put(r, m, state_bytes),
                              .v = rig_put(r, v, state_bytes),
                              .g = rig_put_f32(r, g, count),
                              .count = count,
                              .decay = 0.1f};
        r->ops->adamw(r->device, &item, 1, 0.9f, 0.95f, 1e-8f, half, rig_put(r, &numbers, sizeof numbers));
        EXPECT(memcmp(rig_get(r, item.w, count * 4), w, (size_t)count * 4) == 0 &&
                   memcmp(rig_get(r, item.m, state_bytes), m, (size_t)state_bytes) == 0 &&
                   memcmp(rig_get(r, item.v, state_bytes), v, (size_t)state_bytes) == 0,
               "a skipped step, state in %s: something has changed", half ? "bf16" : "fp32");
        rig_clear(r);
    }
}

/* --- state in bf16 ---------------------------------------------------------------------------- */

enum { PLACES = 4 };
static const int64_t places[PLACES] = {0, 1, 4, 8}; /* elements before an array: every alignment there is */

/* Grokfast's first average is the gradient: what is stored is the rounding alone. */
static void check_rounding(rig *r)
{
    const int64_t count = 150000;
    const double part = 0.3, step = 0x1p-7;
    const uint64_t keys[2] = {0x123456789ABCDEFu, 0x123456789ABCDF0u};
    const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, 1.0f, -1.5f, 0x1p-130f, NAN};
    uint16_t *got[2];
    float *g = rig_host(r, count * 4);
    for (int64_t i = 0; i < count; i++) {
        g[i] = (float)(1.0 + part * step) * (i % 2 == 0 ? 1.0f : -1.0f);
    }
    for (int k = 0; k < 2; k++) {
        int64_t up = 0;
        float *d_g = rig_put_f32(r, g, count);
        void *d_ema = rig_put(r, NULL, count * 2);
        half_grokfast(r, d_g, d_ema, 0.0f, count, first_index, grokfast_numbers(r, true, keys[k]));
        got[k] = rig_get(r, d_ema, count * 2);
        expect_rounded("state", got[k], g, keys[k], first_index, 0, count, true);
        for (int64_t i = 0; i < count; i++) {
            up += got[k][i] % 2; /* 1 is even, the value above it is odd */
        }
        EXPECT_NEAR((double)up / (double)count, part, 5.0 * sqrt(part * (1.0 - part) / (double)count));
    }
    int64_t same = 0;
    for (int64_t i = 0; i < count; i++) {
        same += got[0][i] == got[1][i];
    }
    EXPECT_NEAR((double)same / (double)count, part * part + (1.0 - part) * (1.0 - part),
                0.01); /* independent */
    float *d_special = rig_put_f32(r, special, 8);
    void *d_ema = rig_put(r, NULL, 16);
    half_grokfast(r, d_special, d_ema, 0.0f, 8, 0, grokfast_numbers(r, true, keys[0]));
    uint16_t *stored = rig_get(r, d_ema, 16);
    for (int i = 0; i < 7; i++) {
        EXPECT(p4_bf16_to_f32(stored[i]) == special[i], "%g is stored as %04x", (double)special[i],
               stored[i]);
    }
    EXPECT(isnan(p4_bf16_to_f32(stored[7])), "NaN is stored as %04x", stored[7]);
    rig_clear(r);
}

static void check_half_grokfast(rig *r)
{
    const uint64_t key = 77;
    for (int s = 0; s < shapes_to_run(COUNTS, COUNTS_FEW) * PLACES; s++) {
        int64_t count = counts[s / PLACES], at = places[s % PLACES];
        float *g = rig_random(r, at + count, 1.0), *ema = rig_random(r, at + count, 1.0);
        uint16_t *bits = halve(r, ema, at + count);
        float *d_g = rig_put_f32(r, g, at + count), *d_wide = rig_put_f32(r, ema, at + count);
        float *d_g2 = rig_put_f32(r, g, at + count);
        uint16_t *d_ema = rig_put(r, bits, (at + count) * 2);
        const p4_step_numbers *numbers = grokfast_numbers(r, false, key);
        grokfast(r, d_g + at, d_wide + at, 2.0f, count, numbers);
        half_grokfast(r, d_g2 + at, d_ema + at, 2.0f, count, first_index, numbers);
        float *wide = rig_get_f32(r, d_wide, at + count);
        uint16_t *got = rig_get(r, d_ema, (at + count) * 2);
        expect_rounded("grokfast bf16 ema", got + at, wide + at, key, first_index, 0, count, false);
        EXPECT(memcmp(got, bits, (size_t)at * 2) == 0, "elements before the array");
        double *want = rig_doubles(r, rig_get_f32(r, d_g, at + count), at + count);
        expect_array("grokfast bf16 g", rig_get_f32(r, d_g2, at + count), want, at + count, 5e-7, 1e-6);
        rig_clear(r);
    }
}

/* Arrays of all counts and alignments in one call, in both forms of state. */
static void check_half_adamw(rig *r)
{
    enum { ITEMS = COUNTS * PLACES };
    const uint64_t key = 0xFEDCBA9876543210u;
    p4_adamw_item item[ITEMS], wide_item[ITEMS];
    int64_t at[ITEMS], total = 0;
    for (int i = 0; i < ITEMS; i++) {
        at[i] = p4_ceil_div(total, 16) * 16 + places[i % PLACES];
        total = at[i] + counts[i / PLACES];
    }
    float *w = rig_random(r, total, 1.0), *g = rig_random(r, total, 1.0);
    float *m = rig_random(r, total, 0.1), *v = rig_random(r, total, 0.1);
    for (int64_t i = 0; i < total; i++) {
        v[i] *= v[i];
    }
    uint16_t *d_m = rig_put(r, halve(r, m, total), total * 2);
    uint16_t *d_v = rig_put(r, halve(r, v, total), total * 2);
    float *d_w = rig_put_f32(r, w, total), *d_w2 = rig_put_f32(r, w, total), *d_g = rig_put_f32(r, g, total);
    float *d_wide_m = rig_put_f32(r, m, total), *d_wide_v = rig_put_f32(r, v, total);
    for (int i = 0; i < ITEMS; i++) {
        wide_item[i] = (p4_adamw_item){.w = d_w + at[i],
                                       .m = d_wide_m + at[i],
                                       .v = d_wide_v + at[i],
                                       .g = d_g + at[i],
                                       .count = counts[i / PLACES],
                                       .decay = 0.1f};
        item[i] = wide_item[i];
        item[i].w = d_w2 + at[i];
        item[i].m = d_m + at[i];
        item[i].v = d_v + at[i];
        item[i].index = first_index + (uint64_t)at[i];
    }
    const p4_step_numbers *numbers = adamw_numbers(r, 3, key);
    r->ops->adamw(r->device, wide_item, ITEMS, 0.9f, 0.95f, 1e-8f, false, numbers);
    r->ops->adamw(r->device, item, ITEMS, 0.9f, 0.95f, 1e-8f, true, numbers);
    const float *wide_m = rig_get_f32(r, d_wide_m, total), *wide_v = rig_get_f32(r, d_wide_v, total);
    const uint16_t *got_m = rig_get(r, d_m, total * 2), *got_v = rig_get(r, d_v, total * 2);
    for (int i = 0; i < ITEMS; i++) {
        int64_t k = at[i], count = item[i].count;
        expect_rounded("adamw bf16 m", got_m + k, wide_m + k, key, item[i].index, 0, count, false);
        expect_rounded("adamw bf16 v", got_v + k, wide_v + k, key, item[i].index, 16, count, false);
    }
    double *want = rig_doubles(r, rig_get_f32(r, d_w, total), total);
    expect_array("adamw bf16 w", rig_get_f32(r, d_w2, total), want, total, 5e-7, 1e-7);
    rig_clear(r);
}

int main(void)
{
    static const ops_case cases[] = {{"sums, grokfast, add_f32", check_elementwise},
                                     {"adamw", check_adamw},
                                     {"clip", check_clip},
                                     {"adamw, skipped", check_skipped},
                                     {"bf16 state, rounding", check_rounding},
                                     {"bf16 state, grokfast", check_half_grokfast},
                                     {"bf16 state, adamw", check_half_adamw}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
