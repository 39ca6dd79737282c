/* copy.cu - copies between host and device through a ring of pinned buffers (stages), in both directions:
 * while the device copies some of them, threads of the host fill or empty another. */
#include "kernels/cuda/cuda.cuh"

extern "C" {
#include "kernels/host_copy.h"
}

bool p4_cuda_stages_open(p4_device *device)
{
    bool ok = true;
    for (int i = 0; ok && i < P4_STAGES; i++) {
        ok =
            p4_cuda_ok(device, cudaMallocHost(&device->stage[i].h_memory, P4_STAGE_BYTES), "pinned memory") &&
            p4_cuda_ok(device, cudaEventCreateWithFlags(&device->stage[i].done, cudaEventDisableTiming),
                       "event");
    }
    return ok;
}

void p4_cuda_stages_close(p4_device *device)
{
    for (int i = 0; i < P4_STAGES; i++) {
        if (device->stage[i].done) {
            cudaEventDestroy(device->stage[i].done);
        }
        cudaFreeHost(device->stage[i].h_memory);
    }
}

static p4_cuda_stage *next_stage(p4_device *device)
{
    p4_cuda_stage *stage = &device->stage[device->next_stage];
    device->next_stage = (device->next_stage + 1) % P4_STAGES;
    return stage;
}

/* Queues a copy of at most P4_STAGE_BYTES between a stage and the device. */
static bool queue_piece(p4_device *device, p4_cuda_stage *stage, void *to, const void *from, int64_t bytes,
                        cudaMemcpyKind kind)
{
    const char *what = kind == cudaMemcpyHostToDevice ? "to_device" : "to_host";
    return p4_cuda_ok(device, cudaMemcpyAsync(to, from, (size_t)bytes, kind, device->stream), what) &&
           p4_cuda_ok(device, cudaEventRecord(stage->done, device->stream), what);
}

/* Copies from and to the host cannot be part of recorded work: when the record is replayed, the stage that
 * it names holds other bytes. */
static bool may_copy(p4_device *device, const char *op)
{
    if (device->recording) {
        p4_cuda_fail(device, "%s in work to be repeated", op);
    }
    return !device->recording;
}

/* Small copies also go around the ring, so that the host may be some copies ahead of the stream. */
void p4_cuda_to_device(p4_device *device, void *to, const void *h_from, int64_t bytes)
{
    for (int64_t at = 0; at < bytes && may_copy(device, "to_device"); at += P4_STAGE_BYTES) {
        p4_cuda_stage *stage = next_stage(device);
        const int64_t piece = p4_min_i64(P4_STAGE_BYTES, bytes - at);
        if (!p4_cuda_ok(device, cudaEventSynchronize(stage->done), "to_device")) {
            return;
        }
        p4_host_copy(stage->h_memory, (const char *)h_from + at, piece, device->copy_threads);
        if (!queue_piece(device, stage, (char *)to + at, stage->h_memory, piece, cudaMemcpyHostToDevice)) {
            return;
        }
    }
}

/* All stages except the one being emptied are being filled. A stage that is queued again has been emptied
 * before, and whatever the device still reads from it comes earlier in the stream. */
void p4_cuda_to_host(p4_device *device, void *h_to, const void *from, int64_t bytes)
{
    p4_cuda_stage *stages[P4_STAGES];
    int64_t queued = 0;
    for (int64_t at = 0; at < bytes && may_copy(device, "to_host"); at += P4_STAGE_BYTES) {
        for (; queued < bytes && queued - at < (int64_t)P4_STAGES * P4_STAGE_BYTES;
             queued += P4_STAGE_BYTES) {
            p4_cuda_stage *stage = next_stage(device);
            stages[queued / P4_STAGE_BYTES % P4_STAGES] = stage;
            if (!queue_piece(device, stage, stage->h_memory, (const char *)from + queued,
                             p4_min_i64(P4_STAGE_BYTES, bytes - queued), cudaMemcpyDeviceToHost)) {
                return;
            }
        }
        p4_cuda_stage *stage = stages[at / P4_STAGE_BYTES % P4_STAGES];
        if (!p4_cuda_ok(device, cudaEventSynchronize(stage->done), "to_host")) {
            return;
        }
        p4_host_copy((char *)h_to + at, stage->h_memory, p4_min_i64(P4_STAGE_BYTES, bytes - at),
                     device->copy_threads);
    }
}
