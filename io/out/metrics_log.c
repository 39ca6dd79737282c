#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/out/report_json.h"

/* A run that was killed may have left half a line: cuts it off and leaves the position at the end. */
static p4_rc cut_half_line(FILE *stream, const char *path)
{
    long end = 0;
    int byte;
    rewind(stream);
    for (long at = 1; (byte = getc(stream)) != EOF; at++) {
        end = byte == '\n' ? at : end;
    }
    if (ferror(stream) || ftruncate(fileno(stream), end) != 0 || fseek(stream, end, SEEK_SET) != 0) {
        return p4_fail_errno(path, "append");
    }
    return P4_OK;
}

p4_rc p4_metrics_log_open(p4_metrics_log *log, const char *path, bool append)
{
    p4_rc rc = P4_OK;
    *log = (p4_metrics_log){.path = p4_strdup(path)};
    if (log->path == NULL) {
        return P4_E_SYSTEM;
    }
    log->stream = append ? fopen(path, "r+") : NULL;
    bool goes_on = log->stream != NULL;
    if (!goes_on && (!append || errno == ENOENT)) {
        log->stream = fopen(path, "w");
    }
    if (log->stream == NULL) {
        rc = p4_fail_errno(path, "create the file");
        goto done;
    }
    rc = goes_on ? cut_half_line(log->stream, path) : P4_OK;
done:
    if (rc != P4_OK) {
        p4_metrics_log_close(log);
    }
    return rc;
}

p4_rc p4_metrics_log_write(p4_metrics_log *log, const p4_training_point *point)
{
    const p4_json_number numbers[] = {{"step", (double)point->step},
                                      {"epoch", (double)point->epoch},
                                      {"loss", point->loss},
                                      {"lr", point->lr},
                                      {"grad_norm", point->grad_norm},
                                      {"tokens", (double)point->tokens},
                                      {"tokens_per_s", point->tokens_per_s},
                                      {"elapsed_s", point->elapsed_s}};
    cJSON *root = cJSON_CreateObject();
    bool ok = p4_json_put_numbers(root, numbers, sizeof numbers / sizeof numbers[0]);
    char *line = p4_json_print(root, ok, false);
    if (line == NULL) {
        return P4_E_SYSTEM;
    }
    ok = fputs(line, log->stream) >= 0 && fflush(log->stream) == 0;
    free(line);
    return ok ? P4_OK : p4_fail_errno(log->path, "write");
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
