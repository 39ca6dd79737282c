/* norm.cu - RMSNorm and LayerNorm with the residual sum in front. Their gradients:
 * kernels/cuda/norm_backward.cu. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/int8_rows.cuh"

enum { NORM_THREADS = 256, SHARED_BYTES = 48 << 10 };

/* What a norm reads and writes; all outputs except y and `rounded` may be NULL. */
template <typename T> struct norm_rows {
    T *y, *sum;
    p4_int8_out<T> rounded;
    float *mean, *rstd;
    const T *x, *delta;
    const float *gain, *bias;
    int64_t N;
    int C;
    float eps, delta_scale, gain_offset;
    bool keep; /* the row in shared memory, else it is read again */
};

/* Columns from c of the normed row. Every step is rounded explicitly, here and in the sums, so that kernels
 * that round to int8 and those that do not give the same values, whatever a compiler would contract. */
template <typename T, int W>
static __device__ __forceinline__ void normed(float (&v)[W], const norm_rows<T> &p, const T *row, int c,
                                              float center, float scale)
{
    float other[W];
    p4_load(v, row + c);
    p4_load(other, p.gain + c);
#pragma unroll
    for (int i = 0; i < W; i++) {
        v[i] = __fmul_rn(__fmul_rn(__fsub_rn(v[i], center), scale), __fadd_rn(other[i], p.gain_offset));
    }
    if (p.bias) {
        p4_load(other, p.bias + c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            v[i] = __fadd_rn(v[i], other[i]);
        }
    }
}

/* Over the threads of a row: a block, or one warp of several that take a row each. */
static __device__ __forceinline__ float row_total(float x)
{
    return blockDim.x == P4_WARP ? p4_warp_sum(x) : p4_block_sum(x);
}
static __device__ __forceinline__ float row_largest(float x)
{
    return blockDim.x == P4_WARP ? p4_warp_max(x) : p4_block_max(x);
}

/* The sum of the elements of row n, which are stored and kept, or of their squares. */
template <typename T, int W, bool CENTERED>
static __device__ __forceinline__ float add_row(const norm_rows<T> &p, int64_t n, T *kept)
{
    const int64_t start = n * p.C;
    float v[W], other[W], total = 0.0f;
    for (int c = (int)threadIdx.x * W; c < p.C; c += (int)blockDim.x * W) {
        p4_load(v, p.x + start + c);
        if (p.delta) {
            p4_load(other, p.delta + start + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                v[i] += p.delta_scale * other[i];
            }
        }
        if (p.sum && (p.delta || p.sum != p.x)) {
            p4_store(p.sum + start + c, v);
        }
        if (p.keep) {
            p4_store(kept + c, v);
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            T stored; /* the norm is that of the stored sum */
            p4_set(&stored, v[i]);
            v[i] = p4_value(stored);
            total = CENTERED ? __fadd_rn(total, v[i]) : __fmaf_rn(v[i], v[i], total);
        }
    }
    return row_total(total);
}

/* The normed row n in activation type, rounded to int8. A row that is kept is overwritten by it. */
template <typename T, int W>
static __device__ __forceinline__ void put_rounded(const norm_rows<T> &p, int64_t n, const T *row, T *kept,
                                                   float center, float scale)
{
    const int first = (int)threadIdx.x * W, step = (int)blockDim.x * W;
    const p4_int8_out<T> to = p4_int8_row(p.rounded, n);
    p4_pack<T, W> pack;
    float v[W], largest = 0.0f;
    for (int c = first; c < p.C; c += step) {
        normed(v, p, row, c, center, scale);
        p4_store(pack.element, v);
        largest = p4_int8_larger(largest, pack);
        if (p.keep) {
            *(p4_pack<T, W> *)(kept + c) = pack;
        }
    }
    const float s = p4_int8_scale(row_largest(largest)), inverse = 1.0f / s;
    for (int c = first; c < p.C; c += step) {
        if (p.keep) {
            pack = *(const p4_pack<T, W> *)(kept + c);
        } else {
            normed(v, p, row, c, center, scale);
            p4_store(pack.element, v);
        }
        p4_int8_put(to, c, pack, s, inverse);
    }
    p4_int8_end(to, s);
}

/* One block a row, or one warp a row; every thread reads only what it wrote. */
template <typename T, int W, bool CENTERED, bool ROUNDED>
static __global__ void __launch_bounds__(NORM_THREADS, 8) add_norm_rows(const norm_rows<T> p)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const int C = p.C, first = (int)threadIdx.x * W, step = (int)blockDim.x * W;
    const int64_t n = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (n >= p.N) {
        return; /* a whole warp, and no warp waits for another where blocks have several rows */
    }
    T *kept = (T *)shared + threadIdx.y * C;
    const T *row = p.keep ? kept : (p.sum ? p.sum : p.x) + n * C;
    float v[W], total = add_row<T, W, CENTERED>(p, n, kept);
    const float center = CENTERED ? total / (float)C : 0.0f;
    if (CENTERED) {
        total = 0.0f;
        for (int c = first; c < C; c += step) {
            p4_load(v, row + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                const float far = __fsub_rn(v[i], center);
                total = __fmaf_rn(far, far, total);
            }
        }
        total = row_total(total);
    }
    const float scale = 1.0f / sqrtf(total / (float)C + p.eps);
    if (ROUNDED) {
        put_rounded<T, W>(p, n, row, kept, center, scale);
    } else {
        for (int c = first; c < C; c += step) {
            normed(v, p, row, c, center, scale);
            p4_store(p.y + n * C + c, v);
        }
    }
    if (threadIdx.x == 0 && p.mean) {
        p.mean[n] = center;
    }
    if (threadIdx.x == 0 && p.rstd) {
        p.rstd[n] = scale;
    }
}

/* A multiprocessor holds too few blocks of one warp to be full: a block has several of them. */
template <typename T, int W, bool CENTERED>
static void launch_norm(p4_device *device, const norm_rows<T> &rows, bool rounded)
{
    const unsigned threads = p4_cuda_threads(p4_ceil_div(rows.C, W), NORM_THREADS);
    const dim3 block(threads, threads == P4_WARP ? NORM_THREADS / P4_WARP : 1);
    const size_t shared = rows.keep ? (size_t)block.y * (size_t)rows.C * sizeof(T) : 0;
    const unsigned blocks = (unsigned)p4_ceil_div(rows.N, block.y);
    if (rounded) {
        add_norm_rows<T, W, CENTERED, true><<<blocks, block, shared, device->stream>>>(rows);
    } else {
        add_norm_rows<T, W, CENTERED, false><<<blocks, block, shared, device->stream>>>(rows);
    }
}

void p4_cuda_add_norm_forward(p4_device *device, const p4_add_norm_forward_args *a)
{
    const int64_t row_bytes = a->C * p4_act_bytes(device);
    const bool round = a->opt_rounded != NULL;
    const p4_int8_rows none = {}, *rounded = round ? a->opt_rounded : &none;
    const bool wide = p4_cuda_wide(P4_ADDRESS(a->opt_y) | P4_ADDRESS(a->opt_sum) | P4_ADDRESS(a->x) |
                                       P4_ADDRESS(a->opt_delta) | P4_ADDRESS(a->gain) |
                                       P4_ADDRESS(a->opt_bias) | P4_ADDRESS(rounded->codes),
                                   row_bytes);
    if (a->N <= 0 || a->C <= 0) {
        return;
    }
    P4_BY_ACT(device, wide, {
        const norm_rows<elem> rows = {(elem *)a->opt_y,
                                      (elem *)a->opt_sum,
                                      p4_int8_out_of<elem>(a->opt_y, rounded, a->C),
                                      a->opt_mean,
                                      a->opt_rstd,
                                      (const elem *)a->x,
                                      (const elem *)a->opt_delta,
                                      a->gain,
                                      a->opt_bias,
                                      a->N,
                                      (int)a->C,
                                      a->eps,
                                      a->delta_scale > 0.0f ? a->delta_scale : 1.0f,
                                      a->gain_offset,
                                      row_bytes <= SHARED_BYTES};
        if (a->kind == P4_LAYERNORM) {
            launch_norm<elem, W, true>(device, rows, round);
        } else {
            launch_norm<elem, W, false>(device, rows, round);
        }
    });
    p4_cuda_launched(device, "add_norm_forward");
}
