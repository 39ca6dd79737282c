/* sm90.cuh for the emulator: barriers, copies and products of compute capability 9.0 in plain C++. Copies and products happen
 * as late as they may, so that a missing wait shows; copies in any order. Descriptors are decoded as the documentation has
 * them. A cluster's blocks run together (emu_run). */
#ifndef P4_SM90_CUH
#define P4_SM90_CUH
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <vector>
#include "cuda.cuh"

#define EMU_NEED(ok, what) do { if (!(ok)) { fprintf(stderr, "emulator: %s\n", what); abort(); } } while (0)

typedef uint64_t p4_barrier;
struct emu_mbarrier { int32_t bytes; uint8_t pending, expected, phase, alive; };
static inline void emu_phase(emu_mbarrier *b)
{
    if (b->pending == 0 && b->bytes == 0) { b->phase ^= 1; b->pending = b->expected; emu_progress(); }
}
static inline emu_mbarrier *emu_barrier_of(p4_barrier *barrier, int rank)
{
    emu_mbarrier *b = (emu_mbarrier *)((char *)barrier + (rank - emu_now->rank) * EMU_SHARED_BYTES);
    EMU_NEED(b->alive == 42, "a barrier that was not made");
    return b;
}
static inline void p4_barrier_init(p4_barrier *barrier, int arrivals) { *(emu_mbarrier *)barrier = {0, (uint8_t)arrivals, (uint8_t)arrivals, 0, 42}; }
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
static inline void p4_barrier_arrive(p4_barrier *barrier, int rank) { emu_arrive(emu_barrier_of(barrier, rank)); }

struct emu_map { const uint8_t *data; uint64_t cols, rows, row_bytes; uint32_t box_cols, box_rows; };
struct emu_tile { void *to; const emu_map *map; int col, row; emu_mbarrier *barrier; };
static std::vector<emu_tile> emu_tiles;
static inline void emu_tile_lands(void)
{
    static unsigned dice = 1;
    dice = dice * 1664525u + 1013904223u;
    const size_t at = (dice >> 8) % emu_tiles.size();
    const emu_tile t = emu_tiles[at];
    emu_tiles.erase(emu_tiles.begin() + (long)at);
    for (int r = 0; r < (int)t.map->box_rows; r++)
        for (int c = 0; c < (int)t.map->box_cols; c++) {
            const int64_t row = t.row + r, col = t.col + c;
            const bool there = row >= 0 && col >= 0 && row < (int64_t)t.map->rows && col < (int64_t)t.map->cols;
            ((uint8_t *)t.to)[r * 128 + ((c / 16 ^ r % 8) * 16) + c % 16] = there ? t.map->data[row * (int64_t)t.map->row_bytes + col] : 0;
        }
    emu_mbarrier *b = t.barrier;
    b->bytes -= (int)(t.map->box_rows * t.map->box_cols);
    emu_phase(b);
    emu_progress();
}
static inline void p4_barrier_wait(p4_barrier *barrier, uint32_t parity)
{
    while (emu_barrier_of(barrier, emu_now->rank)->phase == parity) {
        if (!emu_tiles.empty()) emu_tile_lands();
        emu_yield();
    }
}
static inline void p4_cluster_sync(void) { emu_block_barrier(); }

static inline void p4_tile_load_to(uint16_t blocks, void *to, const CUtensorMap *map, int col, int row, p4_barrier *barrier)
{
    EMU_NEED(((char *)to - (char *)emu_dynamic_shared()) % 1024 == 0, "a tile that is not aligned to 1024 bytes");
    for (int rank = 0; rank < 16; rank++)
        if (blocks >> rank & 1) {
            void *there = (char *)to + (rank - emu_now->rank) * EMU_SHARED_BYTES;
            memset(there, 0x55, 128 * ((const emu_map *)map)->box_rows); /* on its way */
            emu_tiles.push_back({there, (const emu_map *)map, col, row, (emu_mbarrier *)((char *)barrier + (rank - emu_now->rank) * EMU_SHARED_BYTES)});
        }
}
static inline void p4_tile_load(void *to, const CUtensorMap *map, int col, int row, p4_barrier *barrier)
{
    p4_tile_load_to((uint16_t)(1u << emu_now->rank), to, map, col, row, barrier);
}

template <int COUNT> static inline void p4_fewer_registers(void) {}
template <int COUNT> static inline void p4_more_registers(void) {}
static inline uint64_t p4_wgmma_rows(const void *rows)
{
    const uint64_t at = (uint64_t)((const char *)rows - (const char *)emu_dynamic_shared());
    EMU_NEED(at % 1024 == 0, "rows of a product that are not aligned to 1024 bytes");
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | at >> 4;
}
struct emu_product { int *d; uint64_t a, b; bool add, ends; };
static std::vector<emu_product> emu_products[1024];
static inline int8_t emu_operand(uint64_t descriptor, int row, int k)
{
    EMU_NEED(descriptor >> 62 == 1 && (descriptor >> 49 & 7) == 0, "a descriptor that is not swizzled by 128 bytes");
    uint64_t at = ((descriptor & 0x3fff) << 4) + (uint64_t)(row / 8) * ((descriptor >> 32 & 0x3fff) << 4) + (uint64_t)(row % 8 * 128 + k);
    at ^= (at >> 7 & 7) << 4;
    return ((const int8_t *)emu_dynamic_shared())[at];
}
static inline void emu_multiply(const emu_product &p)
{
    const int lane = emu_now->index % 32, warp = emu_now->index % 128 / 32;
    int8_t a[2][32], b[64][32];
    for (int h = 0; h < 2; h++) for (int k = 0; k < 32; k++) a[h][k] = emu_operand(p.a, 16 * warp + 8 * h + lane / 4, k);
    for (int j = 0; j < 32; j++) for (int e = 0; e < 2; e++) for (int k = 0; k < 32; k++) b[2 * j + e][k] = emu_operand(p.b, 8 * j + 2 * (lane % 4) + e, k);
    for (int i = 0; i < 128; i++) {
        int sum = p.add ? p.d[i] : 0;
        for (int k = 0; k < 32; k++) sum += a[i / 2 % 2][k] * b[i / 4 * 2 + i % 2][k];
        p.d[i] = sum;
    }
}
static inline void p4_wgmma_begin(void) {}
static inline void p4_wgmma_end(void) { emu_products[emu_now->index].back().ends = true; }
template <int LEFT> static inline void p4_wgmma_wait(void)
{
    std::vector<emu_product> &queue = emu_products[emu_now->index];
    int groups = 0;
    for (const emu_product &p : queue) groups += p.ends;
    while (groups > LEFT) { emu_multiply(queue.front()); groups -= queue.front().ends; queue.erase(queue.begin()); }
    emu_warp_barrier(0xffffffffu); /* aligned: a warp goes on together */
}
static inline void p4_wgmma_sums(int (&)[128]) { EMU_NEED(emu_products[emu_now->index].empty(), "sums are read before they are waited for"); }
static inline void p4_wgmma_int8(int (&d)[128], uint64_t a, uint64_t b, bool add) { emu_products[emu_now->index].push_back({d, a, b, add, false}); }

#define cudaLaunchKernelEx emu_launch_ex
#pragma push_macro("gridDim")
#pragma push_macro("blockDim")
#undef gridDim
#undef blockDim
template <typename... P, typename... A> cudaError_t emu_launch_ex(const cudaLaunchConfig_t *c, void (*kernel)(P...), A... arguments)
{
    const int cluster = c->numAttrs ? (int)c->attrs[0].val.clusterDim.x : 1;
    emu_run([=]() { kernel(arguments...); }, c->gridDim, c->blockDim, c->dynamicSmemBytes, c->stream, cluster);
    EMU_NEED(emu_tiles.empty(), "a kernel that ends before its copies");
    return cudaGetLastError();
}
#pragma pop_macro("gridDim")
#pragma pop_macro("blockDim")
#endif
