#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/json/evaluation.h"
#include "io/out/report.h"

p4_rc p4_metrics_log_open(p4_metrics_log *log, const char *path)
{
    p4_rc rc = P4_OK;
    *log = (p4_metrics_log){.path = p4_strdup(path)};
    if (log->path == NULL) {
        return P4_E_SYSTEM;
    }
    /* A file of its own in place of an older one, so that nothing is written through a link. What is neither
     * a file nor a link, such as a device or a pipe, is written to as it is. */
    struct stat status;
    bool there = lstat(path, &status) == 0,
         replace = there && (S_ISREG(status.st_mode) || S_ISLNK(status.st_mode));
    log->stream = !replace || unlink(path) == 0 ? fopen(path, there && !replace ? "w" : "wx") : NULL;
    if (log->stream == NULL) {
        rc = p4_fail_errno(path, "create the file");
        p4_metrics_log_close(log);
    }
    return rc;
}

/* One line: the kind, a stage and a set unless they are NULL, and the numbers. */
static p4_rc write_line(p4_metrics_log *log, const char *kind, const char *stage, const char *set,
                        const p4_json_real *numbers, size_t count)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = p4_json_put_text(root, "kind", kind) &&
              (stage == NULL || p4_json_put_text(root, "stage", stage)) &&
              (set == NULL || p4_json_put_text(root, "set", set)) && p4_json_put_reals(root, numbers, count);
    char *line = p4_json_print(root, ok, false);
    if (line == NULL) {
        return P4_E_SYSTEM;
    }
    ok = fputs(line, log->stream) >= 0 && fflush(log->stream) == 0;
    free(line);
    return ok ? P4_OK : p4_fail_errno(log->path, "write");
}

p4_rc p4_metrics_log_write(p4_metrics_log *log, const p4_training_point *point)
{
    const p4_json_real numbers[] = {{"step", (double)point->step},
                                    {"epoch", (double)point->epoch},
                                    {"loss", point->loss},
                                    {"kl", point->kl},
                                    {"block_distance", point->block_distance},
                                    {"lr", point->lr},
                                    {"grad_norm", point->grad_norm},
                                    {"tokens", (double)point->tokens},
                                    {"tokens_per_s", point->tokens_per_s},
                                    {"elapsed_s", point->elapsed_s}};
    return write_line(log, "train", NULL, NULL, numbers, sizeof numbers / sizeof numbers[0]);
}

p4_rc p4_metrics_log_evaluation(p4_metrics_log *log, const char *stage, const char *opt_set, int64_t step,
                                const p4_evaluation *evaluation)
{
    p4_json_real numbers[1 + P4_EVALUATION_MEMBERS] = {{"step", (double)step}};
    p4_evaluation_to_reals(numbers + 1, evaluation);
    return write_line(log, "evaluation", stage, opt_set, numbers, sizeof numbers / sizeof numbers[0]);
}

p4_rc p4_metrics_log_blocks(p4_metrics_log *log, const p4_block_loss *loss)
{
    const p4_json_real numbers[] = {{"first_block", (double)loss->first_block},
                                    {"blocks", (double)loss->blocks},
                                    {"loss_before", loss->before},
                                    {"loss_after", loss->after}};
    return write_line(log, "reconstruct", NULL, NULL, numbers, sizeof numbers / sizeof numbers[0]);
}

p4_rc p4_metrics_log_close(p4_metrics_log *log)
{
    p4_rc rc = P4_OK;
    if (log->stream != NULL && fclose(log->stream) != 0) {
        rc = p4_fail_errno(log->path, "write");
    }
    free(log->path);
    *log = (p4_metrics_log){0};
    return rc;
}
