/* device.c - the CPU as a device: threads, memory, and the services that the column's ops use. The table of
 * the ops: kernels/cpu/column.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

void p4_cpu_close(p4_device *device)
{
    if (device) {
        free(device->scratch);
        p4_ledger_close(&device->ledger);
        free(device);
    }
}

p4_rc p4_cpu_list(p4_device_info *devices, int capacity, int *count)
{
    *count = capacity > 0;
    for (int i = 0; i < *count; i++) {
        devices[i] = (p4_device_info){.ordinal = 0};
    }
    return P4_OK;
}

p4_rc p4_cpu_usable(int ordinal)
{
    (void)ordinal;
    return P4_OK;
}

p4_rc p4_cpu_open(p4_device **device, int ordinal, int threads, bool half_compute)
{
    p4_rc rc = P4_OK;
    p4_device *opened = NULL;
    const p4_cpu_blas *blas = NULL;
    (void)half_compute; /* activations are fp32 here */
    *device = NULL;
    CHECK(ordinal == 0, "CPU device %d does not exist; there is one, 0", ordinal);
    CHECK(threads >= 0, "%d threads for the CPU device, expected 0 or more", threads);
    threads = threads ? threads : omp_get_num_procs();
    TRY(p4_cpu_blas_open(&blas, threads));
    opened = p4_alloc(1, sizeof *opened);
    if (!opened) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    opened->threads = threads;
    opened->sgemm = blas->sgemm;
    opened->dgemm = blas->dgemm;
    opened->dtrsm = blas->dtrsm;
    opened->blas_version = blas->version;
    opened->blas_core = blas->core;
    snprintf(opened->description, sizeof opened->description, "CPU, %d thread%s, OpenBLAS %s",
             opened->threads, p4_plural(opened->threads), blas->core);
    *device = opened;
done:
    return rc;
}

const char *p4_cpu_describe(p4_device *device)
{
    return device->description;
}

/* "model name	: AMD EPYC ..." of /proc/cpuinfo; other systems and architectures may have no such line. */
static void name_processor(char *name, size_t bytes)
{
    char line[256];
    FILE *info = fopen("/proc/cpuinfo", "re");
    snprintf(name, bytes, "CPU");
    while (info != NULL && fgets(line, sizeof line, info) != NULL) {
        const char *value = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (value != NULL) {
            value += 1 + strspn(value + 1, " \t");
            snprintf(name, bytes, "%.*s", (int)strcspn(value, "\n"), value);
            break;
        }
    }
    if (info != NULL) {
        fclose(info);
    }
}

void p4_cpu_identify(p4_device *device, p4_device_identity *identity)
{
    *identity = (p4_device_identity){.cuda = ""};
    name_processor(identity->name, sizeof identity->name);
    snprintf(identity->blas, sizeof identity->blas, "%s, %s", device->blas_version, device->blas_core);
}

int64_t p4_cpu_act_bytes(p4_device *device)
{
    (void)device;
    return (int64_t)sizeof(float);
}

p4_rc p4_cpu_alloc(p4_device *device, void **memory, int64_t bytes)
{
    *memory = NULL;
    if (bytes < 0 || posix_memalign(memory, 64, (size_t)p4_max_i64(bytes, 64)) != 0) {
        *memory = NULL;
        return FAULT("out of memory: %lld bytes for the CPU device", (long long)bytes);
    }
    p4_rc rc = p4_ledger_add(&device->ledger, *memory, bytes);
    if (rc != P4_OK) {
        free(*memory);
        *memory = NULL;
    }
    return rc;
}

void p4_cpu_release(p4_device *device, void *memory)
{
    p4_ledger_remove(&device->ledger, memory);
    free(memory);
}

int64_t p4_cpu_peak_bytes(p4_device *device)
{
    return device->ledger.peak_bytes + device->scratch_bytes; /* scratch only grows */
}

int64_t p4_cpu_room_bytes(p4_device *device)
{
    (void)device;
    return 0;
}

/* memcpy and memset must not see a null pointer, even for zero bytes. */
void p4_cpu_copy(p4_device *device, void *to, const void *from, int64_t bytes)
{
    (void)device;
    if (bytes > 0) {
        memmove(to, from, (size_t)bytes);
    }
}

void p4_cpu_to_device(p4_device *device, void *to, const void *h_from, int64_t bytes)
{
    p4_cpu_copy(device, to, h_from, bytes);
}

void p4_cpu_to_host(p4_device *device, void *h_to, const void *from, int64_t bytes)
{
    p4_cpu_copy(device, h_to, from, bytes);
}

void p4_cpu_zero(p4_device *device, void *memory, int64_t bytes)
{
    (void)device;
    if (bytes > 0) {
        memset(memory, 0, (size_t)bytes);
    }
}

p4_rc p4_cpu_sync(p4_device *device)
{
    return device->failure[0] ? FAULT("%s", device->failure) : P4_OK;
}

/* That it is there, as the work has run, is all that it says. */
struct p4_recording {
    char nothing;
};

void p4_cpu_repeat(p4_device *device, p4_recording **recording, void (*work)(void *user), void *user)
{
    (void)device;
    work(user);
    if (*recording == NULL) {
        *recording = p4_alloc(1, sizeof **recording);
    }
}

void p4_cpu_callout(p4_device *device, void (*call)(void *user, int64_t value), void *user, int64_t value)
{
    (void)device;
    call(user, value);
}

void p4_cpu_forget(p4_device *device, p4_recording **recording)
{
    (void)device;
    free(*recording);
    *recording = NULL;
}

void *p4_cpu_stream(p4_device *device)
{
    (void)device;
    return NULL;
}

void p4_cpu_act_to_f32(p4_device *device, float *to, const void *act, int64_t count)
{
    p4_cpu_copy(device, to, act, count * (int64_t)sizeof(float));
}

void *p4_cpu_team_scratch(p4_device *device, int64_t bytes, int threads)
{
    int64_t wanted = bytes * threads;
    if (wanted > device->scratch_bytes) {
        free(device->scratch);
        device->scratch_bytes = 0;
        if (posix_memalign(&device->scratch, 64, (size_t)wanted) != 0) {
            device->scratch = NULL;
            snprintf(device->failure, sizeof device->failure,
                     "out of memory: %lld bytes of scratch for %d threads", (long long)wanted, threads);
            return NULL;
        }
        device->scratch_bytes = wanted;
    }
    return device->scratch;
}

void *p4_cpu_scratch(p4_device *device, int64_t bytes)
{
    return p4_cpu_team_scratch(device, bytes, device->threads);
}
