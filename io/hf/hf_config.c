#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#include "io/hf/hf_model.h"

/* Numbers beyond these are no model; the limits keep every size computed from them far from overflow. */
enum {
    MAX_WIDTH = 1 << 22,
    MAX_LAYERS = 4096,
    MAX_HEADS = 1 << 16,
    MAX_VOCAB = 1 << 28,
    MAX_POSITIONS = 1 << 30
};

typedef struct reader {
    const cJSON *object;
    const char *source, *inside; /* `inside`: "rope_scaling." before the keys of that object, else "" */
} reader;

static const char *kind_of(const cJSON *item)
{
    return cJSON_IsString(item)   ? "a string"
           : cJSON_IsNumber(item) ? "a number"
           : cJSON_IsBool(item)   ? "true or false"
           : cJSON_IsArray(item)  ? "a list"
           : cJSON_IsObject(item) ? "an object"
                                  : "null";
}

/* *item: the key's value, NULL when it is absent or null. A key that comes twice is refused: readers differ
 * on which counts. */
static p4_rc look_up(const reader *from, const char *key, const cJSON **item)
{
    const cJSON *child;
    *item = NULL;
    int found = 0;
    cJSON_ArrayForEach(child, from->object)
    {
        if (strcmp(child->string, key) == 0) {
            *item = cJSON_IsNull(child) ? NULL : child;
            found++;
        }
    }
    return found <= 1 ? P4_OK
                      : FAIL("%s: key \"%s%s\" appears %d times", from->source, from->inside, key, found);
}

/* The read_ functions leave *value alone when the key is absent or null: it holds the default, or a need_
 * check follows. */
static p4_rc read_number(const reader *from, const char *key, double *value, double min, double max)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    TRY(look_up(from, key, &item));
    if (item == NULL) {
        return P4_OK;
    }
    CHECK(cJSON_IsNumber(item), "%s: \"%s%s\" is %s, expected a number", from->source, from->inside, key,
          kind_of(item));
    CHECK(item->valuedouble >= min && item->valuedouble <= max,
          "%s: \"%s%s\" is %.15g, expected %.15g to %.15g", from->source, from->inside, key,
          item->valuedouble, min, max);
    *value = item->valuedouble;
done:
    return rc;
}

static p4_rc read_int(const reader *from, const char *key, int64_t *value, int64_t min, int64_t max)
{
    p4_rc rc = P4_OK;
    double number = NAN;
    TRY(read_number(from, key, &number, (double)min, (double)max));
    if (isnan(number)) {
        return P4_OK;
    }
    CHECK(number == floor(number), "%s: \"%s%s\" is %.15g, expected a whole number", from->source,
          from->inside, key, number);
    *value = (int64_t)number;
done:
    return rc;
}

static p4_rc missing(const reader *from, const char *key)
{
    return FAIL("%s: required key \"%s%s\" is missing", from->source, from->inside, key);
}

static p4_rc need_number(const reader *from, const char *key, double *value, double min, double max)
{
    *value = NAN;
    p4_rc rc = read_number(from, key, value, min, max);
    return rc == P4_OK && isnan(*value) ? missing(from, key) : rc;
}

static p4_rc need_int(const reader *from, const char *key, int64_t *value, int64_t max)
{
    *value = 0;
    p4_rc rc = read_int(from, key, value, 1, max);
    return rc == P4_OK && *value == 0 ? missing(from, key) : rc;
}

static p4_rc read_bool(const reader *from, const char *key, bool *value)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    TRY(look_up(from, key, &item));
    if (item == NULL) {
        return P4_OK;
    }
    CHECK(cJSON_IsBool(item), "%s: \"%s%s\" is %s, expected true or false", from->source, from->inside, key,
          kind_of(item));
    *value = cJSON_IsTrue(item);
done:
    return rc;
}

static p4_rc read_word(const reader *from, const char *key, const char **value)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    TRY(look_up(from, key, &item));
    if (item == NULL) {
        return P4_OK;
    }
    CHECK(cJSON_IsString(item), "%s: \"%s%s\" is %s, expected a string", from->source, from->inside, key,
          kind_of(item));
    *value = item->valuestring;
done:
    return rc;
}

/* A switch that the network here does not have: absent or `wanted`. */
static p4_rc refuse_unless(const reader *from, const char *key, bool wanted)
{
    bool value = wanted;
    p4_rc rc = read_bool(from, key, &value);
    if (rc == P4_OK && value != wanted) {
        rc = FAIL("%s: \"%s\" is %s, supported is only %s", from->source, key, value ? "true" : "false",
                  wanted ? "true" : "false");
    }
    return rc;
}

/* Absent, or one of `count` words. */
static p4_rc refuse_unless_word(const reader *from, const char *key, const char *const *words, int count)
{
    p4_rc rc = P4_OK;
    const char *value = words[0];
    TRY(read_word(from, key, &value));
    for (int i = 0; i < count; i++) {
        if (strcmp(value, words[i]) == 0) {
            return P4_OK;
        }
    }
    rc = FAIL("%s: \"%s\" is \"%.64s\", supported: %s%s%s", from->source, key, value, words[0],
              count > 1 ? ", " : "", count > 1 ? words[1] : "");
done:
    return rc;
}

/* Beginning and end of text: a number, a list (its first counts) or null. An id outside the vocabulary can
 * never be fed to the network, so it counts as none. */
static p4_rc read_token_id(const reader *from, const char *key, int64_t V, int32_t *id)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    *id = -1;
    TRY(look_up(from, key, &item));
    item = cJSON_IsArray(item) ? item->child : item;
    if (item == NULL) {
        return P4_OK;
    }
    CHECK(cJSON_IsNumber(item), "%s: \"%s\" holds %s, expected a token id", from->source, key, kind_of(item));
    double number = item->valuedouble;
    CHECK(number == floor(number) && number >= 0 && number <= INT32_MAX,
          "%s: \"%s\" is %.15g, expected a token id", from->source, key, number);
    if (number >= (double)V) {
        WARN("%s: \"%s\" is %.0f, but the vocabulary has %lld tokens: taken as none", from->source, key,
             number, (long long)V);
    } else {
        *id = (int32_t)number;
    }
done:
    return rc;
}

/* ---- Rotary positions
 * --------------------------------------------------------------------------------------------- */

static p4_rc read_llama3(const reader *from, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    int64_t original;
    arch->rope_scaling = P4_ROPE_LLAMA3;
    TRY(need_number(from, "factor", &arch->rope_factor, 1, 1e6));
    TRY(need_number(from, "low_freq_factor", &arch->rope_low_freq_factor, 1e-6, 1e6));
    TRY(need_number(from, "high_freq_factor", &arch->rope_high_freq_factor, 1e-6, 1e6));
    TRY(need_int(from, "original_max_position_embeddings", &original, MAX_POSITIONS));
    CHECK(arch->rope_high_freq_factor > arch->rope_low_freq_factor,
          "%s: \"%shigh_freq_factor\" is %g, expected above low_freq_factor, %g", from->source, from->inside,
          arch->rope_high_freq_factor, arch->rope_low_freq_factor);
    arch->rope_original_positions = (double)original;
done:
    return rc;
}

/* One object holds it all in newer files ("rope_parameters"), in older ones "rope_scaling" beside
 * "rope_theta"; when both are there the newer one counts, and a theta inside the object counts over the one
 * beside it. */
static p4_rc read_rope(const reader *config, p4_arch *arch)
{
    static const char *const holders[] = {"rope_parameters", "rope_scaling"};
    p4_rc rc = P4_OK;
    const cJSON *object = NULL, *child;
    reader from = {NULL, config->source, "rope_parameters."};
    const char *type = "default";
    double partial = 1;
    arch->rope_theta = 1e4;
    TRY(read_number(config, "rope_theta", &arch->rope_theta, 1, 1e12));
    for (int i = 0; i < 2 && object == NULL; i++) {
        TRY(look_up(config, holders[i], &object));
        from.inside = i == 0 ? "rope_parameters." : "rope_scaling.";
        CHECK(object == NULL || cJSON_IsObject(object), "%s: \"%s\" is %s, expected an object",
              config->source, holders[i], kind_of(object));
    }
    if (object == NULL) {
        return P4_OK;
    }
    from.object = object;
    cJSON_ArrayForEach(child, object)
    {
        CHECK(!cJSON_IsObject(child),
              "%s: \"%s%.64s\": rotary positions that differ by layer are not supported", config->source,
              from.inside, child->string);
    }
    TRY(read_word(&from, "type", &type));
    TRY(read_word(&from, "rope_type", &type));
    TRY(read_number(&from, "rope_theta", &arch->rope_theta, 1, 1e12));
    TRY(read_number(&from, "partial_rotary_factor", &partial, 0, 1));
    CHECK(partial == 1, "%s: \"%spartial_rotary_factor\" is %g, supported is only 1", config->source,
          from.inside, partial);
    if (strcmp(type, "linear") == 0) {
        arch->rope_scaling = P4_ROPE_LINEAR;
        rc = need_number(&from, "factor", &arch->rope_factor, 1, 1e6);
    } else if (strcmp(type, "llama3") == 0) {
        rc = read_llama3(&from, arch);
    } else if (strcmp(type, "default") != 0) {
        rc = FAIL("%s: rotary scaling \"%.64s\" is not supported; supported: default, linear, llama3",
                  config->source, type);
    }
done:
    return rc;
}

/* ---- Families
 * ----------------------------------------------------------------------------------------------------- */

static p4_rc read_llama(const reader *from, p4_arch *arch)
{
    static const char *const activations[] = {"silu"};
    p4_rc rc = P4_OK;
    double eps;
    int64_t parallel = 1;
    TRY(need_int(from, "vocab_size", &arch->V, MAX_VOCAB));
    TRY(need_int(from, "hidden_size", &arch->C, MAX_WIDTH));
    TRY(need_int(from, "num_hidden_layers", &arch->L, MAX_LAYERS));
    TRY(need_int(from, "num_attention_heads", &arch->H, MAX_HEADS));
    TRY(need_int(from, "intermediate_size", &arch->F, MAX_WIDTH));
    TRY(need_int(from, "max_position_embeddings", &arch->positions, MAX_POSITIONS));
    TRY(need_number(from, "rms_norm_eps", &eps, 1e-12, 1));
    arch->norm_eps = (float)eps;
    arch->Hkv = arch->H;
    TRY(read_int(from, "num_key_value_heads", &arch->Hkv, 1, MAX_HEADS));
    TRY(read_int(from, "head_dim", &arch->D, 1, MAX_HEADS));
    if (arch->D == 0) {
        CHECK(arch->C % arch->H == 0,
              "%s: hidden_size %lld is not a multiple of num_attention_heads %lld, and there is no head_dim",
              from->source, (long long)arch->C, (long long)arch->H);
        arch->D = arch->C / arch->H;
    }
    TRY(read_bool(from, "attention_bias", &arch->qkv_bias));
    arch->o_bias = arch->qkv_bias;
    TRY(read_bool(from, "mlp_bias", &arch->mlp_bias));
    TRY(read_bool(from, "tie_word_embeddings", &arch->tied));
    TRY(read_rope(from, arch));
    TRY(refuse_unless_word(from, "hidden_act", activations, 1));
    TRY(read_int(from, "pretraining_tp", &parallel, 0, MAX_HEADS));
    CHECK(parallel == 1, "%s: \"pretraining_tp\" is %lld, supported is only 1", from->source,
          (long long)parallel);
done:
    return rc;
}

static p4_rc read_gpt2(const reader *from, p4_arch *arch)
{
    static const char *const activations[] = {"gelu_new", "gelu_pytorch_tanh"};
    p4_rc rc = P4_OK;
    double eps = 1e-5;
    TRY(need_int(from, "vocab_size", &arch->V, MAX_VOCAB));
    TRY(need_int(from, "n_embd", &arch->C, MAX_WIDTH));
    TRY(need_int(from, "n_layer", &arch->L, MAX_LAYERS));
    TRY(need_int(from, "n_head", &arch->H, MAX_HEADS));
    TRY(need_int(from, "n_positions", &arch->positions, MAX_POSITIONS));
    arch->F = 4 * arch->C;
    TRY(read_int(from, "n_inner", &arch->F, 1, MAX_WIDTH));
    TRY(read_number(from, "layer_norm_epsilon", &eps, 1e-12, 1));
    arch->norm_eps = (float)eps;
    CHECK(arch->C % arch->H == 0, "%s: n_embd %lld is not a multiple of n_head %lld", from->source,
          (long long)arch->C, (long long)arch->H);
    arch->Hkv = arch->H;
    arch->D = arch->C / arch->H;
    arch->tied = true;
    TRY(read_bool(from, "tie_word_embeddings", &arch->tied));
    TRY(refuse_unless_word(from, "activation_function", activations, 2));
    TRY(refuse_unless(from, "scale_attn_weights", true));
    TRY(refuse_unless(from, "scale_attn_by_inverse_layer_idx", false));
    TRY(refuse_unless(from, "reorder_and_upcast_attn", false));
done:
    return rc;
}

static const struct {
    const char *name;
    p4_rc (*read)(const reader *from, p4_arch *arch);
    const char *architectures[2];
} families[] = {
    {"llama", read_llama, {"LlamaForCausalLM", "LLaMAForCausalLM"}},
    {"gpt2", read_gpt2, {"GPT2LMHeadModel", "GPT2Model"}},
};

/* "architectures" may be absent; a class that computes something else (a classifier, custom code) is refused.
 */
static p4_rc check_class(const reader *from, const char *const names[2])
{
    p4_rc rc = P4_OK;
    const cJSON *list;
    TRY(look_up(from, "architectures", &list));
    const cJSON *first = cJSON_IsArray(list) ? list->child : list;
    if (first == NULL) {
        return P4_OK;
    }
    CHECK(cJSON_IsString(first), "%s: \"architectures\" holds %s, expected class names", from->source,
          kind_of(first));
    CHECK(strcmp(first->valuestring, names[0]) == 0 || strcmp(first->valuestring, names[1]) == 0,
          "%s: architecture \"%.64s\" is not supported, expected %s", from->source, first->valuestring,
          names[0]);
done:
    return rc;
}

static p4_rc parse_object(p4_arch *arch, const reader *from)
{
    p4_rc rc = P4_OK;
    const char *family = NULL;
    const cJSON *quantization;
    TRY(read_word(from, "model_type", &family));
    CHECK(family != NULL, "%s: required key \"model_type\" is missing; supported: %s", from->source,
          p4_supported_families());
    size_t f = 0, count = sizeof families / sizeof families[0];
    while (f < count && strcmp(families[f].name, family) != 0) {
        f++;
    }
    CHECK(f < count, "%s: model_type \"%.64s\" is not supported; supported: %s", from->source, family,
          p4_supported_families());
    TRY(check_class(from, families[f].architectures));
    TRY(look_up(from, "quantization_config", &quantization));
    CHECK(quantization == NULL,
          "%s: the model is already quantized (quantization_config); give the original model", from->source);
    TRY(refuse_unless(from, "add_cross_attention", false));
    TRY(p4_arch_init(arch, families[f].name));
    TRY(families[f].read(from, arch));
    arch->attention_scale = (float)(1 / sqrt((double)arch->D));
    TRY(read_token_id(from, "bos_token_id", arch->V, &arch->bos_id));
    TRY(read_token_id(from, "eos_token_id", arch->V, &arch->eos_id));
done:
    return rc;
}

p4_rc p4_hf_config_parse(p4_arch *arch, const char *json, size_t json_bytes, const char *source)
{
    p4_rc rc = P4_OK;
    const char *end = json;
    *arch = (p4_arch){0};
    cJSON *root = cJSON_ParseWithLengthOpts(json, json_bytes, &end, false);
    CHECK(root != NULL, "%s: not JSON, at byte %td", source, end - json);
    while (end < json + json_bytes && memchr(" \t\r\n", *end, 4) != NULL) {
        end++;
    }
    CHECK(end >= json + json_bytes, "%s: text after the JSON value, at byte %td", source, end - json);
    CHECK(cJSON_IsObject(root), "%s: holds %s, expected an object", source, kind_of(root));
    const reader from = {root, source, ""};
    TRY(parse_object(arch, &from));
    TRY(p4_arch_check(arch, source));
done:
    cJSON_Delete(root);
    return rc;
}
