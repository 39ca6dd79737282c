/* hf_config.c - config.json -> architecture: the keys that all families have. The reader of the family
 * (hf_readers.c) reads the others. */
#include <math.h>
#include <string.h>

#include "io/hf/hf_model.h"
#include "io/hf/hf_readers.h"
#include "io/json/read.h"
#include "io/json/write.h"

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

/* The language model described by an object of its own inside config.json, as the reference library writes a
 * model that also takes images. */
typedef struct container {
    const char *model_type, *key;
    const char *inner_type; /* the language model's family */
    p4_hf_reader outer;     /* its classes alone count */
} container;

static const container containers[] = {
    {"gemma3", "text_config", "gemma3_text", {.architectures = {"Gemma3ForConditionalGeneration"}}},
};

static const container *find_container(const char *model_type)
{
    for (size_t i = 0; model_type != NULL && i < sizeof containers / sizeof containers[0]; i++) {
        if (strcmp(containers[i].model_type, model_type) == 0) {
            return &containers[i];
        }
    }
    return NULL;
}

/* The original must be a model that its config.json alone describes: of a supported class, not quantized. */
static p4_rc check_original(const p4_hf_keys *keys, const p4_hf_reader *reader)
{
    p4_rc rc = P4_OK;
    const cJSON *quantization;
    TRY(check_class(keys, reader));
    TRY(p4_hf_find_key(keys, "quantization_config", &quantization));
    CHECK(quantization == NULL,
          "%s: the model is already quantized (quantization_config); give the original model", keys->source);
done:
    return rc;
}

/* Reads the object that describes the language model; outermost: its class counts. */
static p4_rc parse_family(p4_arch *arch, const p4_hf_keys *keys, const char *family, bool outermost)
{
    p4_rc rc = P4_OK;
    CHECK(family != NULL, "%s: required key \"%smodel_type\" is missing; supported: %s", keys->source,
          keys->inside, p4_supported_families());
    const p4_hf_reader *reader = p4_hf_reader_find(family);
    CHECK(reader != NULL, "%s: %smodel_type \"%.64s\" is not supported; supported: %s", keys->source,
          keys->inside, family, p4_supported_families());
    TRY(outermost ? check_original(keys, reader) : P4_OK);
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

/* An id of the outer object counts before the inner one's. */
static p4_rc read_outer_id(const p4_hf_keys *keys, const char *key, int64_t V, int32_t *id)
{
    const cJSON *item;
    p4_rc rc = p4_hf_find_key(keys, key, &item);
    return rc == P4_OK && item != NULL ? read_token_id(keys, key, V, id) : rc;
}

/* Whether the head is tied is said by the outer object. */
static p4_rc parse_container(p4_arch *arch, const p4_hf_keys *keys, const container *c)
{
    p4_rc rc = P4_OK;
    const char *family = c->inner_type;
    p4_hf_keys inner = {.source = keys->source, .inside = "text_config."};
    TRY(check_original(keys, &c->outer));
    TRY(p4_hf_find_key(keys, c->key, &inner.object));
    CHECK(cJSON_IsObject(inner.object), "%s: \"%s\" is %s, expected an object", keys->source, c->key,
          inner.object != NULL ? p4_hf_json_kind(inner.object) : "missing");
    TRY(p4_hf_read_word(&inner, "model_type", &family));
    CHECK(strcmp(family, c->inner_type) == 0, "%s: \"%smodel_type\" is \"%.64s\", expected \"%s\"",
          keys->source, inner.inside, family, c->inner_type);
    TRY(parse_family(arch, &inner, family, false));
    arch->tied = true;
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(read_outer_id(keys, "bos_token_id", arch->V, &arch->bos_id));
    TRY(read_outer_id(keys, "eos_token_id", arch->V, &arch->eos_id));
done:
    return rc;
}

static p4_rc parse_object(p4_arch *arch, const p4_hf_keys *keys)
{
    p4_rc rc = P4_OK;
    const char *family = NULL;
    TRY(p4_hf_read_word(keys, "model_type", &family));
    const container *c = find_container(family);
    TRY(c != NULL ? parse_container(arch, keys, c) : parse_family(arch, keys, family, true));
done:
    return rc;
}

/* Sets a key to a value that the caller made; NULL: no memory. */
static bool set(cJSON *object, const char *key, cJSON *value)
{
    cJSON_DeleteItemFromObjectCaseSensitive(object, key);
    return value != NULL && cJSON_AddItemToObject(object, key, value);
}

/* Gives the inner object the outer one's value of a key, unless that is absent or null. */
static bool inherit(cJSON *inner, const cJSON *outer, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(outer, key);
    return item == NULL || cJSON_IsNull(item) || set(inner, key, cJSON_Duplicate(item, true));
}

char *p4_hf_config_language_model(const char *json)
{
    static const char *const inherited[] = {"bos_token_id", "eos_token_id", "pad_token_id",
                                            "dtype",        "torch_dtype",  "transformers_version"};
    cJSON *root = cJSON_Parse(json);
    bool ok = root != NULL && p4_json_keep_numbers(root, json);
    const container *c =
        ok ? find_container(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "model_type")))
           : NULL;
    if (c == NULL) {
        cJSON_Delete(root);
        return ok ? p4_strdup(json) : p4_json_print(NULL, false, true);
    }
    cJSON *inner = cJSON_DetachItemFromObjectCaseSensitive(root, c->key);
    const cJSON *tied = cJSON_GetObjectItemCaseSensitive(root, "tie_word_embeddings");
    for (size_t i = 0; ok && i < sizeof inherited / sizeof inherited[0]; i++) {
        ok = inherit(inner, root, inherited[i]);
    }
    ok = ok && set(inner, "tie_word_embeddings", cJSON_CreateBool(!cJSON_IsFalse(tied))) &&
         set(inner, "model_type", cJSON_CreateString(c->inner_type)) &&
         set(inner, "architectures",
             cJSON_CreateStringArray(p4_hf_reader_find(c->inner_type)->architectures, 1));
    cJSON_Delete(root);
    return p4_json_print(inner, ok, true);
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
