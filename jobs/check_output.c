#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/hf/hf_model.h"
#include "io/out/directory.h"
#include "io/out/outputs.h"
#include "jobs/check.h"

/* The directory itself or, where it is still to be made, the one that it is made in. Heap. */
static char *existing_parent(const char *path)
{
    char *parent = p4_strdup(path);
    while (parent != NULL && access(parent, F_OK) != 0 && strchr(parent, '/') != NULL) {
        char *slash = strrchr(parent, '/');
        slash[slash == parent] = '\0'; /* "/" stays */
        if (strcmp(parent, "/") == 0) {
            break;
        }
    }
    if (parent != NULL && access(parent, F_OK) != 0) {
        free(parent);
        return p4_strdup(".");
    }
    return parent;
}

static p4_rc check_writable(const char *parent, const char *output_path)
{
    if (access(parent, W_OK | X_OK) == 0) {
        return P4_OK;
    }
    return strcmp(parent, output_path) == 0 ? p4_fail_errno(output_path, "write into this directory")
                                            : p4_fail_errno(output_path, "create the directory");
}

/* An older directory that will be replaced, or removed as stale, must be a model's and not the one that is
 * read. */
static p4_rc check_replaced(const p4_run *run, bool has_model)
{
    p4_output_paths all;
    p4_config config = run->config;
    config.save_dequantized_fp16 = true;
    p4_rc rc = p4_outputs_name(&all, &config, 0);
    return rc == P4_OK ? p4_hf_check_replaced(all.dequantized_fp16, has_model ? run->original.hf.path : NULL)
                       : rc;
}

/* Bytes of a file; 0: there is none. */
static double file_bytes(const char *directory, const char *name)
{
    struct stat file;
    char *path = p4_format("%s/%s", directory, name);
    bool found = path != NULL && stat(path, &file) == 0;
    free(path);
    return found ? (double)file.st_size : 0;
}

/* Bytes that the outputs take. They are written beside those of an older run. */
static double output_bytes(const p4_run *run, int64_t copied_bytes)
{
    enum { HDF5_BYTES = 3 << 10, SMALL_BYTES = 16 << 10 }; /* what HDF5 adds to a tensor; JSON files */
    const p4_config *c = &run->config;
    const p4_model *model = &run->original.hf.model;
    double packed = file_bytes(run->original.hf.path, "tokenizer.json"), halves = (double)copied_bytes;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        int64_t trits = c->packing == P4_PACKING_2BIT ? 4 : 5;
        double count = (double)p->rows * (double)p->cols, statistics = 4.0 * (double)p->cols;
        packed += HDF5_BYTES + (p->ternary
                                    ? (double)p->rows * (double)(p4_ceil_div(p->cols, trits) + 2) + statistics
                                    : 2 * count);
        halves += 2 * count;
    }
    return SMALL_BYTES + (c->save_quantized ? packed : 0) + (c->save_dequantized_fp16 ? halves : 0);
}

static p4_rc check_disk(const char *parent, double needed)
{
    p4_rc rc = P4_OK;
    struct statvfs disk;
    char want[32], have[32];
    if (statvfs(parent, &disk) != 0 || disk.f_blocks == 0) { /* some file systems do not say */
        return P4_OK;
    }
    double room = (double)disk.f_bavail * (double)disk.f_frsize;
    p4_format_bytes(want, needed);
    p4_format_bytes(have, room);
    CHECK(needed <= room, "output_path: the outputs take %s, and the disk of %s has %s left", want, parent,
          have);
    INFO("      outputs: %s on a disk with %s left", want, have);
done:
    return rc;
}

void p4_check_output(const p4_run *run, bool has_model, p4_findings *f)
{
    const p4_config *c = &run->config;
    int64_t copied_bytes = 0;
    char *parent = existing_parent(c->output_path);
    if (parent == NULL) {
        p4_findings_add(f, P4_E_SYSTEM);
        return;
    }
    p4_findings_add(f, check_writable(parent, c->output_path));
    p4_findings_add(f, p4_output_examine(c->output_path, c->overwrite));
    p4_findings_add(f, check_replaced(run, has_model));
    if (has_model) {
        p4_rc copied =
            c->save_dequantized_fp16 ? p4_hf_check_copied(&run->original.hf, &copied_bytes) : P4_OK;
        p4_findings_add(f, copied);
        p4_findings_add(f, check_disk(parent, output_bytes(run, copied_bytes)));
    }
    free(parent);
}
