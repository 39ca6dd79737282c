/* readers_gemma.c - config.json of Gemma 1, 2 and 3. */
#include <math.h>
#include <string.h>

#include "io/hf/readers.h"

/* hidden_act "gelu" is how the first files wrote the tanh form, which the models were trained with. */
static p4_rc read_gemma(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_sizes absent = {.vocab = 256000,
                                       .heads = 16,
                                       .positions = 8192,
                                       .kv_heads = 16,
                                       .head_dim = 256,
                                       .eps = 1e-6,
                                       .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    const char *activation = "gelu_pytorch_tanh";
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(p4_hf_read_word(keys, "hidden_act", &activation));
    if (strcmp(activation, "gelu") != 0) {
        TRY(p4_hf_read_activation(keys, "hidden_act", arch));
    }
    arch->embedding_scale = (float)sqrt((double)arch->C);
    TRY(p4_hf_only_bool(keys, "use_bidirectional_attention", false));
    arch->tied = true;
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
    TRY(p4_hf_read_rope(keys, &(p4_hf_rope_facts){0}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_gemma = {{"GemmaForCausalLM"}, read_gemma};

/* What Gemma 2 and 3 have. `period`: every period-th layer attends to all earlier tokens, the others have the
 * window; layer_types counts where it is given. */
static p4_rc read_common(const p4_hf_keys *keys, p4_arch *arch, int64_t vocab, int64_t positions,
                         int64_t period)
{
    const p4_hf_sizes absent = {.vocab = vocab,
                                .heads = 8,
                                .positions = positions,
                                .kv_heads = 4,
                                .head_dim = 256,
                                .eps = 1e-6,
                                .eps_key = "rms_norm_eps"};
    p4_rc rc = P4_OK;
    p4_layer_set sliding = {0};
    double scalar = 256;
    int64_t window;
    TRY(p4_hf_read_sizes(keys, arch, &absent));
    TRY(p4_hf_read_attention_bias(keys, arch));
    TRY(p4_hf_read_activation(keys, "hidden_activation", arch));
    TRY(p4_hf_read_number(keys, "query_pre_attn_scalar", &scalar, 1e-6, 1e12));
    arch->attention_scale = (float)(1 / sqrt(scalar));
    arch->embedding_scale = (float)sqrt((double)arch->C);
    TRY(p4_hf_read_cap(keys, "final_logit_softcapping", &arch->logit_cap));
    TRY(p4_hf_only_bool(keys, "use_bidirectional_attention", false));
    p4_hf_add_layers(&sliding, arch, 0, period);
    TRY(p4_hf_read_window(keys, 4096, &window));
    TRY(p4_hf_read_layer_types(keys, arch, window, &sliding));
    arch->tied = true;
    TRY(p4_hf_read_bool(keys, "tie_word_embeddings", &arch->tied));
done:
    return rc;
}

/* hidden_act is not read: the reference library takes hidden_activation. */
static p4_rc read_gemma2(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    arch->attention_cap = 50;
    arch->logit_cap = 30;
    TRY(p4_hf_read_cap(keys, "attn_logit_softcapping", &arch->attention_cap));
    TRY(read_common(keys, arch, 256000, 8192, 2));
    TRY(p4_hf_read_rope(keys, &(p4_hf_rope_facts){0}, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_gemma2 = {{"Gemma2ForCausalLM"}, read_gemma2};

/* attn_logit_softcapping is not read: the reference library does not apply it. */
static p4_rc read_gemma3_text(const p4_hf_keys *keys, p4_arch *arch)
{
    static const p4_hf_rope_facts rope = {
        .theta = 1e6, .windowed_theta_key = "rope_local_base_freq", .windowed_theta = 1e4};
    p4_rc rc = P4_OK;
    int64_t period = 6;
    TRY(p4_hf_read_int(keys, "sliding_window_pattern", &period, 1, P4_HF_LAYERS_MAX));
    TRY(read_common(keys, arch, 262208, 131072, period));
    TRY(p4_hf_read_rope(keys, &rope, arch));
done:
    return rc;
}

const p4_hf_reader p4_hf_reader_gemma3_text = {{"Gemma3ForCausalLM"}, read_gemma3_text};
