/* swiglu_backward.cu - SwiGLU's gradient on compute capability 9.0 (target sm_90a): the product dy w
 * together with the slopes of the function, so that the product itself is never written to memory.
 *
 * Products are those of kernels/sm90/product.cuh, with three stages. Reading gate and up and writing their
 * gradients takes half as long as multiplying, so both must overlap: the warpgroups that multiply leave a
 * tile in shared memory, rounded to bf16 as the implementation `cublas` rounds it, and start the next one;
 * meanwhile two more warpgroups finish it. Each of their warps takes the 16 rows that one multiplying warp
 * wrote, a row of 256 columns at a time. GELU stays with cuBLASLt (kernels/cuda/activation.cu): with its
 * shorter products this took longer. */
#include "kernels/cuda/mlp.cuh"
#include "kernels/cuda/swiglu_backward.cuh"
#include "kernels/sm90/product.cuh"

enum {
    STAGES = 3,
    THREADS = 5 * GROUP, /* the first copies, two multiply, two finish */
    FINISHERS = 2 * GROUP,
    COPY_REGISTERS = 24, /* 24 + 2 x 160 + 2 x 64 <= 5 x 96, with which a block of 640 threads starts */
    SUM_REGISTERS = 160,
    FINISH_REGISTERS = 64,
    DEEP = 2,               /* rows that a warp has fetched before it finishes the first */
    WARP_ROWS = 16,         /* that a warp multiplies or finishes */
    WIDTH = TILE / P4_WARP, /* columns of a lane: 16 bytes */
    /* This kernel is chosen if each pair of blocks has at least so many tiles, and products are so deep. */
    LEAST_TILES = 2,
    LEAST_DEPTH = 1024
};

typedef struct ring {
    stage stages[STAGES];
    box made[ROW_BOXES][COL_BOXES]; /* the tile that is finished */
    p4_barrier full[STAGES], empty[STAGES];
    p4_barrier ready[WARPS]; /* a warp's rows of `made` are written */
    p4_barrier taken[WARPS]; /* and read */
} ring;

enum { SHARED_BYTES = (int)sizeof(ring) + ALIGN };

typedef struct work {
    int rows, cols, depth; /* N, F, out */
    p4_tiles tiles;
    const __nv_bfloat16 *x; /* gate | up */
    __nv_bfloat16 *d;
} work;

static __device__ __forceinline__ tile find_tile(const work &p, int index)
{
    tile t = {0, 0, 0};
    p4_find_tile<BAND>(p.tiles, index, &t.down, &t.across);
    return t;
}

static __device__ __forceinline__ void copy_tiles(ring *r, const CUtensorMap *dy_map,
                                                  const CUtensorMap *w_map, const work &p)
{
    const int rank = (int)blockIdx.x % PAIR;
    p4_place here = {0, 0};
    for (int i = (int)blockIdx.x / PAIR; i < p.tiles.down * p.tiles.across; i += (int)gridDim.x / PAIR) {
        const tile t = find_tile(p, i);
        for (int k = 0; k < p.depth; k += SIDE) {
            copy_stage<0, 1>(r, &here, dy_map, w_map, k, t, rank);
        }
    }
}

static __device__ __forceinline__ void multiply_tiles(ring *r, const work &p)
{
    const int rank = (int)blockIdx.x % PAIR, lane = (int)threadIdx.x % P4_WARP;
    const int warp = (int)threadIdx.x / P4_WARP - GROUP / P4_WARP, half = warp / (WARPS / ROW_BOXES);
    p4_place here = {0, 0};
    uint32_t parity = 0;
    float sum[SUMS];
    for (int i = (int)blockIdx.x / PAIR; i < p.tiles.down * p.tiles.across; i += (int)gridDim.x / PAIR) {
        add_products<TILE, 0, 1, true>(r, &here, sum, half, (p.depth + SIDE - 1) / SIDE, false);
        p4_barrier_wait(&r->taken[warp], parity ^ 1);
#pragma unroll
        for (int q = 0; q < COL_BOXES; q++) {
            write_box<false>(&r->made[half][q], sum, q, 1.0f);
        }
        __syncwarp();
        if (lane == 0) {
            p4_barrier_arrive(&r->ready[warp], rank);
        }
        parity ^= 1;
    }
}

/* --- the warpgroups that finish --------------------------------------------------------------- */

/* This warp's rows of a tile, of which `count` exist, and this lane's columns in the first. */
typedef struct part {
    int64_t at, width; /* of an element of x and d, gate; of their rows */
    int count;
} part;

static __device__ __forceinline__ part find_part(const work &p, tile t, int warp)
{
    const int lane = (int)threadIdx.x % P4_WARP, rank = (int)blockIdx.x % PAIR;
    const int half = warp / (WARPS / ROW_BOXES), col = t.across * TILE + lane * WIDTH;
    const int row = t.down * TILE + row_box(rank, half) * SIDE + warp % (WARPS / ROW_BOXES) * WARP_ROWS;
    const int64_t width = 2 * (int64_t)p.cols;
    return {row * width + col, width, col < p.cols ? min((int)WARP_ROWS, p.rows - row) : 0};
}

/* Elements that do not exist are not written. */
static __device__ __forceinline__ void fetch_row(uint4 (&to)[2], const work &p, const part &here, int row)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (row < here.count) {
            to[i] = __ldcs((const uint4 *)(p.x + here.at + row * here.width + i * p.cols));
        }
    }
}

static __device__ __forceinline__ void unpack(float (&to)[WIDTH], uint4 from)
{
    const uint32_t pair[WIDTH / 2] = {from.x, from.y, from.z, from.w};
#pragma unroll
    for (int i = 0; i < WIDTH; i++) {
        to[i] = __uint_as_float(i % 2 ? pair[i / 2] & 0xffff0000u : pair[i / 2] << 16);
    }
}

static __device__ __forceinline__ void put(__nv_bfloat16 *to, const float (&from)[WIDTH])
{
    __stcs((uint4 *)to, make_uint4(p4_pair_bf16(from[0], from[1]), p4_pair_bf16(from[2], from[3]),
                                   p4_pair_bf16(from[4], from[5]), p4_pair_bf16(from[6], from[7])));
}

/* The product `made` goes through the function's slopes at gate and up. */
static __device__ __forceinline__ void finish_row(const work &p, const part &here, int row, uint4 made,
                                                  const uint4 (&x)[2])
{
    __nv_bfloat16 *to = p.d + here.at + row * here.width;
    float d[WIDTH], gate[WIDTH], up[WIDTH];
    unpack(d, made);
    unpack(gate, x[0]);
    unpack(up, x[1]);
#pragma unroll
    for (int i = 0; i < WIDTH; i++) {
        p4_gated_backward<__nv_bfloat16, P4_SILU>(d[i], &gate[i], &up[i]);
    }
    put(to, gate);
    put(to + p.cols, up);
}

static __device__ __forceinline__ void finish_tiles(ring *r, const work &p)
{
    const int lane = (int)threadIdx.x % P4_WARP, rank = (int)blockIdx.x % PAIR;
    const int warp = (int)threadIdx.x / P4_WARP - (THREADS - FINISHERS) / P4_WARP;
    const box *made = &r->made[warp / (WARPS / ROW_BOXES)][lane / (P4_WARP / COL_BOXES)];
    const int first = warp % (WARPS / ROW_BOXES) * WARP_ROWS, chunk = lane % (P4_WARP / COL_BOXES);
    uint32_t parity = 0;
    for (int i = (int)blockIdx.x / PAIR; i < p.tiles.down * p.tiles.across; i += (int)gridDim.x / PAIR) {
        const part here = find_part(p, find_tile(p, i), warp);
        uint4 x[DEEP][2] = {};
#pragma unroll
        for (int k = 0; k < DEEP; k++) {
            fetch_row(x[k], p, here, k);
        }
        p4_barrier_wait(&r->ready[warp], parity);
        for (int row = 0; row < here.count; row += DEEP) {
#pragma unroll
            for (int k = 0; k < DEEP; k++) {
                if (row + k < here.count) {
                    const uint4 d = *(const uint4 *)box_place(made, first + row + k, chunk);
                    finish_row(p, here, row + k, d, x[k]);
                    fetch_row(x[k], p, here, row + k + DEEP);
                }
            }
        }
        __syncwarp();
        if (lane == 0) {
            p4_barrier_arrive(&r->taken[warp], rank);
        }
        parity ^= 1;
    }
}

/* --- kernel and launch ------------------------------------------------------------------------ */

static __global__ void __launch_bounds__(THREADS, 1)
    backward(const __grid_constant__ CUtensorMap dy_map, const __grid_constant__ CUtensorMap w_map,
             const __grid_constant__ work p)
{
    extern __shared__ char memory[];
    ring *r = (ring *)(((uintptr_t)memory + ALIGN - 1) / ALIGN * ALIGN);
    if (threadIdx.x == 0) {
        open_ring(r);
        for (int i = 0; i < WARPS; i++) {
            p4_barrier_init(&r->ready[i], 1);
            p4_barrier_init(&r->taken[i], 1);
        }
        p4_barrier_init_done();
    }
    p4_cluster_sync();
    if (threadIdx.x < GROUP) {
        p4_fewer_registers<COPY_REGISTERS>();
        if (threadIdx.x == 0) {
            copy_tiles(r, &dy_map, &w_map, p);
        }
        __syncwarp(); /* the other lanes continue with this one */
    } else if (threadIdx.x < THREADS - FINISHERS) {
        p4_more_registers<SUM_REGISTERS>();
        multiply_tiles(r, p);
    } else {
        p4_fewer_registers<FINISH_REGISTERS>();
        finish_tiles(r, p);
    }
    p4_cluster_sync(); /* no block ends while another may still arrive at its barriers */
}

static const char name[] = "swiglu backward";

bool p4_cuda_swiglu_own_open(p4_device *device)
{
    return p4_cuda_ok(
        device, cudaFuncSetAttribute(backward, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES),
        name);
}

/* A tile is finished beside the product of the next one, which is what this kernel gains. So a pair of blocks
 * needs several tiles, and the product of a tile has to take as long as finishing it, which is independent of
 * the depth. */
static bool is_large(const p4_device *device, p4_tiles tiles, int64_t depth)
{
    return depth >= LEAST_DEPTH && tiles.down * tiles.across >= LEAST_TILES * (device->processors / PAIR);
}

bool p4_cuda_swiglu_own_backward(p4_device *device, const p4_linear_gated_backward_args *call)
{
    const uintptr_t addresses =
        P4_ADDRESS(call->dy) | P4_ADDRESS(call->w) | P4_ADDRESS(call->gate_up) | P4_ADDRESS(call->dgate_up);
    const p4_tiles tiles = {(int)p4_ceil_div(call->N, TILE), (int)p4_ceil_div(call->F, TILE)};
    CUtensorMap dy, w;
    if (!device->swiglu_own || call->function != P4_SILU ||
        !p4_cuda_wide(addresses, 2 * (call->F | call->out)) || call->out <= 0 ||
        !(device->swiglu_always || is_large(device, tiles, call->out))) {
        return false;
    }
    work p = {};
    p.rows = (int)call->N;
    p.cols = (int)call->F;
    p.depth = (int)call->out;
    p.tiles = tiles;
    p.x = (const __nv_bfloat16 *)call->gate_up;
    p.d = (__nv_bfloat16 *)call->dgate_up;
    if (make_tensor_map(device, &dy, call->dy, call->N, call->out, 1, call->N * call->out, name) &&
        make_tensor_map(device, &w, call->w, call->out, call->F, 1, call->out * call->F, name)) {
        launch_pairs(device, backward, THREADS, SHARED_BYTES, (int64_t)tiles.down * tiles.across, name, dy, w,
                     p);
    }
    return true;
}
