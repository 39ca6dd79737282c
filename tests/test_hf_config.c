/* config.json -> architecture: every key, both styles of rotary keys, and what is refused. */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "io/hf/hf_model.h"
#include "io/hf/hf_readers.h"

typedef struct pair {
    const char *key, *value; /* value: JSON */
} pair;

enum { MOST_CHANGES = 3 };

static const pair llama[] = {{"model_type", "\"llama\""},
                             {"vocab_size", "100"},
                             {"hidden_size", "24"},
                             {"num_hidden_layers", "2"},
                             {"num_attention_heads", "6"},
                             {"num_key_value_heads", "2"},
                             {"intermediate_size", "40"},
                             {"max_position_embeddings", "64"},
                             {"rms_norm_eps", "1e-05"},
                             {"hidden_act", "\"silu\""},
                             {NULL, NULL}};

static const pair gpt2[] = {{"model_type", "\"gpt2\""},
                            {"vocab_size", "100"},
                            {"n_embd", "24"},
                            {"n_layer", "2"},
                            {"n_head", "3"},
                            {"n_positions", "32"},
                            {"n_ctx", "32"},
                            {"activation_function", "\"gelu_new\""},
                            {NULL, NULL}};

/* The base with some keys changed (value NULL: absent), others added. */
static size_t make_json(char *json, size_t bytes, const pair *base, const pair *changes)
{
    size_t used = (size_t)snprintf(json, bytes, "{");
    const char *comma = "";
    for (const pair *p = base; p->key != NULL; p++) {
        bool changed = false;
        for (int c = 0; c < MOST_CHANGES && changes[c].key != NULL; c++) {
            changed = changed || strcmp(changes[c].key, p->key) == 0;
        }
        if (!changed) {
            used += (size_t)snprintf(json + used, bytes - used, "%s\"%s\": %s", comma, p->key, p->value);
            comma = ", ";
        }
    }
    for (int c = 0; c < MOST_CHANGES && changes[c].key != NULL; c++) {
        if (changes[c].value != NULL) {
            used += (size_t)snprintf(json + used, bytes - used, "%s\"%s\": %s", comma, changes[c].key,
                                     changes[c].value);
            comma = ", ";
        }
    }
    return used + (size_t)snprintf(json + used, bytes - used, "}");
}

static p4_rc parse(p4_arch *arch, const pair *base, const pair *changes)
{
    char json[2048];
    size_t bytes = make_json(json, sizeof json, base, changes);
    char *exact = malloc(bytes); /* without a NUL: a read beyond it is seen */
    memcpy(exact, json, bytes);
    p4_rc rc = p4_hf_config_parse(arch, exact, bytes, "config.json");
    free(exact);
    return rc;
}

static const struct {
    const pair *base;
    pair changes[MOST_CHANGES];
    const char *refusal; /* NULL: accepted */
} cases[] = {
    /* families */
    {llama, {{"model_type", NULL}}, "required key \"model_type\" is missing; supported: "},
    {llama, {{"model_type", "\"mamba\""}}, "model_type \"mamba\" is not supported; supported: "},
    {llama, {{"model_type", "7"}}, "\"model_type\" is a number, expected a string"},
    {llama, {{"architectures", "[\"LlamaForCausalLM\"]"}}, NULL},
    {llama, {{"architectures", "null"}}, NULL},
    {llama, {{"architectures", "[]"}}, NULL},
    {llama, {{"architectures", "[\"LlamaForSequenceClassification\"]"}}, "LlamaForSequenceClassification"},
    {llama, {{"architectures", "[3]"}}, "expected class names"},
    {llama, {{"quantization_config", "{\"quant_method\": \"gptq\"}"}}, "already quantized"},
    {llama, {{"quantization_config", "null"}}, NULL},
    /* required keys */
    {llama, {{"vocab_size", NULL}}, "required key \"vocab_size\" is missing"},
    {llama, {{"hidden_size", "null"}}, "required key \"hidden_size\" is missing"},
    {llama, {{"num_hidden_layers", NULL}}, "\"num_hidden_layers\" is missing"},
    {llama, {{"num_attention_heads", NULL}}, "\"num_attention_heads\" is missing"},
    {llama, {{"intermediate_size", NULL}}, "\"intermediate_size\" is missing"},
    {gpt2, {{"vocab_size", NULL}}, "\"vocab_size\" is missing"},
    {gpt2, {{"n_embd", NULL}}, "\"n_embd\" is missing"},
    {gpt2, {{"n_layer", NULL}}, "\"n_layer\" is missing"},
    {gpt2, {{"n_head", NULL}}, "\"n_head\" is missing"},
    {gpt2, {{"n_positions", NULL}}, "\"n_positions\" is missing"},
    /* types and ranges */
    {llama, {{"vocab_size", "\"100\""}}, "\"vocab_size\" is a string, expected a number"},
    {llama, {{"vocab_size", "true"}}, "\"vocab_size\" is true or false, expected a number"},
    {llama, {{"vocab_size", "100.5"}}, "is 100.5, expected a whole number"},
    {llama, {{"vocab_size", "0"}}, "is 0, expected 1 to 268435456"},
    {llama, {{"vocab_size", "-100"}}, "is -100, expected"},
    {llama, {{"vocab_size", "1e300"}}, "is 1e+300, expected"},
    {llama, {{"vocab_size", "1e400"}}, "is inf, expected"},
    {llama, {{"num_hidden_layers", "100000000"}}, "\"num_hidden_layers\" is 100000000, expected 1 to 4096"},
    {llama, {{"hidden_size", "9223372036854775807"}}, "\"hidden_size\""},
    {llama, {{"hidden_size", "4194304"}, {"head_dim", "64"}}, "hidden size is 4194304"},
    {llama,
     {{"num_attention_heads", "65536"}, {"head_dim", "65536"}, {"num_key_value_heads", "1"}},
     "65536 heads"},
    {llama, {{"rms_norm_eps", "0"}}, "\"rms_norm_eps\""},
    {llama, {{"rms_norm_eps", "[1e-5]"}}, "is a list, expected a number"},
    {llama, {{"attention_bias", "1"}}, "\"attention_bias\" is a number, expected true or false"},
    {llama, {{"mlp_bias", "\"no\""}}, "\"mlp_bias\" is a string"},
    {llama, {{"tie_word_embeddings", "{}"}}, "\"tie_word_embeddings\" is an object"},
    /* heads */
    {llama, {{"num_key_value_heads", "4"}}, "6 heads cannot share 4"},
    {llama, {{"num_attention_heads", "5"}, {"num_key_value_heads", "5"}}, "not a multiple"},
    {llama, {{"num_attention_heads", "5"}, {"num_key_value_heads", "1"}, {"head_dim", "8"}}, NULL},
    {llama, {{"head_dim", "7"}}, "even"},
    {llama, {{"head_dim", "0"}}, "\"head_dim\" is 0"},
    {llama, {{"head_dim", "4.5"}}, "\"head_dim\" is 4.5, expected a whole number"},
    {gpt2, {{"n_head", "5"}}, "not a multiple"},
    /* what the network here does not compute */
    {llama, {{"hidden_act", "\"gelu\""}}, NULL},
    {llama, {{"hidden_act", "\"mish\""}}, "\"hidden_act\" is \"mish\", supported: silu, swish, gelu"},
    {llama, {{"hidden_act", "\"swish\""}}, NULL},
    {llama, {{"hidden_act", NULL}}, NULL},
    {llama, {{"pretraining_tp", "1"}}, NULL},
    {llama, {{"pretraining_tp", "2"}}, NULL},
    {gpt2, {{"activation_function", "\"gelu_pytorch_tanh\""}}, NULL},
    {gpt2, {{"activation_function", "\"gelu_fast\""}}, NULL},
    {gpt2, {{"activation_function", "\"gelu_python_tanh\""}}, NULL},
    {gpt2, {{"activation_function", "\"gelu_accurate\""}}, NULL},
    {gpt2, {{"activation_function", "\"quick_gelu\""}}, "\"quick_gelu\", supported: silu, swish, gelu"},
    {gpt2, {{"activation_function", "\"relu\""}}, NULL},
    {gpt2, {{"activation_function", "\"gelu\""}}, NULL},
    {gpt2, {{"scale_attn_weights", "1"}}, "\"scale_attn_weights\" is a number"},
    {gpt2, {{"scale_attn_weights", "true"}, {"reorder_and_upcast_attn", "true"}}, NULL},
    {gpt2, {{"n_embd", NULL}, {"hidden_size", "24"}}, NULL},
    {gpt2, {{"n_layer", NULL}, {"num_hidden_layers", "2"}}, NULL},
    {gpt2, {{"hidden_size", "24"}}, NULL},
    {gpt2, {{"hidden_size", "48"}}, "\"n_embd\" is 24 and \"hidden_size\", another name of it, is 48"},
    {gpt2, {{"n_head", NULL}, {"num_attention_heads", "0"}}, "\"num_attention_heads\" is 0"},
    {gpt2, {{"add_cross_attention", "true"}}, "\"add_cross_attention\" is true"},
    /* token ids */
    {llama, {{"eos_token_id", "1.5"}}, "\"eos_token_id\" is 1.5"},
    {llama, {{"eos_token_id", "-1"}}, "\"eos_token_id\" is -1"},
    {llama, {{"eos_token_id", "[\"x\"]"}}, "\"eos_token_id\" holds a string"},
    {llama, {{"bos_token_id", "true"}}, "\"bos_token_id\" holds true or false"},
    /* rotary positions */
    {llama, {{"rope_theta", "\"1e4\""}}, "\"rope_theta\" is a string"},
    {llama, {{"rope_theta", "0"}}, "\"rope_theta\" is 0"},
    {llama, {{"rope_theta", "null"}}, "\"rope_theta\" is null, expected a number"},
    {llama, {{"rope_theta", "null"}, {"rope_parameters", "{\"rope_theta\": 5000}"}}, NULL},
    {llama, {{"rope_parameters", "{\"rope_theta\": null}"}}, "\"rope_parameters.rope_theta\" is null"},
    {llama, {{"partial_rotary_factor", "0.5"}}, "\"partial_rotary_factor\" is 0.5, supported is only 1"},
    {llama,
     {{"rope_scaling", "{\"rope_type\": \"m\"}"}, {"rope_parameters", "{\"rope_type\": \"default\"}"}},
     "\"m\" is not supported"},
    {llama, {{"rope_scaling", "{}"}, {"rope_parameters", "{\"rope_type\": \"m\"}"}}, "\"m\" is not"},
    {llama, {{"rope_scaling", "[]"}}, "\"rope_scaling\" is a list, expected an object"},
    {llama,
     {{"rope_scaling", "{\"type\": \"proportional\", \"factor\": 2}"}},
     "\"proportional\" is not supported; supported: default, linear, llama3, dynamic, yarn, longrope"},
    {llama, {{"rope_scaling", "{\"type\": \"su\"}"}}, "\"su\" is not supported"},
    {llama, {{"rope_scaling", "{\"type\": \"dynamic\"}"}}, "\"rope_scaling.factor\" is missing"},
    {llama, {{"rope_scaling", "{\"type\": \"yarn\"}"}}, "\"rope_scaling.factor\" is missing"},
    {llama, {{"rope_scaling", "{\"type\": \"yarn\", \"factor\": null}"}}, NULL},
    {llama,
     {{"rope_scaling", "{\"type\": \"yarn\", \"factor\": 2, \"truncate\": 1}"}},
     "\"rope_scaling.truncate\" is a number"},
    {llama,
     {{"rope_scaling", "{\"type\": \"yarn\", \"factor\": 2, \"attention_factor\": 0}"}},
     "\"rope_scaling.attention_factor\" is 0"},
    {llama,
     {{"rope_scaling", "{\"type\": \"yarn\", \"factor\": 2}"}, {"rope_theta", "1"}},
     "needs a theta above 1"},
    {llama,
     {{"rope_scaling", "{\"type\": \"yarn\", \"factor\": 2}"}, {"original_max_position_embeddings", "0"}},
     "\"original_max_position_embeddings\" is 0"},
    {llama, /* heads of 4 elements: two factors */
     {{"rope_scaling", "{\"type\": \"longrope\", \"short_factor\": [1, 2], \"long_factor\": [1, 3.5]}"}},
     NULL},
    {llama,
     {{"rope_scaling", "{\"type\": \"longrope\", \"short_factor\": [1, 2], \"long_factor\": [1]}"}},
     "\"rope_scaling.long_factor\" is not a list of 2 numbers"},
    {llama,
     {{"rope_scaling", "{\"type\": \"longrope\", \"long_factor\": [1, 2]}"}},
     "\"rope_scaling.short_factor\" is not a list of 2 numbers"},
    {llama,
     {{"rope_scaling", "{\"type\": \"longrope\", \"short_factor\": [1, 0], \"long_factor\": [1, 2]}"}},
     "\"rope_scaling.short_factor\" holds something other than a number"},
    {llama, {{"rope_scaling", "{\"rope_type\": 1}"}}, "\"rope_scaling.rope_type\" is a number"},
    {llama, {{"rope_scaling", "{\"type\": \"linear\"}"}}, "\"rope_scaling.factor\" is missing"},
    {llama, {{"rope_scaling", "{\"type\": \"linear\", \"factor\": 0}"}}, "\"rope_scaling.factor\" is 0"},
    {llama, {{"rope_scaling", "{\"type\": \"linear\", \"factor\": 2, \"factor\": 3}"}}, "appears 2 times"},
    {llama,
     {{"rope_parameters", "{\"rope_type\": \"llama3\", \"factor\": 8}"}},
     "\"rope_parameters.low_freq_factor\" is missing"},
    {llama,
     {{"rope_scaling",
       "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4, "
       "\"original_max_position_embeddings\": 8192}"}},
     "expected above low_freq_factor"},
    {llama, {{"rope_parameters", "{\"full_attention\": {\"rope_type\": \"default\"}}"}}, "differ by layer"},
    {llama, {{"rope_parameters", "{\"partial_rotary_factor\": 0.5}"}}, "partial_rotary_factor"},
    {llama, {{"rope_parameters", "{\"partial_rotary_factor\": 1.0}"}}, NULL},
};

static void test_cases(void)
{
    p4_arch arch;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (cases[i].refusal == NULL) {
            EXPECT_OK(parse(&arch, cases[i].base, cases[i].changes));
        } else {
            EXPECT_REFUSED(parse(&arch, cases[i].base, cases[i].changes), cases[i].refusal);
            p4_error_clear();
            (void)parse(&arch, cases[i].base, cases[i].changes);
            EXPECT(strncmp(p4_last_error(), "config.json: ", 13) == 0, "the file is not named: %s",
                   p4_last_error());
            p4_error_clear();
        }
    }
}

/* Each family of the table has a reader, and each message about an unknown family names them all. */
static void test_families(void)
{
    static const pair unknown[MOST_CHANGES] = {{"model_type", "\"mamba\""}},
                      missing[MOST_CHANGES] = {{"model_type", NULL}};
    p4_arch arch;
    for (int64_t i = 0; p4_family_name(i) != NULL; i++) {
        const p4_hf_reader *reader = p4_hf_reader_find(p4_family_name(i));
        EXPECT(reader != NULL && reader->read != NULL && reader->architectures[0] != NULL, "%s",
               p4_family_name(i));
    }
    EXPECT(p4_hf_reader_find("mamba") == NULL, "a reader of an unknown family");
    EXPECT_REFUSED(parse(&arch, llama, unknown), p4_supported_families());
    EXPECT_REFUSED(parse(&arch, llama, missing), p4_supported_families());
}

static void test_text(void)
{
    static const struct {
        const char *json, *refusal;
    } texts[] = {
        {"", "byte 0: not valid JSON"},
        {"{", "not valid JSON"},
        {"[]", "the JSON value is not an object"},
        {"nonsense", "not valid JSON"},
        {"{} x", "byte 3: something follows"},
        {"{\"x\": \"\xff\"}", "byte 7 is not UTF-8"},
        {"{\"x\": 01}", "byte 6: not a JSON number"},
        {"{\"x\": [1.5, -00]}", "byte 12: not a JSON number"},
        {"{\"x\": 1.}", "not a JSON number"},
        {"{\"x\": \"a\\u0000b\"}", "byte 8: a string with \\u0000"},
        {"{\"model_type\": \"llama\", \"model_type\": \"gpt2\"}", "\"model_type\" appears 2 times"},
        {"{\"model_type\": \"llama\",}", "not valid JSON"},
    };
    p4_arch arch;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        EXPECT_REFUSED(p4_hf_config_parse(&arch, texts[i].json, strlen(texts[i].json), "config.json"),
                       texts[i].refusal);
    }
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    memcpy(deep, "{\"a\":", 5);
    EXPECT_REFUSED(p4_hf_config_parse(&arch, deep, 200000, "config.json"), "nested deeper than 1000");
    free(deep);
}

static void test_llama_values(void)
{
    p4_arch a;
    static const pair none[MOST_CHANGES] = {{NULL, NULL}};
    static const pair nulls[] = {
        {"num_key_value_heads", "null"}, {"head_dim", "null"}, {"rope_scaling", "null"}};
    static const pair absent[] = {
        {"num_key_value_heads", NULL}, {"head_dim", "10"}, {"attention_bias", "true"}};
    static const pair ids[] = {{"eos_token_id", "[7, 8]"}, {"bos_token_id", "99"}, {"mlp_bias", "true"}};
    static const pair outside[] = {
        {"eos_token_id", "100"}, {"bos_token_id", "null"}, {"tie_word_embeddings", "true"}};
    EXPECT_OK(parse(&a, llama, none));
    EXPECT(strcmp(a.family, "llama") == 0 && a.V == 100 && a.C == 24 && a.L == 2 && a.H == 6 && a.Hkv == 2 &&
               a.D == 4 && a.F == 40 && a.positions == 64 && a.norm_eps == 1e-5f,
           "numbers");
    EXPECT(a.gated_mlp && !a.layer_norm && !a.learned_positions && !a.qkv_bias && !a.o_bias && !a.mlp_bias &&
               !a.tied && a.window == 0 && a.attention_scale == 0.5f && a.bos_id == -1 && a.eos_id == -1 &&
               a.rope.theta == 1e4 && a.rope.scaling == P4_ROPE_DEFAULT,
           "flags");
    EXPECT_OK(parse(&a, llama, nulls));
    EXPECT(a.Hkv == 6 && a.D == 4, "null key/value heads and head_dim");
    EXPECT_OK(parse(&a, llama, absent));
    EXPECT(a.Hkv == 6 && a.D == 10 && a.qkv_bias && a.o_bias && !a.mlp_bias,
           "explicit head_dim, attention_bias");
    EXPECT_OK(parse(&a, llama, ids));
    EXPECT(a.eos_id == 7 && a.bos_id == 99 && a.mlp_bias && !a.qkv_bias, "ids");
    EXPECT_OK(parse(&a, llama, outside));
    EXPECT(a.eos_id == -1 && a.bos_id == -1 && a.tied, "an id outside the vocabulary is none");
    static const pair defaults[MOST_CHANGES] = {{"rms_norm_eps", NULL}, {"max_position_embeddings", NULL}};
    EXPECT_OK(parse(&a, llama, defaults));
    EXPECT(a.norm_eps == 1e-6f && a.positions == 2048, "the reference library's defaults");
}

static void test_rope_values(void)
{
    p4_arch a;
    static const pair theta[MOST_CHANGES] = {{"rope_theta", "500000.0"}};
    static const pair linear[MOST_CHANGES] = {{"rope_theta", "2000"},
                                              {"rope_scaling", "{\"type\":\"linear\",\"factor\":4.0}"}};
    static const pair both[MOST_CHANGES] = {
        {"rope_theta", "2000"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": 4.0}"},
        {"rope_parameters", "{\"rope_theta\": 3000.0, \"rope_type\": \"default\"}"}};
    static const pair named_twice[MOST_CHANGES] = {
        {"rope_scaling", "{\"type\":\"yarn\",\"rope_type\":\"linear\",\"factor\":3}"}};
    static const pair llama3[MOST_CHANGES] = {
        {"rope_theta", "500000"},
        {"rope_parameters", "{\"rope_type\": \"llama3\", \"factor\": 32.0, \"low_freq_factor\": 1.0, "
                            "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}"}};
    EXPECT_OK(parse(&a, llama, theta));
    EXPECT(a.rope.theta == 5e5, "theta %g", a.rope.theta);
    EXPECT_OK(parse(&a, llama, linear));
    EXPECT(a.rope.theta == 2000 && a.rope.scaling == P4_ROPE_LINEAR && a.rope.factor == 4, "linear");
    EXPECT_OK(parse(&a, llama, both));
    EXPECT(a.rope.theta == 2000 && a.rope.scaling == P4_ROPE_LINEAR && a.rope.factor == 4,
           "rope_scaling counts, as in the reference library");
    EXPECT_OK(parse(&a, llama, named_twice));
    EXPECT(a.rope.scaling == P4_ROPE_LINEAR && a.rope.factor == 3, "rope_type counts over type");
    EXPECT_OK(parse(&a, llama, llama3));
    EXPECT(a.rope.theta == 5e5 && a.rope.scaling == P4_ROPE_LLAMA3 && a.rope.factor == 32 &&
               a.rope.low_freq_factor == 1 && a.rope.high_freq_factor == 4 &&
               a.rope.original_positions == 8192,
           "llama3");
    static const pair short_llama3[MOST_CHANGES] = {
        {"rope_scaling",
         "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4}"}};
    EXPECT_OK(parse(&a, llama, short_llama3));
    EXPECT(a.rope.original_positions == 64, "the reference library's default: max_position_embeddings");
}

static void test_gpt2_values(void)
{
    p4_arch a;
    static const pair none[MOST_CHANGES] = {{NULL, NULL}};
    static const pair changes[] = {
        {"n_inner", "27"}, {"tie_word_embeddings", "false"}, {"layer_norm_epsilon", "1e-6"}};
    static const pair null_inner[MOST_CHANGES] = {{"n_inner", "null"}};
    EXPECT_OK(parse(&a, gpt2, none));
    EXPECT(strcmp(a.family, "gpt2") == 0 && a.C == 24 && a.H == 3 && a.Hkv == 3 && a.D == 8 && a.F == 96 &&
               a.L == 2 && a.positions == 32 && a.norm_eps == 1e-5f && a.tied,
           "numbers");
    EXPECT(a.layer_norm && a.learned_positions && !a.gated_mlp && a.qkv_bias && a.o_bias && a.mlp_bias,
           "flags");
    EXPECT_OK(parse(&a, gpt2, changes));
    EXPECT(a.F == 27 && !a.tied && a.norm_eps == 1e-6f, "changed");
    EXPECT_OK(parse(&a, gpt2, null_inner));
    EXPECT(a.F == 96, "n_inner null");
    EXPECT(fabsf(a.attention_scale - 0.353553f) < 1e-6f && !a.inverse_layer_scale, "usual attention scale");
    static const pair scales[MOST_CHANGES] = {{"scale_attn_weights", "false"},
                                              {"scale_attn_by_inverse_layer_idx", "true"}};
    EXPECT_OK(parse(&a, gpt2, scales));
    EXPECT(a.attention_scale == 1.0f && a.inverse_layer_scale, "attention scale by flags");
}

int main(void)
{
    p4_log_setup(P4_LOG_QUIET, false);
    test_cases();
    test_families();
    test_text();
    test_llama_values();
    test_rope_values();
    test_gpt2_values();
    return TEST_END();
}
