/* compression_metadata.json: the origin of a packed model and the method that made it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/anchor.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/file/fingerprint.h"
#include "io/json/read.h"
#include "io/json/write.h"
#include "io/out/evaluations_json.h"
#include "io/out/outputs.h"
#include "io/out/report.h"
#include "io/out/sizes_json.h"

enum { MAX_FILE_BYTES = 64 << 20 };
static const char format_name[] = "phase4-compression-metadata";

void p4_metadata_init(p4_metadata *metadata)
{
    p4_results nothing;
    p4_results_init(&nothing);
    memset(metadata, 0, sizeof *metadata);
    metadata->bits = metadata->pre_perplexity = metadata->post_perplexity = metadata->final_perplexity = NAN;
    metadata->metrics = nothing.metrics;
    (void)p4_utc_now(metadata->created);
}

void p4_metadata_free(p4_metadata *metadata)
{
    for (int64_t i = 0; i < metadata->input_count; i++) {
        free(metadata->inputs[i].path);
        free(metadata->inputs[i].fingerprint);
    }
    free(metadata->inputs);
    free(metadata->config_json);
    free(metadata->provenance_json);
    free(metadata->experts_json);
    free(metadata->quality_json);
    metadata->inputs = NULL;
    metadata->config_json = metadata->provenance_json = metadata->experts_json = NULL;
    metadata->quality_json = NULL;
    metadata->input_count = 0;
}

p4_rc p4_metadata_add_fingerprint(p4_metadata *metadata, const char *path, const char *fingerprint)
{
    if (metadata->input_count == P4_METADATA_MAX_INPUTS) {
        return FAIL("more than %d input files to keep fingerprints of", P4_METADATA_MAX_INPUTS);
    }
    p4_input_file *grown = p4_resize(metadata->inputs, (size_t)metadata->input_count + 1, sizeof *grown);
    if (grown == NULL) {
        return P4_E_SYSTEM;
    }
    metadata->inputs = grown;
    p4_input_file *input = &grown[metadata->input_count];
    *input = (p4_input_file){p4_strdup(path), p4_strdup(fingerprint)};
    metadata->input_count++;
    return input->path != NULL && input->fingerprint != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_metadata_add_input(p4_metadata *metadata, const char *path)
{
    char fingerprint[P4_FINGERPRINT_BYTES];
    p4_rc rc = p4_fingerprint_file(fingerprint, path);
    return rc != P4_OK ? rc : p4_metadata_add_fingerprint(metadata, path, fingerprint);
}

/* As in results.json. */
static p4_rc print_quality(char **json, const p4_results *results)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = p4_json_put_evaluations(root, results) &&
              p4_json_put_quality(cJSON_AddObjectToObject(root, "quality"), &results->quality,
                                  p4_results_verdict(results));
    *json = p4_json_print(root, ok, true);
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_metadata_take_results(p4_metadata *metadata, const p4_results *results)
{
    snprintf(metadata->model_type, sizeof metadata->model_type, "%s", results->model_type);
    snprintf(metadata->method, sizeof metadata->method, "%s", results->method);
    snprintf(metadata->scale_granularity, sizeof metadata->scale_granularity, "%s",
             results->scale_granularity);
    snprintf(metadata->packing, sizeof metadata->packing, "%s", results->packing);
    metadata->metrics = results->metrics;
    metadata->pre_perplexity = results->pre.perplexity;
    metadata->post_perplexity = results->post.perplexity;
    metadata->final_perplexity = results->final.perplexity;
    return print_quality(&metadata->quality_json, results);
}

static bool put_inputs(cJSON *list, const p4_metadata *metadata)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < metadata->input_count; i++) {
        cJSON *object = cJSON_CreateObject();
        char *path = p4_path_absolute(metadata->inputs[i].path);
        ok = path != NULL && p4_json_put_text(object, "path", path) &&
             p4_json_put_text(object, "fingerprint", metadata->inputs[i].fingerprint) &&
             cJSON_AddItemToArray(list, object);
        free(path);
        if (!ok) {
            cJSON_Delete(object);
        }
    }
    return ok;
}

/* Adds the tree of a JSON text, NULL: null. Its numbers print as they were spelled: a seed has 64 bits. */
static p4_rc put_tree(cJSON *root, const char *key, const char *json)
{
    p4_rc rc = P4_OK;
    cJSON *tree = json != NULL ? cJSON_Parse(json) : cJSON_CreateNull();
    if (tree == NULL) {
        return FAULT("%s: its %s is not JSON", P4_METADATA_FILE, key);
    }
    if ((json != NULL && !p4_json_keep_numbers(tree, json)) || !cJSON_AddItemToObject(root, key, tree)) {
        cJSON_Delete(tree);
        rc = FAULT("out of memory while JSON was written");
    }
    return rc;
}

static p4_rc print(const p4_metadata *metadata, char **json)
{
    const p4_json_real bits = {"bits", metadata->bits};
    const p4_json_real perplexities[] = {{"pre", metadata->pre_perplexity},
                                         {"post", metadata->post_perplexity},
                                         {"final", metadata->final_perplexity}};
    cJSON *root = cJSON_CreateObject();
    bool ok = p4_json_put_text(root, "format", format_name) && p4_json_put_whole(root, "format_version", 1) &&
              p4_json_put_text(root, "producer", metadata->producer) &&
              p4_json_put_text(root, "created", metadata->created) &&
              p4_json_put_text(root, "model_type", metadata->model_type) &&
              p4_json_put_text(root, "method", metadata->method) &&
              p4_json_put_text(root, "scale_granularity", metadata->scale_granularity) &&
              p4_json_put_reals(root, &bits, 1) && p4_json_put_text(root, "packing", metadata->packing) &&
              p4_json_put_sizes(cJSON_AddObjectToObject(root, "metrics"), &metadata->metrics) &&
              p4_json_put_reals(cJSON_AddObjectToObject(root, "perplexity"), perplexities, 3) &&
              put_inputs(cJSON_AddArrayToObject(root, "inputs"), metadata);
    ok = ok && put_tree(root, "evaluations", metadata->quality_json) == P4_OK &&
         put_tree(root, "provenance", metadata->provenance_json) == P4_OK &&
         put_tree(root, "experts", metadata->experts_json) == P4_OK &&
         put_tree(root, "config", metadata->config_json) == P4_OK;
    *json = p4_json_print(root, ok, true);
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_metadata_store(const char *directory, const p4_metadata *metadata)
{
    p4_rc rc = P4_OK;
    char *json = NULL, *path = p4_format("%s/%s", directory, P4_METADATA_FILE);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    TRY(print(metadata, &json));
    rc = p4_atomic_write_all(path, json, strlen(json));
done:
    free(json);
    free(path);
    return rc;
}

p4_rc p4_metadata_save(const char *directory, const p4_metadata *metadata)
{
    p4_error_clear();
    return p4_metadata_store(directory, metadata);
}

/* A text of the object; absent or null is "". */
static p4_rc take_text(char *to, size_t to_bytes, const cJSON *object, const char *key, const char *source)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (item == NULL || cJSON_IsNull(item)) {
        to[0] = '\0';
        return P4_OK;
    }
    if (!cJSON_IsString(item) || strlen(item->valuestring) >= to_bytes) {
        return FAIL("%s: %s is not a text of at most %zu bytes", source, key, to_bytes - 1);
    }
    strcpy(to, item->valuestring);
    return P4_OK;
}

/* A number of the object; absent or null is NaN. */
static p4_rc take_number(double *to, const cJSON *object, const char *key, const char *source)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    bool missing = item == NULL || cJSON_IsNull(item);
    if (!missing && !cJSON_IsNumber(item)) {
        return FAIL("%s: %s is not a number", source, key);
    }
    *to = missing ? NAN : item->valuedouble;
    return P4_OK;
}

static p4_rc take_inputs(p4_metadata *metadata, const cJSON *list, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    CHECK(list == NULL || cJSON_IsArray(list), "%s: inputs is not a list", source);
    cJSON_ArrayForEach(item, list)
    {
        const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "path"));
        const char *fingerprint = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "fingerprint"));
        CHECK(path != NULL && fingerprint != NULL, "%s: entry %lld of inputs lacks a path or a fingerprint",
              source, (long long)metadata->input_count);
        TRY(p4_metadata_add_fingerprint(metadata, path, fingerprint));
    }
done:
    return rc;
}

/* An object of the root as text, NULL when there is none. */
static p4_rc take_tree(char **json, const cJSON *root, const char *key, const char *source)
{
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(root, key);
    if (object == NULL || cJSON_IsNull(object)) {
        return P4_OK;
    }
    if (!cJSON_IsObject(object)) {
        return FAIL("%s: %s is not an object", source, key);
    }
    char *printed = cJSON_Print(object);
    *json = printed != NULL ? p4_strdup(printed) : NULL;
    cJSON_free(printed);
    return *json != NULL ? P4_OK : FAULT("out of memory while %s was read", source);
}

static p4_rc take_all(p4_metadata *metadata, const cJSON *root, const char *source)
{
    p4_rc rc = P4_OK;
    char format[64];
    double version = 0.0;
    TRY(take_text(format, sizeof format, root, "format", source));
    CHECK(strcmp(format, format_name) == 0, "%s: its format is \"%s\", expected \"%s\"", source, format,
          format_name);
    TRY(take_number(&version, root, "format_version", source));
    CHECK(version == 1.0, "%s: is of format version %g, this program reads 1", source, version);
    TRY(take_text(metadata->producer, sizeof metadata->producer, root, "producer", source));
    TRY(take_text(metadata->created, sizeof metadata->created, root, "created", source));
    TRY(take_text(metadata->model_type, sizeof metadata->model_type, root, "model_type", source));
    TRY(take_text(metadata->method, sizeof metadata->method, root, "method", source));
    TRY(take_text(metadata->scale_granularity, sizeof metadata->scale_granularity, root, "scale_granularity",
                  source));
    TRY(take_text(metadata->packing, sizeof metadata->packing, root, "packing", source));
    TRY(take_number(&metadata->bits, root, "bits", source));
    const cJSON *metrics = cJSON_GetObjectItemCaseSensitive(root, "metrics");
    const cJSON *perplexity = cJSON_GetObjectItemCaseSensitive(root, "perplexity");
    CHECK(cJSON_IsObject(metrics), "%s: has no object metrics", source);
    CHECK(cJSON_IsObject(perplexity), "%s: has no object perplexity", source);
    TRY(p4_json_take_sizes(&metadata->metrics, metrics, source));
    TRY(take_number(&metadata->pre_perplexity, perplexity, "pre", source));
    TRY(take_number(&metadata->post_perplexity, perplexity, "post", source));
    TRY(take_number(&metadata->final_perplexity, perplexity, "final", source));
    rc = take_inputs(metadata, cJSON_GetObjectItemCaseSensitive(root, "inputs"), source);
done:
    return rc;
}

p4_rc p4_metadata_parse(p4_metadata *metadata, const char *json, size_t json_bytes, const char *source)
{
    p4_rc rc = P4_OK;
    cJSON *root = NULL;
    p4_metadata_init(metadata);
    metadata->created[0] = '\0';
    TRY(p4_json_read(&root, json, json_bytes, source));
    TRY(take_all(metadata, root, source));
    if (!p4_json_keep_numbers(root, json)) { /* from here on no number can be read */
        rc = FAULT("out of memory while %s was read", source);
        goto done;
    }
    TRY(take_tree(&metadata->config_json, root, "config", source));
    TRY(take_tree(&metadata->quality_json, root, "evaluations", source));
    TRY(take_tree(&metadata->provenance_json, root, "provenance", source));
    rc = take_tree(&metadata->experts_json, root, "experts", source);
done:
    cJSON_Delete(root);
    if (rc != P4_OK) {
        p4_metadata_free(metadata);
    }
    return rc;
}

p4_rc p4_metadata_read(p4_metadata *metadata, const char *directory)
{
    p4_rc rc = P4_OK;
    char *text = NULL, *path = p4_format("%s/%s", directory, P4_METADATA_FILE);
    size_t bytes = 0;
    p4_metadata_init(metadata);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    TRY(p4_file_read(&text, &bytes, path, MAX_FILE_BYTES));
    rc = p4_metadata_parse(metadata, text, bytes, path);
done:
    free(text);
    free(path);
    return rc;
}

p4_rc p4_metadata_load(p4_metadata *metadata, const char *directory)
{
    p4_error_clear();
    return p4_metadata_read(metadata, directory);
}
