/* Activations rounded to int8 per token: codes and the values that they stand for, exactly
 * (docs/methods.md 3), and ops that round their output against the same op followed by quantize_int8. */
#include "ops_cases.h"

/* Short, ragged, of whole vectors; longer than a thread's share, and than what a block keeps. */
static const int64_t sizes[][2] = {{1, 1},    {37, 7},   {5, 16},   {9, 40},    {3, 257},  {17, 256},
                                   {3, 2051}, {2, 2048}, {2, 5632}, {2, 16392}, {2, 24584}};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static p4_int8_rows put_rows(rig *r, int64_t N, int64_t C)
{
    return (p4_int8_rows){.codes = rig_put(r, NULL, N * p4_int8_width(C)), .s = rig_put_f32(r, NULL, N)};
}

/* A value as an activation of the device holds it. */
static float as_act(const rig *r, float x)
{
    return r->ops->act_bytes(r->device) == 2 ? p4_bf16_to_f32(p4_f32_to_bf16(x)) : x;
}

/* Codes and s against x, element by element, without a bound. */
static void expect_codes(rig *r, const char *what, const p4_int8_rows *rows, const float *x, int64_t N,
                         int64_t C)
{
    int64_t width = p4_int8_width(C), wrong = 0;
    const int8_t *codes = rig_get(r, rows->codes, N * width);
    const float *s = rig_get_f32(r, rows->s, N);
    for (int64_t n = 0; n < N; n++) {
        float largest = 1e-5f;
        for (int64_t c = 0; c < C; c++) {
            largest = fmaxf(largest, fabsf(x[n * C + c]));
        }
        wrong += s[n] != 127.0f / largest;
        for (int64_t c = 0; c < width; c++) {
            float want =
                c < C ? fminf(fmaxf(rintf(x[n * C + c] * (127.0f / largest)), -128.0f), 127.0f) : 0.0f;
            wrong += (float)codes[n * width + c] != want;
        }
    }
    EXPECT(wrong == 0, "%s [%lld, %lld]: %lld codes or scales are wrong", what, (long long)N, (long long)C,
           (long long)wrong);
}

/* The activations y are, bit for bit, what the codes stand for. */
static void expect_values(rig *r, const char *what, const void *y, const p4_int8_rows *rows, int64_t N,
                          int64_t C)
{
    int64_t width = p4_int8_width(C), wrong = 0;
    const int8_t *codes = rig_get(r, rows->codes, N * width);
    const float *s = rig_get_f32(r, rows->s, N), *got = rig_get_act(r, y, N * C);
    for (int64_t i = 0; i < N * C; i++) {
        float want = as_act(r, (float)codes[i / C * width + i % C] / s[i / C]);
        wrong += memcmp(&got[i], &want, sizeof want) != 0;
    }
    EXPECT(wrong == 0, "%s [%lld, %lld]: %lld values are not those of their codes", what, (long long)N,
           (long long)C, (long long)wrong);
}

/* Magnitudes from 1e-9 to 1e9 a token, a token of zeros, one of ties. */
static float *tokens(rig *r, int64_t N, int64_t C)
{
    float *x = rig_random_act(r, N * C, 1.0);
    for (int64_t n = 0; n < N; n++) {
        float size = as_act(r, powf(10.0f, (float)(n % 19 - 9)));
        for (int64_t c = 0; c < C; c++) {
            float tie = (float)(c % 255 - 127) + (c % 2 ? 0.5f : 0.0f);
            float value = n % 4 == 1 ? 0.0f : n % 4 == 2 && c > 0 ? tie : x[n * C + c] * size;
            x[n * C + c] = as_act(r, n % 4 == 2 && c == 0 ? 127.0f : value);
        }
    }
    return x;
}

static void check_quantize(rig *r)
{
    for (int i = 0; i < SIZES; i++) {
        int64_t N = sizes[i][0], C = sizes[i][1];
        float *x = tokens(r, N, C);
        void *from = rig_put_act(r, x, N * C), *y = rig_put_act(r, NULL, N * C),
             *only = rig_put_act(r, NULL, N * C), *back = rig_put_act(r, NULL, N * C);
        p4_int8_rows rows = put_rows(r, N, C), both = put_rows(r, N, C), none = {0};
        r->ops->quantize_int8(r->device, NULL, &rows, from, N, C);
        r->ops->quantize_int8(r->device, y, &both, from, N, C);
        r->ops->quantize_int8(r->device, only, &none, from, N, C);
        r->ops->dequantize_int8(r->device, back, &rows, N, C);
        expect_codes(r, "quantize_int8", &rows, x, N, C);
        expect_codes(r, "quantize_int8 with y", &both, x, N, C);
        expect_values(r, "quantize_int8 with y", y, &rows, N, C);
        expect_values(r, "quantize_int8 to y alone", only, &rows, N, C);
        expect_values(r, "dequantize_int8", back, &rows, N, C);
        rig_clear(r);
    }
}

/* What is not finite in a token must not vanish in the rounding. */
static void check_not_finite(rig *r)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < SIZES; i++) {
        int64_t N = sizes[i][0], C = sizes[i][1], at = rig_integer(r, 0, N - 1);
        float *x = rig_random_act(r, N * C, 1.0);
        x[at * C + rig_integer(r, 0, C - 1)] = bad[i % 3];
        void *from = rig_put_act(r, x, N * C), *y = rig_put_act(r, NULL, N * C),
             *back = rig_put_act(r, NULL, N * C);
        p4_int8_rows rows = put_rows(r, N, C);
        r->ops->quantize_int8(r->device, y, &rows, from, N, C);
        r->ops->dequantize_int8(r->device, back, &rows, N, C);
        float *got[2] = {rig_get_act(r, y, N * C), rig_get_act(r, back, N * C)};
        int64_t wrong = 0;
        for (int64_t k = 0; k < 2 * N * C; k++) {
            wrong += !isfinite(got[k % 2][k / 2]) != (k / 2 / C == at);
        }
        EXPECT(wrong == 0,
               "[%lld, %lld]: of a token that is not finite, and of no other, no value is: %lld wrong",
               (long long)N, (long long)C, (long long)wrong);
        rig_clear(r);
    }
}

/* --- ops that round what they make ------------------------------------------------------------ */

typedef struct rounding {
    enum { RMSNORM, LAYERNORM, SWIGLU, GELU, KINDS } kind;
    int64_t N, C;
    bool with_delta;
    void *x, *delta;
    float *gain, *bias;
} rounding;

static const char *const names[] = {"rmsnorm", "layernorm", "swiglu", "gelu"};

/* What a norm leaves beside y. */
typedef struct sides {
    void *sum;
    float *mean, *rstd;
} sides;

static sides run(rig *r, const rounding *k, void *y, const p4_int8_rows *rounded)
{
    bool centered = k->kind == LAYERNORM;
    sides s = {0};
    if (k->kind == SWIGLU) {
        r->ops->activate(r->device, y, rounded, k->x, P4_SILU, true, k->N, k->C);
    } else if (k->kind == GELU) {
        r->ops->activate(r->device, y, rounded, k->x, P4_GELU_TANH, false, k->N, k->C);
    } else {
        s.sum = k->with_delta ? rig_put_act(r, NULL, k->N * k->C) : NULL;
        s.mean = centered ? rig_put_f32(r, NULL, k->N) : NULL;
        s.rstd = rig_put_f32(r, NULL, k->N);
        r->ops->add_norm_forward(r->device,
                                 &(p4_add_norm_forward_args){.kind = centered ? P4_LAYERNORM : P4_RMSNORM,
                                                             .N = k->N,
                                                             .C = k->C,
                                                             .eps = 1e-5f,
                                                             .x = k->x,
                                                             .opt_delta = k->with_delta ? k->delta : NULL,
                                                             .gain = k->gain,
                                                             .opt_bias = centered ? k->bias : NULL,
                                                             .opt_sum = s.sum,
                                                             .opt_y = y,
                                                             .opt_rounded = rounded,
                                                             .opt_mean = s.mean,
                                                             .opt_rstd = s.rstd});
    }
    return s;
}

static void expect_same(rig *r, const rounding *k, const char *what, const void *got, const void *want,
                        int64_t bytes)
{
    EXPECT(!want || memcmp(rig_get(r, got, bytes), rig_get(r, want, bytes), (size_t)bytes) == 0,
           "%s [%lld, %lld], rounded: %s has other bits", names[k->kind], (long long)k->N, (long long)k->C,
           what);
}

static void check_rounding(rig *r, const rounding *k)
{
    int64_t N = k->N, C = k->C, act = r->ops->act_bytes(r->device);
    void *plain = rig_put_act(r, NULL, N * C), *y = rig_put_act(r, NULL, N * C),
         *only = rig_put_act(r, NULL, N * C);
    p4_int8_rows rows = put_rows(r, N, C), both = put_rows(r, N, C), none = {0};
    sides want = run(r, k, plain, NULL), got = run(r, k, NULL, &rows);
    run(r, k, y, &both);
    run(r, k, only, &none);
    float *x = rig_get_act(r, plain, N * C);
    expect_codes(r, names[k->kind], &rows, x, N, C);
    expect_codes(r, names[k->kind], &both, x, N, C);
    expect_values(r, names[k->kind], y, &rows, N, C);
    expect_values(r, names[k->kind], only, &rows, N, C);
    expect_same(r, k, "sum", got.sum, want.sum, N * C * act);
    expect_same(r, k, "mean", got.mean, want.mean, N * 4);
    expect_same(r, k, "rstd", got.rstd, want.rstd, N * 4);
}

static void check_producers(rig *r)
{
    for (int i = 0; i < KINDS * SIZES; i++) {
        int64_t N = sizes[i / KINDS][0], C = sizes[i / KINDS][1];
        rounding k = {.kind = i % KINDS, .N = N, .C = C, .with_delta = rig_integer(r, 0, 1) == 1};
        k.x = rig_put_act(r, rig_random_act(r, 2 * N * C, 2.0), 2 * N * C);
        k.delta = rig_put_act(r, rig_random_act(r, N * C, 1.0), N * C);
        k.gain = rig_put_f32(r, rig_random(r, C, 1.0), C);
        k.bias = rig_put_f32(r, rig_random(r, C, 1.0), C);
        check_rounding(r, &k);
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {
        {"quantize_int8, dequantize_int8", check_quantize},
        {"quantize_int8 of values that are not finite", check_not_finite},
        {"ops that round what they make", check_producers},
    };
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
