#include <string.h>

#include "kernels/cpu/cpu.h"

void p4_cpu_copy_groups(p4_device *device, const p4_copy_groups_args *a)
{
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, a->N))
    for (int64_t n = 0; n < a->N; n++) {
        const float *x = (const float *)a->x + n * a->ld_x;
        float *y = (float *)a->y + n * a->ld_y;
        for (int64_t i = 0; i < a->I; i++) {
            for (int64_t j = 0; j < a->J; j++) {
                memcpy(y + i * a->y_i + j * a->y_j, x + i * a->x_i + j * a->x_j, (size_t)a->D * sizeof *x);
            }
        }
    }
}
