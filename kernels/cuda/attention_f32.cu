/* attention_f32.cu - attention in fp32 without tensor cores. 16 x 16 threads: thread (x, y) has R rows from y
 * * R on of every tile, and columns x, x + 16, ... Tiles lie in shared memory with one element of padding a
 * row. */
#include "kernels/cuda/attention.cuh"

enum { SIDE = 16, THREADS = SIDE * SIDE, KEYS = 32, QUERIES_BACK = 32 };

/* Where a head's rows begin, at the sequence's first row. */
typedef struct head_f32 {
    const float *q, *k, *v, *dout;
    const float *lse, *delta;
} head_f32;

static __device__ __forceinline__ head_f32 head_of(const attention_task &k, int head, int64_t batch)
{
    const float *rows = (const float *)k.qkv + batch * k.T * k.width;
    const int kv = head / (k.H / k.Hkv);
    head_f32 a;
    a.q = rows + head * k.D;
    a.k = rows + (k.H + kv) * k.D;
    a.v = rows + (k.H + k.Hkv + kv) * k.D;
    a.dout = (const float *)k.dout + batch * k.T * k.H * k.D + head * k.D;
    a.lse = k.lse + (batch * k.H + head) * k.T;
    a.delta = k.delta + (batch * k.H + head) * k.T;
    return a;
}

/* Rows [first, first + ROWS) of a head, zeros beyond T and D. */
template <int ROWS, int HD>
static __device__ __forceinline__ void load_tile(float *tile, const float *from, int64_t ld, int first,
                                                 const attention_task &k)
{
    for (int i = (int)threadIdx.x; i < ROWS * HD; i += THREADS) {
        const int row = i / HD, d = i % HD;
        tile[row * (HD + 1) + d] = first + row < k.T && d < k.D ? from[(first + row) * ld + d] : 0.0f;
    }
}

/* acc = a b^T over D; a's rows are this thread's, b's rows are its columns. */
template <int R, int C, int HD>
static __device__ __forceinline__ void multiply(float (&acc)[R][C], const float *a, const float *b, int D)
{
    const int x = (int)threadIdx.x % SIDE, y = (int)threadIdx.x / SIDE;
    for (int i = 0; i < R; i++) {
        for (int j = 0; j < C; j++) {
            acc[i][j] = 0.0f;
        }
    }
    for (int d = 0; d < D; d++) {
#pragma unroll
        for (int i = 0; i < R; i++) {
#pragma unroll
            for (int j = 0; j < C; j++) {
                acc[i][j] += a[(y * R + i) * (HD + 1) + d] * b[(x + SIDE * j) * (HD + 1) + d];
            }
        }
    }
}

/* acc += p b; p [rows, COUNT] with rows COUNT + 1 apart, b [COUNT, HD]. */
template <int R, int COUNT, int HD>
static __device__ __forceinline__ void accumulate(float (&acc)[R][HD / SIDE], const float *p, const float *b)
{
    const int x = (int)threadIdx.x % SIDE, y = (int)threadIdx.x / SIDE;
    for (int c = 0; c < COUNT; c++) {
#pragma unroll
        for (int i = 0; i < R; i++) {
            const float factor = p[(y * R + i) * (COUNT + 1) + c];
#pragma unroll
            for (int j = 0; j < HD / SIDE; j++) {
                acc[i][j] += factor * b[c * (HD + 1) + x + SIDE * j];
            }
        }
    }
}

template <int R, int HD> static __device__ __forceinline__ void clear(float (&acc)[R][HD / SIDE])
{
#pragma unroll
    for (int i = 0; i < R; i++) {
#pragma unroll
        for (int j = 0; j < HD / SIDE; j++) {
            acc[i][j] = 0.0f;
        }
    }
}

/* Row `first + y R + i`, column d of `to` = factor * acc. */
template <int R, int HD>
static __device__ __forceinline__ void store_rows(float *to, int64_t ld, const float (&acc)[R][HD / SIDE],
                                                  const float (&factor)[R], int first,
                                                  const attention_task &k)
{
    const int x = (int)threadIdx.x % SIDE, y = (int)threadIdx.x / SIDE;
#pragma unroll
    for (int i = 0; i < R; i++) {
#pragma unroll
        for (int j = 0; j < HD / SIDE; j++) {
            const int row = first + y * R + i, d = x + SIDE * j;
            if (row < k.T && d < k.D) {
                to[row * ld + d] = acc[i][j] * factor[i];
            }
        }
    }
}

static __device__ __forceinline__ float row_max(float x)
{
    for (int step = SIDE / 2; step > 0; step /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    }
    return x;
}

static __device__ __forceinline__ float row_sum(float x)
{
    for (int step = SIDE / 2; step > 0; step /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    return x;
}

template <int HD, bool CAPPED> __global__ void __launch_bounds__(THREADS) forward_f32(attention_task k)
{
    enum { R = 4, QUERIES = SIDE * R, C = KEYS / SIDE };
    extern __shared__ unsigned char shared[];
    float *q = (float *)shared, *key = q + QUERIES * (HD + 1), *value = key + KEYS * (HD + 1);
    float *p = value + KEYS * (HD + 1);
    const int x = (int)threadIdx.x % SIDE, y = (int)threadIdx.x / SIDE, head = (int)blockIdx.y;
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES, end = min(first + QUERIES, k.T);
    const head_f32 a = head_of(k, head, blockIdx.z);
    float acc[R][HD / SIDE], largest[R], sum[R];
    clear<R, HD>(acc);
    for (int i = 0; i < R; i++) {
        largest[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    load_tile<QUERIES, HD>(q, a.q, k.width, first, k);
    for (int j0 = attention_first_key(k, first) / KEYS * KEYS; j0 < end; j0 += KEYS) {
        __syncthreads();
        load_tile<KEYS, HD>(key, a.k, k.width, j0, k);
        load_tile<KEYS, HD>(value, a.v, k.width, j0, k);
        __syncthreads();
        float score[R][C];
        multiply<R, C, HD>(score, q, key, k.D);
#pragma unroll
        for (int i = 0; i < R; i++) {
            const int row = y * R + i;
            float top = largest[i], part = 0.0f;
            for (int j = 0; j < C; j++) {
                const bool seen = attention_sees(k, first + row, j0 + x + SIDE * j);
                score[i][j] = seen ? attention_score<float, CAPPED>(k, score[i][j]) : -INFINITY;
                top = fmaxf(top, score[i][j]);
            }
            top = row_max(top);
            const float shift = top == -INFINITY ? 0.0f : top, kept = expf(largest[i] - shift);
            for (int j = 0; j < C; j++) {
                const float e = expf(score[i][j] - shift);
                p[row * (KEYS + 1) + x + SIDE * j] = e;
                part += e;
            }
            sum[i] = sum[i] * kept + row_sum(part);
            largest[i] = top;
            for (int j = 0; j < HD / SIDE; j++) {
                acc[i][j] *= kept;
            }
        }
        __syncthreads();
        accumulate<R, KEYS, HD>(acc, p, value);
    }
    float inverse[R];
    for (int i = 0; i < R; i++) {
        const int row = first + y * R + i;
        inverse[i] = 1.0f / sum[i];
        if (k.to_lse && x == 0 && row < k.T) {
            k.to_lse[((int64_t)blockIdx.z * k.H + head) * k.T + row] = largest[i] + logf(sum[i]);
        }
    }
    float *out = (float *)k.to + (int64_t)blockIdx.z * k.T * k.H * k.D + head * k.D;
    store_rows<R, HD>(out, (int64_t)k.H * k.D, acc, inverse, first, k);
}

/* dQ of a tile of queries. */
template <int HD, bool CAPPED> __global__ void __launch_bounds__(THREADS) backward_q_f32(attention_task k)
{
    enum { R = QUERIES_BACK / SIDE, C = KEYS / SIDE };
    extern __shared__ unsigned char shared[];
    float *q = (float *)shared, *dout = q + QUERIES_BACK * (HD + 1), *key = dout + QUERIES_BACK * (HD + 1);
    float *value = key + KEYS * (HD + 1), *ds = value + KEYS * (HD + 1);
    const int x = (int)threadIdx.x % SIDE, y = (int)threadIdx.x / SIDE, head = (int)blockIdx.y;
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES_BACK, end = min(first + QUERIES_BACK, k.T);
    const head_f32 a = head_of(k, head, blockIdx.z);
    float acc[R][HD / SIDE], factor[R];
    clear<R, HD>(acc);
    load_tile<QUERIES_BACK, HD>(q, a.q, k.width, first, k);
    load_tile<QUERIES_BACK, HD>(dout, a.dout, (int64_t)k.H * k.D, first, k);
    for (int j0 = attention_first_key(k, first) / KEYS * KEYS; j0 < end; j0 += KEYS) {
        __syncthreads();
        load_tile<KEYS, HD>(key, a.k, k.width, j0, k);
        load_tile<KEYS, HD>(value, a.v, k.width, j0, k);
        __syncthreads();
        float score[R][C], dp[R][C];
        multiply<R, C, HD>(score, q, key, k.D);
        multiply<R, C, HD>(dp, dout, value, k.D);
        for (int i = 0; i < R; i++) {
            const int row = first + y * R + i;
            for (int j = 0; j < C; j++) {
                const bool seen = row < k.T && attention_sees(k, row, j0 + x + SIDE * j);
                const float s = attention_score<float, CAPPED>(k, score[i][j]);
                const float gradient = seen ? expf(s - a.lse[row]) * (dp[i][j] - a.delta[row]) : 0.0f;
                ds[(y * R + i) * (KEYS + 1) + x + SIDE * j] =
                    CAPPED ? gradient * attention_slope<CAPPED>(k, s) : gradient;
            }
        }
        __syncthreads();
        accumulate<R, KEYS, HD>(acc, ds, key);
    }
    for (int i = 0; i < R; i++) {
        factor[i] = k.scale;
    }
    store_rows<R, HD>((float *)k.to + (int64_t)blockIdx.z * k.T * k.width + head * k.D, k.width, acc, factor,
                      first, k);
}

/* dK and dV of a tile of keys. */
template <int HD, bool CAPPED> __global__ void __launch_bounds__(THREADS) backward_kv_f32(attention_task k)
{
    enum { R = KEYS / SIDE, C = QUERIES_BACK / SIDE };
    extern __shared__ unsigned char shared[];
    float *key = (float *)shared, *value = key + KEYS * (HD + 1), *q = value + KEYS * (HD + 1);
    float *dout = q + QUERIES_BACK * (HD + 1), *p = dout + QUERIES_BACK * (HD + 1),
          *ds = p + KEYS * (QUERIES_BACK + 1);
    const int x = (int)threadIdx.x % SIDE, y = (int)threadIdx.x / SIDE, kv = (int)blockIdx.y,
              group = k.H / k.Hkv;
    const int first = (int)blockIdx.x * KEYS, end = attention_query_end(k, min(first + KEYS, k.T) - 1);
    float dk[R][HD / SIDE], dv[R][HD / SIDE], factor[R];
    clear<R, HD>(dk);
    clear<R, HD>(dv);
    for (int head = kv * group; head < (kv + 1) * group; head++) {
        const head_f32 a = head_of(k, head, blockIdx.z);
        if (head == kv * group) {
            load_tile<KEYS, HD>(key, a.k, k.width, first, k);
            load_tile<KEYS, HD>(value, a.v, k.width, first, k);
        }
        for (int i0 = first; i0 < end; i0 += QUERIES_BACK) {
            __syncthreads();
            load_tile<QUERIES_BACK, HD>(q, a.q, k.width, i0, k);
            load_tile<QUERIES_BACK, HD>(dout, a.dout, (int64_t)k.H * k.D, i0, k);
            __syncthreads();
            float score[R][C], dp[R][C];
            multiply<R, C, HD>(score, key, q, k.D);
            multiply<R, C, HD>(dp, value, dout, k.D);
            for (int i = 0; i < R; i++) {
                for (int j = 0; j < C; j++) {
                    const int query = i0 + x + SIDE * j, at = (y * R + i) * (QUERIES_BACK + 1) + x + SIDE * j;
                    const bool seen = query < k.T && attention_sees(k, query, first + y * R + i);
                    const float s = attention_score<float, CAPPED>(k, score[i][j]);
                    p[at] = seen ? expf(s - a.lse[query]) : 0.0f;
                    ds[at] = seen ? p[at] * (dp[i][j] - a.delta[query]) : 0.0f;
                    ds[at] = CAPPED ? ds[at] * attention_slope<CAPPED>(k, s) : ds[at];
                }
            }
            __syncthreads();
            accumulate<R, QUERIES_BACK, HD>(dv, p, dout);
            accumulate<R, QUERIES_BACK, HD>(dk, ds, q);
        }
    }
    float *rows = (float *)k.to + (int64_t)blockIdx.z * k.T * k.width;
    for (int i = 0; i < R; i++) {
        factor[i] = k.scale;
    }
    store_rows<R, HD>(rows + (k.H + kv) * k.D, k.width, dk, factor, first, k);
    for (int i = 0; i < R; i++) {
        factor[i] = 1.0f;
    }
    store_rows<R, HD>(rows + (k.H + k.Hkv + kv) * k.D, k.width, dv, factor, first, k);
}

template <int HD, bool CAPPED>
static void launch_forward(p4_device *device, const attention_task *k, int64_t B)
{
    const int queries = 4 * SIDE, floats = (queries + 2 * KEYS) * (HD + 1) + queries * (KEYS + 1);
    const int bytes = floats * (int)sizeof(float);
    if (attention_shared(device, forward_f32<HD, CAPPED>, bytes)) {
        forward_f32<HD, CAPPED><<<attention_grid(k, queries, k->H, B), THREADS, bytes, device->stream>>>(*k);
    }
}

template <int HD, bool CAPPED>
static void launch_backward(p4_device *device, const attention_task *k, int64_t B)
{
    const int floats = 2 * (QUERIES_BACK + KEYS) * (HD + 1) + 2 * KEYS * (QUERIES_BACK + 1);
    const int bytes = floats * (int)sizeof(float);
    if (attention_shared(device, backward_q_f32<HD, CAPPED>, bytes) &&
        attention_shared(device, backward_kv_f32<HD, CAPPED>, bytes)) {
        backward_q_f32<HD, CAPPED>
            <<<attention_grid(k, QUERIES_BACK, k->H, B), THREADS, bytes, device->stream>>>(*k);
        backward_kv_f32<HD, CAPPED>
            <<<attention_grid(k, KEYS, k->Hkv, B), THREADS, bytes, device->stream>>>(*k);
    }
}

void p4_attention_forward_f32(p4_device *device, const attention_task *k, int64_t B)
{
    P4_BY_HEAD(k->D, (k->cap > 0.0f ? launch_forward<HD, true> : launch_forward<HD, false>)(device, k, B));
}

void p4_attention_backward_f32(p4_device *device, const attention_task *k, int64_t B)
{
    P4_BY_HEAD(k->D, (k->cap > 0.0f ? launch_backward<HD, true> : launch_backward<HD, false>)(device, k, B));
}
