/* device.cu - services of a GPU that the column's ops use: errors, scratch memory, switches, memory. The
 * table of the ops, and what opens a device: kernels/cuda/column.cu. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

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

p4_rc p4_cuda_switch(int *choice, const char *name, const char *const *choices)
{
    const char *asked = getenv(name);
    char known[120] = "";
    *choice = 0;
    if (!asked || !asked[0]) {
        return P4_OK;
    }
    for (int i = 0; choices[i]; i++) {
        if (strcmp(asked, choices[i]) == 0) {
            *choice = i;
            return P4_OK;
        }
        const size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? " or " : "", choices[i]);
    }
    return FAIL("%s: found \"%s\", expected %s", name, asked, known);
}

const char *p4_cuda_describe(p4_device *device)
{
    return device->description;
}

void p4_cuda_identify(p4_device *device, p4_device_identity *identity)
{
    int runtime = 0, driver = 0;
    const size_t blas = cublasLtGetVersion();
    memset(identity, 0, sizeof *identity);
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(&driver);
    snprintf(identity->name, sizeof identity->name, "%s", device->product);
    snprintf(identity->cuda, sizeof identity->cuda, "runtime %d.%d, driver %d.%d", runtime / 1000,
             runtime % 1000 / 10, driver / 1000, driver % 1000 / 10);
    if (blas > 0) {
        snprintf(identity->blas, sizeof identity->blas, "cuBLASLt %zu.%zu.%zu", blas / 10000,
                 blas / 100 % 100, blas % 100);
    }
}

int64_t p4_cuda_act_bytes(p4_device *device)
{
    return p4_act_bytes(device);
}

p4_rc p4_cuda_sync(p4_device *device)
{
    p4_cuda_ok(device, cudaStreamSynchronize(device->stream), "an op that was queued");
    return device->failure[0] ? FAULT("%s", device->failure) : P4_OK;
}

void *p4_cuda_stream(p4_device *device)
{
    return device->stream;
}

/* --- memory ----------------------------------------------------------------------------------- */

p4_rc p4_cuda_alloc(p4_device *device, void **memory, int64_t bytes)
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

void p4_cuda_release(p4_device *device, void *memory)
{
    p4_ledger_remove(&device->ledger, memory);
    p4_cuda_ok(device, cudaFree(memory), "release");
}

int64_t p4_cuda_peak_bytes(p4_device *device)
{
    return device->ledger.peak_bytes + P4_SCRATCH_BYTES + P4_BLAS_WORK_BYTES;
}

int64_t p4_cuda_room_bytes(p4_device *device)
{
    return p4_max_i64(0, device->memory_bytes - device->ledger.held_bytes - P4_SCRATCH_BYTES -
                             P4_BLAS_WORK_BYTES);
}

void p4_cuda_copy(p4_device *device, void *to, const void *from, int64_t bytes)
{
    if (bytes > 0) {
        p4_cuda_ok(device, cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToDevice, device->stream),
                   "copy");
    }
}

void p4_cuda_zero(p4_device *device, void *memory, int64_t bytes)
{
    if (bytes > 0) {
        p4_cuda_ok(device, cudaMemsetAsync(memory, 0, (size_t)bytes, device->stream), "zero");
    }
}
