/* Muon: one step from random state, against double. */
#include "ops_state.h"

/* A step's numbers on the device; those that the op must not read are NaN. */
static const p4_step_numbers *muon_numbers(rig *r, uint64_t key)
{
    p4_step_numbers n = {0.02f, 0.5f, NAN, NAN, .key = key, .first = 1};
    return rig_put(r, &n, sizeof n);
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

static void normalize(double *x, int64_t count)
{
    double norm = 0.0;
    for (int64_t i = 0; i < count; i++) {
        norm += x[i] * x[i];
    }
    for (int64_t i = 0; i < count; i++) {
        x[i] /= sqrt(norm) + 1e-7;
    }
}

/* x[m, n] of norm 1 orthogonalised in place. */
static void newton_schulz(rig *r, double *x, int64_t m, int64_t n)
{
    double *A = rig_host(r, m * m * 8), *A2 = rig_host(r, m * m * 8), *y = rig_host(r, m * n * 8);
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

/* The largest movement of an element of the result when the elements of x[m, n] are rounded to bf16. The
 * steps enlarge what rounding adds to a small singular value up to 3.4445^5 times. */
static double spread_of_rounding(rig *r, const double *x, const double *result, int64_t m, int64_t n)
{
    double *rounded = rig_host(r, m * n * 8), worst = 0.0;
    for (int64_t i = 0; i < m * n; i++) {
        rounded[i] = (double)p4_bf16_to_f32(p4_f32_to_bf16((float)x[i]));
    }
    newton_schulz(r, rounded, m, n);
    for (int64_t i = 0; i < m * n; i++) {
        worst = fmax(worst, fabs(rounded[i] - result[i]));
    }
    return worst;
}

/* What a Muon step makes of w and buf; the sum of squares of what it adds to w beside the decay. *spread
 * becomes at least that of rounding, if the device rounds. */
static double muon_reference(rig *r, double *w, double *buf, const float *g, int64_t rows, int64_t cols,
                             double *spread)
{
    int64_t count = rows * cols, m = p4_min_i64(rows, cols), n = p4_max_i64(rows, cols);
    double *x = rig_host(r, count * 8), added = 0.0;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = rows > cols ? i % cols * rows + i / cols : i;
        buf[i] = (double)0.95f * buf[i] + 0.5 * (double)g[i];
        x[at] = 0.5 * (double)g[i] + (double)0.95f * buf[i];
    }
    normalize(x, count);
    double *before = rig_host(r, count * 8);
    memcpy(before, x, (size_t)count * 8);
    newton_schulz(r, x, m, n);
    *spread = r->eps > 1e-6 ? fmax(*spread, spread_of_rounding(r, before, x, m, n)) : 0.0;
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
    double added = 0.0, error = 0.0, size = 0.0, spread = 0.0;
    p4_muon_item *item = rig_host(r, items * (int64_t)sizeof *item);
    for (int64_t i = 0; i < items; i++) {
        item[i] = (p4_muon_item){.w = d_w + i * each, .buf = d_buf + i * each, .g = d_g + i * each};
    }
    float *work = rig_put_f32(r, NULL, r->ops->muon_work_count(device, items, rows, cols));
    const p4_step_numbers *numbers = muon_numbers(r, 0);
    EXPECT_OK(r->ops->sync(r->device));
    r->ops->muon(device, &(p4_muon_args){.h_items = item,
                                         .items = items,
                                         .rows = rows,
                                         .cols = cols,
                                         .momentum = 0.95f,
                                         .decay = 0.1f,
                                         .work = work,
                                         .numbers = numbers});
    EXPECT_OK(r->ops->sync(device));
    int host_blocks = r->host_blocks;
    for (int64_t i = 0; i < items; i++) {
        added += muon_reference(r, want_w + i * each, want_buf + i * each, g + i * each, rows, cols, &spread);
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
    expect_array("muon w", got, want_w, total, 1e-6, (half ? 0.1 + 2.0 * spread : bound) * 0.02 * factor);
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
    r->ops->muon(device, &(p4_muon_args){.h_items = item,
                                         .items = items,
                                         .rows = rows,
                                         .cols = cols,
                                         .momentum = 0.95f,
                                         .work = work,
                                         .numbers = numbers});
    EXPECT_OK(r->ops->sync(device));
    memcpy(got, rig_get_f32(r, d_w, total), (size_t)total * 4);
}

/* The largest movement of an element of the step when the gradient is rounded to bf16 once more, as the
 * matrix is that the implementations begin with. What that adds to small singular values is what they enlarge
 * most, each in its own way (spread_of_rounding). */
static double spread_of_large(rig *r, const float *own, const float *g, int64_t rows, int64_t cols,
                              int64_t items)
{
    int64_t total = items * rows * cols;
    float *rounded = rig_host(r, total * 4), *moved = rig_host(r, total * 4);
    double worst = 0.0;
    for (int64_t i = 0; i < total; i++) {
        rounded[i] = p4_bf16_to_f32(p4_f32_to_bf16(g[i]));
    }
    run_muon_large(r, r->device, moved, rounded, rows, cols, items);
    for (int64_t i = 0; i < total; i++) {
        worst = fmax(worst, fabs((double)moved[i] - (double)own[i]));
    }
    return worst;
}

/* The two implementations of a GPU's products on the sizes of real layers, and on several batches: they
 * differ as much as each does from double. */
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
        double bound = 0.1 * 0.02 * 0.2 * sqrt((double)p4_max_i64(rows, cols)) +
                       2.0 * spread_of_large(r, own, g, rows, cols, items);
        EXPECT(sqrt(error) < 4e-2 * sqrt(size) && worst < bound,
               "muon [%lld, %lld] x %lld: the implementations differ by %.3g of a step of %.3g, one element "
               "by %.3g",
               (long long)rows, (long long)cols, (long long)items, sqrt(error), sqrt(size), worst);
        rig_clear(r);
    }
    r->ops->close(device);
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
        p4_muon_args args = {.h_items = &wide_item,
                             .items = 1,
                             .rows = rows,
                             .cols = cols,
                             .momentum = 0.95f,
                             .decay = 0.1f,
                             .work = work,
                             .numbers = numbers};
        r->ops->muon(r->device, &args);
        args.h_items = &item;
        args.half = true;
        r->ops->muon(r->device, &args);
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
    static const ops_case cases[] = {
        {"muon", check_muon}, {"muon, large", check_muon_large}, {"bf16 state, muon", check_half_muon}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
