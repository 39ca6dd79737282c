#include "io/tokenizer/classes.h"

#include <string.h>

#include "io/tokenizer/buffer.h"

const char *const p4_tok_named[P4_TOK_NAMED] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                "pad_token", "cls_token", "mask_token"};

#define BYTE_LEVEL(use_regex) \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":@PREFIX,\"trim_offsets\":true,\"use_regex\":" use_regex "}"
#define BYTE_DECODER \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true}"
#define SPLIT(letters, others)                                                                            \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"               \
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" letters "+|\\\\p{N}| ?[^\\\\s" others \
    "\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\","    \
    "\"invert\":false}," BYTE_LEVEL("false") "]}"
#define MODEL(affix, fuse, fallback)                                                      \
    "{\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":" affix           \
    ",\"end_of_word_suffix\":" affix ",\"fuse_unk\":" fuse ",\"byte_fallback\":" fallback \
    ",\"ignore_merges\":false}"
#define BYTE_MODEL MODEL("\"\"", "false", "false")
#define MARKED_MODEL MODEL("null", "true", "true")
#define MARK_TO_SPACE "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"}"
#define MARKED_DECODER(strip)                             \
    "{\"type\":\"Sequence\",\"decoders\":[" MARK_TO_SPACE \
    ",{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}" strip "]}"
#define NFC "{\"type\":\"NFC\"}"
#define END "<|endoftext|>"

static const p4_tok_class classes[] = {
    {.name = "GPT2Tokenizer",
     .tokens = {END, END, END},
     .normalizer = "null",
     .pre_tokenizer = BYTE_LEVEL("true"),
     .decoder = BYTE_DECODER,
     .model = BYTE_MODEL,
     .reads_merges = true},
    {.name = "GPTNeoXTokenizer",
     .tokens = {END, END, END, NULL, "<|padding|>"},
     .normalizer = NFC,
     .pre_tokenizer = BYTE_LEVEL("true"),
     .decoder = BYTE_DECODER,
     .model = BYTE_MODEL,
     .reads_merges = true,
     .resets_post = true},
    {.name = "Qwen2Tokenizer",
     .tokens = {NULL, END, END, NULL, END},
     .normalizer = NFC,
     .pre_tokenizer = SPLIT("\\\\p{L}", "\\\\p{L}"),
     .decoder = BYTE_DECODER,
     .model = BYTE_MODEL,
     .reads_merges = true},
    {.name = "Qwen3_5Tokenizer",
     .tokens = {NULL, END, END, NULL, END},
     .normalizer = NFC,
     .pre_tokenizer = SPLIT("[\\\\p{L}\\\\p{M}]", "\\\\p{L}\\\\p{M}"),
     .decoder = BYTE_DECODER,
     .model = BYTE_MODEL,
     .reads_merges = true},
    {.name = "CohereTokenizer",
     .tokens = {"<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<UNK>", "<SEP>", "<PAD>", "<CLS>", "<MASK_TOKEN>"},
     .normalizer = NFC,
     .pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":"
                      "true}," BYTE_LEVEL("true") "]}",
     .decoder = BYTE_DECODER,
     .model = BYTE_MODEL},
    {.name = "LlamaTokenizer",
     .tokens = {"<s>", "</s>", "<unk>"},
     .normalizer = "null",
     .pre_tokenizer =
         "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"@SCHEME\","
         "\"split\":false}",
     .decoder = MARKED_DECODER("@STRIP"),
     .model = MARKED_MODEL,
     .prefix = true,
     .reads_sentencepiece = true},
    {.name = "GemmaTokenizer",
     .tokens = {"<bos>", "<eos>", "<unk>", NULL, "<pad>", NULL, "<mask>"},
     .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}",
     .pre_tokenizer =
         "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\","
         "\"invert\":false}",
     .decoder = MARKED_DECODER(""),
     .model = MARKED_MODEL,
     .names_unknown = true,
     .reads_sentencepiece = true},
};

/* --- which class --- */

/* The class that a model type is registered with in transformers; "": the one that follows tokenizer.json. */
typedef struct registered {
    const char *class_name, *model_types; /* the types with a space on both sides */
    bool wins;                            /* over the tokenizer_class that a directory names */
} registered;
static const registered registry[] = {
    {"Qwen2Tokenizer", " qwen2 ", true},
    {"Qwen3_5Tokenizer", " qwen3_5 qwen3_5_moe qwen3_5_moe_text ", true},
    {"Qwen3_5Tokenizer", " qwen3_5_text ", false},
    {"Qwen2Tokenizer",
     " qwen3 qwen2_moe qwen3_moe qwen3_next qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen2_audio ", false},
    {"GPT2Tokenizer", " gpt2 gptj gpt_neo opt phi codegen starcoder2 dbrx ", false},
    {"GPTNeoXTokenizer", " gpt_neox olmo olmoe mpt ", false},
    {"GemmaTokenizer", " gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text ", false},
    {"CohereTokenizer", " cohere cohere2 ", false},
    {"",
     " mistral mixtral ministral ministral3 mistral3 phi3 phimoe olmo2 olmo3 olmo_hybrid flex_olmo granite "
     "granitemoe granitemoehybrid granitemoeshared stablelm gpt_bigcode glm glm4 glm4_moe persimmon jamba "
     "minicpm3 internlm2 internlm3 ernie4_5 ernie4_5_moe nemotron arctic kimi_linear mimo_v2_flash "
     "minimax_m2 hyperclovax ",
     false},
};

static const registered *find_registered(const char *model_type)
{
    size_t bytes = strlen(model_type);
    for (size_t i = 0; bytes > 0 && i < sizeof registry / sizeof registry[0]; i++) {
        const char *at = registry[i].model_types;
        while ((at = strstr(at, model_type)) != NULL) {
            if (at[-1] == ' ' && at[bytes] == ' ') { /* a list begins with a space */
                return &registry[i];
            }
            at++;
        }
    }
    return NULL;
}

static const p4_tok_class *find_class(const char *name, size_t bytes)
{
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        if (strlen(classes[i].name) == bytes && memcmp(classes[i].name, name, bytes) == 0) {
            return &classes[i];
        }
    }
    return NULL;
}

const p4_tok_class *p4_tok_class_choose(const char *tokenizer_class, const char *model_type, bool byte_level)
{
    const registered *known = find_registered(model_type);
    if (tokenizer_class == NULL) {
        return known != NULL ? find_class(known->class_name, strlen(known->class_name)) : NULL;
    }
    size_t bytes = strlen(tokenizer_class);
    bytes -= bytes > 4 && strcmp(tokenizer_class + bytes - 4, "Fast") == 0 ? 4 : 0;
    const p4_tok_class *named = find_class(tokenizer_class, bytes);
    bool llama = bytes == 14 && memcmp(tokenizer_class, "LlamaTokenizer", bytes) == 0;
    if (llama && byte_level && (known == NULL || !known->wins)) {
        return NULL; /* Llama 3 and after name the class of Llama 2 */
    }
    if (known != NULL && (known->wins || known->class_name[0] == '\0')) {
        return find_class(known->class_name, strlen(known->class_name));
    }
    return named;
}

/* --- its pipeline --- */

static p4_rc substitute(cJSON **item, const char *json, const char *const places[][2], size_t count)
{
    p4_rc rc = P4_OK;
    p4_tok_buffer buffer[2] = {0};
    p4_tok_text text = {json, strlen(json)};
    *item = NULL;
    for (size_t i = 0; i < count; i++) {
        p4_tok_buffer *to = &buffer[i % 2];
        to->bytes = 0;
        TRY(p4_tok_buffer_replace(to, text, (p4_tok_text){places[i][0], strlen(places[i][0])},
                                  (p4_tok_text){places[i][1], strlen(places[i][1])}));
        text = (p4_tok_text){to->data, to->bytes};
    }
    *item = cJSON_ParseWithLength(text.data, text.bytes);
    CHECK(*item != NULL, "out of memory: the pipeline of a tokenizer class");
done:
    p4_tok_buffer_free(&buffer[0]);
    p4_tok_buffer_free(&buffer[1]);
    return rc;
}

/* Takes over `item`. */
static void replace(cJSON *object, const char *key, cJSON *item, bool *changed)
{
    const cJSON *before = cJSON_GetObjectItemCaseSensitive(object, key);
    bool nothing = before == NULL && cJSON_IsNull(item);
    *changed = *changed || !(nothing || cJSON_Compare(before, item, true));
    cJSON_DeleteItemFromObjectCaseSensitive(object, key);
    cJSON_AddItemToObject(object, key, item);
}

/* An option is compared by its meaning: a missing one is the class's own false, null or "". */
static void replace_option(cJSON *model, cJSON *item, bool *changed)
{
    const cJSON *before = cJSON_GetObjectItemCaseSensitive(model, item->string);
    bool empty_before = before == NULL || cJSON_IsNull(before) || cJSON_IsFalse(before) ||
                        (cJSON_IsString(before) && before->valuestring[0] == '\0');
    bool empty =
        cJSON_IsNull(item) || cJSON_IsFalse(item) || (cJSON_IsString(item) && item->valuestring[0] == '\0');
    bool ignored = false;
    cJSON *copy = cJSON_Duplicate(item, true);
    replace(model, item->string, copy, empty_before && empty ? &ignored : changed);
}

static const char *unknown_token(const p4_tok_class *chosen, const cJSON *config)
{
    const cJSON *token = cJSON_GetObjectItemCaseSensitive(config, "unk_token");
    token = cJSON_IsObject(token) ? cJSON_GetObjectItemCaseSensitive(token, "content") : token;
    return cJSON_IsString(token) ? token->valuestring : chosen->tokens[2];
}

p4_rc p4_tok_class_apply(const p4_tok_class *chosen, cJSON *root, const cJSON *config, bool *changed)
{
    p4_rc rc = P4_OK;
    const cJSON *option = cJSON_GetObjectItemCaseSensitive(config, "add_prefix_space");
    bool prefix = cJSON_IsBool(option) ? cJSON_IsTrue(option) : chosen->prefix;
    bool legacy = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(config, "legacy"));
    const char *const places[][2] = {
        {"@PREFIX", prefix ? "true" : "false"},
        {"@SCHEME", !prefix  ? "never"
                    : legacy ? "always"
                             : "first"},
        {"@STRIP", prefix ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}" : ""}};
    const char *const keys[] = {"normalizer", "pre_tokenizer", "decoder"};
    const char *const parts[] = {chosen->normalizer, chosen->pre_tokenizer, chosen->decoder};
    cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model"), *options = NULL, *item;
    *changed = false;
    for (int i = 0; i < 3; i++) {
        bool ignored =
            false; /* the decoder's options do not change what is decoded from these classes' ids */
        TRY(substitute(&item, parts[i], places, 3));
        replace(root, keys[i], item, i == 2 ? &ignored : changed);
    }
    TRY(substitute(&options, chosen->model, places, 0));
    if (chosen->names_unknown) {
        cJSON_ReplaceItemInObjectCaseSensitive(options, "unk_token",
                                               cJSON_CreateString(unknown_token(chosen, config)));
    }
    for (item = options->child; item != NULL; item = item->next) {
        replace_option(model, item, changed);
    }
    if (chosen->resets_post) {
        bool ignored = false;
        replace(root, "post_processor", cJSON_CreateNull(), &ignored);
    }
done:
    cJSON_Delete(options);
    return rc;
}
