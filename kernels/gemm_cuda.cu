/* gemm_cuda.cu - matrix products by cuBLASLt: the algorithm of a shape is asked for once and kept.
 *
 * The heuristic's first choice is taken, not the fastest of a timing: the same program on the same GPU must give the same
 * bits. Split sums are added in fp32, never in the output type. */
#include <stdlib.h>
#include <string.h>

#include "cuda.cuh"

enum { PLANS = 1024, PROBES = 8 };

/* All that an algorithm is chosen by. Compared as bytes: no padding. */
typedef struct plan_key {
    int64_t M, N, K, lda, ldb, ldd;
    int64_t batch, stride_a, stride_b, stride_d;
    int32_t flags, alignments; /* alignments: of A, B, C, D, a byte each */
} plan_key;

typedef struct plan {
    plan_key key;
    cublasLtMatmulAlgo_t algorithm;
    bool used;
} plan;

struct p4_cuda_plans {
    plan slot[PLANS];
};

/* Descriptions of one product for cuBLASLt, which is column-major: it computes D^T = op(B)^T op(A)^T, so B comes first. */
typedef struct description {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t a, b, c;
} description;

p4_rc p4_cuda_plans_open(p4_device *device)
{
    device->plans = (struct p4_cuda_plans *)p4_alloc(1, sizeof *device->plans);
    return device->plans ? P4_OK : P4_E_SYSTEM;
}

void p4_cuda_plans_close(p4_device *device)
{
    free(device->plans);
}

/* 16, 8, 4 or 2: what an address is a multiple of. */
static int32_t alignment_of(const void *pointer)
{
    uintptr_t bits = (uintptr_t)pointer | 16;
    return (int32_t)(bits & (~bits + 1));
}

static plan_key key_of(const p4_cuda_gemm *gemm)
{
    plan_key key;
    memset(&key, 0, sizeof key);
    key.M = gemm->M;
    key.N = gemm->N;
    key.K = gemm->K;
    key.lda = gemm->lda;
    key.ldb = gemm->ldb;
    key.ldd = gemm->ldd;
    if (gemm->batch > 1) {
        key.batch = gemm->batch;
        key.stride_a = gemm->stride_a;
        key.stride_b = gemm->stride_b;
        key.stride_d = gemm->stride_d;
    }
    key.flags = gemm->trans_a | gemm->trans_b << 1 | (gemm->bias != NULL) << 2 | (gemm->beta != 0.0f) << 3 |
                (gemm->type == CUDA_R_16BF) << 4 | (gemm->out_type == CUDA_R_16BF) << 5 | (gemm->type == CUDA_R_8I) << 6;
    key.alignments = alignment_of(gemm->A) | alignment_of(gemm->B) << 8 | alignment_of(gemm->C) << 16 |
                     alignment_of(gemm->D) << 24;
    return key;
}

static uint64_t hash_of(const plan_key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *key; i++) {
        hash = (hash ^ bytes[i]) * 1099511628211u;
    }
    return hash ^ hash >> 32;
}

/* Makes a layout that of `batch` matrices, `stride` elements from one to the next. 0 is success. */
static int repeat(cublasLtMatrixLayout_t layout, int64_t batch, int64_t stride)
{
    const int32_t count = (int32_t)batch;
    return cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count) |
           cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                            sizeof stride);
}

static bool describe(description *d, const p4_cuda_gemm *gemm)
{
    cublasOperation_t a = gemm->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N, b = gemm->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cublasStatus_t bad = CUBLAS_STATUS_SUCCESS; /* or-ed: 0 is success */
    const bool integers = gemm->type == CUDA_R_8I;
    int failed = cublasLtMatmulDescInit(&d->product, integers ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                        integers ? CUDA_R_32I : CUDA_R_32F) |
                 cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_TRANSA, &b, sizeof b) |
                 cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_TRANSB, &a, sizeof a);
    if (gemm->bias) {
        failed |= cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                                 sizeof epilogue) |
                  cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &gemm->bias,
                                                 sizeof gemm->bias);
    }
    failed |= cublasLtMatrixLayoutInit(&d->a, gemm->type, (uint64_t)(gemm->trans_b ? gemm->K : gemm->N),
                                       (uint64_t)(gemm->trans_b ? gemm->N : gemm->K), gemm->ldb) |
              cublasLtMatrixLayoutInit(&d->b, gemm->type, (uint64_t)(gemm->trans_a ? gemm->M : gemm->K),
                                       (uint64_t)(gemm->trans_a ? gemm->K : gemm->M), gemm->lda) |
              cublasLtMatrixLayoutInit(&d->c, gemm->out_type, (uint64_t)gemm->N, (uint64_t)gemm->M, gemm->ldd);
    if (gemm->batch > 1) {
        failed |= repeat(&d->a, gemm->batch, gemm->stride_b) | repeat(&d->b, gemm->batch, gemm->stride_a) |
                  repeat(&d->c, gemm->batch, gemm->stride_d);
    }
    return failed == (int)bad;
}

/* Asks cuBLASLt for the algorithm. */
static cublasStatus_t choose(p4_device *device, plan *chosen, description *d)
{
    cublasLtMatmulPreferenceOpaque_t wish;
    cublasLtMatmulHeuristicResult_t answer;
    uint64_t work_bytes = P4_BLAS_WORK_BYTES;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int32_t packed = chosen->key.alignments;
    uint32_t align_a = packed & 255, align_b = packed >> 8 & 255, align_c = packed >> 16 & 255, align_d = packed >> 24;
    int found = 0;
    int failed =
        cublasLtMatmulPreferenceInit(&wish) |
        cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &work_bytes,
                                             sizeof work_bytes) |
        cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                             sizeof reductions) |
        cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align_b,
                                             sizeof align_b) |
        cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align_a,
                                             sizeof align_a) |
        cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align_c,
                                             sizeof align_c) |
        cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align_d,
                                             sizeof align_d);
    if (failed) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(device->blas, &d->product, &d->a, &d->b, &d->c, &d->c,
                                                           &wish, 1, &answer, &found);
    chosen->algorithm = answer.algo;
    chosen->used = status == CUBLAS_STATUS_SUCCESS && found > 0;
    return chosen->used ? CUBLAS_STATUS_SUCCESS : status ? status : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* The kept plan of this product, or a new one, which may take the place of another shape's. */
static cublasStatus_t find_plan(p4_device *device, const p4_cuda_gemm *gemm, description *d, const plan **found)
{
    plan_key key = key_of(gemm);
    uint64_t home = hash_of(&key);
    plan *slot = NULL;
    for (uint64_t i = 0; i < PROBES; i++) {
        slot = &device->plans->slot[(home + i) % PLANS];
        if (!slot->used) {
            break;
        }
        if (memcmp(&slot->key, &key, sizeof key) == 0) {
            *found = slot;
            return CUBLAS_STATUS_SUCCESS;
        }
    }
    slot->key = key;
    *found = slot;
    return choose(device, slot, d);
}

void p4_cuda_matmul(p4_device *device, const p4_cuda_gemm *gemm)
{
    description d;
    const plan *plan = NULL;
    cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE;
    p4_cuda_gemm product = *gemm;
    product.C = gemm->beta != 0.0f ? gemm->C : gemm->D;
    if (gemm->M <= 0 || gemm->N <= 0 || gemm->K <= 0) {
        return;
    }
    if (describe(&d, &product)) {
        status = find_plan(device, &product, &d, &plan);
    }
    const int32_t whole[2] = {(int32_t)product.alpha, (int32_t)product.beta}; /* factors have the type of the sums */
    const bool integers = product.type == CUDA_R_8I;
    const void *alpha = integers ? (const void *)&whole[0] : &product.alpha;
    const void *beta = integers ? (const void *)&whole[1] : &product.beta;
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = cublasLtMatmul(device->blas, &d.product, alpha, product.B, &d.a, product.A, &d.b,
                                beta, product.C, &d.c, product.D, &d.c, &plan->algorithm, device->blas_work,
                                P4_BLAS_WORK_BYTES, device->stream);
    }
    if (status != CUBLAS_STATUS_SUCCESS) {
        p4_cuda_fail(device, "%lld products [%lld, %lld] x [%lld, %lld]: %s", (long long)p4_max_i64(1, gemm->batch),
                     (long long)gemm->M, (long long)gemm->K, (long long)gemm->K, (long long)gemm->N,
                     cublasLtGetStatusString(status));
    }
}
