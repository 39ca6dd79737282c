/* The emulator: fibres for the threads of a block, memory and cuBLASLt by plain loops. EMU_ORDER=1 runs
 * threads and blocks from the last to the first: results that then differ depend on a race.
 *
 * EMU_GUARD=1: device memory may be touched by kernels, copies and products only; host code that reads or
 * writes it ends the program, with its calls. Copies check which side of the bus each address is on.
 * EMU_GPUS, EMU_FIRST_GPU: how many GPUs this process sees, from which of the machine's on (several ranks
 * move device memory by MPI here, without EMU_GUARD). */
#include "emu.h"
#include <cublasLt.h>
#include <cuda.h>
#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

emu_thread *emu_now;
/* cuDNN would run on a real GPU, which has none of the emulated memory. */
static const int emu_attention = setenv("P4_ATTENTION", "own", 1);
extern "C" void emu_switch(void **save, void *to);
asm(R"(
.globl emu_switch
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

enum { THREADS = EMU_THREADS, STACK = 128 << 10 };
struct barrier {
    int arrived, alive;
    unsigned generation;
};
static struct fibre {
    void *sp;
    char *stack;
    bool done;
    emu_thread thread;
} fibres[THREADS];
static barrier block_barrier, warp_barrier[THREADS / 32];
alignas(16) static char slots[THREADS / 32][32 * 16];
enum { CLUSTER = 2 };
alignas(1024) static char shared_memory[CLUSTER * EMU_SHARED_BYTES];
static void *scheduler;
static const std::function<void()> *running;
static bool moved; /* somebody passed a barrier or ended */

static void release(barrier *b)
{
    if (b->arrived >= b->alive && b->arrived > 0) {
        b->arrived = 0;
        b->generation++;
        moved = true;
    }
}
static void yield()
{
    fibre *f = &fibres[emu_now->index];
    emu_switch(&f->sp, scheduler);
}
static void wait_at(barrier *b, int wanted)
{
    unsigned mine = b->generation;
    b->arrived++;
    moved = true;
    if (wanted && b->arrived >= wanted) {
        b->arrived = 0;
        b->generation++;
    } else
        release(b);
    while (b->generation == mine)
        yield();
}
void emu_block_barrier()
{
    wait_at(&block_barrier, 0);
}
void emu_warp_barrier(unsigned mask)
{
    barrier *b = &warp_barrier[emu_now->index / 32];
    wait_at(b, mask == 0xffffffffu ? 0 : __builtin_popcount(mask));
}
void *emu_warp_slots()
{
    return slots[emu_now->index / 32];
}
void *emu_dynamic_shared()
{
    return shared_memory + emu_now->rank * EMU_SHARED_BYTES;
}
void emu_yield()
{
    yield();
}
void emu_progress()
{
    moved = true;
}

static void entry()
{
    (*running)();
    fibre *f = &fibres[emu_now->index];
    f->done = moved = true;
    block_barrier.alive--;
    release(&block_barrier);
    warp_barrier[f->thread.index / 32].alive--;
    release(&warp_barrier[f->thread.index / 32]);
    yield();
    abort();
}

static void run_block(int count)
{
    int left = count;
    static const bool reverse = getenv("EMU_ORDER") && *getenv("EMU_ORDER");
    while (left) {
        moved = false;
        left = 0;
        for (int k = 0; k < count; k++) {
            int i = reverse ? count - 1 - k : k;
            if (!fibres[i].done) {
                emu_now = &fibres[i].thread;
                emu_switch(&scheduler, fibres[i].sp);
                left += !fibres[i].done;
            }
        }
        if (left && !moved) {
            fprintf(stderr, "emulator: threads of a block wait for each other\n");
            abort();
        }
    }
}

/* --- device memory: one range of addresses, closed to the host -------------------------------- */

static const size_t GUARD_BYTES = (size_t)1 << 36, PAGE = 4096;
static char *guard_base;
static size_t guard_used;
static int guard_open;                                                 /* depth */
static std::vector<std::pair<size_t, size_t>> guard_free, guard_taken; /* at, bytes */

static bool on_device(const void *p)
{
    return guard_base && (const char *)p >= guard_base && (const char *)p < guard_base + GUARD_BYTES;
}
static void guard_fault(int, siginfo_t *info, void *)
{
    void *calls[64];
    fprintf(stderr, "emulator: %s at %p\n",
            on_device(info->si_addr) ? "host code touched device memory" : "bad address", info->si_addr);
    backtrace_symbols_fd(calls, backtrace(calls, 64), 2);
    _exit(139);
}
static bool guarded()
{
    static const bool wanted = getenv("EMU_GUARD") && *getenv("EMU_GUARD");
    if (wanted && !guard_base) {
        struct sigaction action = {};
        action.sa_sigaction = guard_fault;
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGSEGV, &action, NULL);
        guard_base =
            (char *)mmap(NULL, GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    return wanted;
}
emu_access::emu_access()
{
    if (guard_base && guard_open++ == 0)
        mprotect(guard_base, guard_used, PROT_READ | PROT_WRITE);
}
emu_access::~emu_access()
{
    if (guard_base && --guard_open == 0)
        mprotect(guard_base, guard_used, PROT_NONE);
}
static cudaError_t guard_take(void **p, size_t n)
{
    n = (n + PAGE - 1) / PAGE * PAGE;
    for (size_t i = 0; i < guard_free.size(); i++)
        if (guard_free[i].second == n) {
            *p = guard_base + guard_free[i].first;
            guard_taken.push_back(guard_free[i]);
            guard_free.erase(guard_free.begin() + i);
            return cudaSuccess;
        }
    if (n > GUARD_BYTES - guard_used)
        return cudaErrorMemoryAllocation;
    *p = guard_base + guard_used;
    guard_taken.push_back({guard_used, n});
    guard_used += n;
    return cudaSuccess;
}
static cudaError_t guard_give(void *p)
{
    for (size_t i = 0; i < guard_taken.size(); i++)
        if (guard_base + guard_taken[i].first == p) {
            emu_access access;
            madvise(p, guard_taken[i].second, MADV_DONTNEED);
            guard_free.push_back(guard_taken[i]);
            guard_taken.erase(guard_taken.begin() + i);
            return cudaSuccess;
        }
    return cudaErrorInvalidValue;
}

/* --- streams: everything runs when it is queued, but what is captured is kept for a graph ----- */

static cudaError_t last;
struct stream {
    bool captured;
    int64_t queued, joined;
}; /* the counts: of a captured one that is not the origin */
struct event {
    stream *of;
    bool captured;
    int64_t at;
};
typedef std::vector<std::function<void()>> work_list;
static work_list *recording;
static stream *origin;
static std::vector<stream *> captured_streams;
static cudaError_t broken; /* why the capture under way will fail */

static cudaError_t refuse(cudaError_t error)
{
    if (broken == cudaSuccess)
        broken = error;
    return error;
}
/* For calls that wait, take memory or ask the device: not while this thread captures. */
static cudaError_t unsafe()
{
    return recording ? refuse(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}
void emu_queue(cudaStream_t on, const std::function<void()> &work)
{
    stream *s = (stream *)on;
    if (recording && !s) {
        last = refuse(cudaErrorStreamCaptureImplicit);
    } else if (recording && s->captured) {
        recording->push_back(work);
        s->queued++;
    } else {
        work();
    }
}

static void run_kernel(const std::function<void()> &body, dim3 grid, dim3 block, size_t shared, int cluster);
void emu_run(const std::function<void()> &body, dim3 grid, dim3 block, size_t shared, cudaStream_t on,
             int cluster)
{
    const int count = (int)(block.x * block.y * block.z) * cluster;
    if (cluster > CLUSTER || grid.x % cluster || (cluster > 1 && grid.y * grid.z > 1) || count < 1 ||
        count > 1024 * cluster || grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 ||
        grid.z > 65535 || shared > EMU_SHARED_BYTES) {
        last = cudaErrorInvalidConfiguration;
        return;
    }
    emu_queue(on, [=]() { run_kernel(body, grid, block, shared, cluster); });
}

static void run_kernel(const std::function<void()> &body, dim3 grid, dim3 block, size_t shared, int cluster)
{
    int each = (int)(block.x * block.y * block.z),
        count = each * cluster; /* barriers are the cluster's, all of its threads */
    static const bool reverse = getenv("EMU_ORDER") && *getenv("EMU_ORDER");
    emu_access access;
    emu_thread *outer = emu_now;
    running = &body;
    int64_t blocks = (int64_t)grid.x * grid.y * grid.z / cluster;
    for (int64_t k = 0; k < blocks; k++) {
        int64_t group = reverse ? blocks - 1 - k : k;
        for (int r = 0; r < cluster; r++)
            memset(shared_memory + r * EMU_SHARED_BYTES, 0xff, shared);
        block_barrier = {0, count, 0};
        for (int w = 0; w < (count + 31) / 32; w++)
            warp_barrier[w] = {0, count - 32 * w < 32 ? count - 32 * w : 32, 0};
        for (int i = 0; i < count; i++) {
            fibre *f = &fibres[i];
            if (!f->stack)
                f->stack = (char *)mmap(NULL, STACK, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            f->done = false;
            const int64_t b = group * cluster + i / each;
            const unsigned t = (unsigned)(i % each);
            f->thread.index = i;
            f->thread.rank = i / each;
            f->thread.block = block;
            f->thread.grid = grid;
            f->thread.tid = {t % block.x, t / block.x % block.y, t / block.x / block.y};
            f->thread.bid = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                             (unsigned)(b / grid.x / grid.y)};
            void **top = (void **)(f->stack + STACK - 64);
            *--top = NULL; /* keeps the stack aligned as after a call */
            *--top = (void *)entry;
            for (int r = 0; r < 6; r++)
                *--top = NULL;
            f->sp = top;
        }
        run_block(count);
    }
    emu_now = outer;
}

extern "C" {
cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last;
    last = cudaSuccess;
    return e;
}
const char *cudaGetErrorString(cudaError_t e)
{
    static char t[32];
    snprintf(t, sizeof t, "error %d", (int)e);
    return t;
}
static int number_of(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
cudaError_t cudaGetDeviceCount(int *n)
{
    *n = number_of("EMU_GPUS", 1);
    return *n > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int ordinal)
{
    memset(p, 0, sizeof *p);
    p->uuid.bytes[0] = (char)(number_of("EMU_FIRST_GPU", 0) + ordinal);
    strcpy(p->name, "emulator");
    p->major = 9;
    p->minor = 0;
    p->multiProcessorCount = number_of("EMU_PROCESSORS", 132);
    p->totalGlobalMem = 1u << 30;
    p->sharedMemPerBlockOptin = 227 << 10;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *v, cudaDeviceAttr a, int)
{
    *v = a == cudaDevAttrMultiProcessorCount            ? 132
         : a == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 227 << 10
                                                        : 0;
    return cudaSuccess;
}
/* EMU_BREAK_AT=N: the N-th wait for a stream finds that a kernel used an illegal address. Every later wait
 * then finds it again, as on a GPU. */
static cudaError_t lost_context(bool counts)
{
    static int waits;
    const int at = number_of("EMU_BREAK_AT", 0);
    waits += counts;
    return at > 0 && waits >= at ? cudaErrorIllegalAddress : cudaSuccess;
}
cudaError_t cudaSetDevice(int)
{
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void)
{
    return unsafe() ? unsafe() : lost_context(false);
}
cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int)
{
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *, int, size_t,
                                                                   unsigned)
{
    *blocks = 2;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = (cudaStream_t) new stream();
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(s, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *lowest, int *highest)
{
    *lowest = *highest = 0;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return unsafe() ? unsafe() : lost_context(true);
}
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    delete (stream *)s;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = (cudaEvent_t) new event();
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    return cudaEventCreateWithFlags(e, 0);
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    *(event *)e = {(stream *)s, ((stream *)s)->captured, ((stream *)s)->queued};
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return unsafe();
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t, cudaEvent_t)
{
    *ms = 1.0f;
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t)
{
    return unsafe();
}
cudaError_t cudaStreamQuery(cudaStream_t)
{
    return unsafe();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t on, cudaEvent_t until, unsigned)
{
    stream *s = (stream *)on;
    event *e = (event *)until;
    if (!recording)
        return cudaSuccess;
    if (s->captured && !e->captured)
        return refuse(cudaErrorStreamCaptureIsolation);
    if (e->captured && !s->captured) { /* the stream joins the capture, and has to be waited for */
        s->captured = true;
        s->queued = 1;
        s->joined = 0;
        captured_streams.push_back(s);
    }
    if (s == origin && e->at > e->of->joined)
        e->of->joined = e->at;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete (event *)e;
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    if (recording || !s)
        return cudaErrorStreamCaptureUnsupported;
    recording = new work_list();
    origin = (stream *)s;
    origin->captured = true;
    broken = cudaSuccess;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    *graph = NULL;
    if (!recording || (stream *)s != origin)
        return cudaErrorIllegalState;
    for (stream *one : captured_streams) {
        if (one->queued > one->joined)
            refuse(cudaErrorStreamCaptureUnjoined);
        one->captured = false;
    }
    captured_streams.clear();
    origin->captured = false;
    if (broken == cudaSuccess)
        *graph = (cudaGraph_t)recording;
    else
        delete recording;
    recording = NULL;
    return broken == cudaSuccess ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *to, cudaGraph_t graph, unsigned long long)
{
    *to = (cudaGraphExec_t) new work_list(*(work_list *)graph);
    return unsafe();
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s)
{
    for (auto &one : *(work_list *)graph)
        emu_queue(s, one);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete (work_list *)graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    delete (work_list *)graph;
    return cudaSuccess;
}
/* exactly `bytes` usable when the address sanitizer watches: rounded to 256 only in alignment */
cudaError_t cudaMalloc(void **p, size_t n)
{
    return unsafe()                    ? unsafe()
           : guarded()                 ? guard_take(p, n)
           : posix_memalign(p, 256, n) ? cudaErrorMemoryAllocation
                                       : cudaSuccess;
}
cudaError_t cudaFree(void *p)
{
    if (unsafe())
        return unsafe();
    if (on_device(p))
        return guard_give(p);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t n)
{
    return posix_memalign(p, 256, n) ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned)
{
    return cudaMallocHost(p, n);
}
cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *a, size_t *b)
{
    *a = *b = 1u << 30;
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t s)
{
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (guard_base && n && (on_device(to) != to_device || on_device(from) != from_device)) {
        fprintf(stderr, "emulator: a copy of kind %d from %s to %s\n", (int)kind,
                on_device(from) ? "device" : "host", on_device(to) ? "device" : "host");
        abort();
    }
    emu_queue(s, [=]() {
        emu_access access;
        memmove(to, from, n);
    });
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, cudaMemcpyKind kind)
{
    return cudaMemcpyAsync(to, from, n, kind, 0);
}
static void set_bytes(void *to, int v, size_t n)
{
    emu_access access;
    if (v == 0 && n >= (1u << 20) && on_device(to)) { /* pages that nobody wrote stay away */
        size_t skip = (PAGE - (uintptr_t)to % PAGE) % PAGE, whole = (n - skip) / PAGE * PAGE;
        memset(to, 0, skip);
        madvise((char *)to + skip, whole, MADV_DONTNEED);
        memset((char *)to + skip + whole, 0, n - skip - whole);
    } else {
        memset(to, v, n);
    }
}
cudaError_t cudaMemsetAsync(void *to, int v, size_t n, cudaStream_t s)
{
    emu_queue(s, [=]() { set_bytes(to, v, n); });
    return cudaSuccess;
}
cudaError_t cudaMemset(void *to, int v, size_t n)
{
    set_bytes(to, v, n);
    return cudaSuccess;
}
/* Processes share no memory of devices here; tests/nccl_emulator has that. */
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *, void *)
{
    return cudaErrorNotSupported;
}
cudaError_t cudaIpcOpenMemHandle(void **, cudaIpcMemHandle_t, unsigned)
{
    return cudaErrorNotSupported;
}
cudaError_t cudaIpcCloseMemHandle(void *)
{
    return cudaErrorNotSupported;
}
cudaError_t cudaRuntimeGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}

/* Descriptions of rows of heads, as tests/cuda_emulator/kernels/sm90/heads.cuh reads them: [batch, row, head,
 * d] of bf16. */
struct heads {
    const void *data;
    uint64_t length[4], bytes[3];
    uint32_t box[4];
};
static CUresult encode_heads(CUtensorMap *to, CUtensorMapDataType type, void *data, const cuuint64_t *lengths,
                             const cuuint64_t *bytes, const cuuint32_t *box, CUtensorMapSwizzle swizzle)
{
    heads m = {data};
    bool fits = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 && swizzle == CU_TENSOR_MAP_SWIZZLE_128B &&
                box[0] == 64 && box[1] == 1 && box[2] <= 256 && box[3] == 1 && (uintptr_t)data % 16 == 0 &&
                (uintptr_t)to % 64 == 0;
    for (int i = 0; i < 4; i++) {
        m.length[i] = lengths[i];
        m.box[i] = box[i];
        fits = fits && lengths[i] > 0 && (i == 0 || bytes[i - 1] % 16 == 0);
        if (i)
            m.bytes[i - 1] = bytes[i - 1];
    }
    if (!fits)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(to, &m, sizeof m);
    return CUDA_SUCCESS;
}

/* Descriptions of tiles, as tests/cuda_emulator/kernels/sm90/sm90.cuh reads them. */
struct map {
    const void *data;
    uint64_t cols, rows, row_bytes, matrices, matrix_bytes;
    uint32_t box_cols, box_rows;
}; /* cols: bytes */
static CUresult encode_tiles(CUtensorMap *to, CUtensorMapDataType type, cuuint32_t rank, void *data,
                             const cuuint64_t *lengths, const cuuint64_t *strides, const cuuint32_t *box,
                             const cuuint32_t *every, CUtensorMapInterleave interleave,
                             CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill)
{
    if (rank == 4 && interleave == CU_TENSOR_MAP_INTERLEAVE_NONE)
        return encode_heads(to, type, data, lengths, strides, box, swizzle);
    const uint32_t each = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 ? 2 : 1;
    const map m = {data,
                   lengths[0] * each,
                   lengths[1],
                   strides[0],
                   rank == 3 ? lengths[2] : 1,
                   rank == 3 ? strides[1] : 0,
                   box[0] * each,
                   box[1]};
    if ((type != CU_TENSOR_MAP_DATA_TYPE_UINT8 && type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16) ||
        (rank != 2 && rank != 3) || every[0] != 1 || every[1] != 1 ||
        (rank == 3 && (every[2] != 1 || box[2] != 1)) || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
        swizzle != CU_TENSOR_MAP_SWIZZLE_128B || m.box_cols != 128 || box[1] > 256 || (uintptr_t)data % 16 ||
        strides[0] % 16 || strides[0] < m.cols || m.matrix_bytes % 16 || (uintptr_t)to % 64 || m.matrices < 1)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(to, &m, sizeof m);
    return CUDA_SUCCESS;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **to, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult *found)
{
    *to = strcmp(name, "cuTensorMapEncodeTiled") ? NULL : (void *)encode_tiles;
    *found = *to ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

struct product {
    bool whole;
    cublasOperation_t a, b;
    uint32_t epilogue;
    void *bias, *aux;
    int64_t aux_ld;
};
struct layout {
    cudaDataType type;
    int32_t batch;
    uint64_t rows, cols;
    int64_t ld, stride;
};
cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    *h = (cublasLtHandle_t)&last;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t)
{
    return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}
const char *cublasLtGetStatusString(cublasStatus_t)
{
    return "a cuBLASLt error";
}
cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t d, size_t n, cublasComputeType_t c,
                                               cudaDataType_t s)
{
    memset(d, 0, n);
    ((product *)d)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    ((product *)d)->whole = c == CUBLAS_COMPUTE_32I && s == CUDA_R_32I;
    return ((product *)d)->whole || (c == CUBLAS_COMPUTE_32F && s == CUDA_R_32F)
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t what,
                                              const void *from, size_t n)
{
    product *p = (product *)d;
    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        memcpy(&p->a, from, n);
        break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
        memcpy(&p->b, from, n);
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        memcpy(&p->epilogue, from, n);
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        memcpy(&p->bias, from, n);
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        memcpy(&p->aux, from, n);
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        memcpy(&p->aux_ld, from, n);
        break;
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t m, size_t, cudaDataType t, uint64_t r,
                                                 uint64_t c, int64_t ld)
{
    *(layout *)m = {t, 1, r, c, ld, 0};
    return ld >= (int64_t)r ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t m,
                                                cublasLtMatrixLayoutAttribute_t what, const void *from,
                                                size_t n)
{
    layout *l = (layout *)m;
    switch (what) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        memcpy(&l->batch, from, n);
        break;
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        memcpy(&l->stride, from, n);
        break;
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t p, size_t n)
{
    memset(p, 0, n);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t, const void *,
                                                    size_t)
{
    return CUBLAS_STATUS_SUCCESS;
}
static float at(const void *p, cudaDataType t, int64_t i)
{
    return t == CUDA_R_32F ? ((const float *)p)[i] : __bfloat162float(((const __nv_bfloat16 *)p)[i]);
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *,
                                                    cublasLtMatmulAlgoConfigAttributes_t, void *to,
                                                    size_t bytes, size_t *)
{
    memset(to, 0, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
/* EMU_EPILOGUES=0: this cuBLASLt has no algorithm with a GELU. What it has follows the documented rules. */
static bool refused(const product *p, const layout *c)
{
    const bool aux = p->epilogue & 128;
    return aux && (number_of("EMU_EPILOGUES", 1) == 0 || !p->aux || p->aux_ld % 8 ||
                   p->aux_ld < (int64_t)c->rows || (uintptr_t)p->aux % 16);
}
static float emu_gelu(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
}
static float emu_gelu_slope(float x)
{
    const float t = tanhf(0.79788456f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.79788456f * (1.0f + 3.0f * 0.044715f * x * x);
}
static void put(void *p, cudaDataType t, int64_t i, float v)
{
    if (t == CUDA_R_32F)
        ((float *)p)[i] = v;
    else
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(v);
}
/* The value to store, after what the epilogue says. */
static float after(const product *p, const layout *c, int64_t i, int64_t j, float v)
{
    if (p->epilogue & CUBLASLT_EPILOGUE_BIAS)
        v += at(p->bias, c->type, i);
    if (p->epilogue == CUBLASLT_EPILOGUE_DGELU)
        v *= emu_gelu_slope(at(p->aux, c->type, i + j * p->aux_ld));
    if (p->epilogue & CUBLASLT_EPILOGUE_GELU) {
        put(p->aux, c->type, i + j * p->aux_ld, v);
        v = emu_gelu(v);
    }
    return v;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t dd,
                                              cublasLtMatrixLayout_t la, cublasLtMatrixLayout_t lb,
                                              cublasLtMatrixLayout_t lc, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t *r, int *found)
{
    product *p = (product *)dd;
    layout *a = (layout *)la, *b = (layout *)lb, *c = (layout *)lc;
    uint64_t m = p->a ? a->cols : a->rows, k = p->a ? a->rows : a->cols, n = p->b ? b->rows : b->cols,
             k2 = p->b ? b->cols : b->rows;
    memset(r, 0, sizeof *r);
    *found = 1;
    if (refused(p, c)) {
        *found = 0;
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    return m == c->rows && n == c->cols && k == k2 && a->batch == c->batch && b->batch == c->batch
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_INVALID_VALUE;
}
static void multiply_whole(const product &p, const layout &a, const layout &b, const layout &c, const void *A,
                           const void *B, void *D)
{
    emu_access access;
    const int8_t *a8 = (const int8_t *)A, *b8 = (const int8_t *)B;
    int64_t m = (int64_t)c.rows, n = (int64_t)c.cols, k = (int64_t)(p.a ? a.rows : a.cols);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            int sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += a8[l + i * a.ld] * b8[l + j * b.ld];
            ((int *)D)[i + j * c.ld] = sum;
        }
}
static void multiply(const product &p, const layout &a, const layout &b, const layout &c, float al, float be,
                     const void *A, const void *B, const void *C, void *D)
{
    emu_access access;
    int64_t m = (int64_t)c.rows, n = (int64_t)c.cols, k = (int64_t)(p.a ? a.rows : a.cols);
    std::vector<float> x((size_t)(m * k)), y((size_t)(n * k)); /* op(A) and op(B), the inner dimension last */
    for (int64_t one = 0; one < c.batch; one++) {
        int64_t to = one * c.stride;
        for (int64_t l = 0; l < k; l++) {
            for (int64_t i = 0; i < m; i++)
                x[i * k + l] = at(A, a.type, one * a.stride + (p.a ? l + i * a.ld : i + l * a.ld));
            for (int64_t j = 0; j < n; j++)
                y[j * k + l] = at(B, b.type, one * b.stride + (p.b ? j + l * b.ld : l + j * b.ld));
        }
        for (int64_t j = 0; j < n; j++) {
            for (int64_t i = 0; i < m; i++) {
                float sum = 0.0f;
                for (int64_t l = 0; l < k; l++)
                    sum += x[i * k + l] * y[j * k + l];
                float v = al * sum + (be != 0.0f ? be * at(C, c.type, to + i + j * c.ld) : 0.0f);
                put(D, c.type, to + i + j * c.ld, after(&p, &c, i, j, v));
            }
        }
    }
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t dd, const void *alpha, const void *A,
                              cublasLtMatrixLayout_t la, const void *B, cublasLtMatrixLayout_t lb,
                              const void *beta, const void *C, cublasLtMatrixLayout_t lc, void *D,
                              cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *, size_t,
                              cudaStream_t s)
{
    const product p = *(product *)dd;
    const layout a = *(layout *)la, b = *(layout *)lb, c = *(layout *)lc;
    if (p.whole) {
        if (p.a != CUBLAS_OP_T || p.b != CUBLAS_OP_N || a.type != CUDA_R_8I || c.type != CUDA_R_32I ||
            *(const int *)alpha != 1 || *(const int *)beta != 0 || c.rows % 4 || a.rows % 4 || a.ld % 4 ||
            b.ld % 4)
            return CUBLAS_STATUS_NOT_SUPPORTED;
        emu_queue(s, [=]() { multiply_whole(p, a, b, c, A, B, D); });
    } else {
        const float al = *(const float *)alpha, be = *(const float *)beta;
        emu_queue(s, [=]() { multiply(p, a, b, c, al, be, A, B, C, D); });
    }
    return CUBLAS_STATUS_SUCCESS;
}
}
