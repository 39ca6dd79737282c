#include "io/out/report_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "io/file/atomic_file.h"
#include "io/out/outputs.h"

static const double EXACT_INTEGERS = 9007199254740992.0; /* 2^53: below it a double holds every integer */

/* Rows of "metrics", in the order of the file; written and read by the same table. */
static const struct {
    const char *key;
    size_t offset;
    bool whole; /* an int64_t, else a double */
} size_fields[] = {
    {"total_params", offsetof(p4_size_metrics, total_params), true},
    {"original_size_mb", offsetof(p4_size_metrics, original_size_mb), false},
    {"stored_size_mb", offsetof(p4_size_metrics, stored_size_mb), false},
    {"compressed_size_mb", offsetof(p4_size_metrics, compressed_size_mb), false},
    {"compression_ratio", offsetof(p4_size_metrics, compression_ratio), false},
    {"target_compression_ratio", offsetof(p4_size_metrics, target_compression_ratio), false},
    {"sparsity_ratio", offsetof(p4_size_metrics, sparsity_ratio), false},
    {"layers_quantized", offsetof(p4_size_metrics, layers_quantized), true},
    {"layers_preserved", offsetof(p4_size_metrics, layers_preserved), true},
    {"ternary_mb", offsetof(p4_size_metrics, ternary_mb), false},
    {"scales_mb", offsetof(p4_size_metrics, scales_mb), false},
    {"embedding_mb", offsetof(p4_size_metrics, embedding_mb), false},
    {"head_mb", offsetof(p4_size_metrics, head_mb), false},
    {"other_mb", offsetof(p4_size_metrics, other_mb), false},
    {"peak_memory_mb", offsetof(p4_size_metrics, peak_memory_mb), false},
};
enum { SIZE_FIELDS = sizeof size_fields / sizeof size_fields[0] };

bool p4_json_put_numbers(cJSON *object, const p4_json_number *numbers, size_t count)
{
    bool ok = object != NULL;
    for (size_t i = 0; ok && i < count; i++) {
        ok = (isfinite(numbers[i].value) ? cJSON_AddNumberToObject(object, numbers[i].key, numbers[i].value)
                                         : cJSON_AddNullToObject(object, numbers[i].key)) != NULL;
    }
    return ok;
}

bool p4_json_put_text(cJSON *object, const char *key, const char *text)
{
    if (object == NULL || text[0] == '\0') {
        return object != NULL && cJSON_AddNullToObject(object, key) != NULL;
    }
    char *clean = p4_strdup(text);
    if (clean == NULL) {
        return false;
    }
    utf8proc_ssize_t bytes = (utf8proc_ssize_t)strlen(clean), step;
    for (utf8proc_ssize_t at = 0; at < bytes; at += step) {
        utf8proc_int32_t codepoint;
        step = utf8proc_iterate((const utf8proc_uint8_t *)clean + at, bytes - at, &codepoint);
        if (step < 1) {
            clean[at] = '?';
            step = 1;
        }
    }
    bool ok = cJSON_AddStringToObject(object, key, clean) != NULL;
    free(clean);
    return ok;
}

bool p4_json_put_sizes(cJSON *object, const p4_size_metrics *metrics)
{
    bool ok = true;
    for (int i = 0; ok && i < SIZE_FIELDS; i++) {
        const char *at = (const char *)metrics + size_fields[i].offset;
        p4_json_number number = {.key = size_fields[i].key};
        number.value = size_fields[i].whole ? (double)*(const int64_t *)at : *(const double *)at;
        ok = p4_json_put_numbers(object, &number, 1);
    }
    return ok;
}

p4_rc p4_json_take_sizes(p4_size_metrics *metrics, const cJSON *object, const char *source)
{
    for (int i = 0; i < SIZE_FIELDS; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, size_fields[i].key);
        char *at = (char *)metrics + size_fields[i].offset;
        bool missing = item == NULL || cJSON_IsNull(item);
        double value = missing ? NAN : item->valuedouble;
        bool fits = missing || (cJSON_IsNumber(item) && isfinite(value));
        if (size_fields[i].whole && !missing) {
            fits = fits && value >= 0 && value < EXACT_INTEGERS && floor(value) == value;
        }
        if (!fits) {
            return FAIL("%s: metrics.%s is not a %s", source, size_fields[i].key,
                        size_fields[i].whole ? "whole number" : "number");
        }
        if (size_fields[i].whole) {
            *(int64_t *)at = missing ? 0 : (int64_t)value;
        } else {
            *(double *)at = value;
        }
    }
    return P4_OK;
}

char *p4_json_print(cJSON *root, bool complete, bool indented)
{
    char *printed = NULL, *text = NULL;
    if (complete) {
        printed = indented ? cJSON_Print(root) : cJSON_PrintUnformatted(root);
    }
    if (printed == NULL) {
        (void)FAULT("out of memory while JSON was written");
    } else {
        text = p4_format("%s\n", printed);
    }
    cJSON_free(printed);
    cJSON_Delete(root);
    return text;
}

static bool put_output_paths(cJSON *object, const p4_output_paths *paths)
{
    bool ok = p4_json_put_text(object, "primary_output", paths->primary_output);
    for (int i = 0; ok && i < P4_OUTPUTS; i++) {
        ok = p4_json_put_text(object, p4_outputs[i].id, p4_output_path(paths, &p4_outputs[i]));
    }
    return ok;
}

static bool put_evaluation(cJSON *object, const p4_evaluation *evaluation)
{
    const p4_json_number numbers[] = {{"loss", evaluation->loss},
                                      {"perplexity", evaluation->perplexity},
                                      {"accuracy", evaluation->accuracy},
                                      {"tokens", (double)evaluation->tokens},
                                      {"kl", evaluation->kl}};
    return p4_json_put_numbers(object, numbers, sizeof numbers / sizeof numbers[0]);
}

static bool put_history(cJSON *list, const p4_fine_tuning *tuning)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < tuning->history_count; i++) {
        const p4_history_entry *entry = &tuning->history[i];
        const p4_json_number numbers[] = {{"epoch", (double)entry->epoch},
                                          {"step", (double)entry->step},
                                          {"train_loss", entry->train_loss},
                                          {"eval_loss", entry->eval_loss},
                                          {"eval_perplexity", entry->eval_perplexity}};
        cJSON *object = cJSON_CreateObject();
        ok = p4_json_put_numbers(object, numbers, sizeof numbers / sizeof numbers[0]) &&
             cJSON_AddItemToArray(list, object);
        if (!ok) {
            cJSON_Delete(object);
        }
    }
    return ok;
}

static bool put_tuning(cJSON *object, const p4_fine_tuning *tuning)
{
    const p4_json_number numbers[] = {{"epochs_completed", (double)tuning->epochs_completed},
                                      {"steps", (double)tuning->steps},
                                      {"tokens", (double)tuning->tokens},
                                      {"final_loss", tuning->final_loss},
                                      {"final_perplexity", tuning->final_perplexity},
                                      {"best_perplexity", tuning->best_perplexity}};
    return p4_json_put_numbers(object, numbers, sizeof numbers / sizeof numbers[0]) &&
           put_history(cJSON_AddArrayToObject(object, "training_history"), tuning);
}

static bool put_fine_tuning(cJSON *root, const p4_fine_tuning *tuning)
{
    return tuning->ran ? put_tuning(cJSON_AddObjectToObject(root, "fine_tuning"), tuning)
                       : cJSON_AddNullToObject(root, "fine_tuning") != NULL;
}

p4_rc p4_training_summary(const p4_fine_tuning *result, char **json)
{
    p4_error_clear();
    cJSON *root = cJSON_CreateObject();
    *json = p4_json_print(root, put_tuning(root, result), true);
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}

/* measured false: null, for neither answer would be true. */
static bool put_bool(cJSON *object, const char *key, bool value, bool measured)
{
    return object != NULL && (measured ? cJSON_AddBoolToObject(object, key, value)
                                       : cJSON_AddNullToObject(object, key)) != NULL;
}

static bool put_gradient_flow(cJSON *object, const p4_gradient_flow *flow)
{
    const p4_json_number checked = {"tensors_checked", (double)flow->tensors_checked};
    return put_bool(object, "passed", flow->passed, flow->ran) &&
           p4_json_put_text(object, "error", flow->error) && p4_json_put_numbers(object, &checked, 1);
}

static bool put_quality(cJSON *object, const p4_quality *quality)
{
    const p4_json_number numbers[] = {{"degradation_ratio", quality->degradation_ratio},
                                      {"max_accuracy_drop", quality->max_accuracy_drop}};
    return put_bool(object, "passed", quality->passed, !isnan(quality->degradation_ratio)) &&
           p4_json_put_numbers(object, numbers, sizeof numbers / sizeof numbers[0]);
}

static bool put_timing(cJSON *object, const p4_results *results)
{
    bool ok = true;
    for (int64_t i = 0; ok && i < results->stage_count; i++) {
        const p4_json_number stage = {results->stages[i].stage, results->stages[i].seconds};
        ok = p4_json_put_numbers(object, &stage, 1);
    }
    const p4_json_number total = {"total", results->total_s};
    return ok && p4_json_put_numbers(object, &total, 1);
}

p4_rc p4_results_to_json(const p4_results *results, char **json)
{
    p4_error_clear();
    cJSON *root = cJSON_CreateObject();
    bool ok =
        root != NULL && cJSON_AddBoolToObject(root, "success", results->success) != NULL &&
        p4_json_put_text(root, "phase", "phase4_bitnet") && p4_json_put_text(root, "error", results->error) &&
        p4_json_put_text(root, "model_type", results->model_type) &&
        p4_json_put_text(root, "method", results->method) &&
        p4_json_put_text(root, "packing", results->packing) &&
        put_output_paths(cJSON_AddObjectToObject(root, "output_paths"), &results->output_paths) &&
        put_evaluation(cJSON_AddObjectToObject(root, "pre_compression"), &results->pre) &&
        put_evaluation(cJSON_AddObjectToObject(root, "post_compression"), &results->post) &&
        put_evaluation(cJSON_AddObjectToObject(root, "final"), &results->final) &&
        put_fine_tuning(root, &results->fine_tuning) &&
        put_gradient_flow(cJSON_AddObjectToObject(root, "gradient_flow_test"), &results->gradient_flow) &&
        put_quality(cJSON_AddObjectToObject(root, "quality"), &results->quality) &&
        p4_json_put_sizes(cJSON_AddObjectToObject(root, "metrics"), &results->metrics) &&
        put_timing(cJSON_AddObjectToObject(root, "timing"), results);
    *json = p4_json_print(root, ok, true);
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_results_write(const p4_results *results, const char *path)
{
    char *json = NULL;
    p4_rc rc = p4_results_to_json(results, &json);
    if (rc == P4_OK) {
        rc = p4_atomic_write_all(path, json, strlen(json));
    }
    free(json);
    return rc;
}
