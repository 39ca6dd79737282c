/* rates.c - phase4_bench rates: what of a machine's speed is not training (train.c), and the file. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "io/out/plan_json.h"

enum { PIECE = 4 << 20, PIECES = 64 };
/* Where nothing was measured: tokenizing by a thread, and links. */
static const double TEXT_OF_THREAD = 5e6, LINK = 10e9;

static double write_file(int fd, const char *piece)
{
    double started_s = p4_now_s();
    bool ok = true;
    for (int i = 0; ok && i < PIECES; i++) {
        ok = write(fd, piece, PIECE) == PIECE;
    }
    return ok && fsync(fd) == 0 ? p4_now_s() - started_s : 0;
}

static double read_file(int fd, char *piece)
{
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    double started_s = p4_now_s();
    bool ok = true;
    for (int i = 0; ok && i < PIECES; i++) {
        ok = pread(fd, piece, PIECE, (off_t)i * PIECE) == PIECE;
    }
    return ok ? p4_now_s() - started_s : 0;
}

/* A file beside the one that is written. */
static p4_rc measure_disk(p4_rates *rates, const char *out)
{
    p4_rc rc = P4_OK;
    int fd = -1;
    char *path = p4_format("%s.XXXXXX", out), *piece = p4_alloc(PIECE, 1);
    TRY(path != NULL && piece != NULL ? P4_OK : P4_E_SYSTEM);
    memset(piece, 0x5a, PIECE);
    fd = mkstemp(path);
    CHECK(fd >= 0, "%s: cannot create a file beside it", out);
    double write_s = write_file(fd, piece), read_s = read_file(fd, piece);
    CHECK(write_s > 0 && read_s > 0, "%s: cannot write and read %d MiB beside it", out,
          PIECES * (PIECE >> 20));
    rates->disk_write = (double)PIECE * PIECES / write_s;
    rates->disk_read = (double)PIECE * PIECES / read_s;
done:
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    free(path);
    free(piece);
    return rc;
}

p4_rc bench_finish_rates(p4_rates *rates, const bench_options *o, const char *device, double link, bool nodes,
                         int threads)
{
    p4_rc rc = P4_OK;
    const char *out = o->out != NULL ? o->out : "rates.json";
    TRY(measure_disk(rates, out));
    rates->text_bytes = TEXT_OF_THREAD * threads;
    rates->node_link = link > 0 && !nodes ? link : LINK;
    rates->net_link = link > 0 && nodes ? link : LINK;
    snprintf(rates->name, sizeof rates->name, "measured: %.60s%s", device, link > 0 ? "" : ", links assumed");
    bench_line("rates forward", rates->forward_flops * 1e-12, "TFLOP/s", NULL, 0.0, "of a rank");
    bench_line("rates train", rates->train_flops * 1e-12, "TFLOP/s", NULL, 0.0, "of a rank");
    bench_line("rates memory", rates->memory_bytes * 1e-9, "GB/s", NULL, 0.0, "read and written");
    bench_line("rates disk write", rates->disk_write * 1e-9, "GB/s", NULL, 0.0, "with fsync");
    bench_line("rates disk read", rates->disk_read * 1e-9, "GB/s", NULL, 0.0, "of what the system let go");
    bench_line("rates link", link * 1e-9, "GB/s", NULL, 0.0, "%s", nodes ? "between nodes" : "in a node");
    TRY(p4_rates_write(rates, out));
    printf("# wrote %s\n", out);
done:
    return rc;
}
