/* muon.cu - Muon's products on compute capability 9.0 (target sm_90a).
 *
 * The products are those of kernels/sm90/product.cuh, with four stages; the warpgroups that multiply also
 * write.
 *
 * A tall X [n, m] stays as it lies: X'X is summed along rows (factors that lie across k), and S X' becomes
 * X S. So the last product may update the weights from its sums.
 *
 * Of symmetric results the tiles on and left of the diagonal are made, and written twice, mirrored. On a tile
 * of the diagonal, warpgroups 0 to 3 of the cluster need 64, 128, 192 and 256 columns: the first two take
 * products of half the width, one in each block. */
#include "kernels/cuda/muon.cuh"
#include "kernels/sm90/product.cuh"

enum {
    STAGES = 4,          /* start_sums reads COL_BOXES of them at once */
    OUT_BOXES = 2,       /* of a warpgroup: one is filled while the other is written */
    THREADS = 3 * GROUP, /* the first copies, two multiply */
    AHEAD = 16,          /* weights that a thread has loaded before it changes the first */
    COPY_REGISTERS = 40, /* (40 + 2 x 232) x 128 threads <= 65536 */
    SUM_REGISTERS = 232
};

/* GRAM: A = f^2 X X'. POLYNOMIAL: S = f (aI + bA + cA^2). NEXT: S X. UPDATE: w -= lr (scale S X + decay w).
 */
typedef enum kind { GRAM, POLYNOMIAL, NEXT, UPDATE } kind;

template <kind KIND, bool TALL> struct form {
    enum {
        SYMMETRIC = KIND == GRAM || KIND == POLYNOMIAL,
        A_ACROSS = KIND == GRAM && TALL, /* the rows' factor does not lie along k */
        B_ACROSS = KIND == GRAM ? TALL : KIND != POLYNOMIAL && !TALL
    };
};

typedef struct ring {
    stage stages[STAGES];
    box out[ROW_BOXES][OUT_BOXES];
    p4_barrier full[STAGES], empty[STAGES];
} ring;

enum { SHARED_BYTES = (int)sizeof(ring) + ALIGN };

typedef struct product {
    int rows, cols, depth; /* of a result; terms of each sum */
    int matrices;
    p4_tiles tiles;       /* of a result: [down, across]; symmetric: down of both */
    const float *factor;  /* f of each matrix, NULL for 1 */
    float *w[MUON_ITEMS]; /* UPDATE, with scale, decay, numbers->lr */
    float scale, decay;
    const p4_step_numbers *numbers;
} product;

template <bool SYMMETRIC> static __host__ __device__ __forceinline__ int tiles_each(const product &p)
{
    return SYMMETRIC ? p.tiles.down * (p.tiles.down + 1) / 2 : p.tiles.down * p.tiles.across;
}

template <bool SYMMETRIC> static __device__ __forceinline__ tile find_tile(const product &p, int index)
{
    const int each = tiles_each<SYMMETRIC>(p), rest = index % each;
    tile t = {index / each, 0, 0};
    if (SYMMETRIC) {
        t.down = triangle_row(rest);
        t.across = rest - t.down * (t.down + 1) / 2;
    } else {
        p4_find_tile<BAND>(p.tiles, rest, &t.down, &t.across);
    }
    return t;
}

/* --- the thread that copies ------------------------------------------------------------------- */

/* Prefetches this block's weights of the tile, a part of the rows in each of the `steps`. */
static __device__ __forceinline__ void prefetch_weights(const product &p, tile t, int rank, int step,
                                                        int steps)
{
    const int each = (ROWS + steps - 1) / steps, end = min(ROWS, (step + 1) * each);
    const int col = t.across * TILE, bytes = min(TILE, p.cols - col) * (int)sizeof(float);
    for (int i = step * each; i < end; i++) {
        const int row = t.down * TILE + row_box(rank, i / SIDE) * SIDE + i % SIDE;
        if (row < p.rows) {
            p4_bytes_prefetch(p.w[t.matrix] + (int64_t)row * p.cols + col, bytes);
        }
    }
}

template <kind KIND, bool TALL>
static __device__ __forceinline__ void copy_tiles(ring *r, const CUtensorMap *a_map, const CUtensorMap *b_map,
                                                  const product &p)
{
    typedef form<KIND, TALL> f;
    const bool symmetric = f::SYMMETRIC;
    const int rank = (int)blockIdx.x % PAIR, steps = (p.depth + SIDE - 1) / SIDE;
    p4_place here = {0, 0};
    for (int i = (int)blockIdx.x / PAIR; i < tiles_each<symmetric>(p) * p.matrices;
         i += (int)gridDim.x / PAIR) {
        const tile t = find_tile<symmetric>(p, i);
        int at = KIND == POLYNOMIAL ? t.across * COL_BOXES : 0; /* start_sums wants the tile's own columns */
        for (int step = 0; step < steps; step++) {
            copy_stage<f::A_ACROSS, f::B_ACROSS>(r, &here, a_map, b_map, at * SIDE, t, rank);
            if (KIND == UPDATE) {
                prefetch_weights(p, t, rank, step, steps);
            }
            at = at + 1 == steps ? 0 : at + 1;
        }
    }
}

/* --- the warpgroups that multiply ------------------------------------------------------------- */

/* sum = (b/c) A + (a/c) I of the tile: the first stages hold its own columns of A, in this warpgroup's rows.
 * Without branches: the sums must stay in the registers that the products add to. */
static __device__ __forceinline__ void start_sums(ring *r, p4_place here, float (&sum)[SUMS], int depth,
                                                  tile t, int rows, int half)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x % GROUP / P4_WARP;
    const int boxes = min((int)COL_BOXES, (depth - t.across * TILE + SIDE - 1) / SIDE), first = here.at;
    for (int q = 0; q < boxes; q++) {
        p4_barrier_wait(&r->full[here.at], here.parity);
        p4_step_on<STAGES>(&here);
    }
#pragma unroll
    for (int q = 0; q < COL_BOXES; q++) {
        const box *A = &r->stages[(first + q) % STAGES].a[half];
        const uint32_t exists =
            q < boxes ? 0xffffffffu : 0; /* beyond the last column the content is undefined */
        /* row less column of the thread's first sum; never 0 but in the box on the diagonal */
        const int off = t.down == t.across && q == rows ? 16 * warp + lane / 4 - lane % 4 * 2 : TILE;
#pragma unroll
        for (int j = 0; j < BOX_SUMS; j += 8) { /* 16 columns from 2 j */
            uint32_t pair[4];
            p4_load_matrices(pair, box_place(A, 16 * warp + lane % 16, j / 4 + lane / 16));
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const uint32_t bits = exists & (i % 2 ? pair[i / 2] & 0xffff0000u : pair[i / 2] << 16);
                const int col = 2 * j + i / 4 * 8 + i % 2, row = i / 2 % 2 * 8;
                sum[q * BOX_SUMS + j + i] =
                    NS_B / NS_C * __uint_as_float(bits) + (off == col - row ? NS_A / NS_C : 0.0f);
            }
        }
    }
}

/* Box q of this warpgroup's sums goes to (col, row), or its mirror image. *turn: which box of `out` is next.
 */
template <bool MIRRORED>
static __device__ __forceinline__ void send_box(box *out, const CUtensorMap *map, const float (&sum)[SUMS],
                                                int q, float scale, int col, int row, int matrix, int half,
                                                int *turn)
{
    const bool leads = (int)threadIdx.x % GROUP == 0;
    box *to = out + *turn;
    *turn ^= 1;
    if (leads) {
        p4_stores_read<OUT_BOXES - 1>(); /* the last that lay in this box */
    }
    p4_threads_sync(1 + half, GROUP);
    write_box<MIRRORED>(to, sum, q, scale);
    p4_shared_written();
    p4_threads_sync(1 + half, GROUP);
    if (leads) {
        p4_box_store(map, to, col, row, matrix);
        p4_stores_end();
    }
}

template <bool SYMMETRIC>
static __device__ __forceinline__ void send_sums(ring *r, const CUtensorMap *map, const product &p,
                                                 const float (&sum)[SUMS], tile t, int rows, int half,
                                                 float scale, int *turn)
{
    const int row = t.down * TILE + rows * SIDE, first = t.across * TILE;
    const bool diagonal = SYMMETRIC && t.down == t.across;
    const int exist = row < p.rows ? (p.cols - first + SIDE - 1) / SIDE : 0;
    const int boxes = min(diagonal ? rows + 1 : (int)COL_BOXES, exist);
#pragma unroll
    for (int q = 0; q < COL_BOXES; q++) {
        const int col = first + q * SIDE;
        if (q < boxes) {
            send_box<false>(r->out[half], map, sum, q, scale, col, row, t.matrix, half, turn);
            if (SYMMETRIC && !(diagonal && q == rows)) {
                send_box<true>(r->out[half], map, sum, q, scale, row, col, t.matrix, half, turn);
            }
        }
    }
}

/* The last step: X goes into the weights, 8 bytes at a time. */
static __device__ __forceinline__ void update_weights(const product &p, const float (&sum)[SUMS], tile t,
                                                      int rows)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x % GROUP / P4_WARP;
    const int row = t.down * TILE + rows * SIDE + 16 * warp + lane / 4;
    const int col = t.across * TILE + lane % 4 * 2;
    float *w = p.w[t.matrix] + (int64_t)row * p.cols + col;
    const float lr = p.numbers->lr;
#pragma unroll
    for (int first = 0; first < SUMS / 2; first += AHEAD) {
        float v[AHEAD][2];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int at = 2 * (first + i), h = at / 2 % 2 * 8, c = at / 4 * 8;
            if (row + h < p.rows && col + c < p.cols) {
                const float2 two = __ldcs((const float2 *)(w + (int64_t)h * p.cols + c));
                v[i][0] = two.x;
                v[i][1] = two.y;
            }
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int at = 2 * (first + i), h = at / 2 % 2 * 8, c = at / 4 * 8;
            const float x[2] = {sum[at], sum[at + 1]};
            muon_update(v[i], x, lr, p.scale, p.decay);
            if (row + h < p.rows && col + c < p.cols) {
                __stcs((float2 *)(w + (int64_t)h * p.cols + c), make_float2(v[i][0], v[i][1]));
            }
        }
    }
}

template <kind KIND, bool TALL>
static __device__ __forceinline__ void multiply_tiles(ring *r, const CUtensorMap *map, const product &p)
{
    typedef form<KIND, TALL> f;
    const bool symmetric = f::SYMMETRIC;
    const int rank = (int)blockIdx.x % PAIR, half = (int)threadIdx.x / GROUP - 1;
    const int rows = row_box(rank, half), steps = (p.depth + SIDE - 1) / SIDE;
    p4_place here = {0, 0};
    int turn = 0;
    float sum[SUMS];
    for (int i = (int)blockIdx.x / PAIR; i < tiles_each<symmetric>(p) * p.matrices;
         i += (int)gridDim.x / PAIR) {
        const tile t = find_tile<symmetric>(p, i);
        const float factor = symmetric && p.factor ? __ldg(p.factor + t.matrix) : 1.0f;
        if (KIND == POLYNOMIAL) {
            start_sums(r, here, sum, p.depth, t, rows, half);
            p4_wgmma_sums(sum);
        }
        if (symmetric && t.down == t.across && rows < COL_BOXES / 2) {
            add_products<TILE / 2, f::A_ACROSS, f::B_ACROSS>(r, &here, sum, half, steps, KIND == POLYNOMIAL);
        } else {
            add_products<TILE, f::A_ACROSS, f::B_ACROSS>(r, &here, sum, half, steps, KIND == POLYNOMIAL);
        }
        if (KIND == UPDATE) {
            update_weights(p, sum, t, rows);
        } else {
            const float scale = KIND == GRAM ? factor * factor : KIND == POLYNOMIAL ? NS_C * factor : 1.0f;
            send_sums<symmetric>(r, map, p, sum, t, rows, half, scale, &turn);
        }
    }
    p4_stores_read<0>(); /* the block's memory is no longer needed */
}

/* --- kernel and launch ------------------------------------------------------------------------ */

template <kind KIND, bool TALL>
static __global__ void __launch_bounds__(THREADS, 1)
    multiply(const __grid_constant__ CUtensorMap a_map, const __grid_constant__ CUtensorMap b_map,
             const __grid_constant__ CUtensorMap out_map, const __grid_constant__ product p)
{
    extern __shared__ char memory[];
    ring *r = (ring *)(((uintptr_t)memory + ALIGN - 1) / ALIGN * ALIGN);
    if (threadIdx.x == 0) {
        open_ring(r);
        p4_barrier_init_done();
    }
    p4_cluster_sync();
    if (threadIdx.x < GROUP) {
        p4_fewer_registers<COPY_REGISTERS>();
        if (threadIdx.x == 0) {
            copy_tiles<KIND, TALL>(r, &a_map, &b_map, p);
        }
        __syncwarp(); /* the other lanes continue with this one */
    } else {
        p4_more_registers<SUM_REGISTERS>();
        multiply_tiles<KIND, TALL>(r, &out_map, p);
    }
    p4_cluster_sync(); /* no block ends while another may still arrive at its barriers */
}

/* Of results [rows, cols], sums of depth terms. */
template <kind KIND, bool TALL>
static void launch(p4_device *device, const CUtensorMap *a_map, const CUtensorMap *b_map,
                   const CUtensorMap *out_map, product p, int64_t rows, int64_t cols, int64_t depth)
{
    p.rows = (int)rows;
    p.cols = (int)cols;
    p.depth = (int)depth;
    p.tiles.down = (int)p4_ceil_div(rows, TILE);
    p.tiles.across = (int)p4_ceil_div(cols, TILE);
    const int64_t tiles = (int64_t)tiles_each<form<KIND, TALL>::SYMMETRIC>(p) * p.matrices;
    launch_pairs(device, multiply<KIND, TALL>, THREADS, SHARED_BYTES, tiles, "muon: product", *a_map, *b_map,
                 *out_map, p);
}

template <bool TALL>
static void run_step(p4_device *device, const muon_step *step, const CUtensorMap *X, const CUtensorMap *next,
                     const CUtensorMap *A, const CUtensorMap *S)
{
    const int64_t m = p4_min_i64(step->rows, step->cols), n = p4_max_i64(step->rows, step->cols);
    const CUtensorMap *left = TALL ? X : S, *right = TALL ? S : X;
    product p = {};
    p.matrices = (int)step->batch;
    p.factor = step->factor;
    p.numbers = step->numbers;
    p.scale = step->scale;
    p.decay = step->decay;
    launch<GRAM, TALL>(device, X, X, A, p, m, m, n);
    launch<POLYNOMIAL, false>(device, A, A, S, p, m, m, m);
    if (step->update) {
        for (int64_t i = 0; i < step->batch; i++) {
            p.w[i] = step->update->item[i].w;
        }
        launch<UPDATE, TALL>(device, left, right, next, p, step->rows, step->cols, m);
    } else {
        launch<NEXT, TALL>(device, left, right, next, p, step->rows, step->cols, m);
    }
}

void p4_cuda_muon_own_step(p4_device *device, const muon_step *step)
{
    const int64_t m = p4_min_i64(step->rows, step->cols);
    CUtensorMap X, next, A, S;
    if (make_tensor_map(device, &X, step->X, step->rows, step->cols, step->batch, step->x_stride, "muon") &&
        make_tensor_map(device, &next, step->next, step->rows, step->cols, step->batch, step->x_stride,
                        "muon") &&
        make_tensor_map(device, &A, step->A, m, m, step->batch, step->s_stride, "muon") &&
        make_tensor_map(device, &S, step->S, m, m, step->batch, step->s_stride, "muon")) {
        (step->rows > step->cols ? run_step<true> : run_step<false>)(device, step, &X, &next, &A, &S);
    }
}

template <kind KIND, bool TALL> static bool take_shared(p4_device *device)
{
    return p4_cuda_ok(
        device,
        cudaFuncSetAttribute(multiply<KIND, TALL>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES),
        "muon: shared memory");
}

bool p4_cuda_muon_own_open(p4_device *device)
{
    return take_shared<GRAM, false>(device) && take_shared<GRAM, true>(device) &&
           take_shared<POLYNOMIAL, false>(device) && take_shared<NEXT, false>(device) &&
           take_shared<NEXT, true>(device) && take_shared<UPDATE, false>(device) &&
           take_shared<UPDATE, true>(device);
}
