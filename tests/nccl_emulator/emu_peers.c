/* emu_peers.c - the CUDA calls of dist/coll_nccl_peers.c on a machine without a GPU: memory that processes
 * share, copies, numbers that are written and waited for, and the additions.
 *
 * Memory of the device is what posix_memalign gives (the CPU's) or cudaMalloc (here). It becomes shared when
 * a handle is asked for: its pages are put into a file in memory and mapped again at the same place. So all
 * of it begins on a page and ends on one. */
#define _GNU_SOURCE
#include <cuda.h>
#include <cuda_runtime.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dist/peer_add.h"
#include "emu.h"

enum { PAGE = 4096, TAKEN_MAX = 1 << 16 };

typedef struct block {
    char *base;
    size_t bytes;
} block;

static struct {
    pthread_mutex_t mutex;
    block blocks[TAKEN_MAX]; /* in the order in which they were taken; of those that lie over each other the
                                last is there */
    int count;
} taken = {.mutex = PTHREAD_MUTEX_INITIALIZER};

typedef struct handle {
    int process, file;
    size_t bytes;
} handle;

static block find(const void *memory)
{
    block found = {0};
    pthread_mutex_lock(&taken.mutex);
    for (int i = taken.count - 1; i >= 0 && found.base == NULL; i--) {
        const block *b = &taken.blocks[i];
        if ((const char *)memory >= b->base && (const char *)memory < b->base + b->bytes) {
            found = *b;
        }
    }
    pthread_mutex_unlock(&taken.mutex);
    return found;
}

/* In place of the library's. */
int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    size_t all = (bytes + PAGE - 1) / PAGE * PAGE;
    *memory = memalign(alignment > PAGE ? alignment : PAGE, all);
    if (*memory == NULL) {
        return ENOMEM;
    }
    pthread_mutex_lock(&taken.mutex);
    if (taken.count == TAKEN_MAX) {
        fprintf(stderr, "emulator: too many allocations\n");
        abort();
    }
    taken.blocks[taken.count++] = (block){*memory, all};
    pthread_mutex_unlock(&taken.mutex);
    return 0;
}

/* --- memory ----------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    return posix_memalign(memory, PAGE, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *memory)
{
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes)
{
    memset(memory, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    return cudaSuccess;
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *out, void *base)
{
    block b = find(base);
    int file = memfd_create("phase4 emulator", 0);
    if (b.base != base || file < 0 || ftruncate(file, (off_t)b.bytes) != 0 ||
        pwrite(file, b.base, b.bytes, 0) != (ssize_t)b.bytes ||
        mmap(b.base, b.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
        return cudaErrorInvalidValue;
    }
    *out = (cudaIpcMemHandle_t){{0}};
    memcpy(out, &(handle){.process = (int)getpid(), .file = file, .bytes = b.bytes}, sizeof(handle));
    return cudaSuccess;
}

/* A word in front of what is given: how much is mapped. */
cudaError_t cudaIpcOpenMemHandle(void **memory, cudaIpcMemHandle_t given, unsigned flags)
{
    handle h;
    char path[64];
    (void)flags;
    memcpy(&h, &given, sizeof h);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", h.process, h.file);
    int file = open(path, O_RDWR);
    char *room = mmap(NULL, PAGE + h.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (file < 0 || room == MAP_FAILED ||
        mmap(room + PAGE, h.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
        return cudaErrorMapBufferObjectFailed;
    }
    close(file);
    memcpy(room, &h.bytes, sizeof h.bytes);
    *memory = room + PAGE;
    return cudaSuccess;
}

cudaError_t cudaIpcCloseMemHandle(void *memory)
{
    size_t bytes;
    char *room = (char *)memory - PAGE;
    memcpy(&bytes, room, sizeof bytes);
    munmap(room, PAGE + bytes);
    return cudaSuccess;
}

/* --- on a stream ------------------------------------------------------------------------------ */

typedef struct copying {
    void *to;
    const void *from;
    size_t bytes;
} copying;

static void copy(void *argument)
{
    const copying *c = argument;
    memcpy(c->to, c->from, c->bytes);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)kind;
    emu_queue(stream, copy, &(copying){to, from, bytes}, sizeof(copying));
    return cudaSuccess;
}

typedef struct adding {
    float *to;
    p4_landed landed;
    double *squares;
} adding;

static void add(void *argument)
{
    const adding *a = argument;
    const p4_landed *l = &a->landed;
    for (int64_t i = 0; i < l->count; i++) {
        float sum = 0;
        for (int r = 0; r < l->ranks; r++) {
            float addend = r == l->rank ? l->own[i] : l->landing[(r < l->rank ? r : r - 1) * l->stride + i];
            sum = r == 0 ? addend : sum + addend;
        }
        a->to[i] = sum;
        if (a->squares != NULL) {
            *a->squares += (double)sum * (double)sum;
        }
    }
}

int p4_peer_add(float *to, const p4_landed *landed, const p4_peer_squares *squares, void *queue)
{
    emu_queue(queue, add, &(adding){to, *landed, squares->sum}, sizeof(adding));
    return 0;
}

typedef struct number {
    _Atomic uint32_t *at;
    uint32_t value;
} number;

static void write_number(void *argument)
{
    const number *n = argument;
    atomic_store(n->at, n->value);
}

static void wait_for_number(void *argument)
{
    const number *n = argument;
    while ((int32_t)(atomic_load(n->at) - n->value) < 0) {
        sched_yield();
    }
}

static CUresult stream_write(CUstream stream, CUdeviceptr at, cuuint32_t value, unsigned flags)
{
    (void)flags;
    emu_queue(stream, write_number, &(number){(void *)(uintptr_t)at, value}, sizeof(number));
    return CUDA_SUCCESS;
}

static CUresult stream_wait(CUstream stream, CUdeviceptr at, cuuint32_t value, unsigned flags)
{
    if (flags != CU_STREAM_WAIT_VALUE_GEQ) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    emu_queue(stream, wait_for_number, &(number){(void *)(uintptr_t)at, value}, sizeof(number));
    return CUDA_SUCCESS;
}

static CUresult address_range(CUdeviceptr *base, size_t *bytes, CUdeviceptr memory)
{
    block b = find((void *)(uintptr_t)memory);
    *base = (CUdeviceptr)(uintptr_t)b.base;
    *bytes = b.bytes;
    return b.base != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *found)
{
    (void)version;
    (void)flags;
    *function = strcmp(symbol, "cuStreamWriteValue32") == 0   ? (void *)(uintptr_t)stream_write
                : strcmp(symbol, "cuStreamWaitValue32") == 0  ? (void *)(uintptr_t)stream_wait
                : strcmp(symbol, "cuMemGetAddressRange") == 0 ? (void *)(uintptr_t)address_range
                                                              : NULL;
    *found = *function != NULL ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
