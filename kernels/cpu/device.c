/* device.c - the CPU as a device: memory, threads, and OpenBLAS loaded without its threads. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cpu/cpu.h"

static const char blas_name[] = "libopenblas.so.0";

/* OpenBLAS is loaded once a process and stays loaded. */
static struct {
    pthread_mutex_t lock;
    p4_sgemm_fn sgemm;
    char core[32];
} blas = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* An environment variable's value, to be put back by restore; NULL: it is not set. The caller's. */
static char *save(const char *name)
{
    const char *value = getenv(name);
    return value ? p4_strdup(value) : NULL;
}

static void restore(const char *name, char *saved)
{
    if (saved) {
        setenv(name, saved, 1);
        free(saved);
    } else {
        unsetenv(name);
    }
}

/* Loads the library without its thread pool, whose size it reads from the environment: we call it from our
 * own threads. `core`, where not NULL, is the CPU whose code it shall take. */
static void *load_blas(const char *core)
{
    char *threads = save("OPENBLAS_NUM_THREADS"), *chosen = save("OPENBLAS_CORETYPE");
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    if (core) {
        setenv("OPENBLAS_CORETYPE", core, 1);
    }
    void *library = dlopen(blas_name, RTLD_NOW | RTLD_LOCAL);
    restore("OPENBLAS_NUM_THREADS", threads);
    restore("OPENBLAS_CORETYPE", chosen);
    return library;
}

/* OpenBLAS runs a CPU that is younger than itself with the code of its oldest, Prescott, which costs a factor
 * of 2 to 4. The best code it has that this CPU runs; NULL: it knew the CPU, or the user chose. */
static const char *better_core(const char *core)
{
#if defined(__x86_64__)
    if (getenv("OPENBLAS_CORETYPE") || strcmp(core, "Prescott") != 0) {
        return NULL;
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
        return "SkylakeX";
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "Haswell" : NULL;
#else
    (void)core;
    return NULL;
#endif
}

/* dlsym gives a data pointer; POSIX promises that it holds a function's address. */
static bool find_function(void *function, void *library, const char *name)
{
    void *address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

/* The same library loaded anew where it misjudged this CPU. One that something else in this process holds is
 * not loaded twice and stays as it is: slower, and named in the device's description. */
static void *reload_for_cpu(void *library)
{
    char *(*core_name)(void) = NULL;
    bool named = library && find_function(&core_name, library, "openblas_get_corename");
    const char *better = named ? better_core(core_name()) : NULL;
    if (better) {
        dlclose(library);
        library = load_blas(better);
    }
    return library;
}

/* An inherited OPENBLAS_CORETYPE costs a factor of two when it names an older CPU; it is the user's, so we
 * only say so. */
static void warn_of_old_core(void)
{
#if defined(__x86_64__)
    const char *chosen = getenv("OPENBLAS_CORETYPE");
    bool old = strcmp(blas.core, "Haswell") == 0 || strcmp(blas.core, "Zen") == 0;
    if (chosen && old && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) {
        WARN("OPENBLAS_CORETYPE=%s keeps OpenBLAS from this CPU's AVX-512 code; unset it for speed", chosen);
    }
#endif
}

static p4_rc open_blas(void)
{
    p4_rc rc = P4_OK;
    p4_sgemm_fn sgemm = NULL;
    void (*set_threads)(int) = NULL;
    char *(*core_name)(void) = NULL;
    pthread_mutex_lock(&blas.lock);
    if (!blas.sgemm) {
        void *library = reload_for_cpu(load_blas(NULL));
        if (!library) {
            rc = FAULT("cannot load %s (Debian: libopenblas0-pthread): %s", blas_name, dlerror());
        } else if (!find_function(&sgemm, library, "cblas_sgemm") ||
                   !find_function(&set_threads, library, "openblas_set_num_threads") ||
                   !find_function(&core_name, library, "openblas_get_corename")) {
            rc = FAULT("%s lacks cblas_sgemm, openblas_set_num_threads or openblas_get_corename", blas_name);
        } else {
            set_threads(1);
            snprintf(blas.core, sizeof blas.core, "%s", core_name());
            blas.sgemm = sgemm;
            warn_of_old_core();
        }
    }
    pthread_mutex_unlock(&blas.lock);
    return rc;
}

static void device_close(p4_device *device)
{
    if (device) {
        free(device->scratch);
        p4_ledger_close(&device->ledger);
        free(device);
    }
}

static p4_rc device_list(p4_device_info *devices, int capacity, int *count)
{
    *count = capacity > 0;
    for (int i = 0; i < *count; i++) {
        devices[i] = (p4_device_info){.ordinal = 0};
    }
    return P4_OK;
}

static p4_rc device_open(p4_device **device, int ordinal, int threads, bool half_compute)
{
    p4_rc rc = P4_OK;
    p4_device *opened = NULL;
    (void)half_compute; /* activations are fp32 here */
    *device = NULL;
    CHECK(ordinal == 0, "CPU device %d does not exist; there is one, 0", ordinal);
    CHECK(threads >= 0, "%d threads for the CPU device, expected 0 or more", threads);
    TRY(open_blas());
    opened = p4_alloc(1, sizeof *opened);
    if (!opened) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    opened->threads = threads ? threads : omp_get_num_procs();
    opened->sgemm = blas.sgemm;
    snprintf(opened->description, sizeof opened->description, "CPU, %d thread%s, OpenBLAS %s",
             opened->threads, p4_plural(opened->threads), blas.core);
    *device = opened;
done:
    return rc;
}

static const char *device_describe(p4_device *device)
{
    return device->description;
}

static int64_t device_act_bytes(p4_device *device)
{
    (void)device;
    return (int64_t)sizeof(float);
}

static p4_rc device_alloc(p4_device *device, void **memory, int64_t bytes)
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

static void device_release(p4_device *device, void *memory)
{
    p4_ledger_remove(&device->ledger, memory);
    free(memory);
}

static int64_t device_peak_bytes(p4_device *device)
{
    return device->ledger.peak_bytes + device->scratch_bytes; /* scratch only grows */
}

static int64_t device_room_bytes(p4_device *device)
{
    (void)device;
    return 0;
}

/* memcpy and memset must not see a null pointer, even for zero bytes. */
static void device_copy(p4_device *device, void *to, const void *from, int64_t bytes)
{
    (void)device;
    if (bytes > 0) {
        memmove(to, from, (size_t)bytes);
    }
}

static void device_zero(p4_device *device, void *memory, int64_t bytes)
{
    (void)device;
    if (bytes > 0) {
        memset(memory, 0, (size_t)bytes);
    }
}

static p4_rc device_sync(p4_device *device)
{
    return device->failure[0] ? FAULT("%s", device->failure) : P4_OK;
}

static void device_repeat(p4_device *device, p4_recording **recording, void (*work)(void *user), void *user)
{
    (void)device;
    (void)recording;
    work(user);
}

static void device_forget(p4_device *device, p4_recording **recording)
{
    (void)device;
    (void)recording;
}

static void *device_stream(p4_device *device)
{
    (void)device;
    return NULL;
}

static void act_to_f32(p4_device *device, float *to, const void *act, int64_t count)
{
    device_copy(device, to, act, count * (int64_t)sizeof(float));
}

static void f32_to_act(p4_device *device, void *act, const float *from, int64_t count)
{
    device_copy(device, act, from, count * (int64_t)sizeof(float));
}

void *p4_cpu_scratch(p4_device *device, int64_t bytes)
{
    int64_t wanted = bytes * device->threads;
    if (wanted > device->scratch_bytes) {
        free(device->scratch);
        device->scratch_bytes = 0;
        if (posix_memalign(&device->scratch, 64, (size_t)wanted) != 0) {
            device->scratch = NULL;
            snprintf(device->failure, sizeof device->failure,
                     "out of memory: %lld bytes of scratch for %d threads", (long long)wanted,
                     device->threads);
            return NULL;
        }
        device->scratch_bytes = wanted;
    }
    return device->scratch;
}

const p4_ops p4_cpu_ops = {
    .name = "cpu",
    .host_memory = true,
    .logits_chunk = (int64_t)1 << 22,
    .list = device_list,
    .open = device_open,
    .close = device_close,
    .describe = device_describe,
    .act_bytes = device_act_bytes,
    .alloc = device_alloc,
    .release = device_release,
    .peak_bytes = device_peak_bytes,
    .room_bytes = device_room_bytes,
    .to_device = device_copy,
    .to_host = device_copy,
    .copy = device_copy,
    .zero = device_zero,
    .sync = device_sync,
    .repeat = device_repeat,
    .forget = device_forget,
    .stream = device_stream,
    .act_to_f32 = act_to_f32,
    .f32_to_act = f32_to_act,
    .weight_unpack = p4_cpu_weight_unpack,
    .linear_forward = p4_cpu_linear_forward,
    .linear_backward_input = p4_cpu_linear_backward_input,
    .linear_backward_weight = p4_cpu_linear_backward_weight,
    .linear_backward_bias = p4_cpu_linear_backward_bias,
    .linear_gelu_forward = p4_cpu_linear_gelu_forward,
    .linear_gelu_backward = p4_cpu_linear_gelu_backward,
    .linear_swiglu_backward = p4_cpu_linear_swiglu_backward,
    .quantize_int8 = p4_cpu_quantize_int8,
    .dequantize_int8 = p4_cpu_dequantize_int8,
    .linear_forward_int8 = p4_cpu_linear_forward_int8,
    .embed_forward = p4_cpu_embed_forward,
    .embed_backward = p4_cpu_embed_backward,
    .add_norm_forward = p4_cpu_add_norm_forward,
    .norm_backward = p4_cpu_norm_backward,
    .add = p4_cpu_add,
    .rope = p4_cpu_rope,
    .attention_forward = p4_cpu_attention_forward,
    .attention_backward = p4_cpu_attention_backward,
    .attention_work_count = p4_cpu_attention_work_count,
    .swiglu_forward = p4_cpu_swiglu_forward,
    .swiglu_backward = p4_cpu_swiglu_backward,
    .gelu_forward = p4_cpu_gelu_forward,
    .cross_entropy = p4_cpu_cross_entropy,
    .kl_divergence = p4_cpu_kl_divergence,
    .channel_sum_sq = p4_cpu_channel_sum_sq,
    .moments = p4_cpu_moments,
    .quantize = p4_cpu_quantize,
    .pack_base3 = p4_cpu_pack_base3,
    .unpack_base3 = p4_cpu_unpack_base3,
    .add_sq_norm = p4_cpu_add_sq_norm,
    .scale = p4_cpu_scale,
    .add_sum = p4_cpu_add_sum,
    .add_f32 = p4_cpu_add_f32,
    .grokfast = p4_cpu_grokfast,
    .adamw = p4_cpu_adamw,
    .muon = p4_cpu_muon,
    .muon_work_count = p4_cpu_muon_work_count,
    .round_to_f16 = p4_cpu_round_to_f16,
};
