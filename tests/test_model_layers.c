/* What differs by layer in a model and in its parts: windows, positions, experts and layers without them. */
#include "model_world.h"

/* All experts' matrices are one slot, and each expert's read one input. */
static void test_experts(void)
{
    p4_model model;
    p4_arch arch = llama_arch();
    snprintf(arch.family, sizeof arch.family, "mixtral");
    arch.experts = 3;
    arch.experts_used = 2;
    EXPECT_OK(p4_model_init(&model, &arch, ""));
    int64_t up = p4_model_find(&model, P4_ROLE_UP, 1), down = p4_model_find(&model, P4_ROLE_DOWN, 1);
    EXPECT(p4_model_parts(&model, up) == 6 && p4_model_parts(&model, down) == 3 && down == up + 6, "parts");
    expect_param(&model, up + 3, "model.layers.1.block_sparse_moe.experts.1.w3.weight", P4_ROLE_UP, 1, 81, 27,
                 20);
    expect_param(&model, down + 2, "model.layers.1.block_sparse_moe.experts.2.w2.weight", P4_ROLE_DOWN, 1, 40,
                 20, 27);
    expect_param(&model, up - 1, "model.layers.1.block_sparse_moe.gate.weight", P4_ROLE_ROUTER, 1, 0, 3, 20);
    EXPECT(model.params[up + 3].input_offset == 27 && model.params[up + 4].input_offset == 0 &&
               model.params[up + 3].expert == 1 && model.params[down + 2].input_offset == 0 &&
               model.params[up - 1].expert == -1,
           "experts and their inputs");
    EXPECT(p4_model_readers(&model, up + 2) == 2 && p4_model_readers(&model, down) == 1 &&
               p4_model_next_input(&model, up, up) == up + 2 &&
               p4_model_next_input(&model, up, up + 4) == -1 &&
               p4_model_next_input(&model, down, down + 1) == down + 2,
           "readers of an input");
    p4_list none = {.count = 0};
    p4_model_select_ternary(&model, &none, true, true);
    EXPECT(!model.params[up - 1].ternary && model.params[up].ternary, "the router is not ternary");
    p4_model_close(&model);
    arch.experts_used = 4;
    EXPECT_REFUSED(p4_model_init(&model, &arch, ""), "4 experts of 3, expected 1 to 3");
    arch.experts_used = 2;
    arch.parallel = true;
    EXPECT_REFUSED(p4_model_init(&model, &arch, ""), "a mixture of experts in a parallel block");
}

/* Layers with experts and layers without, in a model and in a part of it. */
static void test_some_dense(void)
{
    p4_model model, some;
    p4_arch arch = llama_arch();
    snprintf(arch.family, sizeof arch.family, "qwen3_moe");
    arch.qk_norm = P4_QK_NORM_HEAD;
    arch.L = 4;
    arch.experts = 3;
    arch.experts_used = 2;
    arch.dense_width = 50;
    p4_layer_set_add(&arch.dense, 1);
    p4_layer_set_add(&arch.dense, 2);
    EXPECT_OK(p4_model_init(&model, &arch, ""));
    int64_t up = p4_model_find(&model, P4_ROLE_UP, 1), down = p4_model_find(&model, P4_ROLE_DOWN, 1);
    expect_param(&model, up + 1, "model.layers.1.mlp.up_proj.weight", P4_ROLE_UP, 1, 50, 50, 20);
    expect_param(&model, down, "model.layers.1.mlp.down_proj.weight", P4_ROLE_DOWN, 1, 0, 20, 50);
    EXPECT(p4_model_parts(&model, up) == 2 && p4_model_find(&model, P4_ROLE_ROUTER, 1) == -1 &&
               model.params[up].expert == -1 && p4_model_matrix_rows(&model, up, 0) == 50,
           "a layer without experts");
    up = p4_model_find(&model, P4_ROLE_UP, 3);
    expect_param(&model, up + 5, "model.layers.3.mlp.experts.2.up_proj.weight", P4_ROLE_UP, 3, 135, 27, 20);
    EXPECT(p4_model_parts(&model, up) == 6 && p4_model_find(&model, P4_ROLE_ROUTER, 3) == up - 1,
           "a layer with experts");
    EXPECT(p4_arch_same_layers(&arch, 0, 3) && p4_arch_same_layers(&arch, 1, 2) &&
               !p4_arch_same_layers(&arch, 0, 1) && p4_arch_copies(&arch, P4_ROLE_DOWN, 1) == 1 &&
               p4_arch_copies(&arch, P4_ROLE_DOWN, 0) == 3,
           "kinds of layers");
    EXPECT_OK(p4_model_part_init(&some, &model, 2, 2));
    p4_model_part_take(&some, &model, 2);
    EXPECT(!p4_arch_has_experts(&some.arch, 0) && p4_arch_has_experts(&some.arch, 1) &&
               some.layer_first[2] - some.layer_first[0] == model.layer_first[4] - model.layer_first[2] &&
               strcmp(some.params[some.layer_first[1] - 1].name, "model.layers.2.mlp.down_proj.weight") == 0,
           "a part");
    p4_model_close(&some);
    p4_model_close(&model);
    arch.dense_width = -1;
    EXPECT_REFUSED(p4_model_init(&model, &arch, ""), "MLP width of layers without experts is -1");
    arch.dense_width = 50;
    arch.experts = 0;
    EXPECT_REFUSED(p4_model_init(&model, &arch, ""), "is 50 beside 0 experts");
}

/* Properties that differ by layer, in a model and in a part of it. */
static void test_layers(void)
{
    p4_arch arch = llama_arch(), part;
    p4_model whole, some;
    arch.L = 4;
    EXPECT(p4_arch_window(&arch, 0) == 0 && p4_arch_rotates(&arch, 3) && p4_arch_same_layers(&arch, 0, 3) &&
               p4_arch_attention_scale(&arch, 3) == 0.5f,
           "layers alike");
    EXPECT_OK(p4_model_init(&whole, &arch, ""));
    EXPECT_OK(p4_model_part_init(&some, &whole, 0, 2));
    whole.arch.window = 7;
    whole.arch.some_global = whole.arch.some_unrotated = whole.arch.local_rope = true;
    p4_layer_set_add(&whole.arch.global, 2);
    p4_layer_set_add(&whole.arch.unrotated, 3);
    part = whole.arch;
    part.first_layer = 1;
    for (int64_t l = 0; l < 4; l++) {
        EXPECT(p4_arch_window(&whole.arch, l) == (l == 2 ? 0 : 7), "window of layer %lld", (long long)l);
        EXPECT(p4_arch_uses_local_rope(&whole.arch, l) == (l != 2), "local positions in %lld", (long long)l);
        EXPECT(p4_arch_rotates(&whole.arch, l) == (l != 3), "positions in layer %lld", (long long)l);
        EXPECT(p4_arch_same_layers(&whole.arch, 0, l) == (l < 2), "layers 0 and %lld", (long long)l);
        EXPECT(l == 0 || p4_arch_window(&part, l - 1) == p4_arch_window(&whole.arch, l), "of a part");
        EXPECT(l == 0 || p4_arch_rotates(&part, l - 1) == p4_arch_rotates(&whole.arch, l), "of a part");
    }
    part.inverse_layer_scale = true;
    EXPECT(p4_arch_attention_scale(&part, 2) == 0.125f && !p4_arch_same_layers(&part, 0, 1), "scales");
    p4_model_part_take(&some, &whole, 2);
    EXPECT(some.arch.first_layer == 2, "a part begins at %lld", (long long)some.arch.first_layer);
    part = llama_arch();
    part.learned_positions = true;
    EXPECT(!p4_arch_rotates(&part, 0), "learned positions");
    p4_layer_set_add(&part.global, P4_ARCH_LAYERS_MAX - 1);
    EXPECT(p4_layer_set_has(&part.global, P4_ARCH_LAYERS_MAX - 1) && !p4_layer_set_has(&part.global, 63),
           "the last layer");
    p4_model_close(&some);
    p4_model_close(&whole);
}

int main(void)
{
    test_experts();
    test_some_dense();
    test_layers();
    return TEST_END();
}
