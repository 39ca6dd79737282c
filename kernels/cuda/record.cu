/* record.cu - work that is repeated, as a CUDA graph: a small model's step is hundreds of launches that
 * take the host longer than they take the GPU; a graph is one.
 *
 * The first time the work is only done: it chooses and times the algorithms of products, makes the plans of
 * attention and loads kernels, for which the host waits. The second time it is captured from the stream, and
 * run as a graph from then on. Kernels get the same arguments in a graph every time: what changes from one
 * time to the next lies in device memory, where copies in front of the graph put it. Products that were not
 * timed by then are taken as they are, which does not change a bit. Whatever cannot be captured leaves the
 * stream as it was: nothing of the work has run, it is done in full, and never captured again. A large model
 * gains nothing, its launches hide behind its kernels, and loses nothing. P4_GRAPH=off in the environment
 * keeps to launches, to compare. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

struct p4_recording {
    bool done;    /* the work has been done once */
    bool refused; /* it cannot be captured */
    cudaGraphExec_t graph;
};

p4_rc p4_cuda_repeat_open(p4_device *device)
{
    static const char *const choices[] = {"on", "off", NULL};
    int off;
    const p4_rc rc = p4_cuda_switch(&off, "P4_GRAPH", choices);
    device->repeats = !off;
    return rc;
}

/* Captures what the work queues; NULL: it cannot be, and the log says why. A failure on the way is the
 * capture's, for the device has none yet: it is cleared, and met again by who does the work without one. */
static cudaGraphExec_t capture(p4_device *device, void (*work)(void *user), void *user)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    /* Of this thread only: what other threads ask of the driver meanwhile (NCCL's do) does not end it. */
    cudaError_t error = cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal);
    if (error == cudaSuccess) {
        device->recording = true;
        work(user);
        device->recording = false;
        error = cudaStreamEndCapture(device->stream, &graph);
    }
    if (error == cudaSuccess && !device->failure[0]) {
        error = cudaGraphInstantiate(&ready, graph, 0);
    }
    if (error != cudaSuccess || device->failure[0]) {
        WARN("%s: the steps are launched kernel by kernel",
             device->failure[0] ? device->failure : cudaGetErrorString(error));
        device->failure[0] = '\0';
        cudaGetLastError();
        ready = NULL;
    }
    if (graph) {
        cudaGraphDestroy(graph);
    }
    return ready;
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
    if (r && r->done && !r->refused && !r->graph) {
        r->graph = capture(device, work, user);
        r->refused = !r->graph;
    }
    if (r && r->graph) {
        p4_cuda_ok(device, cudaGraphLaunch(r->graph, device->stream), "a repeated step");
        return;
    }
    work(user);
    if (r) {
        r->done = true;
    }
}

void p4_cuda_forget(p4_device *device, p4_recording **recording)
{
    p4_recording *r = *recording;
    if (r && r->graph) {
        p4_cuda_ok(device, cudaStreamSynchronize(device->stream), "forget");
        cudaGraphExecDestroy(r->graph);
    }
    free(r);
    *recording = NULL;
}
