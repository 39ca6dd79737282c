/* ternary.cu - quantize: weights to 2-bit codes and one fp16 scale a row. A block quantizes a row; with the
 * exact rule on fp32 rows of up to 2048 elements, a warp does.
 *
 * A row that is contiguous and aligned is read once, 16 bytes at a time, and kept in registers. Any other
 * row is staged in shared memory as fp32, or read again where it is too long for that. */
#include "kernels/cuda/ternary_exact_f32.cuh"
#include "src/leaf/absmean.h"

static __device__ __forceinline__ void absmean_of(double sum, int64_t cols, float threshold, float *cut,
                                                  float *scale)
{
    *scale = p4_absmean_scale(sum, cols);
    *cut = p4_absmean_cut(threshold, *scale);
}

template <p4_dtype DT> static __device__ __forceinline__ double sum_row(const uint4 (&piece)[QUANT_CHUNKS])
{
    double sum = 0.0;
#pragma unroll
    for (int i = 0; i < QUANT_CHUNKS; i++) {
#pragma unroll
        for (int e = 0; e < quant_form<DT>::PER_PIECE; e++) {
            sum += quant_form<DT>::scaled(quant_form<DT>::magnitude(quant_bits<DT>(piece[i], e)));
        }
    }
    return p4_block_sum(sum) * quant_form<DT>::unit;
}

/* The largest magnitude, as quant_form has it. */
template <p4_dtype DT>
static __device__ __forceinline__ uint32_t largest_in_row(const uint4 (&piece)[QUANT_CHUNKS])
{
    uint32_t largest = 0;
#pragma unroll
    for (int i = 0; i < QUANT_CHUNKS; i++) {
#pragma unroll
        for (int e = 0; e < quant_form<DT>::PER_PIECE; e++) {
            largest = max(largest, quant_form<DT>::magnitude(quant_bits<DT>(piece[i], e)));
        }
    }
    return exact_block_max(largest);
}

template <p4_dtype DT, bool ERROR>
__global__ void __launch_bounds__(QUANT_THREADS_MOST) absmean_wide(quant_task k)
{
    quant_sums sums = quant_sums_start();
    for (int64_t row = blockIdx.x; row < k.rows; row += gridDim.x) {
        uint4 piece[QUANT_CHUNKS];
        float cut, scale;
        quant_load_row<DT>(piece, &k, row);
        absmean_of(sum_row<DT>(piece), k.cols, k.threshold, &cut, &scale);
        quant_finish_row<DT, ERROR>(&k, row, piece, cut, scale, &sums);
    }
    if (ERROR) {
        quant_store_sums(&k, sums);
    }
}

template <bool ERROR> __global__ void __launch_bounds__(QUANT_THREADS_MOST) exact_wide_bf16(quant_task k)
{
    __shared__ uint32_t counts[EXACT_BINS];
    quant_sums sums = quant_sums_start();
    for (int64_t row = blockIdx.x; row < k.rows; row += gridDim.x) {
        uint4 piece[QUANT_CHUNKS];
        float cut = INFINITY, scale = 0.0f;
        quant_load_row<P4_BF16>(piece, &k, row);
        const uint32_t largest = largest_in_row<P4_BF16>(piece);
        const double sum = sum_row<P4_BF16>(piece);
        if (largest > 0 && largest < quant_form<P4_BF16>::INFINITE) {
            exact_bf16_row(piece, counts, sum / (double)k.cols, largest, &cut, &scale);
        }
        quant_finish_row<P4_BF16, ERROR>(&k, row, piece, cut, scale, &sums);
    }
    if (ERROR) {
        quant_store_sums(&k, sums);
    }
}

/* A row on which exact_f32_row gives up. Rare, so it is not inlined: its registers and code stay apart. */
static __device__ __noinline__ quant_sums exact_row_again(quant_task k, int64_t index,
                                                          unsigned long long *list, quant_sums sums)
{
    const row_view row = row_open(&k, index, NULL);
    float cut, scale;
    exact_row(&row, NULL, list, &cut, &scale);
    row_finish(&k, index, &row, cut, scale, &sums);
    return sums;
}

/* THREADS: of a row, at most. Rows of one warp need no block barrier. This many BLOCKS on a processor hide
 * each other's latencies, and the registers suffice for them. */
template <bool ERROR, int CHUNKS, int THREADS, int BLOCKS>
__global__ void __launch_bounds__(THREADS, BLOCKS) exact_wide_f32(quant_task k)
{
    __shared__ exact_space<THREADS> space;
    quant_sums sums = quant_sums_start();
    for (int64_t row = blockIdx.x; row < k.rows; row += gridDim.x) {
        uint4 piece[CHUNKS];
        float cut, scale;
        exact_load_row(piece, &k, row);
        if (exact_f32_row(piece, &space, k.cols, &cut, &scale)) {
            exact_store_codes(&k, row, piece, cut);
            exact_finish_row<CHUNKS, ERROR>(&k, row, piece, cut, scale, &sums);
        } else {
            sums = exact_row_again(k, row, space.list, sums);
        }
        exact_sync<THREADS>(); /* the memory may be overwritten */
    }
    if (ERROR) {
        quant_store_sums(&k, sums);
    }
}

/* Any other row. It is held in `staged` floats of shared memory if it fits. */
__global__ void __launch_bounds__(ROWS_THREADS, 3) quantize_any(quant_task k, int64_t staged)
{
    alignas(16) extern __shared__ unsigned char stage[];
    __shared__ unsigned long long list[EXACT_LIST];
    quant_sums sums = quant_sums_start();
    for (int64_t index = blockIdx.x; index < k.rows; index += gridDim.x) {
        const row_view row = row_open(&k, index, k.cols <= staged ? (float *)stage : NULL);
        float cut, scale;
        if (k.method == P4_QUANT_EXACT) {
            exact_row(&row, k.importance, list, &cut, &scale);
        } else {
            absmean_of(row_abs_sum(&row), k.cols, k.threshold, &cut, &scale);
        }
        row_finish(&k, index, &row, cut, scale, &sums);
        __syncthreads(); /* the stage may be overwritten */
    }
    if (k.parts) {
        quant_store_sums(&k, sums);
    }
}

/* One block: adds the parts in a fixed order. */
__global__ void sum_parts(p4_quant_error *sum, const p4_quant_error *parts, int count)
{
    p4_quant_error own = {0.0, 0.0, 0, INFINITY, -INFINITY, 0};
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x) {
        own.sq_error += parts[i].sq_error;
        own.sq_norm += parts[i].sq_norm;
        own.zeros += parts[i].zeros;
        own.nonfinite += parts[i].nonfinite;
        own.scale_min = fminf(own.scale_min, parts[i].scale_min);
        own.scale_max = fmaxf(own.scale_max, parts[i].scale_max);
    }
    p4_quant_error all;
    all.sq_error = p4_block_sum(own.sq_error);
    all.sq_norm = p4_block_sum(own.sq_norm);
    all.zeros = p4_block_sum((long long)own.zeros);
    all.nonfinite = p4_block_sum((long long)own.nonfinite);
    all.scale_min = -p4_block_max(-own.scale_min);
    all.scale_max = p4_block_max(own.scale_max);
    if (threadIdx.x == 0) {
        *sum = all;
    }
}

/* The exact rule for fp32 rows of so many 16-byte pieces: a warp a row, or a block of up to 8. */
template <bool ERROR>
static void launch_exact_f32(p4_device *device, const quant_task *k, unsigned blocks, int64_t pieces)
{
    if (pieces <= 8 * P4_WARP) {
        exact_wide_f32<ERROR, 8, P4_WARP, ERROR ? 16 : 20><<<blocks, P4_WARP, 0, device->stream>>>(*k);
    } else if (pieces <= 16 * P4_WARP) {
        exact_wide_f32<ERROR, 16, P4_WARP, 16><<<blocks, P4_WARP, 0, device->stream>>>(*k);
    } else {
        const unsigned threads = p4_cuda_threads(p4_ceil_div(pieces, 16), 256);
        exact_wide_f32<ERROR, 16, 256, ERROR ? 1 : 2><<<blocks, threads, 0, device->stream>>>(*k);
    }
}

template <bool ERROR>
static void launch_wide(p4_device *device, const quant_task *k, unsigned blocks, int64_t pieces)
{
    const unsigned threads = p4_cuda_threads(p4_ceil_div(pieces, QUANT_CHUNKS), QUANT_THREADS_MOST);
    if (k->method == P4_QUANT_EXACT && k->dtype == P4_F32) {
        launch_exact_f32<ERROR>(device, k, blocks, pieces);
    } else if (k->method == P4_QUANT_EXACT) {
        exact_wide_bf16<ERROR><<<blocks, threads, 0, device->stream>>>(*k);
    } else if (k->dtype == P4_BF16) {
        absmean_wide<P4_BF16, ERROR><<<blocks, threads, 0, device->stream>>>(*k);
    } else if (k->dtype == P4_F16) {
        absmean_wide<P4_F16, ERROR><<<blocks, threads, 0, device->stream>>>(*k);
    } else {
        absmean_wide<P4_F32, ERROR><<<blocks, threads, 0, device->stream>>>(*k);
    }
}

static void launch_any(p4_device *device, const quant_task *k, unsigned blocks)
{
    const int64_t staged = k->cols <= ROWS_STAGED_MOST ? k->cols : 0;
    const unsigned threads = p4_cuda_threads(p4_ceil_div(k->cols, 8), ROWS_THREADS);
    if (p4_cuda_ok(device,
                   cudaFuncSetAttribute(quantize_any, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        ROWS_STAGED_MOST * (int)sizeof(float)),
                   "quantize: shared memory")) {
        quantize_any<<<blocks, threads, (size_t)staged * sizeof(float), device->stream>>>(*k, staged);
    }
}

/* Queues the rows. When an error is wanted, the grid depends on the shape alone, as it determines the order
 * of the sums. */
static void launch_rows(p4_device *device, const quant_task *k, unsigned blocks)
{
    const int64_t row_bytes = k->cols * p4_dtype_bytes(k->dtype), pieces = row_bytes / P4_VECTOR_BYTES;
    const bool in_registers = k->col_step == 1 && p4_cuda_wide(P4_ADDRESS(k->data), row_bytes) &&
                              P4_ADDRESS(k->codes) % 2 == 0 && pieces <= QUANT_CHUNKS * QUANT_THREADS_MOST;
    const bool by_counting = (k->dtype == P4_BF16 || k->dtype == P4_F32) && !k->importance;
    if (!in_registers || (k->method == P4_QUANT_EXACT && !by_counting)) {
        launch_any(device, k, blocks);
    } else if (k->parts) {
        launch_wide<true>(device, k, blocks, pieces);
    } else {
        launch_wide<false>(device, k, blocks, pieces);
    }
    p4_cuda_launched(device, "quantize");
}

static quant_task task_of(uint8_t *codes, uint16_t *scale, const p4_weight *weight)
{
    quant_task k = {};
    k.codes = codes;
    k.scale = scale;
    k.data = weight->data;
    k.rows = weight->rows;
    k.cols = weight->cols;
    k.row_step = weight->transposed ? 1 : weight->cols;
    k.col_step = weight->transposed ? weight->rows : 1;
    k.row_bytes = p4_code_row_bytes(weight->cols);
    k.dtype = weight->dtype;
    return k;
}

/* *h_error = the sum of the parts behind *sum. Waits. */
static void report_error(p4_device *device, p4_quant_error *h_error, p4_quant_error *sum, unsigned blocks)
{
    sum_parts<<<1, 256, 0, device->stream>>>(sum, sum + 1, (int)blocks);
    p4_cuda_launched(device, "quantize: error");
    p4_cuda_ok(device, cudaMemcpyAsync(h_error, sum, sizeof *sum, cudaMemcpyDeviceToHost, device->stream),
               "quantize: error");
    p4_cuda_ok(device, cudaStreamSynchronize(device->stream), "quantize");
}

/* A block quantizes in its shared memory. */
int64_t p4_cuda_quantize_scratch_bytes(p4_device *device, const p4_weight *weight, p4_quant_method method)
{
    (void)device;
    (void)weight;
    (void)method;
    return 0;
}

void p4_cuda_quantize(p4_device *device, uint8_t *codes, uint16_t *scale, p4_quant_error *h_error,
                      const p4_weight *weight, p4_quant_method method, float threshold,
                      const float *importance)
{
    const int64_t rows = weight->rows, cols = weight->cols;
    const p4_quant_error none = {0.0, 0.0, 0, INFINITY, -INFINITY, 0};
    p4_quant_error *sum = NULL;
    if (method != P4_QUANT_ABSMEAN && method != P4_QUANT_EXACT) {
        p4_cuda_fail(device, "quantize: the CUDA backend has no rule %d", (int)method);
        return;
    }
    if (h_error) {
        *h_error = none;
        sum = (p4_quant_error *)p4_cuda_scratch(device, (1 + P4_SUM_BLOCKS) * (int64_t)sizeof *sum);
    }
    if (rows <= 0 || cols <= 0 || (h_error && !sum)) {
        return;
    }
    quant_task k = task_of(codes, scale, weight);
    k.importance = importance;
    k.parts = sum ? sum + 1 : NULL;
    k.method = method;
    k.threshold = threshold;
    const unsigned blocks = (unsigned)p4_min_i64(rows, sum ? P4_SUM_BLOCKS : INT32_MAX);
    launch_rows(device, &k, blocks);
    if (sum) {
        report_error(device, h_error, sum, blocks);
    }
}

/* A thread a byte of codes; a block walks over rows. */
template <typename S> static __global__ void pack_rows(quant_task k, const float *t)
{
    quant_sums sums = quant_sums_start();
    for (int64_t row = blockIdx.x; row < k.rows; row += gridDim.x) {
        const float scale = __half2float(__ushort_as_half(k.scale[row]));
        for (int64_t b = threadIdx.x; b < k.row_bytes; b += blockDim.x) {
            unsigned byte = 0;
            for (int i = 0; i < 4; i++) {
                const int64_t col = 4 * b + i;
                const float trit = col < k.cols ? t[row * k.cols + col] : 0.0f;
                byte |= (unsigned)(trit + 1.0f) << 2 * i;
                if (col < k.cols) {
                    const double w =
                        (double)p4_value(((const S *)k.data)[row * k.row_step + col * k.col_step]);
                    const double difference = w - (trit != 0.0f ? (double)(scale * trit) : 0.0);
                    sums.sq_error += difference * difference;
                    sums.sq_norm += w * w;
                    sums.zeros += trit == 0.0f ? 1 : 0;
                }
            }
            k.codes[row * k.row_bytes + b] = (uint8_t)byte;
        }
        sums.scale_min = fminf(sums.scale_min, scale);
        sums.scale_max = fmaxf(sums.scale_max, scale);
    }
    quant_store_sums(&k, sums);
}

void p4_cuda_pack_trits(p4_device *device, uint8_t *codes, p4_quant_error *h_error, const float *t,
                        const uint16_t *scale, const p4_weight *weight)
{
    const p4_quant_error none = {0.0, 0.0, 0, INFINITY, -INFINITY, 0};
    const unsigned blocks = (unsigned)p4_min_i64(weight->rows, P4_SUM_BLOCKS);
    p4_quant_error *sum =
        (p4_quant_error *)p4_cuda_scratch(device, (1 + P4_SUM_BLOCKS) * (int64_t)sizeof *sum);
    *h_error = none;
    if (!sum || weight->rows <= 0 || weight->cols <= 0 || !p4_cuda_weight_ok(device, weight, "pack_trits")) {
        return;
    }
    quant_task k = task_of(codes, (uint16_t *)scale, weight);
    k.parts = sum + 1;
    const unsigned threads = p4_cuda_threads(k.row_bytes, P4_FLAT_THREADS);
    if (weight->dtype == P4_F32) {
        pack_rows<float><<<blocks, threads, 0, device->stream>>>(k, t);
    } else if (weight->dtype == P4_F16) {
        pack_rows<__half><<<blocks, threads, 0, device->stream>>>(k, t);
    } else {
        pack_rows<__nv_bfloat16><<<blocks, threads, 0, device->stream>>>(k, t);
    }
    p4_cuda_launched(device, "pack_trits");
    report_error(device, h_error, sum, blocks);
}
