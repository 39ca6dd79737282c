/* attention_cached.cu - attention of new tokens to a cache of keys and values. A block computes one query
 * head of one token: its threads take the keys of a piece, then the channels of the output. Softmax is taken
 * on the way: the sums so far are rescaled when a larger score comes up. */
#include "kernels/cuda/cuda.cuh"

enum { THREADS = 128, CHANNELS = 4 /* of the output a thread: heads of up to 512 */ };

typedef struct cached_task {
    const void *qkv;
    void *keys, *values, *out;
    const int64_t *past;
    int64_t capacity, T;
    int H, Hkv, D;
    int64_t window;
    float scale, cap;
} cached_task;

/* One block a token and key head. */
template <typename A, typename S> static __global__ void append(cached_task k)
{
    const int64_t t = blockIdx.x, kv = blockIdx.y, width = (int64_t)(k.H + 2 * k.Hkv) * k.D;
    const A *row = (const A *)k.qkv + t * width;
    const int64_t at = (kv * k.capacity + *k.past + t) * k.D;
    for (int d = (int)threadIdx.x; d < k.D; d += (int)blockDim.x) {
        p4_set((S *)k.keys + at + d, p4_value(row[(k.H + kv) * k.D + d]));
        p4_set((S *)k.values + at + d, p4_value(row[(k.H + k.Hkv + kv) * k.D + d]));
    }
}

template <typename A, typename S> static __global__ void __launch_bounds__(THREADS) attend(cached_task k)
{
    __shared__ float weights[THREADS];
    const int64_t t = blockIdx.x, head = blockIdx.y, kv = head / (k.H / k.Hkv);
    const int64_t width = (int64_t)(k.H + 2 * k.Hkv) * k.D, end = *k.past + t + 1;
    const int64_t from = k.window > 0 && end > k.window ? end - k.window : 0;
    const A *q = (const A *)k.qkv + t * width + head * k.D;
    const S *keys = (const S *)k.keys + kv * k.capacity * k.D,
            *values = (const S *)k.values + kv * k.capacity * k.D;
    float sums[CHANNELS] = {0.0f}, largest = -INFINITY, total = 0.0f;
    for (int64_t first = from; first < end; first += THREADS) {
        const int64_t key = first + threadIdx.x;
        float score = -INFINITY;
        if (key < end) {
            float dot = 0.0f;
            for (int d = 0; d < k.D; d++) {
                dot += p4_value(q[d]) * p4_value(keys[key * k.D + d]);
            }
            score = dot * k.scale;
            score = k.cap > 0.0f ? k.cap * tanhf(score / k.cap) : score;
        }
        const float above = fmaxf(largest, p4_block_max(score)), factor = expf(largest - above);
        weights[threadIdx.x] = key < end ? expf(score - above) : 0.0f;
        total = total * factor + p4_block_sum(weights[threadIdx.x]);
        largest = above;
        const int count = (int)(end - first < THREADS ? end - first : THREADS);
        for (int i = 0; i < CHANNELS; i++) {
            const int d = (int)threadIdx.x + i * THREADS;
            sums[i] *= factor;
            for (int j = 0; d < k.D && j < count; j++) {
                sums[i] += weights[j] * p4_value(values[(first + j) * k.D + d]);
            }
        }
        __syncthreads(); /* weights are read by all */
    }
    for (int i = 0; i < CHANNELS; i++) {
        const int d = (int)threadIdx.x + i * THREADS;
        if (d < k.D) {
            p4_set((A *)k.out + (t * k.H + head) * k.D + d, sums[i] / total);
        }
    }
}

template <typename A, typename S> static void launch(p4_device *device, const cached_task *k)
{
    append<A, S><<<dim3((unsigned)k->T, (unsigned)k->Hkv), THREADS, 0, device->stream>>>(*k);
    p4_cuda_launched(device, "attention_cached: append");
    attend<A, S><<<dim3((unsigned)k->T, (unsigned)k->H), THREADS, 0, device->stream>>>(*k);
    p4_cuda_launched(device, "attention_cached");
}

void p4_cuda_attention_cached(p4_device *device, const p4_attention_cached_args *a)
{
    const p4_attention_shape *s = &a->shape;
    const cached_task k = {a->qkv,    a->keys,     a->values, a->out,    a->past,  a->capacity, s->T,
                           (int)s->H, (int)s->Hkv, (int)s->D, s->window, s->scale, s->cap};
    if (s->D > CHANNELS * THREADS) {
        p4_cuda_fail(device, "attention_cached: heads of %lld elements, at most %d are expected",
                     (long long)s->D, CHANNELS * THREADS);
        return;
    }
    if (device->half) {
        a->type == P4_F16 ? launch<__nv_bfloat16, __half>(device, &k)
                          : launch<__nv_bfloat16, float>(device, &k);
    } else {
        a->type == P4_F16 ? launch<float, __half>(device, &k) : launch<float, float>(device, &k);
    }
}
