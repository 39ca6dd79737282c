#include "io/hf/readers.h"

#include <stdio.h>
#include <string.h>

/* A key that a file must have unless its class has a default. */
static p4_rc read_or_need(const p4_hf_keys *keys, const char *key, int64_t absent, int64_t *value,
                          int64_t max)
{
    *value = absent;
    return absent > 0 ? p4_hf_read_int(keys, key, value, 1, max) : p4_hf_need_int(keys, key, value, max);
}

p4_rc p4_hf_read_sizes(const p4_hf_keys *keys, p4_arch *arch, const p4_hf_sizes *absent)
{
    p4_rc rc = P4_OK;
    double eps = absent->eps;
    TRY(read_or_need(keys, "vocab_size", absent->vocab, &arch->V, P4_HF_VOCAB_MAX));
    TRY(p4_hf_need_int(keys, "hidden_size", &arch->C, P4_HF_WIDTH_MAX));
    TRY(p4_hf_need_int(keys, "num_hidden_layers", &arch->L, P4_HF_LAYERS_MAX));
    TRY(read_or_need(keys, "num_attention_heads", absent->heads, &arch->H, P4_HF_HEADS_MAX));
    TRY(p4_hf_need_int(keys, "intermediate_size", &arch->F, P4_HF_WIDTH_MAX));
    arch->positions = absent->positions;
    TRY(p4_hf_read_int(keys, "max_position_embeddings", &arch->positions, 1, P4_HF_POSITIONS_MAX));
    TRY(p4_hf_read_number(keys, absent->eps_key, &eps, 1e-12, 1));
    arch->norm_eps = (float)eps;
    arch->Hkv =
        absent->kv_heads == 0 || p4_hf_is_null(keys, "num_key_value_heads") ? arch->H : absent->kv_heads;
    TRY(p4_hf_read_int(keys, "num_key_value_heads", &arch->Hkv, 1, P4_HF_HEADS_MAX));
    CHECK(absent->head_dim == 0 || !p4_hf_is_null(keys, "head_dim"),
          "%s: \"%shead_dim\" is null, expected a number", keys->source, keys->inside);
    arch->D = absent->head_dim;
    TRY(p4_hf_read_int(keys, "head_dim", &arch->D, 1, P4_HF_HEADS_MAX));
    if (arch->D == 0) {
        CHECK(arch->C % arch->H == 0,
              "%s: hidden_size %lld is not a multiple of num_attention_heads %lld, and there is no head_dim",
              keys->source, (long long)arch->C, (long long)arch->H);
        arch->D = arch->C / arch->H;
    }
done:
    return rc;
}

p4_rc p4_hf_read_activation(const p4_hf_keys *keys, const char *key, p4_arch *arch)
{
    static const struct {
        const char *name;
        p4_activation function;
    } functions[] = {
        {"silu", P4_SILU},
        {"swish", P4_SILU},
        {"gelu", P4_GELU_ERF},
        {"gelu_python", P4_GELU_ERF},
        {"gelu_new", P4_GELU_TANH},
        {"gelu_pytorch_tanh", P4_GELU_TANH},
        {"gelu_python_tanh", P4_GELU_TANH},
        {"gelu_fast", P4_GELU_TANH},
        {"gelu_accurate", P4_GELU_TANH},
        {"relu", P4_RELU},
        {"relu2", P4_RELU_SQ},
    };
    p4_rc rc = P4_OK;
    char supported[192] = "";
    const char *name = NULL;
    TRY(p4_hf_read_word(keys, key, &name));
    if (name == NULL) {
        return P4_OK;
    }
    for (size_t i = 0, used = 0; i < sizeof functions / sizeof functions[0]; i++) {
        if (strcmp(functions[i].name, name) == 0) {
            arch->activation = functions[i].function;
            return P4_OK;
        }
        used += (size_t)snprintf(supported + used, sizeof supported - used, "%s%s", i > 0 ? ", " : "",
                                 functions[i].name);
    }
    rc = FAIL("%s: \"%s%s\" is \"%.64s\", supported: %s", keys->source, keys->inside, key, name, supported);
done:
    return rc;
}

p4_rc p4_hf_read_attention_bias(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = p4_hf_read_bool(keys, "attention_bias", &arch->qkv_bias);
    arch->o_bias = arch->qkv_bias;
    return rc;
}

p4_rc p4_hf_read_scale(const p4_hf_keys *keys, const char *key, float *scale)
{
    double value = 1;
    p4_rc rc = p4_hf_read_number(keys, key, &value, 1e-12, 1e12);
    *scale = value == 1 ? 0.0f : (float)value;
    return rc;
}

p4_rc p4_hf_read_cap(const p4_hf_keys *keys, const char *key, float *cap)
{
    double value = p4_hf_is_null(keys, key) ? 0 : (double)*cap;
    p4_rc rc = p4_hf_read_number(keys, key, &value, 1e-6, 1e12);
    *cap = (float)value;
    return rc;
}

p4_rc p4_hf_read_window(const p4_hf_keys *keys, int64_t absent, int64_t *window)
{
    *window = p4_hf_is_null(keys, "sliding_window") ? 0 : absent;
    return p4_hf_read_int(keys, "sliding_window", window, 1, P4_HF_POSITIONS_MAX);
}

void p4_hf_add_layers(p4_layer_set *set, const p4_arch *arch, int64_t first, int64_t period)
{
    for (int64_t l = first; l < arch->L; l++) {
        if (period == 0 || (l + 1) % period != 0) {
            p4_layer_set_add(set, l);
        }
    }
}

/* *named = the layers that a list of layer_types calls sliding. */
static p4_rc read_types(const p4_hf_keys *keys, const cJSON *list, const p4_arch *arch, p4_layer_set *named)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    int64_t layer = 0;
    *named = (p4_layer_set){0};
    CHECK(cJSON_IsArray(list) && cJSON_GetArraySize(list) == arch->L,
          "%s: \"%slayer_types\" is %s, expected a list of %lld words, one for each layer", keys->source,
          keys->inside, cJSON_IsArray(list) ? "a list of another length" : p4_hf_json_kind(list),
          (long long)arch->L);
    cJSON_ArrayForEach(item, list)
    {
        const char *word = cJSON_IsString(item) ? item->valuestring : p4_hf_json_kind(item);
        bool sliding = strcmp(word, "sliding_attention") == 0;
        CHECK(sliding || strcmp(word, "full_attention") == 0,
              "%s: \"%slayer_types\": layer %lld is \"%.64s\", supported: full_attention, sliding_attention",
              keys->source, keys->inside, (long long)layer, word);
        if (sliding) {
            p4_layer_set_add(named, layer);
        }
        layer++;
    }
done:
    return rc;
}

p4_rc p4_hf_read_layer_types(const p4_hf_keys *keys, p4_arch *arch, int64_t window,
                             const p4_layer_set *sliding)
{
    p4_rc rc = P4_OK;
    const cJSON *list;
    p4_layer_set set = *sliding;
    int64_t count = 0;
    TRY(p4_hf_find_key(keys, "layer_types", &list));
    if (list != NULL) {
        TRY(read_types(keys, list, arch, &set));
    }
    for (int64_t l = 0; l < arch->L; l++) {
        if (p4_layer_set_has(&set, l)) {
            count++;
        } else {
            p4_layer_set_add(&arch->global, l);
        }
    }
    CHECK(count == 0 || window > 0,
          "%s: %lld layers have sliding-window attention, but sliding_window gives no window", keys->source,
          (long long)count);
    arch->window = count > 0 ? window : 0;
    arch->some_global = count > 0 && count < arch->L;
done:
    return rc;
}
