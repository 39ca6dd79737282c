/* hf_config.c - config.json -> architecture: the keys that all families have. The reader of the family
 * (hf_readers.c) reads the others. */
#include <math.h>
#include <string.h>

#include "io/hf/hf_model.h"
#include "io/hf/hf_readers.h"
#include "io/json/read.h"

/* The id that begins or ends a text: a number, a list (its first entry counts) or null. An id outside the
 * vocabulary can never be an input of the network, so it counts as none. */
static p4_rc read_token_id(const p4_hf_keys *keys, const char *key, int64_t V, int32_t *id)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    *id = -1;
    TRY(p4_hf_find_key(keys, key, &item));
    item = cJSON_IsArray(item) ? item->child : item;
    if (item == NULL) {
        return P4_OK;
    }
    CHECK(cJSON_IsNumber(item), "%s: \"%s\" holds %s, expected a token id", keys->source, key,
          p4_hf_json_kind(item));
    double number = item->valuedouble;
    CHECK(number == floor(number) && number >= 0 && number <= INT32_MAX,
          "%s: \"%s\" is %.15g, expected a token id", keys->source, key, number);
    if (number >= (double)V) {
        WARN("%s: \"%s\" is %.0f, but the vocabulary has %lld tokens: taken as none", keys->source, key,
             number, (long long)V);
    } else {
        *id = (int32_t)number;
    }
done:
    return rc;
}

static bool is_class(const p4_hf_reader *reader, const char *name)
{
    for (int i = 0; i < 2; i++) {
        if (reader->architectures[i] != NULL && strcmp(name, reader->architectures[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* "architectures" may be absent. Classes that compute something else (a classifier, custom code) are refused.
 */
static p4_rc check_class(const p4_hf_keys *keys, const p4_hf_reader *reader)
{
    p4_rc rc = P4_OK;
    const cJSON *list;
    TRY(p4_hf_find_key(keys, "architectures", &list));
    const cJSON *first = cJSON_IsArray(list) ? list->child : list;
    if (first == NULL) {
        return P4_OK;
    }
    CHECK(cJSON_IsString(first), "%s: \"architectures\" holds %s, expected class names", keys->source,
          p4_hf_json_kind(first));
    CHECK(is_class(reader, first->valuestring), "%s: architecture \"%.64s\" is not supported, expected %s",
          keys->source, first->valuestring, reader->architectures[0]);
done:
    return rc;
}

static p4_rc parse_object(p4_arch *arch, const p4_hf_keys *keys)
{
    p4_rc rc = P4_OK;
    const char *family = NULL;
    const cJSON *quantization;
    TRY(p4_hf_read_word(keys, "model_type", &family));
    CHECK(family != NULL, "%s: required key \"model_type\" is missing; supported: %s", keys->source,
          p4_supported_families());
    const p4_hf_reader *reader = p4_hf_reader_find(family);
    CHECK(reader != NULL, "%s: model_type \"%.64s\" is not supported; supported: %s", keys->source, family,
          p4_supported_families());
    TRY(check_class(keys, reader));
    TRY(p4_hf_find_key(keys, "quantization_config", &quantization));
    CHECK(quantization == NULL,
          "%s: the model is already quantized (quantization_config); give the original model", keys->source);
    TRY(p4_hf_only_bool(keys, "add_cross_attention", false));
    TRY(p4_arch_init(arch, family));
    TRY(reader->read(keys, arch));
    if (arch->attention_scale == 0.0f) {
        arch->attention_scale = (float)(1 / sqrt((double)arch->D));
    }
    TRY(read_token_id(keys, "bos_token_id", arch->V, &arch->bos_id));
    TRY(read_token_id(keys, "eos_token_id", arch->V, &arch->eos_id));
done:
    return rc;
}

p4_rc p4_hf_config_parse(p4_arch *arch, const char *json, size_t json_bytes, const char *source)
{
    p4_rc rc = P4_OK;
    cJSON *root = NULL;
    *arch = (p4_arch){0};
    TRY(p4_json_read(&root, json, json_bytes, source));
    const p4_hf_keys keys = {root, source, ""};
    TRY(parse_object(arch, &keys));
    TRY(p4_arch_check(arch, source));
done:
    cJSON_Delete(root);
    return rc;
}
