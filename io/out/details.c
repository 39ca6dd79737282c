#include "io/out/details.h"

#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/json/write.h"

enum { FORMAT_VERSION = 1 };

/* A new object at the end of a list, NULL when memory is out. */
static cJSON *append(cJSON *list)
{
    cJSON *object = list != NULL ? cJSON_CreateObject() : NULL;
    if (object != NULL && !cJSON_AddItemToArray(list, object)) {
        cJSON_Delete(object);
        object = NULL;
    }
    return object;
}

static bool put_tensors(cJSON *list, const p4_details *details)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < details->tensor_count; i++) {
        const p4_tensor_detail *t = &details->tensors[i];
        const p4_json_real numbers[] = {{"bytes", t->bytes},           {"relative_error", t->relative_error},
                                        {"sparsity", t->sparsity},     {"scale_min", t->scale_min},
                                        {"scale_mean", t->scale_mean}, {"scale_max", t->scale_max}};
        cJSON *object = append(list);
        ok = p4_json_put_text(object, "name", t->name) && p4_json_put_whole(object, "layer", t->layer) &&
             p4_json_put_whole(object, "rows", t->rows) && p4_json_put_whole(object, "cols", t->cols) &&
             cJSON_AddBoolToObject(object, "ternary", t->ternary) != NULL &&
             p4_json_put_reals(object, numbers, t->ternary ? sizeof numbers / sizeof numbers[0] : 1);
    }
    return ok;
}

static bool put_activations(cJSON *list, const p4_details *details)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < details->activation_count; i++) {
        const p4_activation_detail *a = &details->activations[i];
        const p4_json_real numbers[] = {{"mean", a->mean},
                                        {"std", a->std},
                                        {"min", a->min},
                                        {"max", a->max},
                                        {"input_peak", a->input_peak}};
        cJSON *object = append(list);
        ok = p4_json_put_text(object, "name", details->tensors[a->tensor].name) &&
             p4_json_put_reals(object, numbers, sizeof numbers / sizeof numbers[0]);
    }
    return ok;
}

static bool put_stages(cJSON *list, const p4_details *details, const p4_stage_detail *of_rank)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < details->stage_count; i++) {
        const p4_stage_detail *s = &of_rank[i];
        const p4_json_real numbers[] = {{"started_s", s->started_s},
                                        {"seconds", s->seconds},
                                        {"cpu_s", s->cpu_s},
                                        {"waited_s", s->waited_s}};
        cJSON *object = append(list);
        ok = p4_json_put_text(object, "stage", details->stage_names[i]) &&
             p4_json_put_reals(object, numbers, sizeof numbers / sizeof numbers[0]);
    }
    return ok;
}

static bool put_ranks(cJSON *list, const p4_details *details)
{
    bool ok = list != NULL;
    for (int64_t rank = 0; ok && rank < details->rank_count; rank++) {
        const p4_json_real peak = {"peak_memory_mb", details->peak_memory_mb[rank]};
        cJSON *object = append(list);
        ok = p4_json_put_whole(object, "rank", rank) && p4_json_put_reals(object, &peak, 1) &&
             put_stages(cJSON_AddArrayToObject(object, "stages"), details,
                        details->stages + rank * details->stage_count);
    }
    return ok;
}

p4_rc p4_details_store(const char *path, const p4_details *details)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = p4_json_put_text(root, "format", "phase4-details") &&
              p4_json_put_whole(root, "format_version", FORMAT_VERSION) &&
              put_tensors(cJSON_AddArrayToObject(root, "tensors"), details) &&
              put_activations(cJSON_AddArrayToObject(root, "activations"), details) &&
              put_ranks(cJSON_AddArrayToObject(root, "ranks"), details);
    char *json = p4_json_print(root, ok, false);
    p4_rc rc = json != NULL ? p4_atomic_write_all(path, json, strlen(json)) : P4_E_SYSTEM;
    free(json);
    return rc;
}
