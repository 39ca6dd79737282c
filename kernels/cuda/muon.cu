/* muon.cu - one Muon step (docs/methods.md 4) of many matrices of one shape: momentum, orthogonalisation by
 * Newton-Schulz, update.
 *
 * The products run in the device's compute type: on tensor cores with bf16 operands and fp32 sums, or in
 * fp32. The workspace holds several matrices one after another, so that every product is one strided batch.
 * A tall matrix is stored there transposed, so that X is always [m, n], m <= n.
 *
 * A step of Newton-Schulz is A = X X' (2 m^2 n operations), A^2 (2 m^3) and (aI + bA + cA^2) X (2 m^2 n).
 * The first two are symmetric. Of these, the squares left of the diagonal are computed and then mirrored;
 * halving the blocks on the diagonal L times leaves 2^-1 + 2^-(L+1) of the work. Over the matrices of a
 * Llama 1.1B the five steps are 48.3e12 operations in full and 35.7e12 with L = 3. The polynomial of the
 * first step also divides by the norm of X. aI is part of the polynomial, so that its product need not read
 * X a second time; rounding it costs no more accuracy than rounding X does.
 *
 * The implementation `own` (kernels/cuda/muon.cuh) takes the same steps in kernels of its own, leaves a
 * tall X as it is and updates the weights from the last product; it computes 34.8e12 operations of the
 * 48.3e12.
 *
 * Two halves of the matrices run concurrently on two streams: while one has too few tiles left to fill the
 * GPU, or waits for memory, the other computes. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/muon_tiles.cuh"
#include "kernels/gpu_sizes.h"

enum {
    STEPS = 5,
    LANES = P4_GPU_MUON_LANES,
    LEVELS = 3,     /* L above */
    BLOCK_MIN = 64, /* smaller blocks on the diagonal cost more than they save */
    PARTS = 512,    /* at most so many partial sums of a matrix */
    ALIGN = 16,     /* elements: matrices start on multiples */
    REGION = 256    /* bytes: regions of the workspace start on multiples */
};
static const int64_t work_bytes_max = P4_GPU_MUON_WORK_BYTES;

/* How the matrices of one shape are processed: decided by shape, number and implementation alone. Strides and
 * counts in elements. */
typedef struct muon_plan {
    int64_t rows, cols, m, n; /* m <= n: the sides */
    int levels;               /* how often blocks on the diagonal are halved */
    int64_t x_stride;         /* X and its successor: [m, n] */
    int64_t s_stride;         /* A, then the polynomial, in full [m, m] */
    int64_t g_stride;     /* A: m rows and one element, so that all blocks on diagonals are evenly spaced */
    int64_t parts;        /* partial sums a matrix */
    int64_t lanes, share; /* share: matrices of a lane */
    int64_t batch;        /* matrices in a lane at once */
    bool own;             /* X [rows, cols] and the kernels of kernels/sm90/muon.cu */
} muon_plan;

/* A lane's stream and the places of its batch. */
typedef struct muon_lane {
    cudaStream_t stream;
    void *blas_work;
    char *x, *next, *S, *G;
    double *partial;
    float *factor;
} muon_lane;

/* Runs `...` with `elem` the activation type, S the type of stored state and W elements of one access. */
#define BY_ACT_AND_STATE(device, half_state, wide, ...) \
    do {                                                \
        if (half_state) {                               \
            typedef __nv_bfloat16 S;                    \
            P4_BY_ACT(device, wide, __VA_ARGS__);       \
        } else {                                        \
            typedef float S;                            \
            P4_BY_ACT(device, wide, __VA_ARGS__);       \
        }                                               \
    } while (0)

static int64_t round_up(int64_t count, int64_t to)
{
    return p4_ceil_div(count, to) * to;
}

/* Bytes that `batch` matrices take in a lane. *lane, unless NULL, gets its places in memory that starts at
 * `work`. */
static int64_t lay_out(const p4_device *device, const muon_plan *plan, int64_t batch, char *work,
                       muon_lane *lane)
{
    const int64_t each = p4_act_bytes(device) * batch;
    const int64_t x = round_up(plan->x_stride * each, REGION), S = round_up(plan->s_stride * each, REGION);
    const int64_t G = round_up(plan->g_stride * each, REGION);
    const int64_t partial = round_up(plan->parts * batch * (int64_t)sizeof(double), REGION);
    if (lane) {
        lane->x = work;
        lane->next = lane->x + x;
        lane->S = lane->next + x;
        lane->G = lane->S + S;
        lane->partial = (double *)(lane->G + G);
        lane->factor = (float *)(lane->G + G + partial);
    }
    return 2 * x + S + G + partial + round_up(batch * (int64_t)sizeof(float), REGION);
}

static muon_plan plan_of(const p4_device *device, int64_t items, int64_t rows, int64_t cols)
{
    muon_plan p = {};
    p.rows = rows;
    p.cols = cols;
    p.own = device->muon_own && rows % MUON_SIDE == 0 && cols % MUON_SIDE == 0;
    p.m = p4_min_i64(rows, cols);
    p.n = p4_max_i64(rows, cols);
    for (int64_t side = p.m; p.levels < LEVELS && side % (2 * ALIGN) == 0 && side / 2 >= BLOCK_MIN;
         side /= 2) {
        p.levels++;
    }
    p.x_stride = round_up(p.m * p.n, ALIGN);
    p.s_stride = round_up(p.m * p.m, ALIGN);
    p.g_stride = round_up(p.m * (p.m + 1), ALIGN);
    p.parts = p4_min_i64(PARTS, p4_ceil_div(p.m, MUON_TILE) * p4_ceil_div(p.n, MUON_TILE));
    const int64_t one = lay_out(device, &p, 1, NULL, NULL);
    p.lanes = items > 1 && LANES * one <= work_bytes_max ? LANES : 1;
    const int64_t most = p4_min_i64(MUON_ITEMS, p4_max_i64(1, work_bytes_max / p.lanes / one));
    p.share = p4_ceil_div(items, p.lanes);
    p.batch = p4_ceil_div(p.share, p4_ceil_div(p.share, most));
    return p;
}

int64_t p4_cuda_muon_work_count(p4_device *device, int64_t items, int64_t rows, int64_t cols)
{
    if (items <= 0 || rows <= 0 || cols <= 0) {
        return 0;
    }
    const muon_plan plan = plan_of(device, items, rows, cols);
    return p4_ceil_div(plan.lanes * lay_out(device, &plan, plan.batch, NULL, NULL), (int64_t)sizeof(float));
}

/* Do all arrays of these items lie on 16 bytes? */
static bool items_wide(const p4_muon_item *items, int64_t count)
{
    uintptr_t addresses = 0;
    for (int64_t i = 0; i < count; i++) {
        addresses |= P4_ADDRESS(items[i].w) | P4_ADDRESS(items[i].buf) | P4_ADDRESS(items[i].g);
    }
    return p4_cuda_wide(addresses, 0);
}

/* May the tiles of a tall matrix be read and written 16 bytes at a time? */
static bool tiles_wide(const p4_device *device, const muon_plan *p, bool wide)
{
    return wide && p4_cuda_wide(0, p->rows * p4_act_bytes(device)) &&
           p4_cuda_wide(0, p->cols * p4_act_bytes(device));
}

/* X = u and the new momentum of every matrix, and factor = 1 / (|u| + 1e-7). */
static void start(p4_device *device, const muon_plan *p, const muon_lane *lane, const muon_items *items,
                  int64_t batch, const p4_muon_args *rates)
{
    const bool wide = items_wide(items->item, batch);
    const int64_t count = p->rows * p->cols, step = P4_FLAT_THREADS * P4_VECTOR_BYTES / 2;
    int64_t parts = p->parts;
    if (p->rows > p->cols && !p->own) {
        const dim3 grid((unsigned)parts, (unsigned)batch);
        BY_ACT_AND_STATE(device, rates->half, tiles_wide(device, p, wide),
                         momentum_tall<elem, S, W><<<grid, P4_FLAT_THREADS, 0, device->stream>>>(
                             *items, (elem *)lane->x, p->x_stride, lane->partial, rates->momentum, p->rows,
                             p->cols, rates->numbers));
    } else {
        const int64_t each = round_up(p4_ceil_div(count, parts), step);
        parts = p4_ceil_div(count, each);
        const dim3 grid((unsigned)parts, (unsigned)batch);
        BY_ACT_AND_STATE(device, rates->half, wide,
                         momentum_wide<elem, S, W><<<grid, P4_FLAT_THREADS, 0, device->stream>>>(
                             *items, (elem *)lane->x, p->x_stride, lane->partial, rates->momentum, count,
                             each, rates->numbers));
    }
    norm_factors<<<(unsigned)batch, P4_FLAT_THREADS, 0, device->stream>>>(lane->factor, lane->partial,
                                                                          (int)parts);
    p4_cuda_launched(device, "muon: momentum");
}

/* The blocks on and left of the diagonal of G = X X' of every matrix, X [m, K] at this stride. */
static void lower_gram(p4_device *device, const muon_plan *p, char *G, const char *X, int64_t K,
                       int64_t stride, int64_t batch)
{
    const int64_t each = p4_act_bytes(device);
    p4_cuda_gemm gemm = {};
    gemm.type = gemm.out_type = p4_cuda_act_type(device);
    gemm.trans_b = true;
    gemm.K = gemm.lda = gemm.ldb = K;
    gemm.ldd = p->m;
    gemm.alpha = 1.0f;
    gemm.B = X;
    for (int level = 0; level <= p->levels; level++) {
        /* 2^level squares on the diagonal: the lower left quarter of each; of the last level everything */
        const bool last = level == p->levels;
        const int64_t side = last ? p->m >> level : p->m >> (level + 1), below = last ? 0 : side;
        gemm.M = gemm.N = side;
        gemm.A = X + below * K * each;
        gemm.D = G + below * p->m * each;
        gemm.batch = batch << level;
        gemm.stride_a = gemm.stride_b = stride >> level;
        gemm.stride_d = p->g_stride >> level;
        p4_cuda_matmul(device, &gemm);
    }
}

static void fill(p4_device *device, const muon_plan *p, const muon_lane *lane, const float *factor,
                 bool polynomial, int64_t batch)
{
    const bool wide = p4_cuda_wide(0, p->m * p4_act_bytes(device));
    const int64_t across = p4_ceil_div(p->m, MUON_TILE);
    const dim3 grid((unsigned)(across * (across + 1) / 2), (unsigned)batch);
    if (polynomial) {
        P4_BY_ACT(device, wide,
                  fill_symmetric<elem, W, true><<<grid, P4_FLAT_THREADS, 0, device->stream>>>(
                      (elem *)lane->S, (const elem *)lane->G, factor, p->m, p->s_stride, p->g_stride));
    } else {
        P4_BY_ACT(device, wide,
                  fill_symmetric<elem, W, false><<<grid, P4_FLAT_THREADS, 0, device->stream>>>(
                      (elem *)lane->S, (const elem *)lane->G, factor, p->m, p->s_stride, p->g_stride));
    }
    p4_cuda_launched(device, "muon: polynomial");
}

/* One step of every matrix: next = (aI + bA + cA^2) X with A = X X'. factor: of X, NULL for 1. */
static void cublas_step(p4_device *device, const muon_plan *p, const muon_lane *lane, const float *factor,
                        int64_t batch)
{
    p4_cuda_gemm gemm = {};
    lower_gram(device, p, lane->G, lane->x, p->n, p->x_stride, batch);
    fill(device, p, lane, factor, false, batch);
    lower_gram(device, p, lane->G, lane->S, p->m, p->s_stride, batch);
    fill(device, p, lane, factor, true, batch);
    gemm.type = gemm.out_type = p4_cuda_act_type(device);
    gemm.M = gemm.K = gemm.lda = p->m;
    gemm.N = gemm.ldb = gemm.ldd = p->n;
    gemm.alpha = 1.0f;
    gemm.A = lane->S;
    gemm.B = lane->x;
    gemm.D = lane->next;
    gemm.batch = batch;
    gemm.stride_a = p->s_stride;
    gemm.stride_b = gemm.stride_d = p->x_stride;
    p4_cuda_matmul(device, &gemm);
}

static float update_scale(const muon_plan *p)
{
    return 0.2f * sqrtf((float)p->n);
}

/* Updates the weights by x. */
static void finish(p4_device *device, const muon_plan *p, const muon_lane *lane, const muon_items *items,
                   int64_t batch, const p4_muon_args *rates)
{
    const bool wide = items_wide(items->item, batch);
    const float scale = update_scale(p);
    if (p->rows > p->cols) {
        const dim3 grid((unsigned)(p4_ceil_div(p->rows, MUON_TILE) * p4_ceil_div(p->cols, MUON_TILE)),
                        (unsigned)batch);
        P4_BY_ACT(device, tiles_wide(device, p, wide),
                  update_tall<elem, W><<<grid, P4_FLAT_THREADS, 0, device->stream>>>(
                      *items, (const elem *)lane->x, p->x_stride, scale, rates->decay, p->rows, p->cols,
                      rates->numbers));
    } else {
        const int64_t count = p->rows * p->cols;
        const dim3 grid(p4_cuda_flat(count, p4_cuda_width(device, wide)), (unsigned)batch);
        P4_BY_ACT(device, wide,
                  update_wide<elem, W>
                  <<<grid, P4_FLAT_THREADS, 0, device->stream>>>(*items, (const elem *)lane->x, p->x_stride,
                                                                 scale, rates->decay, count, rates->numbers));
    }
    p4_cuda_launched(device, "muon: update");
}

/* As cublas_step, by own kernels. `last`: updates the weights too, and next stays as it is. */
static void own_step(p4_device *device, const muon_plan *p, const muon_lane *lane, const float *factor,
                     const muon_items *items, bool last, int64_t batch, const p4_muon_args *rates)
{
    muon_step step = {};
    step.X = lane->x;
    step.next = lane->next;
    step.A = lane->G;
    step.S = lane->S;
    step.factor = factor;
    step.rows = p->rows;
    step.cols = p->cols;
    step.batch = batch;
    step.x_stride = p->x_stride;
    step.s_stride = p->s_stride;
    step.update = last ? items : NULL;
    step.numbers = rates->numbers;
    step.scale = update_scale(p);
    step.decay = rates->decay;
    p4_cuda_muon_own_step(device, &step);
}

/* The whole step of `batch` matrices on the lane's queue. */
static void run_batch(p4_device *device, const muon_plan *p, const muon_lane *lane_now,
                      const p4_muon_item *h_items, int64_t batch, const p4_muon_args *rates)
{
    muon_lane lane = *lane_now; /* its x and next change places */
    muon_items items = {};
    memcpy(items.item, h_items, (size_t)batch * sizeof *h_items);
    device->stream = lane.stream;
    device->blas_work = lane.blas_work;
    start(device, p, &lane, &items, batch, rates);
    for (int step = 0; step < STEPS; step++) {
        const float *factor = step == 0 ? lane.factor : NULL;
        if (p->own) {
            own_step(device, p, &lane, factor, &items, step == STEPS - 1, batch, rates);
        } else {
            cublas_step(device, p, &lane, factor, batch);
        }
        char *swap = lane.x;
        lane.x = lane.next;
        lane.next = swap;
    }
    if (!p->own) {
        finish(device, p, &lane, &items, batch, rates);
    }
}

void p4_cuda_muon(p4_device *device, const p4_muon_args *args)
{
    const int64_t items = args->items;
    if (items <= 0 || args->rows <= 0 || args->cols <= 0) {
        return;
    }
    muon_plan plan = plan_of(device, items, args->rows, args->cols);
    plan.own = plan.own && items_wide(args->h_items, items);
    const cudaStream_t stream = device->stream;
    void *const blas_work = device->blas_work;
    muon_lane lane[LANES] = {};
    lane[0].stream = stream;
    lane[0].blas_work = blas_work;
    lane[1].stream = device->side;
    lane[1].blas_work = p4_cuda_scratch(device, P4_BLAS_WORK_BYTES);
    for (int64_t l = 0, at = 0; l < plan.lanes; l++) {
        at += lay_out(device, &plan, plan.batch, (char *)args->work + at, &lane[l]);
    }
    if (plan.lanes > 1) {
        p4_cuda_ok(device, cudaEventRecord(device->side_may_start, stream), "muon");
        p4_cuda_ok(device, cudaStreamWaitEvent(device->side, device->side_may_start, 0), "muon");
    }
    for (int64_t first = 0; first < plan.share; first += plan.batch) {
        for (int64_t l = 0; l < plan.lanes; l++) {
            const int64_t begin = l * plan.share + first;
            const int64_t end = p4_min_i64(p4_min_i64(begin + plan.batch, (l + 1) * plan.share), items);
            if (begin < end) {
                run_batch(device, &plan, &lane[l], args->h_items + begin, end - begin, args);
            }
        }
    }
    device->stream = stream;
    device->blas_work = blas_work;
    if (plan.lanes > 1) {
        p4_cuda_ok(device, cudaEventRecord(device->side_done, device->side), "muon");
        p4_cuda_ok(device, cudaStreamWaitEvent(stream, device->side_done, 0), "muon");
    }
}
