#include "io/out/experts_json.h"

#include <math.h>

#include "io/json/write.h"
#include "io/out/report.h"

double p4_expert_loads_extreme(const p4_expert_loads *loads, int64_t layer, bool largest)
{
    double sum = 0, extreme = NAN;
    for (int64_t e = 0; loads->tokens != NULL && e < loads->experts; e++) {
        double tokens = loads->tokens[layer * loads->experts + e];
        sum += tokens;
        extreme = e == 0 ? tokens : largest ? fmax(extreme, tokens) : fmin(extreme, tokens);
    }
    return sum > 0 ? extreme / sum * (double)loads->experts : NAN;
}

static bool put_layer(cJSON *list, const p4_expert_loads *loads, int64_t layer)
{
    int64_t unused = 0;
    cJSON *object = cJSON_CreateObject(), *tokens = cJSON_AddArrayToObject(object, "tokens");
    bool ok = tokens != NULL && p4_json_put_whole(object, "layer", layer);
    for (int64_t e = 0; ok && e < loads->experts; e++) {
        double count = loads->tokens[layer * loads->experts + e];
        cJSON *item = cJSON_CreateNumber(count);
        unused += count == 0;
        ok = item != NULL && cJSON_AddItemToArray(tokens, item);
    }
    const p4_json_real extremes[] = {{"least", p4_expert_loads_extreme(loads, layer, false)},
                                     {"most", p4_expert_loads_extreme(loads, layer, true)}};
    ok = ok && p4_json_put_whole(object, "unused", unused) && p4_json_put_reals(object, extremes, 2) &&
         cJSON_AddItemToArray(list, object);
    if (!ok) {
        cJSON_Delete(object);
    }
    return ok;
}

static bool put_all(cJSON *object, const p4_expert_loads *loads)
{
    bool ok = object != NULL && p4_json_put_whole(object, "experts", loads->experts) &&
              p4_json_put_whole(object, "experts_per_token", loads->used);
    if (loads->tokens == NULL) {
        return ok && cJSON_AddNullToObject(object, "unused") != NULL &&
               cJSON_AddNullToObject(object, "layers") != NULL;
    }
    cJSON *list = cJSON_AddArrayToObject(object, "layers");
    ok = ok && list != NULL && p4_json_put_whole(object, "unused", loads->unused);
    for (int64_t l = 0; ok && l < loads->layers; l++) {
        bool has =
            !isnan(p4_expert_loads_extreme(loads, l, true)); /* a layer without experts has no tokens */
        ok = !has || put_layer(list, loads, l);
    }
    return ok;
}

bool p4_json_put_experts(cJSON *object, const char *key, const p4_expert_loads *loads)
{
    return loads->experts == 0 ? cJSON_AddNullToObject(object, key) != NULL
                               : put_all(cJSON_AddObjectToObject(object, key), loads);
}

p4_rc p4_expert_loads_print(const p4_expert_loads *loads, char **json)
{
    cJSON *root = cJSON_CreateObject();
    *json = p4_json_print(root, put_all(root, loads), false);
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}
