/* config.json of each family: what is taken where a key is absent, as the reference library's class has it,
 * properties by layer, and what is refused. The values of keys that are there are compared by the fixture
 * models (test_net.c). */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "io/hf/hf_model.h"
#include "io/hf/hf_readers.h"
#include "src/families.h"

static p4_rc parse(p4_arch *arch, const char *family, const char *keys)
{
    char *json = p4_format("{\"model_type\": \"%s\"%s%s}", family, keys[0] != '\0' ? ", " : "", keys);
    p4_rc rc = p4_hf_config_parse(arch, json, strlen(json), "config.json");
    free(json);
    return rc;
}

/* Keys that most families must have. H 4, C 32. */
#define SIZES                                                                                        \
    "\"vocab_size\": 50, \"hidden_size\": 32, \"num_hidden_layers\": 6, \"intermediate_size\": 40, " \
    "\"num_attention_heads\": 4"
#define MANY_HEADS                                                                                    \
    "\"vocab_size\": 50, \"hidden_size\": 256, \"num_hidden_layers\": 6, \"intermediate_size\": 40, " \
    "\"num_attention_heads\": 32"

/* What a file with these keys alone means. */
static void test_absent(void)
{
    static const struct {
        const char *family, *keys;
        int64_t Hkv, D, positions;
        double eps, theta;
        p4_activation activation;
        bool tied, qkv_bias;
    } rows[] = {
        {"llama", SIZES, 4, 8, 2048, 1e-6, 1e4, P4_SILU, false, false},
        {"qwen2", MANY_HEADS, 32, 8, 32768, 1e-6, 1e4, P4_SILU, false, true},
        {"qwen3", MANY_HEADS, 32, 128, 32768, 1e-6, 1e4, P4_SILU, false, false},
        {"mistral", MANY_HEADS, 8, 8, 131072, 1e-6, 1e4, P4_SILU, false, false},
        {"phi", SIZES, 4, 8, 2048, 1e-5, 1e4, P4_GELU_TANH, false, true},
        {"phi3", SIZES, 4, 8, 4096, 1e-5, 1e4, P4_SILU, false, false},
        {"gemma", SIZES ", \"num_key_value_heads\": 1", 1, 256, 8192, 1e-6, 1e4, P4_GELU_TANH, true, false},
        {"gemma2", SIZES, 4, 256, 8192, 1e-6, 1e4, P4_GELU_TANH, true, false},
        {"gemma3_text", SIZES, 4, 256, 131072, 1e-6, 1e6, P4_GELU_TANH, true, false},
        {"gpt_neox", SIZES, 4, 8, 2048, 1e-5, 1e4, P4_GELU_ERF, false, true},
        {"olmo2", SIZES, 4, 8, 2048, 1e-5, 1e4, P4_SILU, false, false},
        {"olmo3", SIZES, 4, 8, 2048, 1e-5, 5e5, P4_SILU, false, false},
        {"smollm3", SIZES, 4, 8, 32768, 1e-6, 2e6, P4_SILU, true, false},
        {"starcoder2", SIZES, 2, 8, 4096, 1e-5, 1e4, P4_GELU_TANH, true, true},
        {"granite", SIZES, 4, 8, 2048, 1e-6, 1e4, P4_SILU, false, false},
        {"cohere", SIZES, 4, 8, 8192, 1e-5, 5e5, P4_SILU, true, false},
        {"falcon", SIZES, 1, 8, 2048, 1e-5, 1e4, P4_GELU_ERF, true, false},
        {"qwen3_moe", SIZES, 4, 8, 32768, 1e-6, 1e4, P4_SILU, false, false},
        {"mixtral", MANY_HEADS, 8, 8, 131072, 1e-5, 1e6, P4_SILU, false, false},
        {"olmoe", SIZES, 4, 8, 4096, 1e-5, 1e4, P4_SILU, false, false},
    };
    p4_arch a;
    for (int64_t f = 0; p4_family_name(f) != NULL; f++) {
        bool found = strcmp(p4_family_name(f), "gpt2") == 0; /* tests/test_hf_config.c has it */
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            found = found || strcmp(p4_family_name(f), rows[i].family) == 0;
        }
        EXPECT(found, "family %s has no row here, expected one with the defaults of its class",
               p4_family_name(f));
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        EXPECT_OK(parse(&a, rows[i].family, rows[i].keys));
        EXPECT(strcmp(a.family, rows[i].family) == 0 && a.Hkv == rows[i].Hkv && a.D == rows[i].D &&
                   a.positions == rows[i].positions && a.norm_eps == (float)rows[i].eps,
               "%s: %lld key/value heads of %lld, %lld positions, epsilon %g", rows[i].family,
               (long long)a.Hkv, (long long)a.D, (long long)a.positions, (double)a.norm_eps);
        EXPECT(a.rope.theta == rows[i].theta && a.rope.scaling == P4_ROPE_DEFAULT &&
                   a.activation == rows[i].activation && a.tied == rows[i].tied &&
                   a.qkv_bias == rows[i].qkv_bias,
               "%s: theta %g, activation %d, tied %d, bias %d", rows[i].family, a.rope.theta,
               (int)a.activation, a.tied, a.qkv_bias);
    }
}

/* windows: for each layer of 6, 'w' where the window is `window`, '.' where there is none. */
static void expect_windows(const char *family, const char *keys, int64_t window, const char *windows)
{
    p4_arch a;
    EXPECT_OK(parse(&a, family, keys));
    for (int64_t l = 0; l < a.L; l++) {
        EXPECT(p4_arch_window(&a, l) == (windows[l] == 'w' ? window : 0), "%s, %s: layer %lld has %lld",
               family, keys, (long long)l, (long long)p4_arch_window(&a, l));
    }
}

#define TYPES(a, b, c, d, e, f)                                                                              \
    "\"layer_types\": [\"" a "_attention\", \"" b "_attention\", \"" c "_attention\", \"" d "_attention\", " \
    "\"" e "_attention\", \"" f "_attention\"]"

static void test_windows(void)
{
    expect_windows("qwen2", MANY_HEADS ", \"sliding_window\": 8, \"max_window_layers\": 2", 0, "......");
    expect_windows(
        "qwen2", MANY_HEADS ", \"use_sliding_window\": true, \"sliding_window\": 8, \"max_window_layers\": 2",
        8, "..wwww");
    expect_windows("qwen3", MANY_HEADS ", \"use_sliding_window\": true, \"max_window_layers\": 0", 4096,
                   "wwwwww");
    expect_windows("qwen3", MANY_HEADS ", \"use_sliding_window\": true, \"sliding_window\": null", 0,
                   "......");
    expect_windows("qwen3",
                   MANY_HEADS
                   ", \"use_sliding_window\": true, \"sliding_window\": 8, \"max_window_layers\": 0, " TYPES(
                       "full", "sliding", "full", "full", "full", "sliding"),
                   8, ".w...w");
    expect_windows("mistral", MANY_HEADS, 4096, "wwwwww");
    expect_windows("mistral", MANY_HEADS ", \"sliding_window\": null", 0, "......");
    expect_windows("phi3", SIZES, 0, "......");
    expect_windows("phi3", SIZES ", \"sliding_window\": 9", 9, "wwwwww");
    expect_windows("starcoder2", SIZES, 0, "......");
    expect_windows("gemma2", SIZES, 4096, "w.w.w.");
    expect_windows("gemma3_text", SIZES ", \"sliding_window\": 12", 12, "wwwww.");
    expect_windows("gemma3_text", SIZES ", \"sliding_window\": 12, \"sliding_window_pattern\": 3", 12,
                   "ww.ww.");
    expect_windows("olmo3", SIZES, 4096, "www.ww");
    expect_windows("olmo3",
                   SIZES
                   ", \"sliding_window\": 5, " TYPES("full", "full", "sliding", "full", "full", "sliding"),
                   5, "..w..w");
    expect_windows("smollm3", SIZES ", \"use_sliding_window\": true, \"sliding_window\": 5", 5, "...w..");
    expect_windows("smollm3", SIZES ", \"sliding_window\": 5", 0, "......");
    expect_windows("qwen3_moe", SIZES ", \"sliding_window\": 5", 0, "......");
    expect_windows("qwen3_moe", SIZES ", \"use_sliding_window\": true", 4096, "wwwwww");
    expect_windows("mixtral", MANY_HEADS, 0, "......");
    expect_windows("mixtral", MANY_HEADS ", \"sliding_window\": 5", 5, "wwwwww");
}

#define YARN "{\"rope_type\": \"yarn\", \"factor\": 8, \"original_max_position_embeddings\": 16}"

/* rotated: for each layer of 6, 'r' or '.'. */
static void expect_rotated(const char *keys, const char *rotated)
{
    p4_arch a;
    EXPECT_OK(parse(&a, "smollm3", keys));
    for (int64_t l = 0; l < a.L; l++) {
        EXPECT(p4_arch_rotates(&a, l) == (rotated[l] == 'r'), "%s: layer %lld", keys, (long long)l);
    }
    EXPECT(a.some_unrotated == (strchr(rotated, '.') != NULL), "%s: some layers are not rotated", keys);
}

static void test_rotation(void)
{
    p4_arch a;
    expect_rotated(SIZES, "rrr.rr");
    expect_rotated(SIZES ", \"no_rope_layer_interval\": 2", "r.r.r.");
    expect_rotated(SIZES ", \"no_rope_layer_interval\": 7", "rrrrrr");
    expect_rotated(SIZES ", \"no_rope_layers\": [0, 1, 1, 0, 1, 1, 0, 0]", ".rr.rr");
    EXPECT_OK(parse(&a, "gpt_neox", SIZES ", \"rotary_emb_base\": 500, \"rotary_pct\": 0.5"));
    EXPECT(a.rope.theta == 500 && a.rope_dim == 4 && a.parallel && a.qkv_by_head && a.layer_norm, "gpt_neox");
    EXPECT_OK(parse(&a, "gpt_neox", SIZES));
    EXPECT(a.rope_dim == 2, "a quarter of 8 elements");
    EXPECT_OK(parse(&a, "phi", SIZES));
    EXPECT(a.rope_dim == 4 && a.parallel && a.shared_norm && a.layer_norm && a.head_bias && a.o_bias &&
               a.mlp_bias,
           "half of 8 elements, one norm for attention and MLP, and biases");
    EXPECT_OK(parse(&a, "phi", SIZES ", \"partial_rotary_factor\": 0.25, \"qk_layernorm\": false"));
    EXPECT(a.rope_dim == 2, "a quarter of 8 elements");
    EXPECT_OK(parse(&a, "gemma3_text",
                    SIZES ", \"rope_theta\": 500, \"rope_local_base_freq\": 70, "
                          "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8}"));
    EXPECT(a.local_rope && a.rope.theta == 500 && a.rope.scaling == P4_ROPE_LINEAR && a.rope.factor == 8 &&
               a.windowed_rope.theta == 70 && a.windowed_rope.scaling == P4_ROPE_DEFAULT,
           "positions of layers with a window");
    EXPECT_OK(parse(&a, "olmo3", SIZES ", \"rope_theta\": 500000, \"rope_scaling\": " YARN));
    EXPECT(a.local_rope && a.rope.theta == 5e5 && a.rope.scaling == P4_ROPE_YARN && a.rope.factor == 8 &&
               a.rope.original_positions == 16 && a.windowed_rope.theta == 5e5 &&
               a.windowed_rope.scaling == P4_ROPE_DEFAULT && a.no_pre_norm && a.post_norm &&
               a.qk_norm == P4_QK_NORM_WHOLE,
           "OLMo 3 scales positions of layers without a window");
    EXPECT_OK(parse(&a, "olmo3",
                    SIZES ", \"rope_parameters\": {\"full_attention\": " YARN ", \"sliding_attention\": "
                          "{\"rope_type\": \"default\", \"rope_theta\": 70}}"));
    EXPECT(a.rope.scaling == P4_ROPE_YARN && a.rope.theta == 5e5 && a.windowed_rope.theta == 70,
           "OLMo 3, newer style");
}

static void test_factors(void)
{
    p4_arch a;
    EXPECT_OK(parse(&a, "gemma2", SIZES));
    EXPECT(a.embedding_scale == sqrtf(32) && a.attention_scale == 0.0625f && a.attention_cap == 50 &&
               a.logit_cap == 30 && a.gain_offset && a.post_norm,
           "Gemma 2");
    EXPECT_OK(
        parse(&a, "gemma2", SIZES ", \"attn_logit_softcapping\": null, \"final_logit_softcapping\": null"));
    EXPECT(a.attention_cap == 0 && a.logit_cap == 0, "no caps");
    EXPECT_OK(
        parse(&a, "gemma3_text", SIZES ", \"attn_logit_softcapping\": 50, \"query_pre_attn_scalar\": 64"));
    EXPECT(a.attention_cap == 0 && a.logit_cap == 0 && a.attention_scale == 0.125f &&
               a.qk_norm == P4_QK_NORM_HEAD,
           "Gemma 3");
    EXPECT_OK(parse(&a, "gemma", SIZES ", \"num_key_value_heads\": 4, \"hidden_act\": \"gelu\""));
    EXPECT(a.activation == P4_GELU_TANH && a.embedding_scale == sqrtf(32) && a.gain_offset && !a.post_norm,
           "Gemma 1");
    EXPECT_OK(parse(&a, "gemma", SIZES ", \"num_key_value_heads\": 4, \"hidden_act\": \"silu\""));
    EXPECT(a.activation == P4_SILU, "another activation");
    EXPECT_OK(parse(&a, "granite", SIZES));
    EXPECT(a.embedding_scale == 0 && a.residual_scale == 0 && a.logit_scale == 0 && a.attention_scale == 1,
           "Granite's factors of 1");
    EXPECT_OK(parse(&a, "granite",
                    SIZES ", \"embedding_multiplier\": 12, \"residual_multiplier\": 0.22, "
                          "\"attention_multiplier\": 0.0078125, \"logits_scaling\": 8"));
    EXPECT(a.embedding_scale == 12 && a.residual_scale == 0.22f && a.logit_scale == 0.125f &&
               a.attention_scale == 0.0078125f,
           "Granite's factors");
    EXPECT_OK(parse(&a, "cohere", SIZES));
    EXPECT(a.logit_scale == 0.0625f && a.no_norm_bias && a.shared_norm && a.parallel && a.rope_pairs,
           "Cohere");
    EXPECT_OK(parse(&a, "cohere", SIZES ", \"logit_scale\": 1, \"attention_bias\": true"));
    EXPECT(a.logit_scale == 0 && a.qkv_bias && a.o_bias, "Cohere without a scale, with biases");
}

/* The blocks of Falcon's models. */
static void test_falcon(void)
{
    p4_arch a;
    EXPECT_OK(parse(&a, "falcon", SIZES));
    EXPECT(a.F == 128 && a.parallel && a.shared_norm && !a.qkv_by_head && !a.o_bias && !a.mlp_bias,
           "as the smaller models of Falcon 1");
    EXPECT_OK(parse(&a, "falcon", SIZES ", \"multi_query\": true, \"num_kv_heads\": 4, \"n_embed\": 64"));
    EXPECT(a.Hkv == 1 && !a.qkv_by_head && a.C == 64 && a.D == 16 && a.F == 256,
           "num_kv_heads has no effect");
    EXPECT_OK(parse(&a, "falcon", SIZES ", \"new_decoder_architecture\": true, \"num_kv_heads\": 2"));
    EXPECT(a.Hkv == 2 && a.qkv_by_head && a.parallel && !a.shared_norm, "as the larger ones");
    EXPECT_OK(parse(&a, "falcon",
                    SIZES ", \"new_decoder_architecture\": true, \"num_kv_heads\": null, "
                          "\"num_ln_in_parallel_attn\": 1"));
    EXPECT(a.Hkv == 4 && a.qkv_by_head && a.shared_norm, "as Falcon 2");
    EXPECT_OK(parse(&a, "falcon",
                    SIZES ", \"multi_query\": false, \"parallel_attn\": false, \"bias\": true, "
                          "\"num_ln_in_parallel_attn\": 2"));
    EXPECT(a.Hkv == 4 && a.qkv_by_head && !a.parallel && !a.shared_norm && a.qkv_bias && a.o_bias &&
               a.mlp_bias,
           "one after the other, with biases");
}

static void expect_experts(const char *family, const char *keys, int64_t experts, int64_t used, int64_t width,
                           bool normed)
{
    p4_arch a;
    EXPECT_OK(parse(&a, family, keys));
    EXPECT(a.experts == experts && a.experts_used == used && a.F == width && a.normed_shares == normed,
           "%s, %s: %lld of %lld experts of width %lld, normalized %d", family, keys,
           (long long)a.experts_used, (long long)a.experts, (long long)a.F, a.normed_shares);
}

/* Both names of the number of experts, of which that of the hub's files counts. */
static void test_experts(void)
{
    p4_arch a;
    expect_experts("qwen3_moe", SIZES, 128, 8, 768, false);
    expect_experts("qwen3_moe",
                   SIZES ", \"num_experts\": 6, \"num_experts_per_tok\": 3, \"norm_topk_prob\": true, "
                         "\"moe_intermediate_size\": 24, \"decoder_sparse_step\": 1, \"mlp_only_layers\": []",
                   6, 3, 24, true);
    expect_experts("qwen3_moe", SIZES ", \"num_local_experts\": 9", 9, 8, 768, false);
    expect_experts("mixtral", MANY_HEADS, 8, 2, 40, true);
    expect_experts("mixtral", MANY_HEADS ", \"num_local_experts\": 5, \"num_experts\": 7", 5, 2, 40, true);
    expect_experts("olmoe", SIZES, 64, 8, 40, false);
    EXPECT_OK(parse(&a, "olmoe", SIZES ", \"clip_qkv\": null"));
    EXPECT(a.qk_norm == P4_QK_NORM_WHOLE && !a.no_pre_norm, "OLMoE's norms");
    EXPECT_OK(parse(&a, "qwen3_moe", SIZES));
    EXPECT(a.qk_norm == P4_QK_NORM_HEAD, "Qwen3's norms");
}

/* Layers without experts; `layers` has a letter for each of six: m with experts, d without. */
static void expect_dense(const char *keys, const char *layers)
{
    p4_arch a;
    EXPECT_OK(parse(&a, "qwen3_moe", keys));
    EXPECT(a.L == (int64_t)strlen(layers), "%lld layers", (long long)a.L);
    for (int64_t l = 0; l < a.L; l++) {
        bool has = layers[l] == 'm';
        EXPECT(p4_arch_has_experts(&a, l) == has && p4_arch_mlp_width(&a, l) == (has ? 768 : 40),
               "%s: layer %lld", keys, (long long)l);
    }
}

static void test_dense_layers(void)
{
    p4_arch a;
    expect_dense(SIZES ", \"mlp_only_layers\": null", "mmmmmm");
    expect_dense(SIZES ", \"mlp_only_layers\": [4, 0, 6, -1, 0]", "dmmmdm");
    expect_dense(SIZES ", \"decoder_sparse_step\": 2", "dmdmdm");
    expect_dense(SIZES ", \"decoder_sparse_step\": 3, \"mlp_only_layers\": [2]", "dddddm");
    expect_dense(SIZES ", \"decoder_sparse_step\": 7, \"norm_topk_prob\": true", "dddddd");
    EXPECT_OK(parse(&a, "qwen3_moe", SIZES ", \"decoder_sparse_step\": 7"));
    EXPECT(a.experts == 0 && a.dense_width == 0 && a.F == 40, "no layer with experts");
}

/* The language model of a model that also takes images, as the hub has it: most sizes are the class's. */
static void test_container(void)
{
    static const char keys[] =
        "\"architectures\": [\"Gemma3ForConditionalGeneration\"], \"eos_token_id\": [1, 106], "
        "\"torch_dtype\": \"bfloat16\", \"vision_config\": {\"model_type\": \"siglip_vision_model\"}, "
        "\"text_config\": {\"bos_token_id\": 2, \"eos_token_id\": 7, \"hidden_size\": 2560, "
        "\"intermediate_size\": 10240, \"model_type\": \"gemma3_text\", "
        "\"num_hidden_layers\": 34, \"rope_scaling\": {\"factor\": 8.0, \"rope_type\": \"linear\"}, "
        "\"sliding_window\": 1024}";
    static const char *const parts[] = {
        "\"model_type\":\t\"gemma3_text\"", "\"architectures\":\t[\"Gemma3ForCausalLM\"]",
        "\"eos_token_id\":\t[1, 106]",      "\"tie_word_embeddings\":\ttrue",
        "\"torch_dtype\":\t\"bfloat16\"",   "\"factor\":\t8.0"};
    p4_arch outer, inner;
    char *json = p4_format("{\"model_type\": \"gemma3\", %s}", keys);
    EXPECT_OK(parse(&outer, "gemma3", keys));
    EXPECT(strcmp(outer.family, "gemma3_text") == 0 && outer.V == 262208 && outer.C == 2560 && outer.H == 8 &&
               outer.Hkv == 4 && outer.D == 256 && outer.L == 34 && outer.window == 1024 && outer.tied &&
               outer.eos_id == 1 && outer.bos_id == 2 && outer.rope.factor == 8,
           "sizes");
    char *text = p4_hf_config_language_model(json);
    EXPECT(text != NULL && strstr(text, "vision_config") == NULL, "%s", text);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        EXPECT(strstr(text, parts[i]) != NULL, "%s lacks %s", text, parts[i]);
    }
    EXPECT_OK(p4_hf_config_parse(&inner, text, strlen(text), "config.json"));
    EXPECT(memcmp(&inner, &outer, sizeof inner) == 0, "the architecture of the object alone");
    free(text);
    text = p4_hf_config_language_model("{\"model_type\": \"llama\"}");
    EXPECT(text != NULL && strcmp(text, "{\"model_type\": \"llama\"}") == 0, "another model's stays");
    free(text);
    free(json);
}

static void test_refused(void)
{
    static const struct {
        const char *family, *keys, *refusal;
    } rows[] = {
        {"qwen2", MANY_HEADS ", \"architectures\": [\"Qwen2ForSequenceClassification\"]",
         "expected Qwen2For"},
        {"qwen2", MANY_HEADS ", " TYPES("full", "full", "full", "full", "full", "sliding"),
         "1 layers have sliding-window attention, but sliding_window gives no window"},
        {"qwen2", MANY_HEADS ", \"layer_types\": [\"full_attention\"]",
         "\"layer_types\" is a list of another"},
        {"qwen2", MANY_HEADS ", \"layer_types\": 3",
         "\"layer_types\" is a number, expected a list of 6 words"},
        {"qwen2", MANY_HEADS ", " TYPES("full", "full", "linear", "full", "full", "full"),
         "layer 2 is \"linear_attention\", supported: full_attention, sliding_attention"},
        {"qwen3", SIZES ", \"num_key_value_heads\": 2, \"head_dim\": null", "\"head_dim\" is null"},
        {"qwen3", SIZES ", \"num_key_value_heads\": 2, \"head_dim\": 7", "even"},
        {"qwen3", MANY_HEADS ", \"sliding_window\": 0", "\"sliding_window\" is 0"},
        {"mistral", MANY_HEADS ", \"hidden_act\": \"quick_gelu\"", "\"quick_gelu\", supported: silu"},
        {"gemma2", SIZES ", \"use_bidirectional_attention\": true", "supported is only false"},
        {"gemma2", SIZES ", \"sliding_window\": null", "3 layers have sliding-window attention, but"},
        {"gemma2", SIZES ", \"final_logit_softcapping\": 0", "\"final_logit_softcapping\" is 0"},
        {"gemma3_text", SIZES ", \"sliding_window_pattern\": 0", "\"sliding_window_pattern\" is 0"},
        {"gemma3", "\"vision_config\": {}", "\"text_config\" is missing, expected an object"},
        {"gemma3", "\"text_config\": []", "\"text_config\" is a list, expected an object"},
        {"gemma3", "\"text_config\": {\"model_type\": \"gemma2\"}",
         "\"text_config.model_type\" is \"gemma2\""},
        {"gemma3", "\"text_config\": {\"num_hidden_layers\": 2}", "\"text_config.hidden_size\" is missing"},
        {"gpt_neox", SIZES ", \"head_dim\": 16", "expected 4 heads of hidden_size / num_attention_heads"},
        {"gpt_neox", SIZES ", \"num_key_value_heads\": 2", "2 key/value heads"},
        {"olmo3", SIZES ", \"sliding_window\": null", "5 layers have sliding-window attention, but"},
        {"olmo3", SIZES ", \"rope_theta\": 10000", "\"rope_theta\" is 10000, supported is only 500000"},
        {"olmo3", SIZES ", \"rope_parameters\": {\"rope_type\": \"default\"}",
         "\"rope_parameters.rope_type\", expected only full_attention and sliding_attention"},
        {"cohere", SIZES ", \"use_qk_norm\": true", "\"use_qk_norm\" is true, supported is only false"},
        {"cohere", SIZES ", \"logit_scale\": null", "\"logit_scale\" is null, expected a number"},
        {"falcon", SIZES ", \"alibi\": true", "\"alibi\" is true, supported is only false"},
        {"falcon", SIZES ", \"multi_query\": false, \"num_kv_heads\": 2",
         "\"num_kv_heads\" is 2 without multi_query and new_decoder_architecture, expected the 4 of"},
        {"falcon", SIZES ", \"new_decoder_architecture\": true, \"parallel_attn\": false",
         "\"parallel_attn\" is false with new_decoder_architecture, supported is only true"},
        {"falcon", SIZES ", \"num_ln_in_parallel_attn\": 2",
         "\"num_ln_in_parallel_attn\" is 2 without new_decoder_architecture, supported is only 1"},
        {"falcon", SIZES ", \"new_decoder_architecture\": true, \"num_ln_in_parallel_attn\": 3",
         "\"num_ln_in_parallel_attn\" is 3"},
        {"falcon", SIZES ", \"new_decoder_architecture\": true, \"num_kv_heads\": 3",
         "4 heads cannot share 3 key/value heads"},
        {"falcon", SIZES ", \"architectures\": [\"RWForCausalLM\"]", "expected FalconForCausalLM"},
        {"phi", SIZES ", \"qk_layernorm\": true", "\"qk_layernorm\" is true, supported is only false"},
        {"phi", SIZES ", \"architectures\": [\"MixFormerSequentialForCausalLM\"]", "expected PhiForCausalLM"},
        {"smollm3", SIZES ", \"no_rope_layers\": [1, 0]", "\"no_rope_layers\" is a shorter list"},
        {"smollm3", SIZES ", \"no_rope_layers\": [1, 0, 2, 0, 0, 0]", "expected 0 or 1 for layer 2"},
        {"smollm3", SIZES ", \"no_rope_layer_interval\": 0", "\"no_rope_layer_interval\" is 0"},
        {"granite", SIZES ", \"logits_scaling\": 0", "\"logits_scaling\" is 0"},
        {"mixtral", MANY_HEADS ", \"num_experts_per_tok\": 9", "9 experts of 8, expected 1 to 8"},
        {"qwen3_moe", SIZES ", \"decoder_sparse_step\": 0", "\"decoder_sparse_step\" is 0"},
        {"qwen3_moe", SIZES ", \"mlp_only_layers\": 1", "\"mlp_only_layers\" is a number, expected a list"},
        {"qwen3_moe", SIZES ", \"mlp_only_layers\": [0, 0.5]", "\"mlp_only_layers\" holds a fraction"},
        {"qwen3_moe", SIZES ", \"mlp_only_layers\": [\"1\"]", "\"mlp_only_layers\" holds a string"},
        {"olmoe", SIZES ", \"clip_qkv\": 8.0", "\"clip_qkv\" clips queries, keys and values"},
        {"qwen2_moe", SIZES, "model_type \"qwen2_moe\" is not supported; supported: llama, gpt2, qwen2"},
        {"deepseek_v3", SIZES, "model_type \"deepseek_v3\" is not supported; supported: "},
    };
    p4_arch a;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        EXPECT_REFUSED(parse(&a, rows[i].family, rows[i].keys), rows[i].refusal);
        p4_error_clear();
    }
}

int main(void)
{
    p4_log_setup(P4_LOG_QUIET, false);
    test_absent();
    test_windows();
    test_rotation();
    test_factors();
    test_falcon();
    test_experts();
    test_dense_layers();
    test_container();
    test_refused();
    return TEST_END();
}
