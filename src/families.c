#include "src/families.h"

#include <string.h>

#include "src/family_list.h"

#define ROWS(rows) .row_count = sizeof(rows) / sizeof(rows)[0], .row = (rows)
/* Of the many families whose blocks are "model.layers.N". */
#define MODEL_LAYERS(rows) .prefix = "", .layers = "model.layers", ROWS(rows)

/* clang-format off */
/* Of most families. Those without biases, or without norms of queries and keys, lack their roles. */
static const p4_tensor_row llama_rows[] = {
    {P4_ROLE_EMBED, "model.embed_tokens.weight", P4_DIM_V},
    {P4_ROLE_NORM1_GAIN, "input_layernorm.weight", P4_DIM_C},
    {P4_ROLE_QKV, "self_attn.q_proj.weight", P4_DIM_Q},
    {P4_ROLE_QKV, "self_attn.k_proj.weight", P4_DIM_KV},
    {P4_ROLE_QKV, "self_attn.v_proj.weight", P4_DIM_KV},
    {P4_ROLE_QKV_BIAS, "self_attn.q_proj.bias", P4_DIM_Q},
    {P4_ROLE_QKV_BIAS, "self_attn.k_proj.bias", P4_DIM_KV},
    {P4_ROLE_QKV_BIAS, "self_attn.v_proj.bias", P4_DIM_KV},
    {P4_ROLE_Q_GAIN, "self_attn.q_norm.weight", P4_DIM_QN},
    {P4_ROLE_K_GAIN, "self_attn.k_norm.weight", P4_DIM_KN},
    {P4_ROLE_O, "self_attn.o_proj.weight", P4_DIM_C},
    {P4_ROLE_O_BIAS, "self_attn.o_proj.bias", P4_DIM_C},
    {P4_ROLE_NORM2_GAIN, "post_attention_layernorm.weight", P4_DIM_C},
    {P4_ROLE_UP, "mlp.gate_proj.weight", P4_DIM_F},
    {P4_ROLE_UP, "mlp.up_proj.weight", P4_DIM_F},
    {P4_ROLE_UP_BIAS, "mlp.gate_proj.bias", P4_DIM_F},
    {P4_ROLE_UP_BIAS, "mlp.up_proj.bias", P4_DIM_F},
    {P4_ROLE_DOWN, "mlp.down_proj.weight", P4_DIM_C},
    {P4_ROLE_DOWN_BIAS, "mlp.down_proj.bias", P4_DIM_C},
    {P4_ROLE_FINAL_GAIN, "model.norm.weight", P4_DIM_C},
    {P4_ROLE_HEAD, "lm_head.weight", P4_DIM_V},
};
/* clang-format on */

static const p4_family llama = {
    .title = "Llama 1, 2 and 3",
    .features = {.gated_mlp = true, .activation = P4_SILU},
    MODEL_LAYERS(llama_rows),
};

static const p4_family qwen2 = {
    .title = "Qwen2 and Qwen2.5",
    .features = {.gated_mlp = true, .activation = P4_SILU, .qkv_bias = true},
    MODEL_LAYERS(llama_rows),
};

static const p4_family mistral = {
    .title = "Mistral",
    .features = {.gated_mlp = true, .activation = P4_SILU},
    MODEL_LAYERS(llama_rows),
};

/* clang-format off */
static const p4_tensor_row gpt2_rows[] = {
    {P4_ROLE_EMBED, "wte.weight", P4_DIM_V},
    {P4_ROLE_POSITION, "wpe.weight", P4_DIM_POSITIONS},
    {P4_ROLE_NORM1_GAIN, "ln_1.weight", P4_DIM_C},
    {P4_ROLE_NORM1_BIAS, "ln_1.bias", P4_DIM_C},
    {P4_ROLE_QKV, "attn.c_attn.weight", P4_DIM_QKV},
    {P4_ROLE_QKV_BIAS, "attn.c_attn.bias", P4_DIM_QKV},
    {P4_ROLE_O, "attn.c_proj.weight", P4_DIM_C},
    {P4_ROLE_O_BIAS, "attn.c_proj.bias", P4_DIM_C},
    {P4_ROLE_NORM2_GAIN, "ln_2.weight", P4_DIM_C},
    {P4_ROLE_NORM2_BIAS, "ln_2.bias", P4_DIM_C},
    {P4_ROLE_UP, "mlp.c_fc.weight", P4_DIM_UP},
    {P4_ROLE_UP_BIAS, "mlp.c_fc.bias", P4_DIM_UP},
    {P4_ROLE_DOWN, "mlp.c_proj.weight", P4_DIM_C},
    {P4_ROLE_DOWN_BIAS, "mlp.c_proj.bias", P4_DIM_C},
    {P4_ROLE_FINAL_GAIN, "ln_f.weight", P4_DIM_C},
    {P4_ROLE_FINAL_BIAS, "ln_f.bias", P4_DIM_C},
    {P4_ROLE_HEAD, "lm_head.weight", P4_DIM_V},
};
/* clang-format on */

static const p4_family gpt2 = {
    .title = "GPT-2",
    .features =
        {.layer_norm = true, .learned_positions = true, .qkv_bias = true, .o_bias = true, .mlp_bias = true},
    .prefix = "transformer.",
    .layers = "h",
    .transposed = true,
    ROWS(gpt2_rows),
};

static const p4_family qwen3 = {
    .title = "Qwen3",
    .features = {.gated_mlp = true, .activation = P4_SILU, .qk_norm = P4_QK_NORM_HEAD},
    MODEL_LAYERS(llama_rows),
};

static const p4_family smollm3 = {
    .title = "SmolLM3",
    .features = {.gated_mlp = true, .activation = P4_SILU},
    MODEL_LAYERS(llama_rows),
};

static const p4_family granite = {
    .title = "Granite 3 (dense)",
    .features = {.gated_mlp = true, .activation = P4_SILU},
    MODEL_LAYERS(llama_rows),
};

/* clang-format off */
static const p4_tensor_row phi_rows[] = {
    {P4_ROLE_EMBED, "model.embed_tokens.weight", P4_DIM_V},
    {P4_ROLE_NORM1_GAIN, "input_layernorm.weight", P4_DIM_C},
    {P4_ROLE_NORM1_BIAS, "input_layernorm.bias", P4_DIM_C},
    {P4_ROLE_QKV, "self_attn.q_proj.weight", P4_DIM_Q},
    {P4_ROLE_QKV, "self_attn.k_proj.weight", P4_DIM_KV},
    {P4_ROLE_QKV, "self_attn.v_proj.weight", P4_DIM_KV},
    {P4_ROLE_QKV_BIAS, "self_attn.q_proj.bias", P4_DIM_Q},
    {P4_ROLE_QKV_BIAS, "self_attn.k_proj.bias", P4_DIM_KV},
    {P4_ROLE_QKV_BIAS, "self_attn.v_proj.bias", P4_DIM_KV},
    {P4_ROLE_O, "self_attn.dense.weight", P4_DIM_C},
    {P4_ROLE_O_BIAS, "self_attn.dense.bias", P4_DIM_C},
    {P4_ROLE_UP, "mlp.fc1.weight", P4_DIM_UP},
    {P4_ROLE_UP_BIAS, "mlp.fc1.bias", P4_DIM_UP},
    {P4_ROLE_DOWN, "mlp.fc2.weight", P4_DIM_C},
    {P4_ROLE_DOWN_BIAS, "mlp.fc2.bias", P4_DIM_C},
    {P4_ROLE_FINAL_GAIN, "model.final_layernorm.weight", P4_DIM_C},
    {P4_ROLE_FINAL_BIAS, "model.final_layernorm.bias", P4_DIM_C},
    {P4_ROLE_HEAD, "lm_head.weight", P4_DIM_V},
    {P4_ROLE_HEAD_BIAS, "lm_head.bias", P4_DIM_V},
};
/* clang-format on */

static const p4_family phi = {
    .title = "Phi-1, Phi-1.5 and Phi-2",
    .features = {.layer_norm = true,
                 .parallel = true,
                 .shared_norm = true,
                 .qkv_bias = true,
                 .o_bias = true,
                 .mlp_bias = true,
                 .head_bias = true},
    MODEL_LAYERS(phi_rows),
};

/* clang-format off */
static const p4_tensor_row phi3_rows[] = {
    {P4_ROLE_EMBED, "model.embed_tokens.weight", P4_DIM_V},
    {P4_ROLE_NORM1_GAIN, "input_layernorm.weight", P4_DIM_C},
    {P4_ROLE_QKV, "self_attn.qkv_proj.weight", P4_DIM_QKV},
    {P4_ROLE_O, "self_attn.o_proj.weight", P4_DIM_C},
    {P4_ROLE_NORM2_GAIN, "post_attention_layernorm.weight", P4_DIM_C},
    {P4_ROLE_UP, "mlp.gate_up_proj.weight", P4_DIM_UP},
    {P4_ROLE_DOWN, "mlp.down_proj.weight", P4_DIM_C},
    {P4_ROLE_FINAL_GAIN, "model.norm.weight", P4_DIM_C},
    {P4_ROLE_HEAD, "lm_head.weight", P4_DIM_V},
};
/* clang-format on */

static const p4_family phi3 = {
    .title = "Phi-3, Phi-3.5 and Phi-4 (dense)",
    .features = {.gated_mlp = true, .activation = P4_SILU},
    MODEL_LAYERS(phi3_rows),
};

/* With norms of the outputs of attention and MLP: after and before them, or only after them. */
/* clang-format off */
static const p4_tensor_row post_norm_rows[] = {
    {P4_ROLE_EMBED, "model.embed_tokens.weight", P4_DIM_V},
    {P4_ROLE_NORM1_GAIN, "input_layernorm.weight", P4_DIM_C},
    {P4_ROLE_QKV, "self_attn.q_proj.weight", P4_DIM_Q},
    {P4_ROLE_QKV, "self_attn.k_proj.weight", P4_DIM_KV},
    {P4_ROLE_QKV, "self_attn.v_proj.weight", P4_DIM_KV},
    {P4_ROLE_QKV_BIAS, "self_attn.q_proj.bias", P4_DIM_Q},
    {P4_ROLE_QKV_BIAS, "self_attn.k_proj.bias", P4_DIM_KV},
    {P4_ROLE_QKV_BIAS, "self_attn.v_proj.bias", P4_DIM_KV},
    {P4_ROLE_Q_GAIN, "self_attn.q_norm.weight", P4_DIM_QN},
    {P4_ROLE_K_GAIN, "self_attn.k_norm.weight", P4_DIM_KN},
    {P4_ROLE_O, "self_attn.o_proj.weight", P4_DIM_C},
    {P4_ROLE_O_BIAS, "self_attn.o_proj.bias", P4_DIM_C},
    {P4_ROLE_POST1_GAIN, "post_attention_layernorm.weight", P4_DIM_C},
    {P4_ROLE_NORM2_GAIN, "pre_feedforward_layernorm.weight", P4_DIM_C},
    {P4_ROLE_UP, "mlp.gate_proj.weight", P4_DIM_F},
    {P4_ROLE_UP, "mlp.up_proj.weight", P4_DIM_F},
    {P4_ROLE_DOWN, "mlp.down_proj.weight", P4_DIM_C},
    {P4_ROLE_POST2_GAIN, "post_feedforward_layernorm.weight", P4_DIM_C},
    {P4_ROLE_FINAL_GAIN, "model.norm.weight", P4_DIM_C},
    {P4_ROLE_HEAD, "lm_head.weight", P4_DIM_V},
};
/* clang-format on */

static const p4_family gemma = {
    .title = "Gemma 1",
    .features = {.gated_mlp = true, .gain_offset = true},
    MODEL_LAYERS(llama_rows),
};

static const p4_family gemma2 = {
    .title = "Gemma 2",
    .features = {.gated_mlp = true, .gain_offset = true, .post_norm = true},
    MODEL_LAYERS(post_norm_rows),
};

static const p4_family gemma3_text = {
    .title = "Gemma 3 (of gemma3, the language model)",
    .features = {.gated_mlp = true,
                 .gain_offset = true,
                 .post_norm = true,
                 .qk_norm = P4_QK_NORM_HEAD,
                 .local_rope = true},
    .prefix = "",
    .layers = "model.layers",
    .alias = {{"language_model.", ""}, {"model.language_model.", "model."}},
    .foreign = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                "model.multi_modal_projector."},
    ROWS(post_norm_rows),
};

static const p4_family olmo2 = {
    .title = "OLMo 2",
    .features = {.gated_mlp = true,
                 .activation = P4_SILU,
                 .no_pre_norm = true,
                 .post_norm = true,
                 .qk_norm = P4_QK_NORM_WHOLE},
    MODEL_LAYERS(post_norm_rows),
};

static const p4_family olmo3 = {
    .title = "OLMo 3",
    .features = {.gated_mlp = true,
                 .activation = P4_SILU,
                 .no_pre_norm = true,
                 .post_norm = true,
                 .qk_norm = P4_QK_NORM_WHOLE,
                 .local_rope = true},
    MODEL_LAYERS(post_norm_rows),
};

/* clang-format off */
static const p4_tensor_row gpt_neox_rows[] = {
    {P4_ROLE_EMBED, "gpt_neox.embed_in.weight", P4_DIM_V},
    {P4_ROLE_NORM1_GAIN, "input_layernorm.weight", P4_DIM_C},
    {P4_ROLE_NORM1_BIAS, "input_layernorm.bias", P4_DIM_C},
    {P4_ROLE_QKV, "attention.query_key_value.weight", P4_DIM_QKV},
    {P4_ROLE_QKV_BIAS, "attention.query_key_value.bias", P4_DIM_QKV},
    {P4_ROLE_O, "attention.dense.weight", P4_DIM_C},
    {P4_ROLE_O_BIAS, "attention.dense.bias", P4_DIM_C},
    {P4_ROLE_NORM2_GAIN, "post_attention_layernorm.weight", P4_DIM_C},
    {P4_ROLE_NORM2_BIAS, "post_attention_layernorm.bias", P4_DIM_C},
    {P4_ROLE_UP, "mlp.dense_h_to_4h.weight", P4_DIM_UP},
    {P4_ROLE_UP_BIAS, "mlp.dense_h_to_4h.bias", P4_DIM_UP},
    {P4_ROLE_DOWN, "mlp.dense_4h_to_h.weight", P4_DIM_C},
    {P4_ROLE_DOWN_BIAS, "mlp.dense_4h_to_h.bias", P4_DIM_C},
    {P4_ROLE_FINAL_GAIN, "gpt_neox.final_layer_norm.weight", P4_DIM_C},
    {P4_ROLE_FINAL_BIAS, "gpt_neox.final_layer_norm.bias", P4_DIM_C},
    {P4_ROLE_HEAD, "embed_out.weight", P4_DIM_V},
};
/* clang-format on */

static const p4_family gpt_neox = {
    .title = "GPT-NeoX and Pythia",
    .features = {.layer_norm = true, .qkv_by_head = true, .mlp_bias = true, .activation = P4_GELU_ERF},
    .prefix = "",
    .layers = "gpt_neox.layers",
    .alias = {{"lm_head.", "embed_out."}},
    ROWS(gpt_neox_rows),
};

/* clang-format off */
static const p4_tensor_row starcoder2_rows[] = {
    {P4_ROLE_EMBED, "model.embed_tokens.weight", P4_DIM_V},
    {P4_ROLE_NORM1_GAIN, "input_layernorm.weight", P4_DIM_C},
    {P4_ROLE_NORM1_BIAS, "input_layernorm.bias", P4_DIM_C},
    {P4_ROLE_QKV, "self_attn.q_proj.weight", P4_DIM_Q},
    {P4_ROLE_QKV, "self_attn.k_proj.weight", P4_DIM_KV},
    {P4_ROLE_QKV, "self_attn.v_proj.weight", P4_DIM_KV},
    {P4_ROLE_QKV_BIAS, "self_attn.q_proj.bias", P4_DIM_Q},
    {P4_ROLE_QKV_BIAS, "self_attn.k_proj.bias", P4_DIM_KV},
    {P4_ROLE_QKV_BIAS, "self_attn.v_proj.bias", P4_DIM_KV},
    {P4_ROLE_O, "self_attn.o_proj.weight", P4_DIM_C},
    {P4_ROLE_O_BIAS, "self_attn.o_proj.bias", P4_DIM_C},
    {P4_ROLE_NORM2_GAIN, "post_attention_layernorm.weight", P4_DIM_C},
    {P4_ROLE_NORM2_BIAS, "post_attention_layernorm.bias", P4_DIM_C},
    {P4_ROLE_UP, "mlp.c_fc.weight", P4_DIM_UP},
    {P4_ROLE_UP_BIAS, "mlp.c_fc.bias", P4_DIM_UP},
    {P4_ROLE_DOWN, "mlp.c_proj.weight", P4_DIM_C},
    {P4_ROLE_DOWN_BIAS, "mlp.c_proj.bias", P4_DIM_C},
    {P4_ROLE_FINAL_GAIN, "model.norm.weight", P4_DIM_C},
    {P4_ROLE_FINAL_BIAS, "model.norm.bias", P4_DIM_C},
    {P4_ROLE_HEAD, "lm_head.weight", P4_DIM_V},
};
/* clang-format on */

static const p4_family starcoder2 = {
    .title = "StarCoder2",
    .features = {.layer_norm = true},
    MODEL_LAYERS(starcoder2_rows),
};

static const p4_family cohere = {
    .title = "Command R (Cohere)",
    .features = {.layer_norm = true,
                 .no_norm_bias = true,
                 .parallel = true,
                 .shared_norm = true,
                 .rope_pairs = true,
                 .gated_mlp = true,
                 .activation = P4_SILU},
    MODEL_LAYERS(llama_rows),
};

/* clang-format off */
#define FALCON_ROWS(norm1, norm2)                                                                            \
    {P4_ROLE_EMBED, "transformer.word_embeddings.weight", P4_DIM_V},                                         \
    {P4_ROLE_NORM1_GAIN, norm1 ".weight", P4_DIM_C},                                                         \
    {P4_ROLE_NORM1_BIAS, norm1 ".bias", P4_DIM_C},                                                           \
    {P4_ROLE_QKV, "self_attention.query_key_value.weight", P4_DIM_QKV},                                      \
    {P4_ROLE_QKV_BIAS, "self_attention.query_key_value.bias", P4_DIM_QKV},                                   \
    {P4_ROLE_O, "self_attention.dense.weight", P4_DIM_C},                                                    \
    {P4_ROLE_O_BIAS, "self_attention.dense.bias", P4_DIM_C},                                                 \
    {P4_ROLE_NORM2_GAIN, norm2 ".weight", P4_DIM_C},                                                         \
    {P4_ROLE_NORM2_BIAS, norm2 ".bias", P4_DIM_C},                                                           \
    {P4_ROLE_UP, "mlp.dense_h_to_4h.weight", P4_DIM_UP},                                                     \
    {P4_ROLE_UP_BIAS, "mlp.dense_h_to_4h.bias", P4_DIM_UP},                                                  \
    {P4_ROLE_DOWN, "mlp.dense_4h_to_h.weight", P4_DIM_C},                                                    \
    {P4_ROLE_DOWN_BIAS, "mlp.dense_4h_to_h.bias", P4_DIM_C},                                                 \
    {P4_ROLE_FINAL_GAIN, "transformer.ln_f.weight", P4_DIM_C},                                               \
    {P4_ROLE_FINAL_BIAS, "transformer.ln_f.bias", P4_DIM_C},                                                 \
    {P4_ROLE_HEAD, "lm_head.weight", P4_DIM_V}

static const p4_tensor_row falcon_rows[] = {FALCON_ROWS("input_layernorm", "post_attention_layernorm")};
static const p4_tensor_row falcon_branches_rows[] = {FALCON_ROWS("ln_attn", "ln_mlp")};
/* clang-format on */

static const p4_family falcon_branches = {
    .prefix = "",
    .layers = "transformer.h",
    ROWS(falcon_branches_rows),
};

static const p4_family falcon = {
    .title = "Falcon 1 and 2 (with rotary positions)",
    .features = {.layer_norm = true, .activation = P4_GELU_ERF},
    .prefix = "",
    .layers = "transformer.h",
    .two_branches = &falcon_branches,
    ROWS(falcon_rows),
};

/* Of a block whose MLP is a mixture of experts; their names differ. */
/* clang-format off */
#define EXPERT_ROWS(router, gate, up, down)                                                                  \
    {P4_ROLE_EMBED, "model.embed_tokens.weight", P4_DIM_V},                                                  \
    {P4_ROLE_NORM1_GAIN, "input_layernorm.weight", P4_DIM_C},                                                \
    {P4_ROLE_QKV, "self_attn.q_proj.weight", P4_DIM_Q},                                                      \
    {P4_ROLE_QKV, "self_attn.k_proj.weight", P4_DIM_KV},                                                     \
    {P4_ROLE_QKV, "self_attn.v_proj.weight", P4_DIM_KV},                                                     \
    {P4_ROLE_QKV_BIAS, "self_attn.q_proj.bias", P4_DIM_Q},                                                   \
    {P4_ROLE_QKV_BIAS, "self_attn.k_proj.bias", P4_DIM_KV},                                                  \
    {P4_ROLE_QKV_BIAS, "self_attn.v_proj.bias", P4_DIM_KV},                                                  \
    {P4_ROLE_Q_GAIN, "self_attn.q_norm.weight", P4_DIM_QN},                                                  \
    {P4_ROLE_K_GAIN, "self_attn.k_norm.weight", P4_DIM_KN},                                                  \
    {P4_ROLE_O, "self_attn.o_proj.weight", P4_DIM_C},                                                        \
    {P4_ROLE_O_BIAS, "self_attn.o_proj.bias", P4_DIM_C},                                                     \
    {P4_ROLE_NORM2_GAIN, "post_attention_layernorm.weight", P4_DIM_C},                                       \
    {P4_ROLE_ROUTER, router, P4_DIM_E},                                                                      \
    {P4_ROLE_UP, gate, P4_DIM_F},                                                                            \
    {P4_ROLE_UP, up, P4_DIM_F},                                                                              \
    {P4_ROLE_DOWN, down, P4_DIM_C}
#define FINAL_ROWS                                                                                           \
    {P4_ROLE_FINAL_GAIN, "model.norm.weight", P4_DIM_C},                                                     \
    {P4_ROLE_HEAD, "lm_head.weight", P4_DIM_V}

static const p4_tensor_row expert_rows[] = {
    EXPERT_ROWS("mlp.gate.weight", "mlp.experts.*.gate_proj.weight", "mlp.experts.*.up_proj.weight",
                "mlp.experts.*.down_proj.weight"),
    /* of layers without experts */
    {P4_ROLE_UP, "mlp.gate_proj.weight", P4_DIM_F},
    {P4_ROLE_UP, "mlp.up_proj.weight", P4_DIM_F},
    {P4_ROLE_DOWN, "mlp.down_proj.weight", P4_DIM_C},
    FINAL_ROWS,
};

static const p4_tensor_row mixtral_rows[] = {
    EXPERT_ROWS("block_sparse_moe.gate.weight", "block_sparse_moe.experts.*.w1.weight",
                "block_sparse_moe.experts.*.w3.weight", "block_sparse_moe.experts.*.w2.weight"),
    FINAL_ROWS,
};
/* clang-format on */

/* As the reference library holds them in memory, and writes them on request. */
#define FUSED_EXPERTS .fused_up = "mlp.experts.gate_up_proj", .fused_down = "mlp.experts.down_proj"

static const p4_family qwen3_moe = {
    .title = "Qwen3 (mixture of experts)",
    .features = {.gated_mlp = true, .activation = P4_SILU, .qk_norm = P4_QK_NORM_HEAD},
    FUSED_EXPERTS,
    MODEL_LAYERS(expert_rows),
};

static const p4_family mixtral = {
    .title = "Mixtral",
    .features = {.gated_mlp = true, .activation = P4_SILU, .normed_shares = true},
    .other_router = "mlp.gate.weight",
    FUSED_EXPERTS,
    MODEL_LAYERS(mixtral_rows),
};

static const p4_family olmoe = {
    .title = "OLMoE",
    .features = {.gated_mlp = true, .activation = P4_SILU, .qk_norm = P4_QK_NORM_WHOLE},
    FUSED_EXPERTS,
    MODEL_LAYERS(expert_rows),
};

static const struct {
    const char *name;
    const p4_family *family;
} table[] = {
#define ENTRY(name) {#name, &(name)},
    P4_FAMILIES(ENTRY)
#undef ENTRY
};
enum { FAMILY_COUNT = sizeof table / sizeof table[0] };

const p4_family *p4_family_find(const char *name)
{
    for (int f = 0; f < FAMILY_COUNT; f++) {
        if (strcmp(table[f].name, name) == 0) {
            return table[f].family;
        }
    }
    return NULL;
}

const char *p4_family_name(int64_t i)
{
    return i >= 0 && i < FAMILY_COUNT ? table[i].name : NULL;
}

const char *p4_family_tensor(const p4_family *family, p4_role role)
{
    for (int64_t r = 0; r < family->row_count; r++) {
        if (family->row[r].role == role) {
            return family->row[r].name;
        }
    }
    return NULL;
}

const char *p4_supported_families(void)
{
#define NAME(name) ", " #name
    static const char names[] = P4_FAMILIES(NAME);
#undef NAME
    return names + strlen(", ");
}

const char *p4_family_prefix(const char *name)
{
    const p4_family *found = p4_family_find(name);
    return found != NULL ? found->prefix : "";
}

void p4_families_print(FILE *out, bool markdown)
{
    for (int f = 0; f < FAMILY_COUNT; f++) {
        fprintf(out, markdown ? "- `%s`: %s\n" : "  %-12s %s\n", table[f].name, table[f].family->title);
    }
}
