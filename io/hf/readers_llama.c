/* readers_llama.c - config.json of the families with RMSNorm and a gated MLP. */
#include "io/hf/readers.h"

/* What follows the sizes in all of them. */
static p4_rc read_common(const p4_hf_keys *keys, const p4_hf_rope_facts *rope, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_activation(keys, "hidden_act", arch));
    TRY(p4_hf_read_rope(keys, rope, arch));
done:
    return rc;
}

/* pretraining_tp is not read: it splits products into slices, whose sum is the same network. */
static p4_rc read_llama(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {.positions = 2048, .eps = 1e-6, .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(p4_hf_read_bool(keys, "mlp_bias", &arch->mlp_bias));
    TRY(read_common(keys, &(p4_hf_rope_facts){0}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_llama = {{"LlamaForCausalLM", "LLaMAForCausalLM"}, read_llama};

/* Of Qwen: a window is given, but counts only if it is switched on, and then from layer max_window_layers on.
 * Newer files name each layer's kind instead. */
static p4_rc read_qwen_windows(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    p4_layer_set sliding = {0};
    bool on = false;
    int64_t window, first = 28;
    TRY(p4_hf_read_bool(keys, "use_sliding_window", &on));
    TRY(p4_hf_read_window(keys, 4096, &window));
    TRY(p4_hf_read_int(keys, "max_window_layers", &first, 0, P4_HF_LAYERS_MAX));
    if (on && window > 0) {
        p4_hf_add_layers(&sliding, arch, first, 0);
    }
    TRY(p4_hf_read_layer_types(keys, arch, on ? window : 0, &sliding));
done:
    return rc;
}

static p4_rc read_qwen2(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {
        .positions = 32768, .kv_heads = 32, .eps = 1e-6, .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(read_qwen_windows(keys, arch));
    TRY(read_common(keys, &(p4_hf_rope_facts){0}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_qwen2 = {{"Qwen2ForCausalLM"}, read_qwen2};

/* The window is that of all layers; the reference library takes no notice of layer_types. */
static p4_rc read_mistral(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {
        .positions = 131072, .kv_heads = 8, .eps = 1e-6, .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_window(keys, 4096, &arch->window));
    TRY(read_common(keys, &(p4_hf_rope_facts){0}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_mistral = {{"MistralForCausalLM"}, read_mistral};

static p4_rc read_qwen3(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {
        .positions = 32768, .kv_heads = 32, .head_dim = 128, .eps = 1e-6, .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(read_qwen_windows(keys, arch));
    TRY(read_common(keys, &(p4_hf_rope_facts){0}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_qwen3 = {{"Qwen3ForCausalLM"}, read_qwen3};

static p4_rc read_phi3(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {.positions = 4096, .eps = 1e-5, .eps_key = "rms_norm_eps"};
    static const p4_hf_rope_facts rope = {
        .partial_key = "partial_rotary_factor", .original_positions = 4096, .longrope_names = true};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_window(keys, 0, &arch->window));
    TRY(read_common(keys, &rope, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_phi3 = {{"Phi3ForCausalLM"}, read_phi3};

static p4_rc read_olmo2(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {.positions = 2048, .eps = 1e-5, .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(read_common(keys, &(p4_hf_rope_facts){0}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_olmo2 = {{"Olmo2ForCausalLM"}, read_olmo2};

/* Three of four layers have the window. Rotary scaling is of the others alone. A theta in the older style is
 * that of all layers in version 4 of the reference library, and of the others alone in version 5: only the
 * theta that is also the class's means one thing. */
static p4_rc read_olmo3(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {.positions = 2048, .eps = 1e-5, .eps_key = "rms_norm_eps"};
    static const p4_hf_rope_facts rope = {
        .theta = 5e5, .windowed_theta_key = "rope_theta", .windowed_theta = 5e5};
    p4_rc rc = P4_OK;
    p4_layer_set sliding = {0};
    int64_t window;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_attention_bias(keys, arch));
    p4_hf_add_layers(&sliding, arch, 0, 4);
    TRY(p4_hf_read_window(keys, 4096, &window));
    TRY(p4_hf_read_layer_types(keys, arch, window, &sliding));
    TRY(p4_hf_only_number(keys, "rope_theta", 5e5, 1, 1e12));
    TRY(read_common(keys, &rope, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_olmo3 = {{"Olmo3ForCausalLM"}, read_olmo3};

/* Layers without rotary positions: those with 0 in no_rope_layers or, without that list, every
 * no_rope_layer_interval-th. *unrotated gets them. */
static p4_rc read_unrotated(const p4_hf_keys *keys, const p4_arch *arch, p4_layer_set *unrotated)
{
    p4_rc rc = P4_OK;
    const cJSON *list, *item;
    int64_t interval = 4, layer = 0;
    TRY(p4_hf_read_int(keys, "no_rope_layer_interval", &interval, 1, P4_HF_LAYERS_MAX));
    TRY(p4_hf_find_key(keys, "no_rope_layers", &list));
    for (int64_t l = interval - 1; list == NULL && l < arch->L; l += interval) {
        p4_layer_set_add(unrotated, l);
    }
    CHECK(list == NULL || (cJSON_IsArray(list) && cJSON_GetArraySize(list) >= arch->L),
          "%s: \"no_rope_layers\" is %s, expected a list of %lld numbers, one for each layer", keys->source,
          cJSON_IsArray(list) ? "a shorter list" : p4_hf_json_kind(list), (long long)arch->L);
    cJSON_ArrayForEach(item, list)
    {
        CHECK(cJSON_IsNumber(item) && (item->valuedouble == 0 || item->valuedouble == 1),
              "%s: \"no_rope_layers\": expected 0 or 1 for layer %lld", keys->source, (long long)layer);
        if (item->valuedouble == 0 && layer < arch->L) {
            p4_layer_set_add(unrotated, layer);
        }
        layer++;
    }
done:
    return rc;
}

/* Layers without rotary positions have the window, if one is switched on. */
static p4_rc read_smollm3(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {
        .positions = 32768, .kv_heads = 4, .eps = 1e-6, .eps_key = "rms_norm_eps"};
    static const p4_layer_set none;
    p4_rc rc = P4_OK;
    bool on = false;
    int64_t window;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(p4_hf_read_bool(keys, "mlp_bias", &arch->mlp_bias));
    TRY(read_unrotated(keys, arch, &arch->unrotated));
    for (int64_t l = 0; l < arch->L; l++) {
        arch->some_unrotated = arch->some_unrotated || p4_layer_set_has(&arch->unrotated, l);
    }
    TRY(p4_hf_read_bool(keys, "use_sliding_window", &on));
    TRY(p4_hf_read_window(keys, 0, &window));
    window = on ? window : 0;
    TRY(p4_hf_read_layer_types(keys, arch, window, window > 0 ? &arch->unrotated : &none));
    arch->tied = true;
    TRY(read_common(keys, &(p4_hf_rope_facts){.theta = 2e6}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_smollm3 = {{"SmolLM3ForCausalLM"}, read_smollm3};

/* Four factors: of embeddings, attention scores (instead of 1/sqrt(D)), outputs of attention and MLP, and,
 * as a divisor, of logits. */
static p4_rc read_granite(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {.positions = 2048, .eps = 1e-6, .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    double scores = 1, divisor = 1;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(p4_hf_read_bool(keys, "mlp_bias", &arch->mlp_bias));
    TRY(p4_hf_read_scale(keys, "embedding_multiplier", &arch->embedding_scale));
    TRY(p4_hf_read_scale(keys, "residual_multiplier", &arch->residual_scale));
    TRY(p4_hf_read_number(keys, "attention_multiplier", &scores, 1e-12, 1e12));
    arch->attention_scale = (float)scores;
    TRY(p4_hf_read_number(keys, "logits_scaling", &divisor, 1e-12, 1e12));
    arch->logit_scale = divisor == 1 ? 0.0f : (float)(1 / divisor);
    TRY(read_common(keys, &(p4_hf_rope_facts){0}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_granite = {{"GraniteForCausalLM"}, read_granite};
