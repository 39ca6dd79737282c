/* experts_products.cu - products of each expert's rows with its matrix, in one launch: how many rows an
 * expert has is read on the device, so that the launch can be recorded. Here is the implementation `plain`
 * (kernels/cuda/experts.cuh), without tensor cores. */
#include "kernels/cuda/experts.cuh"

enum { TILE = 64, DEPTH = 16, THREADS = 256, EACH = 4 /* a thread computes EACH x EACH elements */ };

/* D[m, n] = sum over k of a[m a_m + k a_k] b[k b_k + n b_n]; D has rows of n_count elements. */
template <typename T> struct product {
    const T *a, *b;
    int64_t a_m, a_k, b_k, b_n, m_count, n_count, k_count;
};

/* The tile at (m0, n0) in `sum`. */
template <typename T>
static __device__ __forceinline__ void multiply(float (&sum)[EACH][EACH], const product<T> &p, int64_t m0,
                                                int64_t n0)
{
    __shared__ float a[DEPTH][TILE + 1], b[DEPTH][TILE + 1];
    const int column = (int)threadIdx.x % (TILE / EACH), line = (int)threadIdx.x / (TILE / EACH);
    for (int64_t k0 = 0; k0 < p.k_count; k0 += DEPTH) {
        for (int i = (int)threadIdx.x; i < TILE * DEPTH; i += THREADS) {
            /* Neighboring threads read neighboring elements. */
            const int am = p.a_k == 1 ? i / DEPTH : i % TILE, ak = p.a_k == 1 ? i % DEPTH : i / TILE,
                      bn = p.b_k == 1 ? i / DEPTH : i % TILE, bk = p.b_k == 1 ? i % DEPTH : i / TILE;
            a[ak][am] = m0 + am < p.m_count && k0 + ak < p.k_count
                            ? p4_value(p.a[(m0 + am) * p.a_m + (k0 + ak) * p.a_k])
                            : 0.0f;
            b[bk][bn] = n0 + bn < p.n_count && k0 + bk < p.k_count
                            ? p4_value(p.b[(k0 + bk) * p.b_k + (n0 + bn) * p.b_n])
                            : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < DEPTH; k++) {
#pragma unroll
            for (int i = 0; i < EACH; i++) {
#pragma unroll
                for (int j = 0; j < EACH; j++) {
                    sum[i][j] += a[k][line * EACH + i] * b[k][column * EACH + j];
                }
            }
        }
        __syncthreads();
    }
}

/* Writes the tile to D, or adds it. */
template <typename T, typename D>
static __device__ __forceinline__ void put(D *d, const float (&sum)[EACH][EACH], const product<T> &p,
                                           int64_t m0, int64_t n0, bool accumulate)
{
    const int column = (int)threadIdx.x % (TILE / EACH), line = (int)threadIdx.x / (TILE / EACH);
    for (int i = 0; i < EACH; i++) {
        for (int j = 0; j < EACH; j++) {
            const int64_t m = m0 + line * EACH + i, n = n0 + column * EACH + j;
            if (m < p.m_count && n < p.n_count) {
                D *to = d + m * p.n_count + n;
                p4_set(to, accumulate ? p4_value(*to) + sum[i][j] : sum[i][j]);
            }
        }
    }
}

/* y = x w^T, or (backward) dx = dy w. Blocks along y are tiles of rows: those of the first expert, then those
 * of the next; there are enough for every division of the rows. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    multiply_rows(T *d, const T *a, const T *w, p4_experts_args args, bool backward)
{
    int64_t tile = blockIdx.y, row = 0, rows = 0;
    int64_t e = 0;
    for (; e < args.experts; e++) {
        row = args.first[e];
        rows = args.first[e + 1] - row;
        const int64_t tiles = (rows + TILE - 1) / TILE;
        if (tile < tiles) {
            break;
        }
        tile -= tiles;
    }
    if (e == args.experts) {
        return;
    }
    const int64_t from = backward ? args.out : args.in, to = backward ? args.in : args.out;
    const product<T> p = {.a = a + row * from,
                          .b = w + e * args.in * args.out,
                          .a_m = from,
                          .a_k = 1,
                          .b_k = backward ? args.in : 1,
                          .b_n = backward ? 1 : args.in,
                          .m_count = rows,
                          .n_count = to,
                          .k_count = from};
    float sum[EACH][EACH] = {};
    multiply(sum, p, tile * TILE, (int64_t)blockIdx.x * TILE);
    put(d + row * to, sum, p, tile * TILE, (int64_t)blockIdx.x * TILE, false);
}

static void rows_product(p4_device *device, const p4_experts_args *a, bool backward)
{
    const int64_t width = backward ? a->in : a->out;
    const dim3 blocks((unsigned)p4_ceil_div(width, TILE),
                      (unsigned)(p4_ceil_div(a->rows, TILE) + p4_min_i64(a->experts, a->rows)));
    if (a->rows <= 0 || width <= 0) {
        return;
    }
    P4_BY_ACT(device, false, (void)W; multiply_rows<<<blocks, THREADS, 0, device->stream>>>(
                  (elem *)(backward ? a->dx : a->y), (const elem *)(backward ? a->dy : a->x),
                  (const elem *)a->w, *a, backward));
    p4_cuda_launched(device, backward ? "experts_backward_input" : "experts_forward");
}

void p4_cuda_experts_forward(p4_device *device, const p4_experts_args *a)
{
    if (!p4_cuda_experts_own_forward(device, a)) {
        rows_product(device, a, false);
    }
}

void p4_cuda_experts_backward_input(p4_device *device, const p4_experts_args *a)
{
    if (!p4_cuda_experts_own_backward_input(device, a)) {
        rows_product(device, a, true);
    }
}

/* dw = dy^T x; a block along z for each expert. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    multiply_weights(float *dw, const T *dy, const T *x, p4_experts_args args)
{
    const int64_t e = blockIdx.z, row = args.first[e];
    const product<T> p = {.a = dy + row * args.out,
                          .b = x + row * args.in,
                          .a_m = 1,
                          .a_k = args.out,
                          .b_k = args.in,
                          .b_n = 1,
                          .m_count = args.out,
                          .n_count = args.in,
                          .k_count = args.first[e + 1] - row};
    const int64_t m0 = (int64_t)blockIdx.y * TILE, n0 = (int64_t)blockIdx.x * TILE;
    float sum[EACH][EACH] = {};
    multiply(sum, p, m0, n0);
    put(dw + e * args.out * args.in, sum, p, m0, n0, args.accumulate);
}

void p4_cuda_experts_backward_weight(p4_device *device, const p4_experts_args *a)
{
    const dim3 blocks((unsigned)p4_ceil_div(a->in, TILE), (unsigned)p4_ceil_div(a->out, TILE),
                      (unsigned)a->experts);
    if (p4_cuda_experts_own_backward_weight(device, a)) {
        return;
    }
    P4_BY_ACT(device, false, (void)W; multiply_weights<<<blocks, THREADS, 0, device->stream>>>(
                  a->dw, (const elem *)a->dy, (const elem *)a->x, *a));
    p4_cuda_launched(device, "experts_backward_weight");
}
