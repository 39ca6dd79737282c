/* activation.cu - activation functions without a gate, alone and with the products before and behind them.
 *
 * In bf16 cuBLASLt computes GELU (tanh form) as an epilogue of those products where it has an algorithm for
 * the shape (kernels/cuda/gemm.cu): forward need not read the pre-activation again, backward need not write
 * and read the gradient behind GELU. The epilogue applies GELU before rounding, two steps apply it to the
 * rounded values. fp32 always takes two steps: its results are tested with far smaller bounds than cuBLASLt's
 * tanh satisfies. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/int8_rows.cuh"
#include "kernels/cuda/mlp.cuh"

enum { ROW_TURNS = 2 };

template <typename T, int W, p4_activation F> static __global__ void activate(T *h, const T *x, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    float v[W];
    if (i >= count) {
        return;
    }
    p4_load_part(v, x + i, count - i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        v[k] = p4_activated<T, F>(v[k]);
    }
    p4_store_part(h + i, v, count - i);
}

void p4_cuda_activate_plain(p4_device *device, p4_activation function, void *y, const void *x, int64_t count)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(y) | P4_ADDRESS(x), 0);
    P4_BY_FUNCTION(function, P4_BY_ACT(device, wide,
                                       activate<elem, W, F>
                                       <<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(
                                           (elem *)y, (const elem *)x, count)));
    p4_cuda_launched(device, "activate");
}

/* d[n, f] *= slope of the function at x[n, f]; partial[chunk, f] (or NULL) = the sum over the chunk's rows of
 * the new d. A thread owns W columns and takes every P4_COLUMN_LANES-th row, ROW_TURNS of them at once. */
template <typename T, int W, p4_activation FUNCTION>
static __global__ void backward_columns(T *d, float *partial, const T *x, int64_t N, int64_t F, int64_t rows)
{
    __shared__ float sums[P4_COLUMN_LANES][W][P4_WARP];
    const int64_t f = ((int64_t)blockIdx.x * P4_WARP + threadIdx.x) * W;
    const int64_t first = blockIdx.y * rows, end = first + rows < N ? first + rows : N;
    float sum[W] = {};
    for (int64_t n = first + threadIdx.y; f < F && n < end; n += ROW_TURNS * P4_COLUMN_LANES) {
        float v[ROW_TURNS][W], g[ROW_TURNS][W];
#pragma unroll
        for (int k = 0; k < ROW_TURNS; k++) {
            if (n + k * P4_COLUMN_LANES < end) {
                p4_load(v[k], x + (n + k * P4_COLUMN_LANES) * F + f);
                p4_load(g[k], d + (n + k * P4_COLUMN_LANES) * F + f);
            }
        }
#pragma unroll
        for (int k = 0; k < ROW_TURNS; k++) {
            if (n + k * P4_COLUMN_LANES < end) {
#pragma unroll
                for (int i = 0; i < W; i++) {
                    float value;
                    g[k][i] *= p4_activated_slope<T, FUNCTION>(v[k][i], &value);
                    sum[i] += g[k][i];
                }
                p4_store(d + (n + k * P4_COLUMN_LANES) * F + f, g[k]);
            }
        }
    }
    if (!partial) {
        return;
    }
#pragma unroll
    for (int i = 0; i < W; i++) {
        sums[threadIdx.y][i][threadIdx.x] = sum[i];
    }
    __syncthreads();
    for (int i = threadIdx.y; i < W; i += P4_COLUMN_LANES) {
        float total = 0.0f;
        for (int k = 0; k < P4_COLUMN_LANES; k++) {
            total += sums[k][i][threadIdx.x];
        }
        if (f + i < F) {
            partial[blockIdx.y * F + f + i] = total;
        }
    }
}

/* d[N, width] *= slope of the function at x; db[width] (or NULL) += the sums of its columns. */
static void backward(p4_device *device, p4_activation function, void *d, float *db, const void *x, int64_t N,
                     int64_t width)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(d) | P4_ADDRESS(x), width * p4_act_bytes(device));
    const int64_t tiles = p4_ceil_div(width, P4_WARP * p4_cuda_width(device, wide));
    const int64_t rows = p4_cuda_chunk_rows(N, width, sizeof(float)), chunks = p4_ceil_div(N, rows);
    float *partial = (float *)p4_cuda_scratch(device, chunks * width * (int64_t)sizeof *partial);
    const dim3 grid((unsigned)tiles, (unsigned)chunks), block(P4_WARP, P4_COLUMN_LANES);
    if (!partial) {
        return;
    }
    P4_BY_FUNCTION(function, P4_BY_ACT(device, wide,
                                       backward_columns<elem, W, F><<<grid, block, 0, device->stream>>>(
                                           (elem *)d, db ? partial : NULL, (const elem *)x, N, width, rows)));
    p4_cuda_launched(device, "linear_activate_backward");
    if (db) {
        const p4_cuda_sums sums = {{db}};
        p4_cuda_add_partials(device, sums, 1, partial, chunks, width);
    }
}

void p4_cuda_linear_activate_forward(p4_device *device, const p4_linear_activate_forward_args *a)
{
    p4_cuda_gemm gemm = p4_cuda_forward_product(device, a->h, a->x, a->w, a->opt_bias, a->N, a->in, a->out);
    if (a->N <= 0 || a->out <= 0) {
        return;
    }
    gemm.after = P4_AFTER_GELU;
    gemm.aux = a->up;
    if (a->function == P4_GELU_TANH && p4_cuda_matmul_fused(device, &gemm)) {
        return;
    }
    gemm.after = P4_AFTER_NOTHING;
    gemm.aux = NULL;
    gemm.D = a->up;
    p4_cuda_matmul(device, &gemm);
    p4_cuda_activate_plain(device, a->function, a->h, a->up, a->N * a->out);
}

void p4_cuda_linear_activate_backward(p4_device *device, const p4_linear_activate_backward_args *a)
{
    p4_cuda_gemm gemm = p4_cuda_backward_input_product(device, a->dup, a->dy, a->w, a->N, a->F, a->out);
    gemm.after = P4_AFTER_GELU_SLOPE;
    gemm.aux = (void *)a->up; /* read */
    if (a->N <= 0 || a->F <= 0) {
        return;
    }
    if (a->function == P4_GELU_TANH && p4_cuda_matmul_fused(device, &gemm)) {
        if (a->opt_db) {
            p4_cuda_column_sums(device, a->opt_db, a->dup, a->N, a->F, a->F);
        }
        return;
    }
    gemm.after = P4_AFTER_NOTHING;
    gemm.aux = NULL;
    p4_cuda_matmul(device, &gemm);
    backward(device, a->function, a->dup, a->opt_db, a->up, a->N, a->F);
}
