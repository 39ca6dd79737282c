/* gather_rows.cu - rows of an array, picked by number. */
#include <string.h>

#include "kernels/cuda/cuda.cuh"

enum {
    PICKED = 256, /* of a launch, which takes them as an argument */
    THREADS = 256,
    AHEAD = 4 /* pieces that a thread has under way at once */
};

typedef struct picked_rows {
    int64_t at[PICKED];
} picked_rows;

/* Row blockIdx.y, `each` pieces long. */
template <typename T>
static __global__ void gather_rows(T *to, const T *from, __grid_constant__ const picked_rows rows,
                                   int64_t each)
{
    const T *x = from + rows.at[blockIdx.y] * each;
    T *y = to + blockIdx.y * each;
    const int64_t step = (int64_t)gridDim.x * THREADS;
    for (int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x; at < each; at += AHEAD * step) {
        T held[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            held[k] = at + k * step < each ? x[at + k * step] : T();
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (at + k * step < each) {
                y[at + k * step] = held[k];
            }
        }
    }
}

template <typename T>
static void launch(p4_device *device, void *to, const void *from, const picked_rows *rows, int64_t count,
                   int64_t row_bytes)
{
    const int64_t each = row_bytes / (int64_t)sizeof(T),
                  most =
                      p4_max_i64(1, 8 * (int64_t)device->processors / count); /* what is resident at once */
    const int64_t blocks = p4_min_i64(most, p4_ceil_div(each, AHEAD * THREADS));
    gather_rows<<<dim3((unsigned)blocks, (unsigned)count), THREADS, 0, device->stream>>>(
        (T *)to, (const T *)from, *rows, each);
}

void p4_cuda_gather_rows(p4_device *device, void *to, const void *from, const int64_t *h_rows, int64_t count,
                         int64_t row_bytes)
{
    const bool wide = (P4_ADDRESS(to) | P4_ADDRESS(from) | (uintptr_t)row_bytes) % sizeof(uint4) == 0;
    for (int64_t first = 0; first < count && row_bytes > 0; first += PICKED) {
        const int64_t part = p4_min_i64(PICKED, count - first);
        char *there = (char *)to + first * row_bytes;
        picked_rows rows;
        memcpy(rows.at, h_rows + first, (size_t)part * sizeof *h_rows);
        if (wide) {
            launch<uint4>(device, there, from, &rows, part, row_bytes);
        } else {
            launch<uint16_t>(device, there, from, &rows, part, row_bytes);
        }
        p4_cuda_launched(device, "gather_rows");
    }
}
