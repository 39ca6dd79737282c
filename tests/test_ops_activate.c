/* The activation functions of an MLP: forward, rounded to int8, and with the products beside them. */
#include "ops_cases.h"

static double function_at(p4_activation function, double x)
{
    switch (function) {
    case P4_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case P4_GELU_ERF:
        return 0.5 * x * erfc(-x * 0.7071067811865476);
    case P4_SILU:
        return x / (1.0 + exp(-x));
    case P4_RELU:
        return fmax(x, 0.0);
    case P4_RELU_SQ:
        return fmax(x, 0.0) * fmax(x, 0.0);
    case P4_ACTIVATION_COUNT:
        break;
    }
    return NAN;
}

/* By a central difference, but where the function has a corner, which lies between the two points for some
 * seeds. */
static double slope_at(p4_activation function, double x)
{
    if (function == P4_RELU) {
        return x > 0.0 ? 1.0 : 0.0;
    }
    return (function_at(function, x + 1e-5) - function_at(function, x - 1e-5)) / 2e-5;
}

/* Inputs on both sides of 0, small and large. */
static float *inputs(rig *r, int64_t count)
{
    float *x = rig_random_act(r, count, 2.0);
    static const float special[] = {60.0f, -60.0f, 9.0f, -9.0f, 0.015625f, -0.015625f, 3.5f, -4.5f};
    for (int64_t i = 0; i < count && i < 8; i++) {
        x[i] = special[(i + count) % 8];
    }
    return x;
}

/* With `rounded` the op gives what rounding its output gives. */
static void check_rounded(rig *r, p4_activation function, bool gated, const void *x, const void *y, int64_t N,
                          int64_t F)
{
    int64_t width = p4_int8_width(F);
    p4_int8_rows want = {rig_put(r, NULL, N * width), rig_put_f32(r, NULL, N)},
                 got = {rig_put(r, NULL, N * width), rig_put_f32(r, NULL, N)};
    r->ops->quantize_int8(r->device, NULL, &want, y, N, F);
    r->ops->activate(r->device, NULL, &got, x, function, gated, N, F);
    EXPECT(memcmp(rig_get(r, want.codes, N * width), rig_get(r, got.codes, N * width), (size_t)(N * width)) ==
                   0 &&
               memcmp(rig_get(r, want.s, N * 4), rig_get(r, got.s, N * 4), (size_t)N * 4) == 0,
           "function %d, gated %d: other codes than those of its output", (int)function, gated);
}

static void check_activate(rig *r)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 7}, {5, 129}, {9, 256}, {2, 3000}};
    for (int s = 0; s < 2 * P4_ACTIVATION_COUNT * 5; s++) {
        p4_activation function = (p4_activation)(s % P4_ACTIVATION_COUNT);
        bool gated = s / P4_ACTIVATION_COUNT % 2;
        int64_t N = shapes[s / 10][0], F = shapes[s / 10][1], in = gated ? 2 * F : F;
        float *x = inputs(r, N * in);
        double *want = rig_host(r, N * F * 8);
        for (int64_t i = 0; i < N * F; i++) {
            int64_t at = i / F * in + i % F;
            want[i] = function_at(function, (double)x[at]) * (gated ? (double)x[at + F] : 1.0);
        }
        void *d_x = rig_put_act(r, x, N * in), *y = rig_put_act(r, NULL, N * F);
        r->ops->activate(r->device, y, NULL, d_x, function, gated, N, F);
        expect_array("activate", rig_get_act(r, y, N * F), want, N * F, 2.0 * r->eps + 5e-7, 1e-30);
        check_rounded(r, function, gated, d_x, y, N, F);
        rig_clear(r);
    }
}

/* [N, F] = dy w, w [out, F]. */
static double *through_layer(rig *r, const float *dy, const float *w, int64_t N, int64_t F, int64_t out)
{
    double *dh = rig_host(r, N * F * 8);
    for (int64_t i = 0; i < N * F; i++) {
        for (int64_t o = 0; o < out; o++) {
            dh[i] += (double)dy[i / F * out + o] * (double)w[o * F + i % F];
        }
    }
    return dh;
}

static void check_activate_backward(rig *r)
{
    enum { N = 19, F = 72, OUT = 40 };
    for (int function = 0; function < P4_ACTIVATION_COUNT; function++) {
        float *dy = rig_random_act(r, N * OUT, 1.0), *w = rig_random_act(r, OUT * F, 0.2);
        float *x = inputs(r, N * F), *both = inputs(r, 2 * N * F), *old = rig_random(r, F, 1.0);
        void *d_dy = rig_put_act(r, dy, N * OUT), *d_w = rig_put_act(r, w, OUT * F);
        void *dup = rig_put_act(r, NULL, N * F), *d_both = rig_put_act(r, NULL, 2 * N * F);
        float *db = rig_put_f32(r, old, F);
        r->ops->linear_activate_backward(
            r->device, &(p4_linear_activate_backward_args){.function = (p4_activation)function,
                                                           .N = N,
                                                           .F = F,
                                                           .out = OUT,
                                                           .dy = d_dy,
                                                           .w = d_w,
                                                           .up = rig_put_act(r, x, N * F),
                                                           .dup = dup,
                                                           .opt_db = db});
        r->ops->linear_gated_backward(
            r->device, &(p4_linear_gated_backward_args){.function = (p4_activation)function,
                                                        .N = N,
                                                        .F = F,
                                                        .out = OUT,
                                                        .dy = d_dy,
                                                        .w = d_w,
                                                        .gate_up = rig_put_act(r, both, 2 * N * F),
                                                        .dgate_up = d_both,
                                                        .dh_work = rig_put_act(r, NULL, N * F)});
        double *dh = through_layer(r, dy, w, N, F, OUT), *want = rig_host(r, N * F * 8),
               *want_both = rig_host(r, 2 * N * F * 8), *want_db = rig_doubles(r, old, F);
        for (int64_t i = 0; i < N * F; i++) {
            int64_t at = i / F * 2 * F + i % F;
            want[i] = dh[i] * slope_at((p4_activation)function, (double)x[i]);
            want_both[at] =
                dh[i] * (double)both[at + F] * slope_at((p4_activation)function, (double)both[at]);
            want_both[at + F] = dh[i] * function_at((p4_activation)function, (double)both[at]);
        }
        float *got = rig_get_act(r, dup, N * F);
        double bound = 8.0 * r->eps + 5e-6;
        expect_array("linear_activate_backward", got, want, N * F, bound, 4.0 * r->eps);
        expect_array("linear_gated_backward", rig_get_act(r, d_both, 2 * N * F), want_both, 2 * N * F, bound,
                     4.0 * r->eps);
        for (int64_t i = 0; i < N * F; i++) {
            want_db[i % F] += (double)got[i];
        }
        expect_array("db", rig_get_f32(r, db, F), want_db, F, 2.0 * r->eps + 2e-6, 8.0 * r->eps);
        rig_clear(r);
    }
}

/* The product in front of a function. */
static void check_activate_forward(rig *r)
{
    enum { N = 11, IN = 24, OUT = 56 };
    for (int function = 0; function < P4_ACTIVATION_COUNT; function++) {
        float *x = rig_random_act(r, N * IN, 1.0), *w = rig_random_act(r, OUT * IN, 0.4);
        void *up = rig_put_act(r, NULL, N * OUT), *h = rig_put_act(r, NULL, N * OUT);
        r->ops->linear_activate_forward(
            r->device, &(p4_linear_activate_forward_args){.function = (p4_activation)function,
                                                          .N = N,
                                                          .in = IN,
                                                          .out = OUT,
                                                          .x = rig_put_act(r, x, N * IN),
                                                          .w = rig_put_act(r, w, OUT * IN),
                                                          .up = up,
                                                          .h = h});
        double *want = rig_host(r, N * OUT * 8);
        for (int64_t i = 0; i < N * OUT; i++) {
            for (int64_t c = 0; c < IN; c++) {
                want[i] += (double)x[i / OUT * IN + c] * (double)w[i % OUT * IN + c];
            }
        }
        expect_array("linear_activate_forward's up", rig_get_act(r, up, N * OUT), want, N * OUT,
                     4.0 * r->eps + 2e-6, 0.0);
        for (int64_t i = 0; i < N * OUT; i++) {
            want[i] = function_at((p4_activation)function, want[i]);
        }
        expect_array("linear_activate_forward", rig_get_act(r, h, N * OUT), want, N * OUT,
                     8.0 * r->eps + 4e-6, 0.0);
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"activate", check_activate},
                                     {"activate, backward", check_activate_backward},
                                     {"activate, forward", check_activate_forward}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
