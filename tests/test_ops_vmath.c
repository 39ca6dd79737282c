/* The vector functions of the CPU column against double: every float would take minutes, so a dense sample.
 */
#include "check.h"
#include "kernels/cpu/vmath.h"

/* Error of `got` in units of the last place of `want`. */
static double ulps(float got, double want)
{
    float near = (float)want;
    if (isinf(near)) {
        return got == near ? 0.0 : 1e30;
    }
    double unit = fmax((double)nextafterf(fabsf(near), INFINITY) - (double)fabsf(near), 0x1p-149);
    return fabs((double)got - want) / unit;
}

/* The loop is compiled as the ops are. */
P4_MULTIVERSION static void apply_exp(float *y, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        y[i] = p4_exp_f32(x[i]);
    }
}

static void check_exp(void)
{
    enum { COUNT = 4096 };
    static float x[COUNT], y[COUNT];
    double worst = 0.0, worst_at = 0.0;
    for (int block = 0; block < 600; block++) {
        for (int i = 0; i < COUNT; i++) {
            x[i] = -106.0f + 197.0f * (float)(block * COUNT + i) / (600.0f * COUNT);
        }
        apply_exp(y, x, COUNT);
        for (int i = 0; i < COUNT; i++) {
            double error = ulps(y[i], exp((double)x[i]));
            if (!(error <= worst)) {
                worst = error;
                worst_at = (double)x[i];
            }
        }
    }
    printf("exp: largest error %.3f ulp, at %.9g\n", worst, worst_at);
    EXPECT(worst < 2.0, "exp is wrong by %.3f ulp at %.9g", worst, worst_at);
    const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e30f, -1e30f};
    apply_exp(y, special, 7);
    EXPECT(y[0] == 1.0f && y[1] == 1.0f && isinf(y[2]) && y[3] == 0.0f && isnan(y[4]) && isinf(y[5]) &&
               y[6] == 0.0f,
           "exp of 0, -0, inf, -inf, NaN, 1e30, -1e30");
}

/* Below -88, where e^-x overflows, the sigmoid may be 0 instead of subnormal. */
static void check_sigmoid(void)
{
    for (int i = -4000; i <= 4000; i++) {
        float x = 0.025f * (float)i, slope, s = p4_sigmoid_slope_f32(x, &slope);
        double want = 1.0 / (1.0 + exp(-(double)x)), other = 1.0 / (1.0 + exp((double)x));
        EXPECT(ulps(s, want) < 4.0, "sigmoid of %.9g", (double)x);
        EXPECT(ulps(p4_sigmoid_f32(x), want) < 4.0 || (x < -88.0f && fabsf(p4_sigmoid_f32(x)) < 1e-38f),
               "sigmoid of %.9g", (double)x);
        EXPECT(ulps(slope, want * other) < 6.0, "slope of sigmoid at %.9g", (double)x);
    }
}

/* All 65536 halves. */
static void check_halves(void)
{
    int wrong = 0;
    for (uint32_t half = 0; half < 0x10000u; half++) {
        float want = p4_f16_to_f32((uint16_t)half), got = p4_half_value((uint16_t)half);
        wrong += isnan(want) ? !isnan(got) : got != want || signbit(got) != signbit(want);
    }
    EXPECT(wrong == 0, "%d halves converted wrongly", wrong);
}

int main(void)
{
    check_exp();
    check_sigmoid();
    check_halves();
    return TEST_END();
}
