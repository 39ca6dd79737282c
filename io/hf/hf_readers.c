#include "io/hf/hf_readers.h"

#include <string.h>

#include "src/family_list.h"

/* The sizes, under the key names that most families use. */
static p4_rc read_sizes(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    double eps;
    TRY(p4_hf_need_int(keys, "vocab_size", &arch->V, P4_HF_VOCAB_MAX));
    TRY(p4_hf_need_int(keys, "hidden_size", &arch->C, P4_HF_WIDTH_MAX));
    TRY(p4_hf_need_int(keys, "num_hidden_layers", &arch->L, P4_HF_LAYERS_MAX));
    TRY(p4_hf_need_int(keys, "num_attention_heads", &arch->H, P4_HF_HEADS_MAX));
    TRY(p4_hf_need_int(keys, "intermediate_size", &arch->F, P4_HF_WIDTH_MAX));
    TRY(p4_hf_need_int(keys, "max_position_embeddings", &arch->positions, P4_HF_POSITIONS_MAX));
    TRY(p4_hf_need_number(keys, "rms_norm_eps", &eps, 1e-12, 1));
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

static p4_rc read_llama(const p4_hf_keys *keys, p4_arch *arch)
{
    static const char *const activations[] = {"silu", NULL};
    p4_rc rc = P4_OK;
    TRY(read_sizes(keys, arch));
    TRY(p4_hf_read_bool(keys, "attention_bias", &arch->qkv_bias));
    arch->o_bias = arch->qkv_bias;
    TRY(p4_hf_read_bool(keys, "mlp_bias", &arch->mlp_bias));
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_rope(keys, arch));
    TRY(p4_hf_only_words(keys, "hidden_act", activations));
    TRY(p4_hf_only_number(keys, "pretraining_tp", 1, 0, P4_HF_HEADS_MAX));
done:
    return rc;
}

static const p4_hf_reader llama = {{"LlamaForCausalLM", "LLaMAForCausalLM"}, read_llama};

static p4_rc read_gpt2(const p4_hf_keys *keys, p4_arch *arch)
{
    static const char *const activations[] = {"gelu_new", "gelu_pytorch_tanh", NULL};
    p4_rc rc = P4_OK;
    double eps = 1e-5;
    TRY(p4_hf_need_int(keys, "vocab_size", &arch->V, P4_HF_VOCAB_MAX));
    TRY(p4_hf_need_int(keys, "n_embd", &arch->C, P4_HF_WIDTH_MAX));
    TRY(p4_hf_need_int(keys, "n_layer", &arch->L, P4_HF_LAYERS_MAX));
    TRY(p4_hf_need_int(keys, "n_head", &arch->H, P4_HF_HEADS_MAX));
    TRY(p4_hf_need_int(keys, "n_positions", &arch->positions, P4_HF_POSITIONS_MAX));
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
    TRY(p4_hf_only_bool(keys, "scale_attn_weights", true));
    TRY(p4_hf_only_bool(keys, "scale_attn_by_inverse_layer_idx", false));
    TRY(p4_hf_only_bool(keys, "reorder_and_upcast_attn", false));
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
