/* attention.cuh - what the attention kernels share. A block computes tiles of queries (or keys) of a head;
 * tiles of keys (or queries) that it cannot see are never touched. The order of every sum is fixed: backward
 * is two kernels, one of which owns dQ and the other dK and dV, or one kernel whose blocks take turns
 * (kernels/sm90/attention_backward_64.cu). */
#ifndef P4_ATTENTION_CUDA_CUH
#define P4_ATTENTION_CUDA_CUH

#include <math.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/soft_cap.cuh"

typedef struct attention_task {
    const void *qkv, *out, *dout; /* out: of the forward, read by delta */
    void *to;                     /* out, or dqkv */
    const float *lse;             /* [B, H, T] */
    float *to_lse;                /* NULL: not wanted */
    float *delta;                 /* [B, H, T]: sum of dout * out over a head, backward; row sums of
                                     kernels/cuda/attention_sm90.cu */
    int B, T, H, Hkv, D, window;
    float scale, cap; /* cap 0: scores have no soft cap */
    int64_t width;    /* elements between rows of qkv */
    bool wide, even;  /* rows of heads may be accessed by 16 bytes; by two elements */
} attention_task;

static __device__ __forceinline__ bool attention_sees(const attention_task &k, int query, int key)
{
    return key <= query && (k.window == 0 || query - key < k.window);
}

/* The first key that query `query` sees, and the end of the queries that see `key`. */
static __device__ __forceinline__ int attention_first_key(const attention_task &k, int query)
{
    return k.window > 0 ? max(0, query - k.window + 1) : 0;
}
static __device__ __forceinline__ int attention_query_end(const attention_task &k, int key)
{
    return k.window > 0 && k.window < k.T - key ? key + k.window : k.T;
}

/* Does every query of [query, query_end) see every key of [key, key_end)? Does any see any? */
static __device__ __forceinline__ bool attention_all(const attention_task &k, int query, int query_end,
                                                     int key, int key_end)
{
    return key_end - 1 <= query && (k.window == 0 || query_end - 1 - key < k.window);
}
static __device__ __forceinline__ bool attention_any(const attention_task &k, int query, int query_end,
                                                     int key, int key_end)
{
    return key < query_end && (k.window == 0 || query - (key_end - 1) < k.window);
}

/* A raw score with the scale and the soft cap; and the slope of the cap where it gives `score`. */
template <typename T, bool CAPPED>
static __device__ __forceinline__ float attention_score(const attention_task &k, float raw)
{
    return CAPPED ? k.cap * p4_tanh<T>(raw * k.scale / k.cap) : raw * k.scale;
}
template <bool CAPPED>
static __device__ __forceinline__ float attention_slope(const attention_task &k, float score)
{
    return CAPPED ? 1.0f - score / k.cap * (score / k.cap) : 1.0f;
}

/* Kernels for any device, for activations in bf16 (kernels/cuda/attention_bf16.cu,
 * kernels/cuda/attention_bf16_backward.cu) and in fp32 (kernels/cuda/attention_f32.cu). B: the grid's third
 * dimension. */
void p4_attention_forward_bf16(p4_device *device, const attention_task *k, int64_t B);
void p4_attention_backward_bf16(p4_device *device, const attention_task *k, int64_t B);
void p4_attention_forward_f32(p4_device *device, const attention_task *k, int64_t B);
void p4_attention_backward_f32(p4_device *device, const attention_task *k, int64_t B);

/* Kernels for compute capability 9.0, bf16 (kernels/sm90/attention_*.cu, kernels/cuda/attention_sm90.cu). */
enum {
    ATTENTION_TILE = 64,           /* queries or keys of a tile */
    ATTENTION_GROUP = 4 * P4_WARP, /* threads that own one */
    ATTENTION_ROW_SUMS = 2         /* numbers of a query: log-sum-exp and delta */
};
/* Elements of the row sums of all queries, tile by tile. Behind them lie two counters of units that blocks
 * have taken, and further workspace of a kernel. */
static __host__ __device__ __forceinline__ int attention_tiles(int64_t T)
{
    return (int)((T + ATTENTION_TILE - 1) / ATTENTION_TILE);
}
static __host__ __device__ __forceinline__ int64_t attention_row_sums_count(int64_t B, int64_t H, int64_t T)
{
    return B * H * attention_tiles(T) * ATTENTION_TILE * ATTENTION_ROW_SUMS;
}
enum { ATTENTION_TAKEN = 4 }; /* counters; four, so that what lies behind them is aligned */
static __host__ __device__ __forceinline__ int *attention_taken(const attention_task &k)
{
    return (int *)(k.delta + attention_row_sums_count(k.B, k.H, k.T));
}
int64_t p4_attention_sm90_work_bytes(const p4_attention_shape *shape); /* of backward */
void p4_attention_forward_sm90(p4_device *device, const attention_task *k);
void p4_attention_backward_sm90(p4_device *device, const attention_task *k);
/* The kernels of backward for heads of up to 64 and of up to 128 elements. k->delta is filled, and no unit is
 * taken yet. The first works with so many bytes behind the counters. */
void p4_attention_backward_64(p4_device *device, const attention_task *k);
void p4_attention_backward_128(p4_device *device, const attention_task *k);
int64_t p4_attention_backward_64_bytes(const p4_attention_shape *shape);

/* Runs `...` with HD the head dimension that tiles are padded to. */
#define P4_BY_HEAD(D, ...)       \
    do {                         \
        if ((D) <= 32) {         \
            const int HD = 32;   \
            __VA_ARGS__;         \
        } else if ((D) <= 64) {  \
            const int HD = 64;   \
            __VA_ARGS__;         \
        } else if ((D) <= 128) { \
            const int HD = 128;  \
            __VA_ARGS__;         \
        } else {                 \
            const int HD = 256;  \
            __VA_ARGS__;         \
        }                        \
    } while (0)

/* A grid of `tiles` for every head. */
static inline dim3 attention_grid(const attention_task *k, int tile, int64_t heads, int64_t B)
{
    return dim3((unsigned)p4_ceil_div(k->T, tile), (unsigned)heads, (unsigned)B);
}

/* Lets a kernel use `bytes` of shared memory. */
template <typename Kernel> static bool attention_shared(p4_device *device, Kernel kernel, int bytes)
{
    return p4_cuda_ok(device,
                      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                      "attention: shared memory");
}

#endif
