/* loss.cuh - what the losses over rows of logits share (loss.cu, distill.cu). */
#ifndef P4_LOSS_CUH
#define P4_LOSS_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/soft_cap.cuh"

/* The map of logits, with a scale that is not 0; and whether it changes anything. */
static inline p4_logit_map whole_map(p4_logit_map map)
{
    map.scale = map.scale > 0.0f ? map.scale : 1.0f;
    return map;
}
static inline bool is_mapped(p4_logit_map map)
{
    return map.cap > 0.0f || (map.scale > 0.0f && map.scale != 1.0f);
}

/* A logit, mapped. -infinity, which stands for columns that do not count, stays. */
template <typename T, bool MAPPED>
static __device__ __forceinline__ float mapped(float x, const p4_logit_map &map)
{
    if (!MAPPED || x == -INFINITY) {
        return x;
    }
    return map.cap > 0.0f ? map.cap * p4_tanh<T>(x * map.scale / map.cap) : x * map.scale;
}
template <typename T, bool MAPPED, int W>
static __device__ __forceinline__ void map_all(float (&e)[W], const p4_logit_map &map)
{
#pragma unroll
    for (int i = 0; MAPPED && i < W; i++) {
        e[i] = mapped<T, MAPPED>(e[i], map);
    }
}

/* The slope of the map where it gives z; 0 in columns that do not count. */
template <bool MAPPED> static __device__ __forceinline__ float map_slope(float z, const p4_logit_map &map)
{
    if (!MAPPED) {
        return 1.0f;
    }
    const float t = map.cap > 0.0f ? z / map.cap : 0.0f;
    return z == -INFINITY ? 0.0f : map.scale * (1.0f - t * t);
}

/* The state of a row: its largest element so far, where that first occurs, and sum e^(x - largest). */
typedef struct row_state {
    float largest, sum;
    int64_t where;
} row_state;

/* The largest element as the offset of exponents, so that e^(-inf) is 0 even while only -inf has been seen.
 */
static __device__ __forceinline__ float offset_of(float largest)
{
    return largest == -INFINITY ? 0.0f : largest;
}

/* The W logits from column v on; those beyond the last do not count. */
template <int W, typename T>
static __device__ __forceinline__ void load_end(float (&e)[W], const T *x, int64_t v, int64_t V)
{
#pragma unroll
    for (int i = 0; i < W; i++) {
        e[i] = v + i < V ? p4_value(x[v + i]) : -INFINITY;
    }
}

/* The smallest column that any thread of the block gives, in every thread. p4_block_max or _sum comes before
 * each call: their barriers keep a call from overwriting what the one before still reads. */
static __device__ __forceinline__ int first_column(int where)
{
    __shared__ int first[P4_WARP];
    const int lane = threadIdx.x % P4_WARP, warp = threadIdx.x / P4_WARP;
    for (int step = P4_WARP / 2; step > 0; step /= 2) {
        where = min(where, __shfl_xor_sync(0xffffffffu, where, step));
    }
    if (lane == 0) {
        first[warp] = where;
    }
    __syncthreads();
    where = first[0];
    for (int i = 1; i < (int)blockDim.x / P4_WARP; i++) {
        where = min(where, first[i]);
    }
    return where;
}

/* The block's largest element, where it stands first, and the sum in double, in every thread. */
static __device__ __forceinline__ row_state join_rows(row_state mine, double *total)
{
    row_state all;
    all.largest = p4_block_max(mine.largest);
    *total = p4_block_sum((double)(mine.sum * __expf(mine.largest - offset_of(all.largest))));
    all.where = first_column(mine.largest == all.largest && mine.where < INT_MAX ? (int)mine.where : INT_MAX);
    all.sum = (float)*total;
    return all;
}

#endif
