/* hessian_rows.cu - the rows of a matrix quantized under H: GPTQ and coordinate descent.
 *
 * The columns are taken in blocks of P4_HESSIAN_BLOCK: the influence of all other columns on a block is one
 * product over all rows, and inside the block a warp takes a row. A lane holds every 32nd column of the row
 * in registers; the block of F or H lies in shared memory, of which the part on and above the diagonal is
 * read. */
#include "kernels/cuda/cuda.cuh"

enum {
    BLOCK = P4_HESSIAN_BLOCK,
    HELD = BLOCK / P4_WARP, /* columns that a lane holds */
    TRIANGLE = BLOCK * (BLOCK + 1) / 2,
    ROWS = 8 /* of a thread block */
};

/* The element [row, col] of a triangle, col >= row. */
static __device__ __forceinline__ int triangle_at(int row, int col)
{
    return row * BLOCK - row * (row - 1) / 2 + col - row;
}

/* to = the upper triangle of the block [width, width] at `from`; zeros beyond width. */
static __device__ __forceinline__ void load_triangle(float *to, const float *from, int64_t ld, int width)
{
    for (int i = (int)threadIdx.x; i < BLOCK * BLOCK; i += (int)blockDim.x) {
        const int row = i / BLOCK, col = i % BLOCK;
        if (row <= col) {
            to[triangle_at(row, col)] = row < width && col < width ? from[row * ld + col] : 0.0f;
        }
    }
    __syncthreads();
}

/* A row's part of a block, and back. Columns from width on are 0. */
static __device__ __forceinline__ void load_held(float (&held)[HELD], const float *from, int lane, int width)
{
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        held[i] = lane + i * P4_WARP < width ? from[lane + i * P4_WARP] : 0.0f;
    }
}

static __device__ __forceinline__ void store_held(float *to, const float (&held)[HELD], int lane, int width)
{
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        if (lane + i * P4_WARP < width) {
            to[lane + i * P4_WARP] = held[i];
        }
    }
}

/* held += factor * row j of the triangle, for the columns after j. */
static __device__ __forceinline__ void add_row(float (&held)[HELD], const float *triangle, float factor,
                                               int j, int lane)
{
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int col = lane + i * P4_WARP;
        if (col > j) {
            held[i] += factor * triangle[triangle_at(j, col)];
        }
    }
}

static __device__ __forceinline__ float scale_of(const uint16_t *scale, int64_t row)
{
    return __half2float(__ushort_as_half(scale[row]));
}

/* The product of [rows, inner] and [inner, width] columns of a square matrix, into m->work. */
static void multiply(p4_device *device, const p4_hessian_rows *m, const float *A, int64_t inner,
                     const float *B, int64_t width)
{
    p4_cuda_gemm gemm = {};
    gemm.type = gemm.out_type = CUDA_R_32F;
    gemm.M = m->rows;
    gemm.N = width;
    gemm.K = inner;
    gemm.alpha = 1.0f;
    gemm.A = A;
    gemm.B = B;
    gemm.lda = gemm.ldb = m->cols;
    gemm.D = m->work;
    gemm.ldd = BLOCK;
    p4_cuda_matmul(device, &gemm);
}

static unsigned row_blocks(const p4_hessian_rows *m)
{
    return (unsigned)p4_ceil_div(m->rows, ROWS);
}

/* --- the weights ------------------------------------------------------------------------------ */

/* In the order of the data. */
template <typename S>
static __global__ void load_weights(float *w, const S *data, const float *importance, int64_t rows,
                                    int64_t cols, bool transposed)
{
    const int64_t i = p4_flat_index<1>();
    if (i < rows * cols) {
        const int64_t col = transposed ? i / rows : i % cols, row = transposed ? i % rows : i / cols;
        w[row * cols + col] = importance[col] != 0.0f ? p4_value(data[i]) : 0.0f;
    }
}

void p4_cuda_hessian_weights(p4_device *device, float *w, const p4_weight *weight, const float *importance)
{
    const int64_t rows = weight->rows, cols = weight->cols;
    const unsigned blocks = p4_cuda_flat(rows * cols, 1);
    if (rows <= 0 || cols <= 0 || !p4_cuda_weight_ok(device, weight, "hessian_weights")) {
        return;
    }
    if (weight->dtype == P4_F32) {
        load_weights<<<blocks, P4_FLAT_THREADS, 0, device->stream>>>(
            w, (const float *)weight->data, importance, rows, cols, weight->transposed);
    } else if (weight->dtype == P4_F16) {
        load_weights<<<blocks, P4_FLAT_THREADS, 0, device->stream>>>(
            w, (const __half *)weight->data, importance, rows, cols, weight->transposed);
    } else {
        load_weights<<<blocks, P4_FLAT_THREADS, 0, device->stream>>>(
            w, (const __nv_bfloat16 *)weight->data, importance, rows, cols, weight->transposed);
    }
    p4_cuda_launched(device, "hessian_weights");
}

/* --- GPTQ ------------------------------------------------------------------------------------- */

/* A block of columns from `first` on. m.work: the feedback of the columns before it, unless first is 0. */
static __global__ void __launch_bounds__(ROWS *P4_WARP)
    sweep_gptq(p4_hessian_rows m, int64_t first, int width)
{
    __shared__ float triangle[TRIANGLE];
    const int lane = (int)threadIdx.x % P4_WARP;
    const int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.x / P4_WARP, at = row * m.cols + first;
    float w[HELD], v[HELD], t[HELD], error[HELD] = {};
    load_triangle(triangle, m.feedback + first * m.cols + first, m.cols, width);
    if (row >= m.rows) {
        return;
    }
    const float scale = scale_of(m.scale, row), cut = 0.5f * scale;
    load_held(w, m.w + at, lane, width);
    load_held(v, m.work + row * BLOCK, lane, first > 0 ? width : 0);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        v[i] += w[i];
        t[i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        for (int l = 0; l < P4_WARP && i * P4_WARP + l < width; l++) {
            const float value = __shfl_sync(0xffffffffu, v[i], l);
            const float trit =
                scale > 0.0f ? (value >= cut ? 1.0f : 0.0f) - (value <= -cut ? 1.0f : 0.0f) : 0.0f;
            const float e = __shfl_sync(0xffffffffu, w[i], l) - scale * trit;
            if (lane == l) {
                t[i] = trit;
                error[i] = e;
            }
            add_row(v, triangle, e, i * P4_WARP + l, lane);
        }
    }
    store_held(m.t + at, t, lane, width);
    store_held(m.wh + at, error, lane, width);
}

void p4_cuda_gptq(p4_device *device, const p4_hessian_rows *m)
{
    for (int64_t first = 0; first < m->cols && m->rows > 0; first += BLOCK) {
        const int64_t width = p4_min_i64(BLOCK, m->cols - first);
        multiply(device, m, m->wh, first, m->feedback + first, width);
        sweep_gptq<<<row_blocks(m), ROWS * P4_WARP, 0, device->stream>>>(*m, first, (int)width);
        p4_cuda_launched(device, "gptq");
    }
}

/* --- coordinate descent ----------------------------------------------------------------------- */

/* The best scale of each row for its trits. */
static __global__ void refit(uint16_t *scale, const double *fit, int64_t rows)
{
    const int64_t row = p4_flat_index<1>();
    if (row < rows && fit[2 * row] > 0.0 && fit[2 * row + 1] > 0.0) {
        scale[row] = __half_as_ushort(__float2half_rn((float)(fit[2 * row] / fit[2 * row + 1])));
    }
}

static void refit_rows(p4_device *device, const p4_hessian_rows *m)
{
    refit<<<p4_cuda_flat(m->rows, 1), P4_FLAT_THREADS, 0, device->stream>>>(m->scale, m->fit, m->rows);
    p4_cuda_launched(device, "best scales");
}

/* fit += the share of a block of columns, m.work = t h of them. */
static __global__ void add_fit(p4_hessian_rows m, int64_t first, int width)
{
    const int lane = (int)threadIdx.x % P4_WARP;
    const int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.x / P4_WARP, at = row * m.cols + first;
    double wht = 0.0, tht = 0.0;
    if (row >= m.rows) {
        return;
    }
    for (int c = lane; c < width; c += P4_WARP) {
        wht += (double)m.wh[at + c] * (double)m.t[at + c];
        tht += (double)m.work[row * BLOCK + c] * (double)m.t[at + c];
    }
    wht = p4_warp_sum(wht);
    tht = p4_warp_sum(tht);
    if (lane == 0) {
        m.fit[2 * row] = (first > 0 ? m.fit[2 * row] : 0.0) + wht;
        m.fit[2 * row + 1] = (first > 0 ? m.fit[2 * row + 1] : 0.0) + tht;
    }
}

void p4_cuda_descend_start(p4_device *device, const p4_hessian_rows *m)
{
    p4_cuda_gemm gemm = {};
    gemm.type = gemm.out_type = CUDA_R_32F;
    gemm.M = m->rows;
    gemm.N = gemm.K = m->cols;
    gemm.alpha = 1.0f;
    gemm.A = m->w;
    gemm.B = m->h;
    gemm.D = m->wh;
    gemm.lda = gemm.ldb = gemm.ldd = m->cols;
    if (m->rows <= 0) {
        return;
    }
    p4_cuda_matmul(device, &gemm);
    for (int64_t first = 0; first < m->cols; first += BLOCK) {
        const int64_t width = p4_min_i64(BLOCK, m->cols - first);
        multiply(device, m, m->t, m->cols, m->h + first, width);
        add_fit<<<row_blocks(m), ROWS * P4_WARP, 0, device->stream>>>(*m, first, (int)width);
    }
    refit_rows(device, m);
}

/* The trit of a column with the smallest error. th = (t h)_j, wh = (w h)_j, hjj the diagonal. */
static __device__ __forceinline__ float best_trit(float t, float th, float wh, float hjj, float scale)
{
    const float least_gain = 1e-5f; /* of scale^2 h_jj: smaller ones are rounding errors */
    const float g = scale * th - wh;
    float best = t, least = -least_gain * scale * scale * hjj;
#pragma unroll
    for (int c = -1; c <= 1; c++) {
        const float d = scale * ((float)c - t), gain = d * (2.0f * g + d * hjj);
        if (gain < least) {
            least = gain;
            best = (float)c;
        }
    }
    return best;
}

/* A block of columns from `first` on, m.work = t h of them. Adds the trits that change to *changed. */
static __global__ void __launch_bounds__(ROWS *P4_WARP)
    sweep_descend(p4_hessian_rows m, int64_t first, int width, unsigned long long *changed)
{
    __shared__ float triangle[TRIANGLE];
    const int lane = (int)threadIdx.x % P4_WARP;
    const int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.x / P4_WARP, at = row * m.cols + first;
    float wh[HELD], th[HELD], t[HELD];
    unsigned long long changes = 0;
    load_triangle(triangle, m.h + first * m.cols + first, m.cols, width);
    if (row >= m.rows || scale_of(m.scale, row) <= 0.0f) {
        return;
    }
    const float scale = scale_of(m.scale, row);
    double wht = m.fit[2 * row], tht = m.fit[2 * row + 1];
    load_held(wh, m.wh + at, lane, width);
    load_held(th, m.work + row * BLOCK, lane, width);
    load_held(t, m.t + at, lane, width);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        for (int l = 0; l < P4_WARP && i * P4_WARP + l < width; l++) {
            const int j = i * P4_WARP + l;
            const float hjj = triangle[triangle_at(j, j)], old = __shfl_sync(0xffffffffu, t[i], l);
            const float th_j = __shfl_sync(0xffffffffu, th[i], l), wh_j = __shfl_sync(0xffffffffu, wh[i], l);
            const float step = best_trit(old, th_j, wh_j, hjj, scale) - old;
            if (step != 0.0f) { /* in all lanes or in none */
                wht += (double)step * (double)wh_j;
                tht += (double)step * (2.0 * (double)th_j + (double)step * (double)hjj);
                t[i] += lane == l ? step : 0.0f;
                add_row(th, triangle, step, j, lane);
                changes++;
            }
        }
    }
    store_held(m.t + at, t, lane, width);
    if (lane == 0 && changes > 0) {
        m.fit[2 * row] = wht;
        m.fit[2 * row + 1] = tht;
        atomicAdd(changed, changes);
    }
}

void p4_cuda_descend(p4_device *device, const p4_hessian_rows *m, int64_t *h_changed)
{
    unsigned long long count = 0, *changed = (unsigned long long *)p4_cuda_scratch(device, sizeof *changed);
    *h_changed = 0;
    if (!changed || m->rows <= 0 ||
        !p4_cuda_ok(device, cudaMemsetAsync(changed, 0, sizeof *changed, device->stream), "descend")) {
        return;
    }
    for (int64_t first = 0; first < m->cols; first += BLOCK) {
        const int64_t width = p4_min_i64(BLOCK, m->cols - first);
        multiply(device, m, m->t, m->cols, m->h + first, width);
        sweep_descend<<<row_blocks(m), ROWS * P4_WARP, 0, device->stream>>>(*m, first, (int)width, changed);
        p4_cuda_launched(device, "descend");
    }
    refit_rows(device, m);
    p4_cuda_ok(device, cudaMemcpyAsync(&count, changed, sizeof count, cudaMemcpyDeviceToHost, device->stream),
               "descend");
    if (p4_cuda_ok(device, cudaStreamSynchronize(device->stream), "descend")) {
        *h_changed = (int64_t)count;
    }
}
