/* blas.c - loads OpenBLAS without its thread pool, and with the code for this CPU. */
#include "kernels/cpu/blas.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "src/leaf/import.h"

static p4_import library = {.file = "libopenblas.so.0"};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static p4_cpu_blas loaded; /* sgemm NULL: not yet */

/* An environment variable's value, for restore; NULL: it is not set. The caller's. */
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

typedef struct blas_functions {
    p4_sgemm_fn sgemm;
    p4_dgemm_fn dgemm;
    p4_dtrsm_fn dtrsm;
    void (*set_threads)(int count);
    char *(*core_name)(void), *(*config)(void);
} blas_functions;

/* Loads the library without its thread pool, whose size it reads from the environment: the column calls it
 * from its own threads. `core`, unless NULL, names the CPU whose code it is to run. */
static p4_rc load(blas_functions *found, const char *core)
{
    const p4_import_function wanted[] = {{"cblas_sgemm", &found->sgemm},
                                         {"cblas_dgemm", &found->dgemm},
                                         {"cblas_dtrsm", &found->dtrsm},
                                         {"openblas_set_num_threads", &found->set_threads},
                                         {"openblas_get_corename", &found->core_name},
                                         {"openblas_get_config", &found->config}};
    char *threads = save("OPENBLAS_NUM_THREADS"), *chosen = save("OPENBLAS_CORETYPE");
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    if (core) {
        setenv("OPENBLAS_CORETYPE", core, 1);
    }
    bool all = p4_import_functions(&library, wanted, sizeof wanted / sizeof wanted[0]);
    restore("OPENBLAS_NUM_THREADS", threads);
    restore("OPENBLAS_CORETYPE", chosen);
    return all ? P4_OK : FAULT("%s (Debian: libopenblas0-pthread)", p4_import_error(&library));
}

/* On a CPU that is newer than itself, OpenBLAS runs the code for its oldest CPU, Prescott, which costs a
 * factor of 2 to 4. The best code that it has and this CPU runs; NULL: it knew the CPU, or the user chose. */
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

/* An inherited OPENBLAS_CORETYPE that names an older CPU costs a factor of two. It is the user's setting, so
 * it stays, and a warning says so. */
static void warn_of_old_core(void)
{
#if defined(__x86_64__)
    const char *chosen = getenv("OPENBLAS_CORETYPE");
    bool old = strcmp(loaded.core, "Haswell") == 0 || strcmp(loaded.core, "Zen") == 0;
    if (chosen && old && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) {
        WARN("OPENBLAS_CORETYPE=%s keeps OpenBLAS from this CPU's AVX-512 code; unset it for speed", chosen);
    }
#endif
}

/* The first two words of "OpenBLAS 0.3.21 DYNAMIC_ARCH NO_AFFINITY SkylakeX MAX_THREADS=64". */
static void name_version(char *version, size_t bytes, const char *config)
{
    size_t name = strcspn(config, " "), number = name + strspn(config + name, " ");
    snprintf(version, bytes, "%.*s", (int)(number + strcspn(config + number, " ")), config);
}

/* Loads the library, and loads it again where it misjudged this CPU. If something else in this process holds
 * the library too, it stays as it was: slower, and its core is named in the device's description. */
static p4_rc load_for_this_cpu(void)
{
    p4_rc rc = P4_OK;
    blas_functions found = {0};
    TRY(load(&found, NULL));
    const char *better = better_core(found.core_name());
    if (better) {
        p4_import_unload(&library);
        TRY(load(&found, better));
    }
    found.set_threads(1);
    snprintf(loaded.core, sizeof loaded.core, "%s", found.core_name());
    name_version(loaded.version, sizeof loaded.version, found.config());
    loaded.sgemm = found.sgemm;
    loaded.dgemm = found.dgemm;
    loaded.dtrsm = found.dtrsm;
    warn_of_old_core();
done:
    return rc;
}

/* ---- under a limit on the address space ---- */

enum { LIBRARY_BYTES = 48 << 20, BUFFER_BYTES = 128 << 20, THREADS_MOST = 64 };
static int reserved; /* threads whose buffers OpenBLAS has */

/* OpenBLAS tries again for ever when it cannot map its buffer of a thread (ulimit -v). So look first whether
 * there is room for all of them. */
static p4_rc look_for_room(int threads)
{
    struct rlimit limit;
    char needed[32], most[32];
    size_t bytes = (size_t)LIBRARY_BYTES + (size_t)(threads - reserved) * BUFFER_BYTES;
    if (threads <= reserved || getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return P4_OK;
    }
    void *room = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        return FAULT(
            "OpenBLAS requires %s of address space for %d thread%s, and the limit of this process, %s "
            "(ulimit -v), does not leave it; raise the limit or lower threads_per_rank",
            p4_format_bytes(needed, (double)bytes), threads, p4_plural(threads),
            p4_format_bytes(most, (double)limit.rlim_cur));
    }
    munmap(room, bytes);
    return P4_OK;
}

/* Makes OpenBLAS map the buffers now, before other memory takes the room. */
static void take_buffers(int threads)
{
    void *(*take)(int where) = NULL;
    void (*give)(void *buffer) = NULL;
    const p4_import_function wanted[] = {{"blas_memory_alloc", &take}, {"blas_memory_free", &give}};
    struct rlimit limit;
    bool limited = getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    void *buffers[THREADS_MOST];
    int count = threads < THREADS_MOST ? threads : THREADS_MOST;
    if (threads <= reserved || !limited || !p4_import_functions(&library, wanted, 2)) {
        return;
    }
    for (int i = 0; i < count; i++) {
        buffers[i] = take(0);
    }
    for (int i = 0; i < count; i++) {
        give(buffers[i]);
    }
    reserved = threads;
}

p4_rc p4_cpu_blas_open(const p4_cpu_blas **blas, int threads)
{
    pthread_mutex_lock(&lock);
    p4_rc rc = look_for_room(threads);
    if (rc == P4_OK && !loaded.sgemm) {
        rc = load_for_this_cpu();
    }
    if (rc == P4_OK) {
        take_buffers(threads);
    }
    pthread_mutex_unlock(&lock);
    *blas = rc == P4_OK ? &loaded : NULL;
    return rc;
}
