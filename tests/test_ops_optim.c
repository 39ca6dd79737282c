/* The optimizer's ops: one step from random state, against double. */
#include "ops_cases.h"

static const int64_t counts[] = {1, 15, 17, 1000, 8193, 150000};
enum { COUNTS = sizeof counts / sizeof counts[0] };

static void check_elementwise(rig *r)
{
    for (int s = 0; s < COUNTS; s++) {
        int64_t count = counts[s];
        float *g = rig_random(r, count, 1.0), *ema = rig_random(r, count, 1.0);
        double *want_g = rig_doubles(r, g, count), *want_ema = rig_doubles(r, ema, count),
               *rounded = rig_host(r, count * 8);
        bool first = s % 2 == 0;
        double sum = 2.5, plain = -3.5, size = 3.5;
        double *d_sum = rig_put(r, &sum, 8), *d_plain = rig_put(r, &plain, 8);
        float *d_g = rig_put_f32(r, g, count), *d_ema = rig_put_f32(r, first ? NULL : ema, count);
        r->ops->add_sq_norm(r->device, d_sum, d_g, count);
        r->ops->add_sum(r->device, d_plain, d_g, count);
        r->ops->grokfast(r->device, d_g, d_ema, 0.98f, 2.0f, first, count);
        r->ops->scale(r->device, d_g, -0.25f, count);
        r->ops->add_f32(r->device, d_g, d_ema, count);
        for (int64_t i = 0; i < count; i++) {
            sum += want_g[i] * want_g[i];
            plain += want_g[i];
            size += fabs(want_g[i]);
            want_ema[i] = first ? want_g[i] : 0.98 * want_ema[i] + 0.02 * want_g[i];
            want_g[i] = -0.25 * (want_g[i] + 2.0 * want_ema[i]) + want_ema[i];
        }
        EXPECT_NEAR(*(double *)rig_get(r, d_sum, 8), sum, 1e-12 * sum);
        EXPECT_NEAR(*(double *)rig_get(r, d_plain, 8), plain, 1e-12 * size);
        expect_array("grokfast ema", rig_get_f32(r, d_ema, count), want_ema, count, 5e-7, 0.0);
        expect_array("grokfast, scale, add_f32", rig_get_f32(r, d_g, count), want_g, count, 5e-7, 0.0);
        for (int64_t i = 0; i < count; i++) {
            g[i] = ldexpf(g[i], (int)rig_integer(r, -28, 17)); /* subnormal halves to infinity */
            rounded[i] = (double)p4_f16_to_f32(p4_f32_to_f16(g[i]));
        }
        float *d_x = rig_put_f32(r, g, count);
        r->ops->round_to_f16(r->device, d_x, count);
        float *got = rig_get_f32(r, d_x, count);
        for (int64_t i = 0; i < count; i++) {
            if ((double)got[i] != rounded[i]) {
                EXPECT(false, "round_to_f16 of %.9g gives %.9g, want %.9g", (double)g[i], (double)got[i],
                       rounded[i]);
                break;
            }
        }
        rig_clear(r);
    }
}

/* One call for all counts and many short arrays, more than one launch takes, aligned and not, decayed and not. */
static void check_adamw(rig *r)
{
    enum { ITEMS = 160, SHORT = 40 };
    for (int64_t step = 1; step < 30; step += 13) {
        p4_adamw_item item[ITEMS];
        int64_t at[ITEMS], total = 0;
        for (int i = 0; i < ITEMS; i++) {
            item[i].count = i % 20 == 3 ? counts[i / 20 % COUNTS] : rig_integer(r, 0, SHORT);
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
        float *d_w = rig_put_f32(r, w, total), *d_m = rig_put_f32(r, m, total), *d_v = rig_put_f32(r, v, total);
        float *d_g = rig_put_f32(r, g, total);
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
                want_w[i] -= (double)0.01f *
                             (mhat / (sqrt(vhat) + (double)1e-8f) + (double)item[k].decay * want_w[i]);
            }
        }
        r->ops->adamw(r->device, item, ITEMS, 0.5f, 0.01f, 0.9f, 0.95f, 1e-8f, step);
        expect_array("adamw m", rig_get_f32(r, d_m, total), want_m, total, 5e-7, 0.0);
        expect_array("adamw v", rig_get_f32(r, d_v, total), want_v, total, 5e-7, 0.0);
        expect_array("adamw w", rig_get_f32(r, d_w, total), want_w, total, 5e-7, 1e-7);
        rig_clear(r);
    }
}

/* c[m, n] = a[m, k] b[k, n] */
static void multiply(double *c, const double *a, const double *b, int64_t m, int64_t n, int64_t k)
{
    memset(c, 0, (size_t)(m * n) * sizeof *c);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t l = 0; l < k; l++) {
            for (int64_t j = 0; j < n; j++) {
                c[i * n + j] += a[i * k + l] * b[l * n + j];
            }
        }
    }
}

/* x[m, n] orthogonalised in place. */
static void newton_schulz(rig *r, double *x, int64_t m, int64_t n)
{
    double *A = rig_host(r, m * m * 8), *A2 = rig_host(r, m * m * 8), *y = rig_host(r, m * n * 8), norm = 0.0;
    for (int64_t i = 0; i < m * n; i++) {
        norm += x[i] * x[i];
    }
    for (int64_t i = 0; i < m * n; i++) {
        x[i] /= sqrt(norm) + 1e-7;
    }
    for (int step = 0; step < 5; step++) {
        for (int64_t i = 0; i < m * n; i++) {
            y[i % n * m + i / n] = x[i];
        }
        multiply(A, x, y, m, m, n);
        multiply(A2, A, A, m, m, m);
        for (int64_t i = 0; i < m * m; i++) {
            A2[i] = -4.7750 * A[i] + 2.0315 * A2[i];
        }
        multiply(y, A2, x, m, n, m);
        for (int64_t i = 0; i < m * n; i++) {
            x[i] = 3.4445 * x[i] + y[i];
        }
    }
}

/* What a Muon step makes of w and buf; the sum of squares of its change of w. */
static double muon_reference(rig *r, double *w, double *buf, const float *g, int64_t rows, int64_t cols)
{
    int64_t count = rows * cols, m = p4_min_i64(rows, cols), n = p4_max_i64(rows, cols);
    double *x = rig_host(r, count * 8), changed = 0.0;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = rows > cols ? i % cols * rows + i / cols : i;
        buf[i] = (double)0.95f * buf[i] + 0.5 * (double)g[i];
        x[at] = 0.5 * (double)g[i] + (double)0.95f * buf[i];
    }
    newton_schulz(r, x, m, n);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = rows > cols ? i % cols * rows + i / cols : i;
        double change = (double)0.02f * (0.2 * sqrt((double)n) * x[at] + (double)0.1f * w[i]);
        w[i] -= change;
        changed += change * change;
    }
    return changed;
}

/* `items` matrices in one call, each `gap` elements after the one before. */
static void check_muon_shape(rig *r, int64_t rows, int64_t cols, int64_t items, int64_t gap)
{
    int64_t count = rows * cols, each = count + gap, total = items * each;
    float *w = rig_random(r, total, 1.0), *buf = rig_random(r, total, 1.0), *g = rig_random(r, total, 1.0);
    float *d_w = rig_put_f32(r, w, total), *d_buf = rig_put_f32(r, buf, total), *d_g = rig_put_f32(r, g, total);
    double *want_w = rig_doubles(r, w, total), *want_buf = rig_doubles(r, buf, total), changed = 0.0, error = 0.0;
    p4_muon_item *item = rig_host(r, items * (int64_t)sizeof *item);
    for (int64_t i = 0; i < items; i++) {
        item[i] = (p4_muon_item){.w = d_w + i * each, .buf = d_buf + i * each, .g = d_g + i * each};
    }
    float *work = rig_put_f32(r, NULL, r->ops->muon_work_count(r->device, items, rows, cols));
    r->ops->muon(r->device, item, items, rows, cols, 0.5f, 0.02f, 0.95f, 0.1f, work);
    int host_blocks = r->host_blocks;
    for (int64_t i = 0; i < items; i++) {
        changed += muon_reference(r, want_w + i * each, want_buf + i * each, g + i * each, rows, cols);
        while (r->host_blocks > host_blocks) {
            free(r->on_host[--r->host_blocks]);
        }
    }
    double factor = 0.2 * sqrt((double)p4_max_i64(rows, cols));
    bool half = r->eps > 1e-6;
    double bound = half ? 2e-2 : 2e-5;
    float *got = rig_get_f32(r, d_w, total);
    expect_array("muon buf", rig_get_f32(r, d_buf, total), want_buf, total, 5e-7, 0.0);
    expect_array("muon w", got, want_w, total, 1e-6, (half ? 0.1 : bound) * 0.02 * factor);
    for (int64_t i = 0; i < total; i++) {
        error += ((double)got[i] - want_w[i]) * ((double)got[i] - want_w[i]);
    }
    EXPECT(sqrt(error / changed) < bound, "muon [%lld, %lld] x %lld: relative error %.3g of the change, bound %.3g",
           (long long)rows, (long long)cols, (long long)items, sqrt(error / changed), bound);
    rig_clear(r);
}

static void check_muon(rig *r)
{
    static const int64_t shapes[][4] = {
        {1, 1, 1, 0},     {1, 9, 3, 7},     {7, 1, 2, 0},     {16, 48, 5, 0},
        {70, 33, 2, 1},   {130, 130, 1, 0}, {257, 96, 3, 0},  {40, 136, 4, 0},
        {136, 40, 4, 0},  {64, 24, 3, 1},   {288, 304, 1, 0}, /* symmetric products in two blocks */
        {264, 256, 3, 0}, {256, 256, 1, 0},                   /* in four */
        {4, 8, 300, 0},                                       /* more matrices than a launch takes */
    };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        check_muon_shape(r, shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3]);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"norm, grokfast, scale, add_f32, round", check_elementwise},
                                     {"adamw", check_adamw},
                                     {"muon", check_muon}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
