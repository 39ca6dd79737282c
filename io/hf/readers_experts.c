/* readers_experts.c - config.json of mixtures of experts. A token goes through some of several gated MLPs.
 *
 * router_aux_loss_coef is not read: it weighs a loss for balance that the reference library adds only when
 * output_router_logits asks for it, in training from scratch. router_jitter_noise is not read either: it is
 * noise of training, as dropout is. */
#include <math.h>

#include "io/hf/readers.h"

/* Layers without experts: those in mlp_only_layers, and all but every decoder_sparse_step-th. Numbers that
 * are no layer's have no effect in the reference library either. */
static p4_rc read_dense(const p4_hf_keys *keys, const p4_arch *arch, p4_layer_set *dense)
{
    p4_rc rc = P4_OK;
    const cJSON *list, *item;
    int64_t step = 1;
    TRY(p4_hf_read_int(keys, "decoder_sparse_step", &step, 1, P4_HF_LAYERS_MAX));
    for (int64_t l = 0; l < arch->L; l++) {
        if ((l + 1) % step != 0) {
            p4_layer_set_add(dense, l);
        }
    }
    TRY(p4_hf_find_key(keys, "mlp_only_layers", &list));
    CHECK(list == NULL || cJSON_IsArray(list), "%s: \"mlp_only_layers\" is %s, expected a list of layers",
          keys->source, p4_hf_json_kind(list));
    cJSON_ArrayForEach(item, list)
    {
        CHECK(cJSON_IsNumber(item) && item->valuedouble == floor(item->valuedouble),
              "%s: \"mlp_only_layers\" holds %s, expected numbers of layers", keys->source,
              cJSON_IsNumber(item) ? "a fraction" : p4_hf_json_kind(item));
        if (item->valuedouble >= 0 && item->valuedouble < (double)arch->L) {
            p4_layer_set_add(dense, (int64_t)item->valuedouble);
        }
    }
done:
    return rc;
}

/* Sets what follows from the layers without experts, of MLP width `width`; a model of these alone has none.
 */
static void divide_layers(p4_arch *arch, const p4_layer_set *dense, int64_t width)
{
    int64_t count = 0;
    for (int64_t l = 0; l < arch->L; l++) {
        count += p4_layer_set_has(dense, l);
    }
    if (count == arch->L) {
        arch->experts = arch->experts_used = 0;
        arch->normed_shares = false;
        arch->F = width;
    } else if (count > 0) {
        arch->dense = *dense;
        arch->dense_width = width;
    }
}

/* How many there are stands under `key` in most files, and under `other` in some. */
static p4_rc read_experts(const p4_hf_keys *keys, p4_arch *arch, const char *key, const char *other,
                          int64_t absent, int64_t used)
{
    p4_rc rc = P4_OK;
    arch->experts = absent;
    arch->experts_used = used;
    TRY(p4_hf_read_int(keys, other, &arch->experts, 1, P4_HF_HEADS_MAX));
    TRY(p4_hf_read_int(keys, key, &arch->experts, 1, P4_HF_HEADS_MAX));
    TRY(p4_hf_read_int(keys, "num_experts_per_tok", &arch->experts_used, 1, P4_HF_HEADS_MAX));
done:
    return rc;
}

/* What follows in all of them. */
static p4_rc read_common(const p4_hf_keys *keys, double theta, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_activation(keys, "hidden_act", arch));
    TRY(p4_hf_read_rope(keys, &(p4_hf_rope_facts){.theta = theta}, arch));
done:
    return rc;
}

/* intermediate_size is that of layers without experts. The window, if it is switched on, is that of all
 * layers. */
static p4_rc read_qwen3_moe(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {
        .positions = 32768, .kv_heads = 4, .eps = 1e-6, .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    p4_layer_set dense = {{0}};
    bool windows = false;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    int64_t dense_width = arch->F;
    arch->F = 768;
    TRY(p4_hf_read_int(keys, "moe_intermediate_size", &arch->F, 1, P4_HF_WIDTH_MAX));
    TRY(read_dense(keys, arch, &dense));
    TRY(read_experts(keys, arch, "num_experts", "num_local_experts", 128, 8));
    TRY(p4_hf_read_bool(keys, "norm_topk_prob", &arch->normed_shares));
    divide_layers(arch, &dense, dense_width);
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(p4_hf_read_bool(keys, "use_sliding_window", &windows));
    TRY(p4_hf_read_window(keys, 4096, &arch->window));
    arch->window = windows ? arch->window : 0;
    TRY(read_common(keys, 0, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_qwen3_moe = {{"Qwen3MoeForCausalLM"}, read_qwen3_moe};

static p4_rc read_mixtral(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {
        .positions = 131072, .kv_heads = 8, .eps = 1e-5, .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(read_experts(keys, arch, "num_local_experts", "num_experts", 8, 2));
    TRY(p4_hf_read_window(keys, 0, &arch->window));
    TRY(read_common(keys, 1e6, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_mixtral = {{"MixtralForCausalLM"}, read_mixtral};

static p4_rc read_olmoe(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {.positions = 4096, .eps = 1e-5, .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    const cJSON *clip;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_find_key(keys, "clip_qkv", &clip));
    CHECK(clip == NULL, "%s: \"clip_qkv\" clips queries, keys and values, supported is only null",
          keys->source);
    TRY(read_experts(keys, arch, "num_experts", "num_local_experts", 64, 8));
    TRY(p4_hf_read_bool(keys, "norm_topk_prob", &arch->normed_shares));
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(read_common(keys, 0, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_olmoe = {{"OlmoeForCausalLM"}, read_olmoe};
