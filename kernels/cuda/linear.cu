/* linear.cu - the three products of a linear layer and the bias gradient. */
#include "kernels/cuda/cuda.cuh"

enum { ALIGNED_ROWS = 16 };

static __global__ void round_bias(__nv_bfloat16 *to, const float *bias, int64_t count)
{
    const int64_t i = p4_flat_index<1>();
    if (i < count) {
        p4_set(to + i, bias[i]);
    }
}

/* The bias in the type that the epilogue of the product reads, which is that of the output. */
static const void *epilogue_bias(p4_device *device, const float *bias, int64_t out)
{
    if (!bias || !device->half) {
        return bias;
    }
    __nv_bfloat16 *rounded = (__nv_bfloat16 *)p4_cuda_scratch(device, out * (int64_t)sizeof *rounded);
    if (rounded) {
        round_bias<<<p4_cuda_flat(out, 1), P4_FLAT_THREADS, 0, device->stream>>>(rounded, bias, out);
        p4_cuda_launched(device, "linear_forward: bias");
    }
    return rounded;
}

p4_cuda_gemm p4_cuda_forward_product(p4_device *device, void *y, const void *x, const void *w,
                                     const float *bias, int64_t N, int64_t in, int64_t out)
{
    p4_cuda_gemm gemm = {};
    gemm.trans_b = true;
    gemm.type = gemm.out_type = p4_cuda_act_type(device);
    gemm.M = N;
    gemm.N = out;
    gemm.K = in;
    gemm.alpha = 1.0f;
    gemm.A = x;
    gemm.lda = in;
    gemm.B = w;
    gemm.ldb = in;
    gemm.bias = epilogue_bias(device, bias, out);
    gemm.D = y;
    gemm.ldd = out;
    return gemm;
}

void p4_cuda_linear_forward(p4_device *device, void *y, const void *x, const void *w, const float *bias,
                            int64_t N, int64_t in, int64_t out)
{
    if (N > 0 && out > 0) {
        const p4_cuda_gemm gemm = p4_cuda_forward_product(device, y, x, w, bias, N, in, out);
        p4_cuda_matmul(device, &gemm);
    }
}

void p4_cuda_linear_forward_weights(p4_device *device, const p4_linear_forward_weights_args *a)
{
    char *to = (char *)a->w_work;
    for (int64_t i = 0; i < a->parts; i++) {
        p4_cuda_weight_unpack(device, to, &a->weights[i]);
        to += a->weights[i].rows * a->weights[i].cols * p4_cuda_act_bytes(device);
    }
    p4_cuda_linear_forward(device, a->y, a->x, a->w_work, a->opt_bias, a->N, a->in, a->out);
}

p4_cuda_gemm p4_cuda_backward_input_product(const p4_device *device, void *dx, const void *dy, const void *w,
                                            int64_t N, int64_t in, int64_t out)
{
    p4_cuda_gemm gemm = {};
    gemm.type = gemm.out_type = p4_cuda_act_type(device);
    gemm.M = N;
    gemm.N = in;
    gemm.K = out;
    gemm.alpha = 1.0f;
    gemm.A = dy;
    gemm.lda = out;
    gemm.B = w;
    gemm.ldb = in;
    gemm.C = gemm.D = dx;
    gemm.ldd = in;
    return gemm;
}

void p4_cuda_linear_backward_input(p4_device *device, void *dx, const void *dy, const void *w, int64_t N,
                                   int64_t in, int64_t out, bool accumulate)
{
    p4_cuda_gemm gemm = p4_cuda_backward_input_product(device, dx, dy, w, N, in, out);
    gemm.beta = accumulate ? 1.0f : 0.0f;
    p4_cuda_matmul(device, &gemm);
}

/* A vocabulary of odd length: with all rows in one product cuBLASLt chooses slower kernels, so the rows
 * beyond a multiple of ALIGNED_ROWS are a product of their own. */
void p4_cuda_linear_backward_weight(p4_device *device, const p4_linear_backward_weight_args *a)
{
    p4_cuda_gemm gemm = {};
    gemm.trans_a = true;
    gemm.type = p4_cuda_act_type(device);
    gemm.out_type = CUDA_R_32F;
    gemm.M = a->out;
    gemm.N = a->in;
    gemm.K = a->N;
    gemm.alpha = 1.0f;
    gemm.beta = a->accumulate ? 1.0f : 0.0f;
    gemm.A = a->dy;
    gemm.lda = a->ld_dy;
    gemm.B = a->x;
    gemm.ldb = a->in;
    gemm.C = gemm.D = a->dw;
    gemm.ldd = a->in;
    if (a->out > ALIGNED_ROWS && a->out % ALIGNED_ROWS != 0) {
        gemm.M = a->out % ALIGNED_ROWS;
        gemm.A = (const char *)a->dy + (a->out - gemm.M) * p4_act_bytes(device);
        gemm.C = gemm.D = a->dw + (a->out - gemm.M) * a->in;
        p4_cuda_matmul(device, &gemm);
        gemm.M = a->out - gemm.M;
        gemm.A = a->dy;
        gemm.C = gemm.D = a->dw;
    }
    p4_cuda_matmul(device, &gemm);
}

void p4_cuda_linear_backward_bias(p4_device *device, float *db, const void *dy, int64_t N, int64_t out,
                                  int64_t ld_dy)
{
    p4_cuda_column_sums(device, db, dy, N, out, ld_dy);
}
