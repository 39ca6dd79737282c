/* int8_cuda_90a.cu - the product of int8 activations and ternary weights on compute capability 9.0 (target
 * sm_90a).
 *
 * A block makes tiles of 128 x 256 outputs one after the other. One thread copies tiles of both factors, 128
 * bytes of k at a time, into a ring of four stages; two warpgroups of 64 rows each multiply them and write
 * their outputs. Two blocks of a cluster, one below the other, share the weight's tiles: each copies half of
 * them into both, which halves what the weight costs of the second cache's bandwidth. */
#include "boxes_cuda.cuh"
#include "int8_cuda.cuh"
#include "mma.cuh"
#include "sm90.cuh"

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

typedef struct ring {
    stage stages[STAGES];
    p4_barrier full[STAGES];  /* both factors have come */
    p4_barrier empty[STAGES]; /* all warps of the cluster that read it are done */
} ring;

enum { SHARED_BYTES = (int)sizeof(ring) + ALIGN };

/* --- the thread that copies ------------------------------------------------------------------------ */

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

/* --- the warpgroups that multiply ------------------------------------------------------------------ */

/* Word i of a quad's lane c becomes word c of its lane i. */
static __device__ __forceinline__ void turn_quad(uint32_t (&word)[4])
{
    const int lane = (int)threadIdx.x % 4;
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if ((i & bit) == 0) {
                const bool high = (lane & bit) != 0;
                const uint32_t got = __shfl_xor_sync(0xffffffffu, high ? word[i] : word[i | bit], bit);
                word[i] = high ? got : word[i];
                word[i | bit] = high ? word[i | bit] : got;
            }
        }
    }
}

/* Two columns of rows n and n + 8, of sum[at] to sum[at + 3], as pairs; those beyond the `left` columns are
 * anything. */
template <bool WHOLE, bool BIAS>
static __device__ __forceinline__ void make_pairs(uint32_t *upper, uint32_t *lower, const int (&sum)[SUMS],
                                                  int at, const float (&token)[2], const float *row,
                                                  const float *bias, int left)
{
    float scale[2], v[4];
    if (WHOLE) {
        const float2 pair = __ldg((const float2 *)row);
        scale[0] = pair.x;
        scale[1] = pair.y;
    } else {
        scale[0] = left > 0 ? __ldg(row) : 0.0f;
        scale[1] = left > 1 ? __ldg(row + 1) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[i] = p4_int8_value(sum[at + i], token[i / 2], scale[i % 2]);
        if (BIAS) {
            v[i] = p4_int8_biased(v[i], WHOLE || left > i % 2 ? __ldg(bias + i % 2) : 0.0f);
        }
    }
    *upper = p4_pair_bf16(v[0], v[1]);
    *lower = p4_pair_bf16(v[2], v[3]);
}

/* A row's pairs of a quad of lanes, of every eighth column from o, `left` of which exist. Whole: the lanes
 * trade, so that each writes eight columns, 16 bytes. */
template <bool WHOLE>
static __device__ __forceinline__ void put_pairs(uint16_t *y, uint32_t (&word)[4], bool exists, int left)
{
    const int c = (int)threadIdx.x % 4;
    if (WHOLE) {
        turn_quad(word);
        if (exists) {
            __stwb((uint4 *)(y + 8 * c), make_uint4(word[0], word[1], word[2], word[3]));
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int at = 8 * (i / 2) + 2 * c + i % 2;
            if (exists && at < left) {
                y[at] = (uint16_t)(word[i / 2] >> 16 * (i % 2));
            }
        }
    }
}

/* This warp's outputs: 16 rows from `row`, 256 columns from `col`; whole: all columns exist and rows of y are
 * aligned to 16 bytes. */
template <bool WHOLE, bool BIAS>
static __device__ __forceinline__ void put_outputs(const p4_int8_product &p, const int (&sum)[SUMS],
                                                   int64_t row, int col)
{
    const int lane = (int)threadIdx.x % P4_WARP, c = 2 * (lane % 4), left = (int)p.out - col;
    const float *scale = p.row + col + c, *bias = BIAS ? p.bias + col + c : NULL;
    uint16_t *y[2];
    bool exists[2];
    float token[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t n = row + 8 * h + lane / 4;
        exists[h] = n < p.N;
        token[h] = exists[h] ? __ldg(p.token + n) : 0.0f;
        y[h] = (uint16_t *)p.y + n * p.out + col;
    }
#pragma unroll
    for (int j = 0; j < COLS; j += 32) {
        uint32_t upper[4], lower[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = j + 8 * i;
            make_pairs<WHOLE, BIAS>(&upper[i], &lower[i], sum, at / 2, token, scale + at, bias + at,
                                    left - at - c);
        }
        put_pairs<WHOLE>(y[0] + j, upper, exists[0], left - j);
        put_pairs<WHOLE>(y[1] + j, lower, exists[1], left - j);
    }
}

/* This warp is done with a stage: every block of the cluster, which writes into it, is told. */
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
    const bool aligned = p.out % 8 == 0 && (uintptr_t)p.y % P4_VECTOR_BYTES == 0;
    p4_place here = {0, 0};
    int sum[SUMS];
    for (int i = (int)blockIdx.x / CLUSTER; i < all.down * all.across; i += (int)gridDim.x / CLUSTER) {
        int down, across, before = 0;
        p4_find_tile<BAND>(all, i, &down, &across);
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
            p4_wgmma_wait<1>(); /* the stage before has been read, this one is under way */
            if (k > 0) {
                give_back<CLUSTER>(r, before);
            }
            before = here.at;
            p4_step_on<STAGES>(&here);
        }
        p4_wgmma_wait<0>();
        give_back<CLUSTER>(r, before);
        p4_wgmma_sums(sum);
        const int64_t row = ((int64_t)down * CLUSTER + rank) * ROWS + half * HALF + warp * 16;
        const int col = across * COLS;
        if (aligned && col + COLS <= (int)p.out) {
            put_outputs<true, BIAS>(p, sum, row, col);
        } else {
            put_outputs<false, BIAS>(p, sum, row, col);
        }
    }
}

/* --- kernel and launch ----------------------------------------------------------------------------- */

template <int CLUSTER, bool BIAS>
static __global__ void __launch_bounds__(THREADS, 1)
    multiply(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap t_map,
             const __grid_constant__ p4_int8_product p, const p4_tiles all)
{
    extern __shared__ char memory[];
    ring *r = (ring *)(((uintptr_t)memory + ALIGN - 1) / ALIGN * ALIGN);
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
        __syncwarp(); /* the other lanes go on with this one */
    } else {
        p4_more_registers<SUM_REGISTERS>();
        multiply_tiles<CLUSTER, BIAS>(r, p, all);
    }
    p4_cluster_sync(); /* no block ends while another may still arrive at its barriers */
}

/* Boxes of data[rows, cols]. */
static bool describe_boxes(p4_device *device, CUtensorMap *map, const int8_t *data, int64_t rows,
                           int64_t cols)
{
    p4_boxes boxes = {};
    boxes.type = CU_TENSOR_MAP_DATA_TYPE_UINT8;
    boxes.data = data;
    boxes.cols = boxes.row_bytes = cols;
    boxes.rows = rows;
    boxes.box_cols = DEEP;
    boxes.box_rows = BOX;
    return p4_cuda_boxes(device, map, &boxes, "linear_forward_int8");
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
    if (!describe_boxes(device, &x_map, product->xq, product->N, product->in) ||
        !describe_boxes(device, &t_map, product->t, product->out, product->in)) {
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
