/* int8_rows.cu - activations to int8 per token, of an array or of the MLP's activation function while it is
 * computed, and back. The norms round theirs in kernels/cuda/norm.cu. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/int8_rows.cuh"
#include "kernels/cuda/mlp.cuh"

enum {
    ROW_THREADS = 512, /* at most, of a block that rounds a token */
    MOST_HELD = 4      /* vectors of a token that a thread keeps between its two passes: 16384 bf16 a token */
};

/* What is rounded: an array, or a function of it. */
enum rows_of { PLAIN, ACTIVATED, GATED };

/* W elements from column c of the values that are rounded, in activation type. x: the token's row; GATED:
 * gate | up. */
template <typename T, int W, rows_of OP, p4_activation F>
static __device__ __forceinline__ p4_pack<T, W> value_at(const T *x, int C, int c)
{
    p4_pack<T, W> pack = *(const p4_pack<T, W> *)(x + c);
    if (OP == GATED) {
        const p4_pack<T, W> up = *(const p4_pack<T, W> *)(x + C + c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            p4_set(&pack.element[i], p4_gated<T, F>(p4_value(pack.element[i]), p4_value(up.element[i])));
        }
    }
    if (OP == ACTIVATED) {
#pragma unroll
        for (int i = 0; i < W; i++) {
            p4_set(&pack.element[i], p4_activated<T, F>(p4_value(pack.element[i])));
        }
    }
    return pack;
}

/* One block a token. The row is read only once if HELD vectors of each thread hold it. */
template <typename T, int W, int HELD, rows_of OP, p4_activation F>
static __global__ void round_rows(const p4_int8_out<T> out, const T *x)
{
    const int C = out.C, step = (int)blockDim.x * W, first = (int)threadIdx.x * W;
    const p4_int8_out<T> row = p4_int8_row(out, blockIdx.x);
    p4_pack<T, W> held[HELD];
    float largest = 0.0f;
    x += (int64_t)blockIdx.x * C * (OP == GATED ? 2 : 1);
#pragma unroll
    for (int k = 0; k < HELD; k++) {
        if (first + k * step < C) {
            held[k] = value_at<T, W, OP, F>(x, C, first + k * step);
            largest = p4_int8_larger(largest, held[k]);
        }
    }
    for (int c = first + HELD * step; c < C; c += step) {
        largest = p4_int8_larger(largest, value_at<T, W, OP, F>(x, C, c));
    }
    const float s = p4_int8_scale(p4_block_max(largest)), inverse = 1.0f / s;
#pragma unroll
    for (int k = 0; k < HELD; k++) {
        if (first + k * step < C) {
            p4_int8_put(row, first + k * step, held[k], s, inverse);
        }
    }
    for (int c = first + HELD * step; c < C; c += step) {
        p4_int8_put(row, c, value_at<T, W, OP, F>(x, C, c), s, inverse);
    }
    p4_int8_end(row, s);
}

/* Threads of a block for a row of this many vectors, which are distributed evenly. */
static unsigned row_threads(int64_t vectors)
{
    const int64_t turns = p4_ceil_div(vectors, ROW_THREADS);
    return p4_cuda_threads(p4_ceil_div(vectors, p4_max_i64(turns, 1)), ROW_THREADS);
}

template <typename T, int W, int HELD, rows_of OP, p4_activation F>
static void launch_held(p4_device *device, const p4_int8_out<T> &out, const T *x, int64_t N)
{
    const unsigned threads = row_threads(p4_ceil_div(out.C, W)), blocks = (unsigned)N;
    round_rows<T, W, HELD, OP, F><<<blocks, threads, 0, device->stream>>>(out, x);
    p4_cuda_launched(device, "rounding to int8");
}

/* Short rows use few registers, so that more rows are in flight. */
template <typename T, int W, rows_of OP, p4_activation F>
static void launch_round(p4_device *device, const p4_int8_out<T> &out, const T *x, int64_t N)
{
    const int64_t turns = p4_ceil_div(p4_ceil_div(out.C, W), ROW_THREADS);
    if (W > 1 && turns <= 1) {
        launch_held<T, W, W == 1 ? MOST_HELD : 1, OP, F>(device, out, x, N);
    } else if (W > 1 && turns <= 2) {
        launch_held<T, W, W == 1 ? MOST_HELD : 2, OP, F>(device, out, x, N);
    } else {
        launch_held<T, W, MOST_HELD, OP, F>(device, out, x, N);
    }
}

static bool is_wide(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t C)
{
    return p4_cuda_wide(P4_ADDRESS(y) | P4_ADDRESS(rounded->codes) | P4_ADDRESS(x), C * p4_act_bytes(device));
}

void p4_cuda_round_activated(p4_device *device, p4_activation function, bool gated, void *y,
                             const p4_int8_rows *rounded, const void *x, int64_t N, int64_t C)
{
    const bool wide = is_wide(device, y, rounded, x, C);
    if (gated) {
        P4_BY_FUNCTION(function,
                       P4_BY_ACT(device, wide,
                                 launch_round<elem, W, GATED, F>(device, p4_int8_out_of<elem>(y, rounded, C),
                                                                 (const elem *)x, N)));
    } else {
        P4_BY_FUNCTION(function,
                       P4_BY_ACT(device, wide,
                                 launch_round<elem, W, ACTIVATED, F>(
                                     device, p4_int8_out_of<elem>(y, rounded, C), (const elem *)x, N)));
    }
}

void p4_cuda_quantize_int8(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x, int64_t N,
                           int64_t C)
{
    const bool wide = is_wide(device, y, rounded, x, C);
    if (N <= 0 || C <= 0) {
        return;
    }
    P4_BY_ACT(device, wide,
              launch_round<elem, W, PLAIN, P4_RELU>(device, p4_int8_out_of<elem>(y, rounded, C),
                                                    (const elem *)x, N)); /* PLAIN reads no function */
}

/* One block a token. */
template <typename T, int W>
static __global__ void expand_rows(T *y, const int8_t *codes, const float *s, int64_t C, int64_t width)
{
    struct alignas(W) pack {
        int8_t element[W];
    };
    const float scale = s[blockIdx.x], inverse = 1.0f / scale;
    y += blockIdx.x * C;
    codes += blockIdx.x * width;
    for (int64_t c = threadIdx.x * W; c < C; c += (int64_t)blockDim.x * W) {
        const pack q = *(const pack *)(codes + c);
        float v[W];
#pragma unroll
        for (int i = 0; i < W; i++) {
            v[i] = p4_int8_quotient((float)q.element[i], scale, inverse);
        }
        p4_store(y + c, v);
    }
}

void p4_cuda_dequantize_int8(p4_device *device, void *y, const p4_int8_rows *x, int64_t N, int64_t C)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(y) | P4_ADDRESS(x->codes), C * p4_act_bytes(device));
    const unsigned threads = row_threads(p4_ceil_div(C, p4_cuda_width(device, wide)));
    if (N <= 0 || C <= 0) {
        return;
    }
    P4_BY_ACT(device, wide,
              expand_rows<elem, W>
              <<<(unsigned)N, threads, 0, device->stream>>>((elem *)y, x->codes, x->s, C, p4_int8_width(C)));
    p4_cuda_launched(device, "dequantize_int8");
}
