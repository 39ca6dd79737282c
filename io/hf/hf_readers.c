#include "io/hf/hf_readers.h"

#include <string.h>

#include "src/family_list.h"

/* The sizes, under the key names that most families use. Where two keys have a default, it is the reference
 * library's. */
static p4_rc read_sizes(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    double eps = 1e-6;
    TRY(p4_hf_need_int(keys, "vocab_size", &arch->V, P4_HF_VOCAB_MAX));
    TRY(p4_hf_need_int(keys, "hidden_size", &arch->C, P4_HF_WIDTH_MAX));
    TRY(p4_hf_need_int(keys, "num_hidden_layers", &arch->L, P4_HF_LAYERS_MAX));
    TRY(p4_hf_need_int(keys, "num_attention_heads", &arch->H, P4_HF_HEADS_MAX));
    TRY(p4_hf_need_int(keys, "intermediate_size", &arch->F, P4_HF_WIDTH_MAX));
    arch->positions = 2048;
    TRY(p4_hf_read_int(keys, "max_position_embeddings", &arch->positions, 1, P4_HF_POSITIONS_MAX));
    TRY(p4_hf_read_number(keys, "rms_norm_eps", &eps, 1e-12, 1));
    arch->norm_eps = (float)eps;
    arch->Hkv = arch->H;
    TRY(p4_hf_read_int(keys, "num_key_value_heads", &arch->Hkv, 1, P4_HF_HEADS_MAX));
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

/* pretraining_tp is not read: it splits products into slices, whose sum is the same network. */
static p4_rc read_llama(const p4_hf_keys *keys, p4_arch *arch)
{
    static const char *const activations[] = {"silu", "swish", NULL};
    p4_rc rc = P4_OK;
    TRY(read_sizes(keys, arch));
    TRY(p4_hf_read_bool(keys, "attention_bias", &arch->qkv_bias));
    arch->o_bias = arch->qkv_bias;
    TRY(p4_hf_read_bool(keys, "mlp_bias", &arch->mlp_bias));
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_rope(keys, &(p4_hf_rope_facts){0}, arch));
    TRY(p4_hf_only_words(keys, "hidden_act", activations));
done:
    return rc;
}

static const p4_hf_reader llama = {{"LlamaForCausalLM", "LLaMAForCausalLM"}, read_llama};

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
    /* all names of one function */
    static const char *const activations[] = {"gelu_new",         "gelu_pytorch_tanh", "gelu_fast",
                                              "gelu_python_tanh", "gelu_accurate",     NULL};
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
    TRY(p4_hf_only_words(keys, "activation_function", activations));
    TRY(read_gpt2_attention(keys, arch));
done:
    return rc;
}

static const p4_hf_reader gpt2 = {{"GPT2LMHeadModel", "GPT2Model"}, read_gpt2};

const p4_hf_reader *p4_hf_reader_find(const char *family)
{
    static const struct {
        const char *name;
        const p4_hf_reader *reader;
    } table[] = {
#define ENTRY(name) {#name, &(name)},
        P4_FAMILIES(ENTRY)
#undef ENTRY
    };
    for (size_t f = 0; f < sizeof table / sizeof table[0]; f++) {
        if (strcmp(table[f].name, family) == 0) {
            return table[f].reader;
        }
    }
    return NULL;
}
