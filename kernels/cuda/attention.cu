/* attention.cu - attention as an op: the task, delta, and the choice of kernels. cuDNN's where its rule
 * (kernels/cuda/attention_cudnn.cu) takes the call; unless cuDNN is demanded it leaves backward to the own
 * kernels for compute capability 9.0 where theirs (p4_attention_sm90_takes: device, head dimension,
 * alignment) does. Else own kernels: those, then the ones for bf16 on any tensor cores, or for fp32. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cuda_ops_b.h"

enum { HEAD_MOST = 256, DELTA_THREADS = 128 };

/* delta[b, h, t] = sum of dout * out over the head: a warp each. */
template <typename T> __global__ void delta_rows(attention_task k, int64_t rows)
{
    const int64_t at = (int64_t)blockIdx.x * (DELTA_THREADS / P4_WARP) + threadIdx.x / P4_WARP;
    if (at >= rows) {
        return;
    }
    const int64_t t = at % k.T, head = at / k.T % k.H, batch = at / k.T / k.H;
    const int64_t from = ((batch * k.T + t) * k.H + head) * k.D;
    float sum = 0.0f;
    for (int d = (int)(threadIdx.x % P4_WARP); d < k.D; d += P4_WARP) {
        sum += p4_value(((const T *)k.dout)[from + d]) * p4_value(((const T *)k.out)[from + d]);
    }
    sum = p4_warp_sum(sum);
    if (threadIdx.x % P4_WARP == 0) {
        k.delta[at] = sum;
    }
}

/* False when there is nothing to do or the shape is refused, which sync then reports. */
static bool make_task(p4_device *device, attention_task *k, const void *qkv, const p4_attention_shape *shape)
{
    const int64_t each = p4_cuda_act_bytes(device);
    if (shape->D > HEAD_MOST) {
        p4_cuda_fail(device, "attention: head dimension %lld, expected at most %d", (long long)shape->D,
                     HEAD_MOST);
    }
    if (shape->B <= 0 || shape->T <= 0 || shape->D > HEAD_MOST) {
        return false;
    }
    *k = {};
    k->qkv = qkv;
    k->B = (int)shape->B;
    k->T = (int)shape->T;
    k->H = (int)shape->H;
    k->Hkv = (int)shape->Hkv;
    k->D = (int)shape->D;
    k->window = (int)p4_min_i64(p4_max_i64(shape->window, 0), shape->T);
    k->scale = shape->scale;
    k->width = (shape->H + 2 * shape->Hkv) * shape->D;
    k->wide = p4_cuda_wide(P4_ADDRESS(qkv), shape->D * each);
    k->even = shape->D % 2 == 0 && P4_ADDRESS(qkv) % (2 * (uintptr_t)each) == 0;
    return true;
}

/* The count for backward serves forward too, and that for a batch smaller batches of its shape. */
int64_t p4_cuda_attention_work_count(p4_device *device, const p4_attention_shape *shape, bool backward)
{
    if (shape->D > HEAD_MOST) {
        return -1;
    }
    int64_t bytes = backward ? shape->B * shape->H * shape->T * (int64_t)sizeof(float) : 0;
    bytes = p4_max_i64(bytes, p4_cudnn_attention_work_bytes(device, shape, false));
    if (backward && p4_attention_sm90_takes(device, shape, 0)) {
        bytes = p4_max_i64(bytes, p4_attention_sm90_work_bytes(shape));
    }
    if (backward) {
        bytes = p4_max_i64(bytes, p4_cudnn_attention_work_bytes(device, shape, true));
    }
    return p4_ceil_div(bytes, (int64_t)sizeof(float));
}

void p4_cuda_attention_forward(p4_device *device, void *out, float *lse, const void *qkv,
                               const p4_attention_shape *shape, float *work)
{
    attention_task k;
    if (!make_task(device, &k, qkv, shape) ||
        p4_cudnn_attention_forward(device, out, lse, qkv, shape, work)) {
        return;
    }
    k.to = out;
    k.to_lse = lse;
    k.even = k.even && P4_ADDRESS(out) % 4 == 0;
    if (p4_attention_sm90_takes(device, shape, P4_ADDRESS(out) | P4_ADDRESS(qkv))) {
        p4_attention_forward_sm90(device, &k);
    } else if (device->half) {
        p4_attention_forward_bf16(device, &k, shape->B);
    } else {
        p4_attention_forward_f32(device, &k, shape->B);
    }
    p4_cuda_launched(device, "attention_forward");
}

void p4_cuda_attention_backward(p4_device *device, void *dqkv, const void *dout, const void *out,
                                const float *lse, const void *qkv, const p4_attention_shape *shape,
                                float *work)
{
    attention_task k;
    if (!make_task(device, &k, qkv, shape) ||
        p4_cudnn_attention_backward(device, dqkv, dout, out, lse, qkv, shape, work)) {
        return;
    }
    const int64_t rows = shape->B * shape->H * shape->T;
    const unsigned blocks = (unsigned)p4_ceil_div(rows, DELTA_THREADS / P4_WARP);
    k.out = out;
    k.dout = dout;
    k.to = dqkv;
    k.lse = lse;
    k.delta = work;
    k.wide = k.wide && P4_ADDRESS(dout) % P4_VECTOR_BYTES == 0;
    k.even = k.even && P4_ADDRESS(dqkv) % 4 == 0;
    const uintptr_t tiles =
        P4_ADDRESS(dqkv) | P4_ADDRESS(dout) | P4_ADDRESS(out) | P4_ADDRESS(qkv) | P4_ADDRESS(work);
    if (p4_attention_sm90_takes(device, shape, tiles)) {
        p4_attention_backward_sm90(device, &k);
    } else if (device->half) {
        delta_rows<__nv_bfloat16><<<blocks, DELTA_THREADS, 0, device->stream>>>(k, rows);
        p4_attention_backward_bf16(device, &k, shape->B);
    } else {
        delta_rows<float><<<blocks, DELTA_THREADS, 0, device->stream>>>(k, rows);
        p4_attention_backward_f32(device, &k, shape->B);
    }
    p4_cuda_launched(device, "attention_backward");
}
