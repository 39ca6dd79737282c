/* muon_cuda.cu - one Muon step (METHODS 4): momentum, Newton-Schulz orthogonalisation, update.
 *
 * The products run in the device's compute type: on tensor cores with bf16 operands and fp32 sums, or in fp32. A tall
 * matrix is not turned: with A = X^T X in place of X X^T the step reads X -> aX + X (bA + cA^2). */
#include "cuda_ops.h"

enum { STEPS = 5, MUON_ALIGN = 64 };
#define NS_A 3.4445f
#define NS_B (-4.7750f)
#define NS_C 2.0315f

static int64_t padded(int64_t count)
{
    return p4_ceil_div(count, MUON_ALIGN) * MUON_ALIGN;
}

/* work: X and its successor [rows, cols], A and bA + cA^2 [m, m], m the shorter side; each starts aligned. */
int64_t p4_cuda_muon_work_count(int64_t rows, int64_t cols)
{
    const int64_t m = p4_min_i64(rows, cols);
    return 2 * padded(rows * cols) + 2 * padded(m * m);
}

/* buf = momentum buf + g; x = g + momentum buf; partial[block] = sum of x^2 over the block's `each` elements. */
template <typename T, int W>
static __global__ void momentum_partials(T *x, float *buf, double *partial, const float *g, float g_scale,
                                         float momentum, int64_t count, int64_t each)
{
    const int64_t first = blockIdx.x * each, end = first + each < count ? first + each : count;
    double sum = 0.0;
    for (int64_t i = first + (int64_t)threadIdx.x * W; i < end; i += (int64_t)blockDim.x * W) {
        float u[W], b[W];
        p4_load_part(u, g + i, end - i);
        p4_load_part(b, buf + i, end - i);
#pragma unroll
        for (int k = 0; k < W; k++) {
            u[k] *= g_scale;
            b[k] = momentum * b[k] + u[k];
            u[k] += momentum * b[k];
            sum += (double)u[k] * (double)u[k];
        }
        p4_store_part(buf + i, b, end - i);
        p4_store_part(x + i, u, end - i);
    }
    sum = p4_block_sum(sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

/* One block: *factor = 1 / (norm + 1e-7). */
static __global__ void norm_factor(float *factor, const double *partial, int count)
{
    const double sum = p4_block_sum((int)threadIdx.x < count ? partial[threadIdx.x] : 0.0);
    if (threadIdx.x == 0) {
        *factor = (float)(1.0 / (sqrt(sum) + 1e-7));
    }
}

template <typename T, int W>
static __global__ void normalize(T *x, const float *factor, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    const float f = *factor;
    float v[W];
    if (i >= count) {
        return;
    }
    p4_load_part(v, x + i, count - i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        v[k] *= f;
    }
    p4_store_part(x + i, v, count - i);
}

/* w -= lr (factor x + decay w) */
template <typename T, int W>
static __global__ void update(float *w, const T *x, float lr, float factor, float decay, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    float v[W], u[W];
    if (i >= count) {
        return;
    }
    p4_load_part(v, w + i, count - i);
    p4_load_part(u, x + i, count - i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        v[k] -= lr * (factor * u[k] + decay * v[k]);
    }
    p4_store_part(w + i, v, count - i);
}

/* X = u / (|u| + 1e-7), with the momentum on the way. */
static void start(p4_device *device, void *x, float *buf, const float *g, float g_scale, float momentum, int64_t count)
{
    const int64_t step = P4_FLAT_THREADS * P4_VECTOR_BYTES / 2;
    const int64_t each = p4_ceil_div(p4_ceil_div(count, P4_SUM_BLOCKS), step) * step, blocks = p4_ceil_div(count, each);
    const bool wide = p4_cuda_wide(P4_ADDRESS(x) | P4_ADDRESS(buf) | P4_ADDRESS(g), 0);
    double *partial = (double *)p4_cuda_scratch(device, (P4_SUM_BLOCKS + 1) * (int64_t)sizeof *partial);
    if (!partial) {
        return;
    }
    float *factor = (float *)(partial + P4_SUM_BLOCKS);
    P4_BY_ACT(device, wide,
              momentum_partials<elem, W><<<(unsigned)blocks, P4_FLAT_THREADS, 0, device->stream>>>(
                  (elem *)x, buf, partial, g, g_scale, momentum, count, each));
    norm_factor<<<1, p4_cuda_threads(blocks, P4_SUM_BLOCKS), 0, device->stream>>>(factor, partial, (int)blocks);
    P4_BY_ACT(device, p4_cuda_wide(P4_ADDRESS(x), 0),
              normalize<elem, W><<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>((elem *)x, factor,
                                                                                                count));
    p4_cuda_launched(device, "muon: momentum");
}

/* One step: next = aX + (bA + cA^2) X with A = X X^T, or for a tall X from the right. x and next are [rows, cols]. */
static void newton_schulz_step(p4_device *device, void *next, const void *x, void *A, void *A2, int64_t rows,
                               int64_t cols)
{
    const bool tall = rows > cols;
    const int64_t m = tall ? cols : rows;
    p4_cuda_gemm gemm = {};
    gemm.type = gemm.out_type = p4_cuda_act_type(device);
    gemm.M = gemm.N = gemm.ldd = m;
    gemm.K = tall ? rows : cols;
    gemm.trans_a = tall;
    gemm.trans_b = !tall;
    gemm.alpha = 1.0f;
    gemm.A = gemm.B = x;
    gemm.lda = gemm.ldb = cols;
    gemm.D = A;
    p4_cuda_matmul(device, &gemm);

    gemm.K = gemm.lda = gemm.ldb = m;
    gemm.trans_a = gemm.trans_b = false;
    gemm.alpha = NS_C;
    gemm.beta = NS_B;
    gemm.A = gemm.B = gemm.C = A;
    gemm.D = A2;
    p4_cuda_matmul(device, &gemm);

    gemm.M = rows;
    gemm.N = gemm.ldb = gemm.ldd = cols;
    gemm.alpha = 1.0f;
    gemm.beta = NS_A;
    gemm.A = A2;
    gemm.B = gemm.C = x;
    gemm.D = next;
    if (tall) {
        gemm.A = x;
        gemm.lda = cols;
        gemm.B = A2;
    }
    p4_cuda_matmul(device, &gemm);
}

void p4_cuda_muon(p4_device *device, float *w, float *buf, const float *g, float g_scale, float lr, float momentum,
                  float decay, int64_t rows, int64_t cols, float *work)
{
    const int64_t count = rows * cols, m = p4_min_i64(rows, cols), each = p4_cuda_act_bytes(device);
    if (count <= 0) {
        return;
    }
    char *x = (char *)work, *next = x + padded(count) * each, *A = next + padded(count) * each;
    char *A2 = A + padded(m * m) * each;
    start(device, x, buf, g, g_scale, momentum, count);
    for (int step = 0; step < STEPS; step++) {
        newton_schulz_step(device, next, x, A, A2, rows, cols);
        char *swap = x;
        x = next;
        next = swap;
    }
    const float factor = 0.2f * sqrtf((float)p4_max_i64(rows, cols));
    P4_BY_ACT(device, p4_cuda_wide(P4_ADDRESS(w) | P4_ADDRESS(x), 0),
              update<elem, W><<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(w, (const elem *)x, lr,
                                                                                             factor, decay, count));
    p4_cuda_launched(device, "muon");
}
