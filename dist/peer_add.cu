/* peer_add.cu - the additions of peer_sums.h. */
extern "C" {
#include "dist/peer_add.h"
}

enum {
    THREADS = 512,
    BLOCKS = 128, /* at most. They take processors before products do, whose blocks wait: so the faster the
                     better */
    AHEAD = 8     /* addends that a thread fetches at once from each rank */
};

/* Adds T by T; T is float or float4, of which there are `count`. */
template <typename T, typename Add>
static __device__ void add_landed(T *to, const T *own, const T *landing, int64_t stride, int64_t count,
                                  int rank, int ranks, Add add)
{
    const int64_t threads = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < count; i += AHEAD * threads) {
        T sum[AHEAD], next[AHEAD];
        for (int r = 0; r < ranks; r++) {
            const T *of_rank = r == rank ? own : landing + (r < rank ? r : r - 1) * stride;
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                next[k] = i + k * threads < count ? of_rank[i + k * threads] : T();
            }
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                sum[k] = r == 0 ? next[k] : add(sum[k], next[k]);
            }
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (i + k * threads < count) {
                to[i + k * threads] = sum[k];
            }
        }
    }
}

static __global__ void __launch_bounds__(THREADS) add_kernel(float *to, p4_landed landed)
{
    add_landed(to, landed.own, landed.landing, landed.stride, landed.count, landed.rank, landed.ranks,
               [](float a, float b) { return a + b; });
}

static __global__ void __launch_bounds__(THREADS) add_kernel_4(float *to, p4_landed landed)
{
    add_landed((float4 *)to, (const float4 *)landed.own, (const float4 *)landed.landing, landed.stride / 4,
               landed.count / 4, landed.rank, landed.ranks,
               [](float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); });
}

static bool by_four(const void *pointer)
{
    return (uintptr_t)pointer % sizeof(float4) == 0;
}

extern "C" int p4_peer_add(float *to, const p4_landed *landed, void *queue)
{
    const bool four =
        landed->count % 4 == 0 && landed->stride % 4 == 0 && by_four(to) && by_four(landed->own);
    const int64_t blocks = ((four ? landed->count / 4 : landed->count) + THREADS - 1) / THREADS;
    const unsigned grid = blocks < BLOCKS ? (unsigned)blocks : BLOCKS;
    if (grid == 0) {
        return cudaSuccess;
    }
    if (four) {
        add_kernel_4<<<grid, THREADS, 0, (cudaStream_t)queue>>>(to, *landed);
    } else {
        add_kernel<<<grid, THREADS, 0, (cudaStream_t)queue>>>(to, *landed);
    }
    return cudaGetLastError();
}
