/* The linear layer's ops and weight unpacking against double loops. */
#include "ops_cases.h"

typedef struct shape {
    int64_t N, in, out;
} shape;

static const shape shapes[] = {{17, 33, 65}, {64, 256, 96},  {272, 264, 48}, {1, 1, 1},      {3, 5, 7},
                               {130, 48, 1}, {257, 129, 40}, {600, 64, 300}, {33, 700, 1100}};
enum { SHAPES = sizeof shapes / sizeof shapes[0], SHAPES_FEW = 3 };

/* want[i, j] = start[i, j] + sum_k a[i sa_i + k sa_k] b[j sb_j + k sb_k] */
static double *product(rig *r, const float *a, int64_t sa_i, int64_t sa_k, const float *b, int64_t sb_j,
                       int64_t sb_k, const float *start, int64_t rows, int64_t cols, int64_t inner)
{
    double *want = rig_doubles(r, start, rows * cols);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) {
            double sum = 0.0;
            for (int64_t k = 0; k < inner; k++) {
                sum += (double)a[i * sa_i + k * sa_k] * (double)b[j * sb_j + k * sb_k];
            }
            want[i * cols + j] += sum;
        }
    }
    return want;
}

/* fp32 sums of K products, then one rounding to the activation type. */
static double sum_bound(const rig *r, int64_t K)
{
    return 4.0 * r->eps + 2e-7 * sqrt((double)K) + 1e-6;
}

static void check_forward(rig *r)
{
    for (int s = 0; s < shapes_to_run(SHAPES, SHAPES_FEW); s++) {
        shape m = shapes[s];
        float *x = rig_random_act(r, m.N * m.in, 1.0), *w = rig_random_act(r, m.out * m.in, 1.0);
        float *bias = rig_random(r, m.out, 1.0), *row_bias = rig_host(r, m.N * m.out * 4);
        for (int64_t i = 0; i < m.N * m.out; i++) {
            row_bias[i] = bias[i % m.out];
        }
        void *dx = rig_put_act(r, x, m.N * m.in), *dw = rig_put_act(r, w, m.out * m.in);
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            void *y = rig_put_act(r, NULL, m.N * m.out);
            r->ops->linear_forward(r->device, y, dx, dw, with_bias ? rig_put_f32(r, bias, m.out) : NULL, m.N,
                                   m.in, m.out);
            double *want = product(r, x, m.in, 1, w, m.in, 1, with_bias ? row_bias : NULL, m.N, m.out, m.in);
            expect_array("linear_forward", rig_get_act(r, y, m.N * m.out), want, m.N * m.out,
                         sum_bound(r, m.in), 4.0 * r->eps);
        }
        rig_clear(r);
    }
}

static void check_backward_input(rig *r)
{
    for (int s = 0; s < shapes_to_run(SHAPES, SHAPES_FEW); s++) {
        shape m = shapes[s];
        float *dy = rig_random_act(r, m.N * m.out, 1.0), *w = rig_random_act(r, m.out * m.in, 1.0);
        float *old = rig_random_act(r, m.N * m.in, 1.0);
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            void *dx = rig_put_act(r, accumulate ? old : NULL, m.N * m.in);
            r->ops->linear_backward_input(r->device, dx, rig_put_act(r, dy, m.N * m.out),
                                          rig_put_act(r, w, m.out * m.in), m.N, m.in, m.out, accumulate);
            double *want = product(r, dy, m.out, 1, w, 1, m.in, accumulate ? old : NULL, m.N, m.in, m.out);
            expect_array("linear_backward_input", rig_get_act(r, dx, m.N * m.in), want, m.N * m.in,
                         sum_bound(r, m.out), 4.0 * r->eps);
        }
        rig_clear(r);
    }
}

static void check_backward_weight(rig *r)
{
    for (int s = 0; s < shapes_to_run(SHAPES, SHAPES_FEW); s++) {
        shape m = shapes[s];
        int64_t extra = 3 * (s % 3), ld = m.out + extra;
        float *dy = rig_random_act(r, m.N * ld, 1.0), *x = rig_random_act(r, m.N * m.in, 1.0);
        float *old = rig_random(r, m.out * m.in, 1.0);
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            float *dw = rig_put_f32(r, accumulate ? old : NULL, m.out * m.in);
            char *fused = rig_put_act(r, dy, m.N * ld);
            r->ops->linear_backward_weight(r->device, &(p4_linear_backward_weight_args){
                                                          .N = m.N,
                                                          .in = m.in,
                                                          .out = m.out,
                                                          .dy = fused + extra * r->ops->act_bytes(r->device),
                                                          .ld_dy = ld,
                                                          .x = rig_put_act(r, x, m.N * m.in),
                                                          .dw = dw,
                                                          .accumulate = accumulate});
            double *want =
                product(r, dy + extra, 1, ld, x, 1, m.in, accumulate ? old : NULL, m.out, m.in, m.N);
            expect_array("linear_backward_weight", rig_get_f32(r, dw, m.out * m.in), want, m.out * m.in,
                         2e-7 * sqrt((double)m.N) + 1e-6, 4e-7);
        }
        rig_clear(r);
    }
}

static double gelu(double x)
{
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

static void check_gelu_forward(rig *r)
{
    for (int s = 0; s < shapes_to_run(SHAPES, SHAPES_FEW); s++) {
        shape m = shapes[s];
        int64_t count = m.N * m.out;
        float *x = rig_random_act(r, m.N * m.in, 1.0),
              *w = rig_random_act(r, m.out * m.in, 2.0 / sqrt((double)m.in));
        float *bias = rig_random(r, m.out, 1.0), *row_bias = rig_host(r, count * 4);
        for (int64_t i = 0; i < count; i++) {
            row_bias[i] = bias[i % m.out];
        }
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            void *h = rig_put_act(r, NULL, count), *up = rig_put_act(r, NULL, count);
            r->ops->linear_activate_forward(
                r->device,
                &(p4_linear_activate_forward_args){.N = m.N,
                                                   .in = m.in,
                                                   .out = m.out,
                                                   .x = rig_put_act(r, x, m.N * m.in),
                                                   .w = rig_put_act(r, w, m.out * m.in),
                                                   .opt_bias = with_bias ? rig_put_f32(r, bias, m.out) : NULL,
                                                   .up = up,
                                                   .h = h});
            double *want = product(r, x, m.in, 1, w, m.in, 1, with_bias ? row_bias : NULL, m.N, m.out, m.in);
            expect_array("linear_activate_forward's up", rig_get_act(r, up, count), want, count,
                         sum_bound(r, m.in), 4.0 * r->eps);
            for (int64_t i = 0; i < count; i++) {
                want[i] = gelu(want[i]);
            }
            expect_array("linear_activate_forward", rig_get_act(r, h, count), want, count, sum_bound(r, m.in),
                         6.0 * r->eps);
        }
        rig_clear(r);
    }
}

/* Through the layer behind the GELU, [in, out] -> [out, in] of `shapes`: F = in. */
static void check_gelu_backward(rig *r)
{
    for (int s = 0; s < shapes_to_run(SHAPES, SHAPES_FEW); s++) {
        shape m = shapes[s];
        int64_t F = m.in, count = m.N * F;
        float *dy = rig_random_act(r, m.N * m.out, 1.0), *w = rig_random_act(r, m.out * F, 1.0);
        float *up = rig_random_act(r, count, 2.0), *old = rig_random(r, F, 1.0);
        up[0] = s % 2 ? 60.0f : -60.0f;
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            void *dup = rig_put_act(r, NULL, count);
            float *db = with_bias ? rig_put_f32(r, old, F) : NULL;
            r->ops->linear_activate_backward(
                r->device, &(p4_linear_activate_backward_args){.N = m.N,
                                                               .F = F,
                                                               .out = m.out,
                                                               .dy = rig_put_act(r, dy, m.N * m.out),
                                                               .w = rig_put_act(r, w, m.out * F),
                                                               .up = rig_put_act(r, up, count),
                                                               .dup = dup,
                                                               .opt_db = db});
            double *want = product(r, dy, m.out, 1, w, 1, F, NULL, m.N, F, m.out),
                   *want_bias = rig_doubles(r, old, F);
            for (int64_t i = 0; i < count; i++) {
                want[i] *= (gelu((double)up[i] + 1e-5) - gelu((double)up[i] - 1e-5)) / 2e-5;
            }
            float *got = rig_get_act(r, dup, count);
            expect_array("linear_activate_backward", got, want, count, sum_bound(r, m.out), 4.0 * r->eps);
            for (int64_t i = 0; i < count; i++) {
                want_bias[i % F] += (double)got[i];
            }
            if (db) { /* of what was stored, or of what was not yet rounded */
                expect_array("linear_activate_backward's bias", rig_get_f32(r, db, F), want_bias, F,
                             2.0 * r->eps + 2e-6, 2.0 * r->eps);
            }
        }
        rig_clear(r);
    }
}

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

/* The same through SwiGLU. */
static void check_swiglu_backward(rig *r)
{
    for (int s = 0; s < shapes_to_run(SHAPES, SHAPES_FEW); s++) {
        shape m = shapes[s];
        int64_t F = m.in, count = m.N * F;
        float *dy = rig_random_act(r, m.N * m.out, 1.0), *w = rig_random_act(r, m.out * F, 1.0);
        float *x = rig_random_act(r, 2 * count, 2.0);
        x[0] = s % 2 ? 100.0f : -120.0f; /* exp overflows: silu is -0 */
        void *d = rig_put_act(r, NULL, 2 * count);
        r->ops->linear_gated_backward(
            r->device, &(p4_linear_gated_backward_args){.function = P4_SILU,
                                                        .N = m.N,
                                                        .F = F,
                                                        .out = m.out,
                                                        .dy = rig_put_act(r, dy, m.N * m.out),
                                                        .w = rig_put_act(r, w, m.out * F),
                                                        .gate_up = rig_put_act(r, x, 2 * count),
                                                        .dgate_up = d,
                                                        .dh_work = rig_put_act(r, NULL, count)});
        double *dh = product(r, dy, m.out, 1, w, 1, F, NULL, m.N, F, m.out),
               *want = rig_host(r, 2 * count * 8);
        for (int64_t i = 0; i < count; i++) {
            int64_t at = i / F * 2 * F + i % F;
            double gate = (double)x[at], up = (double)x[at + F];
            want[at] = dh[i] * up * (silu(gate + 1e-5) - silu(gate - 1e-5)) / 2e-5;
            want[at + F] = dh[i] * silu(gate);
        }
        expect_array("linear_gated_backward", rig_get_act(r, d, 2 * count), want, 2 * count,
                     sum_bound(r, m.out), 4.0 * r->eps);
        rig_clear(r);
    }
}

static void check_backward_bias(rig *r)
{
    for (int s = 0; s < shapes_to_run(SHAPES, SHAPES_FEW); s++) {
        shape m = shapes[s];
        int64_t ld = m.out + s % 3 * 8; /* rows that are longer, as those of logits */
        float *dy = rig_random_act(r, m.N * ld, 1.0), *old = rig_random(r, m.out, 1.0);
        float *db = rig_put_f32(r, old, m.out);
        r->ops->linear_backward_bias(r->device, db, rig_put_act(r, dy, m.N * ld), m.N, m.out, ld);
        double *want = rig_doubles(r, old, m.out);
        for (int64_t i = 0; i < m.N * m.out; i++) {
            want[i % m.out] += (double)dy[i / m.out * ld + i % m.out];
        }
        expect_array("linear_backward_bias", rig_get_f32(r, db, m.out), want, m.out, 1e-6, 1e-6);
        rig_clear(r);
    }
}

/* A random weight [rows, cols] in a given form, at an odd address of host memory when fp16 or bf16; `values`
 * gets what it holds. The CUDA column gets it copied. */
static p4_weight random_weight(rig *r, float *values, p4_dtype dtype, bool transposed, int64_t rows,
                               int64_t cols)
{
    int64_t row_bytes = p4_code_row_bytes(cols), each = p4_dtype_bytes(dtype);
    int64_t bytes = dtype == P4_TERNARY ? rows * row_bytes : rows * cols * each;
    uint8_t *data = rig_host(r, bytes);
    uint16_t *scale = rig_host(r, rows * 2);
    memset(data, dtype == P4_TERNARY ? 0x55 : 0, (size_t)bytes);
    for (int64_t i = 0; i < rows; i++) {
        scale[i] = p4_f32_to_f16((float)p4_rng_normal(&r->rng));
        for (int64_t j = 0; j < cols; j++) {
            int64_t at = transposed ? j * rows + i : i * cols + j;
            float value =
                (float)p4_rng_normal(&r->rng) * (j % 5 == 3 ? 1e-6f : 1.0f); /* some subnormal halves */
            uint16_t half = dtype == P4_F16 ? p4_f32_to_f16(value) : p4_f32_to_bf16(value);
            if (dtype == P4_TERNARY) {
                int code = (int)rig_integer(r, 0, 2);
                uint8_t *byte = data + i * row_bytes + j / 4;
                *byte = (uint8_t)((*byte & ~(3u << 2 * (j % 4))) | (unsigned)code << 2 * (j % 4));
                value = (float)(code - 1) * p4_f16_to_f32(scale[i]);
            } else if (dtype == P4_F32) {
                memcpy(data + 4 * at, &value, 4);
            } else {
                memcpy(data + 2 * at, &half, 2);
                value = dtype == P4_F16 ? p4_f16_to_f32(half) : p4_bf16_to_f32(half);
            }
            values[i * cols + j] = value;
        }
    }
    return (p4_weight){.dtype = dtype,
                       .transposed = transposed,
                       .rows = rows,
                       .cols = cols,
                       .data = rig_put(r, data, bytes),
                       .scale = rig_put(r, scale, rows * 2)};
}

static void check_unpack(rig *r)
{
    static const int64_t sizes[][2] = {{33, 67}, {50, 304}, {1, 1}, {1, 70}, {17, 5}, {50, 300}, {3, 1030}};
    for (int s = 0; s < shapes_to_run(sizeof sizes / sizeof sizes[0], 2); s++) {
        for (int form = 0; form < 7; form++) {
            int64_t rows = sizes[s][0], cols = sizes[s][1];
            float *values = rig_host(r, rows * cols * 4);
            p4_dtype dtype = (p4_dtype)(form % 4);
            p4_weight weight = random_weight(r, values, dtype, form >= 4, rows, cols);
            void *dst = rig_put_act(r, NULL, rows * cols);
            r->ops->weight_unpack(r->device, dst, &weight);
            double bound = r->ops->act_bytes(r->device) == 4 ? 0.0 : r->eps;
            expect_array("weight_unpack", rig_get_act(r, dst, rows * cols),
                         rig_doubles(r, values, rows * cols), rows * cols, bound, 0.0);
            rig_clear(r);
        }
    }
}

/* Also to an address of single values, and nothing beside them. */
static void check_f32(rig *r)
{
    static const int64_t sizes[][2] = {{33, 67}, {50, 304}, {1, 1}, {17, 5}, {3, 1030}, {130, 64}};
    for (int s = 0; s < shapes_to_run(sizeof sizes / sizeof sizes[0], 2); s++) {
        for (int form = 0; form < 12; form++) {
            int64_t rows = sizes[s][0], cols = sizes[s][1], count = rows * cols, all = 4 * count + 8;
            float *values = rig_host(r, count * 4), *want = rig_host(r, all);
            p4_weight weight = random_weight(r, values, (p4_dtype)(form % 3), form % 6 >= 3, rows, cols);
            memset(want, 0xff, (size_t)all);
            float *dst = rig_put(r, want, all);
            r->ops->weight_f32(r->device, dst + form / 6, &weight);
            memcpy(want + form / 6, values, (size_t)count * 4);
            EXPECT(memcmp(rig_get(r, dst, all), want, (size_t)all) == 0, "weight_f32: form %d differs", form);
            rig_clear(r);
        }
    }
}

/* What linear_forward_int8 is to give: sums of integers, scaled in double. */
static double *int8_product(rig *r, const float *x, const float *w, const float *bias, shape m)
{
    double *want = rig_host(r, m.N * m.out * 8);
    float *q = rig_host(r, m.in * 4);
    for (int64_t n = 0; n < m.N; n++) {
        float largest = 1e-5f;
        for (int64_t c = 0; c < m.in; c++) {
            largest = fmaxf(largest, fabsf(x[n * m.in + c]));
        }
        float s = 127.0f / largest;
        for (int64_t c = 0; c < m.in; c++) {
            q[c] = fminf(fmaxf(rintf(x[n * m.in + c] * s), -128.0f), 127.0f);
        }
        for (int64_t o = 0; o < m.out; o++) {
            double sum = 0.0;
            for (int64_t c = 0; c < m.in; c++) {
                sum += (double)q[c] * (double)w[o * m.in + c];
            }
            want[n * m.out + o] = sum / (double)s + (bias ? (double)bias[o] : 0.0);
        }
    }
    return want;
}

typedef struct int8_case {
    shape m;
    int64_t parts;
    void *x;
    p4_weight weights[P4_INT8_PARTS];
    const float *bias;
} int8_case;

static void *run_int8(rig *r, p4_device *device, const int8_case *c)
{
    int64_t act = r->ops->act_bytes(r->device), width = p4_int8_width(c->m.in);
    void *y = rig_put_act(r, NULL, c->m.N * c->m.out);
    void *x_work = rig_put_act(r, NULL, c->m.N * c->m.in), *w_work = rig_put(r, NULL, c->m.out * width * act);
    p4_int8_rows rows = {.codes = rig_put(r, NULL, c->m.N * width), .s = rig_put_f32(r, NULL, c->m.N)};
    r->ops->quantize_int8(r->device, NULL, &rows, c->x, c->m.N, c->m.in);
    EXPECT_OK(r->ops->sync(r->device));
    r->ops->linear_forward_int8(device, &(p4_linear_forward_int8_args){.N = c->m.N,
                                                                       .in = c->m.in,
                                                                       .out = c->m.out,
                                                                       .x = rows,
                                                                       .weights = c->weights,
                                                                       .parts = c->parts,
                                                                       .opt_bias = c->bias,
                                                                       .y = y,
                                                                       .x_work = x_work,
                                                                       .w_work = w_work});
    EXPECT_OK(r->ops->sync(device));
    return y;
}

/* The other implementations of the CUDA column (kernels/cuda/int8.cuh) give the bits that `y` holds. */
static void expect_same_bits(rig *r, const int8_case *c, const void *y)
{
    static const char *const others[] = {"cublas", "simple"};
    int64_t bytes = c->m.N * c->m.out * r->ops->act_bytes(r->device);
    for (size_t i = 0; strcmp(r->ops->name, "cuda") == 0 && i < sizeof others / sizeof others[0]; i++) {
        p4_device *other = NULL;
        setenv("P4_INT8", others[i], 1);
        EXPECT_OK(r->ops->open(&other, 0, 0, r->ops->act_bytes(r->device) == 2));
        unsetenv("P4_INT8");
        if (other) {
            EXPECT(memcmp(rig_get(r, run_int8(r, other, c), bytes), rig_get(r, y, bytes), (size_t)bytes) == 0,
                   "linear_forward_int8 [%lld, %lld, %lld]: %s gives other bits", (long long)c->m.N,
                   (long long)c->m.in, (long long)c->m.out, others[i]);
            r->ops->close(other);
        }
    }
}

/* A slot of parts of random height; w gets its values [out, in]. */
static void random_parts(rig *r, int8_case *c, float *w)
{
    int64_t row = 0;
    for (int64_t i = 0; i < c->parts; i++) {
        int64_t left = c->m.out - row, later = c->parts - 1 - i;
        int64_t rows = i == c->parts - 1 ? left : rig_integer(r, 1, left - later);
        c->weights[i] = random_weight(r, w + row * c->m.in, P4_TERNARY, false, rows, c->m.in);
        row += rows;
    }
}

static void check_forward_int8(rig *r)
{
    static const shape more[] = {{129, 640, 257}, {300, 1168, 512}, {5, 32, 48}, {270, 16, 776}};
    for (int s = 0; s < shapes_to_run(SHAPES + 4, SHAPES_FEW); s++) {
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            int8_case c = {.m = s < SHAPES ? shapes[s] : more[s - SHAPES]};
            float *x = rig_random_act(r, c.m.N * c.m.in, 1.0), *w = rig_host(r, c.m.out * c.m.in * 4);
            float *bias = with_bias ? rig_random(r, c.m.out, 1.0) : NULL;
            c.parts = p4_min_i64(1 + (s + with_bias) % P4_INT8_PARTS, c.m.out);
            random_parts(r, &c, w);
            c.x = rig_put_act(r, x, c.m.N * c.m.in);
            c.bias = bias ? rig_put_f32(r, bias, c.m.out) : NULL;
            void *y = run_int8(r, r->device, &c);
            expect_array("linear_forward_int8", rig_get_act(r, y, c.m.N * c.m.out),
                         int8_product(r, x, w, bias, c.m), c.m.N * c.m.out, sum_bound(r, c.m.in),
                         4.0 * r->eps);
            expect_same_bits(r, &c, y);
            rig_clear(r);
        }
    }
}

/* What is not finite in a token must not vanish in the rounding: the trainer's guard looks for it. */
static void check_int8_not_finite(rig *r)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    int8_case c = {.m = {9, 40, 24}, .parts = 1};
    for (size_t b = 0; b < sizeof bad / sizeof bad[0]; b++) {
        float *x = rig_random_act(r, c.m.N * c.m.in, 1.0), *w = rig_host(r, c.m.out * c.m.in * 4);
        x[4 * c.m.in + 17] = bad[b];
        random_parts(r, &c, w);
        c.x = rig_put_act(r, x, c.m.N * c.m.in);
        float *y = rig_get_act(r, run_int8(r, r->device, &c), c.m.N * c.m.out);
        for (int64_t i = 0; i < c.m.N * c.m.out; i++) {
            EXPECT(!isfinite(y[i]) == (i / c.m.out == 4), "linear_forward_int8: element %lld is %g",
                   (long long)i, (double)y[i]);
        }
        rig_clear(r);
    }
}

/* A GPU's implementations on the size of a real layer, or on just so many tiles that blocks take several;
 * some rows against the reference. */
static void check_int8_large(rig *r)
{
    int8_case c = {.m = {test_few() ? 2048 : 4096, test_few() ? 64 : 2048, 5632}, .parts = 2};
    shape some = {3, c.m.in, c.m.out};
    if (r->ops->act_bytes(r->device) != 2 || strstr(r->ops->describe(r->device), "emulator")) {
        return;
    }
    float *x = rig_random_act(r, c.m.N * c.m.in, 1.0), *w = rig_host(r, c.m.out * c.m.in * 4);
    random_parts(r, &c, w);
    c.x = rig_put_act(r, x, c.m.N * c.m.in);
    void *y = run_int8(r, r->device, &c);
    expect_same_bits(r, &c, y);
    float *got = rig_get_act(r, y, c.m.N * c.m.out);
    for (int64_t n = 0; n + some.N <= c.m.N; n += 1021) {
        expect_array("linear_forward_int8", got + n * c.m.out, int8_product(r, x + n * c.m.in, w, NULL, some),
                     some.N * c.m.out, sum_bound(r, c.m.in), 4.0 * r->eps);
    }
    rig_clear(r);
}

/* The cases that a GPU may compute as the epilogue of a product: in two steps. */
static int run_in_two_steps(void)
{
    static const ops_case cases[] = {{"linear_activate_backward", check_gelu_backward},
                                     {"linear_gated_backward", check_swiglu_backward},
                                     {"linear_activate_forward", check_gelu_forward}};
    if (p4_ops_find("cuda") == NULL) {
        return 0;
    }
    setenv("P4_SWIGLU_BACKWARD", "cublas", 1);
    setenv("P4_GEMM_EPILOGUE", "off", 1);
    int failed = run_cases(cases, sizeof cases / sizeof cases[0]);
    unsetenv("P4_GEMM_EPILOGUE");
    unsetenv("P4_SWIGLU_BACKWARD");
    return failed;
}

int main(void)
{
    static const ops_case cases[] = {
        {"linear_forward", check_forward},
        {"linear_backward_input", check_backward_input},
        {"linear_backward_weight", check_backward_weight},
        {"linear_backward_bias", check_backward_bias},
        {"linear_activate_forward", check_gelu_forward},
        {"linear_activate_backward", check_gelu_backward},
        {"linear_gated_backward", check_swiglu_backward},
        {"weight_unpack", check_unpack},
        {"weight_f32", check_f32},
        {"linear_forward_int8", check_forward_int8},
        {"linear_forward_int8 of values that are not finite", check_int8_not_finite},
        {"linear_forward_int8 of a real layer", check_int8_large},
    };
    return run_in_two_steps() | run_cases(cases, sizeof cases / sizeof cases[0]);
}
