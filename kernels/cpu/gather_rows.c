#include <string.h>

#include "kernels/cpu/cpu.h"

void p4_cpu_gather_rows(p4_device *device, void *to, const void *from, const int64_t *h_rows, int64_t count,
                        int64_t row_bytes)
{
#pragma omp parallel for schedule(static) num_threads(p4_cpu_team(device, count))
    for (int64_t i = 0; i < count; i++) {
        memcpy((char *)to + i * row_bytes, (const char *)from + h_rows[i] * row_bytes, (size_t)row_bytes);
    }
}
