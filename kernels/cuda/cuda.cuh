/* cuda.cuh - inside the CUDA column of ops.h: the device, the matrix product, the helpers that kernels share,
 * and the ops themselves: p4_cuda_NAME for every NAME of kernels/op_list.h.
 *
 * Everything is queued on the device's one stream, so that ops can use the same scratch memory one after
 * another. Results are the same bits on every run: the shape alone decides the order of a sum, and no float
 * is added atomically. Arrays may be of any length and start at any element; where row lengths and pointers
 * allow it, accesses are 16 bytes wide. */
#ifndef P4_KERNELS_CUDA_CUH
#define P4_KERNELS_CUDA_CUH

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "kernels/cuda/attention_choice.h"
#include "kernels/ledger.h"
#include "kernels/ops.h"
}

enum {
    P4_WARP = 32,
    P4_VECTOR_BYTES = 16,         /* the widest access of a thread */
    P4_FLAT_THREADS = 256,        /* a block of an elementwise kernel */
    P4_SUM_BLOCKS = 1024,         /* partial sums of a whole array, at most */
    P4_SCRATCH_BYTES = 64 << 20,  /* taken once at open; p4_cuda_scratch */
    P4_STAGES = 4,                /* pinned buffers that host copies go through */
    P4_STAGE_BYTES = 8 << 20,     /* each */
    P4_BLAS_WORK_BYTES = 32 << 20 /* recommended for cuBLASLt on Hopper */
};

typedef struct p4_cuda_stage {
    void *h_memory;   /* pinned */
    cudaEvent_t done; /* the device has finished with it */
} p4_cuda_stage;

struct p4_device {
    int ordinal, processors; /* processors: streaming multiprocessors */
    bool half;               /* activations are bf16, else fp32 (products without tf32) */
    cudaStream_t stream;
    cudaStream_t side; /* a second stream inside one op, which joins `stream` before the op returns */
    cudaEvent_t side_may_start, side_done;
    cublasLtHandle_t blas;
    void *blas_work, *scratch;
    struct p4_cuda_plans *plans; /* algorithms already chosen, host heap (kernels/cuda/gemm.cu) */
    p4_cuda_stage stage[P4_STAGES];
    int next_stage;       /* for the next copy */
    int copy_threads;     /* of the host, that fill and empty stages */
    p4_ledger ledger;     /* of what alloc gave */
    int64_t memory_bytes; /* of the GPU */
    void *encode_tiled;   /* the driver's cuTensorMapEncodeTiled; NULL unless compute capability 9.0
                             (kernels/cuda/tensor_map.cuh) */
    /* Implementations that switches in the environment choose (p4_cuda_switch). */
    p4_attention_support attention; /* kernels/cuda/attention.cu */
    struct p4_cudnn *cudnn;         /* NULL: not used (kernels/cuda/cudnn.cuh) */
    char no_cudnn[200];             /* why not, for attention.no_cudnn */
    int int8_implementation;        /* p4_int8_implementation (kernels/cuda/int8.cuh) */
    bool muon_own; /* Muon's products by own kernels where they can (kernels/cuda/muon.cuh) */
    /* SwiGLU's gradient by an own kernel where it can (kernels/cuda/swiglu_backward.cuh). Always: also where
     * that is expected to take longer. */
    bool swiglu_own, swiglu_always;
    bool experts_own; /* products of experts by own kernels where they can (kernels/cuda/experts.cuh) */
    bool repeats;     /* op `repeat` records and replays (kernels/cuda/record.cu) */
    p4_recording *recording; /* what is queued now becomes part of it and does not run: nothing may wait for
                                the device. NULL: it runs */
    char product[128];       /* "NVIDIA H200" */
    char description[640];
    char failure[256]; /* the first run-time failure, returned by sync; "" when there is none */
};

/* --- services of the device: kernels/cuda/device.cu ------------------------------------------- */

/* True on success. Otherwise records `what` and the error, unless a failure is recorded already. */
bool p4_cuda_ok(p4_device *device, cudaError_t error, const char *what);
/* After a launch: records a configuration that was refused. */
static inline void p4_cuda_launched(p4_device *device, const char *what)
{
    p4_cuda_ok(device, cudaGetLastError(), what);
}
/* Records a failure in words (printf). */
void p4_cuda_fail(p4_device *device, const char *format, ...) P4_PRINTF(2, 3);

/* Device memory until the op returns, 256-byte aligned, content undefined; at most P4_SCRATCH_BYTES: an op
 * splits its work until that is enough. NULL: more was asked for, which is recorded. */
void *p4_cuda_scratch(p4_device *device, int64_t bytes);
/* *choice: the index in `choices` (NULL ends them) of the value of environment variable `name`, 0 where it is
 * unset or empty. P4_E_INPUT where it is none of them. */
p4_rc p4_cuda_switch(int *choice, const char *name, const char *const *choices);

/* --- parts that are opened and closed with the device ----------------------------------------- */

/* Pinned buffers of copies between host and device (kernels/cuda/copy.cu); false records a failure. */
bool p4_cuda_stages_open(p4_device *device);
void p4_cuda_stages_close(p4_device *device);
/* P4_GRAPH: on or off (kernels/cuda/record.cu). */
p4_rc p4_cuda_repeat_open(p4_device *device);
/* P4_GEMM_PICK, P4_GEMM_EPILOGUE (kernels/cuda/gemm.cu). */
p4_rc p4_cuda_plans_open(p4_device *device);
void p4_cuda_plans_close(p4_device *device);
/* P4_INT8: the implementation of int8 products (kernels/cuda/int8.cuh); wgmma: the device has it. */
p4_rc p4_cuda_int8_open(p4_device *device, bool wgmma);
/* P4_ATTENTION: which implementations of attention may be used (kernels/cuda/attention.cuh), on a device of
 * this major compute capability. `said` gets a line for the device's description. */
p4_rc p4_cuda_attention_open(p4_device *device, int major, char *said, size_t said_bytes);
void p4_cuda_attention_close(p4_device *device);

/* --- matrix products: kernels/cuda/gemm.cu ---------------------------------------------------- */

/* The epilogue of a product (p4_cuda_matmul_fused). */
typedef enum p4_cuda_after {
    P4_AFTER_NOTHING,
    P4_AFTER_GELU,      /* aux = the result with its bias, D = gelu(the same before it is rounded) */
    P4_AFTER_GELU_SLOPE /* D = the result times the slope of gelu at aux */
} p4_cuda_after;

/* Row-major D[M, N] = alpha op(A) op(B) + beta C (+ bias[N] on every row), summed in fp32. C and D share type
 * and row length and may be the same; bias has D's type. With beta 0, C is not read. Of int8 (CUDA_R_8I) the
 * sums and D are int32: trans_b only, lengths multiples of 16, alpha 1, beta 0, no bias. */
typedef struct p4_cuda_gemm {
    bool trans_a, trans_b;
    cudaDataType_t type, out_type; /* of A and B; of C and D */
    int64_t M, N, K;
    float alpha, beta;
    const void *A, *B, *C, *bias; /* bias: NULL for none */
    void *D;
    int64_t lda, ldb, ldd; /* elements between rows as stored */
    /* Number of products, with operands at these distances in elements (C as D); 0 or 1: one, and the
     * strides are not read. */
    int64_t batch, stride_a, stride_b, stride_d;
    p4_cuda_after after;
    void *aux; /* as D, rows of ldd elements; NULL where it has no meaning */
} p4_cuda_gemm;
void p4_cuda_matmul(p4_device *device, const p4_cuda_gemm *gemm);
/* The product with its epilogue `after`. False: nothing was queued, and the caller takes two steps
 * (P4_GEMM_EPILOGUE, fp32, an alignment, or no algorithm for the shape). Fails as p4_cuda_matmul does. */
bool p4_cuda_matmul_fused(p4_device *device, const p4_cuda_gemm *gemm);
static inline cudaDataType_t p4_cuda_act_type(const p4_device *device)
{
    return device->half ? CUDA_R_16BF : CUDA_R_32F;
}

/* The product of linear_forward, and of linear_backward_input with beta 0 (kernels/cuda/linear.cu). A bias in
 * bf16 lies in scratch memory until the next op. */
p4_cuda_gemm p4_cuda_forward_product(p4_device *device, void *y, const void *x, const void *w,
                                     const float *bias, int64_t N, int64_t in, int64_t out);
p4_cuda_gemm p4_cuda_backward_input_product(const p4_device *device, void *dx, const void *dy, const void *w,
                                            int64_t N, int64_t in, int64_t out);

/* --- sums that several ops take: kernels/cuda/calib.cu ---------------------------------------- */

/* Column sums take two stages: each block sums its rows, and a second kernel adds these partial sums in
 * order. */
enum { P4_SUM_KINDS = 3 };
typedef struct p4_cuda_sums {
    float *to[P4_SUM_KINDS]; /* [C] each */
} p4_cuda_sums;
/* The second stage: sums.to[k][c] += partial[0, k, c] + ... + partial[count - 1, k, c] of `kinds` sums. */
void p4_cuda_add_partials(p4_device *device, p4_cuda_sums sums, int64_t kinds, const float *partial,
                          int64_t count, int64_t C);
/* to[C] += the sum over n of x[n, c], ld elements between rows. */
void p4_cuda_column_sums(p4_device *device, float *to, const void *x, int64_t N, int64_t C, int64_t ld);
/* Rows that one block of the first stage sums: a multiple of its P4_COLUMN_LANES lanes, such that there are
 * at most P4_COLUMN_CHUNKS blocks along the rows and the partial sums, `bytes` an element, fit scratch
 * memory. */
enum { P4_COLUMN_LANES = 8, P4_COLUMN_CHUNKS = 256 };
static inline int64_t p4_cuda_chunk_rows(int64_t N, int64_t C, int64_t bytes)
{
    const int64_t fit = p4_max_i64(1, P4_SCRATCH_BYTES / (C * bytes)), turn = 2 * P4_COLUMN_LANES;
    const int64_t chunks = p4_min_i64(p4_min_i64(P4_COLUMN_CHUNKS, fit), p4_ceil_div(N, turn));
    return p4_ceil_div(p4_ceil_div(N, chunks), P4_COLUMN_LANES) * P4_COLUMN_LANES;
}
/* Is the weight aligned to its element type (kernels cannot read it otherwise)? Records a failure if not. */
bool p4_cuda_weight_ok(p4_device *device, const p4_weight *weight, const char *op);

/* --- host side of a launch -------------------------------------------------------------------- */

/* Runs `...` with `elem` the device's activation type and W the elements of one access: 16 bytes if `wide`,
 * else one element. */
#define P4_BY_ACT(device, wide, ...)                                        \
    do {                                                                    \
        if ((device)->half) {                                               \
            typedef __nv_bfloat16 elem;                                     \
            P4_BY_WIDTH(wide, P4_VECTOR_BYTES / sizeof(elem), __VA_ARGS__); \
        } else {                                                            \
            typedef float elem;                                             \
            P4_BY_WIDTH(wide, P4_VECTOR_BYTES / sizeof(elem), __VA_ARGS__); \
        }                                                                   \
    } while (0)
#define P4_BY_WIDTH(wide, width, ...)   \
    do {                                \
        if (wide) {                     \
            const int W = (int)(width); \
            __VA_ARGS__;                \
        } else {                        \
            const int W = 1;            \
            __VA_ARGS__;                \
        }                               \
    } while (0)

/* May all these addresses and this many bytes between rows be accessed 16 bytes at a time? (or-ed:
 * P4_ADDRESS(a) | ...) */
#define P4_ADDRESS(pointer) ((uintptr_t)(pointer))
static inline bool p4_cuda_wide(uintptr_t addresses, int64_t row_bytes)
{
    return (addresses | (uintptr_t)row_bytes) % P4_VECTOR_BYTES == 0;
}
static inline int64_t p4_act_bytes(const p4_device *device)
{
    return device->half ? 2 : 4;
}
/* Elements a thread takes at once. */
static inline int64_t p4_cuda_width(const p4_device *device, bool wide)
{
    return wide ? P4_VECTOR_BYTES / p4_act_bytes(device) : 1;
}
/* Threads of a block that walks over `items` together: whole warps, at most `most`. */
static inline unsigned p4_cuda_threads(int64_t items, int64_t most)
{
    return (unsigned)p4_min_i64(most, p4_max_i64(1, p4_ceil_div(items, P4_WARP)) * P4_WARP);
}
/* Blocks of an elementwise kernel over `count` elements, W a thread. */
static inline unsigned p4_cuda_flat(int64_t count, int64_t W)
{
    return (unsigned)p4_ceil_div(p4_ceil_div(count, W), P4_FLAT_THREADS);
}

/* --- inside kernels --------------------------------------------------------------------------- */

static __device__ __forceinline__ float p4_value(float x)
{
    return x;
}
static __device__ __forceinline__ float p4_value(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
static __device__ __forceinline__ float p4_value(__half x)
{
    return __half2float(x);
}

static __device__ __forceinline__ void p4_set(float *to, float x)
{
    *to = x;
}
static __device__ __forceinline__ void p4_set(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16_rn(x);
}
static __device__ __forceinline__ void p4_set(__half *to, float x)
{
    *to = __float2half_rn(x);
}

/* W elements that are loaded and stored together. */
template <typename T, int W> struct alignas(W * sizeof(T) < 16 ? W * sizeof(T) : 16) p4_pack {
    T element[W];
};

/* W consecutive elements <-> floats; the address is aligned to 16 bytes, or W is 1. */
template <int W, typename T> static __device__ __forceinline__ void p4_load(float (&to)[W], const T *from)
{
    const p4_pack<T, W> pack = *(const p4_pack<T, W> *)from;
#pragma unroll
    for (int i = 0; i < W; i++) {
        to[i] = p4_value(pack.element[i]);
    }
}

template <int W, typename T> static __device__ __forceinline__ void p4_store(T *to, const float (&from)[W])
{
    p4_pack<T, W> pack;
#pragma unroll
    for (int i = 0; i < W; i++) {
        p4_set(&pack.element[i], from[i]);
    }
    *(p4_pack<T, W> *)to = pack;
}

/* As p4_load and p4_store, of the first min(count, W) elements; the others are 0. */
template <int W, typename T>
static __device__ __forceinline__ void p4_load_part(float (&to)[W], const T *from, int64_t count)
{
    if (count >= W) {
        p4_load(to, from);
        return;
    }
#pragma unroll
    for (int i = 0; i < W; i++) {
        to[i] = i < count ? p4_value(from[i]) : 0.0f;
    }
}

template <int W, typename T>
static __device__ __forceinline__ void p4_store_part(T *to, const float (&from)[W], int64_t count)
{
    if (count >= W) {
        p4_store(to, from);
        return;
    }
#pragma unroll
    for (int i = 0; i < W; i++) {
        if (i < count) {
            p4_set(to + i, from[i]);
        }
    }
}

/* The sum or the maximum over a warp, in every lane; all 32 lanes take part. */
template <typename V> static __device__ __forceinline__ V p4_warp_sum(V x)
{
#pragma unroll
    for (int step = P4_WARP / 2; step > 0; step /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    return x;
}
static __device__ __forceinline__ float p4_warp_max(float x)
{
#pragma unroll
    for (int step = P4_WARP / 2; step > 0; step /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    }
    return x;
}

/* The same over a block of whole warps, blockDim.x threads, in every thread. */
template <typename V> static __device__ __forceinline__ V p4_block_sum(V x)
{
    __shared__ V parts[P4_WARP];
    const int lane = threadIdx.x % P4_WARP, warp = threadIdx.x / P4_WARP;
    x = p4_warp_sum(x);
    __syncthreads(); /* a sum before this one has been read */
    if (lane == 0) {
        parts[warp] = x;
    }
    __syncthreads();
    return p4_warp_sum(lane < (int)blockDim.x / P4_WARP ? parts[lane] : (V)0);
}
static __device__ __forceinline__ float p4_block_max(float x)
{
    __shared__ float parts[P4_WARP];
    const int lane = threadIdx.x % P4_WARP, warp = threadIdx.x / P4_WARP;
    x = p4_warp_max(x);
    __syncthreads();
    if (lane == 0) {
        parts[warp] = x;
    }
    __syncthreads();
    return p4_warp_max(parts[lane < (int)blockDim.x / P4_WARP ? lane : 0]);
}

/* The index of this thread's first element in an elementwise kernel. */
template <int W> static __device__ __forceinline__ int64_t p4_flat_index(void)
{
    return ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
}

/* --- the ops ---------------------------------------------------------------------------------- */

#define P4_OP(result, name, ...) result p4_cuda_##name(__VA_ARGS__);
#include "kernels/op_list.h"

#endif
