/* device.cu - a GPU as a device: memory, errors, and the table of the CUDA ops. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_ops_b.h"
#include "kernels/cuda/muon.cuh"
#include "kernels/cuda/swiglu_backward.cuh"
#include "kernels/cuda/tensor_map.cuh"

extern "C" {
#include "kernels/host_copy.h"
}

bool p4_cuda_ok(p4_device *device, cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        p4_cuda_fail(device, "%s: %s", what, cudaGetErrorString(error));
    }
    return error == cudaSuccess;
}

void p4_cuda_fail(p4_device *device, const char *format, ...)
{
    if (device->failure[0]) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    int used = snprintf(device->failure, sizeof device->failure, "cuda device %d: ", device->ordinal);
    vsnprintf(device->failure + used, sizeof device->failure - (size_t)used, format, arguments);
    va_end(arguments);
}

void *p4_cuda_scratch(p4_device *device, int64_t bytes)
{
    if (bytes > P4_SCRATCH_BYTES) {
        p4_cuda_fail(device, "an op asked for %lld bytes of scratch memory, there are %d", (long long)bytes,
                     P4_SCRATCH_BYTES);
        return NULL;
    }
    return device->scratch;
}

/* --- open and close --------------------------------------------------------------------------- */

static void device_close(p4_device *device)
{
    if (!device) {
        return;
    }
    cudaSetDevice(device->ordinal);
    if (device->stream) {
        cudaStreamSynchronize(device->stream);
    }
    p4_cudnn_close(device);
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

/* What an open device owns beside itself. Failures are recorded in the device. */
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

p4_rc p4_cuda_way(int *way, const char *name, const char *const *ways)
{
    const char *asked = getenv(name);
    char known[120] = "";
    *way = 0;
    if (!asked || !asked[0]) {
        return P4_OK;
    }
    for (int i = 0; ways[i]; i++) {
        if (strcmp(asked, ways[i]) == 0) {
            *way = i;
            return P4_OK;
        }
        const size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? " or " : "", ways[i]);
    }
    return FAIL("%s: found \"%s\", expected %s", name, asked, known);
}

/* *own: kernels of ours do it, where wgmma is there and activations are bf16, unless the variable says
 * cublas; they are made ready. */
static p4_rc open_own(p4_device *device, bool *own, const char *variable, bool wgmma,
                      bool (*ready)(p4_device *))
{
    static const char *const names[] = {"own", "cublas", NULL};
    const int first = wgmma && device->half ? 0 : 1;
    int way;
    const p4_rc rc = p4_cuda_way(&way, variable, names + first);
    *own = first + way == 0;
    if (rc == P4_OK && *own && !ready(device)) {
        return FAULT("%s", device->failure);
    }
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
    cudaGetLastError(); /* an error that was reported is not met again at the next launch */
    return rc;
}

static bool is_usable(const cudaDeviceProp *properties)
{
    return properties->major >= 8;
}

static p4_rc device_list(p4_device_info *devices, int capacity, int *count)
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

static p4_rc device_open(p4_device **device, int ordinal, int threads, bool half_compute)
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
    if (!take_resources(opened) || (sm90 && !p4_cuda_boxes_open(opened))) {
        rc = FAULT("%s", opened->failure);
        goto done;
    }
    TRY(p4_cuda_int8_open(opened, sm90));
    TRY(open_own(opened, &opened->muon_own, "P4_MUON", sm90, p4_cuda_muon_own_open));
    TRY(open_own(opened, &opened->swiglu_own, "P4_SWIGLU_BACKWARD", sm90, p4_cuda_swiglu_own_open));
    TRY(p4_cuda_repeat_open(opened));
    TRY(p4_cuda_plans_open(opened));
    p4_attention_open(opened);
    TRY(p4_cudnn_open(opened, properties.major, attention, sizeof attention));
    snprintf(opened->description, sizeof opened->description,
             "%s, %.0f GiB, %d processors, %s activations, %s", properties.name,
             (double)properties.totalGlobalMem / (1 << 30), opened->processors,
             half_compute ? "bf16" : "fp32", attention);
    *device = opened;
    opened = NULL;
done:
    device_close(opened);
    return rc;
}

static const char *device_describe(p4_device *device)
{
    return device->description;
}

static int64_t device_act_bytes(p4_device *device)
{
    return p4_cuda_act_bytes(device);
}

static p4_rc device_sync(p4_device *device)
{
    p4_cuda_ok(device, cudaStreamSynchronize(device->stream), "an op that was queued");
    return device->failure[0] ? FAULT("%s", device->failure) : P4_OK;
}

static void *device_stream(p4_device *device)
{
    return device->stream;
}

/* --- memory ----------------------------------------------------------------------------------- */

static p4_rc device_alloc(p4_device *device, void **memory, int64_t bytes)
{
    *memory = NULL;
    cudaSetDevice(device->ordinal); /* callers may be on another thread */
    cudaError_t error =
        bytes < 0 ? cudaErrorMemoryAllocation : cudaMalloc(memory, (size_t)p4_max_i64(bytes, 1));
    if (error != cudaSuccess) {
        size_t unused = 0, total = 0;
        cudaGetLastError();
        cudaMemGetInfo(&unused, &total);
        *memory = NULL;
        return FAULT("cuda device %d: %lld bytes cannot be taken, %zu of %zu are free: %s", device->ordinal,
                     (long long)bytes, unused, total, cudaGetErrorString(error));
    }
    p4_rc rc = p4_ledger_add(&device->ledger, *memory, bytes);
    if (rc != P4_OK) {
        cudaFree(*memory);
        *memory = NULL;
    }
    return rc;
}

static void device_release(p4_device *device, void *memory)
{
    p4_ledger_remove(&device->ledger, memory);
    p4_cuda_ok(device, cudaFree(memory), "release");
}

static int64_t device_peak_bytes(p4_device *device)
{
    return device->ledger.peak_bytes + P4_SCRATCH_BYTES + P4_BLAS_WORK_BYTES;
}

static int64_t device_room_bytes(p4_device *device)
{
    return p4_max_i64(0, device->memory_bytes - device->ledger.held_bytes - P4_SCRATCH_BYTES -
                             P4_BLAS_WORK_BYTES);
}

static void device_copy(p4_device *device, void *to, const void *from, int64_t bytes)
{
    if (bytes > 0) {
        p4_cuda_ok(device, cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToDevice, device->stream),
                   "copy");
    }
}

static void device_zero(p4_device *device, void *memory, int64_t bytes)
{
    if (bytes > 0) {
        p4_cuda_ok(device, cudaMemsetAsync(memory, 0, (size_t)bytes, device->stream), "zero");
    }
}

extern "C" const p4_ops p4_cuda_ops = {
    .name = "cuda",
    .host_memory = false,
    .logits_chunk = (int64_t)1 << 27,
    .list = device_list,
    .open = device_open,
    .close = device_close,
    .describe = device_describe,
    .act_bytes = device_act_bytes,
    .alloc = device_alloc,
    .release = device_release,
    .peak_bytes = device_peak_bytes,
    .room_bytes = device_room_bytes,
    .to_device = p4_cuda_to_device,
    .to_host = p4_cuda_to_host,
    .copy = device_copy,
    .zero = device_zero,
    .sync = device_sync,
    .repeat = p4_cuda_repeat,
    .forget = p4_cuda_forget,
    .stream = device_stream,
    .act_to_f32 = p4_cuda_act_to_f32,
    .f32_to_act = p4_cuda_f32_to_act,
    .weight_unpack = p4_cuda_weight_unpack,
    .linear_forward = p4_cuda_linear_forward,
    .linear_backward_input = p4_cuda_linear_backward_input,
    .linear_backward_weight = p4_cuda_linear_backward_weight,
    .linear_backward_bias = p4_cuda_linear_backward_bias,
    .linear_gelu_forward = p4_cuda_linear_gelu_forward,
    .linear_gelu_backward = p4_cuda_linear_gelu_backward,
    .linear_swiglu_backward = p4_cuda_linear_swiglu_backward,
    .quantize_int8 = p4_cuda_quantize_int8,
    .dequantize_int8 = p4_cuda_dequantize_int8,
    .linear_forward_int8 = p4_cuda_linear_forward_int8,
    .embed_forward = p4_cuda_embed_forward,
    .embed_backward = p4_cuda_embed_backward,
    .add_norm_forward = p4_cuda_add_norm_forward,
    .norm_backward = p4_cuda_norm_backward,
    .add = p4_cuda_add,
    .rope = p4_cuda_rope,
    .attention_forward = p4_cuda_attention_forward,
    .attention_backward = p4_cuda_attention_backward,
    .attention_work_count = p4_cuda_attention_work_count,
    .swiglu_forward = p4_cuda_swiglu_forward,
    .swiglu_backward = p4_cuda_swiglu_backward,
    .gelu_forward = p4_cuda_gelu_forward,
    .cross_entropy = p4_cuda_cross_entropy,
    .kl_divergence = p4_cuda_kl_divergence,
    .channel_sum_sq = p4_cuda_channel_sum_sq,
    .moments = p4_cuda_moments,
    .quantize = p4_cuda_quantize,
    .pack_base3 = p4_cuda_pack_base3,
    .unpack_base3 = p4_cuda_unpack_base3,
    .add_sq_norm = p4_cuda_add_sq_norm,
    .scale = p4_cuda_scale,
    .add_sum = p4_cuda_add_sum,
    .add_f32 = p4_cuda_add_f32,
    .grokfast = p4_cuda_grokfast,
    .adamw = p4_cuda_adamw,
    .muon = p4_cuda_muon,
    .muon_work_count = p4_cuda_muon_work_count,
    .round_to_f16 = p4_cuda_round_to_f16,
};
