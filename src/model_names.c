#include "src/model_names.h"

#include <string.h>

/* Parts of a slot stand next to each other (q, k, v; gate, up): in memory they become one fused matrix. */
static const p4_tensor_row llama_rows[] = {
    {P4_ROLE_EMBED, "model.embed_tokens.weight", P4_DIM_V, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_NORM1_GAIN, "input_layernorm.weight", P4_DIM_ONE, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_QKV, "self_attn.q_proj.weight", P4_DIM_Q, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_QKV, "self_attn.k_proj.weight", P4_DIM_KV, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_QKV, "self_attn.v_proj.weight", P4_DIM_KV, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_QKV_BIAS, "self_attn.q_proj.bias", P4_DIM_ONE, P4_DIM_Q, P4_WITH_QKV_BIAS},
    {P4_ROLE_QKV_BIAS, "self_attn.k_proj.bias", P4_DIM_ONE, P4_DIM_KV, P4_WITH_QKV_BIAS},
    {P4_ROLE_QKV_BIAS, "self_attn.v_proj.bias", P4_DIM_ONE, P4_DIM_KV, P4_WITH_QKV_BIAS},
    {P4_ROLE_O, "self_attn.o_proj.weight", P4_DIM_C, P4_DIM_Q, P4_ALWAYS},
    {P4_ROLE_O_BIAS, "self_attn.o_proj.bias", P4_DIM_ONE, P4_DIM_C, P4_WITH_O_BIAS},
    {P4_ROLE_NORM2_GAIN, "post_attention_layernorm.weight", P4_DIM_ONE, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_UP, "mlp.gate_proj.weight", P4_DIM_F, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_UP, "mlp.up_proj.weight", P4_DIM_F, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_UP_BIAS, "mlp.gate_proj.bias", P4_DIM_ONE, P4_DIM_F, P4_WITH_MLP_BIAS},
    {P4_ROLE_UP_BIAS, "mlp.up_proj.bias", P4_DIM_ONE, P4_DIM_F, P4_WITH_MLP_BIAS},
    {P4_ROLE_DOWN, "mlp.down_proj.weight", P4_DIM_C, P4_DIM_F, P4_ALWAYS},
    {P4_ROLE_DOWN_BIAS, "mlp.down_proj.bias", P4_DIM_ONE, P4_DIM_C, P4_WITH_MLP_BIAS},
    {P4_ROLE_FINAL_GAIN, "model.norm.weight", P4_DIM_ONE, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_HEAD, "lm_head.weight", P4_DIM_V, P4_DIM_C, P4_UNTIED},
};

static const p4_tensor_row gpt2_rows[] = {
    {P4_ROLE_EMBED, "wte.weight", P4_DIM_V, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_POSITION, "wpe.weight", P4_DIM_POSITIONS, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_NORM1_GAIN, "ln_1.weight", P4_DIM_ONE, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_NORM1_BIAS, "ln_1.bias", P4_DIM_ONE, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_QKV, "attn.c_attn.weight", P4_DIM_QKV, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_QKV_BIAS, "attn.c_attn.bias", P4_DIM_ONE, P4_DIM_QKV, P4_WITH_QKV_BIAS},
    {P4_ROLE_O, "attn.c_proj.weight", P4_DIM_C, P4_DIM_Q, P4_ALWAYS},
    {P4_ROLE_O_BIAS, "attn.c_proj.bias", P4_DIM_ONE, P4_DIM_C, P4_WITH_O_BIAS},
    {P4_ROLE_NORM2_GAIN, "ln_2.weight", P4_DIM_ONE, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_NORM2_BIAS, "ln_2.bias", P4_DIM_ONE, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_UP, "mlp.c_fc.weight", P4_DIM_F, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_UP_BIAS, "mlp.c_fc.bias", P4_DIM_ONE, P4_DIM_F, P4_WITH_MLP_BIAS},
    {P4_ROLE_DOWN, "mlp.c_proj.weight", P4_DIM_C, P4_DIM_F, P4_ALWAYS},
    {P4_ROLE_DOWN_BIAS, "mlp.c_proj.bias", P4_DIM_ONE, P4_DIM_C, P4_WITH_MLP_BIAS},
    {P4_ROLE_FINAL_GAIN, "ln_f.weight", P4_DIM_ONE, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_FINAL_BIAS, "ln_f.bias", P4_DIM_ONE, P4_DIM_C, P4_ALWAYS},
    {P4_ROLE_HEAD, "lm_head.weight", P4_DIM_V, P4_DIM_C, P4_UNTIED},
};

static const p4_family families[] = {
    {.flags = {.family = "llama", .gated_mlp = true},
     .prefix = "",
     .layers = "model.layers",
     .row = llama_rows,
     .row_count = sizeof llama_rows / sizeof llama_rows[0]},
    {.flags = {.family = "gpt2",
               .layer_norm = true,
               .learned_positions = true,
               .qkv_bias = true,
               .o_bias = true,
               .mlp_bias = true,
               .fused_qkv = true,
               .conv1d = true},
     .prefix = "transformer.",
     .layers = "h",
     .row = gpt2_rows,
     .row_count = sizeof gpt2_rows / sizeof gpt2_rows[0]},
};

const p4_family *p4_family_find(const char *name)
{
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        if (strcmp(families[f].flags.family, name) == 0) {
            return &families[f];
        }
    }
    return NULL;
}

const char *p4_supported_families(void)
{
    return "llama, gpt2";
}
