/* Statistics of activations, against double sums. */
#include <float.h>

#include "ops_cases.h"

static const int64_t sizes[][2] = {{40, 511}, {9, 5000}, {2, 70001}, {1, 1},
                                   {7, 2},    {5, 33},   {33, 513},  {3, 50257}};
enum { SIZES = sizeof sizes / sizeof sizes[0], SIZES_FEW = 3 };

static void check_channels(rig *r)
{
    for (int s = 0; s < shapes_to_run(SIZES, SIZES_FEW); s++) {
        int64_t N = sizes[s][0], C = sizes[s][1];
        float *x = rig_random_act(r, N * C, 2.0);
        double *sum = rig_host(r, C * 8);
        for (int64_t c = 0; c < C; c++) {
            sum[c] = 3.0 * p4_rng_uniform(&r->rng);
        }
        double *d_sum = rig_put(r, sum, C * 8);
        r->ops->channel_sum_sq(r->device, d_sum, rig_put_act(r, x, N * C), N, C);
        for (int64_t i = 0; i < N * C; i++) {
            sum[i % C] += (double)x[i] * (double)x[i];
        }
        double *got = rig_get(r, d_sum, C * 8);
        for (int64_t c = 0; c < C; c++) {
            EXPECT_NEAR(got[c], sum[c], 1e-12 * sum[c]);
        }
        rig_clear(r);
    }
}

static void check_moments(rig *r)
{
    for (int s = 0; s < shapes_to_run(SIZES, SIZES_FEW); s++) {
        int64_t N = sizes[s][0], width = sizes[s][1], first = s, ld = width + 2 * s;
        float *x = rig_random_act(r, N * ld, 2.0);
        p4_moments want = {0.0, 0.0, 0.0, FLT_MAX, -FLT_MAX};
        p4_moments *d_moments = rig_put(r, &want, sizeof want);
        char *d_x = rig_put_act(r, x, N * ld);
        for (int pass = 0; pass < 2; pass++) { /* twice: they are running sums */
            r->ops->moments(r->device, d_moments, d_x + first * r->ops->act_bytes(r->device), N, width, ld);
            for (int64_t i = 0; i < N * width; i++) {
                float value = x[i / width * ld + first + i % width];
                want.sum += (double)value;
                want.sum_sq += (double)value * (double)value;
                want.count += 1.0;
                want.min = fminf(want.min, value);
                want.max = fmaxf(want.max, value);
            }
        }
        p4_moments *got = rig_get(r, d_moments, sizeof want);
        EXPECT_NEAR(got->sum, want.sum, 1e-12 * want.sum_sq);
        EXPECT_NEAR(got->sum_sq, want.sum_sq, 1e-12 * want.sum_sq);
        EXPECT(got->count == want.count && got->min == want.min && got->max == want.max, "count, min or max");
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"channel_sum_sq", check_channels}, {"moments", check_moments}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
