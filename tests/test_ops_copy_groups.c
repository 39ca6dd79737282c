/* Parts of rows, copied to another order: exact, and nothing beside them. */
#include "ops_cases.h"

static void check_copy_groups(rig *r)
{
    /* rows by head to q | k | v, back, and a column slice */
    static const p4_copy_groups_args shapes[] = {
        {.N = 5, .I = 3, .J = 3, .D = 6, .ld_x = 54, .x_i = 18, .x_j = 6, .ld_y = 54, .y_i = 6, .y_j = 18},
        {.N = 7, .I = 3, .J = 5, .D = 4, .ld_x = 61, .x_i = 20, .x_j = 4, .ld_y = 63, .y_i = 4, .y_j = 12},
        {.N = 9, .I = 1, .J = 1, .D = 300, .ld_x = 301, .ld_y = 310}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        p4_copy_groups_args a = shapes[s];
        int64_t x_count = a.N * a.ld_x, y_count = a.N * a.ld_y;
        float *x = rig_random_act(r, x_count, 2.0), *before = rig_random_act(r, y_count, 2.0);
        double *want = rig_host(r, y_count * 8);
        for (int64_t i = 0; i < y_count; i++) {
            want[i] = (double)before[i];
        }
        for (int64_t n = 0; n < a.N; n++) {
            for (int64_t ij = 0; ij < a.I * a.J; ij++) {
                int64_t i = ij / a.J, j = ij % a.J;
                for (int64_t d = 0; d < a.D; d++) {
                    want[n * a.ld_y + i * a.y_i + j * a.y_j + d] =
                        (double)x[n * a.ld_x + i * a.x_i + j * a.x_j + d];
                }
            }
        }
        void *y = rig_put_act(r, before, y_count);
        a.x = rig_put_act(r, x, x_count);
        a.y = y;
        r->ops->copy_groups(r->device, &a);
        expect_array("copy_groups", rig_get_act(r, y, y_count), want, y_count, 0.0, 0.0);
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"copy_groups", check_copy_groups}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
