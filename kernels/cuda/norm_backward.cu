/* norm_backward.cu - gradients of RMSNorm and LayerNorm.
 *
 * A thread owns columns. Where a row fits the registers of a block, dy, x and dx are read once, the next
 * row is fetched while this one is summed, and the sums for gain, bias and dx stay in registers until the
 * block ends. Where several rows fit, a block takes them side by side and adds up their sums at its end: it
 * has the same work in flight as several blocks and writes one partial sum. Other rows are read twice, and
 * their sums are kept in shared memory. In all cases each block writes partial sums, which are added in
 * order. The sums of dx's columns are the gradient of the bias of the linear layer below; they cost no
 * further pass over dx. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/mma.cuh"

enum {
    NORM_THREADS = 256,
    NORM_BLOCKS = 528,
    NORM_HELD_PIECES = 2, /* 16-byte pieces of a row that a thread holds at most */
    SHARED_BYTES = 48 << 10
};

/* The arguments of both kernels. */
typedef struct norm_task {
    void *dx;
    const void *dy, *x;
    float *partial; /* [blocks, kinds, C]: kinds are the sums for gain, bias and dx that are wanted */
    const float *mean, *rstd, *gain;
    float gain_offset;
    int64_t N, C;
    bool accumulate, with_gain, with_bias, with_dx;
} norm_task;

static __host__ __device__ __forceinline__ int64_t kinds_of(const norm_task &k)
{
    return k.with_gain + k.with_bias + k.with_dx;
}

/* The sums of a block over its rows, [C] each. A thread owns the columns it adds to. */
typedef struct column_sums {
    float *gain, *bias, *dx; /* NULL: not wanted */
} column_sums;

static __device__ __forceinline__ column_sums sums_in(float *memory, const norm_task &k)
{
    const column_sums sums = {k.with_gain ? memory : NULL, k.with_bias ? memory + k.with_gain * k.C : NULL,
                              k.with_dx ? memory + (k.with_gain + k.with_bias) * k.C : NULL};
    return sums;
}

/* sums[0 .. W) += v, or nothing where there are none. */
template <int W> static __device__ __forceinline__ void add_to(float *sums, const float (&v)[W])
{
    float total[W];
    if (sums) {
        p4_load(total, sums);
#pragma unroll
        for (int i = 0; i < W; i++) {
            total[i] += v[i];
        }
        p4_store(sums, total);
    }
}

/* What the norm multiplies columns from c by. */
template <int W>
static __device__ __forceinline__ void load_gain(float (&g)[W], const norm_task &k, int64_t c)
{
    p4_load(g, k.gain + c);
#pragma unroll
    for (int i = 0; i < W; i++) {
        g[i] += k.gain_offset;
    }
}

/* Row n. With xhat = (x - center) rstd and g = dy (gain + offset): dx += rstd (g - xhat mean(g xhat) -
 * mean(g)), the last for LayerNorm. */
template <typename T, int W, bool CENTERED>
static __device__ __forceinline__ void row_backward(const norm_task &k, int64_t n, column_sums sums)
{
    T *dx = (T *)k.dx + n * k.C;
    const T *dy = (const T *)k.dy + n * k.C, *x = (const T *)k.x + n * k.C;
    const float center = CENTERED ? k.mean[n] : 0.0f, rstd = k.rstd[n];
    const int64_t first = (int64_t)threadIdx.x * W, step = (int64_t)blockDim.x * W;
    float a[W], b[W], g[W], dot = 0.0f, sum = 0.0f;
    for (int64_t c = first; c < k.C; c += step) {
        p4_load(a, dy + c);
        p4_load(b, x + c);
        load_gain(g, k, c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            dot += a[i] * g[i] * ((b[i] - center) * rstd);
            sum += a[i] * g[i];
        }
    }
    dot = p4_block_sum(dot) / (float)k.C;
    sum = CENTERED ? p4_block_sum(sum) / (float)k.C : 0.0f;
    for (int64_t c = first; c < k.C; c += step) {
        float d[W] = {};
        p4_load(a, dy + c);
        p4_load(b, x + c);
        load_gain(g, k, c);
        if (k.accumulate) {
            p4_load(d, dx + c);
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            b[i] = (b[i] - center) * rstd;
            d[i] += rstd * (a[i] * g[i] - b[i] * dot - sum);
            b[i] *= a[i];
        }
        p4_store(dx + c, d);
        add_to(sums.gain ? sums.gain + c : NULL, b);
        add_to(sums.bias ? sums.bias + c : NULL, a);
        add_to(sums.dx ? sums.dx + c : NULL, d);
    }
}

/* A block takes every gridDim.x-th row. It sums in shared memory (`keep`) or directly in its part of
 * k.partial, where the sums end in either case. */
template <typename T, int W, bool CENTERED> static __global__ void norm_backward_rows(norm_task k, bool keep)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const int64_t count = kinds_of(k) * k.C, first = (int64_t)threadIdx.x * W, step = (int64_t)blockDim.x * W;
    float *out = k.partial + blockIdx.x * count;
    float *gather = keep ? (float *)shared : out;
    const column_sums sums = sums_in(gather, k);
    for (int64_t kind = 0; kind < kinds_of(k); kind++) {
        const float zeros[W] = {};
        for (int64_t c = first; c < k.C; c += step) {
            p4_store(gather + kind * k.C + c, zeros);
        }
    }
    for (int64_t n = blockIdx.x; n < k.N; n += gridDim.x) {
        row_backward<T, W, CENTERED>(k, n, sums);
    }
    for (int64_t kind = 0; keep && kind < kinds_of(k); kind++) {
        float v[W];
        for (int64_t c = first; c < k.C; c += step) {
            p4_load(v, gather + kind * k.C + c);
            p4_store(out + kind * k.C + c, v);
        }
    }
}

/* A row's pieces of one thread, as they lie in memory. */
template <typename T, int W, int PIECES> struct norm_pieces {
    p4_pack<T, W> dy[PIECES], x[PIECES], dx[PIECES];
};

/* A row that does not exist is zeros, which add nothing. */
template <typename T, int W, int PIECES>
static __device__ __forceinline__ void fetch_row(norm_pieces<T, W, PIECES> *row, const norm_task &k,
                                                 int64_t n)
{
    const norm_pieces<T, W, PIECES> none = {};
    *row = none;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int64_t c = ((int64_t)p * blockDim.x + threadIdx.x) * W, at = n * k.C + c;
        if (c < k.C && n < k.N) {
            row->dy[p] = *(const p4_pack<T, W> *)((const T *)k.dy + at);
            row->x[p] = *(const p4_pack<T, W> *)((const T *)k.x + at);
            if (k.accumulate) {
                row->dx[p] = *(const p4_pack<T, W> *)((const T *)k.dx + at);
            }
        }
    }
}

/* Prefetches row n, which a later turn reads, into the second-level cache: registers have room for only one
 * row ahead. */
template <typename T, int W, int PIECES>
static __device__ __forceinline__ void expect_row(const norm_task &k, int64_t n)
{
    const int line = 128 / P4_VECTOR_BYTES; /* threads that share a cache line */
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int64_t c = ((int64_t)p * blockDim.x + threadIdx.x) * W, at = n * k.C + c;
        if (threadIdx.x % line == 0 && c < k.C && n < k.N) {
            p4_prefetch((const T *)k.dy + at);
            p4_prefetch((const T *)k.x + at);
            if (k.accumulate) {
                p4_prefetch((const T *)k.dx + at);
            }
        }
    }
}

/* The sums of two numbers over the threads of a row, in each of them. `turn` alternates from call to call
 * between two places, so that one barrier a call is enough; a row of one warp takes none. */
static __device__ __forceinline__ float2 row_sum2(float2 v, int turn)
{
    __shared__ float2 parts[2][NORM_THREADS / P4_WARP];
    const int lane = threadIdx.x % P4_WARP, warps = blockDim.x / P4_WARP, first = threadIdx.y * warps;
    v.x = p4_warp_sum(v.x);
    v.y = p4_warp_sum(v.y);
    if (warps == 1) {
        return v;
    }
    if (lane == 0) {
        parts[turn][first + threadIdx.x / P4_WARP] = v;
    }
    __syncthreads();
    v = lane < warps ? parts[turn][first + lane] : make_float2(0.0f, 0.0f);
    return make_float2(p4_warp_sum(v.x), p4_warp_sum(v.y));
}

/* In the threads of the block's first row, the sums over its rows. */
template <int W, int PIECES> static __device__ __forceinline__ void add_rows(float (&sums)[PIECES][W])
{
    __shared__ __align__(16) float rows[NORM_THREADS][W];
    if (PIECES > 1 || blockDim.y == 1) {
        return;
    }
    p4_store(rows[threadIdx.y * blockDim.x + threadIdx.x], sums[0]);
    __syncthreads();
    for (unsigned row = 1; threadIdx.y == 0 && row < blockDim.y; row++) {
        float v[W];
        p4_load(v, rows[row * blockDim.x + threadIdx.x]);
#pragma unroll
        for (int i = 0; i < W; i++) {
            sums[0][i] += v[i];
        }
    }
    __syncthreads(); /* before the next sums */
}

/* The sums of a block over its rows: of dy xhat, of dy, and of dx. */
template <int W, int PIECES> struct held_sums {
    float gain[PIECES][W], bias[PIECES][W], dx[PIECES][W];
};

/* One row: dx is written, the sums grow. The formula is row_backward's. */
template <typename T, int W, int PIECES, bool CENTERED>
static __device__ __forceinline__ void
held_row(const norm_task &k, int64_t n, const norm_pieces<T, W, PIECES> &row, const float (&gain)[PIECES][W],
         held_sums<W, PIECES> *sums, int turn)
{
    const bool exists = n < k.N;
    const float center = CENTERED && exists ? k.mean[n] : 0.0f, rstd = exists ? k.rstd[n] : 0.0f;
    float2 both = make_float2(0.0f, 0.0f); /* of dy gain xhat, of dy gain */
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
#pragma unroll
        for (int i = 0; i < W; i++) {
            const float dy = p4_value(row.dy[p].element[i]),
                        xhat = (p4_value(row.x[p].element[i]) - center) * rstd;
            const bool here = ((int64_t)p * blockDim.x + threadIdx.x) * W < k.C;
            both.x += here ? dy * gain[p][i] * xhat : 0.0f;
            both.y += CENTERED && here ? dy * gain[p][i] : 0.0f;
            sums->gain[p][i] += dy * xhat;
            sums->bias[p][i] += CENTERED ? dy : 0.0f;
        }
    }
    both = row_sum2(both, turn);
    const float dot = both.x / (float)k.C, sum = CENTERED ? both.y / (float)k.C : 0.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int64_t c = ((int64_t)p * blockDim.x + threadIdx.x) * W;
        float out[W];
#pragma unroll
        for (int i = 0; i < W; i++) {
            const float dy = p4_value(row.dy[p].element[i]),
                        xhat = (p4_value(row.x[p].element[i]) - center) * rstd;
            out[i] = p4_value(row.dx[p].element[i]) + rstd * (dy * gain[p][i] - xhat * dot - sum);
            sums->dx[p][i] += CENTERED ? out[i] : 0.0f;
        }
        if (exists && c < k.C) {
            p4_store((T *)k.dx + n * k.C + c, out);
        }
    }
}

/* A block's sums of one kind to its part of k.partial; to: NULL, they are not wanted. */
template <int W, int PIECES>
static __device__ __forceinline__ void put_sums(float *to, float (&sums)[PIECES][W], int64_t C)
{
    if (!to) {
        return;
    }
    add_rows(sums);
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int64_t c = ((int64_t)p * blockDim.x + threadIdx.x) * W;
        if (threadIdx.y == 0 && c < C) {
            p4_store(to + c, sums[p]);
        }
    }
}

/* A block takes blockDim.y rows at a time, of every gridDim.x-th turn, and holds them in registers. */
template <typename T, int W, int PIECES, bool CENTERED>
static __global__ void __launch_bounds__(NORM_THREADS) norm_backward_held(norm_task k)
{
    norm_pieces<T, W, PIECES> row, next;
    held_sums<W, PIECES> sums = {};
    float gain[PIECES][W] = {};
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int64_t c = ((int64_t)p * blockDim.x + threadIdx.x) * W;
        if (c < k.C) {
            load_gain(gain[p], k, c);
        }
    }
    const int64_t step = (int64_t)gridDim.x * blockDim.y;
    int64_t first =
        (int64_t)blockIdx.x * blockDim.y; /* row of the block; all its threads take the same turns */
    int turn = 0;
    fetch_row(&row, k, first + threadIdx.y);
    for (; first < k.N; first += step, turn ^= 1) {
        const int64_t n = first + threadIdx.y;
        fetch_row(&next, k, n + step);
        expect_row<T, W, PIECES>(k, n + 2 * step);
        held_row<T, W, PIECES, CENTERED>(k, n, row, gain, &sums, turn);
        row = next;
    }
    const column_sums out = sums_in(k.partial + (int64_t)blockIdx.x * kinds_of(k) * k.C, k);
    put_sums(out.gain, sums.gain, k.C);
    put_sums(out.bias, sums.bias, k.C);
    put_sums(out.dx, sums.dx, k.C);
}

/* --- host side -------------------------------------------------------------------------------- */

typedef void norm_kernel(norm_task);

/* The kernel that holds a row of `pieces` pieces a thread. */
template <typename T> static norm_kernel *held_kernel(bool centered, int64_t pieces)
{
    const int W = P4_VECTOR_BYTES / sizeof(T);
    if (pieces == 1) {
        return centered ? norm_backward_held<T, W, 1, true> : norm_backward_held<T, W, 1, false>;
    }
    return centered ? norm_backward_held<T, W, NORM_HELD_PIECES, true>
                    : norm_backward_held<T, W, NORM_HELD_PIECES, false>;
}

/* As many blocks as run at the same time: each takes the same number of turns, or one less. */
static int64_t held_blocks(p4_device *device, norm_kernel *kernel, dim3 block, int64_t N)
{
    int each = 1;
    p4_cuda_ok(device,
               cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, (int)(block.x * block.y), 0),
               "norm_backward");
    return p4_min_i64(p4_ceil_div(N, block.y), (int64_t)device->processors * p4_max_i64(1, each));
}

static void launch_any(p4_device *device, const norm_task *k, bool centered, bool wide, unsigned blocks)
{
    const int64_t sum_bytes = kinds_of(*k) * k->C * (int64_t)sizeof(float);
    const bool keep = sum_bytes <= SHARED_BYTES;
    const size_t shared = keep ? (size_t)sum_bytes : 0;
    const unsigned threads = p4_cuda_threads(p4_ceil_div(k->C, p4_cuda_width(device, wide)), NORM_THREADS);
    if (centered) {
        P4_BY_ACT(device, wide,
                  norm_backward_rows<elem, W, true><<<blocks, threads, shared, device->stream>>>(*k, keep));
    } else {
        P4_BY_ACT(device, wide,
                  norm_backward_rows<elem, W, false><<<blocks, threads, shared, device->stream>>>(*k, keep));
    }
}

/* The second stage: all kinds in one launch. */
static void add_sums(p4_device *device, const norm_task *k, const p4_norm_backward_args *a, int64_t blocks)
{
    float *const targets[P4_SUM_KINDS] = {a->opt_dgain, a->opt_dbias, a->opt_dx_sums};
    p4_cuda_sums sums = {};
    int kinds = 0;
    for (int i = 0; i < P4_SUM_KINDS; i++) {
        if (targets[i]) {
            sums.to[kinds++] = targets[i];
        }
    }
    p4_cuda_add_partials(device, sums, kinds, k->partial, blocks, k->C);
}

static norm_task task_of(const p4_norm_backward_args *a)
{
    norm_task k = {};
    k.dx = a->dx;
    k.dy = a->dy;
    k.x = a->x;
    k.mean = a->opt_mean;
    k.rstd = a->rstd;
    k.gain = a->gain;
    k.gain_offset = a->gain_offset;
    k.N = a->N;
    k.C = a->C;
    k.accumulate = a->accumulate;
    k.with_gain = a->opt_dgain != NULL;
    k.with_bias = a->opt_dbias != NULL;
    k.with_dx = a->opt_dx_sums != NULL;
    return k;
}

void p4_cuda_norm_backward(p4_device *device, const p4_norm_backward_args *a)
{
    norm_task k = task_of(a);
    const int64_t N = k.N, C = k.C;
    const bool centered = a->kind == P4_LAYERNORM;
    const int64_t sum_bytes = kinds_of(k) * C * (int64_t)sizeof(float);
    const bool wide = p4_cuda_wide(P4_ADDRESS(k.dx) | P4_ADDRESS(k.dy) | P4_ADDRESS(k.x) | P4_ADDRESS(k.gain),
                                   C * p4_act_bytes(device));
    const int64_t packs = p4_ceil_div(C, p4_cuda_width(device, wide)),
                  pieces = p4_ceil_div(packs, NORM_THREADS);
    const bool held = wide && pieces <= NORM_HELD_PIECES && (centered || (!k.with_bias && !k.with_dx));
    const unsigned threads = p4_cuda_threads(p4_ceil_div(packs, p4_max_i64(1, pieces)), NORM_THREADS);
    const dim3 block(threads, NORM_THREADS / threads); /* of held rows */
    if (N <= 0 || C <= 0) {
        return;
    }
    norm_kernel *kernel =
        device->half ? held_kernel<__nv_bfloat16>(centered, pieces) : held_kernel<float>(centered, pieces);
    int64_t blocks = held ? held_blocks(device, kernel, block, N) : p4_min_i64(N, NORM_BLOCKS);
    if (sum_bytes > 0) {
        blocks = p4_max_i64(1, p4_min_i64(blocks, P4_SCRATCH_BYTES / sum_bytes));
    }
    k.partial = (float *)p4_cuda_scratch(device, blocks * sum_bytes);
    if (!k.partial) {
        return;
    }
    if (held) {
        kernel<<<(unsigned)blocks, block, 0, device->stream>>>(k);
    } else {
        launch_any(device, &k, centered, wide, (unsigned)blocks);
    }
    p4_cuda_launched(device, "norm_backward");
    add_sums(device, &k, a, blocks);
}
