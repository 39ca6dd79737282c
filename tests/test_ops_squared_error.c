/* The squared error of activations and its gradient. */
#include "ops_cases.h"

/* Which of the arrays that may be missing are there, and where the gradient goes. */
typedef struct error_way {
    bool delta, target, dx, in_place;
} error_way;

/* Against sums in double. Odd counts and an odd first element make accesses that are not wide. The op adds
 * and subtracts in fp32: beside the gradient's own rounding each element has half a unit in the last place of
 * x + delta, however small the difference to target is. */
static void check_squared_error(rig *r)
{
    static const int64_t counts[] = {1, 7, 513, 8192, 100003};
    static const error_way way[] = {{true, true, true, true},
                                    {true, true, true, false},
                                    {false, true, true, false},
                                    {false, false, false, false}};
    enum { WAYS = sizeof way / sizeof way[0] };
    for (int s = 0; s < WAYS * shapes_to_run(sizeof counts / sizeof counts[0], 3); s++) {
        const error_way *w = &way[s % WAYS];
        int64_t count = counts[s / WAYS], from = s % 3 == 2, all = count + from,
                each = r->ops->act_bytes(r->device);
        float *x = rig_random_act(r, all, 3.0), *delta = rig_random_act(r, all, 1.0),
              *target = rig_random_act(r, all, 3.0), scale = 2.0f / (float)count;
        double *d = rig_host(r, count * 8), largest = 0.0, sum = 3.5, *d_sum = rig_put(r, &sum, 8);
        for (int64_t i = 0; i < count; i++) {
            double e = (double)x[from + i] + (w->delta ? (double)delta[from + i] : 0.0) -
                       (w->target ? (double)target[from + i] : 0.0);
            largest =
                fmax(largest, fabs((double)x[from + i]) + fabs(w->delta ? (double)delta[from + i] : 0.0));
            sum += e * e;
            d[i] = (double)scale * e;
        }
        char *d_x = rig_put_act(r, x, all), *d_delta = rig_put_act(r, delta, all),
             *d_target = rig_put_act(r, target, all), *dx = w->in_place ? d_delta : rig_put_act(r, NULL, all);
        p4_squared_error_args args = {.count = count,
                                      .x = d_x + from * each,
                                      .opt_delta = w->delta ? d_delta + from * each : NULL,
                                      .opt_target = w->target ? d_target + from * each : NULL,
                                      .scale = scale,
                                      .sum = d_sum,
                                      .opt_dx = w->dx ? dx + from * each : NULL};
        r->ops->squared_error(r->device, &args);
        EXPECT_NEAR(((double *)rig_get(r, d_sum, 8))[0], sum, 1e-6 * sum);
        if (w->dx) {
            expect_array("squared_error's gradient", rig_get_act(r, dx + from * each, count), d, count,
                         r->eps + 4e-7, 0x1p-24 * (double)scale * largest);
        }
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"squared_error", check_squared_error}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
