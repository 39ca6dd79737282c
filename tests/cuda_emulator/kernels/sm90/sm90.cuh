/* sm90.cuh for the emulator: barriers, copies and products of compute capability 9.0 in plain C++. Copies,
 * stores and products happen as late as they may, so that a missing wait shows; copies in any order.
 * Descriptors are decoded as the documentation has them. A cluster's blocks run together (emu_run). */
#ifndef P4_SM90_CUH
#define P4_SM90_CUH
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/mma.cuh"
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

#define EMU_NEED(ok, what)                           \
    do {                                             \
        if (!(ok)) {                                 \
            fprintf(stderr, "emulator: %s\n", what); \
            abort();                                 \
        }                                            \
    } while (0)

typedef uint64_t p4_barrier;
struct emu_mbarrier {
    int32_t bytes;
    uint8_t pending, expected, phase, alive;
};
static inline void emu_phase(emu_mbarrier *b)
{
    if (b->pending == 0 && b->bytes == 0) {
        b->phase ^= 1;
        b->pending = b->expected;
        emu_progress();
    }
}
static inline emu_mbarrier *emu_barrier_of(p4_barrier *barrier, int rank)
{
    emu_mbarrier *b = (emu_mbarrier *)((char *)barrier + (rank - emu_now->rank) * EMU_SHARED_BYTES);
    EMU_NEED(b->alive == 42, "a barrier that was not made");
    return b;
}
static inline void p4_barrier_init(p4_barrier *barrier, int arrivals)
{
    *(emu_mbarrier *)barrier = {0, (uint8_t)arrivals, (uint8_t)arrivals, 0, 42};
}
static inline void p4_barrier_init_done(void) {}
static inline void emu_arrive(emu_mbarrier *b)
{
    EMU_NEED(b->pending > 0, "one arrival too many at a barrier");
    b->pending--;
    emu_phase(b);
}
static inline void p4_barrier_expect(p4_barrier *barrier, int bytes)
{
    emu_mbarrier *b = emu_barrier_of(barrier, emu_now->rank);
    b->bytes += bytes;
    emu_arrive(b);
}
static inline void p4_barrier_arrive(p4_barrier *barrier, int rank)
{
    emu_arrive(emu_barrier_of(barrier, rank));
}

struct emu_map {
    uint8_t *data;
    uint64_t cols, rows, row_bytes, matrices, matrix_bytes;
    uint32_t box_cols, box_rows;
};
static inline uint8_t *emu_map_byte(const emu_map *map, int64_t col, int64_t row,
                                    int64_t matrix) /* NULL outside; col: of bytes */
{
    const bool there = row >= 0 && col >= 0 && matrix >= 0 && row < (int64_t)map->rows &&
                       col < (int64_t)map->cols && matrix < (int64_t)map->matrices;
    return there ? map->data + matrix * (int64_t)map->matrix_bytes + row * (int64_t)map->row_bytes + col
                 : NULL;
}
static inline int emu_swizzled(int row, int col)
{
    return row * 128 + (col / 16 ^ row % 8) * 16 + col % 16;
}
struct emu_tile {
    void *to;
    const emu_map *map;
    int col, row, matrix;
    emu_mbarrier *barrier;
}; /* col: of bytes */
static std::vector<emu_tile> emu_tiles;
static inline void emu_tile_lands(void)
{
    static unsigned dice = 1;
    dice = dice * 1664525u + 1013904223u;
    const size_t at = (dice >> 8) % emu_tiles.size();
    const emu_tile t = emu_tiles[at];
    emu_tiles.erase(emu_tiles.begin() + (long)at);
    for (int r = 0; r < (int)t.map->box_rows; r++)
        for (int c = 0; c < 128; c++) {
            const uint8_t *from = emu_map_byte(t.map, t.col + c, t.row + r, t.matrix);
            ((uint8_t *)t.to)[emu_swizzled(r, c)] = from ? *from : 0;
        }
    emu_mbarrier *b = t.barrier;
    b->bytes -= (int)(t.map->box_rows * t.map->box_cols);
    emu_phase(b);
    emu_progress();
}
static inline void p4_barrier_wait(p4_barrier *barrier, uint32_t parity)
{
    while (emu_barrier_of(barrier, emu_now->rank)->phase == parity) {
        if (!emu_tiles.empty())
            emu_tile_lands();
        emu_yield();
    }
}
static inline void p4_cluster_sync(void)
{
    emu_block_barrier();
}

static inline void emu_load_to(uint16_t blocks, void *to, const CUtensorMap *map, int col, int row,
                               int matrix, p4_barrier *barrier)
{
    EMU_NEED(((char *)to - (char *)emu_dynamic_shared()) % 1024 == 0,
             "a tile that is not aligned to 1024 bytes");
    for (int rank = 0; rank < 16; rank++)
        if (blocks >> rank & 1) {
            void *there = (char *)to + (rank - emu_now->rank) * EMU_SHARED_BYTES;
            memset(there, 0x55, 128 * ((const emu_map *)map)->box_rows); /* on its way */
            emu_tiles.push_back(
                {there, (const emu_map *)map, col, row, matrix,
                 (emu_mbarrier *)((char *)barrier + (rank - emu_now->rank) * EMU_SHARED_BYTES)});
        }
}
static inline void p4_tile_load_to(uint16_t blocks, void *to, const CUtensorMap *map, int col, int row,
                                   p4_barrier *barrier)
{
    emu_load_to(blocks, to, map, col, row, 0, barrier);
}
static inline void p4_tile_load(void *to, const CUtensorMap *map, int col, int row, p4_barrier *barrier)
{
    emu_load_to((uint16_t)(1u << emu_now->rank), to, map, col, row, 0, barrier);
}
static inline void p4_box_load_to(uint16_t blocks, void *to, const CUtensorMap *map, int col, int row,
                                  int matrix, p4_barrier *barrier)
{
    emu_load_to(blocks, to, map, 2 * col, row, matrix, barrier);
} /* of bf16 */
static inline void p4_box_load(void *to, const CUtensorMap *map, int col, int row, int matrix,
                               p4_barrier *barrier)
{
    p4_box_load_to((uint16_t)(1u << emu_now->rank), to, map, col, row, matrix, barrier);
}

/* Stores read when they are waited for. A thread's writes to shared memory must be declared before the
 * barrier that a store follows: whether all threads of the warpgroup declared something since its last store
 * is what is checked. */
struct emu_store {
    const uint8_t *from;
    const emu_map *map;
    int col, row, matrix;
    bool ends;
};
static std::vector<emu_store> emu_stores[EMU_THREADS];
static int emu_declared[EMU_THREADS / 128];
static inline void p4_shared_written(void)
{
    emu_declared[emu_now->index / 128]++;
}
static inline void p4_box_store(const CUtensorMap *map, const void *from, int col, int row, int matrix)
{
    EMU_NEED(((char *)from - (char *)emu_dynamic_shared()) % 1024 == 0,
             "a box that is not aligned to 1024 bytes");
    EMU_NEED(emu_declared[emu_now->index / 128] >= 128, "a store of what was not declared written");
    emu_declared[emu_now->index / 128] = 0;
    emu_stores[emu_now->index].push_back(
        {(const uint8_t *)from, (const emu_map *)map, 2 * col, row, matrix, false});
}
static inline void p4_stores_end(void)
{
    emu_stores[emu_now->index].back().ends = true;
}
template <int LEFT> static inline void p4_stores_read(void)
{
    std::vector<emu_store> &queue = emu_stores[emu_now->index];
    int groups = 0;
    for (const emu_store &s : queue)
        groups += s.ends;
    while (groups > LEFT) {
        const emu_store s = queue.front();
        for (int r = 0; r < (int)s.map->box_rows; r++)
            for (int c = 0; c < 128; c++)
                if (uint8_t *to = emu_map_byte(s.map, s.col + c, s.row + r, s.matrix))
                    *to = s.from[emu_swizzled(r, c)];
        groups -= s.ends;
        queue.erase(queue.begin());
    }
}
static inline void p4_bytes_prefetch(const void *from, int bytes)
{
    EMU_NEED((uintptr_t)from % 16 == 0 && bytes > 0 && bytes % 16 == 0,
             "a prefetch that is not aligned to 16 bytes");
    volatile uint8_t first = ((const uint8_t *)from)[0],
                     last = ((const uint8_t *)from)[bytes - 1]; /* the address sanitizer looks */
    (void)first, (void)last;
}
/* Named barriers: a count of arrivals and a generation for each block of a cluster. */
static int emu_named_arrived[16][16];
static unsigned emu_named_generation[16][16];
static inline void p4_threads_sync(int id, int threads)
{
    int &arrived = emu_named_arrived[emu_now->rank][id];
    unsigned &generation = emu_named_generation[emu_now->rank][id];
    const unsigned mine = generation;
    if (++arrived == threads) {
        arrived = 0;
        generation++;
    }
    emu_progress();
    while (generation == mine)
        emu_yield();
}
static inline void emu_put_matrices(void *row, const uint32_t (&from)[4], bool transposed)
{
    const int lane = emu_now->index % 32;
    EMU_NEED((uintptr_t)row % 16 == 0, "stmatrix address not aligned");
    for (int m = 0; m < 4; m++)
        for (int r = 0; r < 8; r++) {
            uint16_t *to = (uint16_t *)(uintptr_t)emu_exchange(0xffffffffu,
                                                               (unsigned long long)(uintptr_t)row, m * 8 + r);
            for (int i = 0; i < 2; i++)
                if (r == (transposed ? lane % 4 * 2 + i : lane / 4))
                    to[transposed ? lane / 4 : lane % 4 * 2 + i] = (uint16_t)(from[m] >> 16 * i);
        }
    emu_warp_barrier(0xffffffffu);
}
static inline void p4_store_matrices(void *row, const uint32_t (&from)[4])
{
    emu_put_matrices(row, from, false);
}
static inline void p4_store_matrices_transposed(void *row, const uint32_t (&from)[4])
{
    emu_put_matrices(row, from, true);
}

template <int COUNT> static inline void p4_fewer_registers(void) {}
template <int COUNT> static inline void p4_more_registers(void) {}
static inline uint64_t p4_wgmma_rows(const void *rows)
{
    const uint64_t at = (uint64_t)((const char *)rows - (const char *)emu_dynamic_shared());
    EMU_NEED(at % 1024 == 0, "rows of a product that are not aligned to 1024 bytes");
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | at >> 4;
}
static inline uint64_t p4_wgmma_across(const void *boxes)
{
    return (p4_wgmma_rows(boxes) & ~((uint64_t)0x3fff << 16)) | (uint64_t)(8192 >> 4) << 16;
}
/* Of bf16 (width 2): 16 of k, an operand along k or across. Of int8 (width 1): 32 of k. */
struct emu_product {
    void *d;
    uint64_t a, b;
    bool add, ends;
    int width, cols, a_across, b_across;
};
static std::vector<emu_product> emu_products[EMU_THREADS];
/* Reads `deep` elements along k of a row of an operand. */
static inline void emu_operand(float *to, const uint8_t *shared, uint64_t descriptor, int row, int deep,
                               int width, int across)
{
    EMU_NEED(descriptor >> 62 == 1 && (descriptor >> 49 & 7) == 0,
             "a descriptor that is not swizzled by 128 bytes");
    const uint32_t base = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4,
                   stride = (descriptor >> 32 & 0x3fff) << 4;
    for (int k = 0; k < deep; k++) {
        uint32_t at = across ? base + (uint32_t)(row / 64) * leading + (uint32_t)(k / 8) * stride +
                                   (uint32_t)(k % 8 * 128 + row % 64 * width)
                             : base + (uint32_t)(row / 8) * stride + (uint32_t)(row % 8 * 128 + k * width);
        at ^= (at >> 7 & 7) << 4;
        to[k] = width == 1 ? (float)(int8_t)shared[at] : emu_bf16(*(const uint16_t *)(shared + at), 0);
    }
}
template <int WIDTH> __attribute__((optimize("O3"))) static void emu_multiply_of(const emu_product &p)
{
    enum { DEEP = 32 / WIDTH };
    const uint8_t *shared = (const uint8_t *)emu_dynamic_shared();
    const int lane = emu_now->index % 32, warp = emu_now->index % 128 / 32;
    float a[2][DEEP], b[DEEP]; /* sums of 32 products of int8 are exact in float */
    for (int h = 0; h < 2; h++)
        emu_operand(a[h], shared, p.a, 16 * warp + 8 * h + lane / 4, DEEP, WIDTH, p.a_across);
    for (int j = 0; j < p.cols / 8; j++)
        for (int e = 0; e < 2; e++) {
            emu_operand(b, shared, p.b, 8 * j + 2 * (lane % 4) + e, DEEP, WIDTH, p.b_across);
            for (int h = 0; h < 2; h++) {
                const int i = 4 * j + 2 * h + e;
                float sum = 0.0f;
                for (int k = 0; k < DEEP; k++)
                    sum += a[h][k] * b[k];
                if (WIDTH == 1)
                    ((int *)p.d)[i] = (p.add ? ((int *)p.d)[i] : 0) + (int)sum;
                else
                    ((float *)p.d)[i] = (p.add ? ((float *)p.d)[i] : 0.0f) + sum;
            }
        }
}
static inline void emu_multiply(const emu_product &p)
{
    p.width == 1 ? emu_multiply_of<1>(p) : emu_multiply_of<2>(p);
}
static inline void p4_wgmma_begin(void) {}
static inline void p4_wgmma_end(void)
{
    emu_products[emu_now->index].back().ends = true;
}
template <int LEFT> static inline void p4_wgmma_wait(void)
{
    std::vector<emu_product> &queue = emu_products[emu_now->index];
    int groups = 0;
    for (const emu_product &p : queue)
        groups += p.ends;
    while (groups > LEFT) {
        emu_multiply(queue.front());
        groups -= queue.front().ends;
        queue.erase(queue.begin());
    }
    emu_warp_barrier(0xffffffffu); /* aligned: a warp goes on together */
}
template <typename V> static inline void p4_wgmma_sums(V (&)[128])
{
    EMU_NEED(emu_products[emu_now->index].empty(), "sums are read before they are waited for");
}
static inline void p4_wgmma_int8(int (&d)[128], uint64_t a, uint64_t b, bool add)
{
    emu_products[emu_now->index].push_back({d, a, b, add, false, 1, 256, 0, 0});
}
template <int COLS, int A_ACROSS, int B_ACROSS, int FIRST = 0>
static inline void p4_wgmma_bf16(float (&d)[128], uint64_t a, uint64_t b, bool add)
{
    emu_products[emu_now->index].push_back({d + FIRST, a, b, add, false, 2, COLS, A_ACROSS, B_ACROSS});
}

#define cudaLaunchKernelEx emu_launch_ex
#pragma push_macro("gridDim")
#pragma push_macro("blockDim")
#undef gridDim
#undef blockDim
template <typename... P, typename... A>
cudaError_t emu_launch_ex(const cudaLaunchConfig_t *c, void (*kernel)(P...), A... arguments)
{
    const int cluster = c->numAttrs ? (int)c->attrs[0].val.clusterDim.x : 1;
    emu_run([=]() { kernel(arguments...); }, c->gridDim, c->blockDim, c->dynamicSmemBytes, c->stream,
            cluster);
    EMU_NEED(emu_tiles.empty(), "a kernel that ends before its copies");
    for (const std::vector<emu_store> &queue : emu_stores)
        EMU_NEED(queue.empty(), "a kernel that ends before its stores");
    return cudaGetLastError();
}
#pragma pop_macro("gridDim")
#pragma pop_macro("blockDim")
#endif
