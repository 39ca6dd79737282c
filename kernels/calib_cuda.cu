/* calib_cuda.cu - sums over rows and over whole arrays in two stages: partial sums a block, then their sum in order. */
#include <float.h>

#include "cuda_ops.h"

enum { PARTIAL_LANES = 32, COLUMN_LANES = 8, COLUMN_CHUNKS = 128, MOMENT_BLOCKS = 1024 };

/* to[c] += partial[0, c] + partial[1, c] + ...: 32 columns a block, PARTIAL_LANES threads each take a run of the sums. */
template <typename R, typename S>
static __global__ void add_partials(R *to, const S *partial, int64_t count, int64_t ld, int64_t C)
{
    __shared__ double sums[PARTIAL_LANES][P4_WARP];
    const int64_t c = (int64_t)blockIdx.x * P4_WARP + threadIdx.x;
    const int64_t run = (count + PARTIAL_LANES - 1) / PARTIAL_LANES, first = threadIdx.y * run;
    double sum = 0.0;
#pragma unroll 4
    for (int64_t k = first; c < C && k < count && k < first + run; k++) {
        sum += (double)partial[k * ld + c];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < C) {
        for (int i = 1; i < PARTIAL_LANES; i++) {
            sum += sums[i][threadIdx.x];
        }
        to[c] += (R)sum;
    }
}

void p4_cuda_add_partials(p4_device *device, float *to, const float *partial, int64_t count, int64_t ld, int64_t C)
{
    const dim3 block(P4_WARP, PARTIAL_LANES);
    add_partials<<<(unsigned)p4_ceil_div(C, P4_WARP), block, 0, device->stream>>>(to, partial, count, ld, C);
    p4_cuda_launched(device, "sum of partial sums");
}

/* partial[chunk, c] = sum over the chunk's rows of x[n, c], or of its square. */
template <typename T, int W>
static __global__ void column_partials(double *partial, const T *x, int64_t N, int64_t C, int64_t rows, bool square)
{
    __shared__ double sums[COLUMN_LANES][W][P4_WARP];
    const int64_t c = ((int64_t)blockIdx.x * P4_WARP + threadIdx.x) * W;
    const int64_t first = blockIdx.y * rows, end = first + rows < N ? first + rows : N;
    double sum[W] = {};
    for (int64_t n = first + threadIdx.y; c < C && n < end; n += COLUMN_LANES) {
        float v[W];
        p4_load(v, x + n * C + c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            sum[i] += square ? (double)v[i] * (double)v[i] : (double)v[i];
        }
    }
#pragma unroll
    for (int i = 0; i < W; i++) {
        sums[threadIdx.y][i][threadIdx.x] = sum[i];
    }
    __syncthreads();
    for (int i = threadIdx.y; i < W; i += COLUMN_LANES) {
        double total = 0.0;
        for (int k = 0; k < COLUMN_LANES; k++) {
            total += sums[k][i][threadIdx.x];
        }
        if (c + i < C) {
            partial[blockIdx.y * C + c + i] = total;
        }
    }
}

void p4_cuda_column_sums(p4_device *device, float *to, double *to_double, const void *x, int64_t N, int64_t C,
                         bool square)
{
    if (N <= 0 || C <= 0) {
        return;
    }
    const bool wide = p4_cuda_wide(P4_ADDRESS(x), C * p4_cuda_act_bytes(device));
    const int64_t tiles = p4_ceil_div(C, P4_WARP * p4_cuda_width(device, wide));
    const int64_t fit = p4_max_i64(1, P4_SCRATCH_BYTES / (C * (int64_t)sizeof(double)));
    int64_t chunks = p4_min_i64(p4_min_i64(COLUMN_CHUNKS, fit), p4_ceil_div(N, 2 * COLUMN_LANES));
    const int64_t rows = p4_ceil_div(N, chunks);
    chunks = p4_ceil_div(N, rows);
    double *partial = (double *)p4_cuda_scratch(device, chunks * C * (int64_t)sizeof *partial);
    if (!partial) {
        return;
    }
    const dim3 grid((unsigned)tiles, (unsigned)chunks), block(P4_WARP, COLUMN_LANES);
    P4_BY_ACT(device, wide,
              column_partials<elem, W><<<grid, block, 0, device->stream>>>(partial, (const elem *)x, N, C, rows, square));
    const unsigned blocks = (unsigned)p4_ceil_div(C, P4_WARP);
    const dim3 lanes(P4_WARP, PARTIAL_LANES);
    if (to_double) {
        add_partials<<<blocks, lanes, 0, device->stream>>>(to_double, partial, chunks, C, C);
    } else {
        add_partials<<<blocks, lanes, 0, device->stream>>>(to, partial, chunks, C, C);
    }
    p4_cuda_launched(device, "column sums");
}

void p4_cuda_channel_sum_sq(p4_device *device, double *sum_sq, const void *x, int64_t N, int64_t C)
{
    p4_cuda_column_sums(device, NULL, sum_sq, x, N, C, true);
}

/* The block's sums in thread 0; count stays 0. */
static __device__ p4_moments block_moments(p4_moments m)
{
    m.sum = p4_block_sum(m.sum);
    m.sum_sq = p4_block_sum(m.sum_sq);
    m.min = -p4_block_max(-m.min);
    m.max = p4_block_max(m.max);
    return m;
}

/* A block takes `rows` rows; packs: accesses a row. */
template <typename T, int W>
static __global__ void moment_partials(p4_moments *partial, const T *x, int64_t N, int64_t rows, unsigned packs,
                                       int64_t ld)
{
    p4_moments m = {0.0, 0.0, 0.0, FLT_MAX, -FLT_MAX};
    const int64_t first = blockIdx.x * rows, end = first + rows < N ? first + rows : N;
    const unsigned items = (unsigned)(end - first) * packs;
    for (unsigned at = threadIdx.x; at < items; at += blockDim.x) {
        float v[W];
        p4_load(v, x + (first + at / packs) * ld + at % packs * W);
#pragma unroll
        for (int i = 0; i < W; i++) {
            m.sum += (double)v[i];
            m.sum_sq += (double)v[i] * (double)v[i];
            m.min = fminf(m.min, v[i]);
            m.max = fmaxf(m.max, v[i]);
        }
    }
    m = block_moments(m);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = m;
    }
}

/* One block: at most one partial result a thread. */
static __global__ void add_moments(p4_moments *moments, const p4_moments *partial, int count, double elements)
{
    p4_moments m = {0.0, 0.0, 0.0, FLT_MAX, -FLT_MAX};
    if ((int)threadIdx.x < count) {
        m = partial[threadIdx.x];
    }
    m = block_moments(m);
    if (threadIdx.x == 0) {
        moments->sum += m.sum;
        moments->sum_sq += m.sum_sq;
        moments->count += elements;
        moments->min = fminf(moments->min, m.min);
        moments->max = fmaxf(moments->max, m.max);
    }
}

void p4_cuda_moments(p4_device *device, p4_moments *moments, const void *x, int64_t N, int64_t width, int64_t ld)
{
    const int64_t each = p4_cuda_act_bytes(device);
    const bool wide = p4_cuda_wide(P4_ADDRESS(x), (width * each) | (ld * each));
    const int64_t packs = width / p4_cuda_width(device, wide);
    p4_moments *partial = (p4_moments *)p4_cuda_scratch(device, MOMENT_BLOCKS * (int64_t)sizeof *partial);
    if (N <= 0 || width <= 0 || !partial) {
        return;
    }
    const int64_t rows = p4_ceil_div(N, MOMENT_BLOCKS), blocks = p4_ceil_div(N, rows);
    P4_BY_ACT(device, wide,
              moment_partials<elem, W><<<(unsigned)blocks, P4_FLAT_THREADS, 0, device->stream>>>(
                  partial, (const elem *)x, N, rows, (unsigned)packs, ld));
    add_moments<<<1, p4_cuda_threads(blocks, MOMENT_BLOCKS), 0, device->stream>>>(
        moments, partial, (int)blocks, (double)N * (double)width);
    p4_cuda_launched(device, "moments");
}
