/* What a tokenizer.json, a tokenizer_config.json and their folder can have wrong, each refused with a message
 * that names the place; and the old spellings that are accepted. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/tokenizer/tokenizer.h"
#include "listen.h"

static p4_tokenizer *tokenizer;

static void refused(const char *json, const char *message)
{
    EXPECT_REFUSED(p4_tokenizer_parse(&tokenizer, json, strlen(json), "test.json"), message);
    EXPECT(tokenizer == NULL, "a tokenizer in spite of the refusal: %s", json);
}

/* The ids of a text, in words: "1 2 3". */
static const char *ids_of(const char *text, bool add_special)
{
    static char words[512];
    p4_tokenizer_scratch *scratch;
    p4_ids ids = {0};
    size_t at = 0;
    EXPECT_OK(p4_tokenizer_scratch_create(&scratch, tokenizer));
    EXPECT_OK(p4_tokenizer_encode(tokenizer, scratch, text, strlen(text), add_special, &ids, NULL));
    words[0] = '\0';
    for (int64_t i = 0; i < ids.count && at < sizeof words - 16; i++) {
        at += (size_t)snprintf(words + at, sizeof words - at, i > 0 ? " %d" : "%d", ids.ids[i]);
    }
    p4_ids_free(&ids);
    p4_tokenizer_scratch_free(scratch);
    return words;
}

static void accepted(const char *json, const char *text, const char *ids)
{
    EXPECT_OK(p4_tokenizer_parse(&tokenizer, json, strlen(json), "test.json"));
    if (tokenizer != NULL) {
        const char *got = ids_of(text, true);
        EXPECT(strcmp(got, ids) == 0, "\"%s\" has ids %s, want %s: %s", text, got, ids, json);
        p4_tokenizer_close(tokenizer);
    }
}

/* A whole file around one part. */
#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"_\":3},\"merges\":[\"a b\"]}"
#define WITH(part) "{" part "," MODEL "}"
#define MODEL_OF(members) "{\"model\":{" members "}}"
#define SMALL "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[]"
#define PRE(step) WITH("\"pre_tokenizer\":" step)
#define SPLIT(pattern)                                          \
    PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern \
        "\"},\"behavior\":\"Isolated\",\"invert\":false}")
#define FLAGS "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true"
#define ADDED(id, content) "{\"id\":" id ",\"content\":\"" content "\"," FLAGS "}"

static void test_json(void)
{
    refused("", "test.json: byte 0: not valid JSON");
    refused("{\"model\":", "not valid JSON");
    refused("[1]", "is not an object");
    refused("{} x", "byte 3: something follows");
    refused("{\"a\":\"\xff\"}", "byte 6 is not UTF-8");
    refused("{\"a\":\"x\\u0000\"}", "byte 7: a string with \\u0000 is not supported");
    refused("{\"a\":\"\\ud800\"}", "not valid JSON");
    EXPECT_REFUSED(p4_tokenizer_parse(&tokenizer, "{}\0", 3, "test.json"), "a NUL byte");
    refused("{\"model\":{},\"model\":{}}", "model occurs twice");
    static char deep[200001];
    memset(deep, '[', 200000);
    refused(deep, "nested deeper than");
    for (size_t i = 0; i + 6 < sizeof deep; i += 5) {
        memcpy(deep + i, "{\"a\":", 5);
    }
    refused(deep, "nested deeper than");
    /* A backslash before the u is no escape of a NUL. */
    accepted("{\"model\":{\"vocab\":{\"\\\\u0000\":0,\"a\":1},\"merges\":[]}}", "a", "1");
}

static void test_model(void)
{
    refused("{}", "model is missing");
    refused("{\"model\":[]}", "model is not an object");
    refused(MODEL_OF("\"type\":\"WordPiece\"," SMALL),
            "model.type is \"WordPiece\"; supported: BPE, Unigram");
    refused(MODEL_OF("\"type\":\"Unigram\"," SMALL), "model.vocab of a Unigram model must be an array");
    refused(MODEL_OF("\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"a\",-1]]"), "model.vocab has \"a\" twice");
    refused(MODEL_OF("\"type\":\"Unigram\",\"vocab\":[[\"a\"]]"), "model.vocab[0] must be");
    refused(MODEL_OF("\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]"),
            "model.unk_id must be the id");
    accepted(
        MODEL_OF("\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",-1],[\"b\",-1],[\"ab\",-3]]"),
        "abxyb?x", "1 2 0 2 0");
    /* Without a type the members tell. */
    accepted(MODEL_OF("\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",-1],[\"b\",-1],[\"ab\",-3]]"), "abxyb?x",
             "1 2 0 2 0");
    accepted(MODEL_OF("\"unk_token\":\"_\"," SMALL), "ab", "0 1");
    refused(
        MODEL_OF("\"unk_token\":\"a\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,"
                 "\"vocab\":{\"a\":0}"),
        "model.type is missing, and the members are those of \"WordPiece\"; supported: BPE, Unigram");
    refused(MODEL_OF("\"unk_token\":\"a\",\"vocab\":{\"a\":0}"), "are those of \"WordLevel\"; supported");
    refused(MODEL_OF("\"type\":7," SMALL), "model.type must be a string");
    refused(MODEL_OF("\"type\":\"BPE\",\"merges\":[]"), "model.vocab is missing");
    refused(MODEL_OF("\"vocab\":{\"a\":0}"), "model.merges is missing");
    refused(MODEL_OF("\"vocab\":[],\"merges\":[]"), "model.vocab of a Unigram model must be an array");
    refused(MODEL_OF("\"vocab\":7,\"merges\":[]"), "model.vocab must be an object");
    refused(MODEL_OF("\"vocab\":{},\"merges\":[]"), "at least one token");
    refused(MODEL_OF("\"vocab\":{\"a\":0},\"merges\":{}"), "model.merges must be an array");
    refused(MODEL_OF("\"dropout\":0.1," SMALL), "model.dropout must be null");
    refused(MODEL_OF("\"continuing_subword_prefix\":\"##\"," SMALL),
            "model.continuing_subword_prefix \"##\"");
    refused(MODEL_OF("\"end_of_word_suffix\":\"</w>\"," SMALL), "model.end_of_word_suffix \"</w>\"");
    refused(MODEL_OF("\"byte_fallback\":1," SMALL), "model.byte_fallback must be true or false");
    refused(MODEL_OF("\"unk_token\":3," SMALL), "model.unk_token must be a string");
    refused(MODEL_OF("\"vocab\":{\"a\":-1},\"merges\":[]"),
            "the id of \"a\" must be a whole number from 0 to 4194303");
    refused(MODEL_OF("\"vocab\":{\"a\":0.5},\"merges\":[]"), "the id of \"a\"");
    refused(MODEL_OF("\"vocab\":{\"a\":4194304},\"merges\":[]"), "the id of \"a\"");
    refused(MODEL_OF("\"vocab\":{\"a\":1e300},\"merges\":[]"), "the id of \"a\"");
    refused(MODEL_OF("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), "the id of \"a\"");
    refused(MODEL_OF("\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]"), "model.vocab has \"a\" twice");
    refused(MODEL_OF("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "have the same id 0");
    refused(MODEL_OF("\"vocab\":{\"a\":0},\"merges\":[\"a\"]"), "model.merges[0] must be \"left right\"");
    refused(MODEL_OF("\"vocab\":{\"a\":0},\"merges\":[\"a  a\"]"), "model.merges[0] must be");
    refused(MODEL_OF("\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]"), "model.merges[0] must be");
    refused(MODEL_OF("\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]"), "model.merges[0] must be");
    refused(MODEL_OF("\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\",\"a c\"]"),
            "model.merges[1]: \"c\" is not in model.vocab");
    refused(MODEL_OF("\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]"),
            "model.merges[0]: \"ab\" is not in model.vocab");
}

static void test_added_tokens(void)
{
    refused(WITH("\"added_tokens\":{}"), "added_tokens must be an array");
    refused(WITH("\"added_tokens\":[1]"), "added_tokens[0] is not an object");
    refused(WITH("\"added_tokens\":[{\"id\":9}]"), "added_tokens[0].content is missing");
    refused(WITH("\"added_tokens\":[{\"id\":9,\"content\":\"x\"}]"),
            "added_tokens[0].single_word is missing");
    refused(WITH("\"added_tokens\":[" ADDED("9", "") "]"), "added_tokens[0].content has 0 bytes");
    refused(WITH("\"added_tokens\":[" ADDED("4194304", "x") "]"),
            "added_tokens[0].id must be a whole number");
    refused(WITH("\"added_tokens\":[" ADDED("9", "x") "," ADDED("10", "x") "]"),
            "added_tokens[1]: \"x\" is added twice");
    /* The reference numbers them itself. */
    accepted(WITH("\"added_tokens\":[" ADDED("9", "x") "," ADDED("3", "_") "]"), "abxa_", "2 4 0 3");
    accepted(WITH("\"added_tokens\":[" ADDED("9", "x") "," ADDED("9", "y") "]"), "yxa", "5 4 0");
    accepted(WITH("\"added_tokens\":[" ADDED("9", "ab") "]"), "ab", "2");
    accepted(WITH("\"added_tokens\":null"), "ab", "2");
}

static void test_normalizers(void)
{
    refused(WITH("\"normalizer\":{\"type\":\"Nmt\"}"), "normalizer.type is \"Nmt\"; supported: NFC");
    refused(WITH("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
                 "\"BertNormalizer\"}]}"),
            "normalizer.normalizers[1].type is \"BertNormalizer\"");
    refused(WITH("\"normalizer\":{}"), "normalizer.type is missing");
    refused(WITH("\"normalizer\":\"NFC\""), "normalizer is not an object");
    refused(WITH("\"normalizer\":{\"type\":\"Sequence\"}"), "normalizer.normalizers is missing");
    refused(WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" *\"},\"content\":\"\"}"),
            "can match the empty string");
    refused(WITH("\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true}"),
            "normalizer.strip_right is missing");
    refused(WITH("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"*\"}"),
            "normalizer.precompiled_charsmap is not base64");
    refused(WITH("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}"),
            "normalizer.precompiled_charsmap has 3 bytes");
    refused(WITH("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"CAAAAAAAAAA=\"}"),
            "has 8 bytes and says that its trie has 8");
    accepted(WITH("\"normalizer\":{\"type\":\"Lowercase\"}"), "A\u0130B", "2");
    accepted(WITH("\"normalizer\":{\"type\":\"NFKC\"}"), "\uff41\uff42", "2");
    accepted(WITH("\"normalizer\":{\"type\":\"StripAccents\"}"), "a\u0301b", "2");
    accepted(WITH("\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}"),
             "\u3000ab\n", "2");
    accepted(
        WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+|\\\\Ab\"},\"content\":\"_\"}"),
        "baxxb", "3 0 3 1");
    refused(WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}"),
            "normalizer.pattern is empty");
    refused(WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":\" \",\"content\":\"\"}"),
            "normalizer.pattern must be");
    refused(WITH("\"normalizer\":{\"type\":\"Prepend\"}"), "normalizer.prepend is missing");
}

static void test_pre_tokenizers(void)
{
    refused(PRE("{\"type\":\"BertPreTokenizer\"}"),
            "pre_tokenizer.type is \"BertPreTokenizer\"; supported: ByteLevel");
    refused(PRE("{\"type\":\"ByteLevel\"}"), "pre_tokenizer.add_prefix_space is missing");
    refused(PRE("{\"type\":\"UnicodeScripts\"}"), "pre_tokenizer.type is \"UnicodeScripts\"");
    refused(PRE("{\"type\":\"Punctuation\",\"behavior\":\"Middle\"}"),
            "pre_tokenizer.behavior is \"Middle\"");
    refused(PRE("{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"xy\"}"),
            "pre_tokenizer.delimiter must be one character");
    accepted(PRE("{\"type\":\"Punctuation\"}"), "ab_ab", "2 3 2");
    accepted(PRE("{\"type\":\"Whitespace\"}"), "ab\t_", "2 3");
    accepted(PRE("{\"type\":\"WhitespaceSplit\"}"), "a\u2003b", "0 1");
    accepted(PRE("{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"_\"}"), "a_b", "0 1");
    refused(
        PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Middle\",\"invert\":false}"),
        "pre_tokenizer.behavior is \"Middle\"");
    refused(
        PRE("{\"type\":\"Split\",\"pattern\":{\"Glob\":\"a\"},\"behavior\":\"Removed\",\"invert\":false}"),
        "pre_tokenizer.pattern is a \"Glob\"");
    refused(PRE("{\"type\":\"Metaspace\",\"replacement\":\"xy\"}"),
            "pre_tokenizer.replacement must be one character");
    refused(PRE("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}"),
            "pre_tokenizer.prepend_scheme is \"last\"");
    refused(PRE("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\",\"add_prefix_"
                "space\":false}"),
            "add_prefix_space false contradicts prepend_scheme \"first\"");
    char steps[4096] = "{\"type\":\"Digits\",\"individual_digits\":true}", json[8192];
    for (int i = 0; i < 32; i++) {
        strcat(steps, ",{\"type\":\"Digits\",\"individual_digits\":true}");
    }
    snprintf(json, sizeof json, PRE("{\"type\":\"Sequence\",\"pretokenizers\":[%s]}"), steps);
    refused(json, "pre_tokenizer.pretokenizers[32]: more than 32 steps");
    /* Old files: the prefix is on unless add_prefix_space says otherwise. */
    accepted(PRE("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}"), "ab a",
             "2 3 0");
    accepted(PRE("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"str_rep\":\"_\"}"), "ab a", "3 2 3 0");
}

static void test_patterns(void)
{
    static const char *const patterns[][2] = {
        {SPLIT("\\\\G"), "has \\G"},
        {SPLIT("\\\\Z"), "has \\Z"},
        {SPLIT("\\\\R"), "has \\R"},
        {SPLIT("[[:alpha:]]"), "a bracket [:...:]"},
        {SPLIT("[[[[[[[[[a]]]]]]]]]"), "classes nested deeper than 8"},
        {SPLIT("[a[b]"), "a class without an end"},
        {SPLIT("[a&&]"), "an empty class"},
        {SPLIT("[]a]"), "an empty class"},
        {SPLIT("a{,3}"), "a { that is no"},
        {SPLIT("(?x:a)"), "a (?...) group"},
        {SPLIT("(?~a)"), "a (?...) group"},
        {SPLIT("(?<n>a)"), "a (?...) group"},
        {SPLIT("\\\\p{Alpha}"), "no general category"},
        {SPLIT("\\\\pL"), "\\p without a name"},
        {SPLIT("\\\\x{110000}"), "an escape of a code point"},
        {SPLIT("\\\\xe9"), "an escape of a code point"},
        {SPLIT("a\\\\"), "a backslash at its end"},
        {SPLIT("(a"), "cannot be compiled"},
        {SPLIT("a*"), "can match the empty string"},
        {SPLIT("b|(?=a)"), "can match the empty string"},
        {SPLIT("(*UTF)a"), "(*"},
    };
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        refused(patterns[i][0], patterns[i][1]);
        refused(patterns[i][0], "test.json: pre_tokenizer");
    }
    accepted(SPLIT("\\\\u0061|\\\\x{62}"), "abba", "0 1 1 0");
    accepted(SPLIT("(?<=a)b"), "abb", "0 1 1");
    accepted(SPLIT("(a)"), "ab", "0 1");
    accepted(SPLIT("^a"), "ab\nab", "0 1 0 1");
    accepted(SPLIT("a$"), "ab a", "2 0");
    accepted(SPLIT("[[a][b]]"), "ab", "0 1");
    accepted(SPLIT("[[a-z]&&[^b]]"), "ab", "0 1");
    accepted(SPLIT("[^[a-z]&&[^b]]"), "ab", "0 1"); /* the b, which is outside the intersection */
    accepted(SPLIT("[[a]^]"), "ab", "0 1");
    accepted(SPLIT("[\\\\S]"), "ab", "0 1");
    accepted(SPLIT("[ab]{2}+"), "abab", "2 2");
    accepted(SPLIT("(?:a|b){1}+"), "_ab_", "3 2 3");
    /* Not a lazy {2}, as in PCRE2, but an optional one. */
    accepted(SPLIT("[ab]{2}?_"), "_ab_a_abab_", "3 2 3 0 3 2 2 3");
    accepted(SPLIT("a{1,2}?b"), "ab", "2");
}

/* A pattern of exponential time is stopped, and the ids that were there before stay. */
static void test_endless_pattern(void)
{
    const char *json = SPLIT("(?:a|b|ab)+c");
    char text[400];
    p4_tokenizer_scratch *scratch = NULL;
    p4_ids ids = {0};
    const int32_t first = 5;
    memset(text, 'a', sizeof text);
    for (size_t i = 1; i < sizeof text; i += 2) {
        text[i] = 'b';
    }
    memcpy(text + sizeof text - 2, "_c", 2); /* a c that is out of reach */
    EXPECT_OK(p4_tokenizer_parse(&tokenizer, json, strlen(json), "test.json"));
    EXPECT_OK(p4_tokenizer_scratch_create(&scratch, tokenizer));
    EXPECT_OK(p4_ids_append(&ids, &first, 1));
    EXPECT_REFUSED(p4_tokenizer_encode(tokenizer, scratch, text, sizeof text, false, &ids, NULL),
                   "test.json: a pattern failed at byte 0 of a text of 400 bytes: match limit exceeded");
    EXPECT(ids.count == 1 && ids.ids[0] == 5, "%lld ids", (long long)ids.count);
    p4_ids_free(&ids);
    p4_tokenizer_scratch_free(scratch);
    p4_tokenizer_close(tokenizer);
}

/* A decoder that is not supported matters to nobody who only encodes. */
static void expect_undecodable(const char *json, const char *message)
{
    char *text;
    const int32_t id = 2;
    accepted(json, "ab", "2");
    EXPECT_OK(p4_tokenizer_parse(&tokenizer, json, strlen(json), "test.json"));
    for (int i = 0; i < 2; i++) {
        EXPECT_REFUSED(p4_tokenizer_decode(tokenizer, &id, 1, &text), message);
        EXPECT(text == NULL, "%s: decoded", json);
    }
    p4_tokenizer_close(tokenizer);
}

static void test_decoders(void)
{
    expect_undecodable(WITH("\"decoder\":{\"type\":\"WordPiece\"}"),
                       "test.json: decoder.type is \"WordPiece\"; supported: ByteLevel");
    expect_undecodable(
        WITH("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"CTC\"}]}"),
        "test.json: decoder.decoders[1].type is \"CTC\"");
    expect_undecodable(WITH("\"decoder\":{\"type\":\"Strip\",\"content\":\"ab\",\"start\":1,\"stop\":0}"),
                       "decoder.content must be one character");
    expect_undecodable(WITH("\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}"),
                       "decoder.start must be a whole number");
    expect_undecodable(WITH("\"decoder\":7"), "test.json: decoder is not an object");
    expect_undecodable(WITH("\"decoder\":{\"type\":\"Fuse\"},\"decoder\":{\"type\":\"Fuse\"}"),
                       "test.json: decoder occurs twice");
    char *text;
    const int32_t ids[] = {2, 0, 7}, negative = -1;
    EXPECT_OK(p4_tokenizer_parse(&tokenizer, "{" MODEL "}", strlen("{" MODEL "}"), "test.json"));
    EXPECT_OK(p4_tokenizer_decode(tokenizer, ids, 2, &text));
    EXPECT(strcmp(text, "ab a") == 0, "no decoder: \"%s\"", text);
    free(text);
    EXPECT_REFUSED(p4_tokenizer_decode(tokenizer, ids, 3, &text), "id 7 at place 2 is no token");
    EXPECT_REFUSED(p4_tokenizer_decode(tokenizer, &negative, 1, &text), "id -1 at place 0");
    p4_tokenizer_close(tokenizer);
    /* Replace upon Replace would fill the memory. */
    char json[4096] = WITH("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"}]}"), *end;
    end = strstr(json, "]},");
    char rest[1024],
        step[] = ",{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaaaaaaaaa\"}";
    snprintf(rest, sizeof rest, "%s", end);
    for (int i = 0; i < 20; i++) {
        end += snprintf(end, sizeof json - (size_t)(end - json), "%s", step);
    }
    snprintf(end, sizeof json - (size_t)(end - json), "%s", rest);
    EXPECT_OK(p4_tokenizer_parse(&tokenizer, json, strlen(json), "test.json"));
    EXPECT_REFUSED(p4_tokenizer_decode(tokenizer, ids, 2, &text), "the decoder turns a text of 3 bytes into");
    p4_tokenizer_close(tokenizer);
}

#define TEMPLATE(single, special)                                                  \
    WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" single \
         "],\"special_tokens\":{" special "}}")
#define TEXT "{\"Sequence\":{\"id\":\"A\"}}"

static void test_post_processors(void)
{
    refused(WITH("\"post_processor\":{\"type\":\"Other\"}"), "post_processor.type is \"Other\"");
    refused(WITH("\"post_processor\":{\"type\":\"RobertaProcessing\"}"), "post_processor.cls is missing");
    refused(WITH("\"post_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"x\",9]}"),
            "post_processor.cls must be");
    accepted(WITH("\"post_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"_\",3],\"sep\":[\"a\",0]}"),
             "ab", "3 2 0");
    refused(TEMPLATE("", ""), "must hold the Sequence A once");
    refused(TEMPLATE(TEXT "," TEXT, ""), "must hold the Sequence A once");
    refused(TEMPLATE("{\"Sequence\":{\"id\":\"B\"}}", ""), "must hold the Sequence A once");
    refused(TEMPLATE("{\"Other\":{}}", ""), "a piece must be a SpecialToken or a Sequence");
    refused(TEMPLATE("{\"SpecialToken\":{\"id\":\"<s>\"}}," TEXT, ""), "special_tokens.<s> is missing");
    refused(TEMPLATE("{\"SpecialToken\":{\"id\":\"<s>\"}}," TEXT, "\"<s>\":{\"ids\":[7]}"),
            "has an id that is no token's");
    refused(TEMPLATE("{\"SpecialToken\":{\"id\":\"<s>\"}}," TEXT, "\"<s>\":{\"ids\":[-1]}"),
            "has an id that is no token's");
    accepted(TEMPLATE("{\"SpecialToken\":{\"id\":\"<s>\"}}," TEXT ",{\"SpecialToken\":{\"id\":\"x\"}}",
                      "\"<s>\":{\"ids\":[3,1]},\"x\":{\"ids\":[0]}"),
             "ab", "3 1 2 0");
}

static void test_unknown_characters(void)
{
    const char *missing = MODEL_OF("\"unk_token\":\"<unk>\"," SMALL);
    p4_tokenizer_scratch *scratch = NULL;
    p4_ids ids = {0};
    EXPECT_OK(p4_tokenizer_parse(&tokenizer, missing, strlen(missing), "test.json"));
    EXPECT_OK(p4_tokenizer_scratch_create(&scratch, tokenizer));
    EXPECT_OK(p4_tokenizer_encode(tokenizer, scratch, "ab", 2, false, &ids, NULL));
    EXPECT_REFUSED(p4_tokenizer_encode(tokenizer, scratch, "axb", 3, false, &ids, NULL),
                   "the text has \"x\", which is no token, and neither is model.unk_token \"<unk>\"");
    EXPECT(ids.count == 2, "%lld ids", (long long)ids.count);
    p4_tokenizer *other = NULL;
    EXPECT_OK(p4_tokenizer_parse(&other, missing, strlen(missing), "other.json"));
    EXPECT(p4_tokenizer_encode(other, scratch, "a", 1, false, &ids, NULL) == P4_E_SYSTEM,
           "another's scratch memory");
    p4_error_clear();
    p4_tokenizer_close(other);
    p4_ids_free(&ids);
    p4_tokenizer_scratch_free(scratch);
    p4_tokenizer_close(tokenizer);
    accepted(MODEL_OF(SMALL), "axb", "0 1"); /* no unknown token: dropped, as in the reference */
    accepted(MODEL_OF("\"vocab\":{\"a\":0,\"b c\":1,\"ab c\":2},\"merges\":[[\"a\",\"b c\"]]"), "a", "0");
    accepted(MODEL_OF("\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"#version: 0.2\",\"a b\"]"), "ab",
             "2");
}

/* --- a model directory --- */

static char folder[] = "/tmp/phase4-tokenizer.XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void with_config(const char *config)
{
    EXPECT_OK(p4_atomic_write_all(in_folder("tokenizer_config.json"), config, strlen(config)));
}

static void test_directory(void)
{
    static const char json[] = TEMPLATE("{\"SpecialToken\":{\"id\":\"_\"}}," TEXT, "\"_\":{\"ids\":[3]}");
    static const char *const configs[][2] = {
        {"{}", "3 2"},
        /* tokenizer.json says which ids surround a text; the flags do not, as in transformers 5. */
        {"{\"add_bos_token\":null,\"add_eos_token\":null}", "3 2"},
        {"{\"add_bos_token\":false,\"bos_token\":\"_\"}", "3 2"},
        {"{\"add_eos_token\":true,\"eos_token\":\"b\"}", "3 0 1"}, /* b is an added token then */
        {"{\"bos_token\":\"a\"}", "3 0 1"},
        {"{\"pad_token\":{\"content\":\"ab\"},\"image_token\":\"x\"}", "3 2"},
        {"{\"extra_special_tokens\":[\"b\"]}", "3 0 1"},
        /* Of these eight, the only one that gives an id, and not the one that the token gets: a warning. */
        {"{\"added_tokens_decoder\":{\"7\":{\"content\":\"b\",\"special\":true}}}", "3 0 1"},
    };
    EXPECT(mkdtemp(folder) != NULL, "%s: %s", folder, strerror(errno));
    EXPECT_REFUSED(p4_tokenizer_open(&tokenizer, folder), "tokenizer.json");
    EXPECT_OK(p4_atomic_write_all(in_folder("tokenizer.json"), json, strlen(json)));
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        with_config(configs[i][0]);
        listen_begin();
        p4_log_setup(P4_LOG_WARN, true);
        p4_rc rc = p4_tokenizer_open(&tokenizer, folder);
        p4_log_setup(P4_LOG_QUIET, true);
        const char *said = listen_end();
        EXPECT_OK(rc);
        EXPECT((said[0] != '\0') == (strstr(configs[i][0], "\"7\"") != NULL), "%s: warned: %s", configs[i][0],
               said);
        const char *got = tokenizer == NULL ? "none" : ids_of("ab", true);
        EXPECT(strcmp(got, configs[i][1]) == 0, "%s: ids %s, want %s", configs[i][0], got, configs[i][1]);
        EXPECT(tokenizer == NULL || strcmp(ids_of("ab", false), configs[i][1] + 2) == 0,
               "special tokens that were not asked for");
        p4_tokenizer_close(tokenizer);
    }
    with_config("{\"add_bos_token\":1}");
    EXPECT_REFUSED(p4_tokenizer_open(&tokenizer, folder),
                   "tokenizer_config.json: add_bos_token must be true or false");
    with_config("{\"added_tokens_decoder\":{\"x\":{\"content\":\"b\"}}}");
    EXPECT_REFUSED(p4_tokenizer_open(&tokenizer, folder),
                   "tokenizer_config.json: added_tokens_decoder: \"x\" is no id");
    with_config("{\"added_tokens_decoder\":{\"1\":{}}}");
    EXPECT_REFUSED(p4_tokenizer_open(&tokenizer, folder), "added_tokens_decoder.content is missing");
    with_config("{\"added_tokens_decoder\":[]}");
    EXPECT_REFUSED(p4_tokenizer_open(&tokenizer, folder), "added_tokens_decoder must be an object");
    with_config("{");
    EXPECT_REFUSED(p4_tokenizer_open(&tokenizer, folder), "tokenizer_config.json: byte");
    EXPECT(tokenizer == NULL, "a tokenizer in spite of the refusal");
    unlink(in_folder("tokenizer_config.json"));
    unlink(in_folder("tokenizer.json"));
    rmdir(folder);
}

int main(void)
{
    p4_log_setup(P4_LOG_QUIET, true);
    test_json();
    test_model();
    test_added_tokens();
    test_normalizers();
    test_pre_tokenizers();
    test_patterns();
    test_endless_pattern();
    test_decoders();
    test_post_processors();
    test_unknown_characters();
    test_directory();
    return TEST_END();
}
