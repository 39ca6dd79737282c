/* Quantizing and packing: every rule against its plain definition, the exact one against sorting. */
#include <float.h>

#include "ops_cases.h"

/* What quantize must give for a whole matrix, row by row. */
typedef struct quantized {
    int8_t *t;
    uint16_t *scale;
    p4_quant_error error;
} quantized;

typedef struct element {
    float magnitude, importance;
} element;

static int by_magnitude(const void *a, const void *b)
{
    float x = ((const element *)a)->magnitude, y = ((const element *)b)->magnitude;
    return (x < y) - (x > y);
}

/* The best cut (docs/methods.md 1) by sorting; infinite when nothing is chosen. */
static float sorted_cut(const float *w, const float *h, int64_t cols, float *scale)
{
    element *sorted = malloc((size_t)cols * sizeof *sorted);
    float cut = INFINITY;
    double best = 0.0, sum = 0.0, weight = 0.0;
    *scale = 0.0f;
    for (int64_t c = 0; sorted && c < cols; c++) {
        sorted[c] = (element){fabsf(w[c]), h ? h[c] : 1.0f};
    }
    if (sorted) {
        qsort(sorted, (size_t)cols, sizeof *sorted, by_magnitude);
    }
    for (int64_t k = 0; sorted && k < cols; k++) {
        sum += (double)sorted[k].importance * (double)sorted[k].magnitude;
        weight += (double)sorted[k].importance;
        bool run_ends = k + 1 == cols || sorted[k + 1].magnitude != sorted[k].magnitude;
        if (run_ends && weight > 0.0 && sum * sum / weight > best) {
            best = sum * sum / weight;
            cut = sorted[k].magnitude;
            *scale = (float)(sum / weight);
        }
    }
    free(sorted);
    return cut;
}

static quantized reference(rig *r, const float *w, int64_t rows, int64_t cols, p4_quant_method method,
                           float threshold, const float *h)
{
    quantized q = {.t = rig_host(r, rows * cols),
                   .scale = rig_host(r, rows * 2),
                   .error = {.scale_min = INFINITY, .scale_max = -INFINITY}};
    for (int64_t i = 0; i < rows; i++) {
        const float *row = w + i * cols;
        float scale = 0.0f, cut = 0.0f;
        if (method == P4_QUANT_EXACT) {
            cut = sorted_cut(row, h, cols, &scale);
        } else {
            double sum = 0.0;
            for (int64_t c = 0; c < cols; c++) {
                sum += (double)fabsf(row[c]);
            }
            scale = fmaxf((float)(sum / (double)cols), 1e-8f);
            cut = threshold * scale;
        }
        q.scale[i] = p4_f32_to_f16(scale);
        float stored = p4_f16_to_f32(q.scale[i]);
        q.error.scale_min = fminf(q.error.scale_min, stored);
        q.error.scale_max = fmaxf(q.error.scale_max, stored);
        for (int64_t c = 0; c < cols; c++) {
            int t = fabsf(row[c]) >= cut ? (row[c] > 0.0f) - (row[c] < 0.0f) : 0;
            double difference = (double)row[c] - (t ? (double)t * (double)stored : 0.0);
            q.t[i * cols + c] = (int8_t)t;
            q.error.zeros += t == 0;
            q.error.sq_norm += (double)row[c] * (double)row[c];
            q.error.sq_error += difference * difference;
        }
    }
    return q;
}

static int code_at(const uint8_t *codes, int64_t cols, int64_t row, int64_t col)
{
    return codes[row * p4_code_row_bytes(cols) + col / 4] >> 2 * (col % 4) & 3;
}

/* Quantizes `weight`, whose values are w, and compares everything. */
static void check_quantize(rig *r, const char *what, const p4_weight *weight, const float *w,
                           p4_quant_method method, float threshold, const float *h)
{
    int64_t rows = weight->rows, cols = weight->cols, bytes = rows * p4_code_row_bytes(cols);
    uint8_t *d_codes = rig_put(r, NULL, bytes), *d_quiet = rig_put(r, NULL, bytes);
    uint16_t *d_scale = rig_put(r, NULL, rows * 2);
    float *d_h = h ? rig_put_f32(r, h, cols) : NULL;
    p4_quant_error error;
    r->ops->quantize(r->device, d_quiet, d_scale, NULL, weight, method, threshold, d_h);
    r->ops->quantize(r->device, d_codes, d_scale, &error, weight, method, threshold, d_h);
    uint8_t *codes = rig_get(r, d_codes, bytes);
    uint16_t *scale = rig_get(r, d_scale, rows * 2);
    EXPECT(memcmp(codes, rig_get(r, d_quiet, bytes), (size_t)bytes) == 0, "%s: codes depend on the report",
           what);
    quantized want = reference(r, w, rows, cols, method, threshold, h);
    int64_t wrong = 0, padding = 0;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < p4_code_row_bytes(cols) * 4; c++) {
            int code = code_at(codes, cols, i, c);
            wrong += c < cols && code != want.t[i * cols + c] + 1;
            padding += c >= cols && code != 1;
        }
    }
    EXPECT(wrong == 0, "%s [%lld, %lld]: %lld codes differ", what, (long long)rows, (long long)cols,
           (long long)wrong);
    EXPECT(padding == 0, "%s: %lld padding codes are not 1", what, (long long)padding);
    EXPECT(memcmp(scale, want.scale, (size_t)rows * 2) == 0,
           "%s [%lld, %lld]: scales differ: %04x, want %04x", what, (long long)rows, (long long)cols,
           scale[0], want.scale[0]);
    EXPECT(fabs(error.sq_error - want.error.sq_error) <= 1e-11 * want.error.sq_norm ||
               error.sq_error == want.error.sq_error, /* infinite: a scale beyond fp16 */
           "%s: squared error %.9g, want %.9g", what, error.sq_error, want.error.sq_error);
    EXPECT_NEAR(error.sq_norm, want.error.sq_norm, 1e-11 * want.error.sq_norm);
    EXPECT(error.zeros == want.error.zeros && error.nonfinite == 0,
           "%s: %lld zeros, want %lld; %lld not finite", what, (long long)error.zeros,
           (long long)want.error.zeros, (long long)error.nonfinite);
    EXPECT(error.scale_min == want.error.scale_min && error.scale_max == want.error.scale_max,
           "%s: scale range", what);
}

enum { KINDS = 20 };

/* One row of the given kind: the shapes of data on which a selection can go wrong. */
static void fill_row(rig *r, float *w, int64_t cols, int kind)
{
    for (int64_t c = 0; c < cols; c++) {
        double n = p4_rng_normal(&r->rng), u = p4_rng_uniform(&r->rng), sign = u < 0.5 ? -1.0 : 1.0;
        double spread = -log(p4_rng_uniform(&r->rng) + 1e-9);
        const double values[KINDS] = {
            n,                                            /* 0: Gaussian */
            sign * spread * 0.02,                         /* 1: Laplace */
            (double)rig_integer(r, -3, 3),                /* 2: many ties */
            0.0,                                          /* 3: all zero */
            0.0,                                          /* 4: one element not zero (below) */
            n * 1e-40,                                    /* 5: subnormal */
            sign * 0.37,                                  /* 6: one magnitude */
            n * 1e-3,                                     /* 7: one large element (below) */
            sign * (1.0 + 0.02 * spread),                 /* 8: one or two buckets hold all */
            n * 1e38,                                     /* 9: near the largest float */
            sign * exp2(-60.0 * p4_rng_uniform(&r->rng)), /* 10: many octaves */
            sign * spread * spread * spread,              /* 11: heavy tail */
            c % 4 ? sign : 3.0 * sign,                    /* 12: S^2 / P equal at two cuts when cols = 4 */
            sign * (u < 0.3 ? 0.5 : 1.0 + 1e-6 * n),      /* 13: two clusters */
            sign * pow(10.0, 15.0 - 30.0 * (double)c / (double)cols), /* 14: thirty decades */
            rint(32.0 * n) / 32.0,                                    /* 15: many equal at the cut */
            sign * (c % 2 ? 1.0 : 0.5 + 1e-3 * n),            /* 16: half of them near half the mean */
            sign * (sqrt((double)c + 1.0) - sqrt((double)c)), /* 17: all cuts nearly as good */
            n,                                                /* 18: one large to huge element (below) */
            c % 3 ? sign : 0.0,                               /* 19: ternary already */
        };
        w[c] = (float)fmin(fmax(values[kind], -(double)FLT_MAX), (double)FLT_MAX);
    }
    if (kind == 4 || kind == 7 || kind == 18) {
        float large = (float)pow(10.0, 37.0 * pow(p4_rng_uniform(&r->rng), 3.0));
        w[rig_integer(r, 0, cols - 1)] = kind == 4 ? -0.125f : kind == 7 ? 4.0f : -large;
    }
}

static void check_rules(rig *r)
{
    static const int64_t widths[] = {257, 5004, 1, 2, 4, 5, 63, 1000, 5003};
    for (int s = 0; s < shapes_to_run(sizeof widths / sizeof widths[0], 2); s++) {
        int64_t cols = widths[s];
        for (int kind = 0; kind < KINDS; kind++) {
            int64_t rows = cols < 300 ? 17 : 2;
            float *w = rig_host(r, rows * cols * 4), *h = rig_host(r, cols * 4);
            for (int64_t i = 0; i < rows; i++) {
                fill_row(r, w + i * cols, cols, kind);
            }
            for (int64_t c = 0; c < cols; c++) {
                h[c] = kind % 3 == 0 && c % 5 == 2 ? 0.0f : (float)exp(2.0 * p4_rng_normal(&r->rng));
            }
            p4_weight weight = {
                .dtype = P4_F32, .rows = rows, .cols = cols, .data = rig_put_f32(r, w, rows * cols)};
            char what[64];
            snprintf(what, sizeof what, "kind %d", kind);
            check_quantize(r, what, &weight, w, P4_QUANT_ABSMEAN, 0.0f, NULL);
            check_quantize(r, what, &weight, w, P4_QUANT_ABSMEAN, kind == 6 ? 1.0f : 0.7f, NULL);
            check_quantize(r, what, &weight, w, P4_QUANT_EXACT, 0.0f, NULL);
            check_quantize(r, what, &weight, w, P4_QUANT_EXACT, 0.0f, h);
            rig_clear(r);
        }
    }
}

/* The exact rule on rows of every short length and around the limits of the kernels, fp32 and bf16. */
static void check_lengths(rig *r)
{
    static const int64_t widths[] = {1024, 2048, 2052, 16392, 1028, 2049, 5632, 8192, 16384};
    const int long_ones = shapes_to_run(sizeof widths / sizeof widths[0], 4),
              short_ones = shapes_to_run(70, 8);
    for (int64_t i = 1; i <= short_ones + long_ones; i++) {
        int64_t cols = i <= short_ones ? i : widths[i - short_ones - 1];
        int64_t rows = cols <= 70 ? 3 : 1, each = cols > 2048 || test_few() ? 7 : 3;
        for (int kind = (int)rig_integer(r, 0, each - 1); kind < KINDS; kind += (int)each) {
            float *w = rig_host(r, rows * cols * 4);
            uint16_t *half = rig_host(r, rows * cols * 2);
            for (int64_t row = 0; row < rows; row++) {
                fill_row(r, w + row * cols, cols, kind);
            }
            char what[64];
            snprintf(what, sizeof what, "length, kind %d", kind);
            p4_weight weight = {
                .dtype = P4_F32, .rows = rows, .cols = cols, .data = rig_put_f32(r, w, rows * cols)};
            check_quantize(r, what, &weight, w, P4_QUANT_EXACT, 0.0f, NULL);
            for (int64_t at = 0; at < rows * cols; at++) {
                half[at] = p4_f32_to_bf16(w[at]);
                w[at] = p4_bf16_to_f32(half[at]);
            }
            weight.dtype = P4_BF16;
            weight.data = rig_put(r, half, rows * cols * 2);
            if (kind != 9) { /* rounded up it is infinite */
                check_quantize(r, what, &weight, w, P4_QUANT_EXACT, 0.0f, NULL);
            }
            rig_clear(r);
        }
    }
}

/* More rows than blocks that report, so that a block goes from one kind of row to another. */
static void check_many_rows(rig *r)
{
    static const int kinds[] = {0, 3, 1, 19};
    int64_t rows = 1030, cols = 2052;
    float *w = rig_host(r, rows * cols * 4);
    for (int64_t row = 0; row < rows; row++) {
        fill_row(r, w + row * cols, cols, row % 97 == 7 ? 17 : kinds[rig_integer(r, 0, 3)]);
    }
    p4_weight weight = {.dtype = P4_F32, .rows = rows, .cols = cols, .data = rig_put_f32(r, w, rows * cols)};
    check_quantize(r, "many rows, a block each", &weight, w, P4_QUANT_EXACT, 0.0f, NULL);
    weight.cols = 8; /* the beginning of the same elements */
    check_quantize(r, "many rows, a warp each", &weight, w, P4_QUANT_EXACT, 0.0f, NULL);
    rig_clear(r);
}

/* Half precision, transposed, and on the CPU at an odd address, as in a mapped file. */
static void check_forms(rig *r)
{
    static const int64_t sizes[][2] = {{1, 9}, {5, 300}, {37, 66}, {530, 20}};
    for (size_t s = 0; s < 4 * 6; s++) {
        int64_t rows = sizes[s / 6][0], cols = sizes[s / 6][1], odd = strcmp(r->ops->name, "cpu") == 0;
        p4_dtype dtype = (p4_dtype)(s % 3);
        bool transposed = s % 6 >= 3;
        float *w = rig_random(r, rows * cols, 0.05);
        int64_t each = p4_dtype_bytes(dtype);
        uint8_t *data = rig_host(r, rows * cols * each + odd);
        for (int64_t i = 0; i < rows * cols; i++) {
            int64_t at = transposed ? i % cols * rows + i / cols : i;
            uint16_t half = dtype == P4_F16 ? p4_f32_to_f16(w[i]) : p4_f32_to_bf16(w[i]);
            if (dtype == P4_F32) {
                memcpy(data + odd + 4 * at, &w[i], 4);
            } else {
                memcpy(data + odd + 2 * at, &half, 2);
                w[i] = dtype == P4_F16 ? p4_f16_to_f32(half) : p4_bf16_to_f32(half);
            }
        }
        char *d_data = rig_put(r, data, rows * cols * each + odd);
        p4_weight weight = {
            .dtype = dtype, .transposed = transposed, .rows = rows, .cols = cols, .data = d_data + odd};
        check_quantize(r, "form", &weight, w, P4_QUANT_ABSMEAN, 0.5f, NULL);
        check_quantize(r, "form", &weight, w, P4_QUANT_EXACT, 0.0f, NULL);
        rig_clear(r);
    }
}

static void check_nonfinite(rig *r)
{
    for (int method = 0; method < 2; method++) {
        float *w = rig_random(r, 40 * 30, 1.0);
        w[35] = NAN;
        w[40] = -INFINITY;
        w[1100] = INFINITY;
        uint8_t *codes = rig_put(r, NULL, 40 * 8);
        uint16_t *scale = rig_put(r, NULL, 80);
        p4_weight weight = {.dtype = P4_F32, .rows = 40, .cols = 30, .data = rig_put_f32(r, w, 1200)};
        p4_quant_error error;
        r->ops->quantize(r->device, codes, scale, &error, &weight, method ? P4_QUANT_EXACT : P4_QUANT_ABSMEAN,
                         0.1f, NULL);
        EXPECT(error.nonfinite == 3, "%lld elements not finite, want 3", (long long)error.nonfinite);
        uint8_t *got = rig_get(r, codes, 40 * 8);
        for (int i = 0; i < 40 * 30; i++) {
            EXPECT(code_at(got, 30, i / 30, i % 30) <= 2, "code 3 at %d", i);
        }
        rig_clear(r);
    }
}

static void check_base3(rig *r)
{
    for (int64_t cols = 1; cols < 400; cols += cols < shapes_to_run(45, 5) ? 1 : 53) {
        int64_t rows = 35, code_bytes = p4_code_row_bytes(cols), bytes = (cols + 4) / 5;
        uint8_t *codes = rig_host(r, rows * code_bytes), *want = rig_host(r, rows * bytes);
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t c = 0; c < code_bytes * 4; c++) {
                unsigned u = c < cols ? (unsigned)rig_integer(r, 0, 2) : 1u;
                codes[i * code_bytes + c / 4] |= (uint8_t)(u << 2 * (c % 4));
            }
            for (int64_t c = 0; c < bytes * 5; c++) {
                int u = c < cols ? code_at(codes, cols, i, c) : 1;
                want[i * bytes + c / 5] = (uint8_t)(3 * want[i * bytes + c / 5] + u);
            }
        }
        uint8_t *packed = rig_put(r, NULL, rows * bytes), *back = rig_put(r, NULL, rows * code_bytes);
        r->ops->pack_base3(r->device, packed, rig_put(r, codes, rows * code_bytes), rows, cols);
        r->ops->unpack_base3(r->device, back, packed, rows, cols);
        EXPECT(memcmp(rig_get(r, packed, rows * bytes), want, (size_t)(rows * bytes)) == 0,
               "pack of %lld columns", (long long)cols);
        EXPECT(memcmp(rig_get(r, back, rows * code_bytes), codes, (size_t)(rows * code_bytes)) == 0,
               "unpack of %lld columns", (long long)cols);
        rig_clear(r);
    }
}

/* Every byte that five trits can be, at every place of a vector. */
static void check_every_byte(rig *r)
{
    enum { BYTES = 243, COLS = 5 * BYTES, CODE_BYTES = (COLS + 3) / 4, ROWS = 32 };
    uint8_t *packed = rig_host(r, ROWS * BYTES);
    for (int i = 0; i < ROWS * BYTES; i++) {
        packed[i] = (uint8_t)((i % BYTES + i / BYTES) % BYTES);
    }
    uint8_t *back = rig_put(r, NULL, ROWS * CODE_BYTES);
    r->ops->unpack_base3(r->device, back, rig_put(r, packed, ROWS * BYTES), ROWS, COLS);
    const uint8_t *codes = rig_get(r, back, ROWS * CODE_BYTES);
    for (int i = 0; i < ROWS; i++) {
        for (int b = 0; b < BYTES; b++) {
            int byte = 0;
            for (int k = 0; k < 5; k++) {
                byte = 3 * byte + code_at(codes, COLS, i, 5 * b + k);
            }
            EXPECT(byte == packed[i * BYTES + b], "byte %d of row %d", b, i);
        }
    }
    rig_clear(r);
}

/* A matrix with one scale is one row, which one thread works on: its memory does not grow with the threads.
 */
static void check_memory(rig *r)
{
    const int64_t cols = 1 << 18;
    const p4_ops *cpu = p4_ops_find("cpu");
    p4_device *device = NULL;
    uint16_t scale;
    float *w = rig_random(r, cols, 0.05);
    uint8_t *codes = rig_host(r, p4_code_row_bytes(cols));
    const p4_weight weight = {.dtype = P4_F32, .rows = 1, .cols = cols, .data = w};
    EXPECT(cpu->open(&device, 0, 8, false) == P4_OK, "a CPU with 8 threads: %s", p4_last_error());
    cpu->quantize(device, codes, &scale, NULL, &weight, P4_QUANT_EXACT, 0.0f, NULL);
    EXPECT(cpu->sync(device) == P4_OK && cpu->peak_bytes(device) <= 20 * cols, "%lld bytes for a row of %lld",
           (long long)cpu->peak_bytes(device), (long long)cols);
    cpu->close(device);
    rig_clear(r);
}

int main(void)
{
    static const ops_case cases[] = {{"quantize, rules", check_rules},
                                     {"quantize, lengths", check_lengths},
                                     {"quantize, many rows", check_many_rows},
                                     {"quantize, forms", check_forms},
                                     {"quantize, not finite", check_nonfinite},
                                     {"quantize, memory", check_memory},
                                     {"base 3", check_base3},
                                     {"every byte", check_every_byte}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
