/* product.cuh - the product of bf16 factors on compute capability 9.0 (target sm_90a): what the
 * kernels that do something with its sums share.
 *
 * Two blocks of a cluster make tiles of 256 x 256 results, one after the other. One thread of a block copies
 * both factors, 64 of k at a time, into a ring of stages; two warpgroups multiply, 64 rows each. Both blocks
 * need the 256 columns' factor: each copies half of it into both.
 *
 * A kernel's `ring` (R below) holds stages[n], full[n]: both factors have come, and empty[n]: all warps of
 * the cluster that read the stage are done. Its shared memory is aligned to ALIGN. */
#ifndef P4_PRODUCT_90A_CUDA_CUH
#define P4_PRODUCT_90A_CUDA_CUH

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/sm90/sm90.cuh"

enum {
    SIDE = 64, /* of a box, in elements: as wide as the swizzle, the k of a stage, the rows of a warpgroup */
    TILE = 256,
    STEP = 16,     /* k of an instruction */
    PAIR = 2,      /* blocks of a cluster */
    ROW_BOXES = 2, /* of a block */
    COL_BOXES = TILE / SIDE,
    ROWS = ROW_BOXES * SIDE, /* of a block's half of a tile */
    GROUP = P4_WARP * 4,     /* threads of a warpgroup */
    WARPS = 8,               /* that multiply */
    SUMS = SIDE * TILE / GROUP,
    BOX_SUMS = SUMS / COL_BOXES,
    ALIGN = 1024,
    BAND = 8 /* rows of tiles that are walked together: their factors stay in the cache */
};

typedef struct box {
    uint16_t element[SIDE * SIDE];
} box;

typedef struct stage {
    box a[ROW_BOXES], b[COL_BOXES];
} stage;

typedef struct tile {
    int matrix, down, across;
} tile;

template <typename R> struct ring_of {
    enum { STAGES = sizeof(R::full) / sizeof(p4_barrier) };
};

/* One thread of a block calls; p4_cluster_sync follows. */
template <typename R> static __device__ __forceinline__ void open_ring(R *r)
{
    for (int i = 0; i < ring_of<R>::STAGES; i++) {
        p4_barrier_init(&r->full[i], 1);
        p4_barrier_init(&r->empty[i], WARPS * PAIR);
    }
}

/* Which of a tile's four boxes of rows a warpgroup computes: on the diagonal of a symmetric result, both
 * blocks take equally long. */
static __device__ __forceinline__ int row_box(int rank, int half)
{
    return half == 0 ? rank : 2 * PAIR - 1 - rank;
}

/* 16 bytes of a box: columns 8 chunk to 8 chunk + 7 of this row. */
static __device__ __forceinline__ void *box_place(const box *b, int row, int chunk)
{
    return (char *)b + row * SIDE * 2 + (chunk ^ row % 8) * 16;
}

/* Where a stage's boxes of a factor begin. */
typedef struct corner {
    int k, line, matrix; /* line: a row of A, a column of B */
} corner;

/* The thread that copies: waits for the stage and queues its boxes, of the tile's rows of A and columns of B
 * at k. A factor lies along k, or, if its flag is 1, across. */
template <int A_ACROSS, int B_ACROSS, typename R>
static __device__ __forceinline__ void copy_corners(R *r, p4_place *here, const CUtensorMap *a_map, corner a,
                                                    const CUtensorMap *b_map, corner b, int rank)
{
    stage *to = &r->stages[here->at];
    p4_barrier *full = &r->full[here->at];
    p4_barrier_wait(&r->empty[here->at], here->parity ^ 1);
    p4_barrier_expect(full, (int)sizeof(stage));
#pragma unroll
    for (int i = 0; i < ROW_BOXES; i++) {
        const int line = a.line + row_box(rank, i) * SIDE;
        p4_box_load(&to->a[i], a_map, A_ACROSS ? line : a.k, A_ACROSS ? a.k : line, a.matrix, full);
    }
#pragma unroll
    for (int i = 0; i < COL_BOXES / PAIR; i++) { /* this block's half, for both */
        const int box = rank * (COL_BOXES / PAIR) + i, line = b.line + box * SIDE;
        p4_box_load_to(3, &to->b[box], b_map, B_ACROSS ? line : b.k, B_ACROSS ? b.k : line, b.matrix, full);
    }
    p4_step_on<ring_of<R>::STAGES>(here);
}

/* The same where both factors are cut alike. */
template <int A_ACROSS, int B_ACROSS, typename R>
static __device__ __forceinline__ void copy_stage(R *r, p4_place *here, const CUtensorMap *a_map,
                                                  const CUtensorMap *b_map, int k, tile t, int rank)
{
    const corner a = {k, t.down * TILE, t.matrix}, b = {k, t.across * TILE, t.matrix};
    copy_corners<A_ACROSS, B_ACROSS>(r, here, a_map, a, b_map, b, rank);
}

/* This warp has finished with a stage: tells both blocks, as each writes into it. */
template <typename R> static __device__ __forceinline__ void give_back(R *r, int at)
{
    const int lane = (int)threadIdx.x % P4_WARP;
    if (lane < PAIR) {
        p4_barrier_arrive(&r->empty[at], lane);
    }
}

/* 16 of k from k of a stage, as one product of COLS columns or, HALVES, as two of half the tile. */
template <int COLS, int A_ACROSS, int B_ACROSS, bool HALVES>
static __device__ __forceinline__ void add_step(float (&sum)[SUMS], uint64_t a, uint64_t b, int k, bool add)
{
    a += A_ACROSS ? 8 * k : k / 8;
    b += B_ACROSS ? 8 * k : k / 8;
    if (HALVES) {
        p4_wgmma_bf16<TILE / 2, A_ACROSS, B_ACROSS>(sum, a, b, add);
        p4_wgmma_bf16<TILE / 2, A_ACROSS, B_ACROSS, SUMS / 2>(sum, a, b + sizeof(box) / 16 * COL_BOXES / 2,
                                                              add);
    } else {
        p4_wgmma_bf16<COLS, A_ACROSS, B_ACROSS>(sum, a, b, add);
    }
}

/* sum (= or +=) the products of `steps` stages, of the first COLS columns. HALVES: for blocks whose threads
 * have less than 154 registers at their start, for which ptxas refuses a product of 256 columns. */
template <int COLS, int A_ACROSS, int B_ACROSS, bool HALVES = false, typename R>
static __device__ __forceinline__ void add_products(R *r, p4_place *here, float (&sum)[SUMS], int half,
                                                    int steps, bool add)
{
    int before = 0;
    for (int i = 0; i < steps; i++) {
        const stage *s = &r->stages[here->at];
        p4_barrier_wait(&r->full[here->at], here->parity);
        const uint64_t a = A_ACROSS ? p4_wgmma_across(&s->a[half]) : p4_wgmma_rows(&s->a[half]);
        const uint64_t b = B_ACROSS ? p4_wgmma_across(s->b) : p4_wgmma_rows(s->b);
        p4_wgmma_begin();
#pragma unroll
        for (int k = 0; k < SIDE; k += STEP) {
            add_step<COLS, A_ACROSS, B_ACROSS, HALVES>(sum, a, b, k, add || i + k > 0);
        }
        p4_wgmma_end();
        p4_wgmma_wait<1>(); /* the previous stage has been read, this one is in flight */
        if (i > 0) {
            give_back(r, before);
        }
        before = here->at;
        p4_step_on<ring_of<R>::STAGES>(here);
    }
    p4_wgmma_wait<0>();
    give_back(r, before);
    p4_wgmma_sums(sum);
}

/* Box q of this warpgroup's sums, or its mirror image, in bf16; a warp writes 16 rows (columns). */
template <bool MIRRORED>
static __device__ __forceinline__ void write_box(box *to, const float (&sum)[SUMS], int q, float scale)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x % GROUP / P4_WARP;
#pragma unroll
    for (int j = 0; j < BOX_SUMS; j += 8) { /* 16 columns from 2 j */
        const float *v = sum + q * BOX_SUMS + j;
        uint32_t pair[4];
#pragma unroll
        for (int i = 0; i < 4; i++) { /* rows 0, 8 below, then 8 columns on */
            pair[i] = p4_pair_bf16(scale * v[2 * i], scale * v[2 * i + 1]);
        }
        const int rows = 16 * warp + lane % 16, cols = 2 * j + lane / 16 * 8;
        if (MIRRORED) {
            p4_store_matrices_transposed(box_place(to, cols + lane % 8, rows / 8), pair);
        } else {
            p4_store_matrices(box_place(to, rows, cols / 8), pair);
        }
    }
}

/* --- host side of a launch -------------------------------------------------------------------- */

/* The tensor map of `matrices` matrices of bf16 [rows, cols], `stride` elements from one to the next. False
 * records a failure. */
static inline bool make_tensor_map(p4_device *device, CUtensorMap *map, const void *data, int64_t rows,
                                   int64_t cols, int64_t matrices, int64_t stride, const char *what)
{
    p4_tensor_map_spec spec = {};
    spec.type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    spec.data = data;
    spec.rows = rows;
    spec.cols = cols;
    spec.row_bytes = 2 * cols;
    spec.matrices = matrices;
    spec.matrix_bytes = 2 * stride;
    spec.box_cols = spec.box_rows = SIDE;
    return p4_tensor_map_make(device, map, &spec, what);
}

/* Launches a kernel in pairs of blocks, at most as many as there are processors, for so many tiles. */
template <typename... P, typename... A>
static void launch_pairs(p4_device *device, void (*kernel)(P...), int threads, int shared_bytes,
                         int64_t tiles, const char *what, const A &...arguments)
{
    const int64_t clusters = p4_max_i64(1, p4_min_i64(tiles, device->processors / PAIR));
    cudaLaunchAttribute together = {};
    together.id = cudaLaunchAttributeClusterDimension;
    together.val.clusterDim.x = PAIR;
    together.val.clusterDim.y = together.val.clusterDim.z = 1;
    const cudaLaunchConfig_t config = {dim3((unsigned)(clusters * PAIR)),
                                       dim3((unsigned)threads),
                                       (size_t)shared_bytes,
                                       device->stream,
                                       &together,
                                       1};
    p4_cuda_ok(device, cudaLaunchKernelEx(&config, kernel, arguments...), what);
}

#endif
