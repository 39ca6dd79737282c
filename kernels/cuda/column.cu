/* column.cu - the CUDA column of ops.h as one table, and what opens and closes a device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/muon.cuh"
#include "kernels/cuda/swiglu_backward.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/gpu_sizes.h"

extern "C" {
#include "kernels/host_copy.h"
}

void p4_cuda_close(p4_device *device)
{
    if (!device) {
        return;
    }
    cudaSetDevice(device->ordinal);
    if (device->stream) {
        cudaStreamSynchronize(device->stream);
    }
    p4_cuda_attention_close(device);
    p4_cuda_plans_close(device);
    if (device->blas) {
        cublasLtDestroy(device->blas);
    }
    p4_cuda_stages_close(device);
    cudaFree(device->blas_work);
    cudaFree(device->scratch);
    if (device->side_may_start) {
        cudaEventDestroy(device->side_may_start);
    }
    if (device->side_done) {
        cudaEventDestroy(device->side_done);
    }
    if (device->side) {
        cudaStreamDestroy(device->side);
    }
    if (device->stream) {
        cudaStreamDestroy(device->stream);
    }
    p4_ledger_close(&device->ledger);
    free(device);
}

/* Takes what an open device owns. False records a failure. */
static bool take_resources(p4_device *device)
{
    bool ok =
        p4_cuda_ok(device, cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), "stream") &&
        p4_cuda_ok(device, cudaStreamCreateWithFlags(&device->side, cudaStreamNonBlocking), "stream") &&
        p4_cuda_ok(device, cudaEventCreateWithFlags(&device->side_may_start, cudaEventDisableTiming),
                   "event") &&
        p4_cuda_ok(device, cudaEventCreateWithFlags(&device->side_done, cudaEventDisableTiming), "event") &&
        p4_cuda_ok(device, cudaMalloc(&device->scratch, P4_SCRATCH_BYTES), "scratch memory") &&
        p4_cuda_ok(device, cudaMalloc(&device->blas_work, P4_BLAS_WORK_BYTES), "cuBLASLt's workspace");
    ok = ok && p4_cuda_stages_open(device);
    cublasStatus_t status = ok ? cublasLtCreate(&device->blas) : CUBLAS_STATUS_SUCCESS;
    if (status != CUBLAS_STATUS_SUCCESS) {
        p4_cuda_fail(device, "cuBLASLt: %s", cublasLtGetStatusString(status));
        ok = false;
    }
    return ok;
}

/* *own: whether own kernels are used, which `ready` then prepares: with wgmma and bf16 activations, unless
 * the variable names the other implementation. */
static p4_rc open_own(p4_device *device, bool *own, const char *variable, const char *other, bool wgmma,
                      bool (*ready)(p4_device *))
{
    const char *const names[] = {"own", other, NULL};
    const int first = wgmma && device->half ? 0 : 1;
    int choice;
    const p4_rc rc = p4_cuda_switch(&choice, variable, names + first);
    *own = first + choice == 0;
    if (rc == P4_OK && *own && !ready(device)) {
        return FAULT("%s", device->failure);
    }
    return rc;
}

/* Unset, the shape of a product decides between the two. */
static p4_rc open_swiglu(p4_device *device, bool wgmma)
{
    const char variable[] = "P4_SWIGLU_BACKWARD", *asked = getenv(variable);
    const p4_rc rc =
        open_own(device, &device->swiglu_own, variable, "cublas", wgmma, p4_cuda_swiglu_own_open);
    device->swiglu_always = device->swiglu_own && asked && asked[0];
    return rc;
}

/* How many GPUs this process sees: at least one, or an error. */
static p4_rc count_gpus(int *count)
{
    p4_rc rc = P4_OK;
    int driver = 0;
    *count = 0;
    cudaError_t error = cudaDriverGetVersion(&driver);
    CHECK(error != cudaSuccess || driver > 0,
          "no NVIDIA GPU can be used on this machine: it has no NVIDIA driver");
    error = cudaGetDeviceCount(count);
    CHECK(error == cudaSuccess, "no NVIDIA GPU can be used on this machine: %s", cudaGetErrorString(error));
    CHECK(*count > 0, "no NVIDIA GPU can be used on this machine: none is visible to this process");
done:
    cudaGetLastError(); /* so that the next launch does not report it again */
    return rc;
}

static bool is_usable(const cudaDeviceProp *properties)
{
    return properties->major >= 8;
}

p4_rc p4_cuda_list(p4_device_info *devices, int capacity, int *count)
{
    p4_rc rc = P4_OK;
    int seen = 0;
    *count = 0;
    TRY(count_gpus(&seen));
    for (int i = 0; i < seen && *count < capacity; i++) {
        cudaDeviceProp properties;
        if (cudaGetDeviceProperties(&properties, i) == cudaSuccess && is_usable(&properties)) {
            devices[*count].ordinal = i;
            memcpy(devices[*count].id, &properties.uuid, sizeof devices[*count].id);
            ++*count;
        }
    }
    CHECK(*count > 0, "no NVIDIA GPU can be used on this machine: none has compute capability 8.0 or newer");
done:
    cudaGetLastError();
    return rc;
}

/* What leaves the process without its context, as an illegal address in a kernel or a GPU that is gone, is
 * the answer to every later call. Nothing runs there any more: the device is closed. */
p4_rc p4_cuda_usable(int ordinal)
{
    cudaGetLastError(); /* of a call that failed by itself, as for memory */
    cudaError_t error = cudaSetDevice(ordinal);
    if (error == cudaSuccess) {
        error = cudaDeviceSynchronize();
    }
    return error == cudaSuccess ? P4_OK : FAULT("cuda device %d: %s", ordinal, cudaGetErrorString(error));
}

/* Is there a GPU `ordinal` that this build can use? */
static p4_rc find_gpu(int ordinal, cudaDeviceProp *properties)
{
    p4_rc rc = P4_OK;
    cudaError_t error = cudaSuccess;
    int count = 0;
    TRY(count_gpus(&count));
    CHECK(ordinal >= 0 && ordinal < count,
          "cuda device %d does not exist; this machine has %d, counted from 0", ordinal, count);
    error = cudaGetDeviceProperties(properties, ordinal);
    CHECK(error == cudaSuccess, "cuda device %d: %s", ordinal, cudaGetErrorString(error));
    CHECK(is_usable(properties), "cuda device %d (%s) has compute capability %d.%d, expected 8.0 or newer",
          ordinal, properties->name, properties->major, properties->minor);
    error = cudaSetDevice(ordinal);
    CHECK(error == cudaSuccess, "cuda device %d (%s): %s", ordinal, properties->name,
          cudaGetErrorString(error));
done:
    cudaGetLastError();
    return rc;
}

p4_rc p4_cuda_open(p4_device **device, int ordinal, int threads, bool half_compute)
{
    p4_rc rc = P4_OK;
    p4_device *opened = NULL;
    cudaDeviceProp properties;
    char attention[240];
    bool sm90 = false;
    *device = NULL;
    TRY(find_gpu(ordinal, &properties));
    opened = (p4_device *)p4_alloc(1, sizeof *opened);
    if (!opened) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    opened->ordinal = ordinal;
    opened->half = half_compute;
    opened->copy_threads = p4_host_copy_threads(threads);
    opened->processors = properties.multiProcessorCount;
    opened->memory_bytes = (int64_t)properties.totalGlobalMem;
    sm90 = properties.major == 9 && properties.minor == 0;
    if (!take_resources(opened) || (sm90 && !p4_tensor_map_open(opened))) {
        rc = FAULT("%s", opened->failure);
        goto done;
    }
    TRY(p4_cuda_int8_open(opened, sm90));
    TRY(open_own(opened, &opened->muon_own, "P4_MUON", "cublas", sm90, p4_cuda_muon_own_open));
    TRY(open_swiglu(opened, sm90));
    TRY(open_own(opened, &opened->experts_own, "P4_EXPERTS", "plain", sm90, p4_cuda_experts_own_open));
    TRY(p4_cuda_repeat_open(opened));
    TRY(p4_cuda_plans_open(opened));
    TRY(p4_cuda_attention_open(opened, properties.major, attention, sizeof attention));
    snprintf(opened->product, sizeof opened->product, "%s", properties.name);
    snprintf(opened->description, sizeof opened->description,
             "%s, %.0f GiB, %d processors, %s activations, %s", properties.name,
             (double)properties.totalGlobalMem / (1 << 30), opened->processors,
             half_compute ? "bf16" : "fp32", attention);
    *device = opened;
    opened = NULL;
done:
    p4_cuda_close(opened);
    return rc;
}

extern "C" const p4_ops p4_cuda_ops = {
    .name = "cuda",
    .host_memory = false,
    .logits_chunk = P4_GPU_LOGITS_CHUNK,
#define P4_OP(result, name, ...) .name = p4_cuda_##name,
#include "kernels/op_list.h"
};
