/* peer_add.cu - the additions of peer_sums.h. */
extern "C" {
#include "dist/peer_add.h"
}

enum {
    THREADS = 512,
    BLOCKS = P4_PEER_PARTIALS, /* at most. They take processors before products do, whose blocks wait: so the
                                  faster the better */
    AHEAD = 8                  /* addends that a thread fetches at once from each rank */
};

struct add_one {
    static __device__ float add(float a, float b)
    {
        return a + b;
    }
    static __device__ double square(float a)
    {
        return (double)a * (double)a;
    }
};

struct add_four {
    static __device__ float4 add(float4 a, float4 b)
    {
        return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
    }
    static __device__ double square(float4 a)
    {
        return (add_one::square(a.x) + add_one::square(a.y)) + (add_one::square(a.z) + add_one::square(a.w));
    }
};

/* Adds T by T, float or float4, of which there are `count`. Returns the thread's squares of the sums; SQUARE
 * false: 0. */
template <typename T, typename A, bool SQUARE>
static __device__ double add_landed(T *to, const T *own, const T *landing, int64_t stride, int64_t count,
                                    int rank, int ranks)
{
    const int64_t threads = (int64_t)gridDim.x * blockDim.x;
    double squares = 0.0;
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
                sum[k] = r == 0 ? next[k] : A::add(sum[k], next[k]);
            }
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (i + k * threads < count) {
                to[i + k * threads] = sum[k];
            }
            squares += SQUARE ? A::square(sum[k]) : 0.0; /* beyond the end they are zeros */
        }
    }
    return squares;
}

/* The sum over the block's threads, in thread 0. */
static __device__ double block_sum(double value)
{
    __shared__ double of_warp[THREADS / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_down_sync(0xffffffffu, value, step);
    }
    if (lane == 0) {
        of_warp[warp] = value;
    }
    __syncthreads();
    value = 0.0;
    for (int w = 0; threadIdx.x == 0 && w < THREADS / 32; w++) {
        value += of_warp[w];
    }
    return value;
}

template <typename T, typename A, bool SQUARE>
static __global__ void __launch_bounds__(THREADS) add_kernel(float *to, p4_landed landed, double *partial)
{
    enum { EACH = sizeof(T) / sizeof(float) };
    const double squares =
        add_landed<T, A, SQUARE>((T *)to, (const T *)landed.own, (const T *)landed.landing,
                                 landed.stride / EACH, landed.count / EACH, landed.rank, landed.ranks);
    const double all = SQUARE ? block_sum(squares) : 0.0;
    if (SQUARE && threadIdx.x == 0) {
        partial[blockIdx.x] = all;
    }
}

/* One warp. */
static __global__ void add_partials(double *sum, const double *partial, int count)
{
    double value = 0.0;
    for (int i = threadIdx.x; i < count; i += 32) {
        value += partial[i];
    }
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_down_sync(0xffffffffu, value, step);
    }
    if (threadIdx.x == 0) {
        *sum += value;
    }
}

static bool by_four(const void *pointer)
{
    return (uintptr_t)pointer % sizeof(float4) == 0;
}

template <bool SQUARE>
static void launch(float *to, const p4_landed *landed, double *partial, unsigned grid, bool four,
                   cudaStream_t queue)
{
    if (four) {
        add_kernel<float4, add_four, SQUARE><<<grid, THREADS, 0, queue>>>(to, *landed, partial);
    } else {
        add_kernel<float, add_one, SQUARE><<<grid, THREADS, 0, queue>>>(to, *landed, partial);
    }
}

extern "C" int p4_peer_add(float *to, const p4_landed *landed, const p4_peer_squares *squares, void *queue)
{
    const bool four =
        landed->count % 4 == 0 && landed->stride % 4 == 0 && by_four(to) && by_four(landed->own);
    const int64_t blocks = ((four ? landed->count / 4 : landed->count) + THREADS - 1) / THREADS;
    const unsigned grid = blocks < BLOCKS ? (unsigned)blocks : BLOCKS;
    if (grid == 0) {
        return cudaSuccess;
    }
    if (squares->sum) {
        launch<true>(to, landed, squares->partial, grid, four, (cudaStream_t)queue);
        add_partials<<<1, 32, 0, (cudaStream_t)queue>>>(squares->sum, squares->partial, (int)grid);
    } else {
        launch<false>(to, landed, squares->partial, grid, four, (cudaStream_t)queue);
    }
    return cudaGetLastError();
}
