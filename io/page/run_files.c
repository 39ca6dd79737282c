#include "io/page/run_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/json/read.h"
#include "io/out/outputs.h"

enum { JSON_BYTES = 256 << 20, METRICS_BYTES = 1 << 30 };

const cJSON *p4_page_item(const cJSON *root, const char *path)
{
    while (root != NULL && *path != '\0') {
        char key[64];
        size_t length = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)length, path);
        root = cJSON_GetObjectItemCaseSensitive(root, key);
        path += length + (path[length] == '.');
    }
    return root;
}

double p4_page_real(const cJSON *root, const char *path)
{
    const cJSON *item = p4_page_item(root, path);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

const char *p4_page_string(const cJSON *root, const char *path)
{
    const char *text = cJSON_GetStringValue(p4_page_item(root, path));
    return text != NULL ? text : "";
}

/* A file that holds a JSON object; absent: *root is NULL. */
static p4_rc read_object(cJSON **root, const char *directory, const char *file, bool required)
{
    p4_rc rc = P4_OK;
    char *text = NULL, *path = p4_format("%s/%s", directory, file);
    size_t bytes = 0;
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    if (required || p4_file_exists(path)) {
        TRY(p4_file_read(&text, &bytes, path, JSON_BYTES));
        TRY(p4_json_read(root, text, bytes, path));
    }
done:
    free(text);
    free(path);
    return rc;
}

/* ---- metrics.jsonl ---- */

static p4_rc add_point(p4_page_run *run, const cJSON *line)
{
    p4_training_point *points = p4_grow(run->points, run->point_count, &run->point_capacity, sizeof *points);
    if (points == NULL) {
        return P4_E_SYSTEM;
    }
    run->points = points;
    points[run->point_count++] = (p4_training_point){.step = (int64_t)p4_page_real(line, "step"),
                                                     .loss = p4_page_real(line, "loss"),
                                                     .kl = p4_page_real(line, "kl"),
                                                     .lr = p4_page_real(line, "lr"),
                                                     .grad_norm = p4_page_real(line, "grad_norm"),
                                                     .tokens_per_s = p4_page_real(line, "tokens_per_s")};
    return P4_OK;
}

static p4_rc add_evaluation(p4_page_run *run, const cJSON *line)
{
    p4_page_evaluation *evaluations =
        p4_grow(run->evaluations, run->evaluation_count, &run->evaluation_capacity, sizeof *evaluations);
    if (evaluations == NULL) {
        return P4_E_SYSTEM;
    }
    run->evaluations = evaluations;
    p4_page_evaluation *e = &evaluations[run->evaluation_count++];
    *e = (p4_page_evaluation){.step = p4_page_real(line, "step"),
                              .loss = p4_page_real(line, "loss"),
                              .perplexity = p4_page_real(line, "perplexity")};
    snprintf(e->stage, sizeof e->stage, "%s", p4_page_string(line, "stage"));
    return P4_OK;
}

static p4_rc take_line(p4_page_run *run, const cJSON *line)
{
    const char *kind = p4_page_string(line, "kind");
    double step = p4_page_real(line, "step");
    run->reconstructs = run->reconstructs || strcmp(kind, "reconstruct") == 0;
    bool counts = step >= 0 && step < 0x1p53;
    return counts && strcmp(kind, "train") == 0 ? add_point(run, line)
           : counts && strcmp(kind, "evaluation") == 0 && p4_page_string(line, "set")[0] == '\0'
               ? add_evaluation(run, line)
               : P4_OK;
}

/* A torn last line, which a killed run may leave, is passed over. */
static p4_rc read_metrics(p4_page_run *run)
{
    p4_rc rc = P4_OK;
    char *text = NULL, *path = p4_format("%s/" P4_METRICS_FILE, run->directory);
    size_t bytes = 0;
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    if (!p4_file_exists(path)) {
        goto done;
    }
    TRY(p4_file_read(&text, &bytes, path, METRICS_BYTES));
    int64_t number = 1;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, number++) {
        cJSON *root = cJSON_ParseWithLength(line, (size_t)(end - line));
        CHECK(cJSON_IsObject(root), "%s: line %lld: not a JSON object", path, (long long)number);
        rc = take_line(run, root);
        cJSON_Delete(root);
        TRY(rc);
    }
done:
    free(text);
    free(path);
    return rc;
}

const p4_page_evaluation *p4_page_last_evaluation(const p4_page_run *run, const char *stage)
{
    for (int64_t i = run->evaluation_count - 1; i >= 0; i--) {
        const char *of = run->evaluations[i].stage;
        if (strcmp(of, stage) == 0 || (stage[0] == '\0' && strcmp(of, "pre") != 0)) {
            return &run->evaluations[i];
        }
    }
    return NULL;
}

double p4_page_final(const p4_page_run *run, const char *member)
{
    bool success = cJSON_IsTrue(p4_page_item(run->results, "success"));
    return success ? p4_page_real(p4_page_item(run->results, "final"), member) : NAN;
}

double p4_page_original_loss(const p4_page_run *run)
{
    double loss = p4_page_real(run->results, "pre_compression.loss");
    const p4_page_evaluation *logged = p4_page_last_evaluation(run, "pre");
    return isnan(loss) && logged != NULL ? logged->loss : loss;
}

double p4_page_original_perplexity(const p4_page_run *run)
{
    double perplexity = p4_page_real(run->results, "pre_compression.perplexity");
    const p4_page_evaluation *logged = p4_page_last_evaluation(run, "pre");
    return isnan(perplexity) && logged != NULL ? logged->perplexity : perplexity;
}

/* ---- all of it ---- */

p4_page_state p4_page_state_of(const p4_page_run *run)
{
    const char *error = p4_page_string(run->results, "error");
    return !cJSON_IsFalse(p4_page_item(run->results, "success"))                      ? P4_PAGE_ENDED
           : strncmp(error, P4_UNFINISHED_ERROR, sizeof P4_UNFINISHED_ERROR - 1) == 0 ? P4_PAGE_UNDER_WAY
           : strncmp(error, P4_STOPPED_ERROR, sizeof P4_STOPPED_ERROR - 1) == 0       ? P4_PAGE_STOPPED
                                                                                      : P4_PAGE_ENDED;
}

static p4_rc name_model(p4_page_run *run)
{
    const char *path = p4_page_string(run->config, "model_path");
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    size_t start = end;
    while (start > 0 && path[start - 1] != '/') {
        start--;
    }
    run->name = end > start ? p4_format("%.*s", (int)(end - start), path + start) : p4_strdup(run->directory);
    return run->name != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_page_run_read(p4_page_run *run, const char *directory, const char *results_json)
{
    p4_rc rc = P4_OK;
    *run = (p4_page_run){.directory = p4_strdup(directory)};
    TRY(run->directory != NULL ? P4_OK : P4_E_SYSTEM);
    if (results_json != NULL) {
        TRY(p4_json_read(&run->results, results_json, strlen(results_json), P4_RESULTS_FILE));
    } else {
        TRY(read_object(&run->results, directory, P4_RESULTS_FILE, true));
        CHECK(strcmp(p4_page_string(run->results, "phase"), "phase4_bitnet") == 0,
              "%s/" P4_RESULTS_FILE ": \"phase\" is \"%s\", expected \"phase4_bitnet\"", directory,
              p4_page_string(run->results, "phase"));
    }
    TRY(read_object(&run->config, directory, P4_CONFIG_FILE, false));
    TRY(read_object(&run->details, directory, P4_DETAILS_FILE, false));
    TRY(read_object(&run->samples, directory, P4_SAMPLES_FILE, false));
    TRY(read_metrics(run));
    TRY(name_model(run));
done:
    return rc;
}

void p4_page_run_free(p4_page_run *run)
{
    cJSON_Delete(run->results);
    cJSON_Delete(run->config);
    cJSON_Delete(run->details);
    cJSON_Delete(run->samples);
    free(run->points);
    free(run->evaluations);
    free(run->name);
    free(run->directory);
    *run = (p4_page_run){0};
}
