/* attention_sm90.cu - what backward by the kernels for compute capability 9.0 prepares: two numbers of every
 * query. */
#include <math.h>

#include "kernels/cuda/attention.cuh"

enum { SUM_THREADS = 256 };

int64_t p4_attention_sm90_work_bytes(const p4_attention_shape *shape)
{
    return attention_row_sums_count(shape->B, shape->H, shape->T) * (int64_t)sizeof(float) +
           ATTENTION_TAKEN * (int64_t)sizeof(int) +
           (shape->D <= 64 ? p4_attention_backward_64_bytes(shape) : 0);
}

/* For each tile of queries of a head: its log-sum-exps times log2(e), then the sums of dout * out over the
 * head. Beyond T they are infinity and 0, which makes probabilities and gradients there 0. A block computes
 * one tile, LANES threads a row, 16 bytes each. */
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
