/* Force-included before every translated file: what device code needs from the compiler. */
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <functional>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <tuple>
#undef __shared__
#define __shared__ static
#define __noinline__ __attribute__((noinline))
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __restrict__
#define __restrict__ __restrict

struct emu_thread {
    uint3 tid, bid;
    dim3 block, grid;
    int index, rank;
}; /* rank: of the block in its cluster */
extern emu_thread *emu_now;
#define threadIdx (emu_now->tid)
#define blockIdx (emu_now->bid)
#define blockDim (emu_now->block)
#define gridDim (emu_now->grid)
#define warpSize 32
#undef __grid_constant__
#define __grid_constant__

enum { EMU_THREADS = 2048 };           /* of a cluster of two blocks */
enum { EMU_SHARED_BYTES = 232 << 10 }; /* from one block's shared memory to the next of its cluster */
void emu_queue(cudaStream_t stream,
               const std::function<void()> &work); /* runs it, or keeps it where the stream is captured */
void emu_run(const std::function<void()> &body, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
             int cluster = 1);
void emu_yield();    /* lets other threads run */
void emu_progress(); /* somebody may go on who waits in a loop of emu_yield */
/* The kernel with copies of its arguments as they are at the launch, which is what a graph keeps. */
template <typename F, typename... A> auto emu_bind(F kernel, const A &...given)
{
    return [kernel, copies = std::tuple<A...>(given...)]() { std::apply(kernel, copies); };
}
template <typename F>
void emu_launch(F body, dim3 grid, dim3 block, size_t shared = 0, cudaStream_t stream = 0)
{
    emu_run(body, grid, block, shared, stream);
}
void *emu_dynamic_shared();
struct emu_access {
    emu_access();
    ~emu_access();
}; /* while one lives, device memory is open (EMU_GUARD) */
void emu_block_barrier();
void emu_warp_barrier(unsigned mask);
void *emu_warp_slots(); /* 32 x 16 bytes of this warp */

#define __syncthreads emu_block_barrier
static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    emu_warp_barrier(mask);
}
static inline int __syncthreads_or(int x);

template <typename V> V emu_exchange(unsigned mask, V x, int from)
{
    char *slots = (char *)emu_warp_slots();
    int lane = emu_now->index % 32;
    V got;
    memcpy(slots + lane * 16, &x, sizeof x);
    emu_warp_barrier(mask);
    memcpy(&got, slots + (from & 31) * 16, sizeof x);
    emu_warp_barrier(mask);
    return got;
}
template <typename V> V __shfl_xor_sync(unsigned mask, V x, int step, int = 32)
{
    return emu_exchange(mask, x, emu_now->index % 32 ^ step);
}
template <typename V> V __shfl_sync(unsigned mask, V x, int lane, int width = 32)
{
    int me = emu_now->index % 32;
    return emu_exchange(mask, x, (me & ~(width - 1)) | (lane & (width - 1)));
}
template <typename V> V __shfl_down_sync(unsigned mask, V x, int step, int width = 32)
{
    int me = emu_now->index % 32;
    int to = me % width + step < width ? me + step : me;
    return emu_exchange(mask, x, to);
}
template <typename V> V __shfl_up_sync(unsigned mask, V x, int step, int width = 32)
{
    int me = emu_now->index % 32;
    int to = me % width >= step ? me - step : me;
    return emu_exchange(mask, x, to);
}
static inline unsigned __ballot_sync(unsigned mask, int x)
{
    unsigned bits = 0;
    for (int lane = 0; lane < 32; lane++) {
        int other = emu_exchange(mask, x, lane);
        bits |= (mask >> lane & 1) && other ? 1u << lane : 0;
    }
    return bits;
}
static inline int __any_sync(unsigned mask, int x)
{
    return __ballot_sync(mask, x) != 0;
}
static inline int __all_sync(unsigned mask, int x)
{
    return __ballot_sync(mask, x) == mask;
}
static inline unsigned __reduce_add_sync(unsigned mask, unsigned x)
{
    unsigned s = 0;
    for (int l = 0; l < 32; l++) {
        unsigned o = emu_exchange(mask, x, l);
        s += mask >> l & 1 ? o : 0;
    }
    return s;
}
static inline unsigned __reduce_max_sync(unsigned mask, unsigned x)
{
    unsigned s = 0;
    for (int l = 0; l < 32; l++) {
        unsigned o = emu_exchange(mask, x, l);
        s = (mask >> l & 1) && o > s ? o : s;
    }
    return s;
}
static inline unsigned __reduce_min_sync(unsigned mask, unsigned x)
{
    unsigned s = ~0u;
    for (int l = 0; l < 32; l++) {
        unsigned o = emu_exchange(mask, x, l);
        s = (mask >> l & 1) && o < s ? o : s;
    }
    return s;
}
static inline int emu_syncthreads_or(int x);
template <typename V, typename X> V atomicAdd(V *to, X x)
{
    V old = *to;
    *to = old + (V)x;
    return old;
}
template <typename V, typename X> V atomicMax(V *to, X x)
{
    V old = *to;
    *to = old > (V)x ? old : (V)x;
    return old;
}
template <typename V, typename X> V atomicMin(V *to, X x)
{
    V old = *to;
    *to = old < (V)x ? old : (V)x;
    return old;
}
template <typename V, typename X> V atomicOr(V *to, X x)
{
    V old = *to;
    *to = old | (V)x;
    return old;
}
template <typename V> V atomicExch(V *to, V x)
{
    V old = *to;
    *to = x;
    return old;
}

static inline float emu_exp(float x)
{
    return exp2f(x * 1.44269504f);
}
#define __expf emu_exp
static inline float emu_log(float x)
{
    return log2f(x) * 0.693147182f;
}
#define __logf emu_log
static inline float __fdividef(float a, float b)
{
    return a / b;
}
static inline float __int2float_rn(int a)
{
    return (float)a;
}
static inline float __frcp_rn(float a)
{
    return 1.0f / a;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline double __dmul_rn(double a, double b)
{
    return a * b;
}
static inline double __dadd_rn(double a, double b)
{
    return a + b;
}
static inline double __dsub_rn(double a, double b)
{
    return a - b;
}
static inline double __ddiv_rn(double a, double b)
{
    return a / b;
}
static inline double __dsqrt_rn(double a)
{
    return sqrt(a);
}
static inline double __fma_rn(double a, double b, double c)
{
    return fma(a, b, c);
}
static inline float __saturatef(float a)
{
    return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f;
} /* NaN: 0 */
static inline float rsqrtf(float a)
{
    return 1.0f / sqrtf(a);
}
static inline float exp2f_approx(float a)
{
    return exp2f(a);
}
static inline unsigned __float_as_uint(float a)
{
    unsigned b;
    memcpy(&b, &a, 4);
    return b;
}
static inline int __float_as_int(float a)
{
    int b;
    memcpy(&b, &a, 4);
    return b;
}
static inline float __uint_as_float(unsigned a)
{
    float b;
    memcpy(&b, &a, 4);
    return b;
}
static inline float __int_as_float(int a)
{
    float b;
    memcpy(&b, &a, 4);
    return b;
}
static inline long long __double_as_longlong(double a)
{
    long long b;
    memcpy(&b, &a, 8);
    return b;
}
static inline double __longlong_as_double(long long a)
{
    double b;
    memcpy(&b, &a, 8);
    return b;
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
template <typename V> V __ldg(const V *p)
{
    return *p;
}
template <typename V> static inline V __ldcg(const V *p)
{
    return *p;
}
template <typename V> static inline void __stcg(V *p, V x)
{
    *p = x;
}
template <typename V> V __ldcs(const V *p)
{
    return *p;
}
template <typename V> void __stcs(V *p, V x)
{
    *p = x;
}
template <typename V> void __stwb(V *p, V x)
{
    *p = x;
}
template <typename A, typename B> auto min(A a, B b) -> decltype(a + b)
{
    return a < b ? a : b;
}
template <typename A, typename B> auto max(A a, B b) -> decltype(a + b)
{
    return a > b ? a : b;
}
static inline int __syncthreads_or(int x)
{
    static int any[2];
    static int turn_of[EMU_THREADS];
    int turn = turn_of[emu_now->index]++ & 1;
    if (x)
        any[turn] = 1;
    emu_block_barrier();
    int got = any[turn];
    emu_block_barrier();
    any[turn] = 0;
    emu_block_barrier();
    return got;
}
static inline int __syncthreads_count(int x)
{
    static int sum;
    emu_block_barrier();
    sum = 0;
    emu_block_barrier();
    sum += x != 0;
    emu_block_barrier();
    int got = sum;
    emu_block_barrier();
    return got;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <typename... A> cudaError_t cudaFuncSetAttribute(void (*)(A...), cudaFuncAttribute, int)
{
    return cudaSuccess;
}
static inline double __hiloint2double(int hi, int lo)
{
    return __longlong_as_double((long long)((unsigned long long)(unsigned)hi << 32 | (unsigned)lo));
}
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 4; i++)
        c += (a >> 8 * i & 255) * (b >> 8 * i & 255);
    return c;
}
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++)
        c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s)
{
    unsigned long long both = (unsigned long long)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++)
        r |= (unsigned)(both >> 8 * (s >> 4 * i & 7) & 255) << 8 * i;
    return r;
}
