/* blas.c - loads OpenBLAS without its thread pool, and with the code for this CPU. */
#include "kernels/cpu/blas.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    char *(*core_name)(void);
} blas_functions;

/* Loads the library without its thread pool, whose size it reads from the environment: the column calls it
 * from its own threads. `core`, unless NULL, names the CPU whose code it is to run. */
static p4_rc load(blas_functions *found, const char *core)
{
    const p4_import_function wanted[] = {{"cblas_sgemm", &found->sgemm},
                                         {"cblas_dgemm", &found->dgemm},
                                         {"cblas_dtrsm", &found->dtrsm},
                                         {"openblas_set_num_threads", &found->set_threads},
                                         {"openblas_get_corename", &found->core_name}};
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
    loaded.sgemm = found.sgemm;
    loaded.dgemm = found.dgemm;
    loaded.dtrsm = found.dtrsm;
    warn_of_old_core();
done:
    return rc;
}

p4_rc p4_cpu_blas_open(const p4_cpu_blas **blas)
{
    pthread_mutex_lock(&lock);
    p4_rc rc = loaded.sgemm ? P4_OK : load_for_this_cpu();
    pthread_mutex_unlock(&lock);
    *blas = rc == P4_OK ? &loaded : NULL;
    return rc;
}
