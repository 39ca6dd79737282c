/* The records for Weights & Biases and TensorBoard: their framing against readers of this test, which follow
 * the published formats, and what becomes of a disk that is full. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <zlib.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/metrics/tensorboard.h"
#include "io/metrics/times.h"
#include "io/metrics/wandb.h"
#include "io/metrics/wandb_log.h"
#include "src/phase4/types.h"

enum { BLOCK = 32768 };
static char directory[P4_PATH_BYTES];

static unsigned char *read_bytes(const char *path, size_t *count)
{
    FILE *from = fopen(path, "rb");
    unsigned char *bytes = p4_alloc(8 << 20, 1);
    *count = 0;
    EXPECT(from != NULL && bytes != NULL, "%s: %s", path, strerror(errno));
    if (from != NULL) {
        *count = fread(bytes, 1, 8 << 20, from);
        fclose(from);
    }
    return bytes;
}

static uint64_t number_at(const unsigned char *bytes, int count)
{
    uint64_t number = 0;
    for (int i = 0; i < count; i++) {
        number |= (uint64_t)bytes[i] << (8 * i);
    }
    return number;
}

/* ---- the log of W&B ---- */

/* The next record of the log in `out`; false at the end. */
static bool next_record(const unsigned char *log, size_t bytes, size_t *at, unsigned char *out,
                        size_t *out_bytes)
{
    *out_bytes = 0;
    for (bool more = true, begun = false; more; begun = true) {
        size_t left = BLOCK - *at % BLOCK;
        if (left < 7) {
            for (size_t i = 0; i < left && *at + i < bytes; i++) {
                EXPECT(log[*at + i] == 0, "padding is %d", log[*at + i]);
            }
            *at += left;
        }
        if (*at >= bytes) {
            return false;
        }
        size_t count = (size_t)number_at(log + *at + 4, 2);
        int type = log[*at + 6];
        EXPECT(*at % BLOCK + 7 + count <= BLOCK, "a chunk crosses its block");
        EXPECT(number_at(log + *at, 4) == crc32(0, log + *at + 6, (uInt)count + 1), "CRC at %zu", *at);
        EXPECT(type >= 1 && type <= 4 && (type <= 2) != begun, "type %d", type);
        memcpy(out + *out_bytes, log + *at + 7, count);
        *out_bytes += count;
        *at += 7 + count;
        more = type == 2 || type == 3;
    }
    return true;
}

/* Records around the ends of blocks. */
static void test_boundaries(void)
{
    static const size_t sizes[] = {0, 1, 5, 40, 32761, 32762, 70000};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    static unsigned char data[70000], got[140000];
    char path[2 * P4_PATH_BYTES];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (unsigned char)(i * 31 + i / 255);
    }
    for (size_t rest = 0; rest < 16; rest++) {
        for (int s = 0; s < SIZES; s++) {
            p4_wandb_log log;
            size_t bytes, at = 7, count, first = BLOCK - 7 - 7 - rest;
            snprintf(path, sizeof path, "%s/%zu-%d.wandb", directory, rest, s);
            EXPECT_OK(p4_wandb_log_open(&log, path));
            EXPECT_OK(p4_wandb_log_write(&log, data, first));
            EXPECT_OK(p4_wandb_log_write(&log, data, sizes[s]));
            EXPECT_OK(p4_wandb_log_write(&log, data + 3, 9));
            EXPECT_OK(p4_wandb_log_close(&log));
            unsigned char *file = read_bytes(path, &bytes);
            EXPECT(memcmp(file, ":W&B\xE1\xBE", 7) == 0, "the header of the file");
            EXPECT(next_record(file, bytes, &at, got, &count) && count == first, "%zu bytes", count);
            EXPECT(next_record(file, bytes, &at, got, &count) && count == sizes[s] &&
                       memcmp(got, data, count) == 0,
                   "%zu left, %zu bytes: got %zu", rest, sizes[s], count);
            EXPECT(next_record(file, bytes, &at, got, &count) && count == 9 && memcmp(got, data + 3, 9) == 0,
                   "%zu left, %zu bytes: the record behind", rest, sizes[s]);
            EXPECT(!next_record(file, bytes, &at, got, &count), "more than was written");
            free(file);
        }
    }
}

/* A file with an empty record, as another writer of the format makes it. */
static void test_known_bytes(void)
{
    static const unsigned char known[] = ":W&B\xE1\xBE\0\x1b\xdf\x05\xa5\0\0\x01";
    p4_wandb_log log;
    char path[2 * P4_PATH_BYTES];
    size_t bytes;
    snprintf(path, sizeof path, "%s/known.wandb", directory);
    EXPECT_OK(p4_wandb_log_open(&log, path));
    EXPECT_OK(p4_wandb_log_write(&log, known, 0));
    EXPECT_OK(p4_wandb_log_close(&log));
    unsigned char *file = read_bytes(path, &bytes);
    EXPECT(bytes == 14 && memcmp(file, known, 14) == 0, "an empty record");
    free(file);
    EXPECT_REFUSED(p4_wandb_log_open(&log, path), "cannot create the file: File exists");
    p4_wandb_log_close(&log);
}

/* ---- TensorBoard ---- */

static uint32_t crc32c(const unsigned char *bytes, size_t count)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++) {
            crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
        }
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static const p4_watched_run run = {.output_path = directory,
                                   .project = "p",
                                   .name = "n",
                                   .host = "h",
                                   .started = "2023-11-14T22:13:20Z",
                                   .config_json = "{\"seed\": 42, \"eval_files\": [\"a\"]}\n"};

static char *only_file(const char *folder)
{
    char **names = NULL, *path = NULL;
    int64_t count = 0;
    EXPECT_OK(p4_dir_list(&names, &count, folder));
    EXPECT(count == 1, "%s: %lld entries", folder, (long long)count);
    path = p4_format("%s/%s", folder, count > 0 ? names[0] : "");
    p4_names_free(names, count);
    return path;
}

static void test_tensorboard(void)
{
    /* the first record of a file, at 1700000000.0 */
    static const unsigned char version[] =
        "\x18\0\0\0\0\0\0\0\xa3\x7f\x4b\x22\x09\0\0\0\x40\xfc\x54\xd9\x41\x1a\x0d"
        "brain.Event:2\xec\xed\x8f\x9d";
    /* within the last one: step 7, then the value */
    static const unsigned char value[] = "\x10\x07\x2a\x13\x0a\x11\x0a\x0atrain/loss\x15\0\0\0\x3f";
    const p4_metric metrics[] = {{"loss", 0.5}, {"kl", NAN}};
    const p4_measurement m = {.group = "train", .step = 7, .runtime_s = 1, .metrics = metrics, .count = 2};
    p4_tensorboard *board = NULL;
    char folder[2 * P4_PATH_BYTES];
    size_t bytes, at = 0, records = 0;
    for (int time = 0; time < 2; time++) { /* the second replaces the first */
        EXPECT_OK(p4_tensorboard_open(&board, &run));
        EXPECT_OK(p4_tensorboard_add(board, &m));
        EXPECT_OK(p4_tensorboard_close(board));
    }
    snprintf(folder, sizeof folder, "%s/tensorboard", directory);
    char *path = only_file(folder);
    unsigned char *file = read_bytes(path, &bytes);
    EXPECT(bytes > 40 && memcmp(file, version, 40) == 0, "the first record differs");
    for (; at + 16 <= bytes; records++) {
        size_t count = (size_t)number_at(file + at, 8);
        EXPECT(at + 16 + count <= bytes, "record %zu is cut", records);
        EXPECT(number_at(file + at + 8, 4) == crc32c(file + at, 8), "CRC of a length");
        EXPECT(number_at(file + at + 12 + count, 4) == crc32c(file + at + 12, count), "CRC of an event");
        at += 16 + count;
    }
    EXPECT(records == 3 && at == bytes, "%zu records, %zu of %zu bytes", records, at, bytes);
    EXPECT(memcmp(file + bytes - 4 - (sizeof value - 1), value, sizeof value - 1) == 0, "the value differs");
    free(file);
    free(path);
}

/* ---- a run ---- */

static char *run_directory(void)
{
    char folder[2 * P4_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/wandb", directory);
    return only_file(folder);
}

/* A process that continues a run writes it again under the same name. */
static void test_same_run(void)
{
    const p4_metric metric = {"loss", 1};
    const p4_measurement m = {.group = "train", .step = 1, .runtime_s = 1, .metrics = &metric, .count = 1};
    p4_watched_run other = run;
    p4_wandb *wandb = NULL;
    char *names[3];
    other.started = "2023-11-14T22:13:21Z";
    const p4_watched_run *runs[] = {&run, &run, &other};
    for (int i = 0; i < 3; i++) {
        EXPECT_OK(p4_wandb_open(&wandb, runs[i]));
        EXPECT_OK(p4_wandb_add(wandb, &m));
        EXPECT_OK(p4_wandb_finish(wandb, true, 2, "{\"quality\": {\"passed\": true}}", ""));
        names[i] = run_directory();
        EXPECT(strcmp(names[i], p4_wandb_directory(wandb)) == 0, "%s", names[i]);
        p4_wandb_close(wandb);
    }
    EXPECT(strcmp(names[0], names[1]) == 0, "continued as %s, was %s", names[1], names[0]);
    EXPECT(strstr(names[0], "offline-run-20231114_221320-") != NULL, "%s", names[0]);
    EXPECT(strcmp(names[0] + strlen(names[0]) - 8, names[2] + strlen(names[2]) - 8) != 0, "another run is %s",
           names[2]);
    for (int i = 0; i < 3; i++) {
        free(names[i]);
    }
}

/* Where the disk is full the file ends with the last whole record. */
static void test_full_disk(void)
{
    static unsigned char data[5000];
    p4_wandb_log log;
    char path[2 * P4_PATH_BYTES];
    size_t bytes;
    struct rlimit before, small;
    snprintf(path, sizeof path, "%s/full.wandb", directory);
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 8000;
    signal(SIGXFSZ, SIG_IGN);
    EXPECT_OK(p4_wandb_log_open(&log, path));
    EXPECT_OK(p4_wandb_log_write(&log, data, sizeof data));
    setrlimit(RLIMIT_FSIZE, &small);
    EXPECT_REFUSED(p4_wandb_log_write(&log, data, sizeof data), "full.wandb: cannot write");
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_OK(p4_wandb_log_close(&log));
    free(read_bytes(path, &bytes));
    EXPECT(bytes == 7 + 7 + sizeof data, "%zu bytes are left", bytes);
}

static void test_times(void)
{
    char stamp[P4_STAMP_BYTES];
    EXPECT(p4_time_seconds("2023-11-14T22:13:20Z") == 1700000000, "%.0f",
           p4_time_seconds("2023-11-14T22:13:20Z"));
    EXPECT(p4_time_seconds("") == 0, "no time");
    p4_time_stamp(stamp, "2024-02-29T01:02:03Z");
    EXPECT(strcmp(stamp, "20240229_010203") == 0, "%s", stamp);
}

int main(void)
{
    snprintf(directory, sizeof directory, "%s/phase4_watchers_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(directory) != NULL, "mkdtemp: %s", strerror(errno));
    test_times();
    test_boundaries();
    test_known_bytes();
    test_tensorboard();
    test_same_run();
    test_full_disk();
    EXPECT_OK(p4_remove_tree(directory));
    return TEST_END();
}
