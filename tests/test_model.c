/* The parameter table: order, slots, names, what is ternary, and the bounds of an architecture. */
#include "check.h"
#include "src/model.h"

static p4_arch llama_arch(void)
{
    p4_arch arch;
    EXPECT_OK(p4_arch_init(&arch, "llama"));
    arch.V = 50;
    arch.C = 20;
    arch.L = 3;
    arch.H = 6;
    arch.Hkv = 2;
    arch.D = 4;
    arch.F = 27;
    arch.positions = 64;
    arch.norm_eps = 1e-5f;
    arch.rope_theta = 1e4;
    arch.attention_scale = 0.5f;
    return arch;
}

static p4_arch gpt2_arch(void)
{
    p4_arch arch;
    EXPECT_OK(p4_arch_init(&arch, "gpt2"));
    arch.V = 50;
    arch.C = 21;
    arch.L = 2;
    arch.H = arch.Hkv = 3;
    arch.D = 7;
    arch.F = 84;
    arch.positions = 16;
    arch.norm_eps = 1e-5f;
    arch.attention_scale = 0.4f;
    arch.tied = true;
    return arch;
}

static void expect_param(const p4_model *model, int64_t index, const char *name, p4_role role, int64_t layer,
                         int64_t row_offset, int64_t rows, int64_t cols)
{
    EXPECT(index >= 0 && index < model->params_count, "%s: index %lld", name, (long long)index);
    const p4_param *p = &model->params[index];
    EXPECT(strcmp(p->name, name) == 0 && p->role == role && p->layer == layer &&
               p->row_offset == row_offset && p->rows == rows && p->cols == cols,
           "entry %lld is %s, role %d, layer %lld, offset %lld, [%lld, %lld], expected %s", (long long)index,
           p->name, (int)p->role, (long long)p->layer, (long long)p->row_offset, (long long)p->rows,
           (long long)p->cols, name);
    const p4_weight *w = &model->weights[index];
    EXPECT(w->data == NULL && w->rows == rows && w->cols == cols && w->transposed == p->transposed,
           "%s: weight", name);
}

static void test_llama_plain(void)
{
    p4_model model;
    p4_arch arch = llama_arch();
    EXPECT_OK(p4_model_init(&model, &arch, ""));
    EXPECT(model.params_count == 1 + 3 * 9 + 2, "%lld entries", (long long)model.params_count);
    expect_param(&model, 0, "model.embed_tokens.weight", P4_ROLE_EMBED, -1, 0, 50, 20);
    int64_t q = p4_model_find(&model, P4_ROLE_QKV, 1);
    EXPECT(p4_model_parts(&model, q) == 3, "%lld parts", (long long)p4_model_parts(&model, q));
    expect_param(&model, q, "model.layers.1.self_attn.q_proj.weight", P4_ROLE_QKV, 1, 0, 24, 20);
    expect_param(&model, q + 1, "model.layers.1.self_attn.k_proj.weight", P4_ROLE_QKV, 1, 24, 8, 20);
    expect_param(&model, q + 2, "model.layers.1.self_attn.v_proj.weight", P4_ROLE_QKV, 1, 32, 8, 20);
    int64_t up = p4_model_find(&model, P4_ROLE_UP, 2);
    EXPECT(p4_model_parts(&model, up) == 2, "%lld parts", (long long)p4_model_parts(&model, up));
    expect_param(&model, up + 1, "model.layers.2.mlp.up_proj.weight", P4_ROLE_UP, 2, 27, 27, 20);
    expect_param(&model, p4_model_find(&model, P4_ROLE_O, 0), "model.layers.0.self_attn.o_proj.weight",
                 P4_ROLE_O, 0, 0, 20, 24);
    int64_t last = model.params_count - 1;
    expect_param(&model, last - 1, "model.norm.weight", P4_ROLE_FINAL_GAIN, -1, 0, 1, 20);
    expect_param(&model, last, "lm_head.weight", P4_ROLE_HEAD, -1, 0, 50, 20);
    EXPECT(
        p4_model_find(&model, P4_ROLE_HEAD, -1) == last && p4_model_find(&model, P4_ROLE_QKV_BIAS, 0) == -1 &&
            p4_model_find(&model, P4_ROLE_QKV, 3) == -1 && p4_model_find(&model, P4_ROLE_POSITION, -1) == -1,
        "find");
    for (int64_t l = 0; l < 3; l++) {
        for (int64_t i = model.layer_first[l]; i < model.layer_first[l + 1]; i++) {
            EXPECT(model.params[i].layer == l, "entry %lld is not of layer %lld", (long long)i, (long long)l);
        }
    }
    int64_t block = 2 * 20 + (24 + 8 + 8) * 20 + 20 * 24 + 3 * 27 * 20;
    EXPECT(p4_model_count_elements(&model) == 2 * 50 * 20 + 20 + 3 * block, "%lld elements",
           (long long)p4_model_count_elements(&model));
    p4_model_close(&model);
}

static void test_llama_biases(void)
{
    p4_model model;
    p4_arch arch = llama_arch();
    arch.qkv_bias = arch.o_bias = arch.mlp_bias = arch.tied = true;
    EXPECT_OK(p4_model_init(&model, &arch, ""));
    EXPECT(model.params_count == 1 + 3 * 16 + 1, "%lld entries", (long long)model.params_count);
    EXPECT(p4_model_find(&model, P4_ROLE_HEAD, -1) == -1, "a tied head has no entry");
    int64_t bias = p4_model_find(&model, P4_ROLE_QKV_BIAS, 0);
    EXPECT(p4_model_parts(&model, bias) == 3 && p4_role_is_slot_bias(model.params[bias].role), "parts");
    expect_param(&model, bias + 2, "model.layers.0.self_attn.v_proj.bias", P4_ROLE_QKV_BIAS, 0, 32, 1, 8);
    EXPECT(model.params[bias].vector && !model.params[bias].transposed, "a bias is a vector");
    expect_param(&model, p4_model_find(&model, P4_ROLE_UP_BIAS, 1) + 1, "model.layers.1.mlp.up_proj.bias",
                 P4_ROLE_UP_BIAS, 1, 27, 1, 27);
    p4_model_close(&model);
}

static void test_gpt2(void)
{
    p4_model model;
    p4_arch arch = gpt2_arch();
    EXPECT_OK(p4_model_init(&model, &arch, "transformer."));
    EXPECT(model.params_count == 2 + 2 * 12 + 2, "%lld entries", (long long)model.params_count);
    expect_param(&model, 1, "transformer.wpe.weight", P4_ROLE_POSITION, -1, 0, 16, 21);
    int64_t qkv = p4_model_find(&model, P4_ROLE_QKV, 1);
    EXPECT(p4_model_parts(&model, qkv) == 1 && model.params[qkv].transposed, "c_attn is one Conv1D");
    expect_param(&model, qkv, "transformer.h.1.attn.c_attn.weight", P4_ROLE_QKV, 1, 0, 63, 21);
    expect_param(&model, p4_model_find(&model, P4_ROLE_DOWN, 1), "transformer.h.1.mlp.c_proj.weight",
                 P4_ROLE_DOWN, 1, 0, 21, 84);
    expect_param(&model, p4_model_find(&model, P4_ROLE_FINAL_BIAS, -1), "transformer.ln_f.bias",
                 P4_ROLE_FINAL_BIAS, -1, 0, 1, 21);
    EXPECT(!model.params[0].transposed && !model.params[1].transposed, "embeddings are not Conv1D");
    p4_model_close(&model);
    arch.tied = false;
    EXPECT_OK(p4_model_init(&model, &arch, "transformer."));
    expect_param(&model, model.params_count - 1, "lm_head.weight", P4_ROLE_HEAD, -1, 0, 50, 21);
    p4_model_close(&model);
}

static int64_t count_ternary(p4_model *model, const p4_list *preserve, bool embedding, bool output)
{
    int64_t count = 0;
    p4_model_select_ternary(model, preserve, embedding, output);
    for (int64_t i = 0; i < model->params_count; i++) {
        count += model->params[i].ternary;
        EXPECT(!model->params[i].ternary || !model->params[i].vector, "%s is ternary", model->params[i].name);
    }
    return count;
}

static void test_select(void)
{
    p4_model model;
    p4_arch arch = llama_arch();
    p4_list none = {0}, some = {.count = 2, .bytes = "*.layers.0.*\0*down_proj*"},
            head = {.count = 1, .bytes = "lm_*"};
    EXPECT_OK(p4_model_init(&model, &arch, ""));
    EXPECT(count_ternary(&model, &none, true, true) == 3 * 7, "block matrices");
    EXPECT(!model.params[0].ternary, "the embedding is preserved");
    EXPECT(count_ternary(&model, &none, false, true) == 3 * 7 + 1 && model.params[0].ternary,
           "with the embedding");
    EXPECT(count_ternary(&model, &none, true, false) == 3 * 7 + 1 && !model.params[0].ternary,
           "with the head");
    EXPECT(count_ternary(&model, &some, true, true) == 2 * 6, "two patterns");
    EXPECT(count_ternary(&model, &head, false, false) == 3 * 7 + 1, "a pattern counts for the head too");
    p4_model_close(&model);
    arch = gpt2_arch();
    EXPECT_OK(p4_model_init(&model, &arch, ""));
    EXPECT(count_ternary(&model, &none, false, false) == 2 * 4 + 1, "positions stay");
    p4_model_close(&model);
}

static void test_refusals(void)
{
    p4_arch arch, good = llama_arch();
    p4_model model;
    static const struct {
        size_t field;
        int64_t value;
        const char *part;
    } cases[] = {
        {offsetof(p4_arch, V), 0, "vocabulary is 0"},
        {offsetof(p4_arch, V), INT64_MAX, "vocabulary"},
        {offsetof(p4_arch, C), -1, "hidden size is -1"},
        {offsetof(p4_arch, L), 5000, "layers is 5000"},
        {offsetof(p4_arch, Hkv), 4, "cannot share"},
        {offsetof(p4_arch, Hkv), 0, "key/value heads is 0"},
        {offsetof(p4_arch, D), 5, "even"},
        {offsetof(p4_arch, H), INT64_MAX, "heads is"},
        {offsetof(p4_arch, D), 1 << 16, NULL},
        {offsetof(p4_arch, F), 1LL << 40, "MLP width"},
        {offsetof(p4_arch, positions), 0, "positions is 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        arch = good;
        memcpy((char *)&arch + cases[i].field, &cases[i].value, sizeof cases[i].value);
        if (cases[i].part != NULL) {
            EXPECT_REFUSED(p4_model_init(&model, &arch, ""), cases[i].part);
            EXPECT(model.params == NULL && model.params_count == 0, "the model is not empty");
        } else {
            EXPECT_OK(p4_arch_check(&arch, "arch"));
        }
    }
    arch = good;
    arch.H = arch.Hkv = arch.D = 1 << 16;
    EXPECT_REFUSED(p4_arch_check(&arch, "file"), "file: 65536 heads");
    arch = good;
    arch.norm_eps = NAN;
    EXPECT_REFUSED(p4_arch_check(&arch, "file"), "epsilon");
    EXPECT_REFUSED(p4_arch_init(&arch, "mamba"), "\"mamba\" is not supported; supported: llama, gpt2");
    char prefix[400];
    memset(prefix, 'x', sizeof prefix - 1);
    prefix[sizeof prefix - 1] = '\0';
    EXPECT_REFUSED(p4_model_init(&model, &good, prefix), "too long");
}

/* The list for messages names exactly the rows there are. */
static void test_families(void)
{
    char list[128], *rest = NULL;
    p4_arch arch;
    int count = 0;
    snprintf(list, sizeof list, "%s", p4_supported_families());
    for (char *name = strtok_r(list, ", ", &rest); name != NULL; name = strtok_r(NULL, ", ", &rest)) {
        EXPECT_OK(p4_arch_init(&arch, name));
        EXPECT(strcmp(arch.family, name) == 0 && arch.bos_id == -1 && arch.eos_id == -1, "%s", name);
        count++;
    }
    EXPECT(count == 2, "%d families", count);
    EXPECT(strcmp(p4_family_prefix("gpt2"), "transformer.") == 0 && p4_family_prefix("llama")[0] == '\0',
           "prefix");
}

int main(void)
{
    test_llama_plain();
    test_llama_biases();
    test_gpt2();
    test_select();
    test_refusals();
    test_families();
    return TEST_END();
}
