/* Files that appear only when complete, and the output directory's rules. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/out/directory.h"
#include "io/out/outputs.h"

static char directory[P4_PATH_BYTES];
enum { PATH_BYTES = 2 * P4_PATH_BYTES };

static const char *in_directory(char path[PATH_BYTES], const char *name)
{
    snprintf(path, PATH_BYTES, "%s/%s", directory, name);
    return path;
}

static bool is_there(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

static void put(const char *path, const char *text)
{
    EXPECT_OK(p4_atomic_write_all(path, text, strlen(text)));
}

static bool holds(const char *path, const char *want)
{
    char *text = NULL;
    size_t bytes;
    bool same = p4_file_read(&text, &bytes, path, 1 << 20) == P4_OK && strcmp(text, want) == 0;
    p4_error_clear();
    free(text);
    return same;
}

static void test_atomic_file(void)
{
    char path[PATH_BYTES], temp[PATH_BYTES], victim[PATH_BYTES];
    p4_atomic_file file;
    in_directory(path, "file.txt");
    in_directory(temp, "file.txt.tmp");
    put(path, "old");
    EXPECT_OK(p4_atomic_open(&file, path));
    EXPECT_OK(p4_atomic_write(&file, "ne", 2));
    EXPECT(holds(path, "old"), "the old file is gone before the new one is complete");
    EXPECT_OK(p4_atomic_write(&file, "w", 1));
    EXPECT_OK(p4_atomic_close(&file, true));
    EXPECT(holds(path, "new") && !is_there(temp), "the new file is not in place");
    EXPECT_OK(p4_atomic_open(&file, path));
    EXPECT_OK(p4_atomic_write(&file, "half", 4));
    EXPECT_OK(p4_atomic_close(&file, false));
    EXPECT_OK(p4_atomic_close(&file, true)); /* closed already: nothing */
    EXPECT(holds(path, "new") && !is_there(temp), "a dropped file left something");
    /* A link under the temporary name is replaced, not followed. */
    put(in_directory(victim, "victim"), "keep");
    EXPECT(symlink(victim, temp) == 0, "symlink");
    put(path, "newer");
    EXPECT(holds(victim, "keep") && holds(path, "newer"), "a link was followed");
    EXPECT_REFUSED(p4_atomic_write_all(in_directory(path, "absent/f"), "", 0),
                   "cannot create the file: No such file");
    /* unlink gives this reason whether or not there is an older temporary file. */
    EXPECT_REFUSED(p4_atomic_write_all(in_directory(path, "victim/f"), "", 0),
                   "victim/f: cannot write: Not a directory");
    EXPECT(mkdir(in_directory(path, "taken"), 0777) == 0, "mkdir");
    EXPECT_REFUSED(p4_atomic_write_all(path, "x", 1), "cannot put the finished file in place");
    EXPECT(!is_there(in_directory(temp, "taken.tmp")), "a temporary file is left");
}

static void test_full_disk(void)
{
    char path[PATH_BYTES], temp[PATH_BYTES];
    char bytes[5000] = {0};
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 1000;
    EXPECT(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
    EXPECT_REFUSED(p4_atomic_write_all(in_directory(path, "large"), bytes, sizeof bytes),
                   "large: cannot write: File too large");
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT(!is_there(path) && !is_there(in_directory(temp, "large.tmp")), "something is left");
    errno = ENOSPC;
    EXPECT_REFUSED(p4_fail_errno("out/x", "write"),
                   "out/x: cannot write: No space left on device (the disk is full)");
    int full = open("/dev/full", O_WRONLY);
    p4_atomic_file file = {.fd = full, .path = p4_strdup("x"), .temp_path = p4_strdup("x.tmp")};
    EXPECT_REFUSED(p4_atomic_write(&file, bytes, sizeof bytes), "the disk is full");
    EXPECT_OK(p4_atomic_close(&file, false));
}

static void test_directories(void)
{
    char path[PATH_BYTES], other[PATH_BYTES], temp[PATH_BYTES], text[PATH_BYTES];
    EXPECT_OK(p4_make_directories(in_directory(path, "a//b/c/")));
    EXPECT_OK(p4_make_directories(path));
    EXPECT(is_there(in_directory(path, "a/b/c")), "mkdir -p made nothing");
    put(in_directory(path, "a/file"), "x");
    EXPECT_REFUSED(p4_make_directories(in_directory(path, "a/file/d")),
                   "a/file: is a file where a directory is needed");
    EXPECT(symlink("nowhere", in_directory(path, "a/link")) == 0, "symlink");
    EXPECT_REFUSED(p4_make_directories(path), "a symbolic link to nothing");

    /* A directory takes the place of an older one, of which nothing stays. */
    EXPECT_OK(p4_make_directories(in_directory(path, "out")));
    put(in_directory(text, "out/stale"), "old");
    EXPECT_OK(p4_make_directories(in_directory(temp, "out.tmp")));
    put(in_directory(text, "out.tmp/fresh"), "new");
    EXPECT_OK(p4_publish_directory(temp, path));
    EXPECT(is_there(in_directory(text, "out/fresh")) && !is_there(in_directory(text, "out/stale")),
           "not replaced");
    EXPECT(!is_there(temp) && !is_there(in_directory(text, "out.old")), "something is left beside it");
    EXPECT_REFUSED(p4_publish_directory(temp, path), "cannot put the finished directory in place");
    EXPECT(is_there(in_directory(text, "out/fresh")), "the older directory did not come back");

    /* Removing follows no link out of the tree. */
    EXPECT(symlink(path, in_directory(other, "a/b/out")) == 0, "symlink");
    EXPECT_OK(p4_remove_tree(in_directory(other, "a")));
    EXPECT(!is_there(other) && is_there(in_directory(text, "out/fresh")), "a link was followed");
    EXPECT_OK(p4_remove_tree(other));
}

/* A run that takes the directory and ends so. */
static void run_once(const char *path, bool overwrite, bool finished)
{
    p4_hold *hold;
    EXPECT_OK(p4_output_take(&hold, path, overwrite));
    p4_output_leave(hold, path, finished);
}

static void test_protection(void)
{
    char path[PATH_BYTES], file[PATH_BYTES], victim[PATH_BYTES];
    p4_hold *hold;
    in_directory(path, "run/one");
    run_once(path, false, true);
    EXPECT(!is_there(in_directory(file, "run/one/.phase4_run")) &&
               !is_there(in_directory(file, "run/one/" P4_HOLD_FILE)),
           "a finished run left something");

    /* A run that failed: what it wrote is the next one's to replace, what was there before is not. */
    EXPECT_OK(p4_output_take(&hold, path, false));
    EXPECT_REFUSED(p4_output_take(&(p4_hold *){NULL}, path, true),
                   "another run is using this output directory");
    put(in_directory(file, "run/one/results.json"), "{\"success\": false, \"error\": \"x\"}");
    put(in_directory(file, "run/one/metrics.jsonl"), "{}\n");
    put(in_directory(file, "run/one/model.h5"), "whole");
    put(in_directory(file, "run/one/compression_metadata.json.tmp"), "half");
    EXPECT_OK(p4_make_directories(in_directory(file, "run/one/dequantized_fp16.tmp/x")));
    p4_output_leave(hold, path, false);
    EXPECT_OK(p4_output_examine(path, false, NULL));
    EXPECT_OK(p4_output_take(&hold, path, false));
    EXPECT(is_there(in_directory(file, "run/one/model.h5")) &&
               !is_there(in_directory(file, "run/one/compression_metadata.json.tmp")) &&
               !is_there(in_directory(file, "run/one/dequantized_fp16.tmp")),
           "leftovers");
    put(in_directory(file, "run/one/results.json"), "{\"success\": true}");
    p4_output_leave(hold, path, true);
    EXPECT_REFUSED(p4_output_take(&hold, path, false),
                   "run/one: holds the results of another run (model.h5, metrics.jsonl, results.json)");
    EXPECT_REFUSED(p4_output_take(&hold, path, false), "set overwrite to true");
    EXPECT(!is_there(in_directory(file, "run/one/" P4_HOLD_FILE)), "a refused run keeps the hold");
    run_once(path, true, false);
    EXPECT_REFUSED(p4_output_take(&hold, path, false), "(model.h5, metrics.jsonl,"); /* were there before */
    put(in_directory(file, "run/one/results.json"), "{\"succ");
    EXPECT_OK(p4_remove_tree(in_directory(file, "run/one/.phase4_run")));
    EXPECT_REFUSED(p4_output_take(&hold, path, false), "results.json");
    const p4_output_paths written = {.quantized = "run/one/model.h5"};
    EXPECT_OK(p4_output_drop_stale(path, &written));
    EXPECT(is_there(in_directory(file, "run/one/model.h5")) &&
               !is_there(in_directory(file, "run/one/metrics.jsonl")),
           "stale results");

    /* Links are protected like files, and never written through. */
    in_directory(path, "run/two");
    EXPECT_OK(p4_make_directories(path));
    put(in_directory(victim, "log of somebody"), "keep");
    EXPECT(symlink(victim, in_directory(file, "run/two/metrics.jsonl")) == 0, "symlink");
    EXPECT_REFUSED(p4_output_take(&hold, path, false), "(metrics.jsonl)");
    p4_metrics_log log;
    EXPECT_OK(p4_metrics_log_open(&log, file));
    EXPECT_OK(p4_metrics_log_write(&log, &(p4_training_point){.step = 1}));
    EXPECT_OK(p4_metrics_log_close(&log));
    EXPECT(holds(victim, "keep"), "metrics went through a link");
}

/* Names that a run writes under for a while may be somebody's. */
static void test_temporary_names(void)
{
    char path[PATH_BYTES], file[PATH_BYTES];
    p4_hold *hold;
    in_directory(path, "run/three");
    EXPECT_OK(p4_make_directories(in_directory(file, "run/three/dequantized_fp16.old")));
    put(in_directory(file, "run/three/dequantized_fp16.old/notes"), "keep");
    run_once(path, false, false);
    run_once(path, false, true);
    EXPECT(holds(file, "keep"), "a folder of somebody is gone");
    EXPECT_OK(p4_make_directories(in_directory(file, "run/three/dequantized_fp16.tmp")));
    EXPECT_REFUSED(p4_output_take(&hold, path, true), "run/three/dequantized_fp16.tmp: is in the way");
    EXPECT_REFUSED(p4_output_examine(path, true, NULL), "remove or rename it");
    EXPECT(is_there(file), "a folder of somebody is gone");
    EXPECT_OK(p4_remove_tree(file));
    put(in_directory(file, "run/three/training_tokens.tmp"), "keep");
    EXPECT_REFUSED(p4_output_take(&hold, path, true), "training_tokens.tmp: is in the way");

    /* Also while a directory is put in place. */
    EXPECT_OK(p4_make_directories(in_directory(path, "run/three/dequantized_fp16")));
    EXPECT_OK(p4_make_directories(in_directory(file, "run/three/next")));
    EXPECT_OK(p4_publish_directory(file, path));
    EXPECT(holds(in_directory(file, "run/three/dequantized_fp16.old/notes"), "keep"),
           "publishing removed it");
}

/* Without room for results.json a run does not start, and leaves nothing that speaks of one; what only adds
 * files to a complete result does not need that room. A limit on the size of a file stands for the disk. */
static void test_no_room(void)
{
    char path[PATH_BYTES], list[PATH_BYTES], reserve[PATH_BYTES];
    p4_hold *hold;
    struct rlimit limit;
    in_directory(path, "run/four");
    in_directory(list, "run/four/.phase4_run");
    in_directory(reserve, "run/four/" P4_RESERVE_FILE);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 64 << 10;
    EXPECT(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
    EXPECT_REFUSED(p4_output_take(&hold, path, false), P4_RESERVE_FILE ": cannot write: File too large");
    EXPECT(hold == NULL && !is_there(list) && !is_there(reserve), "a refused run left something");
    EXPECT_OK(p4_output_borrow(&hold, path));
    EXPECT(!is_there(reserve), "room for a results.json that is not written");
    p4_output_leave(hold, path, true);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_FSIZE, &limit);
    run_once(path, false, false); /* its list is not the refused run's to remove */
    limit.rlim_cur = 64 << 10;
    setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT_REFUSED(p4_output_take(&hold, path, false), "File too large");
    EXPECT(is_there(list) && !is_there(reserve), "the list of the unfinished run is gone");
    EXPECT_REFUSED(p4_output_borrow(&hold, path), "holds a run that has not ended");
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void test_unusable(void)
{
    char path[PATH_BYTES], file[PATH_BYTES];
    p4_hold *hold;
    EXPECT_REFUSED(p4_output_take(&hold, "", false), "output_path is empty");
    put(in_directory(file, "plain"), "x");
    EXPECT_REFUSED(p4_output_take(&hold, file, true), "plain: is a file where a directory is needed");
    EXPECT_REFUSED(p4_output_take(&hold, in_directory(path, "plain/out"), true), "plain: is a file");
    EXPECT_REFUSED(p4_output_take(&hold, "/proc/phase4_cannot_be", true),
                   "/proc/phase4_cannot_be: cannot create the directory");
    if (geteuid() != 0) { /* root may write anywhere */
        EXPECT(mkdir(in_directory(path, "locked"), 0555) == 0, "mkdir");
        EXPECT_REFUSED(p4_output_take(&hold, path, true), "Permission denied");
    }
}

int main(void)
{
    snprintf(directory, sizeof directory, "%s/phase4_output_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(directory) != NULL, "mkdtemp: %s", strerror(errno));
    test_atomic_file();
    test_full_disk();
    test_directories();
    test_protection();
    test_temporary_names();
    test_no_room();
    test_unusable();
    EXPECT_OK(p4_remove_tree(directory));
    return TEST_END();
}
