#define _GNU_SOURCE /* O_TMPFILE */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/hf/hf_model.h"
#include "io/out/directory.h"
#include "io/out/outputs.h"
#include "jobs/check.h"
#include "src/config.h"

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

/* Can a file or a directory be made in it? Permissions do not tell: /proc and /sys refuse root too. Nothing
 * stays: the file has no name, and where a file system has no such files, a directory is made and removed.
 * errno. */
static bool can_make_in(const char *directory)
{
    int file = open(directory, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (file >= 0) {
        close(file);
        return true;
    }
    char *name = p4_format("%s/.phase4_check.XXXXXX", directory);
    errno = ENOMEM;
    bool made = name != NULL && mkdtemp(name) != NULL;
    int reason = errno;
    if (made) {
        rmdir(name);
    }
    free(name);
    errno = reason;
    return made;
}

static p4_rc check_writable(const char *parent, const char *output_path)
{
    p4_rc rc = P4_OK;
    struct stat there, link;
    bool named = strcmp(parent, output_path) == 0;
    bool found = stat(parent, &there) == 0, dangles = !named && lstat(output_path, &link) == 0;
    CHECK(!dangles,
          "output_path: %s is a link to something that is not there, expected a directory or a new name",
          output_path);
    if (found && !S_ISDIR(there.st_mode)) {
        return named
                   ? FAIL("output_path: %s is a file, expected a directory or a new name", output_path)
                   : FAIL("output_path: %s: cannot create the directory: %s is a file", output_path, parent);
    }
    if (access(parent, W_OK | X_OK) == 0 && can_make_in(parent)) {
        return P4_OK;
    }
    rc = p4_fail_errno(output_path, named ? "write into this directory" : "create the directory");
done:
    return rc;
}

/* A request to stop that is left over would end the run at once. */
static p4_rc check_stop_file(const char *output_path)
{
    char *path = p4_format("%s/" P4_STOP_REQUEST_FILE, output_path);
    p4_rc rc = path == NULL ? P4_E_SYSTEM
               : p4_file_exists(path)
                   ? FAIL("%s: asks runs in this directory to stop; remove it to start one", path)
                   : P4_OK;
    free(path);
    return rc;
}

/* An older directory that will be replaced, or removed as stale, must be a model's and not the one that is
 * read. */
static p4_rc check_replaced(const p4_run *run, bool has_model)
{
    p4_rc rc = P4_OK;
    p4_output_paths all;
    p4_config config = run->config;
    config.save_dequantized_fp16 = true;
    config.exports = (p4_list){0};
    (void)(p4_list_append(&config.exports, "compressed_tensors") && p4_list_append(&config.exports, "mlx") &&
           p4_list_append(&config.exports, "bitnet"));
    TRY(p4_outputs_name(&all, &config, 0));
    const char *const directories[] = {all.dequantized_fp16, all.compressed_tensors, all.mlx, all.bitnet};
    for (int i = 0; i < 4; i++) {
        TRY(p4_hf_check_replaced(directories[i], has_model ? run->original.hf.path : NULL));
    }
done:
    return rc;
}

/* A checkpoint that cannot be saved does not end a run. */
static p4_rc check_disk(const char *parent, const p4_disk_plan *plan)
{
    p4_rc rc = P4_OK;
    struct statvfs disk;
    char want[32], have[32], outputs[32], scratch[32], kept[32], beside[64] = "";
    double needed = plan->outputs + plan->scratch, saved = plan->kept * plan->checkpoint;
    if (statvfs(parent, &disk) != 0 || disk.f_blocks == 0) { /* some file systems do not say */
        return P4_OK;
    }
    double room = (double)disk.f_bavail * (double)disk.f_frsize;
    p4_format_bytes(want, needed);
    p4_format_bytes(have, room);
    p4_format_bytes(outputs, plan->outputs);
    p4_format_bytes(kept, saved);
    if (plan->scratch > 0) {
        snprintf(beside, sizeof beside, ", temporary files %s", p4_format_bytes(scratch, plan->scratch));
    }
    CHECK(needed <= room, "output_path: the outputs take %s%s, and the disk of %s has %s left", outputs,
          beside, parent, have);
    INFO("      disk: outputs %s%s, checkpoints up to %s; %s are free", outputs, beside, kept, have);
    if (needed + saved > room) {
        WARN("warning: output_path: the disk of %s has %s left, the outputs and temporary files take "
             "%s and checkpoints up to %s: the last of them may not be saved",
             parent, have, want, kept);
    }
done:
    return rc;
}

/* Where results are in the way, the message compares their configuration with that of the run, whose open
 * keys get their values from the model. */
static p4_rc check_results(const p4_run *run, bool has_model)
{
    p4_rc rc = P4_OK;
    p4_config *adapted = p4_alloc(1, sizeof *adapted);
    TRY(adapted != NULL ? P4_OK : P4_E_SYSTEM);
    *adapted = run->config;
    if (has_model) {
        p4_config_adapt_to_model_size(adapted, p4_model_count_elements(&run->original.hf.model));
    }
    rc = p4_output_examine(run->config.output_path, run->config.overwrite, adapted);
done:
    free(adapted);
    return rc;
}

void p4_check_output(p4_run *run, bool has_model, p4_outlook *outlook, p4_findings *f)
{
    const p4_config *c = &run->config;
    char *parent = existing_parent(c->output_path);
    if (parent == NULL) {
        p4_findings_add(f, P4_E_SYSTEM);
        return;
    }
    p4_findings_add(f, check_writable(parent, c->output_path));
    p4_findings_add(f, p4_hold_examine(c->output_path));
    p4_findings_add(f, check_stop_file(c->output_path));
    p4_findings_add(f, check_results(run, has_model));
    p4_findings_add(f, check_replaced(run, has_model));
    if (has_model) {
        p4_rc copied = c->save_dequantized_fp16 || c->exports.count > 0
                           ? p4_hf_check_copied(&run->original.hf, &outlook->copied_bytes)
                           : P4_OK;
        p4_findings_add(f, copied);
        const p4_disk_plan disk = p4_check_disk_plan(run, outlook);
        run->output_bytes = disk.outputs;
        run->scratch_bytes = disk.scratch;
        run->checkpoints_bytes = disk.kept * disk.checkpoint;
        p4_findings_add(f, check_disk(parent, &disk));
    }
    free(parent);
}
