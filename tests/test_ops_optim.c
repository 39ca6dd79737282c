/* The optimizer's ops: one step from random state, against double. */
#include "kernels/state.h"
#include "ops_cases.h"

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

static const p4_step_numbers *muon_numbers(rig *r, uint64_t key)
{
    p4_step_numbers n = {0.02f, 0.5f, NAN, NAN, .key = key, .first = 1};
    return rig_put(r, &n, sizeof n);
}

static void check_elementwise(rig *r)
{
    for (int s = 0; s < shapes_to_run(COUNTS, COUNTS_FEW); s++) {
        int64_t count = counts[s];
        float *g = rig_random(r, count, 1.0), *ema = rig_random(r, count, 1.0);
        double *want_g = rig_doubles(r, g, count), *want_ema = rig_doubles(r, ema, count);
        double *rounded = rig_host(r, count * 8);
        double sum = 2.5, plain = -3.5, size = 3.5;
        double *d_sum = rig_put(r, &sum, 8), *d_plain = rig_put(r, &plain, 8);
        float *d_g = rig_put_f32(r, g, count), *d_ema = rig_put_f32(r, s % 2 == 0 ? NULL : ema, count);
        r->ops->add_sq_norm(r->device, d_sum, d_g, count);
        r->ops->add_sum(r->device, d_plain, d_g, count);
        r->ops->grokfast(r->device, d_g, d_ema, 0.98f, 2.0f, count, false, 0,
                         grokfast_numbers(r, s % 2 == 0, 0));
        r->ops->scale(r->device, d_g, -0.25f, count);
        r->ops->add_f32(r->device, d_g, d_ema, count);
        for (int64_t i = 0; i < count; i++) {
            sum += want_g[i] * want_g[i];
            plain += want_g[i];
            size += fabs(want_g[i]);
            want_ema[i] = s % 2 == 0 ? want_g[i] : 0.98 * want_ema[i] + 0.02 * want_g[i];
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

/* What a Muon step makes of w and buf; the sum of squares of what it adds to w beside the decay. */
static double muon_reference(rig *r, double *w, double *buf, const float *g, int64_t rows, int64_t cols)
{
    int64_t count = rows * cols, m = p4_min_i64(rows, cols), n = p4_max_i64(rows, cols);
    double *x = rig_host(r, count * 8), added = 0.0;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = rows > cols ? i % cols * rows + i / cols : i;
        buf[i] = (double)0.95f * buf[i] + 0.5 * (double)g[i];
        x[at] = 0.5 * (double)g[i] + (double)0.95f * buf[i];
    }
    newton_schulz(r, x, m, n);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = rows > cols ? i % cols * rows + i / cols : i;
        double change = (double)0.02f * 0.2 * sqrt((double)n) * x[at];
        w[i] -= change + (double)0.02f * (double)0.1f * w[i];
        added += change * change;
    }
    return added;
}

/* A GPU whose products are all cuBLASLt's (kernels/cuda/muon.cuh), beside the rig's own device. */
static p4_device *open_muon_cublas(const rig *r)
{
    p4_device *device = NULL;
    setenv("P4_MUON", "cublas", 1);
    EXPECT_OK(r->ops->open(&device, 0, 0, r->ops->act_bytes(r->device) == 2));
    unsetenv("P4_MUON");
    return device;
}

/* `items` matrices in one call on `device`, each `gap` elements after the one before. */
static void check_muon_shape(rig *r, p4_device *device, int64_t rows, int64_t cols, int64_t items,
                             int64_t gap)
{
    int64_t count = rows * cols, each = count + gap, total = items * each;
    float *w = rig_random(r, total, 1.0), *buf = rig_random(r, total, 1.0), *g = rig_random(r, total, 1.0);
    float *d_w = rig_put_f32(r, w, total), *d_buf = rig_put_f32(r, buf, total);
    float *d_g = rig_put_f32(r, g, total);
    double *want_w = rig_doubles(r, w, total), *want_buf = rig_doubles(r, buf, total);
    double added = 0.0, error = 0.0, size = 0.0;
    p4_muon_item *item = rig_host(r, items * (int64_t)sizeof *item);
    for (int64_t i = 0; i < items; i++) {
        item[i] = (p4_muon_item){.w = d_w + i * each, .buf = d_buf + i * each, .g = d_g + i * each};
    }
    float *work = rig_put_f32(r, NULL, r->ops->muon_work_count(device, items, rows, cols));
    const p4_step_numbers *numbers = muon_numbers(r, 0);
    EXPECT_OK(r->ops->sync(r->device));
    r->ops->muon(device, item, items, rows, cols, 0.95f, 0.1f, work, false, numbers);
    EXPECT_OK(r->ops->sync(device));
    int host_blocks = r->host_blocks;
    for (int64_t i = 0; i < items; i++) {
        added += muon_reference(r, want_w + i * each, want_buf + i * each, g + i * each, rows, cols);
        while (r->host_blocks > host_blocks) {
            free(r->on_host[--r->host_blocks]);
        }
    }
    double factor = 0.2 * sqrt((double)p4_max_i64(rows, cols));
    bool half = r->eps > 1e-6;
    double bound = half ? 4e-2 : 2e-5; /* bf16: five steps with operands of 8 bits differ by 1 to 2 % */
    float *got = rig_get_f32(r, d_w, total);
    expect_array("muon buf", rig_get_f32(r, d_buf, total), want_buf, total, 5e-7,
                 2e-7); /* of what may cancel */
    expect_array("muon w", got, want_w, total, 1e-6, (half ? 0.1 : bound) * 0.02 * factor);
    for (int64_t i = 0; i < total; i++) {
        error += ((double)got[i] - want_w[i]) * ((double)got[i] - want_w[i]);
        size += want_w[i] * want_w[i];
    }
    EXPECT(sqrt(error) < bound * sqrt(added) + 0x1p-23 * sqrt(size),
           "muon [%lld, %lld] x %lld: error %.3g of a step of %.3g", (long long)rows, (long long)cols,
           (long long)items, sqrt(error), sqrt(added));
    rig_clear(r);
}

static void check_muon(rig *r)
{
    static const int64_t shapes[][4] = {
        {1, 9, 3, 7},     {70, 33, 2, 1}, {40, 136, 4, 0},  {136, 40, 4, 0},
        {288, 304, 1, 0}, /* symmetric products in two blocks */
        {1, 1, 1, 0},     {7, 1, 2, 0},   {16, 48, 5, 0},   {130, 130, 1, 0},
        {257, 96, 3, 0},  {64, 24, 3, 1}, {264, 256, 3, 0}, {256, 256, 1, 0}, /* in four */
        {4, 8, 300, 0},                                   /* more matrices than a launch takes */
        {312, 288, 1, 8}, {8, 520, 2, 0}, {520, 8, 2, 0}, /* own products: tall, flat, several tiles */
    };
    int count = shapes_to_run(sizeof shapes / sizeof shapes[0], 5);
    for (int s = 0; s < count; s++) {
        check_muon_shape(r, r->device, shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3]);
    }
    if (strcmp(r->ops->name, "cuda") == 0 && r->ops->act_bytes(r->device) == 2) {
        p4_device *device = open_muon_cublas(r);
        for (int s = 0; device && s < count; s++) {
            check_muon_shape(r, device, shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3]);
        }
        r->ops->close(device);
    }
}

/* got = what a step on `device` adds to `items` matrices. */
static void run_muon_large(rig *r, p4_device *device, float *got, const float *g, int64_t rows, int64_t cols,
                           int64_t items)
{
    int64_t count = rows * cols, total = items * count;
    float *d_w = rig_put_f32(r, rig_host(r, total * 4), total), *d_buf = rig_put_f32(r, g, total);
    float *d_g = rig_put_f32(r, g, total);
    float *work = rig_put_f32(r, NULL, r->ops->muon_work_count(device, items, rows, cols));
    p4_muon_item *item = rig_host(r, items * (int64_t)sizeof *item);
    for (int64_t i = 0; i < items; i++) {
        item[i] = (p4_muon_item){.w = d_w + i * count, .buf = d_buf + i * count, .g = d_g + i * count};
    }
    const p4_step_numbers *numbers = muon_numbers(r, 0);
    EXPECT_OK(r->ops->sync(r->device));
    r->ops->muon(device, item, items, rows, cols, 0.95f, 0.0f, work, false, numbers);
    EXPECT_OK(r->ops->sync(device));
    memcpy(got, rig_get_f32(r, d_w, total), (size_t)total * 4);
}

/* The two ways of a GPU's products on the sizes of real layers, and on several batches: they differ as much
 * as each does from double. */
static void check_muon_large(rig *r)
{
    static const int64_t shapes[][3] = {
        {8, 16, 300}, {2048, 2048, 2}, {1024, 2840, 3}, {2840, 1024, 3}, {1288, 648, 5}};
    if (r->ops->act_bytes(r->device) != 2 || strstr(r->ops->describe(r->device), "emulator")) {
        return;
    }
    p4_device *device = open_muon_cublas(r);
    for (int s = 0; device && s < shapes_to_run(sizeof shapes / sizeof shapes[0], 1); s++) {
        int64_t rows = shapes[s][0], cols = shapes[s][1], items = shapes[s][2], total = items * rows * cols;
        float *g = rig_random(r, total, 1.0), *own = rig_host(r, total * 4), *other = rig_host(r, total * 4);
        double error = 0.0, size = 0.0, worst = 0.0;
        run_muon_large(r, r->device, own, g, rows, cols, items);
        run_muon_large(r, device, other, g, rows, cols, items);
        for (int64_t i = 0; i < total; i++) {
            double difference = (double)own[i] - (double)other[i];
            error += difference * difference;
            size += (double)other[i] * (double)other[i];
            worst = fabs(difference) <= worst ? worst : fabs(difference); /* also when it is NaN */
        }
        double bound = 0.1 * 0.02 * 0.2 * sqrt((double)p4_max_i64(rows, cols));
        EXPECT(sqrt(error) < 4e-2 * sqrt(size) && worst < bound,
               "muon [%lld, %lld] x %lld: the ways differ by %.3g of a step of %.3g, one element by %.3g",
               (long long)rows, (long long)cols, (long long)items, sqrt(error), sqrt(size), worst);
        rig_clear(r);
    }
    r->ops->close(device);
}

/* --- state in bf16 ---------------------------------------------------------------------------- */

enum { PLACES = 4 };
static const int64_t places[PLACES] = {0, 1, 4, 8}; /* elements before an array: every alignment there is */
static const uint64_t first_index = 0xFFFFFF00u;    /* so that indices pass 2^32 */

/* x rounded down to bf16 in place, and these bits. */
static uint16_t *halve(rig *r, float *x, int64_t count)
{
    uint16_t *bits = rig_host(r, count * 2);
    for (int64_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, &x[i], 4);
        bits[i] = (uint16_t)(word >> 16);
        x[i] = p4_bf16_to_f32(bits[i]);
    }
    return bits;
}

/* got must be what state.h makes of the fp32 state that the same op computes. A last bit of fp32 that differs
 * moves few elements, by one step of bf16; exact: none. */
static void expect_rounded(const char *what, const uint16_t *got, const float *wide, uint64_t key,
                           uint64_t index, int shift, int64_t count, bool exact)
{
    int64_t moved = 0, far = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, &wide[i], 4);
        int want = p4_state_round_bits(word, p4_state_draw(key, index + (uint64_t)i) >> shift);
        moved += got[i] != want;
        far += abs((int)got[i] - want) > 1;
    }
    EXPECT(far == 0 && moved <= (exact ? 0 : count / 500),
           "%s: %lld of %lld elements differ, %lld by more than a step", what, (long long)moved,
           (long long)count, (long long)far);
}

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
        r->ops->grokfast(r->device, d_g, d_ema, 0.98f, 0.0f, count, true, first_index,
                         grokfast_numbers(r, true, keys[k]));
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
    r->ops->grokfast(r->device, d_special, d_ema, 0.98f, 0.0f, 8, true, 0,
                     grokfast_numbers(r, true, keys[0]));
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
        r->ops->grokfast(r->device, d_g + at, d_wide + at, 0.98f, 2.0f, count, false, 0, numbers);
        r->ops->grokfast(r->device, d_g2 + at, d_ema + at, 0.98f, 2.0f, count, true, first_index, numbers);
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

static void check_half_muon(rig *r)
{
    static const int64_t shapes[][3] = {{33, 72, 4},  {70, 33, 1}, {40, 136, 8},
                                        {136, 40, 8}, {1, 9, 0},   {64, 64, 0}};
    const uint64_t key = 3;
    for (int s = 0; s < shapes_to_run(sizeof shapes / sizeof shapes[0], 4); s++) {
        int64_t rows = shapes[s][0], cols = shapes[s][1], count = rows * cols;
        int64_t at = shapes[s][2], total = at + count;
        float *w = rig_random(r, total, 1.0), *buf = rig_random(r, total, 1.0);
        float *g = rig_random(r, total, 1.0);
        uint16_t *d_buf = rig_put(r, halve(r, buf, total), total * 2);
        float *d_w = rig_put_f32(r, w, total), *d_w2 = rig_put_f32(r, w, total);
        float *d_g = rig_put_f32(r, g, total), *d_wide = rig_put_f32(r, buf, total);
        float *work = rig_put_f32(r, NULL, r->ops->muon_work_count(r->device, 1, rows, cols));
        p4_muon_item wide_item = {.w = d_w + at, .buf = d_wide + at, .g = d_g + at};
        p4_muon_item item = {.w = d_w2 + at, .buf = d_buf + at, .g = d_g + at, .index = first_index};
        const p4_step_numbers *numbers = muon_numbers(r, key);
        r->ops->muon(r->device, &wide_item, 1, rows, cols, 0.95f, 0.1f, work, false, numbers);
        r->ops->muon(r->device, &item, 1, rows, cols, 0.95f, 0.1f, work, true, numbers);
        const float *wide = rig_get_f32(r, d_wide, total);
        const uint16_t *got = rig_get(r, d_buf, total * 2);
        expect_rounded("muon bf16 buf", got + at, wide + at, key, first_index, 0, count, false);
        double *want = rig_doubles(r, rig_get_f32(r, d_w, total), total);
        expect_array("muon bf16 w", rig_get_f32(r, d_w2, total), want, total, 1e-6, 1e-5);
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"norm, grokfast, scale, add_f32, round", check_elementwise},
                                     {"adamw", check_adamw},
                                     {"muon", check_muon},
                                     {"muon, large", check_muon_large},
                                     {"bf16 state, rounding", check_rounding},
                                     {"bf16 state, grokfast", check_half_grokfast},
                                     {"bf16 state, adamw", check_half_adamw},
                                     {"bf16 state, muon", check_half_muon}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
