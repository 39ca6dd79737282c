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

static void check_adamw(rig *r)
{
    for (int s = 0; s < COUNTS; s++) {
        int64_t count = counts[s], step = 1 + s * s;
        float *w = rig_random(r, count, 1.0), *m = rig_random(r, count, 0.1), *v = rig_random(r, count, 0.1);
        float *g = rig_random(r, count, 1.0);
        for (int64_t i = 0; i < count; i++) {
            v[i] = step == 1 ? 0.0f : v[i] * v[i];
            m[i] = step == 1 ? 0.0f : m[i];
            g[i] = i % 7 == 3 ? 0.0f : g[i];
        }
        float *d_w = rig_put_f32(r, w, count), *d_m = rig_put_f32(r, m, count),
              *d_v = rig_put_f32(r, v, count);
        r->ops->adamw(r->device, d_w, d_m, d_v, rig_put_f32(r, g, count), 0.5f, 0.01f, 0.9f, 0.95f, 1e-8f,
                      0.1f, step, count);
        double *want_w = rig_doubles(r, w, count), *want_m = rig_doubles(r, m, count),
               *want_v = rig_doubles(r, v, count);
        double b1 = (double)0.9f, b2 = (double)0.95f;
        for (int64_t i = 0; i < count; i++) {
            double gradient = 0.5 * (double)g[i];
            want_m[i] = b1 * want_m[i] + (1.0 - b1) * gradient;
            want_v[i] = b2 * want_v[i] + (1.0 - b2) * gradient * gradient;
            double mhat = want_m[i] / (1.0 - pow(b1, (double)step)),
                   vhat = want_v[i] / (1.0 - pow(b2, (double)step));
            want_w[i] -= (double)0.01f * (mhat / (sqrt(vhat) + (double)1e-8f) + (double)0.1f * want_w[i]);
        }
        expect_array("adamw m", rig_get_f32(r, d_m, count), want_m, count, 5e-7, 0.0);
        expect_array("adamw v", rig_get_f32(r, d_v, count), want_v, count, 5e-7, 0.0);
        expect_array("adamw w", rig_get_f32(r, d_w, count), want_w, count, 5e-7, 1e-7);
        rig_clear(r);
    }
}

/* c[m, n] = a[m, k] b, b as [k, n] or, transposed, [n, k]. */
static void multiply(double *c, const double *a, const double *b, int64_t m, int64_t n, int64_t k,
                     bool transposed)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0.0;
            for (int64_t l = 0; l < k; l++) {
                sum += a[i * k + l] * (transposed ? b[j * k + l] : b[l * n + j]);
            }
            c[i * n + j] = sum;
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
        multiply(A, x, x, m, m, n, true);
        multiply(A2, A, A, m, m, m, false);
        for (int64_t i = 0; i < m * m; i++) {
            A2[i] = -4.7750 * A[i] + 2.0315 * A2[i];
        }
        multiply(y, A2, x, m, n, m, false);
        for (int64_t i = 0; i < m * n; i++) {
            x[i] = 3.4445 * x[i] + y[i];
        }
    }
}

static void check_muon(rig *r)
{
    static const int64_t shapes[][2] = {{1, 1}, {1, 9}, {7, 1}, {16, 48}, {70, 33}, {130, 130}, {257, 96}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t rows = shapes[s][0], cols = shapes[s][1], count = rows * cols, m = p4_min_i64(rows, cols);
        float *w = rig_random(r, count, 1.0), *buf = rig_random(r, count, 1.0),
              *g = rig_random(r, count, 1.0);
        float *d_w = rig_put_f32(r, w, count), *d_buf = rig_put_f32(r, buf, count);
        float *work = rig_put_f32(r, NULL, r->ops->muon_work_count(rows, cols));
        r->ops->muon(r->device, d_w, d_buf, rig_put_f32(r, g, count), 0.5f, 0.02f, 0.95f, 0.1f, rows, cols,
                     work);
        double *want_w = rig_doubles(r, w, count), *want_buf = rig_doubles(r, buf, count),
               *x = rig_host(r, count * 8);
        for (int64_t i = 0; i < count; i++) {
            int64_t at = rows > cols ? i % cols * rows + i / cols : i;
            want_buf[i] = (double)0.95f * want_buf[i] + 0.5 * (double)g[i];
            x[at] = 0.5 * (double)g[i] + (double)0.95f * want_buf[i];
        }
        newton_schulz(r, x, m, p4_max_i64(rows, cols));
        double factor = 0.2 * sqrt((double)p4_max_i64(rows, cols));
        for (int64_t i = 0; i < count; i++) {
            int64_t at = rows > cols ? i % cols * rows + i / cols : i;
            want_w[i] -= (double)0.02f * (factor * x[at] + (double)0.1f * want_w[i]);
        }
        expect_array("muon buf", rig_get_f32(r, d_buf, count), want_buf, count, 5e-7, 0.0);
        double bound = strcmp(r->ops->name, "cpu") == 0 ? 2e-5 : 2e-2; /* bf16 products on GPUs */
        expect_array("muon w", rig_get_f32(r, d_w, count), want_w, count, 1e-6, bound * 0.02 * factor);
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"norm, grokfast, scale, add_f32, round", check_elementwise},
                                     {"adamw", check_adamw},
                                     {"muon", check_muon}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
