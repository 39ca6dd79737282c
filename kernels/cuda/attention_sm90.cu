/* attention_sm90.cu - what attention by the asynchronous units of compute capability 9.0 prepares:
 * descriptions of the arrays for the copy engine, and two numbers of every query for backward. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cuda_ops_b.h"
#include "kernels/cuda/tensor_map.cuh"

enum { HEAD_OVER = 32, HEAD_MOST = 128, HEAD_STEP = 8, SUM_THREADS = 256 };

/* The copy engine needs rows of heads at multiples of 16 bytes. Forward looks for the largest score before it
 * is scaled. Tiles are as wide as 64 or 128 elements; a head of 32 or fewer would be half zeros. */
bool p4_attention_sm90_takes(const p4_device *device, const p4_attention_shape *shape, uintptr_t addresses)
{
    return device->attention_sm90 && shape->D > HEAD_OVER && shape->D <= HEAD_MOST &&
           shape->D % HEAD_STEP == 0 && shape->scale > 0.0f && addresses % P4_VECTOR_BYTES == 0;
}

int64_t p4_attention_sm90_work_bytes(const p4_attention_shape *shape)
{
    return attention_row_sums_count(shape->B, shape->H, shape->T) * (int64_t)sizeof(float) +
           ATTENTION_TAKEN * (int64_t)sizeof(int) +
           (shape->D <= 64 ? p4_attention_backward_64_bytes(shape) : 0);
}

bool p4_attention_map(p4_device *device, CUtensorMap *map, const void *data, int64_t heads,
                      const attention_task *k)
{
    const cuuint64_t D = (cuuint64_t)k->D, T = (cuuint64_t)k->T, row_bytes = (cuuint64_t)heads * D * 2;
    const cuuint64_t lengths[4] = {D, (cuuint64_t)heads, T, (cuuint64_t)k->B},
                     bytes[3] = {D * 2, row_bytes, T * row_bytes};
    const cuuint32_t box[4] = {64, 1, ATTENTION_TILE, 1};
    const int result =
        p4_cuda_encode(device, map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, data, lengths, bytes, box);
    if (result != 0) {
        p4_cuda_fail(device, "attention: tiles of [%d, %d, %lld, %d] cannot be described: driver error %d",
                     k->B, k->T, (long long)heads, k->D, result);
    }
    return result == 0;
}

void p4_attention_open(p4_device *device)
{
    const char *chosen = getenv("P4_ATTENTION");
    device->attention_sm90 = device->encode_tiles && device->half && !(chosen && strcmp(chosen, "mma") == 0);
}

/* For each tile of queries of a head its log-sum-exps times log2(e), then the sums of dout * out over the
 * head. Beyond T they are infinity and 0, which makes probabilities and gradients there 0. A block: one tile;
 * a row: `lanes` threads, 16 bytes each. */
template <int HD> static __global__ void row_sums(attention_task k)
{
    enum { LANES = HD / 8, AT_ONCE = SUM_THREADS / LANES };
    __shared__ float sums[ATTENTION_TILE];
    const int lane = (int)threadIdx.x % LANES, head = (int)blockIdx.y, batch = (int)blockIdx.z;
    const int first = (int)blockIdx.x * ATTENTION_TILE;
#pragma unroll
    for (int i = 0; i < ATTENTION_TILE; i += AT_ONCE) {
        const int row = i + (int)threadIdx.x / LANES;
        const int64_t from = (((int64_t)batch * k.T + first + row) * k.H + head) * k.D + lane * 8;
        float a[8], b[8], sum = 0.0f;
        if (first + row < k.T && lane * 8 < k.D) {
            p4_load<8>(a, (const __nv_bfloat16 *)k.dout + from);
            p4_load<8>(b, (const __nv_bfloat16 *)k.out + from);
#pragma unroll
            for (int d = 0; d < 8; d++) {
                sum += a[d] * b[d];
            }
        }
#pragma unroll
        for (int step = LANES / 2; step > 0; step /= 2) {
            sum += __shfl_xor_sync(0xffffffffu, sum, step);
        }
        if (lane == 0) {
            sums[row] = sum;
        }
    }
    __syncthreads();
    const int row = (int)threadIdx.x % ATTENTION_TILE;
    const int64_t bh = (int64_t)batch * k.H + head; /* row of the log-sum-exps */
    float *to = k.delta + (bh * gridDim.x + blockIdx.x) * ATTENTION_ROW_SUMS * ATTENTION_TILE;
    if (threadIdx.x < ATTENTION_TILE) {
        to[row] = first + row < k.T ? k.lse[bh * k.T + first + row] * 1.44269504088896f : INFINITY;
    } else if (threadIdx.x < 2 * ATTENTION_TILE) {
        to[ATTENTION_TILE + row] = sums[row];
    } else if (threadIdx.x < 2 * ATTENTION_TILE + ATTENTION_TAKEN &&
               blockIdx.x + blockIdx.y + blockIdx.z == 0) {
        attention_taken(k)[threadIdx.x - 2 * ATTENTION_TILE] = 0;
    }
}

void p4_attention_backward_sm90(p4_device *device, const attention_task *k)
{
    const dim3 grid = attention_grid(k, ATTENTION_TILE, k->H, k->B);
    if (k->D <= 64) {
        row_sums<64><<<grid, SUM_THREADS, 0, device->stream>>>(*k);
        p4_attention_backward_64(device, k);
    } else {
        row_sums<128><<<grid, SUM_THREADS, 0, device->stream>>>(*k);
        p4_attention_backward_128(device, k);
    }
}
