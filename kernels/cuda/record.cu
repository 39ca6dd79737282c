/* record.cu - replays repeated work as a CUDA graph: the step of a small model is hundreds of launches,
 * which take the host longer than they take the GPU; a graph is one launch.
 *
 * The first time the work just runs: that chooses and times the algorithms of products, makes the plans of
 * attention and loads kernels, all of which the host waits for. The second time it is captured from the
 * stream, and from then on run as a graph. Kernels in a graph get the same arguments every time: whatever
 * changes lies in device memory, where copies before the graph put it. Products that have not been timed by
 * then keep their first algorithm, which does not change a bit. Work that cannot be captured leaves the
 * stream unchanged: nothing of it has run, so it runs in full, and is never captured again. A large model
 * gains nothing and loses nothing, as its launches hide behind its kernels. P4_GRAPH=off in the environment
 * launches kernel by kernel, for comparison. Where the work is to call the host (op `callout`) the graph is
 * cut into pieces, and the call comes between their launches. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

enum { PIECES = 64 };

/* What is queued at once, and the call behind it (op `callout`); the last piece has none. */
typedef struct piece {
    cudaGraphExec_t graph;
    void (*call)(void *user, int64_t value);
    void *user;
    int64_t value;
} piece;

struct p4_recording {
    bool done;    /* the work has run once */
    bool refused; /* it cannot be captured */
    bool lost;    /* part of it ran while it should have been captured */
    cudaError_t error;
    int count; /* of pieces; 0: not captured */
    piece pieces[PIECES];
};

p4_rc p4_cuda_repeat_open(p4_device *device)
{
    static const char *const choices[] = {"on", "off", NULL};
    int off;
    const p4_rc rc = p4_cuda_switch(&off, "P4_GRAPH", choices);
    device->repeats = !off;
    return rc;
}

/* Thread-local, so that driver calls by other threads (NCCL's) do not end the capture. */
static cudaError_t begin_piece(p4_device *device)
{
    return cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal);
}

/* Of a capture that has failed already, what is queued is dropped. */
static void end_piece(p4_device *device, p4_recording *r, const piece *behind)
{
    cudaGraph_t graph = NULL;
    cudaError_t error = cudaStreamEndCapture(device->stream, &graph);
    if (error == cudaSuccess && r->count == PIECES) {
        p4_cuda_fail(device, "more than %d callouts in work to be repeated", PIECES - 1);
    }
    if (r->error == cudaSuccess) {
        r->error = error;
    }
    if (r->error == cudaSuccess && !device->failure[0]) {
        r->pieces[r->count] = *behind;
        r->error = cudaGraphInstantiate(&r->pieces[r->count].graph, graph, 0);
        r->count += r->error == cudaSuccess;
    }
    if (graph) {
        cudaGraphDestroy(graph);
    }
}

static void drop_pieces(p4_recording *r)
{
    for (int i = 0; i < r->count; i++) {
        cudaGraphExecDestroy(r->pieces[i].graph);
    }
    r->count = 0;
}

/* Captures what the work queues. No pieces: it cannot be captured, and the log says why. Any failure on the
 * way is one of capturing, for the device had none before: it is cleared, and reappears if the work fails
 * without capturing. */
static void capture(p4_device *device, p4_recording *r, void (*work)(void *user), void *user)
{
    const piece last = {};
    r->error = begin_piece(device);
    if (r->error == cudaSuccess) {
        device->recording = r;
        work(user);
        device->recording = NULL;
        if (!r->lost) {
            end_piece(device, r, &last);
        }
    }
    if (r->lost) {
        drop_pieces(r);
    } else if (r->error != cudaSuccess || device->failure[0]) {
        WARN("%s: the steps are launched kernel by kernel",
             device->failure[0] ? device->failure : cudaGetErrorString(r->error));
        device->failure[0] = '\0';
        cudaGetLastError();
        drop_pieces(r);
    }
    r->refused = r->count == 0;
}

static void replay(p4_device *device, const p4_recording *r)
{
    for (int i = 0; i < r->count; i++) {
        const piece *p = &r->pieces[i];
        p4_cuda_ok(device, cudaGraphLaunch(p->graph, device->stream), "a repeated step");
        if (p->call) {
            p->call(p->user, p->value);
        }
    }
}

void p4_cuda_repeat(p4_device *device, p4_recording **recording, void (*work)(void *user), void *user)
{
    if (!device->repeats || device->recording || device->failure[0]) {
        work(user);
        return;
    }
    if (!*recording) {
        *recording = (p4_recording *)p4_alloc(1, sizeof **recording);
    }
    p4_recording *r = *recording;
    if (r && r->done && !r->refused && r->count == 0) {
        capture(device, r, work, user);
    }
    if (r && r->count > 0) {
        replay(device, r);
        return;
    }
    work(user);
    if (r) {
        r->done = true;
    }
}

/* If the stream cannot go on to capture, what the work queues next runs, and would run again: a failure that
 * stays. */
void p4_cuda_callout(p4_device *device, void (*call)(void *user, int64_t value), void *user, int64_t value)
{
    const piece behind = {NULL, call, user, value};
    if (!device->recording) {
        call(user, value);
        return;
    }
    if (device->recording->lost) {
        return;
    }
    end_piece(device, device->recording, &behind);
    const cudaError_t error = begin_piece(device);
    if (error != cudaSuccess) {
        device->recording->lost = true;
        p4_cuda_fail(device, "work to be repeated: %s", cudaGetErrorString(error));
    }
}

void p4_cuda_forget(p4_device *device, p4_recording **recording)
{
    p4_recording *r = *recording;
    if (r && r->count > 0) {
        p4_cuda_ok(device, cudaStreamSynchronize(device->stream), "forget");
        drop_pieces(r);
    }
    free(r);
    *recording = NULL;
}
