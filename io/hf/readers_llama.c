/* readers_llama.c - config.json of the families with RMSNorm and a gated MLP. */
#include "io/hf/readers.h"

/* What follows the sizes in all of them. */
static p4_rc read_common(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_activation(keys, "hidden_act", arch));
    TRY(p4_hf_read_rope(keys, &(p4_hf_rope_facts){0}, arch));
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
    TRY(read_common(keys, arch));
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
    TRY(read_common(keys, arch));
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
    TRY(read_common(keys, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_mistral = {{"MistralForCausalLM"}, read_mistral};

static p4_rc read_phi3(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {.positions = 4096, .eps = 1e-5, .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_window(keys, 0, &arch->window));
    TRY(read_common(keys, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_phi3 = {{"Phi3ForCausalLM"}, read_phi3};
