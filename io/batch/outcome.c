#include "io/batch/outcome.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/anchor.h"
#include "io/file/files.h"
#include "io/file/fingerprint.h"
#include "io/hf/hf_model.h"
#include "io/out/outputs.h"
#include "io/out/report.h"
#include "io/out/results_read.h"

static double number_at(const cJSON *root, const char *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(root, object), key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

/* The verdict as results.json has it. */
static p4_quality read_quality(const cJSON *root)
{
    return (p4_quality){.degradation_ratio = number_at(root, "quality", "degradation_ratio"),
                        .degradation_low = number_at(root, "quality", "degradation_low"),
                        .degradation_high = number_at(root, "quality", "degradation_high"),
                        .max_accuracy_drop = number_at(root, "quality", "max_accuracy_drop")};
}

/* The sets that failed, as p4_sets_summary names them; "": none did. */
static const char *explain_sets(char text[P4_VERDICT_BYTES], const cJSON *root)
{
    const cJSON *set;
    size_t used = 0;
    text[0] = '\0';
    cJSON_ArrayForEach(set, cJSON_GetObjectItemCaseSensitive(root, "eval_sets"))
    {
        const cJSON *quality = cJSON_GetObjectItemCaseSensitive(set, "quality");
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(set, "name"));
        if (name != NULL && cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(quality, "passed")) &&
            used < P4_VERDICT_BYTES) {
            used += (size_t)snprintf(text + used, P4_VERDICT_BYTES - used, "%s%s",
                                     used > 0 ? ", " : "failed on the sets: ", name);
        }
    }
    return text;
}

/* When the run of results.json ended that succeeded; NULL: it did not. */
static const char *succeeded_at(const cJSON *root)
{
    const cJSON *provenance = cJSON_GetObjectItemCaseSensitive(root, "provenance");
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "success"))
               ? cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(provenance, "ended"))
               : NULL;
}

static bool take(p4_batch_record *record, const cJSON *root, const char *since)
{
    const cJSON *quality = cJSON_GetObjectItemCaseSensitive(root, "quality");
    const char *ended = succeeded_at(root);
    if (ended == NULL || strcmp(ended, since) < 0) { /* times of one form compare as texts */
        return false;
    }
    bool failed = cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(quality, "passed"));
    if (failed) {
        char text[P4_VERDICT_BYTES], sets[P4_VERDICT_BYTES];
        const cJSON *flow = cJSON_GetObjectItemCaseSensitive(root, "gradient_flow_test");
        const p4_quality verdict = read_quality(root);
        record->error = p4_strdup(
            p4_quality_explain_failure(text, &verdict, explain_sets(sets, root),
                                       cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(flow, "passed"))));
        if (record->error == NULL) {
            return false;
        }
    }
    record->event = failed ? P4_BATCH_VERDICT : P4_BATCH_DONE;
    snprintf(record->ended, sizeof record->ended, "%s", ended);
    record->pre_perplexity = number_at(root, "pre_compression", "perplexity");
    record->perplexity = number_at(root, "final", "perplexity");
    record->compression_ratio = number_at(root, "metrics", "compression_ratio");
    record->compressed_mb = number_at(root, "metrics", "compressed_size_mb");
    record->peak_memory_mb = number_at(root, "metrics", "peak_memory_mb");
    record->seconds = number_at(root, "timing", "total");
    const cJSON *warnings = cJSON_GetObjectItemCaseSensitive(root, "warning_count");
    record->warnings = cJSON_IsNumber(warnings) ? (int64_t)warnings->valuedouble : 0;
    return true;
}

bool p4_outcome_read(p4_batch_record *record, const char *output_path, const char *since)
{
    cJSON *root = p4_results_read(output_path);
    bool ended = root != NULL && take(record, root, since);
    p4_error_clear();
    cJSON_Delete(root);
    return ended;
}

bool p4_outcome_stands(const p4_batch_record *record)
{
    cJSON *root = p4_results_read(record->output_path);
    const char *ended = root != NULL ? succeeded_at(root) : NULL;
    /* Clocks of two nodes may differ, so that only the time of one clock is compared. */
    bool stands = ended != NULL && (record->ended[0] != '\0' ? strcmp(ended, record->ended) == 0
                                                             : strcmp(ended, record->time) <= 0);
    cJSON_Delete(root);
    return stands;
}

/* Compares a file that the run read with what is there now, if it lies in the directory. Paths of earlier
 * versions are relative. */
static p4_rc compare_input(bool *same, int64_t *compared, const p4_input_file *input, const char *directory)
{
    char now[P4_FINGERPRINT_BYTES], *path = p4_path_absolute(input->path);
    const size_t length = strlen(directory);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    if (strncmp(path, directory, length) == 0 && path[length] == '/') {
        *same = p4_fingerprint_file(now, path) == P4_OK && strcmp(now, input->fingerprint) == 0;
        *compared += 1;
    }
    free(path);
    return P4_OK;
}

p4_rc p4_outcome_compare_model(bool *same, const char *output_path, const char *model_path)
{
    p4_rc rc = P4_OK;
    p4_metadata metadata;
    char *directory = NULL, *absolute = NULL;
    int64_t compared = 0;
    p4_metadata_init(&metadata);
    rc = p4_metadata_read(&metadata, output_path);
    *same = rc == P4_OK;
    TRY(rc == P4_E_INPUT ? P4_OK : rc); /* not there: the run may have read anything */
    p4_error_clear();
    TRY(p4_hf_find_directory(&directory, model_path));
    absolute = p4_path_absolute(directory);
    TRY(absolute != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; *same && i < metadata.input_count; i++) {
        TRY(compare_input(same, &compared, &metadata.inputs[i], absolute));
    }
    p4_error_clear();
    *same = *same && compared > 0; /* none: the run read a model in another place */
done:
    free(directory);
    free(absolute);
    p4_metadata_free(&metadata);
    return rc;
}
