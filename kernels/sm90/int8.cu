/* int8.cu - the product of int8 activations and ternary weights on compute capability 9.0 (target sm_90a).
 *
 * A block computes tiles of 128 x 256 outputs one after the other. One thread copies tiles of both factors,
 * 128 bytes of k at a time, into a ring of four stages; two warpgroups multiply 64 rows each and write
 * their outputs. Two blocks of a cluster, one below the other, share the weight's tiles: each copies half
 * of them into both, which halves the bandwidth that the weight takes from the second-level cache. */
#include "kernels/cuda/int8.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/sm90/sm90.cuh"

enum {
    ROWS = 128, /* of a block's tile */
    COLS = 256,
    DEEP = 128, /* bytes of k of a stage, as wide as the swizzle */
    STAGES = 4,
    HALF = ROWS / 2,     /* rows of a warpgroup */
    BOX = 128,           /* rows of a copy */
    STEP = 32,           /* k of an instruction */
    GROUP = P4_WARP * 4, /* threads of a warpgroup */
    THREADS = 3 * GROUP, /* the first copies, two multiply */
    WARPS = 8,           /* that multiply */
    SUMS = HALF * COLS / GROUP,
    ALIGN = 1024,
    COPY_REGISTERS = 40, /* (40 + 2 x 232) x 128 threads <= 65536 */
    SUM_REGISTERS = 232,
    BAND = 8 /* rows of clusters' tiles that are walked together: their factors stay in the cache */
};

typedef struct stage {
    int8_t x[ROWS * DEEP], t[COLS * DEEP];
} stage;

/* What a warp scales the columns of its tile with. */
typedef struct column_scales {
    float row[COLS], bias[COLS];
} column_scales;

typedef struct ring {
    stage stages[STAGES];
    column_scales columns[WARPS];
    p4_barrier full[STAGES];  /* both factors have arrived */
    p4_barrier empty[STAGES]; /* all warps of the cluster that read it have finished */
} ring;

enum { SHARED_BYTES = (int)sizeof(ring) + ALIGN };

/* --- the thread that copies ------------------------------------------------------------------- */

template <int CLUSTER>
static __device__ __forceinline__ void copy_tiles(ring *r, const CUtensorMap *x_map, const CUtensorMap *t_map,
                                                  const p4_int8_product &p, p4_tiles all)
{
    const int rank = (int)blockIdx.x % CLUSTER;
    p4_place here = {0, 0};
    for (int i = (int)blockIdx.x / CLUSTER; i < all.down * all.across; i += (int)gridDim.x / CLUSTER) {
        int down, across;
        p4_find_tile<BAND>(all, i, &down, &across);
        for (int k = 0; k < (int)p.in; k += DEEP) {
            stage *to = &r->stages[here.at];
            p4_barrier *full = &r->full[here.at];
            p4_barrier_wait(&r->empty[here.at], here.parity ^ 1);
            p4_barrier_expect(full, (int)sizeof *to);
            p4_tile_load(to->x, x_map, k, (down * CLUSTER + rank) * ROWS, full);
            if (CLUSTER == 1) {
                p4_tile_load(to->t, t_map, k, across * COLS, full);
                p4_tile_load(to->t + BOX * DEEP, t_map, k, across * COLS + BOX, full);
            } else { /* this block's half, for both */
                p4_tile_load_to(3, to->t + rank * BOX * DEEP, t_map, k, across * COLS + rank * BOX, full);
            }
            p4_step_on<STAGES>(&here);
        }
    }
}

/* --- the warpgroups that multiply ------------------------------------------------------------- */

/* Of this warp's tile, whose columns start at col and whose rows at row: scales of the columns, and of this
 * lane's two rows 1 / s; 0 for what does not exist. The sums are under way meanwhile. */
template <bool BIAS>
static __device__ __forceinline__ void fetch_scales(column_scales *to, float (&token)[2],
                                                    const p4_int8_product &p, int64_t row, int col)
{
    const int lane = (int)threadIdx.x % P4_WARP;
    __syncwarp(); /* the previous tile has been written */
#pragma unroll
    for (int i = 0; i < COLS / P4_WARP; i++) {
        const int at = i * P4_WARP + lane;
        const bool exists = col + at < (int)p.out;
        to->row[at] = exists ? __ldg(p.row + col + at) : 0.0f;
        if (BIAS) {
            to->bias[at] = exists ? __ldg(p.bias + col + at) : 0.0f;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t n = row + 8 * h + lane / 4;
        token[h] = n < p.N ? __frcp_rn(__ldg(p.s + n)) : 0.0f;
    }
    __syncwarp();
}

/* Two columns of rows n and n + 8, of sum[at] to sum[at + 3], as pairs. */
template <bool BIAS>
static __device__ __forceinline__ void make_pairs(uint32_t *upper, uint32_t *lower, const int (&sum)[SUMS],
                                                  int at, const float (&token)[2], const float *row,
                                                  const float *bias)
{
    const float2 scale = *(const float2 *)row, more = BIAS ? *(const float2 *)bias : make_float2(0.0f, 0.0f);
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[i] = p4_int8_value(sum[at + i], token[i / 2], i % 2 ? scale.y : scale.x);
        if (BIAS) {
            v[i] = p4_int8_biased(v[i], i % 2 ? more.y : more.x);
        }
    }
    *upper = p4_pair_bf16(v[0], v[1]);
    *lower = p4_pair_bf16(v[2], v[3]);
}

/* Pairs of columns 2 c and 8 + 2 c of a row, c = lane % 4, `left` columns of which exist from y. */
static __device__ __forceinline__ void put_some(uint16_t *y, const uint32_t (&word)[2], bool exists, int left)
{
    const int c = (int)threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int at = 8 * (i / 2) + 2 * c + i % 2;
        if (exists && at < left) {
            y[at] = (uint16_t)(word[i / 2] >> 16 * (i % 2));
        }
    }
}

/* The same, all of which exist. Lanes trade by two, so that each writes four columns, from its y, and the
 * quad 32 bytes. */
static __device__ __forceinline__ void put_whole(uint16_t *y, const uint32_t (&word)[2], bool exists)
{
    const bool odd = threadIdx.x % 2 != 0;
    const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? word[0] : word[1], 1);
    if (exists) {
        *(uint2 *)y = make_uint2(odd ? got : word[0], odd ? word[1] : got);
    }
}

/* This warp's outputs: 16 rows from `row`, 256 columns from `col`; whole: all columns exist and rows of y are
 * aligned to 8 bytes. */
template <bool WHOLE, bool BIAS>
static __device__ __forceinline__ void put_outputs(const p4_int8_product &p, const int (&sum)[SUMS],
                                                   const column_scales *by, const float (&token)[2],
                                                   int64_t row, int col)
{
    const int lane = (int)threadIdx.x % P4_WARP, c = lane % 4, left = (int)p.out - col;
    const int first = WHOLE ? 8 * (c % 2) + 2 * (c - c % 2) : 0;
    uint16_t *y[2];
    bool exists[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t n = row + 8 * h + lane / 4;
        exists[h] = n < p.N;
        y[h] = (uint16_t *)p.y + n * p.out + col + first;
    }
#pragma unroll
    for (int j = 0; j < COLS; j += 16) {
        uint32_t word[2][2]; /* of rows n, n + 8 */
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int at = j + 8 * i;
            make_pairs<BIAS>(&word[0][i], &word[1][i], sum, at / 2, token, by->row + at + 2 * c,
                             by->bias + at + 2 * c);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            if (WHOLE) {
                put_whole(y[h] + j, word[h], exists[h]);
            } else {
                put_some(y[h] + j, word[h], exists[h], left - j);
            }
        }
    }
}

/* This warp has finished with a stage: tells every block of the cluster, as each writes into it. */
template <int CLUSTER> static __device__ __forceinline__ void give_back(ring *r, int at)
{
    const int lane = (int)threadIdx.x % P4_WARP;
    if (lane < CLUSTER) {
        p4_barrier_arrive(&r->empty[at], lane);
    }
}

template <int CLUSTER, bool BIAS>
static __device__ __forceinline__ void multiply_tiles(ring *r, const p4_int8_product &p, p4_tiles all)
{
    const int rank = (int)blockIdx.x % CLUSTER, half = (int)threadIdx.x / GROUP - 1;
    const int warp = (int)threadIdx.x % GROUP / P4_WARP;
    const bool aligned = p.out % 4 == 0 && (uintptr_t)p.y % 8 == 0;
    column_scales *by = &r->columns[half * WARPS / 2 + warp];
    p4_place here = {0, 0};
    int sum[SUMS];
    for (int i = (int)blockIdx.x / CLUSTER; i < all.down * all.across; i += (int)gridDim.x / CLUSTER) {
        int down, across, before = 0;
        float token[2];
        p4_find_tile<BAND>(all, i, &down, &across);
        const int64_t row = ((int64_t)down * CLUSTER + rank) * ROWS + half * HALF + warp * 16;
        const int col = across * COLS;
        for (int k = 0; k < (int)p.in; k += DEEP) {
            p4_barrier_wait(&r->full[here.at], here.parity);
            const uint64_t x = p4_wgmma_rows(r->stages[here.at].x + half * HALF * DEEP);
            const uint64_t t = p4_wgmma_rows(r->stages[here.at].t);
            p4_wgmma_begin();
#pragma unroll
            for (int b = 0; b < DEEP; b += STEP) {
                p4_wgmma_int8(sum, x + b / 16, t + b / 16, k + b > 0);
            }
            p4_wgmma_end();
            if (k == 0) {
                fetch_scales<BIAS>(by, token, p, row, col);
            }
            p4_wgmma_wait<1>(); /* the previous stage has been read, this one is in flight */
            if (k > 0) {
                give_back<CLUSTER>(r, before);
            }
            before = here.at;
            p4_step_on<STAGES>(&here);
        }
        p4_wgmma_wait<0>();
        give_back<CLUSTER>(r, before);
        p4_wgmma_sums(sum);
        if (aligned && col + COLS <= (int)p.out) {
            put_outputs<true, BIAS>(p, sum, by, token, row, col);
        } else {
            put_outputs<false, BIAS>(p, sum, by, token, row, col);
        }
    }
}

/* --- kernel and launch ------------------------------------------------------------------------ */

template <int CLUSTER, bool BIAS>
static __global__ void __launch_bounds__(THREADS, 1)
    multiply(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap t_map,
             const __grid_constant__ p4_int8_product p, const p4_tiles all)
{
    extern __shared__ char memory[];
    ring *r = (ring *)(memory + (0 - (uintptr_t)memory) % ALIGN);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            p4_barrier_init(&r->full[i], 1);
            p4_barrier_init(&r->empty[i], WARPS * CLUSTER);
        }
        p4_barrier_init_done();
    }
    p4_cluster_sync();
    if (threadIdx.x < GROUP) {
        p4_fewer_registers<COPY_REGISTERS>();
        if (threadIdx.x == 0) {
            copy_tiles<CLUSTER>(r, &x_map, &t_map, p, all);
        }
        __syncwarp(); /* the other lanes continue with this one */
    } else {
        p4_more_registers<SUM_REGISTERS>();
        multiply_tiles<CLUSTER, BIAS>(r, p, all);
    }
    p4_cluster_sync(); /* no block ends while another may still arrive at its barriers */
}

/* The tensor map of data[rows, cols]. */
static bool make_tensor_map(p4_device *device, CUtensorMap *map, const int8_t *data, int64_t rows,
                            int64_t cols)
{
    p4_tensor_map_spec spec = {};
    spec.type = CU_TENSOR_MAP_DATA_TYPE_UINT8;
    spec.data = data;
    spec.cols = spec.row_bytes = cols;
    spec.rows = rows;
    spec.box_cols = DEEP;
    spec.box_rows = BOX;
    return p4_tensor_map_make(device, map, &spec, "linear_forward_int8");
}

template <int CLUSTER, bool BIAS>
static void launch(p4_device *device, const CUtensorMap *x_map, const CUtensorMap *t_map,
                   const p4_int8_product *p)
{
    const p4_tiles all = {(int)p4_ceil_div(p->N, ROWS * CLUSTER), (int)p4_ceil_div(p->out, COLS)};
    const int64_t clusters =
        p4_max_i64(1, p4_min_i64((int64_t)all.down * all.across, device->processors / CLUSTER));
    cudaLaunchAttribute together = {};
    together.id = cudaLaunchAttributeClusterDimension;
    together.val.clusterDim.x = CLUSTER;
    together.val.clusterDim.y = together.val.clusterDim.z = 1;
    const cudaLaunchConfig_t config = {
        dim3((unsigned)(clusters * CLUSTER)), dim3(THREADS), SHARED_BYTES, device->stream, &together, 1};
    p4_cuda_ok(device, cudaLaunchKernelEx(&config, multiply<CLUSTER, BIAS>, *x_map, *t_map, *p, all),
               "linear_forward_int8: product");
}

void p4_cuda_int8_own(p4_device *device, const p4_int8_product *product)
{
    CUtensorMap x_map, t_map;
    if (!make_tensor_map(device, &x_map, product->xq, product->N, product->in) ||
        !make_tensor_map(device, &t_map, product->t, product->out, product->in)) {
        return;
    }
    if (product->N > ROWS) {
        (product->bias ? launch<2, true> : launch<2, false>)(device, &x_map, &t_map, product);
    } else {
        (product->bias ? launch<1, true> : launch<1, false>)(device, &x_map, &t_map, product);
    }
}

bool p4_cuda_int8_own_open(p4_device *device)
{
    const char *what = "linear_forward_int8: shared memory";
    const cudaFuncAttribute shared = cudaFuncAttributeMaxDynamicSharedMemorySize;
    return p4_cuda_ok(device, cudaFuncSetAttribute(multiply<1, false>, shared, SHARED_BYTES), what) &&
           p4_cuda_ok(device, cudaFuncSetAttribute(multiply<1, true>, shared, SHARED_BYTES), what) &&
           p4_cuda_ok(device, cudaFuncSetAttribute(multiply<2, false>, shared, SHARED_BYTES), what) &&
           p4_cuda_ok(device, cudaFuncSetAttribute(multiply<2, true>, shared, SHARED_BYTES), what);
}
