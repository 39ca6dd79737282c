/* muon.cuh - what the two implementations of Muon's products share.
 *
 * `own` (kernels/sm90/muon.cu): wgmma, for bf16 activations on compute capability 9.0 and matrices whose
 * sides are multiples of 8 and whose arrays lie on 16 bytes. Elsewhere `cublas` (kernels/cuda/muon.cu).
 * P4_MUON=cublas in the environment uses the latter everywhere; P4_MUON=own is the default, and an error on a
 * device that cannot run it. The two round at the same places but sum in different orders. */
#ifndef P4_MUON_CUDA_CUH
#define P4_MUON_CUDA_CUH

#include "kernels/cuda/cuda.cuh"

enum {
    MUON_ITEMS = 96, /* matrices of one launch: 3 KiB of kernel arguments, so that no memory is needed */
    MUON_SIDE = 8    /* `own`: sides are multiples of it, so that rows lie on 16 bytes */
};
#define NS_A 3.4445f
#define NS_B (-4.7750f)
#define NS_C 2.0315f

typedef struct muon_items {
    p4_muon_item item[MUON_ITEMS];
} muon_items;

/* Tile t of a lower triangle is in row i of tiles: i (i + 1) / 2 <= t. */
static __device__ __forceinline__ int triangle_row(int t)
{
    int i = (int)((sqrtf(8.0f * (float)t + 1.0f) - 1.0f) / 2.0f);
    while (i * (i + 1) / 2 > t) {
        i--;
    }
    while ((i + 1) * (i + 2) / 2 <= t) {
        i++;
    }
    return i;
}

/* w -= lr (scale x + decay w) */
template <int W>
static __device__ __forceinline__ void muon_update(float (&w)[W], const float (&x)[W], float lr, float scale,
                                                   float decay)
{
#pragma unroll
    for (int k = 0; k < W; k++) {
        w[k] -= lr * (scale * x[k] + decay * w[k]);
    }
}

/* One step of Newton-Schulz of `batch` matrices X [rows, cols] in bf16, as they lie in the model: m is the
 * shorter side, A and S are [m, m]. Distances from one matrix to the next in elements. */
typedef struct muon_step {
    const void *X;
    void *next, *A, *S;
    const float *factor; /* X is divided by 1 / factor[matrix] first; NULL: by 1 */
    int64_t rows, cols, batch, x_stride, s_stride;
    const muon_items
        *update; /* NULL: next = p(X). Otherwise w -= lr (scale p(X) + decay w), and next is not written */
    float scale, decay;
    const p4_step_numbers *numbers; /* on the device: lr */
} muon_step;

/* Prepares the kernels on the current device; false records a failure. */
bool p4_cuda_muon_own_open(p4_device *device);
/* Queues the step on the device's stream; A and S are overwritten. */
void p4_cuda_muon_own_step(p4_device *device, const muon_step *step);

#endif
