/* muon_tiles.cuh - the elementwise kernels of kernels/cuda/muon.cu. Each runs over several matrices of one
 * shape at once: blockIdx.y is the number of the matrix. */
#ifndef P4_KERNELS_MUON_TILES_CUDA_CUH
#define P4_KERNELS_MUON_TILES_CUDA_CUH

#include "kernels/cuda/muon.cuh"
#include "kernels/cuda/state.cuh"

enum { MUON_TILE = 64 }; /* side of a tile that is transposed in shared memory */

/* buf = momentum buf + u; u += momentum buf, of W elements; returns the sum of u^2. u comes in as the scaled
 * gradient. */
template <int W>
static __device__ __forceinline__ double muon_momentum(float (&u)[W], float (&buf)[W], float momentum)
{
    double sum = 0.0;
#pragma unroll
    for (int k = 0; k < W; k++) {
        buf[k] = momentum * buf[k] + u[k];
        u[k] += momentum * buf[k];
        sum += (double)u[k] * (double)u[k];
    }
    return sum;
}

/* The block's sum becomes partial[matrix, block]. */
static __device__ __forceinline__ void muon_store_sum(double *partial, double sum)
{
    sum = p4_block_sum(sum);
    if (threadIdx.x == 0) {
        partial[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = sum;
    }
}

/* x[count] = u of a wide matrix; the block has `each` elements. */
template <typename T, typename S, int W>
static __global__ void momentum_wide(const __grid_constant__ muon_items items, T *x, int64_t x_stride,
                                     double *partial, float momentum, int64_t count, int64_t each,
                                     const p4_step_numbers *numbers)
{
    const p4_muon_item item = items.item[blockIdx.y];
    S *const stored = (S *)item.buf;
    const int64_t first = blockIdx.x * each, end = first + each < count ? first + each : count;
    const float g_scale = numbers->g_scale;
    const uint64_t key = numbers->key;
    double sum = 0.0;
    x += blockIdx.y * x_stride;
    for (int64_t i = first + (int64_t)threadIdx.x * W; i < end; i += P4_FLAT_THREADS * W) {
        float u[W], buf[W];
        p4_load_part(u, item.g + i, end - i);
        p4_load_part(buf, stored + i, end - i);
#pragma unroll
        for (int k = 0; k < W; k++) {
            u[k] *= g_scale;
        }
        sum += muon_momentum(u, buf, momentum);
        p4_state_round(stored, buf, key, item.index + (uint64_t)i, 0);
        p4_store_part(stored + i, buf, end - i);
        p4_store_part(x + i, u, end - i);
    }
    muon_store_sum(partial, sum);
}

/* x[cols, rows] = u^T of a tall matrix [rows, cols]; W elements of x at once, which rows and cols are
 * multiples of. */
template <typename T, typename S, int W>
static __global__ void momentum_tall(const __grid_constant__ muon_items items, T *x, int64_t x_stride,
                                     double *partial, float momentum, int64_t rows, int64_t cols,
                                     const p4_step_numbers *numbers)
{
    enum { R = W > 1 ? 4 : 1 }; /* floats read at once */
    __shared__ float tile[MUON_TILE][MUON_TILE + 1];
    const p4_muon_item item = items.item[blockIdx.y];
    S *const stored = (S *)item.buf;
    const int64_t across = (cols + MUON_TILE - 1) / MUON_TILE,
                  tiles = across * ((rows + MUON_TILE - 1) / MUON_TILE);
    const float g_scale = numbers->g_scale;
    const uint64_t key = numbers->key;
    double sum = 0.0;
    x += blockIdx.y * x_stride;
    for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
        const int64_t row = t / across * MUON_TILE, col = t % across * MUON_TILE;
        __syncthreads(); /* the previous tile has been read */
        for (int at = (int)threadIdx.x * R; at < MUON_TILE * MUON_TILE; at += P4_FLAT_THREADS * R) {
            const int r = at / MUON_TILE, c = at % MUON_TILE;
            const int64_t i = (row + r) * cols + col + c;
            if (row + r < rows && col + c < cols) {
                float u[R], buf[R];
                p4_load(u, item.g + i);
                p4_load(buf, stored + i);
#pragma unroll
                for (int k = 0; k < R; k++) {
                    u[k] *= g_scale;
                }
                sum += muon_momentum(u, buf, momentum);
                p4_state_round(stored, buf, key, item.index + (uint64_t)i, 0);
                p4_store(stored + i, buf);
#pragma unroll
                for (int k = 0; k < R; k++) {
                    tile[r][c + k] = u[k];
                }
            }
        }
        __syncthreads();
        for (int at = (int)threadIdx.x * W; at < MUON_TILE * MUON_TILE; at += P4_FLAT_THREADS * W) {
            const int c = at / MUON_TILE, r = at % MUON_TILE;
            if (row + r < rows && col + c < cols) {
                float u[W];
#pragma unroll
                for (int k = 0; k < W; k++) {
                    u[k] = tile[r + k][c];
                }
                p4_store(x + (col + c) * rows + row + r, u);
            }
        }
    }
    muon_store_sum(partial, sum);
}

/* factor[matrix] = 1 / (norm + 1e-7) from its `count` partial sums; one block a matrix. */
static __global__ void norm_factors(float *factor, const double *partial, int count)
{
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        sum += partial[(int64_t)blockIdx.x * count + i];
    }
    sum = p4_block_sum(sum);
    if (threadIdx.x == 0) {
        factor[blockIdx.x] = (float)(1.0 / (sqrt(sum) + 1e-7));
    }
}

/* Fills all of S [m, m] from lower triangles; a block reads tile (i, j), i >= j, and writes it and its mirror
 * (j, i). polynomial false: S = f^2 G, G = X X'. true: S = f (aI + bS + cG), G = S S'. f = factor[matrix], or
 * 1 when it is NULL. */
template <typename T, int W, bool polynomial>
static __global__ void fill_symmetric(T *S, const T *G, const float *factor, int64_t m, int64_t s_stride,
                                      int64_t g_stride)
{
    __shared__ float tile[MUON_TILE][MUON_TILE + 1];
    const int i = triangle_row(blockIdx.x), j = (int)blockIdx.x - i * (i + 1) / 2;
    const int64_t row = (int64_t)i * MUON_TILE, col = (int64_t)j * MUON_TILE;
    const float f = factor ? factor[blockIdx.y] : 1.0f;
    S += blockIdx.y * s_stride;
    G += blockIdx.y * g_stride;
    for (int at = (int)threadIdx.x * W; at < MUON_TILE * MUON_TILE; at += P4_FLAT_THREADS * W) {
        const int r = at / MUON_TILE, c = at % MUON_TILE;
        const int64_t place = (row + r) * m + col + c;
        if (row + r < m && col + c < m) {
            float s[W], g[W];
            p4_load(g, G + place);
            if (polynomial) {
                p4_load(s, S + place);
            }
#pragma unroll
            for (int k = 0; k < W; k++) {
                const float diagonal = row + r == col + c + k ? NS_A : 0.0f;
                g[k] = polynomial ? f * (diagonal + NS_B * s[k] + NS_C * g[k]) : f * f * g[k];
                tile[r][c + k] = g[k];
            }
            if (i != j) {
                p4_store(S + place, g);
            }
        }
    }
    __syncthreads();
    for (int at = (int)threadIdx.x * W; at < MUON_TILE * MUON_TILE; at += P4_FLAT_THREADS * W) {
        const int r = at / MUON_TILE, c = at % MUON_TILE; /* of tile (j, i) */
        if (col + r < m && row + c < m) {
            float s[W];
#pragma unroll
            for (int k = 0; k < W; k++) {
                /* of a tile on the diagonal only the lower part was computed */
                s[k] = i == j && c + k <= r ? tile[r][c + k] : tile[c + k][r];
            }
            p4_store(S + (col + r) * m + row + c, s);
        }
    }
}

template <typename T, int W>
static __global__ void update_wide(const __grid_constant__ muon_items items, const T *x, int64_t x_stride,
                                   float scale, float decay, int64_t count, const p4_step_numbers *numbers)
{
    const int64_t i = p4_flat_index<W>();
    const float lr = numbers->lr;
    float *w = items.item[blockIdx.y].w;
    if (i < count) {
        float v[W], u[W];
        p4_load_part(v, w + i, count - i);
        p4_load_part(u, x + blockIdx.y * x_stride + i, count - i);
        muon_update(v, u, lr, scale, decay);
        p4_store_part(w + i, v, count - i);
    }
}

/* The same of a tall matrix [rows, cols] from x[cols, rows]; a block has one tile. */
template <typename T, int W>
static __global__ void update_tall(const __grid_constant__ muon_items items, const T *x, int64_t x_stride,
                                   float scale, float decay, int64_t rows, int64_t cols,
                                   const p4_step_numbers *numbers)
{
    enum { R = W > 1 ? 4 : 1 };
    __shared__ float tile[MUON_TILE][MUON_TILE + 1];
    const int64_t across = (cols + MUON_TILE - 1) / MUON_TILE;
    const int64_t row = blockIdx.x / across * MUON_TILE, col = blockIdx.x % across * MUON_TILE;
    const float lr = numbers->lr;
    float *w = items.item[blockIdx.y].w;
    x += blockIdx.y * x_stride;
    for (int at = (int)threadIdx.x * W; at < MUON_TILE * MUON_TILE; at += P4_FLAT_THREADS * W) {
        const int c = at / MUON_TILE, r = at % MUON_TILE;
        if (row + r < rows && col + c < cols) {
            float u[W];
            p4_load(u, x + (col + c) * rows + row + r);
#pragma unroll
            for (int k = 0; k < W; k++) {
                tile[r + k][c] = u[k];
            }
        }
    }
    __syncthreads();
    for (int at = (int)threadIdx.x * R; at < MUON_TILE * MUON_TILE; at += P4_FLAT_THREADS * R) {
        const int r = at / MUON_TILE, c = at % MUON_TILE;
        if (row + r < rows && col + c < cols) {
            float v[R], u[R];
            p4_load(v, w + (row + r) * cols + col + c);
#pragma unroll
            for (int k = 0; k < R; k++) {
                u[k] = tile[r][c + k];
            }
            muon_update(v, u, lr, scale, decay);
            p4_store(w + (row + r) * cols + col + c, v);
        }
    }
}

#endif
