/* emu.c - the few CUDA and NCCL calls of dist/coll_nccl.c on a machine without a GPU, over shared memory.
 *
 * A stream is a thread that takes its operations in order, each after a random pause, so that an array that
 * is overwritten too early gives other sums. The device's own stream is NULL: the CPU works while the caller
 * waits, so what it waits for is waited for at once, but at most PATIENCE_S: then the stream stays "not
 * ready" (a rank that does not come). A communicator is "in progress" for some polls after every call, and a
 * call in that state is a mistake that ends the program. */
#define _GNU_SOURCE
#include <cuda_runtime.h>
#include <fcntl.h>
#include <nccl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "emu.h"

enum { PIECE = 1 << 18, RANKS = 4, POLLS = 3, PAUSE_US = 2000, PATIENCE_S = 4, GROUP = 1024 };

typedef struct mailbox {
    atomic_bool full;
    char data[PIECE];
} mailbox;

typedef struct shared {
    atomic_int attached, arrived, generation, closed;
    char piece[RANKS][PIECE];
    mailbox boxes[RANKS][RANKS]; /* from, to */
} shared;

struct ncclComm {
    shared *shared;
    int rank, ranks, polls;
    bool opening, closing;
};

struct CUevent_st {
    atomic_long recorded, reached; /* `reached` follows when the stream gets there */
    bool waits;                    /* recorded on the device's stream while that waited */
};

typedef enum task_kind { RECORD, SUM, REDUCE, BCAST, SEND, RECV, GROUPED, CALL, STOP } task_kind;

typedef struct task {
    struct task *next;
    task_kind kind;
    cudaEvent_t event;
    long record;
    ncclComm_t comm;
    const char *from;
    char *to;
    size_t bytes;
    int peer;
    struct task *members; /* of a group */
    void (*work)(void *argument);
    void *argument;
} task;

struct CUstream_st {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t more;
    task *first, *last;
};

static struct {
    cudaEvent_t event; /* what the device's stream waits for, or NULL */
    long record;
} waiting;

static struct {
    int open; /* how often it has begun and not ended */
    task *first, *last;
    cudaStream_t stream;
} group;

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* --- operations, on a stream's thread --------------------------------------------------------- */

static void barrier(ncclComm_t comm)
{
    shared *s = comm->shared;
    int generation = atomic_load(&s->generation);
    if (atomic_fetch_add(&s->arrived, 1) == comm->ranks - 1) {
        atomic_store(&s->arrived, 0);
        atomic_fetch_add(&s->generation, 1);
    }
    while (atomic_load(&s->generation) == generation) {
        sched_yield();
    }
}

/* root -1: to all. Ranks are added in order. */
static void sum_piece(const task *t, size_t at, size_t bytes, int root)
{
    ncclComm_t comm = t->comm;
    memcpy(comm->shared->piece[comm->rank], t->from + at, bytes);
    barrier(comm);
    for (size_t i = 0; (root < 0 || root == comm->rank) && i < bytes; i += sizeof(float)) {
        float sum = 0, addend;
        for (int r = 0; r < comm->ranks; r++) {
            memcpy(&addend, &comm->shared->piece[r][i], sizeof addend);
            sum = r == 0 ? addend : sum + addend;
        }
        memcpy(t->to + at + i, &sum, sizeof sum);
    }
    barrier(comm);
}

static void bcast_piece(const task *t, size_t at, size_t bytes)
{
    ncclComm_t comm = t->comm;
    if (comm->rank == t->peer) {
        memcpy(comm->shared->piece[0], t->from + at, bytes);
    }
    barrier(comm);
    if (comm->rank != t->peer) {
        memcpy(t->to + at, comm->shared->piece[0], bytes);
    }
    barrier(comm);
}

static void pass_piece(const task *t, size_t at, size_t bytes)
{
    ncclComm_t comm = t->comm;
    bool sends = t->kind == SEND;
    mailbox *box =
        sends ? &comm->shared->boxes[comm->rank][t->peer] : &comm->shared->boxes[t->peer][comm->rank];
    while (atomic_load(&box->full) == sends) {
        sched_yield();
    }
    memcpy(sends ? box->data : t->to + at, sends ? t->from + at : box->data, bytes);
    atomic_store(&box->full, sends);
    while (sends && atomic_load(&box->full)) { /* as a large NCCL send: done when it is received */
        sched_yield();
    }
}

static void *run_operation(void *argument)
{
    const task *t = argument;
    for (size_t at = 0; at < t->bytes; at += PIECE) {
        size_t bytes = t->bytes - at < PIECE ? t->bytes - at : PIECE;
        if (t->kind == SUM || t->kind == REDUCE) {
            sum_piece(t, at, bytes, t->kind == SUM ? -1 : t->peer);
        } else if (t->kind == BCAST) {
            bcast_piece(t, at, bytes);
        } else {
            pass_piece(t, at, bytes);
        }
    }
    return NULL;
}

/* Sends and receives of a group go on side by side. */
static void run_group(const task *t)
{
    pthread_t threads[GROUP];
    int running = 0;
    for (task *member = t->members; member != NULL; member = member->next) {
        if (member->kind == SEND || member->kind == RECV) {
            pthread_create(&threads[running++], NULL, run_operation, member);
        } else {
            run_operation(member);
        }
    }
    while (running > 0) {
        pthread_join(threads[--running], NULL);
    }
}

static task *next_task(cudaStream_t stream)
{
    pthread_mutex_lock(&stream->mutex);
    while (stream->first == NULL) {
        pthread_cond_wait(&stream->more, &stream->mutex);
    }
    task *t = stream->first;
    stream->first = t->next;
    pthread_mutex_unlock(&stream->mutex);
    return t;
}

static void *run_stream(void *argument)
{
    unsigned seed = (unsigned)getpid();
    for (;;) {
        task *t = next_task(argument);
        if (t->kind == STOP) {
            return NULL;
        }
        if (t->kind == RECORD) {
            atomic_store(&t->event->reached, t->record);
            continue;
        }
        usleep((unsigned)rand_r(&seed) % PAUSE_US);
        if (t->kind == GROUPED) {
            run_group(t);
        } else if (t->kind == CALL) {
            t->work(t->argument);
        } else {
            run_operation(t);
        }
    }
}

static void push(cudaStream_t stream, const task *given)
{
    task *t = malloc(sizeof *t); /* lives as long as the program: a test */
    *t = *given;
    t->next = NULL;
    pthread_mutex_lock(&stream->mutex);
    if (stream->first == NULL) {
        stream->first = t;
    } else {
        stream->last->next = t;
    }
    stream->last = t;
    pthread_cond_signal(&stream->more);
    pthread_mutex_unlock(&stream->mutex);
}

void emu_queue(cudaStream_t stream, void (*work)(void *argument), const void *argument, size_t bytes)
{
    void *copy = malloc(bytes);
    memcpy(copy, argument, bytes);
    push(stream, &(task){.kind = CALL, .work = work, .argument = copy});
}

/* --- CUDA ------------------------------------------------------------------------------------- */

cudaError_t cudaSetDevice(int device)
{
    (void)device;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaSuccess ? "no error" : "an emulated error";
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *lowest, int *highest)
{
    *lowest = 0;
    *highest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    (void)flags;
    (void)priority;
    *stream = calloc(1, sizeof **stream);
    pthread_mutex_init(&(*stream)->mutex, NULL);
    pthread_cond_init(&(*stream)->more, NULL);
    pthread_create(&(*stream)->thread, NULL, run_stream, *stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    push(stream, &(task){.kind = STOP});
    pthread_join(stream->thread, NULL);
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    (void)flags;
    *event = calloc(1, sizeof **event);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    return cudaSuccess;
}

static bool device_waits(void)
{
    return waiting.event != NULL && atomic_load(&waiting.event->reached) < waiting.record;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    bool ready =
        event->waits ? !device_waits() : atomic_load(&event->reached) >= atomic_load(&event->recorded);
    return ready ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    event->waits = stream == NULL && device_waits();
    if (stream != NULL) {
        push(stream,
             &(task){.kind = RECORD, .event = event, .record = atomic_fetch_add(&event->recorded, 1) + 1});
    }
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    (void)flags;
    long record = atomic_load(&event->recorded);
    double started_s = now_s();
    while (stream == NULL &&
           atomic_load(&event->reached) < record) { /* the device's own work is always done */
        sched_yield();
        if (now_s() - started_s > PATIENCE_S) {
            waiting.event = event;
            waiting.record = record;
            break;
        }
    }
    return cudaSuccess;
}

/* --- NCCL ------------------------------------------------------------------------------------- */

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSuccess ? "no error" : "an emulated error";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return "emulated";
}

ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    snprintf(id->internal, sizeof id->internal, "/p4-nccl-%d-%.0f", (int)getpid(), now_s() * 1e6);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    int file = shm_open(id.internal, O_CREAT | O_RDWR, 0600);
    if (config->blocking != 0 || ranks > RANKS || file < 0 || ftruncate(file, sizeof(shared)) != 0) {
        return ncclInvalidUsage;
    }
    *comm = calloc(1, sizeof **comm);
    **comm = (struct ncclComm){.rank = rank, .ranks = ranks, .opening = true};
    (*comm)->shared = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (atomic_fetch_add(&(*comm)->shared->attached, 1) == ranks - 1) {
        shm_unlink(id.internal);
    }
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result)
{
    bool busy = comm->polls > 0;
    busy = busy || (comm->opening && atomic_load(&comm->shared->attached) < comm->ranks);
    busy = busy || (comm->closing && atomic_load(&comm->shared->closed) < comm->ranks);
    comm->polls -= comm->polls > 0;
    *result = busy ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    atomic_fetch_add(&comm->shared->closed, 1);
    comm->closing = true;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    munmap(comm->shared, sizeof(shared));
    free(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    (void)comm; /* its stream may still be at work */
    return ncclSuccess;
}

int emu_ranks(ncclComm_t comm)
{
    return comm->ranks;
}

ncclResult_t ncclGroupStart(void)
{
    if (group.open++ == 0) {
        group.first = group.last = NULL;
    }
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (--group.open > 0 || group.first == NULL) {
        return ncclSuccess;
    }
    group.first->comm->polls = POLLS;
    push(group.stream, &(task){.kind = GROUPED, .members = group.first});
    return ncclInProgress;
}

static ncclResult_t call(cudaStream_t stream, const task *given)
{
    if (given->comm->polls > 0) {
        fprintf(stderr, "emulator: a call while the communicator is in progress\n");
        abort();
    }
    if (!group.open) {
        given->comm->polls = POLLS;
        push(stream, given);
        return ncclInProgress;
    }
    task *t = malloc(sizeof *t);
    *t = *given;
    t->next = NULL;
    if (group.first == NULL) {
        group.first = t;
    } else {
        group.last->next = t;
    }
    group.last = t;
    group.stream = stream;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream)
{
    (void)type; /* fp32 */
    (void)op;   /* sum */
    return call(stream, &(task){.kind = SUM, .comm = comm, .from = from, .to = to, .bytes = count * 4});
}

ncclResult_t ncclReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                        int root, ncclComm_t comm, cudaStream_t stream)
{
    (void)type;
    (void)op;
    return call(
        stream,
        &(task){.kind = REDUCE, .comm = comm, .from = from, .to = to, .bytes = count * 4, .peer = root});
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    (void)type; /* bytes, as below */
    return call(stream,
                &(task){.kind = BCAST, .comm = comm, .from = from, .to = to, .bytes = count, .peer = root});
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    (void)type;
    return call(stream, &(task){.kind = SEND, .comm = comm, .from = from, .bytes = count, .peer = peer});
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    (void)type;
    return call(stream, &(task){.kind = RECV, .comm = comm, .to = to, .bytes = count, .peer = peer});
}
