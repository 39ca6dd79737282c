/* The parameter table: order, slots, names, what is ternary, the bounds of an architecture, and the features
 * and tensors that the network does not compute. */
#include "model_world.h"
#include "src/net_takes.h"

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
    EXPECT_REFUSED(p4_arch_init(&arch, "mamba"), "\"mamba\" is not supported; supported: ");
    EXPECT_REFUSED(p4_arch_init(&arch, "mamba"), p4_supported_families());
    snprintf(arch.family, sizeof arch.family, "mamba");
    EXPECT_REFUSED(p4_model_init(&model, &arch, ""), "\"mamba\" is not supported; supported: ");
    char prefix[400];
    memset(prefix, 'x', sizeof prefix - 1);
    prefix[sizeof prefix - 1] = '\0';
    EXPECT_REFUSED(p4_model_init(&model, &good, prefix), "too long");
}

/* All lists of the supported families agree. */
static void test_families(void)
{
    char list[1024] = "", printed[8192] = "";
    p4_arch arch;
    FILE *out = fmemopen(printed, sizeof printed, "w");
    p4_families_print(out, false);
    p4_families_print(out, true);
    fclose(out);
    for (int64_t i = 0; p4_family_name(i) != NULL; i++) {
        const char *name = p4_family_name(i);
        const p4_family *family = p4_family_find(name);
        size_t used = strlen(list);
        char item[64];
        EXPECT(family != NULL && family->title[0] != '\0', "%s", name);
        snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", name);
        snprintf(item, sizeof item, "- `%s`: ", name);
        EXPECT(strstr(printed, item) != NULL && strstr(printed, family->title) != strstr(printed, item),
               "%s is not in %s", item, printed);
        EXPECT(strcmp(p4_family_prefix(name), family->prefix) == 0, "%s: prefix", name);
        EXPECT_OK(p4_arch_init(&arch, name));
        EXPECT(strcmp(arch.family, name) == 0 && arch.bos_id == -1 && arch.eos_id == -1, "%s", name);
        EXPECT_OK(p4_net_check_arch(&p4_net_computes, &arch, name));
    }
    EXPECT(strcmp(list, p4_supported_families()) == 0, "%s, expected %s", p4_supported_families(), list);
    EXPECT(p4_family_find("mamba") == NULL && p4_family_prefix("mamba")[0] == '\0', "unknown");
}

/* Each feature, set alone, is refused by a network that computes all others. */
static void test_features(void)
{
    for (p4_feature f = 0; f < P4_FEATURE_COUNT; f++) {
        p4_arch arch = {.family = "some"};
        p4_net_takes takes = p4_net_computes;
        char expected[256];
        EXPECT(!p4_arch_has(&arch, f), "feature %d of no value", (int)f);
        switch (f) {
#define P4_CASE(feature, type, member, text) \
    case P4_FEATURE_##feature:               \
        arch.member = (type)1;               \
        break;
            P4_ARCH_FEATURES(P4_CASE)
#undef P4_CASE
        case P4_FEATURE_COUNT:
            break;
        }
        EXPECT(p4_arch_has(&arch, f), "feature %d", (int)f);
        takes.feature[f] = false;
        snprintf(expected, sizeof expected,
                 "config.json: model family \"some\" needs %s, which this version does not compute",
                 p4_feature_text(f));
        EXPECT_REFUSED(p4_net_check_arch(&takes, &arch, "config.json"), expected);
        arch = (p4_arch){.family = "plain"};
        EXPECT_OK(p4_net_check_arch(&takes, &arch, "config.json"));
    }
}

/* Llama's family without row `at`, or with one more row behind it, is refused; part NULL: it is accepted. */
static void expect_rows_refused(int64_t at, bool removes, const p4_tensor_row *added, const char *part)
{
    enum { MOST_ROWS = 40 };
    p4_tensor_row rows[MOST_ROWS];
    p4_model model;
    p4_arch arch = llama_arch();
    p4_family family = *p4_family_find("llama");
    int64_t count = 0;
    EXPECT(family.row_count < MOST_ROWS, "rows");
    for (int64_t r = 0; r < family.row_count; r++) {
        if (r != at || !removes) {
            rows[count++] = family.row[r];
        }
        if (r == at && added != NULL) {
            rows[count++] = *added;
        }
    }
    family.row = rows;
    family.row_count = count;
    snprintf(arch.family, sizeof arch.family, "other");
    if (part == NULL) {
        EXPECT_OK(p4_model_init_family(&model, &arch, &family, ""));
        p4_model_close(&model);
    } else {
        EXPECT_REFUSED(p4_model_init_family(&model, &arch, &family, ""), part);
        EXPECT(model.params == NULL && model.params_count == 0, "the model is not empty");
    }
}

/* A family with a tensor that the network does not use, or without one that it needs, is refused. */
static void test_rows(void)
{
    const p4_family *llama = p4_family_find("llama");
    const p4_tensor_row unknown = {P4_ROLE_COUNT, "self_attn.q_norm.weight", P4_DIM_C},
                        twice = {P4_ROLE_NORM1_GAIN, "other_layernorm.weight", P4_DIM_C},
                        wide = {P4_ROLE_O, "self_attn.o_proj.weight", P4_DIM_F},
                        late = {P4_ROLE_DOWN, "mlp.down_proj.weight", P4_DIM_C},
                        absent = {P4_ROLE_POSITION, "positions.weight", P4_DIM_POSITIONS};
    expect_rows_refused(-1, false, NULL, NULL);
    for (int64_t r = 0; r < llama->row_count; r++) {
        p4_role role = llama->row[r].role;
        p4_arch arch = llama_arch();
        EXPECT(p4_net_computes.role[role] || !p4_arch_has_role(&arch, role), "row %lld", (long long)r);
        expect_rows_refused(r, true, NULL,
                            !p4_arch_has_role(&arch, role) ? NULL
                            : role == P4_ROLE_QKV || role == P4_ROLE_UP
                                ? "rows, expected"
                                : "model family \"other\" has no tensor for ");
        expect_rows_refused(
            r, false, &unknown,
            "model family \"other\" needs the tensor self_attn.q_norm.weight, which this version does "
            "not compute with");
        if (role == P4_ROLE_O) {
            expect_rows_refused(
                r, true, &wide,
                "for O, from model.layers.0.self_attn.o_proj.weight on, have 27 rows, expected 20");
            expect_rows_refused(r, false, &wide, "on, have 47 rows, expected 20");
            expect_rows_refused(r, false, &twice, "3 of its tensors are not beside");
            expect_rows_refused(r, false, &absent, "row self_attn.o_proj.bias is out of order");
        }
    }
    expect_rows_refused(0, false, &absent, NULL);
    expect_rows_refused(llama->row_count - 1, false, &late, "row mlp.down_proj.weight is out of order");
    p4_net_takes takes = p4_net_computes;
    for (p4_role role = 0; role < P4_ROLE_COUNT; role++) {
        takes.role[role] = false;
        EXPECT_REFUSED(p4_net_check_tensor(&takes, "other", role, "x.weight"), "needs the tensor x.weight");
        takes.role[role] = true;
        EXPECT_OK(p4_net_check_tensor(&takes, "other", role, "x.weight"));
    }
}

static void expect_matrices(const p4_arch *arch, p4_role role, p4_dim out, const int64_t *want, int64_t count)
{
    p4_param param = {.role = role, .rows = p4_arch_dim(arch, out)};
    const p4_model model = {.arch = *arch, .params_count = 1, .params = &param};
    for (int64_t m = 0; m <= count; m++) {
        int64_t rows = p4_model_matrix_rows(&model, 0, m), expected = m < count ? want[m] : 0;
        EXPECT(rows == expected, "matrix %lld has %lld rows, expected %lld", (long long)m, (long long)rows,
               (long long)expected);
    }
}

/* The matrices that one tensor holds. */
static void test_matrices(void)
{
    p4_arch arch = llama_arch();
    expect_matrices(&arch, P4_ROLE_QKV, P4_DIM_QKV, (const int64_t[]){24, 8, 8}, 3);
    expect_matrices(&arch, P4_ROLE_QKV, P4_DIM_Q, (const int64_t[]){24}, 1);
    expect_matrices(&arch, P4_ROLE_UP, P4_DIM_UP, (const int64_t[]){27, 27}, 2);
    expect_matrices(&arch, P4_ROLE_UP, P4_DIM_F, (const int64_t[]){27}, 1);
    expect_matrices(&arch, P4_ROLE_DOWN, P4_DIM_C, (const int64_t[]){20}, 1);
    arch = gpt2_arch();
    expect_matrices(&arch, P4_ROLE_UP, P4_DIM_UP, (const int64_t[]){84}, 1);
    arch.qkv_by_head = true;
    expect_matrices(&arch, P4_ROLE_QKV, P4_DIM_QKV, (const int64_t[]){7, 7, 7, 7, 7, 7, 7, 7, 7}, 9);
    arch = llama_arch(); /* 6 heads, 2 for keys and values */
    arch.qkv_by_head = true;
    expect_matrices(&arch, P4_ROLE_QKV, P4_DIM_QKV, (const int64_t[]){12, 4, 4, 12, 4, 4}, 6);
}

/* Features that exclude each other, and values that none has. */
static void test_combinations(void)
{
    const struct {
        p4_arch arch;
        const char *part;
    } cases[] = {
        {{.residual_scale = -1}, "residual scale is -1"},
        {{.logit_cap = INFINITY}, "cap of the logits is inf"},
        {{.rope_dim = 3}, "3 elements of a head are rotated"},
        {{.rope_dim = 8}, "8 elements of a head are rotated"},
        {{.no_pre_norm = true}, "without any norm"},
        {{.shared_norm = true}, "which are not parallel"},
        {{.parallel = true, .post_norm = true}, "parallel blocks with norms of their outputs"},
        {{.layer_norm = true, .gain_offset = true}, "LayerNorm"},
        {{.post_norm = true, .residual_scale = 2}, "both norms and a factor"},
        {{.qkv_by_head = true, .qk_norm = P4_QK_NORM_HEAD}, "by head and norms"},
        {{.window = -1}, "window of -1"},
        {{.shared_norm = true}, "one norm for attention and MLP, which are not parallel"},
        {{.no_norm_bias = true}, "norms without biases, which are not LayerNorm"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        p4_arch arch = llama_arch(), features = cases[i].arch;
        snprintf(features.family, sizeof features.family, "%s", arch.family);
        features.V = arch.V;
        features.C = arch.C;
        features.L = arch.L;
        features.H = arch.H;
        features.Hkv = arch.Hkv;
        features.D = arch.D;
        features.F = arch.F;
        features.positions = arch.positions;
        features.norm_eps = arch.norm_eps;
        features.attention_scale = arch.attention_scale;
        EXPECT_REFUSED(p4_arch_check(&features, "file"), cases[i].part);
    }
    p4_net_takes all_but_one = p4_net_computes;
    p4_arch paired = llama_arch();
    paired.rope_pairs = true;
    EXPECT_OK(p4_net_check_arch(&all_but_one, &paired, "file"));
    all_but_one.feature[P4_FEATURE_ROPE_PAIRS] = false;
    EXPECT_REFUSED(p4_net_check_arch(&all_but_one, &paired, "file"),
                   "needs rotary positions of neighboring elements, which this version");
}

int main(void)
{
    test_matrices();
    test_combinations();
    test_llama_plain();
    test_llama_biases();
    test_gpt2();
    test_select();
    test_refusals();
    test_families();
    test_features();
    test_rows();
    return TEST_END();
}
