/* calib.cu - sums over rows and over whole arrays in two stages: partial sums of the blocks, then the sum
 * of these in order. */
#include <float.h>

#include "kernels/cuda/cuda.cuh"

/* The second stage. A block has few columns, so that a narrow array still has many blocks, but as many as
 * fill the 32 bytes that memory moves at least. Its threads fetch all the sums of a column at once, or
 * nearly. */
enum {
    SUM_COLUMNS = 8,
    FEW_LANES = 32,
    MANY_LANES = 128,
    LANE_SUMS = 8,
    COLUMN_TURNS = 4,
    MOMENT_BLOCKS = 1024
};

/* to[c] += partial[0, c] + partial[1, c] + ...: of the LANES threads of a column each takes every LANES-th of
 * the sums, and theirs are added in pairs. */
template <int LANES, typename R, typename S>
static __device__ __forceinline__ void add_columns(R *to, const S *partial, int64_t count, int64_t ld,
                                                   int64_t C)
{
    __shared__ double sums[LANES][SUM_COLUMNS];
    const int column = threadIdx.x, lane = threadIdx.y;
    const int64_t c = (int64_t)blockIdx.x * SUM_COLUMNS + column;
    double sum = 0.0;
#pragma unroll LANE_SUMS
    for (int64_t k = lane; c < C && k < count; k += LANES) {
        sum += (double)partial[k * ld + c];
    }
    sums[lane][column] = sum;
    for (int half = LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) {
            sum += sums[lane + half][column];
            sums[lane][column] = sum;
        }
    }
    if (lane == 0 && c < C) {
        to[c] += (R)sum;
    }
}

template <int LANES, typename R>
static __global__ void add_partials(R *to, const double *partial, int64_t count, int64_t C)
{
    add_columns<LANES>(to, partial, count, C, C);
}

/* Kind blockIdx.y of partial[count, kinds, C]. */
template <int LANES>
static __global__ void __launch_bounds__(SUM_COLUMNS *LANES)
    add_kinds(p4_cuda_sums sums, const float *partial, int64_t count, int64_t C)
{
    add_columns<LANES>(sums.to[blockIdx.y], partial + blockIdx.y * C, count, gridDim.y * C, C);
}

static bool few_sums(int64_t count)
{
    return count <= FEW_LANES * LANE_SUMS;
}

void p4_cuda_add_partials(p4_device *device, p4_cuda_sums sums, int64_t kinds, const float *partial,
                          int64_t count, int64_t C)
{
    const dim3 grid((unsigned)p4_ceil_div(C, SUM_COLUMNS), (unsigned)kinds);
    if (kinds <= 0) {
        return;
    }
    if (few_sums(count)) {
        const dim3 block(SUM_COLUMNS, FEW_LANES);
        add_kinds<FEW_LANES><<<grid, block, 0, device->stream>>>(sums, partial, count, C);
    } else {
        const dim3 block(SUM_COLUMNS, MANY_LANES);
        add_kinds<MANY_LANES><<<grid, block, 0, device->stream>>>(sums, partial, count, C);
    }
    p4_cuda_launched(device, "sum of partial sums");
}

/* partial[chunk, c] = sum over the chunk's rows of x[n, c], or of its square. COLUMN_TURNS rows are fetched
 * at once and, unless squared, summed in fp32; everything else is summed in double. */
template <typename T, int W, bool SQUARE>
static __global__ void column_partials(double *partial, const T *x, int64_t N, int64_t C, int64_t rows,
                                       int64_t ld)
{
    __shared__ double sums[P4_COLUMN_LANES][W][P4_WARP];
    const int64_t c = ((int64_t)blockIdx.x * P4_WARP + threadIdx.x) * W;
    const int64_t first = blockIdx.y * rows, end = first + rows < N ? first + rows : N;
    double sum[W] = {};
    for (int64_t n = first + threadIdx.y; c < C && n < end; n += COLUMN_TURNS * P4_COLUMN_LANES) {
        p4_pack<T, W> row[COLUMN_TURNS] = {};
#pragma unroll
        for (int k = 0; k < COLUMN_TURNS; k++) {
            if (n + k * P4_COLUMN_LANES < end) {
                row[k] = *(const p4_pack<T, W> *)(x + (n + k * P4_COLUMN_LANES) * ld + c);
            }
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            float plain = 0.0f;
#pragma unroll
            for (int k = 0; k < COLUMN_TURNS; k++) {
                const float v = p4_value(row[k].element[i]);
                plain += v;
                sum[i] += SQUARE ? (double)v * (double)v : 0.0;
            }
            sum[i] += SQUARE ? 0.0 : (double)plain;
        }
    }
#pragma unroll
    for (int i = 0; i < W; i++) {
        sums[threadIdx.y][i][threadIdx.x] = sum[i];
    }
    __syncthreads();
    for (int i = threadIdx.y; i < W; i += P4_COLUMN_LANES) {
        double total = 0.0;
        for (int k = 0; k < P4_COLUMN_LANES; k++) {
            total += sums[k][i][threadIdx.x];
        }
        if (c + i < C) {
            partial[blockIdx.y * C + c + i] = total;
        }
    }
}

/* to[C], of type R, += the column sums of x[N, ld]. */
template <typename R, bool SQUARE>
static void add_column_sums(p4_device *device, R *to, const void *x, int64_t N, int64_t C, int64_t ld)
{
    if (N <= 0 || C <= 0) {
        return;
    }
    const int64_t each = p4_act_bytes(device);
    const bool wide = p4_cuda_wide(P4_ADDRESS(x), C * each) && p4_cuda_wide(P4_ADDRESS(x), ld * each);
    const int64_t tiles = p4_ceil_div(C, P4_WARP * p4_cuda_width(device, wide));
    const int64_t rows = p4_cuda_chunk_rows(N, C, sizeof(double)), chunks = p4_ceil_div(N, rows);
    double *partial = (double *)p4_cuda_scratch(device, chunks * C * (int64_t)sizeof *partial);
    if (!partial) {
        return;
    }
    const dim3 grid((unsigned)tiles, (unsigned)chunks), block(P4_WARP, P4_COLUMN_LANES),
        lanes(SUM_COLUMNS, FEW_LANES); /* there are at most P4_COLUMN_CHUNKS sums */
    const unsigned blocks = (unsigned)p4_ceil_div(C, SUM_COLUMNS);
    P4_BY_ACT(device, wide,
              column_partials<elem, W, SQUARE>
              <<<grid, block, 0, device->stream>>>(partial, (const elem *)x, N, C, rows, ld));
    add_partials<FEW_LANES, R><<<blocks, lanes, 0, device->stream>>>(to, partial, chunks, C);
    p4_cuda_launched(device, "column sums");
}

void p4_cuda_column_sums(p4_device *device, float *to, const void *x, int64_t N, int64_t C, int64_t ld)
{
    add_column_sums<float, false>(device, to, x, N, C, ld);
}

void p4_cuda_channel_sum_sq(p4_device *device, double *sum_sq, const void *x, int64_t N, int64_t C)
{
    add_column_sums<double, true>(device, sum_sq, x, N, C, C);
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
static __global__ void moment_partials(p4_moments *partial, const T *x, int64_t N, int64_t rows,
                                       unsigned packs, int64_t ld)
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

void p4_cuda_moments(p4_device *device, p4_moments *moments, const void *x, int64_t N, int64_t width,
                     int64_t ld)
{
    const int64_t each = p4_act_bytes(device);
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
