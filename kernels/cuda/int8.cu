/* int8.cu - the forward product of a linear layer in integers: 2-bit codes to int8, and the two portable
 * implementations of their product with the rounded activations (kernels/cuda/int8.cuh). */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/int8.cuh"

enum {
    CODE_THREADS = 256,
    TILE = 16,       /* simple: outputs [TILE, TILE] a block */
    BLOCK_ROWS = 64, /* cublas: the rows of a block of sums are a multiple of it if possible */
    CUBLAS_OUT = 16  /* cublas: out is a multiple of it */
};

/* --- weights ---------------------------------------------------------------------------------- */

/* The parts of a slot, passed by value. */
typedef struct code_parts {
    const uint8_t *codes[P4_INT8_PARTS];
    const uint16_t *scale[P4_INT8_PARTS];
    int64_t scale_step[P4_INT8_PARTS]; /* 1, or 0 where all rows of the part have the same scale */
    int64_t first[P4_INT8_PARTS];      /* first row of the part; of a part that does not exist: out */
} code_parts;

/* Four codes u = t + 1 of a byte, low bits first, as four bytes t. */
static __device__ __forceinline__ uint32_t four_trits(uint32_t codes)
{
    const uint32_t u = (codes | codes << 6 | codes << 12 | codes << 18) & 0x03030303u;
    return ((u | 0x80808080u) - 0x01010101u) ^
           0x80808080u; /* with the top bit set, no byte borrows from the next */
}

/* One block a row: t[width] with zeros behind cols, and the row's scale. */
template <bool WHOLE>
static __global__ void decode_rows(int8_t *t, float *row_scale, const code_parts parts, int64_t cols,
                                   int64_t width)
{
    const int64_t row = blockIdx.x, row_bytes = (cols + 3) / 4;
    const int part = (row >= parts.first[1]) + (row >= parts.first[2]);
    const uint8_t *codes = parts.codes[0];
    const uint16_t *scale = parts.scale[0];
    int64_t first = parts.first[0], scale_step = parts.scale_step[0];
#pragma unroll
    for (int i = 1; i < P4_INT8_PARTS; i++) { /* so that a parameter is not indexed at run time */
        codes = part == i ? parts.codes[i] : codes;
        scale = part == i ? parts.scale[i] : scale;
        scale_step = part == i ? parts.scale_step[i] : scale_step;
        first = part == i ? parts.first[i] : first;
    }
    codes += (row - first) * row_bytes;
    t += row * width;
    if (WHOLE) { /* 16 codes a thread; cols is their multiple */
        for (int64_t i = threadIdx.x; i < width / 16; i += blockDim.x) {
            const uint32_t four = ((const uint32_t *)codes)[i];
            ((uint4 *)t)[i] = make_uint4(four_trits(four & 255u), four_trits(four >> 8 & 255u),
                                         four_trits(four >> 16 & 255u), four_trits(four >> 24));
        }
    } else {
        for (int64_t i = threadIdx.x; i < width / 4; i += blockDim.x) {
            const int64_t left = cols - 4 * i;
            const uint32_t kept = left >= 4 ? 0xffffffffu : left <= 0 ? 0u : (1u << 8 * (int)left) - 1u;
            ((uint32_t *)t)[i] = four_trits(left > 0 ? codes[i] : 0u) & kept;
        }
    }
    if (threadIdx.x == 0) {
        row_scale[row] = __half2float(__ushort_as_half(scale[(row - first) * scale_step]));
    }
}

static void put_weight(p4_device *device, int8_t *t, float *row_scale, const p4_weight *weights,
                       int64_t count, int64_t in, int64_t out)
{
    code_parts parts = {};
    const int64_t width = p4_int8_width(in);
    bool whole = width == in;
    int64_t rows = 0;
    for (int64_t i = 0; i < P4_INT8_PARTS; i++) {
        parts.first[i] = i < count ? rows : out;
        if (i < count) {
            parts.codes[i] = (const uint8_t *)weights[i].data;
            parts.scale[i] = weights[i].scale;
            parts.scale_step[i] = p4_weight_scale_count(&weights[i]) == 1 ? 0 : 1;
            rows += weights[i].rows;
            whole = whole && P4_ADDRESS(weights[i].data) % sizeof(uint32_t) == 0;
        }
    }
    const unsigned threads = p4_cuda_threads(width / (whole ? 16 : 4), CODE_THREADS);
    if (whole) {
        decode_rows<true><<<(unsigned)out, threads, 0, device->stream>>>(t, row_scale, parts, in, width);
    } else {
        decode_rows<false><<<(unsigned)out, threads, 0, device->stream>>>(t, row_scale, parts, in, width);
    }
    p4_cuda_launched(device, "linear_forward_int8: weight");
}

/* --- simple ----------------------------------------------------------------------------------- */

template <typename T>
static __device__ __forceinline__ void put_output(const p4_int8_product &p, int64_t n, int64_t o, int sum)
{
    const float value = p4_int8_value(sum, 1.0f / p.s[n], p.row[o]);
    p4_set((T *)p.y + n * p.out + o, p.bias ? p4_int8_biased(value, p.bias[o]) : value);
}

/* A thread computes one output; both factors go through shared memory, 4 products an instruction. */
template <typename T> static __global__ void multiply_simple(const p4_int8_product p)
{
    __shared__ int xs[TILE][TILE + 1], ts[TILE][TILE + 1];
    const int64_t n = (int64_t)blockIdx.y * TILE + threadIdx.y, o = (int64_t)blockIdx.x * TILE + threadIdx.x;
    const int64_t o_read = (int64_t)blockIdx.x * TILE + threadIdx.y, words = p.in / 4;
    int sum = 0;
    for (int64_t first = 0; first < words; first += TILE) {
        const int64_t k = first + threadIdx.x;
        xs[threadIdx.y][threadIdx.x] = n < p.N && k < words ? ((const int *)(p.xq + n * p.in))[k] : 0;
        ts[threadIdx.y][threadIdx.x] =
            o_read < p.out && k < words ? ((const int *)(p.t + o_read * p.in))[k] : 0;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TILE; i++) {
            sum = __dp4a(xs[threadIdx.y][i], ts[threadIdx.x][i], sum);
        }
        __syncthreads();
    }
    if (n < p.N && o < p.out) {
        put_output<T>(p, n, o, sum);
    }
}

static void product_simple(p4_device *device, const p4_int8_product *p)
{
    enum { ROWS = 65535 * TILE }; /* a grid's second dimension */
    const int64_t each = p4_act_bytes(device);
    for (int64_t n = 0; n < p->N; n += ROWS) {
        p4_int8_product some = *p;
        some.N = p4_min_i64(ROWS, p->N - n);
        some.y = (char *)p->y + n * p->out * each;
        some.xq += n * p->in;
        some.s += n;
        const dim3 grid((unsigned)p4_ceil_div(p->out, TILE), (unsigned)p4_ceil_div(some.N, TILE)),
            block(TILE, TILE);
        if (device->half) {
            multiply_simple<__nv_bfloat16><<<grid, block, 0, device->stream>>>(some);
        } else {
            multiply_simple<float><<<grid, block, 0, device->stream>>>(some);
        }
    }
    p4_cuda_launched(device, "linear_forward_int8: product");
}

/* --- cublas ----------------------------------------------------------------------------------- */

/* Four outputs a thread; out is a multiple of 4. */
template <typename T> static __global__ void scale_sums(const p4_int8_product p, const int *sums)
{
    const int64_t i = p4_flat_index<4>(), n = i / p.out, o = i % p.out;
    if (n >= p.N) {
        return;
    }
    const int4 four = *(const int4 *)(sums + i);
    const int sum[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
        put_output<T>(p, n, o + k, sum[k]);
    }
}

static void product_cublas(p4_device *device, const p4_int8_product *p)
{
    const int64_t most =
        P4_SCRATCH_BYTES / (p->out * (int64_t)sizeof(int)); /* rows of sums in the scratch memory */
    const int64_t rows = p4_min_i64(p->N, most > BLOCK_ROWS ? most / BLOCK_ROWS * BLOCK_ROWS : most);
    int *sums = (int *)p4_cuda_scratch(device, rows * p->out * (int64_t)sizeof *sums);
    p4_cuda_gemm gemm = {};
    gemm.trans_b = true;
    gemm.type = CUDA_R_8I;
    gemm.out_type = CUDA_R_32I;
    gemm.N = p->out;
    gemm.K = gemm.lda = gemm.ldb = p->in;
    gemm.alpha = 1.0f;
    gemm.B = p->t;
    gemm.D = sums;
    gemm.ldd = p->out;
    for (int64_t n = 0; n < p->N; n += rows) {
        p4_int8_product some = *p;
        some.N = gemm.M = p4_min_i64(rows, p->N - n);
        some.y = (char *)p->y + n * p->out * p4_act_bytes(device);
        some.s += n;
        gemm.A = p->xq + n * p->in;
        p4_cuda_matmul(device, &gemm);
        const unsigned blocks = p4_cuda_flat(some.N * p->out, 4);
        if (device->half) {
            scale_sums<__nv_bfloat16><<<blocks, P4_FLAT_THREADS, 0, device->stream>>>(some, sums);
        } else {
            scale_sums<float><<<blocks, P4_FLAT_THREADS, 0, device->stream>>>(some, sums);
        }
    }
    p4_cuda_launched(device, "linear_forward_int8: scaling");
}

/* --- the op ----------------------------------------------------------------------------------- */

p4_rc p4_cuda_int8_open(p4_device *device, bool wgmma)
{
    static const char *const names[] = {"own", "cublas", "simple", NULL};
    static const p4_int8_implementation implementations[] = {P4_INT8_OWN, P4_INT8_CUBLAS, P4_INT8_SIMPLE};
    const int first = wgmma && device->half ? 0 : 1;
    int choice;
    const p4_rc rc = p4_cuda_switch(&choice, "P4_INT8", names + first);
    device->int8_implementation = implementations[first + choice];
    if (rc == P4_OK && device->int8_implementation == P4_INT8_OWN && !p4_cuda_int8_own_open(device)) {
        return FAULT("%s", device->failure);
    }
    return rc;
}

/* Rows with several scales have no sum that one scale could multiply: both factors become activations. */
static void product_by_groups(p4_device *device, const p4_linear_forward_int8_args *a)
{
    const int64_t each = p4_act_bytes(device);
    char *w = (char *)a->w_work;
    p4_cuda_dequantize_int8(device, a->x_work, &a->x, a->N, a->in);
    for (int64_t i = 0; i < a->parts; i++) {
        p4_cuda_weight_unpack(device, w, &a->weights[i]);
        w += a->weights[i].rows * a->weights[i].cols * each;
    }
    p4_cuda_linear_forward(device, a->y, a->x_work, a->w_work, a->opt_bias, a->N, a->in, a->out);
}

static bool has_groups(const p4_linear_forward_int8_args *a)
{
    bool any = false;
    for (int64_t i = 0; i < a->parts; i++) {
        any = any || p4_weight_scale_count(&a->weights[i]) > a->weights[i].rows;
    }
    return any;
}

/* w_work holds the weight as int8 [out, width], and behind it the scales of its rows: elements there are
 * activations of at least two bytes. */
void p4_cuda_linear_forward_int8(p4_device *device, const p4_linear_forward_int8_args *a)
{
    const int64_t width = p4_int8_width(a->in), out = a->out;
    int8_t *t = (int8_t *)a->w_work;
    float *row = (float *)(t + out * width);
    const p4_int8_product product = {a->y, a->x.codes, t, a->x.s, row, a->opt_bias, a->N, width, out};
    if (a->N <= 0 || out <= 0 || a->in <= 0) {
        return;
    }
    if (a->parts < 1 || a->parts > P4_INT8_PARTS ||
        (P4_ADDRESS(a->x.codes) | P4_ADDRESS(a->w_work)) % P4_VECTOR_BYTES != 0) {
        p4_cuda_fail(device, "linear_forward_int8: %lld parts, or memory that is not 16-byte aligned",
                     (long long)a->parts);
        return;
    }
    if (has_groups(a)) {
        product_by_groups(device, a);
        return;
    }
    put_weight(device, t, row, a->weights, a->parts, a->in, out);
    if (device->int8_implementation == P4_INT8_OWN) {
        p4_cuda_int8_own(device, &product);
    } else if (device->int8_implementation == P4_INT8_CUBLAS && out % CUBLAS_OUT == 0) {
        product_cublas(device, &product);
    } else {
        product_simple(device, &product);
    }
}
