/* gemm.cu - matrix products by cuBLASLt: the algorithm for a shape is chosen once and kept.
 *
 * For bf16 the candidates are those of the heuristic's choices that belong to the family of its first
 * choice and split the sum over K in the same way. They differ in tiles and clusters, which do not change
 * the order in which an element's terms are added, so all give the same bits (test_gemm compares them), and
 * the fastest can be chosen by timing. A large product is timed in place the first time it is computed with
 * beta 0, since its output is overwritten anyway; the host waits for that. Split sums are added in fp32,
 * never in the output type. P4_GEMM_PICK=n takes candidate n, or the last one, without timing.
 *
 * GELU after the bias, and its slope on the way back, can be the epilogue of a product
 * (p4_cuda_matmul_fused), in bf16 and unless P4_GEMM_EPILOGUE=off. There the heuristic's first choice is
 * taken, as others round GELU's slope differently. A shape for which cuBLASLt has no algorithm is
 * remembered as such, so that a shape is computed in the same way on every call. Bias gradients as
 * epilogues (BGRADB) are not used: their bits depend on the algorithm too, and they were no faster than
 * sums by a kernel of our own. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"
#include "src/leaf/hash.h"

enum { PLANS = 1024, PROBES = 8, CANDIDATES = 8, TUNE_RUNS = 3, TUNE_TURNS = 3, KEY_BF16 = 1 << 4 };
#define TUNE_FLOP 1e9 /* products of fewer operations are not timed: launching them takes longer */

/* Everything that the choice of an algorithm depends on. Compared as bytes: no padding. */
typedef struct plan_key {
    int64_t M, N, K, lda, ldb, ldd;
    int64_t batch, stride_a, stride_b, stride_d;
    int32_t flags, alignments;       /* alignments: of A, B, C, D, a byte each */
    int32_t after, after_alignments; /* p4_cuda_after; of bias and aux */
} plan_key;

typedef struct plan {
    plan_key key;
    cublasLtMatmulAlgo_t candidate[CANDIDATES];
    int count, best; /* count 0: cuBLASLt has no algorithm */
    bool used, tuned;
} plan;

struct p4_cuda_plans {
    plan slot[PLANS];
    cudaEvent_t start, end; /* of a timing */
    int pick;               /* candidate to take, -1: the fastest */
    bool fuses;             /* p4_cuda_matmul_fused does */
};

/* Descriptions of one product for cuBLASLt, which is column-major: it computes D^T = op(B)^T op(A)^T, so B
 * comes first. */
typedef struct description {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t a, b, c;
} description;

p4_rc p4_cuda_plans_open(p4_device *device)
{
    static const char *const choices[] = {"on", "off", NULL};
    int off;
    const char *pick = getenv("P4_GEMM_PICK");
    const bool given = pick && pick[0];
    if (given && (strlen(pick) != 1 || pick[0] < '0' || pick[0] > '9')) {
        return FAIL("P4_GEMM_PICK=%s: expected a digit", pick);
    }
    if (p4_cuda_switch(&off, "P4_GEMM_EPILOGUE", choices) != P4_OK) {
        return P4_E_INPUT;
    }
    device->plans = (struct p4_cuda_plans *)p4_alloc(1, sizeof *device->plans);
    if (!device->plans) {
        return P4_E_SYSTEM;
    }
    device->plans->pick = given ? pick[0] - '0' : -1;
    device->plans->fuses = !off;
    return p4_cuda_ok(device, cudaEventCreate(&device->plans->start), "event") &&
                   p4_cuda_ok(device, cudaEventCreate(&device->plans->end), "event")
               ? P4_OK
               : FAULT("%s", device->failure);
}

void p4_cuda_plans_close(p4_device *device)
{
    if (device->plans && device->plans->start) {
        cudaEventDestroy(device->plans->start);
    }
    if (device->plans && device->plans->end) {
        cudaEventDestroy(device->plans->end);
    }
    free(device->plans);
}

/* The alignment of an address: 16, 8, 4 or 2. */
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
    key.flags = gemm->trans_a | gemm->trans_b << 1 | (gemm->bias != NULL) << 2 |
                (gemm->type == CUDA_R_16BF ? KEY_BF16 : 0) | (gemm->out_type == CUDA_R_16BF) << 5 |
                (gemm->type == CUDA_R_8I) << 6;
    key.alignments = alignment_of(gemm->A) | alignment_of(gemm->B) << 8 | alignment_of(gemm->C) << 16 |
                     alignment_of(gemm->D) << 24;
    key.after = gemm->after;
    key.after_alignments = alignment_of(gemm->bias) | alignment_of(gemm->aux) << 8;
    return key;
}

static uint64_t hash_of(const plan_key *key)
{
    uint64_t hash = p4_hash(P4_HASH_START, key, sizeof *key);
    return hash ^ hash >> 32;
}

/* Turns a layout into that of `batch` matrices, `stride` elements from one to the next. 0 is success. */
static int repeat(cublasLtMatrixLayout_t layout, int64_t batch, int64_t stride)
{
    const int32_t count = (int32_t)batch;
    return cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                            sizeof count) |
           cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                            sizeof stride);
}

/* The epilogue. 0 is success. */
static int describe_after(cublasLtMatmulDesc_t product, const p4_cuda_gemm *gemm)
{
    cublasLtEpilogue_t epilogue = gemm->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    int failed = 0;
    if (gemm->after == P4_AFTER_GELU) {
        epilogue = gemm->bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    } else if (gemm->after == P4_AFTER_GELU_SLOPE) {
        epilogue = CUBLASLT_EPILOGUE_DGELU;
    }
    failed |=
        cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (gemm->bias) {
        failed |= cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &gemm->bias,
                                                 sizeof gemm->bias);
    }
    if (gemm->aux) {
        failed |= cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
                                                 &gemm->aux, sizeof gemm->aux) |
                  cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &gemm->ldd,
                                                 sizeof gemm->ldd);
    }
    return failed;
}

static bool describe(description *d, const p4_cuda_gemm *gemm)
{
    cublasOperation_t a = gemm->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                      b = gemm->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasStatus_t bad = CUBLAS_STATUS_SUCCESS; /* or-ed: 0 is success */
    const bool integers = gemm->type == CUDA_R_8I;
    int failed = cublasLtMatmulDescInit(&d->product, integers ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                        integers ? CUDA_R_32I : CUDA_R_32F) |
                 cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_TRANSA, &b, sizeof b) |
                 cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_TRANSB, &a, sizeof a);
    failed |=
        describe_after(&d->product, gemm) |
        cublasLtMatrixLayoutInit(&d->a, gemm->type, (uint64_t)(gemm->trans_b ? gemm->K : gemm->N),
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

/* The family of an algorithm and how it splits the sum over K, as one number. */
static int64_t split_of(const cublasLtMatmulAlgo_t *algorithm)
{
    int32_t split = 0, family = 0;
    uint32_t scheme = 0;
    size_t written;
    cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_ID, &family, sizeof family,
                                         &written);
    cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, sizeof split,
                                         &written);
    cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                         sizeof scheme, &written);
    return (int64_t)family << 48 | (int64_t)split << 16 | scheme;
}

/* Asks cuBLASLt for the candidates. */
static cublasStatus_t choose(p4_device *device, plan *chosen, description *d)
{
    cublasLtMatmulPreferenceOpaque_t wish;
    cublasLtMatmulHeuristicResult_t answer[CANDIDATES];
    uint64_t work_bytes = P4_BLAS_WORK_BYTES;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int32_t packed = chosen->key.alignments;
    uint32_t align_a = packed & 255, align_b = packed >> 8 & 255, align_c = packed >> 16 & 255,
             align_d = packed >> 24;
    int found = 0;
    int failed = cublasLtMatmulPreferenceInit(&wish) |
                 cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                      &work_bytes, sizeof work_bytes) |
                 cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                      &reductions, sizeof reductions) |
                 cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                                      &align_b, sizeof align_b) |
                 cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                      &align_a, sizeof align_a) |
                 cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                                      &align_c, sizeof align_c) |
                 cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                                                      &align_d, sizeof align_d);
    if (failed) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(device->blas, &d->product, &d->a, &d->b, &d->c,
                                                           &d->c, &wish, CANDIDATES, answer, &found);
    chosen->count = chosen->best = 0;
    chosen->tuned = false;
    if (!(chosen->key.flags & KEY_BF16) || chosen->key.after != P4_AFTER_NOTHING) {
        found = found > 0 ? 1 : 0;
    }
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < found; i++) {
        if (answer[i].state == CUBLAS_STATUS_SUCCESS &&
            split_of(&answer[i].algo) == split_of(&answer[0].algo)) {
            chosen->candidate[chosen->count++] = answer[i].algo;
        }
    }
    if (device->plans->pick >= 0) {
        chosen->best = (int)p4_min_i64(device->plans->pick, chosen->count - 1);
        chosen->tuned = true;
    }
    chosen->used = true;
    return chosen->count > 0 ? CUBLAS_STATUS_SUCCESS : status ? status : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* The kept plan of this product, or a new one, which may take the place of another shape's. */
static cublasStatus_t find_plan(p4_device *device, const p4_cuda_gemm *gemm, description *d, plan **found)
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
            return slot->count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
        }
    }
    slot->key = key;
    *found = slot;
    return choose(device, slot, d);
}

/* Queues the product with a candidate of its plan. */
static cublasStatus_t run(p4_device *device, const description *d, const p4_cuda_gemm *gemm,
                          const cublasLtMatmulAlgo_t *algorithm)
{
    const int32_t whole[2] = {(int32_t)gemm->alpha,
                              (int32_t)gemm->beta}; /* factors have the type of the sums */
    const bool integers = gemm->type == CUDA_R_8I;
    const void *alpha = integers ? (const void *)&whole[0] : &gemm->alpha;
    const void *beta = integers ? (const void *)&whole[1] : &gemm->beta;
    return cublasLtMatmul(device->blas, (cublasLtMatmulDesc_t)&d->product, alpha, gemm->B,
                          (cublasLtMatrixLayout_t)&d->a, gemm->A, (cublasLtMatrixLayout_t)&d->b, beta,
                          gemm->C, (cublasLtMatrixLayout_t)&d->c, gemm->D, (cublasLtMatrixLayout_t)&d->c,
                          algorithm, device->blas_work, P4_BLAS_WORK_BYTES, device->stream);
}

/* Milliseconds of TUNE_RUNS products; infinite when the candidate fails. */
static float time_candidate(p4_device *device, const description *d, const p4_cuda_gemm *gemm,
                            const cublasLtMatmulAlgo_t *algorithm)
{
    struct p4_cuda_plans *plans = device->plans;
    float ms = INFINITY;
    bool ok = run(device, d, gemm, algorithm) == CUBLAS_STATUS_SUCCESS &&
              cudaEventRecord(plans->start, device->stream) == cudaSuccess;
    for (int i = 0; ok && i < TUNE_RUNS; i++) {
        ok = run(device, d, gemm, algorithm) == CUBLAS_STATUS_SUCCESS;
    }
    ok = ok && cudaEventRecord(plans->end, device->stream) == cudaSuccess &&
         cudaEventSynchronize(plans->end) == cudaSuccess &&
         cudaEventElapsedTime(&ms, plans->start, plans->end) == cudaSuccess;
    return ok ? ms : INFINITY;
}

/* Takes the fastest candidate: the best of TUNE_TURNS turns through all. */
static void tune(p4_device *device, plan *plan, const description *d, const p4_cuda_gemm *gemm)
{
    float best = INFINITY;
    for (int turn = 0; turn < TUNE_TURNS; turn++) {
        for (int i = 0; i < plan->count; i++) {
            const float ms = time_candidate(device, d, gemm, &plan->candidate[i]);
            if (ms < best) {
                best = ms;
                plan->best = i;
            }
        }
    }
    plan->tuned = true;
}

/* Queues the product by its plan, which is made, and timed, when it is first needed. *found: the plan. */
static cublasStatus_t multiply(p4_device *device, const p4_cuda_gemm *gemm, plan **found)
{
    description d;
    cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE;
    p4_cuda_gemm product = *gemm;
    product.C = gemm->beta != 0.0f ? gemm->C : gemm->D;
    if (describe(&d, &product)) {
        status = find_plan(device, &product, &d, found);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        plan *plan = *found;
        const double flop = 2.0 * (double)product.M * (double)product.N * (double)product.K *
                            (double)p4_max_i64(1, product.batch);
        if (!plan->tuned && !device->recording && product.beta == 0.0f && plan->count > 1 &&
            flop >= TUNE_FLOP) {
            tune(device, plan, &d, &product);
        }
        status = run(device, &d, &product, &plan->candidate[plan->best]);
    }
    return status;
}

static void report_failure(p4_device *device, const p4_cuda_gemm *gemm, cublasStatus_t status)
{
    p4_cuda_fail(device, "%lld products [%lld, %lld] x [%lld, %lld]: %s",
                 (long long)p4_max_i64(1, gemm->batch), (long long)gemm->M, (long long)gemm->K,
                 (long long)gemm->K, (long long)gemm->N, cublasLtGetStatusString(status));
}

void p4_cuda_matmul(p4_device *device, const p4_cuda_gemm *gemm)
{
    plan *plan = NULL;
    if (gemm->M <= 0 || gemm->N <= 0 || gemm->K <= 0) {
        return;
    }
    const cublasStatus_t status = multiply(device, gemm, &plan);
    if (status != CUBLAS_STATUS_SUCCESS) {
        report_failure(device, gemm, status);
    }
}

bool p4_cuda_matmul_fused(p4_device *device, const p4_cuda_gemm *gemm)
{
    const bool aligned =
        !gemm->aux || (gemm->ldd % 8 == 0 && alignment_of(gemm->aux) == 16); /* required by cuBLASLt */
    plan *plan = NULL;
    if (!device->plans->fuses || gemm->type != CUDA_R_16BF || !aligned || gemm->M <= 0 || gemm->N <= 0 ||
        gemm->K <= 0) {
        return false;
    }
    const cublasStatus_t status = multiply(device, gemm, &plan);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) {
        plan->count = 0; /* also where it named an algorithm and then refused it */
        return false;
    }
    if (status != CUBLAS_STATUS_SUCCESS) {
        report_failure(device, gemm, status);
    }
    return true;
}
