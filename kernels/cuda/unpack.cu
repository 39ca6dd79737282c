/* unpack.cu - converts weights of any form to activations, and to fp32. */
#include "kernels/cuda/cuda.cuh"

enum { TILE = 32, TILE_ROWS = 8, CODE_THREADS = 256 };

template <typename T, int W>
static __global__ void convert(T *dst, const void *data, p4_dtype dtype, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    float v[W];
    if (i >= count) {
        return;
    }
    if (dtype == P4_F32) {
        p4_load_part(v, (const float *)data + i, count - i);
    } else if (dtype == P4_F16) {
        p4_load_part(v, (const __half *)data + i, count - i);
    } else {
        p4_load_part(v, (const __nv_bfloat16 *)data + i, count - i);
    }
    p4_store_part(dst + i, v, count - i);
}

/* The codes of W weights, 4 a byte. */
template <int W> static __device__ __forceinline__ unsigned load_codes(const uint8_t *row, int64_t c)
{
    if (W == 8) {
        return *(const uint16_t *)(row + c / 4);
    }
    return row[c / 4] >> 2 * (c % 4); /* W is 4 and c a multiple of 4, or W is 1 */
}

/* One block a row. scale_step: 1, or 0 where all rows have the same scale. */
template <typename T, int W>
static __global__ void decode(T *dst, const uint8_t *codes, const uint16_t *scales, int64_t scale_step,
                              int64_t cols)
{
    const int64_t row = blockIdx.x;
    const uint8_t *from = codes + row * ((cols + 3) / 4);
    const float scale = __half2float(__ushort_as_half(scales[row * scale_step]));
    for (int64_t c = threadIdx.x * W; c < cols; c += blockDim.x * W) {
        const unsigned four = load_codes<W>(from, c);
        float v[W];
#pragma unroll
        for (int i = 0; i < W; i++) {
            v[i] = (float)((int)(four >> 2 * i & 3u) - 1) * scale;
        }
        p4_store(dst + row * cols + c, v);
    }
}

/* dst[rows, cols] = data[cols, rows]^T, a tile a block. */
template <typename T, typename S>
static __global__ void turn(T *dst, const S *data, int64_t rows, int64_t cols)
{
    __shared__ float tile[TILE][TILE + 1];
    const int64_t row = (int64_t)blockIdx.x * TILE, col = (int64_t)blockIdx.y * TILE;
    for (int i = threadIdx.y; i < TILE; i += TILE_ROWS) {
        if (col + i < cols && row + threadIdx.x < rows) {
            tile[i][threadIdx.x] = p4_value(data[(col + i) * rows + row + threadIdx.x]);
        }
    }
    __syncthreads();
    for (int i = threadIdx.y; i < TILE; i += TILE_ROWS) {
        if (row + i < rows && col + threadIdx.x < cols) {
            p4_set(dst + (row + i) * cols + col + threadIdx.x, tile[threadIdx.x][i]);
        }
    }
}

template <typename T> static void unpack_turned(p4_device *device, T *dst, const p4_weight *weight)
{
    const dim3 grid((unsigned)p4_ceil_div(weight->rows, TILE), (unsigned)p4_ceil_div(weight->cols, TILE));
    const dim3 block(TILE, TILE_ROWS);
    const int64_t rows = weight->rows, cols = weight->cols;
    if (weight->dtype == P4_F32) {
        turn<T, float><<<grid, block, 0, device->stream>>>(dst, (const float *)weight->data, rows, cols);
    } else if (weight->dtype == P4_F16) {
        turn<T, __half><<<grid, block, 0, device->stream>>>(dst, (const __half *)weight->data, rows, cols);
    } else {
        turn<T, __nv_bfloat16>
            <<<grid, block, 0, device->stream>>>(dst, (const __nv_bfloat16 *)weight->data, rows, cols);
    }
}

/* Where a row has several scales, each part with its own counts as a row. */
static void unpack_codes(p4_device *device, void *dst, const p4_weight *weight)
{
    const bool one_scale = p4_weight_scale_count(weight) == 1;
    const p4_weight view = one_scale ? *weight : p4_weight_by_scale(weight);
    const int64_t cols = view.cols;
    const bool wide = p4_cuda_wide(P4_ADDRESS(dst), cols * p4_act_bytes(device)) &&
                      P4_ADDRESS(weight->data) % sizeof(uint16_t) == 0;
    const unsigned threads = p4_cuda_threads(p4_ceil_div(cols, p4_cuda_width(device, wide)), CODE_THREADS);
    P4_BY_ACT(device, wide,
              decode<elem, W><<<(unsigned)view.rows, threads, 0, device->stream>>>(
                  (elem *)dst, (const uint8_t *)weight->data, weight->scale, one_scale ? 0 : 1, cols));
}

void p4_cuda_weight_unpack(p4_device *device, void *dst, const p4_weight *weight)
{
    const int64_t count = weight->rows * weight->cols;
    if (count <= 0 || !p4_cuda_weight_ok(device, weight, "weight_unpack")) {
        return;
    }
    if (weight->dtype == P4_TERNARY) {
        unpack_codes(device, dst, weight);
    } else if (weight->transposed) {
        if (device->half) {
            unpack_turned(device, (__nv_bfloat16 *)dst, weight);
        } else {
            unpack_turned(device, (float *)dst, weight);
        }
    } else {
        const bool wide = p4_cuda_wide(P4_ADDRESS(dst) | P4_ADDRESS(weight->data), 0);
        const unsigned blocks = p4_cuda_flat(count, p4_cuda_width(device, wide));
        P4_BY_ACT(device, wide,
                  convert<elem, W><<<blocks, P4_FLAT_THREADS, 0, device->stream>>>((elem *)dst, weight->data,
                                                                                   weight->dtype, count));
    }
    p4_cuda_launched(device, "weight_unpack");
}

void p4_cuda_weight_f32(p4_device *device, float *dst, const p4_weight *weight)
{
    enum { W = 4 };
    const int64_t count = weight->rows * weight->cols;
    if (count <= 0 || !p4_cuda_weight_ok(device, weight, "weight_f32")) {
        return;
    }
    if (weight->dtype == P4_TERNARY) {
        p4_cuda_fail(device, "weight_f32: a ternary weight");
    } else if (weight->transposed) {
        unpack_turned(device, dst, weight);
    } else if (p4_cuda_wide(P4_ADDRESS(dst) | P4_ADDRESS(weight->data), 0)) {
        convert<float, W><<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(
            dst, weight->data, weight->dtype, count);
    } else {
        convert<float, 1><<<p4_cuda_flat(count, 1), P4_FLAT_THREADS, 0, device->stream>>>(
            dst, weight->data, weight->dtype, count);
    }
    p4_cuda_launched(device, "weight_f32");
}

bool p4_cuda_weight_ok(p4_device *device, const p4_weight *weight, const char *op)
{
    const uintptr_t each = weight->dtype == P4_TERNARY ? 1 : (uintptr_t)p4_dtype_bytes(weight->dtype);
    if (P4_ADDRESS(weight->data) % each != 0) {
        p4_cuda_fail(device, "%s: a weight in %s lies at an address that is no multiple of %d", op,
                     p4_dtype_name(weight->dtype), (int)each);
        return false;
    }
    return true;
}
