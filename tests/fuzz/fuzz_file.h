/* fuzz_file.h - for readers that take a path: one file that each input overwrites, under the names whose
 * endings choose the reader. Removed when the fuzzer ends. */
#ifndef P4_FUZZ_FILE_H
#define P4_FUZZ_FILE_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { FUZZ_NAMES = 8 };
static char fuzz_folder[] = "/tmp/p4_fuzz_XXXXXX", fuzz_paths[FUZZ_NAMES + 1][64];
static int fuzz_fd = -1;

static void fuzz_file_remove(void)
{
    for (int i = 0; i <= FUZZ_NAMES; i++) {
        unlink(fuzz_paths[i]);
    }
    rmdir(fuzz_folder);
}

/* Fills the file; false when the disk is full. names: at most FUZZ_NAMES; name i is then fuzz_paths[i]. */
static bool fuzz_file_fill(const char *const *names, int name_count, const uint8_t *data, size_t size)
{
    if (fuzz_fd < 0) {
        char *file = fuzz_paths[FUZZ_NAMES];
        if (mkdtemp(fuzz_folder) == NULL) {
            abort();
        }
        snprintf(file, sizeof fuzz_paths[0], "%s/input", fuzz_folder);
        fuzz_fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        for (int i = 0; i < name_count; i++) {
            snprintf(fuzz_paths[i], sizeof fuzz_paths[0], "%s/%s", fuzz_folder, names[i]);
            if (fuzz_fd < 0 || symlink("input", fuzz_paths[i]) != 0) {
                abort();
            }
        }
        atexit(fuzz_file_remove);
    }
    return ftruncate(fuzz_fd, 0) == 0 && pwrite(fuzz_fd, data, size, 0) == (ssize_t)size;
}

#endif
