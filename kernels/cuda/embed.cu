/* embed.cu - token and position embeddings, rotary positions. */
#include <cub/device/device_radix_sort.cuh>

#include "kernels/cuda/cuda.cuh"

enum { EMBED_THREADS = 256, RUN = 32, FETCHED = 8 };

/* W weights of a row in any form. All threads of a kernel take the same branch. */
template <int W>
static __device__ __forceinline__ void load_weight(float (&to)[W], const p4_weight &w, int64_t row,
                                                   int64_t col)
{
    const int64_t at = row * w.cols + col;
    if (w.dtype == P4_TERNARY) {
        const uint8_t *codes = (const uint8_t *)w.data + row * ((w.cols + 3) / 4);
        const int64_t group =
            w.scale_group > 0 ? w.scale_group : w.cols; /* a multiple of W, or a whole row */
        const float scale = __half2float(__ushort_as_half(w.scale[at / group]));
#pragma unroll
        for (int i = 0; i < W; i++) {
            to[i] = (float)((codes[(col + i) / 4] >> 2 * ((col + i) % 4) & 3) - 1) * scale;
        }
    } else if (w.transposed) {
#pragma unroll
        for (int i = 0; i < W; i++) {
            const int64_t turned = (col + i) * w.rows + row;
            to[i] = w.dtype == P4_F32   ? ((const float *)w.data)[turned]
                    : w.dtype == P4_F16 ? p4_value(((const __half *)w.data)[turned])
                                        : p4_value(((const __nv_bfloat16 *)w.data)[turned]);
        }
    } else if (w.dtype == P4_F32) {
        p4_load(to, (const float *)w.data + at);
    } else if (w.dtype == P4_F16) {
        p4_load(to, (const __half *)w.data + at);
    } else {
        p4_load(to, (const __nv_bfloat16 *)w.data + at);
    }
}

/* One block a token; position.data NULL: none. Without a scale it is 1. */
template <typename E, int W>
static __global__ void embed_rows(E *x, const int32_t *ids, p4_weight token, p4_weight position, float scale,
                                  int64_t T, int64_t C)
{
    const int64_t n = blockIdx.x, id = ids[n];
    for (int64_t c = (int64_t)threadIdx.x * W; c < C; c += (int64_t)blockDim.x * W) {
        float v[W], p[W];
        load_weight(v, token, id, c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            v[i] *= scale;
        }
        if (position.data) {
            load_weight(p, position, n % T, c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                v[i] += p[i];
            }
        }
        p4_store(x + n * C + c, v);
    }
}

/* The embeddings' scale, rounded to the activation type. */
static float scale_of(const p4_device *device, float scale)
{
    return scale <= 0.0f ? 1.0f : device->half ? __bfloat162float(__float2bfloat16_rn(scale)) : scale;
}

void p4_cuda_embed_forward(p4_device *device, const p4_embed_forward_args *a)
{
    const p4_weight none = {}, position = a->opt_position ? *a->opt_position : none;
    const int64_t N = a->B * a->T, C = a->C;
    const float scale = scale_of(device, a->scale);
    const bool wide = p4_cuda_wide(P4_ADDRESS(a->x) | P4_ADDRESS(a->token->data) | P4_ADDRESS(position.data),
                                   C * p4_act_bytes(device));
    const unsigned threads = p4_cuda_threads(p4_ceil_div(C, p4_cuda_width(device, wide)), EMBED_THREADS);
    if (N <= 0 || C <= 0 || !p4_cuda_weight_ok(device, a->token, "embed_forward") ||
        (position.data && !p4_cuda_weight_ok(device, &position, "embed_forward"))) {
        return;
    }
    P4_BY_ACT(device, wide,
              embed_rows<elem, W><<<(unsigned)N, threads, 0, device->stream>>>(
                  (elem *)a->x, a->ids, *a->token, position, scale, a->T, C));
    p4_cuda_launched(device, "embed_forward");
}

/* --- gradient of the tables ------------------------------------------------------------------- */

/* The tokens are sorted by id, stably, and the sorted sequence is cut into runs of RUN places, one block
 * each. Tokens of one id within a run are summed and added to the table at once. The partial sums of an id
 * that extends into further runs are stored: as `tail` of the run where it begins, as `head` of the others;
 * then the block of its first run adds them in order. */
typedef struct sorted_tokens {
    const int32_t *id, *place; /* [N]: in order of ids; where dx has it */
    float *head, *tail;        /* [runs, width] */
    int64_t N, width;          /* width: columns of this pass */
    float scale;               /* of dx */
} sorted_tokens;

static __global__ void number_places(int32_t *place, int64_t N)
{
    const int64_t n = p4_flat_index<1>();
    if (n < N) {
        place[n] = (int32_t)n;
    }
}

/* The sum of an id's elements of one column in a run, where it does not begin or end beyond it; else what the
 * run has of it. */
static __device__ __forceinline__ void put_sum(float *dtoken, const sorted_tokens &s, int64_t at, float sum,
                                               bool begins, bool ends)
{
    if (begins && ends) {
        *dtoken += sum;
    } else {
        (begins ? s.tail : s.head)[at] = sum;
    }
}

/* One block a run, a thread a column of the pass. Its elements are fetched FETCHED at a time. */
template <typename E> static __global__ void add_runs(float *dtoken, const E *dx, sorted_tokens s, int64_t C)
{
    __shared__ int32_t ids[RUN + 2], place[RUN]; /* ids: of the tokens before and behind the run, too */
    const int64_t run = blockIdx.x, first = run * RUN;
    const int count = (int)(first + RUN < s.N ? RUN : s.N - first);
    for (int i = (int)threadIdx.x; i < count + 2; i += (int)blockDim.x) {
        const int64_t at = first + i - 1;
        ids[i] = at >= 0 && at < s.N ? s.id[at] : -1;
        if (i < count) {
            place[i] = s.place[first + i];
        }
    }
    __syncthreads();
    for (int64_t c = threadIdx.x; c < s.width; c += blockDim.x) {
        float sum = 0.0f;
        bool begins = ids[0] != ids[1];
        for (int from = 0; from < count; from += FETCHED) {
            float v[FETCHED];
#pragma unroll
            for (int k = 0; k < FETCHED; k++) {
                v[k] = from + k < count ? p4_value(dx[place[from + k] * C + c]) : 0.0f;
            }
#pragma unroll
            for (int k = 0; k < FETCHED; k++) {
                const int at = from + k;
                const bool ends = at < count && ids[at + 2] != ids[at + 1];
                sum += v[k];
                if (ends || at == count - 1) {
                    put_sum(dtoken + ids[at + 1] * C + c, s, run * s.width + c, sum * s.scale, begins, ends);
                    sum = 0.0f;
                    begins = true;
                }
            }
        }
    }
}

/* One block a run: the id that begins in it and extends beyond, if there is one. */
static __global__ void add_long_runs(float *dtoken, sorted_tokens s, int64_t C)
{
    const int64_t run = blockIdx.x, first = run * RUN, next = first + RUN;
    if (next >= s.N) {
        return;
    }
    const int32_t id = s.id[next];
    const bool begins_before = first > 0 && s.id[first] == id && s.id[first - 1] == id;
    if (s.id[next - 1] != id || begins_before) {
        return;
    }
    for (int64_t c = threadIdx.x; c < s.width; c += blockDim.x) {
        float sum = s.tail[run * s.width + c];
        for (int64_t at = next; at < s.N && s.id[at] == id; at += RUN) {
            sum += s.head[at / RUN * s.width + c];
        }
        dtoken[id * C + c] += sum;
    }
}

/* dposition[t, c] += the sum over the batch, in order. One block a position. */
template <typename E, int W>
static __global__ void add_positions(float *dposition, const E *dx, int64_t B, int64_t T, int64_t C)
{
    const int64_t t = blockIdx.x;
    for (int64_t c = (int64_t)threadIdx.x * W; c < C; c += (int64_t)blockDim.x * W) {
        float sum[W] = {}, v[W];
        for (int64_t b = 0; b < B; b++) {
            p4_load(v, dx + (b * T + t) * C + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                sum[i] += v[i];
            }
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            dposition[t * C + c + i] += sum[i];
        }
    }
}

/* Sorts the tokens into scratch memory, and lays out the rest of it: s->width is what fits. */
static bool sort_tokens(p4_device *device, sorted_tokens *s, const int32_t *ids, int64_t C, int64_t V)
{
    const int64_t N = s->N, list = p4_ceil_div(N, 64) * 64, runs = p4_ceil_div(N, RUN);
    size_t sort_bytes = 0;
    int bits = 1;
    while (bits < 31 && V > (int64_t)1 << bits) {
        bits++;
    }
    bool ok =
        p4_cuda_ok(device,
                   cub::DeviceRadixSort::SortPairs(NULL, sort_bytes, ids, (int32_t *)NULL, (int32_t *)NULL,
                                                   (int32_t *)NULL, (int)N, 0, bits, device->stream),
                   "embed_backward: sort");
    const int64_t used = 3 * list * (int64_t)sizeof(int32_t) + p4_ceil_div((int64_t)sort_bytes, 256) * 256;
    s->width = p4_min_i64(C, (P4_SCRATCH_BYTES - used) / (2 * runs * (int64_t)sizeof(float)));
    if (ok && s->width < 1) {
        p4_cuda_fail(device, "embed_backward: %lld tokens at once are too many", (long long)N);
        return false;
    }
    char *scratch = (char *)p4_cuda_scratch(device, used);
    if (!ok || !scratch) {
        return false;
    }
    int32_t *id = (int32_t *)scratch, *place = id + list, *unsorted = place + list;
    s->id = id;
    s->place = place;
    s->head = (float *)(scratch + used);
    s->tail = s->head + runs * s->width;
    number_places<<<p4_cuda_flat(N, 1), P4_FLAT_THREADS, 0, device->stream>>>(unsorted, N);
    return p4_cuda_ok(device,
                      cub::DeviceRadixSort::SortPairs(unsorted + list, sort_bytes, ids, id, unsorted, place,
                                                      (int)N, 0, bits, device->stream),
                      "embed_backward: sort");
}

template <typename E>
static void add_tokens(p4_device *device, float *dtoken, const E *dx, sorted_tokens s, int64_t C)
{
    const unsigned runs = (unsigned)p4_ceil_div(s.N, RUN), threads = p4_cuda_threads(s.width, EMBED_THREADS);
    const int64_t width = s.width;
    for (int64_t c = 0; c < C; c += width) {
        s.width = p4_min_i64(width, C - c);
        add_runs<<<runs, threads, 0, device->stream>>>(dtoken + c, dx + c, s, C);
        add_long_runs<<<runs, threads, 0, device->stream>>>(dtoken + c, s, C);
    }
}

void p4_cuda_embed_backward(p4_device *device, const p4_embed_backward_args *a)
{
    const int64_t C = a->C;
    sorted_tokens s = {};
    s.N = a->B * a->T;
    s.scale = scale_of(device, a->scale);
    if (s.N <= 0 || C <= 0 || !sort_tokens(device, &s, a->ids, C, a->V)) {
        return;
    }
    if (device->half) {
        add_tokens(device, a->dtoken, (const __nv_bfloat16 *)a->dx, s, C);
    } else {
        add_tokens(device, a->dtoken, (const float *)a->dx, s, C);
    }
    if (a->opt_dposition) {
        const bool wide = p4_cuda_wide(P4_ADDRESS(a->dx), C * p4_act_bytes(device));
        const unsigned threads = p4_cuda_threads(p4_ceil_div(C, p4_cuda_width(device, wide)), EMBED_THREADS);
        P4_BY_ACT(device, wide,
                  add_positions<elem, W><<<(unsigned)a->T, threads, 0, device->stream>>>(
                      a->opt_dposition, (const elem *)a->dx, a->B, a->T, C));
    }
    p4_cuda_launched(device, "embed_backward");
}

/* --- rotary positions ------------------------------------------------------------------------- */

/* blockDim.y tokens a block; a thread turns W pairs of one head, (i, i + half) or neighbors. */
template <typename E, int W, bool NEIGHBORS>
static __global__ void rotate_rows(E *qkv, const float *cos_table, const float *sin_table, int64_t N,
                                   int64_t T, unsigned heads, unsigned D, unsigned half, int64_t row_width,
                                   float direction)
{
    const int64_t n = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    const float *cosine = cos_table + n % T * half, *sine = sin_table + n % T * half;
    const unsigned packs = half / W;
    for (unsigned at = threadIdx.x; n < N && at < heads * packs; at += blockDim.x) {
        const unsigned head = at / packs, i = at % packs * W;
        E *first = qkv + n * row_width + head * D + (NEIGHBORS ? 2 * i : i);
        E *second = first + (NEIGHBORS ? 1 : half);
        float a[W], b[W], c[W], s[W];
        p4_load(a, first);
        p4_load(b, second);
        p4_load(c, cosine + i);
        p4_load(s, sine + i);
#pragma unroll
        for (int k = 0; k < W; k++) {
            const float x = a[k], y = b[k], turn = direction * s[k];
            a[k] = x * c[k] - y * turn;
            b[k] = y * c[k] + x * turn;
        }
        p4_store(first, a);
        p4_store(second, b);
    }
}

template <typename E, int W, bool NEIGHBORS>
static void launch_rope(p4_device *device, const p4_rope_args *a, int64_t half, int64_t packs)
{
    const unsigned threads = p4_cuda_threads(packs, EMBED_THREADS);
    const dim3 block(threads, EMBED_THREADS / threads); /* a multiprocessor holds few blocks of one warp */
    rotate_rows<E, W, NEIGHBORS><<<(unsigned)p4_ceil_div(a->N, block.y), block, 0, device->stream>>>(
        (E *)a->qkv, a->cos_table, a->sin_table, a->N, a->T, (unsigned)a->heads, (unsigned)a->D,
        (unsigned)half, a->row_width, a->backward ? -1.0f : 1.0f);
}

void p4_cuda_rope(p4_device *device, const p4_rope_args *a)
{
    const int64_t each = p4_act_bytes(device), half = (a->R > 0 ? a->R : a->D) / 2;
    const bool wide = !a->neighbors &&
                      p4_cuda_wide(P4_ADDRESS(a->qkv) | P4_ADDRESS(a->cos_table) | P4_ADDRESS(a->sin_table),
                                   (half | a->D | a->row_width) * each);
    const int64_t packs = a->heads * half / p4_cuda_width(device, wide);
    if (a->N <= 0 || packs <= 0) {
        return;
    }
    if (!a->neighbors) {
        P4_BY_ACT(device, wide, (launch_rope<elem, W, false>(device, a, half, packs)));
    } else if (device->half) {
        launch_rope<__nv_bfloat16, 1, true>(device, a, half, packs);
    } else {
        launch_rope<float, 1, true>(device, a, half, packs);
    }
    p4_cuda_launched(device, "rope");
}
