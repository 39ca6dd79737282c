/* absmean.h - the absmean rule of a row of weights (docs/methods.md 1), in one place for the CPU, the GPU and
 * p4_quantize_tensor: scale = max(mean |w|, 1e-8); q = sign(w) where |w| >= cut, else 0. */
#ifndef P4_ABSMEAN_H
#define P4_ABSMEAN_H

#include <float.h>
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define P4_HOST_DEVICE __host__ __device__
#else
#define P4_HOST_DEVICE
#endif

/* From the sum of |w| over the row, in double. */
static inline P4_HOST_DEVICE float p4_absmean_scale(double abs_sum, int64_t cols)
{
    return fmaxf((float)(abs_sum / (double)cols), 1e-8f);
}

/* Above 0: a zero weight has no sign. */
static inline P4_HOST_DEVICE float p4_absmean_cut(float threshold, float scale)
{
    return fmaxf(threshold * scale, FLT_TRUE_MIN);
}

#endif
