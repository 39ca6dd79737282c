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
 * launches kernel by kernel, for comparison. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

struct p4_recording {
    bool done;    /* the work has run once */
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

/* Captures what the work queues. NULL: it cannot be captured, and the log says why. Any failure on the way
 * is one of capturing, for the device had none before: it is cleared, and reappears if the work fails
 * without capturing. */
static cudaGraphExec_t capture(p4_device *device, void (*work)(void *user), void *user)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    /* Thread-local, so that driver calls by other threads (NCCL's) do not end the capture. */
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
