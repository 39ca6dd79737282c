/* experts.cu - products of each expert's rows with its matrix on compute capability 9.0 (target sm_90a).
 *
 * Products are those of kernels/sm90/product.cuh, with four stages; the warpgroups that multiply also write.
 * How many rows an expert has is read on the device: every thread walks through the tiles of all experts in
 * the same order. A tile's rows behind the expert's last are those of the next expert. Where rows are rows of
 * the result, such results are not written; where rows are summed over, they are zeroed in one factor. */
#include "kernels/cuda/experts.cuh"
#include "kernels/sm90/product.cuh"

enum {
    STAGES = 4,
    THREADS = 3 * GROUP, /* the first copies, two multiply */
    AHEAD = 16,          /* pairs of gradients that a thread has loaded before it adds to the first */
    WARP_ROWS = 16,
    ROW_LANES = 8,       /* lanes that write a row of a box, 16 bytes each */
    COPY_REGISTERS = 40, /* (40 + 2 x 232) x 128 threads <= 65536 */
    SUM_REGISTERS = 232
};

/* FORWARD: y = x w'. INPUT: dx = dy w. WEIGHT: dw = dy' x, summed over an expert's rows. */
typedef enum kind { FORWARD, INPUT, WEIGHT } kind;

template <kind KIND> struct form {
    enum { A_ACROSS = KIND == WEIGHT, B_ACROSS = KIND != FORWARD };
};

typedef struct ring {
    stage stages[STAGES];
    box out[ROW_BOXES];
    p4_barrier full[STAGES], empty[STAGES];
} ring;

enum { SHARED_BYTES = (int)sizeof(ring) + ALIGN };

typedef struct product {
    int experts, cols;    /* columns of the result */
    int depth;            /* terms of each sum; WEIGHT: the expert's rows */
    int height;           /* WEIGHT: rows of the result */
    const int32_t *first; /* p4_routes.first */
    __nv_bfloat16 *rows;  /* FORWARD, INPUT: the result */
    float *dw;            /* WEIGHT: the result */
    bool accumulate;
} product;

/* The walk through the tiles: the expert it has come to. */
typedef struct walk {
    int expert, row, rows; /* the expert's first row, and how many it has */
    int before;            /* tiles of the experts before it */
} walk;

static __device__ __forceinline__ void visit(walk *w, const product &p, int expert)
{
    w->expert = expert;
    w->row = __ldg(p.first + expert);
    w->rows = __ldg(p.first + expert + 1) - w->row;
}

static __device__ __forceinline__ int across_of(const product &p)
{
    return (p.cols + TILE - 1) / TILE;
}

static __device__ __forceinline__ walk start_walk(const product &p)
{
    walk w = {0, 0, 0, 0};
    visit(&w, p, 0);
    return w;
}

/* Goes on to tile `index` of all, which is not before the last one; false: there are fewer. */
template <kind KIND>
static __device__ __forceinline__ bool walk_to(walk *w, tile *t, const product &p, int index)
{
    for (;;) {
        const int tiles = ((KIND == WEIGHT ? p.height : w->rows) + TILE - 1) / TILE * across_of(p);
        if (index - w->before < tiles) {
            t->matrix = w->expert;
            t->down = (index - w->before) / across_of(p);
            t->across = (index - w->before) % across_of(p);
            return true;
        }
        if (w->expert + 1 == p.experts) {
            return false;
        }
        w->before += tiles;
        visit(w, p, w->expert + 1);
    }
}

/* --- the thread that copies ------------------------------------------------------------------- */

template <kind KIND>
static __device__ __forceinline__ void copy_tiles(ring *r, const CUtensorMap *a_map, const CUtensorMap *b_map,
                                                  const product &p)
{
    const int rank = (int)blockIdx.x % PAIR;
    p4_place here = {0, 0};
    walk w = start_walk(p);
    tile t;
    for (int i = (int)blockIdx.x / PAIR; walk_to<KIND>(&w, &t, p, i); i += (int)gridDim.x / PAIR) {
        const int depth = KIND == WEIGHT ? w.rows : p.depth;
        for (int k = 0; k < depth; k += SIDE) {
            const corner a = {KIND == WEIGHT ? w.row + k : k, t.down * TILE + (KIND == WEIGHT ? 0 : w.row),
                              0};
            const corner b = {KIND == WEIGHT ? w.row + k : k, t.across * TILE, KIND == WEIGHT ? 0 : w.expert};
            copy_corners<form<KIND>::A_ACROSS, form<KIND>::B_ACROSS>(r, &here, a_map, a, b_map, b, rank);
        }
    }
}

/* --- the warpgroups that multiply ------------------------------------------------------------- */

/* The tile's sums go to the expert's rows. A warp writes the 16 rows that it multiplied, whole rows of a box
 * at a time. */
static __device__ __forceinline__ void write_rows(box *out, const product &p, const walk &w, tile t,
                                                  const float (&sum)[SUMS], int rows)
{
    const int lane = (int)threadIdx.x % P4_WARP, first = (int)threadIdx.x % GROUP / P4_WARP * WARP_ROWS;
    const int row = t.down * TILE + rows * SIDE + first, chunk = lane % ROW_LANES;
    __nv_bfloat16 *to = p.rows + (int64_t)(w.row + row) * p.cols;
#pragma unroll
    for (int q = 0; q < COL_BOXES; q++) {
        const int col = t.across * TILE + q * SIDE + chunk * (SIDE / ROW_LANES);
        __syncwarp(); /* the box before has been read */
        write_box<false>(out, sum, q, 1.0f);
        __syncwarp();
#pragma unroll
        for (int i = lane / ROW_LANES; i < WARP_ROWS; i += P4_WARP / ROW_LANES) {
            if (row + i < w.rows && col < p.cols) {
                *(uint4 *)(to + (int64_t)i * p.cols + col) = *(const uint4 *)box_place(out, first + i, chunk);
            }
        }
    }
}

/* The tile's sums go to the expert's gradient, or are added to it. Without terms they are undefined: 0. */
static __device__ __forceinline__ void write_gradient(const product &p, tile t, const float (&sum)[SUMS],
                                                      int rows, bool terms)
{
    const int lane = (int)threadIdx.x % P4_WARP, warp = (int)threadIdx.x % GROUP / P4_WARP;
    const int row = t.down * TILE + rows * SIDE + WARP_ROWS * warp + lane / 4;
    const int col = t.across * TILE + lane % 4 * 2;
    float *dw = p.dw + ((int64_t)t.matrix * p.height + row) * p.cols + col;
#pragma unroll
    for (int from = 0; from < SUMS / 2; from += AHEAD) {
        float2 v[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int at = 2 * (from + i), h = at / 2 % 2 * 8, c = at / 4 * 8;
            v[i] = p.accumulate && row + h < p.height && col + c < p.cols
                       ? __ldcs((const float2 *)(dw + (int64_t)h * p.cols + c))
                       : make_float2(0.0f, 0.0f);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int at = 2 * (from + i), h = at / 2 % 2 * 8, c = at / 4 * 8;
            if (row + h < p.height && col + c < p.cols) {
                __stcs((float2 *)(dw + (int64_t)h * p.cols + c),
                       make_float2(v[i].x + (terms ? sum[at] : 0.0f), v[i].y + (terms ? sum[at + 1] : 0.0f)));
            }
        }
    }
}

/* Zeroes what the stage holds of this warpgroup's factor from row `count` on. */
static __device__ __forceinline__ void clear_rows(ring *r, const p4_place &here, int count, int half)
{
    p4_barrier_wait(&r->full[here.at], here.parity);
    uint4 *rows = (uint4 *)&r->stages[here.at].a[half];
    for (int i = count * ROW_LANES + (int)threadIdx.x % GROUP; i < SIDE * ROW_LANES; i += GROUP) {
        rows[i] = make_uint4(0, 0, 0, 0);
    }
    p4_shared_written();
    p4_threads_sync(1 + half, GROUP);
}

template <kind KIND> static __device__ __forceinline__ void multiply_tiles(ring *r, const product &p)
{
    typedef form<KIND> f;
    const int rank = (int)blockIdx.x % PAIR, half = (int)threadIdx.x / GROUP - 1, rows = row_box(rank, half);
    p4_place here = {0, 0};
    walk w = start_walk(p);
    tile t;
    float sum[SUMS];
    for (int i = (int)blockIdx.x / PAIR; walk_to<KIND>(&w, &t, p, i); i += (int)gridDim.x / PAIR) {
        const int depth = KIND == WEIGHT ? w.rows : p.depth, rest = KIND == WEIGHT ? depth % SIDE : 0;
        const int whole = rest > 0 ? depth / SIDE : (depth + SIDE - 1) / SIDE;
        if (whole > 0) {
            add_products<TILE, f::A_ACROSS, f::B_ACROSS>(r, &here, sum, half, whole, false);
        }
        if (rest > 0) {
            clear_rows(r, here, rest, half);
            add_products<TILE, f::A_ACROSS, f::B_ACROSS>(r, &here, sum, half, 1, whole > 0);
        }
        if (KIND == WEIGHT) {
            write_gradient(p, t, sum, rows, depth > 0);
        } else {
            write_rows(&r->out[half], p, w, t, sum, rows);
        }
    }
}

/* --- kernel and launch ------------------------------------------------------------------------ */

template <kind KIND>
static __global__ void __launch_bounds__(THREADS, 1)
    multiply(const __grid_constant__ CUtensorMap a_map, const __grid_constant__ CUtensorMap b_map,
             const __grid_constant__ product p)
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
            copy_tiles<KIND>(r, &a_map, &b_map, p);
        }
        __syncwarp(); /* the other lanes continue with this one */
    } else {
        p4_more_registers<SUM_REGISTERS>();
        multiply_tiles<KIND>(r, p);
    }
    p4_cluster_sync(); /* no block ends while another may still arrive at its barriers */
}

template <kind KIND> static bool take_shared(p4_device *device)
{
    return p4_cuda_ok(
        device,
        cudaFuncSetAttribute(multiply<KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES),
        "experts: shared memory");
}

bool p4_cuda_experts_own_open(p4_device *device)
{
    return take_shared<FORWARD>(device) && take_shared<INPUT>(device) && take_shared<WEIGHT>(device);
}

static bool takes(const p4_device *device, const p4_experts_args *call, uintptr_t addresses)
{
    return device->experts_own && p4_cuda_wide(addresses, 2 * (call->in | call->out)) && call->in > 0 &&
           call->out > 0 && call->rows > 0 && call->rows + TILE <= INT32_MAX &&
           call->experts * p4_ceil_div(call->rows + TILE, TILE) * p4_ceil_div(call->in + call->out, TILE) <=
               INT32_MAX;
}

static const char name[] = "products of experts";

/* y = x w', or dx = dy w: `from` elements a row to `to`. */
template <kind KIND>
static bool rows_product(p4_device *device, const p4_experts_args *call, const void *a, void *d, int64_t from,
                         int64_t to)
{
    CUtensorMap a_map, w_map;
    if (!takes(device, call, P4_ADDRESS(a) | P4_ADDRESS(d) | P4_ADDRESS(call->w))) {
        return false;
    }
    product p = {};
    p.experts = (int)call->experts;
    p.cols = (int)to;
    p.depth = (int)from;
    p.first = call->first;
    p.rows = (__nv_bfloat16 *)d;
    if (make_tensor_map(device, &a_map, a, call->rows, from, 1, call->rows * from, name) &&
        make_tensor_map(device, &w_map, call->w, call->out, call->in, call->experts, call->out * call->in,
                        name)) {
        const int64_t tiles = (p4_ceil_div(call->rows, TILE) + call->experts) * p4_ceil_div(to, TILE);
        launch_pairs(device, multiply<KIND>, THREADS, SHARED_BYTES, tiles, name, a_map, w_map, p);
    }
    return true;
}

bool p4_cuda_experts_own_forward(p4_device *device, const p4_experts_args *call)
{
    return rows_product<FORWARD>(device, call, call->x, call->y, call->in, call->out);
}

bool p4_cuda_experts_own_backward_input(p4_device *device, const p4_experts_args *call)
{
    return rows_product<INPUT>(device, call, call->dy, call->dx, call->out, call->in);
}

bool p4_cuda_experts_own_backward_weight(p4_device *device, const p4_experts_args *call)
{
    CUtensorMap dy, x;
    if (!takes(device, call, P4_ADDRESS(call->dy) | P4_ADDRESS(call->x) | P4_ADDRESS(call->dw))) {
        return false;
    }
    product p = {};
    p.experts = (int)call->experts;
    p.cols = (int)call->in;
    p.height = (int)call->out;
    p.first = call->first;
    p.dw = call->dw;
    p.accumulate = call->accumulate;
    if (make_tensor_map(device, &dy, call->dy, call->rows, call->out, 1, call->rows * call->out, name) &&
        make_tensor_map(device, &x, call->x, call->rows, call->in, 1, call->rows * call->in, name)) {
        const int64_t tiles = call->experts * p4_ceil_div(call->out, TILE) * p4_ceil_div(call->in, TILE);
        launch_pairs(device, multiply<WEIGHT>, THREADS, SHARED_BYTES, tiles, name, dy, x, p);
    }
    return true;
}
