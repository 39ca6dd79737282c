/* readers_gpt.c - config.json of the families with LayerNorm. */
#include "io/hf/readers.h"

/* A size of GPT-2, which the reference library also reads under the name that other families use. */
static p4_rc need_gpt2_int(const p4_hf_keys *keys, const char *key, const char *alias, int64_t *value,
                           int64_t max)
{
    p4_rc rc = P4_OK;
    int64_t own = 0, other = 0;
    TRY(p4_hf_read_int(keys, key, &own, 1, max));
    TRY(p4_hf_read_int(keys, alias, &other, 1, max));
    CHECK(own == 0 || other == 0 || own == other,
          "%s: \"%s\" is %lld and \"%s\", another name of it, is %lld; expected one of them", keys->source,
          key, (long long)own, alias, (long long)other);
    *value = own + (own == 0) * other;
    CHECK(*value > 0, "%s: required key \"%s\" is missing", keys->source, key);
done:
    return rc;
}

/* Factors of the attention scores. reorder_and_upcast_attn is not read: it changes the order of operations
 * and their precision, not the network. */
static p4_rc read_gpt2_attention(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    bool scaled = true;
    TRY(p4_hf_read_bool(keys, "scale_attn_weights", &scaled));
    arch->attention_scale = scaled ? 0.0f : 1.0f;
    TRY(p4_hf_read_bool(keys, "scale_attn_by_inverse_layer_idx", &arch->inverse_layer_scale));
done:
    return rc;
}

static p4_rc read_gpt2(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    double eps = 1e-5;
    TRY(p4_hf_need_int(keys, "vocab_size", &arch->V, P4_HF_VOCAB_MAX));
    TRY(need_gpt2_int(keys, "n_embd", "hidden_size", &arch->C, P4_HF_WIDTH_MAX));
    TRY(need_gpt2_int(keys, "n_layer", "num_hidden_layers", &arch->L, P4_HF_LAYERS_MAX));
    TRY(need_gpt2_int(keys, "n_head", "num_attention_heads", &arch->H, P4_HF_HEADS_MAX));
    TRY(need_gpt2_int(keys, "n_positions", "max_position_embeddings", &arch->positions, P4_HF_POSITIONS_MAX));
    arch->F = 4 * arch->C;
    TRY(p4_hf_read_int(keys, "n_inner", &arch->F, 1, P4_HF_WIDTH_MAX));
    TRY(p4_hf_read_number(keys, "layer_norm_epsilon", &eps, 1e-12, 1));
    arch->norm_eps = (float)eps;
    CHECK(arch->C % arch->H == 0, "%s: n_embd %lld is not a multiple of n_head %lld", keys->source,
          (long long)arch->C, (long long)arch->H);
    arch->Hkv = arch->H;
    arch->D = arch->C / arch->H;
    arch->tied = true;
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_activation(keys, "activation_function", arch));
    TRY(read_gpt2_attention(keys, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_gpt2 = {{"GPT2LMHeadModel", "GPT2Model"}, read_gpt2};

/* The rotated part of a head and theta have names of their own. */
static p4_rc read_gpt_neox(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {.positions = 2048, .eps = 1e-5, .eps_key = "layer_norm_eps"};
    static const p4_hf_rope_facts rope = {
        .theta_key = "rotary_emb_base", .partial_key = "rotary_pct", .partial = 0.25};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    CHECK(arch->Hkv == arch->H && arch->D * arch->H == arch->C,
          "%s: %lld heads, %lld key/value heads, head dimension %lld: expected %lld heads of hidden_size / "
          "num_attention_heads",
          keys->source, (long long)arch->H, (long long)arch->Hkv, (long long)arch->D, (long long)arch->H);
    arch->qkv_bias = true;
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    arch->parallel = true;
    TRY(p4_hf_read_bool(keys, "use_parallel_residual", &arch->parallel));
    TRY(p4_hf_read_activation(keys, "hidden_act", arch));
    TRY(p4_hf_read_rope(keys, &rope, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_gpt_neox = {{"GPTNeoXForCausalLM"}, read_gpt_neox};

static p4_rc read_phi(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {
        .vocab = 51200, .heads = 32, .positions = 2048, .eps = 1e-5, .eps_key = "layer_norm_eps"};
    static const p4_hf_rope_facts rope = {.partial_key = "partial_rotary_factor", .partial = 0.5};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_only_bool(keys, "qk_layernorm", false));
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_activation(keys, "hidden_act", arch));
    TRY(p4_hf_read_rope(keys, &rope, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_phi = {{"PhiForCausalLM"}, read_phi};

static p4_rc read_starcoder2(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {
        .positions = 4096, .kv_heads = 2, .eps = 1e-5, .eps_key = "norm_epsilon"};
    p4_rc rc = P4_OK;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_window(keys, 0, &arch->window));
    arch->qkv_bias = true;
    TRY(p4_hf_read_bool(keys, "use_bias", &arch->qkv_bias));
    arch->o_bias = arch->mlp_bias = arch->qkv_bias;
    arch->tied = true;
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_activation(keys, "hidden_act", arch));
    TRY(p4_hf_read_rope(keys, &(p4_hf_rope_facts){0}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_starcoder2 = {{"Starcoder2ForCausalLM"}, read_starcoder2};

static p4_rc read_cohere(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {
        .vocab = 256000, .heads = 64, .positions = 8192, .eps = 1e-5, .eps_key = "layer_norm_eps"};
    p4_rc rc = P4_OK;
    double scale = 0.0625;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(p4_hf_only_bool(keys, "use_qk_norm", false));
    CHECK(!p4_hf_is_null(keys, "logit_scale"), "%s: \"logit_scale\" is null, expected a number",
          keys->source);
    TRY(p4_hf_read_number(keys, "logit_scale", &scale, 1e-12, 1e12));
    arch->logit_scale = scale == 1 ? 0.0f : (float)scale;
    arch->tied = true;
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_activation(keys, "hidden_act", arch));
    TRY(p4_hf_read_rope(keys, &(p4_hf_rope_facts){.theta = 5e5}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_cohere = {{"CohereForCausalLM"}, read_cohere};

static p4_rc read_falcon_sizes(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    double eps = 1e-5;
    arch->V = 65024;
    arch->H = 71;
    arch->positions = 2048;
    TRY(p4_hf_read_int(keys, "vocab_size", &arch->V, 1, P4_HF_VOCAB_MAX));
    TRY(p4_hf_need_int(keys, "hidden_size", &arch->C, P4_HF_WIDTH_MAX));
    TRY(p4_hf_read_int(keys, "n_embed", &arch->C, 1, P4_HF_WIDTH_MAX)); /* it counts where it is there */
    TRY(p4_hf_need_int(keys, "num_hidden_layers", &arch->L, P4_HF_LAYERS_MAX));
    TRY(p4_hf_read_int(keys, "num_attention_heads", &arch->H, 1, P4_HF_HEADS_MAX));
    TRY(p4_hf_read_int(keys, "max_position_embeddings", &arch->positions, 1, P4_HF_POSITIONS_MAX));
    arch->F = 4 * arch->C;
    TRY(p4_hf_read_int(keys, "ffn_hidden_size", &arch->F, 1, P4_HF_WIDTH_MAX));
    TRY(p4_hf_read_number(keys, "layer_norm_epsilon", &eps, 1e-12, 1));
    arch->norm_eps = (float)eps;
    CHECK(arch->C % arch->H == 0, "%s: hidden_size %lld is not a multiple of num_attention_heads %lld",
          keys->source, (long long)arch->C, (long long)arch->H);
    arch->D = arch->C / arch->H;
done:
    return rc;
}

/* Three ways to hold queries, keys and values: in groups, with one key and value for all heads, or by head.
 * Of one group the rows are in the usual order. num_kv_heads counts in the first alone. */
static p4_rc read_falcon_heads(const p4_hf_keys *keys, p4_arch *arch, bool groups)
{
    p4_rc rc = P4_OK;
    bool one = true;
    int64_t heads = arch->H;
    TRY(p4_hf_read_bool(keys, "multi_query", &one));
    TRY(p4_hf_read_int(keys, "num_kv_heads", &heads, 1, P4_HF_HEADS_MAX));
    CHECK(
        groups || one || heads == arch->H,
        "%s: \"num_kv_heads\" is %lld without multi_query and new_decoder_architecture, expected the %lld of "
        "num_attention_heads",
        keys->source, (long long)heads, (long long)arch->H);
    arch->Hkv = groups ? heads : one ? 1 : arch->H;
    arch->qkv_by_head = arch->Hkv > 1;
done:
    return rc;
}

/* A block of which the reference library's class lacks a norm is refused. */
static p4_rc read_falcon_norms(const p4_hf_keys *keys, p4_arch *arch, bool groups)
{
    p4_rc rc = P4_OK;
    int64_t norms = groups ? 2 : 1;
    arch->parallel = true;
    TRY(p4_hf_read_bool(keys, "parallel_attn", &arch->parallel));
    CHECK(arch->parallel || !groups,
          "%s: \"parallel_attn\" is false with new_decoder_architecture, supported is only true",
          keys->source);
    TRY(p4_hf_read_int(keys, "num_ln_in_parallel_attn", &norms, 1, 2));
    CHECK(!arch->parallel || groups || norms == 1,
          "%s: \"num_ln_in_parallel_attn\" is 2 without new_decoder_architecture, supported is only 1",
          keys->source);
    arch->shared_norm = arch->parallel && norms == 1;
done:
    return rc;
}

static p4_rc read_falcon(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    bool groups = false;
    TRY(read_falcon_sizes(keys, arch));
    TRY(p4_hf_only_bool(keys, "alibi", false));
    TRY(p4_hf_read_bool(keys, "new_decoder_architecture", &groups));
    TRY(read_falcon_heads(keys, arch, groups));
    TRY(read_falcon_norms(keys, arch, groups));
    TRY(p4_hf_read_bool(keys, "bias", &arch->qkv_bias));
    arch->o_bias = arch->mlp_bias = arch->qkv_bias;
    arch->tied = true;
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_activation(keys, "activation", arch));
    TRY(p4_hf_read_rope(keys, &(p4_hf_rope_facts){0}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_falcon = {{"FalconForCausalLM"}, read_falcon};
