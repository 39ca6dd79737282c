/* kernels/sm90/heads.cuh for the emulator: copies of rows of a head and products of bf16, as late as they may
 * happen (sm90.cuh). A file that includes this waits for these, and for no others. */
#ifndef P4_SM90_HEADS_CUH
#define P4_SM90_HEADS_CUH
#include "kernels/sm90/sm90.cuh"

/* --- copies ----------------------------------------------------------------------------------- */
struct emu_heads {
    const uint8_t *data;
    uint64_t length[4], bytes[3];
    uint32_t box[4];
}; /* as emu.cpp writes it */
struct emu_load {
    void *to;
    emu_heads map;
    int at[4];
    const void *from;
    int bytes;
    emu_mbarrier *barrier;
};
static std::vector<emu_load> emu_loads;
static inline void emu_rows_land(const emu_load &l)
{
    for (int r = 0; r < (int)l.map.box[2]; r++)
        for (int d = 0; d < 64; d++) {
            const int at[4] = {l.at[0] + d, l.at[1], l.at[2] + r, l.at[3]};
            bool there = true;
            int64_t from = at[0] * 2;
            for (int i = 0; i < 4; i++) {
                there = there && at[i] >= 0 && at[i] < (int64_t)l.map.length[i];
                from += i ? at[i] * (int64_t)l.map.bytes[i - 1] : 0;
            }
            ((uint16_t *)l.to)[r * 64 + ((d / 8 ^ r % 8) * 8) + d % 8] =
                there ? *(const uint16_t *)(l.map.data + from) : 0;
        }
}
static inline void emu_load_lands(void)
{
    static unsigned dice = 1;
    dice = dice * 1664525u + 1013904223u;
    const size_t at = (dice >> 8) % emu_loads.size();
    const emu_load l = emu_loads[at];
    emu_loads.erase(emu_loads.begin() + (long)at);
    if (l.from)
        memcpy(l.to, l.from, (size_t)l.bytes);
    else
        emu_rows_land(l);
    l.barrier->bytes -= l.bytes;
    emu_phase(l.barrier);
    emu_progress();
}
static inline void emu_load_later(const emu_load &l)
{
    memset(l.to, 0x55, (size_t)l.bytes); /* on its way */
    emu_loads.push_back(l);
}
static inline void p4_head_load(void *to, const CUtensorMap *map, int d, int head, int row, int batch,
                                p4_barrier *barrier)
{
    emu_load l = {to, {}, {d, head, row, batch}, NULL, 0, emu_barrier_of(barrier, emu_now->rank)};
    memcpy(&l.map, map, sizeof l.map);
    l.bytes = (int)l.map.box[2] * 128;
    EMU_NEED(((char *)to - (char *)emu_dynamic_shared()) % 1024 == 0,
             "a tile that is not aligned to 1024 bytes");
    emu_load_later(l);
}
static inline void p4_bytes_load(void *to, const void *from, int bytes, p4_barrier *barrier)
{
    EMU_NEED(((uintptr_t)to | (uintptr_t)from | (uintptr_t)bytes) % 16 == 0,
             "a copy that is not aligned to 16 bytes");
    emu_load_later({to, {}, {}, from, bytes, emu_barrier_of(barrier, emu_now->rank)});
}
static inline void emu_heads_wait(p4_barrier *barrier, uint32_t parity)
{
    while (emu_barrier_of(barrier, emu_now->rank)->phase == parity) {
        if (!emu_loads.empty())
            emu_load_lands();
        emu_yield();
    }
}
#define p4_barrier_wait emu_heads_wait

#define EMU_SENT_BY 3 /* kernels/sm90/attention_backward_64.cu */
/* Floats that a thread stores or adds; they are read when it waits. */
struct emu_bulk {
    float *to;
    const float *from;
    int count;
    bool add;
};
static std::vector<emu_bulk> emu_bulks[1024];
static int emu_heads_declared[EMU_THREADS /
                              128]; /* by each warpgroup: threads that declared since it was last read */
static inline void emu_heads_written(void)
{
    emu_heads_declared[emu_now->index / 128]++;
}
static inline void emu_need_declared(int group)
{
    EMU_NEED(emu_heads_declared[group] >= 128, "what was not declared written is read");
    emu_heads_declared[group] -= 128;
}
#define p4_shared_written emu_heads_written
static inline void emu_bulk_later(void *to, const void *from, int bytes, bool add)
{
    EMU_NEED(((uintptr_t)to | (uintptr_t)from | (uintptr_t)bytes) % 16 == 0,
             "a store that is not aligned to 16 bytes");
    emu_need_declared(EMU_SENT_BY); /* the warpgroup that makes what is stored */
    emu_bulks[emu_now->index].push_back({(float *)to, (const float *)from, bytes / 4, add});
}
static inline void p4_bytes_store(void *to, const void *from, int bytes)
{
    emu_bulk_later(to, from, bytes, false);
}
static inline void p4_floats_add(float *to, const void *from, int bytes)
{
    emu_bulk_later(to, from, bytes, true);
}
static inline void emu_heads_stores_end(void)
{
    EMU_NEED(!emu_bulks[emu_now->index].empty(), "a group of nothing");
}
#define p4_stores_end emu_heads_stores_end
static inline void p4_stores_done(void)
{
    for (const emu_bulk &b : emu_bulks[emu_now->index])
        for (int i = 0; i < b.count; i++)
            b.to[i] = b.add ? b.to[i] + b.from[i] : b.from[i];
    emu_bulks[emu_now->index].clear();
}
/* Blocks run one after another: what a block waits for has happened, or never will; an order between blocks
 * that a flag fails to keep does not show. */
static inline void p4_flag_set(int *flag, int value)
{
    EMU_NEED(emu_bulks[emu_now->index].empty(), "a flag before the stores that it stands for");
    *flag = value;
    emu_progress();
}
static inline void p4_flag_wait(const int *flag, int value)
{
    while (*(volatile const int *)flag != value)
        emu_yield();
}

/* --- products --------------------------------------------------------------------------------- */
struct emu_bf16_product {
    float *d;
    int count;
    const uint32_t *held;
    uint64_t a, b;
    bool across, add, ends;
};
static std::vector<emu_bf16_product> emu_bf16_products[EMU_THREADS];
static inline uint64_t p4_wgmma_rows_across(const void *rows, int panel_bytes)
{
    return (p4_wgmma_rows(rows) & ~((uint64_t)0x3fff << 16)) | (uint64_t)(panel_bytes >> 4) << 16;
}
/* Element k of row `row` of an operand; across: rows of memory are k. */
static inline float emu_bf16_operand(uint64_t descriptor, int row, int k, bool across)
{
    EMU_NEED(descriptor >> 62 == 1 && (descriptor >> 49 & 7) == 0,
             "a descriptor that is not swizzled by 128 bytes");
    const uint64_t lead = (descriptor >> 16 & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    uint64_t at = (descriptor & 0x3fff) << 4;
    at += across ? (uint64_t)(k / 8) * stride + (uint64_t)(k % 8 * 128) + (uint64_t)(row / 64) * lead +
                       (uint64_t)(row % 64 * 2)
                 : (uint64_t)(row / 8) * stride + (uint64_t)(row % 8 * 128 + 2 * k);
    at ^= (at >> 7 & 7) << 4;
    uint16_t half;
    memcpy(&half, (const char *)emu_dynamic_shared() + at, 2);
    return __uint_as_float((uint32_t)half << 16);
}
static inline void emu_multiply_bf16(const emu_bf16_product &p)
{
    const int lane = emu_now->index % 32, warp = emu_now->index % 128 / 32, g = lane / 4, t = lane % 4;
    float a[2][16];
    for (int h = 0; h < 2; h++)
        for (int k = 0; k < 16; k++) {
            if (!p.held) {
                a[h][k] = emu_bf16_operand(p.a, 16 * warp + 8 * h + g, k, false);
                continue;
            }
            const uint32_t pair = emu_exchange(0xffffffffu, p.held[h + k / 8 * 2], 4 * g + k % 8 / 2);
            if (k % 8 / 2 == t)
                EMU_NEED(pair == p.held[h + k / 8 * 2], "lanes that are not together");
            a[h][k] = __uint_as_float(k % 2 ? pair & 0xffff0000u : pair << 16);
        }
    for (int j = 0; j < p.count / 4; j++)
        for (int e = 0; e < 2; e++) {
            float b[16];
            for (int k = 0; k < 16; k++)
                b[k] = emu_bf16_operand(p.b, 8 * j + 2 * t + e, k, p.across);
            for (int h = 0; h < 2; h++) {
                float sum = p.add ? p.d[4 * j + 2 * h + e] : 0.0f;
                for (int k = 0; k < 16; k++)
                    sum += a[h][k] * b[k];
                p.d[4 * j + 2 * h + e] = sum;
            }
        }
}
static inline void emu_heads_end(void)
{
    emu_bf16_products[emu_now->index].back().ends = true;
}
template <int LEFT> static inline void emu_heads_finish(void)
{
    std::vector<emu_bf16_product> &queue = emu_bf16_products[emu_now->index];
    int groups = 0;
    for (const emu_bf16_product &p : queue)
        groups += p.ends;
    while (groups > LEFT) {
        emu_multiply_bf16(queue.front());
        groups -= queue.front().ends;
        queue.erase(queue.begin());
    }
    emu_warp_barrier(0xffffffffu); /* aligned: a warp goes on together */
}
#define p4_wgmma_end emu_heads_end
#define p4_wgmma_wait emu_heads_finish
template <int COUNT> static inline void p4_sums_ready(float (&d)[COUNT])
{
    for (const emu_bf16_product &p : emu_bf16_products[emu_now->index])
        EMU_NEED(p.d != d, "sums are read before they are waited for");
}
/* Sums hold NaN until then. */
static inline void emu_product_later(const emu_bf16_product &p)
{
    for (int i = 0; !p.add && i < p.count; i++)
        p.d[i] = NAN;
    emu_bf16_products[emu_now->index].push_back(p);
}
template <int COUNT>
static inline void p4_wgmma_held(float (&d)[COUNT], const uint32_t (&a)[4], uint64_t b, bool add)
{
    emu_product_later({d, COUNT, a, 0, b, true, add, false});
}
template <int COUNT> static inline void p4_wgmma_shared(float (&d)[COUNT], uint64_t a, uint64_t b, bool add)
{
    emu_product_later({d, COUNT, NULL, a, b, false, add, false});
}
static inline void p4_wgmma_turned(float (&d)[32], uint64_t a, uint64_t b, bool add)
{
    if (!add && emu_now->index % 128 == 0) /* what the warpgroups of the keys have made */
        for (int group = 1; group < EMU_SENT_BY; group++)
            emu_need_declared(group);
    emu_product_later({d, 32, NULL, a, b, true, add, false});
}
#endif
