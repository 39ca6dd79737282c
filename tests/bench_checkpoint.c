/* bench_checkpoint DIRECTORY [MIB] - what a checkpoint's part costs: its copy in memory, for which training
 * waits, and its way to the disk beside the training, next to a plain write and sync of as many bytes (dd
 * conv=fsync). CPU seconds beside wall seconds, as the machine may be shared; the best of three. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/h5/arrays.h"

enum { ROWS = 1024, COLS = 256, TRIES = 3, PIECE_BYTES = 16 << 20 }; /* arrays of 1 MiB */

typedef struct lap {
    double wall_s, cpu_s;
} lap;

static lap now(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (lap){p4_now_s(), (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                                 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec)};
}

static void keep_best(lap *best, lap from)
{
    lap to = now();
    if (best->wall_s == 0 || to.wall_s - from.wall_s < best->wall_s) {
        best->wall_s = to.wall_s - from.wall_s;
    }
    if (best->cpu_s == 0 || to.cpu_s - from.cpu_s < best->cpu_s) {
        best->cpu_s = to.cpu_s - from.cpu_s;
    }
}

static p4_rc copy(p4_arrays_writer **w, const char *path, const float *values, int64_t arrays,
                  const void **bytes, int64_t *count)
{
    p4_rc rc = P4_OK;
    char name[64];
    TRY(p4_arrays_create_image(w, path));
    for (int64_t i = 0; i < arrays; i++) {
        snprintf(name, sizeof name, "tensors/layer.%lld/master", (long long)i);
        TRY(p4_arrays_put(*w, name, P4_H5_F32, ROWS, COLS, values + i * ROWS * COLS));
    }
    TRY(p4_arrays_image(*w, bytes, count));
done:
    return rc;
}

/* As the thread of jobs/save.c writes it. */
static p4_rc store(const char *path, const char *bytes, int64_t count)
{
    p4_rc rc = P4_OK;
    p4_atomic_file file;
    TRY(p4_atomic_open(&file, path));
    for (int64_t at = 0; rc == P4_OK && at < count; at += PIECE_BYTES) {
        rc = p4_atomic_write(&file, bytes + at, (size_t)p4_min_i64(PIECE_BYTES, count - at));
        p4_atomic_begin_sync(&file);
    }
    p4_rc closed = p4_atomic_close(&file, rc == P4_OK);
    rc = rc != P4_OK ? rc : closed;
done:
    return rc;
}

static p4_rc plain(const char *path, const char *bytes, int64_t count)
{
    p4_rc rc = P4_OK;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    for (int64_t at = 0; fd >= 0 && at < count;) {
        ssize_t written = write(fd, bytes + at, (size_t)p4_min_i64(1 << 20, count - at));
        CHECK(written > 0, "%s: cannot write", path);
        at += written;
    }
    CHECK(fd >= 0 && fsync(fd) == 0, "%s: cannot write", path);
done:
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    return rc;
}

static void print(const char *what, lap best, int64_t bytes)
{
    printf("%-36s %6.3f s, %6.3f s of CPU, %7.0f MB/s\n", what, best.wall_s, best.cpu_s,
           1e-6 * (double)bytes / best.wall_s);
}

int main(int argc, char **argv)
{
    p4_rc rc = P4_OK;
    int64_t arrays = argc > 2 ? atoll(argv[2]) : 100, count = 0;
    lap copied = {0}, stored = {0}, peer = {0}, from;
    char path[4096];
    float *values = NULL;
    CHECK(argc > 1 && arrays > 0, "usage: bench_checkpoint DIRECTORY [MIB]");
    values = p4_alloc((size_t)arrays, ROWS * COLS * sizeof *values);
    TRY(values != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < arrays * ROWS * COLS; i++) {
        values[i] = (float)(i % 65537) * 1e-3f;
    }
    snprintf(path, sizeof path, "%s/bench_checkpoint.h5", argv[1]);
    for (int i = 0; i < TRIES; i++) {
        p4_arrays_writer *w = NULL;
        const void *bytes = NULL;
        from = now();
        TRY(copy(&w, path, values, arrays, &bytes, &count));
        keep_best(&copied, from);
        from = now();
        TRY(store(path, bytes, count));
        keep_best(&stored, from);
        unlink(path);
        from = now();
        TRY(plain(path, bytes, count));
        keep_best(&peer, from);
        TRY(p4_arrays_finish(w, false));
    }
    print("copy, training waits", copied, count);
    print("written, synced and renamed", stored, count);
    print("write and fsync of the same bytes", peer, count);
done:
    free(values);
    if (rc != P4_OK) {
        fprintf(stderr, "bench_checkpoint: %s\n", p4_last_error());
    }
    return (int)rc;
}
