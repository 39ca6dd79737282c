#include "kernels/host_copy.h"

#include <omp.h>
#include <string.h>

enum {
    SLICE_BYTES = 1 << 18,
    MOST_THREADS = 8, /* enough to exceed a bus of 64 GB/s */
};

int p4_host_copy_threads(int threads)
{
    return (int)p4_min_i64(MOST_THREADS, threads > 0 ? threads : omp_get_num_procs());
}

void p4_host_copy(void *to, const void *from, int64_t bytes, int threads)
{
    if (bytes <= SLICE_BYTES || threads <= 1) {
        if (bytes > 0) {
            memcpy(to, from, (size_t)bytes);
        }
        return;
    }
    int64_t slices = p4_ceil_div(bytes, SLICE_BYTES);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < slices; i++) {
        int64_t at = i * SLICE_BYTES;
        memcpy((char *)to + at, (const char *)from + at, (size_t)p4_min_i64(SLICE_BYTES, bytes - at));
    }
}
