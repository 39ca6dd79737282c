/* copy_groups.cu - parts of rows, copied to another order. */
#include "kernels/cuda/cuda.cuh"

/* A block of threads copies one row. */
template <typename T> static __global__ void copy_groups(p4_copy_groups_args a)
{
    const T *x = (const T *)a.x + blockIdx.x * a.ld_x;
    T *y = (T *)a.y + blockIdx.x * a.ld_y;
    for (int64_t at = threadIdx.x; at < a.I * a.J * a.D; at += blockDim.x) {
        const int64_t d = at % a.D, j = at / a.D % a.J, i = at / a.D / a.J;
        y[i * a.y_i + j * a.y_j + d] = x[i * a.x_i + j * a.x_j + d];
    }
}

void p4_cuda_copy_groups(p4_device *device, const p4_copy_groups_args *a)
{
    enum { THREADS = 256 };
    if (a->N <= 0) {
        return;
    }
    if (!device->half) {
        copy_groups<uint32_t><<<(unsigned)a->N, THREADS, 0, device->stream>>>(*a);
    } else {
        copy_groups<uint16_t><<<(unsigned)a->N, THREADS, 0, device->stream>>>(*a);
    }
    p4_cuda_launched(device, "copy_groups");
}
