/* hessian.cu - H = X'X of the inputs of a matrix, and its Cholesky factor in double.
 *
 * The factor is computed by block columns, from the last to the first: the block on the diagonal by one
 * thread block, the panel above it by tiles of rows, then the update of what is left of it. H is small beside
 * the products that use it, so plain kernels suffice, and no solver library is needed. */
#include "kernels/cuda/cuda.cuh"

enum {
    BLOCK = 64,      /* columns that are factored together */
    PANEL_ROWS = 16, /* of a thread block, PANEL_LANES threads a row */
    PANEL_LANES = 16,
    TILE = 64, /* of the update, a thread block */
    DEPTH = 16,
    SIDE = 16, /* threads a side of the tile */
    EACH = TILE / SIDE,
    MEAN_THREADS = 256
};

/* --- H ---------------------------------------------------------------------------------------- */

/* Adding and subtracting 1.5 * 2^52 quanta rounds to a multiple of one quantum. */
static __global__ void add_rounded(double *sum, const float *addend, double shift, int64_t count)
{
    const int64_t i = p4_flat_index<1>();
    if (i < count) {
        sum[i] += __dadd_rn(__dadd_rn((double)addend[i], shift), -shift);
    }
}

void p4_cuda_hessian_add(p4_device *device, const p4_hessian_add_args *a)
{
    const int64_t C = a->C, count = C * C;
    p4_linear_backward_weight_args product = {};
    product.N = a->N;
    product.in = product.out = product.ld_dy = C;
    product.dy = product.x = a->x;
    product.dw = a->work;
    if (count > 0 && a->N > 0) {
        p4_cuda_linear_backward_weight(device, &product);
        add_rounded<<<p4_cuda_flat(count, 1), P4_FLAT_THREADS, 0, device->stream>>>(
            a->h, a->work, 0x1.8p52 * a->quantum, count);
        p4_cuda_launched(device, "hessian_add");
    }
}

static __global__ void store_diagonal(float *to, const double *sums, int64_t C, double scale)
{
    const int64_t i = p4_flat_index<1>();
    if (i < C) {
        to[i] = (float)(sums[i * (C + 1)] * scale);
    }
}

/* One block: *to = factor * the mean of the elements that are not 0, `stride` elements apart; 0 if all are.
 */
static __global__ void mean_of_live(double *to, const float *diagonal, int64_t count, int64_t stride,
                                    double factor)
{
    double sum = 0.0, live = 0.0;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
        const float value = diagonal[i * stride];
        sum += (double)value;
        live += value != 0.0f ? 1.0 : 0.0;
    }
    sum = p4_block_sum(sum);
    live = p4_block_sum(live);
    if (threadIdx.x == 0) {
        *to = live > 0.0 ? factor * sum / live : 0.0;
    }
}

static __global__ void store_damped(float *h, const double *sums, const double *damping, int64_t C,
                                    double scale)
{
    const int64_t i = p4_flat_index<1>();
    if (i < C * C) {
        const float value = (float)(sums[i] * scale);
        h[i] = i / C == i % C && value != 0.0f ? (float)((double)value + *damping) : value;
    }
}

void p4_cuda_hessian_finish(p4_device *device, const p4_hessian_finish_args *a)
{
    const int64_t C = a->C;
    double *damping = (double *)p4_cuda_scratch(device, (int64_t)sizeof *damping);
    if (damping && C > 0) {
        store_diagonal<<<p4_cuda_flat(C, 1), P4_FLAT_THREADS, 0, device->stream>>>(a->importance, a->sums, C,
                                                                                   a->scale);
        mean_of_live<<<1, MEAN_THREADS, 0, device->stream>>>(damping, a->importance, C, 1, a->damping);
        store_damped<<<p4_cuda_flat(C * C, 1), P4_FLAT_THREADS, 0, device->stream>>>(a->h, a->sums, damping,
                                                                                     C, a->scale);
        p4_cuda_launched(device, "hessian_finish");
    }
}

/* --- the factor ------------------------------------------------------------------------------- */

/* What the kernels of a factorization share, in scratch memory. */
typedef struct factor_state {
    double damping; /* that is added to the diagonal */
    int definite;
} factor_state;

static __global__ void load_damped(double *A, const float *h, factor_state *state, int64_t C)
{
    const int64_t i = p4_flat_index<1>();
    if (i == 0) {
        state->definite = 1;
    }
    if (i < C * C) {
        const double value = (double)h[i];
        A[i] = i / C != i % C ? value : value != 0.0 ? value + state->damping : 1.0;
    }
}

/* One block: the part [first, first + width) of the diagonal becomes R, upper triangular, with R R' = that
 * part. A pivot that is not positive is recorded; what follows then has no meaning. */
static __global__ void factor_block(factor_state *state, double *A, int64_t ld, int64_t first, int width)
{
    __shared__ double R[BLOCK][BLOCK];
    double *at = A + first * ld + first;
    for (int i = (int)threadIdx.x; i < width * width; i += (int)blockDim.x) {
        R[i / width][i % width] = at[i / width * ld + i % width];
    }
    __syncthreads();
    for (int j = width - 1; j >= 0; j--) {
        const double pivot = R[j][j];
        const bool positive = pivot > 0.0 && isfinite(pivot);
        const double root = positive ? sqrt(pivot) : 1.0;
        __syncthreads(); /* the pivot has been read */
        for (int i = (int)threadIdx.x; i <= j; i += (int)blockDim.x) {
            R[i][j] = i == j ? root : R[i][j] / root;
        }
        if (threadIdx.x == 0 && !positive) {
            state->definite = 0;
        }
        __syncthreads();
        for (int n = (int)threadIdx.x; n < j * j; n += (int)blockDim.x) {
            const int i = n / j, k = n % j;
            if (i <= k) {
                R[i][k] -= R[i][j] * R[k][j];
            }
        }
        __syncthreads();
    }
    for (int i = (int)threadIdx.x; i < width * width; i += (int)blockDim.x) {
        if (i / width <= i % width) {
            at[i / width * ld + i % width] = R[i / width][i % width];
        }
    }
}

/* Rows [0, first) of the block's columns become X with X R' = what they are. PANEL_LANES threads a row. */
static __global__ void solve_panel(double *A, int64_t ld, int64_t first, int width)
{
    __shared__ double turned[BLOCK][BLOCK + 1]; /* R' */
    __shared__ double X[PANEL_ROWS][BLOCK];
    const int lane = (int)threadIdx.x % PANEL_LANES, row = (int)threadIdx.x / PANEL_LANES;
    const int64_t i = (int64_t)blockIdx.x * PANEL_ROWS + row;
    for (int n = (int)threadIdx.x; n < width * width; n += (int)blockDim.x) {
        turned[n % width][n / width] = A[(first + n / width) * ld + first + n % width];
    }
    for (int k = lane; k < width; k += PANEL_LANES) {
        X[row][k] = i < first ? A[i * ld + first + k] : 0.0;
    }
    __syncthreads();
    for (int j = width - 1; j >= 0; j--) {
        const double x = X[row][j] / turned[j][j];
        __syncwarp();
        for (int k = lane; k <= j; k += PANEL_LANES) {
            X[row][k] = k == j ? x : X[row][k] - x * turned[j][k];
        }
        __syncwarp();
    }
    for (int k = lane; k < width && i < first; k += PANEL_LANES) {
        A[i * ld + first + k] = X[row][k];
    }
}

/* A tile of the rows and columns before `first`, on or above the diagonal: minus X X'. */
static __global__ void update_tile(double *A, int64_t ld, int64_t first, int width)
{
    __shared__ double left[DEPTH][TILE + 1], right[DEPTH][TILE + 1];
    const int64_t row = (int64_t)blockIdx.y * TILE, col = (int64_t)blockIdx.x * TILE;
    const int tx = (int)threadIdx.x, ty = (int)threadIdx.y, thread = ty * SIDE + tx;
    double sum[EACH][EACH] = {};
    if (row > col) {
        return;
    }
    for (int depth = 0; depth < width; depth += DEPTH) {
        for (int n = thread; n < TILE * DEPTH; n += SIDE * SIDE) {
            const int r = n / DEPTH, k = n % DEPTH;
            const bool inside = depth + k < width;
            left[k][r] = inside && row + r < first ? A[(row + r) * ld + first + depth + k] : 0.0;
            right[k][r] = inside && col + r < first ? A[(col + r) * ld + first + depth + k] : 0.0;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
#pragma unroll
            for (int i = 0; i < EACH; i++) {
#pragma unroll
                for (int j = 0; j < EACH; j++) {
                    sum[i][j] += left[k][ty + i * SIDE] * right[k][tx + j * SIDE];
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const int64_t r = row + ty + i * SIDE, c = col + tx + j * SIDE;
            if (r < first && c < first) {
                A[r * ld + c] -= sum[i][j];
            }
        }
    }
}

/* The last row of R has only its diagonal entry: the others are put before it. */
static __global__ void collect_diagonal(double *R, int64_t C)
{
    const int64_t i = p4_flat_index<1>();
    if (i < C - 1) {
        R[(C - 1) * C + i] = R[i * C + i];
    }
}

static __global__ void store_feedback(float *feedback, const double *R, int64_t C)
{
    const int64_t i = p4_flat_index<1>(), col = i % C;
    if (i < C * C && i / C < col) {
        feedback[i] = (float)(R[i] / R[(C - 1) * C + col]);
    }
}

static void factor(p4_device *device, factor_state *state, double *A, int64_t C)
{
    for (int64_t end = C, first; end > 0; end = first) {
        first = (end - 1) / BLOCK * BLOCK;
        const int width = (int)(end - first);
        factor_block<<<1, 256, 0, device->stream>>>(state, A, C, first, width);
        if (first > 0) {
            const unsigned tiles = (unsigned)p4_ceil_div(first, TILE);
            solve_panel<<<(unsigned)p4_ceil_div(first, PANEL_ROWS), PANEL_ROWS * PANEL_LANES, 0,
                          device->stream>>>(A, C, first, width);
            update_tile<<<dim3(tiles, tiles), dim3(SIDE, SIDE), 0, device->stream>>>(A, C, first, width);
        }
    }
    p4_cuda_launched(device, "hessian_factor");
}

void p4_cuda_hessian_factor(p4_device *device, const p4_hessian_factor_args *a)
{
    const int64_t C = a->C;
    const unsigned all = p4_cuda_flat(C * C, 1);
    int definite = 0;
    factor_state *state = (factor_state *)p4_cuda_scratch(device, (int64_t)sizeof *state);
    *a->h_definite = false;
    if (!state) {
        return;
    }
    mean_of_live<<<1, MEAN_THREADS, 0, device->stream>>>(&state->damping, a->h, C, C + 1, a->damping);
    load_damped<<<all, P4_FLAT_THREADS, 0, device->stream>>>(a->work, a->h, state, C);
    factor(device, state, a->work, C);
    collect_diagonal<<<p4_cuda_flat(C, 1), P4_FLAT_THREADS, 0, device->stream>>>(a->work, C);
    store_feedback<<<all, P4_FLAT_THREADS, 0, device->stream>>>(a->feedback, a->work, C);
    p4_cuda_launched(device, "hessian_factor");
    p4_cuda_ok(
        device,
        cudaMemcpyAsync(&definite, &state->definite, sizeof definite, cudaMemcpyDeviceToHost, device->stream),
        "hessian_factor");
    *a->h_definite = p4_cuda_ok(device, cudaStreamSynchronize(device->stream), "hessian_factor") && definite;
}
