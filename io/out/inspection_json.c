#include <stdlib.h>

#include "io/json/evaluation.h"
#include "io/out/evaluations_json.h"
#include "io/out/inspection.h"
#include "src/leaf/escape.h"

/* Adds an object to a list; NULL: out of memory. */
static cJSON *add_to(cJSON *list)
{
    cJSON *object = cJSON_CreateObject();
    if (object != NULL && !cJSON_AddItemToArray(list, object)) {
        cJSON_Delete(object);
        object = NULL;
    }
    return object;
}

/* Adds a JSON text as it is; NULL: null. */
static bool put_text_tree(cJSON *to, const char *key, const char *json)
{
    cJSON *tree = json != NULL ? cJSON_Parse(json) : cJSON_CreateNull();
    bool ok = tree != NULL && (json == NULL || p4_json_keep_numbers(tree, json)) &&
              cJSON_AddItemToObject(to, key, tree);
    if (!ok) {
        cJSON_Delete(tree);
    }
    return ok;
}

static bool put_shape(cJSON *to, const p4_tensor_inspection *t)
{
    cJSON *list = cJSON_AddArrayToObject(to, "shape");
    return list != NULL && (t->vector || cJSON_AddItemToArray(list, cJSON_CreateNumber((double)t->rows))) &&
           cJSON_AddItemToArray(list, cJSON_CreateNumber((double)t->cols));
}

static bool put_tensor(cJSON *list, const p4_tensor_inspection *t)
{
    const double elements = (double)(t->rows * t->cols);
    const p4_json_real ternary[] = {{"sparsity", (double)t->zeros / elements},
                                    {"positive", (double)t->positive / elements},
                                    {"scale_min", t->scale_min},
                                    {"scale_max", t->scale_max},
                                    {"scale_mean", t->scale_mean},
                                    {"relative_error", t->relative_error}};
    const p4_json_real preserved[] = {{"largest", t->largest}};
    cJSON *object = add_to(list);
    bool ok = object != NULL && p4_json_put_text(object, "name", t->name) && put_shape(object, t) &&
              cJSON_AddBoolToObject(object, "transposed", t->transposed) != NULL &&
              p4_json_put_text(object, "encoding", t->encoding) &&
              p4_json_put_whole(object, "bytes", t->bytes) &&
              (!t->ternary || p4_json_put_whole(object, "scales", t->scales)) &&
              (t->ternary ? p4_json_put_reals(object, ternary, sizeof ternary / sizeof ternary[0])
                          : p4_json_put_reals(object, preserved, 1));
    return ok && (t->differing < 0 ? cJSON_AddNullToObject(object, "differing") != NULL
                                   : p4_json_put_whole(object, "differing", t->differing));
}

static bool put_evaluation(cJSON *to, const char *key, const p4_evaluation *e)
{
    if (e->tokens == 0) {
        return cJSON_AddNullToObject(to, key) != NULL;
    }
    cJSON *object = cJSON_AddObjectToObject(to, key);
    return object != NULL && p4_json_put_evaluation(object, e);
}

/* Nothing without sets. */
static bool put_sets(cJSON *root, const p4_inspection *x)
{
    cJSON *list = x->set_count > 0 ? cJSON_AddArrayToObject(root, "eval_sets") : NULL;
    bool ok = x->set_count == 0 || list != NULL;
    for (int64_t i = 0; ok && i < x->set_count; i++) {
        const p4_set_results *set = &x->sets[i];
        cJSON *object = add_to(list);
        ok = object != NULL && p4_json_put_text(object, "name", set->name) &&
             put_evaluation(object, "pre", &set->pre) && put_evaluation(object, "post", &set->post) &&
             put_evaluation(object, "final", &set->final) &&
             p4_json_put_quality(cJSON_AddObjectToObject(object, "quality"), &set->quality,
                                 p4_quality_verdict(&set->quality));
    }
    return ok;
}

static bool put_sizes(cJSON *to, const p4_inspection *x)
{
    const p4_json_real sparsity = {
        "sparsity", x->ternary_parameters > 0 ? (double)x->zeros / (double)x->ternary_parameters : 0.0};
    return p4_json_put_whole(to, "file_bytes", x->file_bytes) &&
           p4_json_put_whole(to, "code_bytes", x->code_bytes) &&
           p4_json_put_whole(to, "scale_bytes", x->scale_bytes) &&
           p4_json_put_whole(to, "preserved_bytes", x->preserved_bytes) &&
           p4_json_put_whole(to, "parameters", x->parameters) &&
           p4_json_put_whole(to, "ternary_parameters", x->ternary_parameters) &&
           p4_json_put_whole(to, "layers_quantized", x->layers_quantized) &&
           p4_json_put_whole(to, "layers_preserved", x->count - x->layers_quantized) &&
           p4_json_put_reals(to, &sparsity, 1);
}

static bool put_inputs(cJSON *list, const p4_inspection *x)
{
    static const char *const states[] = {[P4_INPUT_ABSENT] = "absent",
                                         [P4_INPUT_SAME] = "same",
                                         [P4_INPUT_CHANGED] = "changed",
                                         [P4_INPUT_UNREADABLE] = "unreadable"};
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < x->metadata.input_count; i++) {
        cJSON *object = add_to(list);
        ok = object != NULL && p4_json_put_text(object, "path", x->metadata.inputs[i].path) &&
             p4_json_put_text(object, "fingerprint", x->metadata.inputs[i].fingerprint) &&
             p4_json_put_text(object, "state", states[x->inputs[i]]);
    }
    return ok;
}

static bool put_findings(cJSON *list, const p4_finding_list *findings)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < p4_min_i64(findings->count, P4_FINDINGS_KEPT); i++) {
        ok = cJSON_AddItemToArray(list, cJSON_CreateString(findings->lines[i]));
    }
    return ok;
}

char *p4_inspection_json(const p4_inspection *x)
{
    cJSON *root = cJSON_CreateObject();
    bool ok =
        p4_json_put_text(root, "file", x->path) && p4_json_put_text(root, "model_type", x->model_type) &&
        p4_json_put_text(root, "quantizer", x->quantizer) && p4_json_put_text(root, "packing", x->packing) &&
        cJSON_AddBoolToObject(root, "verified", x->findings.count == 0) != NULL &&
        put_findings(cJSON_AddArrayToObject(root, "findings"), &x->findings) &&
        p4_json_put_whole(root, "findings_count", x->findings.count) &&
        p4_json_put_text(root, "dequantized_fp16", x->fp16_path) &&
        put_sizes(cJSON_AddObjectToObject(root, "sizes"), x) && put_evaluation(root, "pre", &x->pre) &&
        put_evaluation(root, "post", &x->post) && put_evaluation(root, "final", &x->final) &&
        put_sets(root, x) && p4_json_put_text(root, "producer", x->metadata.producer) &&
        p4_json_put_text(root, "created", x->has_metadata ? x->metadata.created : "") &&
        put_text_tree(root, "provenance", x->metadata.provenance_json) &&
        put_inputs(cJSON_AddArrayToObject(root, "inputs"), x) &&
        put_text_tree(root, "config", x->config_json);
    cJSON *list = ok ? cJSON_AddArrayToObject(root, "tensors") : NULL;
    ok = list != NULL;
    for (int64_t i = 0; ok && i < x->count; i++) {
        ok = put_tensor(list, &x->tensors[i]);
    }
    return p4_json_print(root, ok, true);
}

/* A text of an object, escaped; "-": it is not there. */
static const char *text_of(char to[128], const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    (void)p4_escape(to, 128, text != NULL ? text : "-", SIZE_MAX);
    return to;
}

void p4_inspection_print_places(FILE *to, const p4_inspection *x)
{
    char host[128], device[128];
    cJSON *root = x->metadata.provenance_json != NULL ? cJSON_Parse(x->metadata.provenance_json) : NULL;
    const cJSON *place;
    cJSON_ArrayForEach(place, cJSON_GetObjectItemCaseSensitive(root, "hosts"))
    {
        const cJSON *ranks = cJSON_GetObjectItemCaseSensitive(place, "ranks");
        int64_t count = cJSON_IsNumber(ranks) ? (int64_t)ranks->valuedouble : 0;
        fprintf(to, "  on         %s: %lld rank%s, %s\n", text_of(host, place, "host"), (long long)count,
                p4_plural(count), text_of(device, place, "device"));
    }
    cJSON_Delete(root);
}

/* ---- two results ---- */

static bool put_difference(cJSON *list, const p4_tensor_difference *t)
{
    const p4_json_real scales[] = {{"scale_change_max", t->scale_change_max},
                                   {"scale_change_mean", t->scale_change_mean}};
    const p4_json_real largest = {"largest_change", t->largest_change};
    cJSON *object = add_to(list);
    bool ok = object != NULL && p4_json_put_text(object, "name", t->name) &&
              p4_json_put_text(object, "kind", t->kind) &&
              p4_json_put_whole(object, "elements", t->elements) &&
              p4_json_put_whole(object, "differing", t->flipped);
    if (ok && t->scales > 0) {
        ok = p4_json_put_whole(object, "to_zero", t->to_zero) &&
             p4_json_put_whole(object, "from_zero", t->from_zero) &&
             p4_json_put_whole(object, "signs", t->signs) && p4_json_put_whole(object, "scales", t->scales) &&
             p4_json_put_whole(object, "scales_changed", t->scales_changed) &&
             p4_json_put_reals(object, scales, 2);
    } else if (ok) {
        ok = p4_json_put_reals(object, &largest, 1);
    }
    return ok;
}

char *p4_result_difference_json(const p4_result_difference *d)
{
    cJSON *root = cJSON_CreateObject();
    cJSON *keys = cJSON_AddArrayToObject(root, "keys"), *list = NULL;
    bool ok = p4_json_put_text(root, "a", d->a) && p4_json_put_text(root, "b", d->b) &&
              cJSON_AddBoolToObject(root, "differs", d->differs) != NULL &&
              cJSON_AddBoolToObject(root, "model_json_differs", d->model_json_differs) != NULL &&
              cJSON_AddBoolToObject(root, "tokenizer_differs", d->tokenizer_differs) != NULL && keys != NULL;
    for (int64_t i = 0; ok && i < d->key_count; i++) {
        cJSON *object = add_to(keys);
        ok = object != NULL && p4_json_put_text(object, "key", d->keys[i].key) &&
             put_text_tree(object, "a", d->keys[i].a) && put_text_tree(object, "b", d->keys[i].b);
    }
    ok = ok && (list = cJSON_AddArrayToObject(root, "tensors")) != NULL;
    for (int64_t i = 0; ok && i < d->count; i++) {
        ok = put_difference(list, &d->tensors[i]);
    }
    return p4_json_print(root, ok, true);
}
