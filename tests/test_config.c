/* The configuration as JSON: every row read, written and refused, bad texts, round trips. */
#include <stdlib.h>

#include "check.h"
#include "io/json/config.h"

#define SOURCE "cfg.json"

static p4_config config, other;

static p4_rc read_json(p4_config *into, const char *json)
{
    return p4_config_from_json(into, json, strlen(json), SOURCE, P4_RECIPE_QUALITY);
}

/* The value of a key of written JSON, one key a line, in a static buffer. */
static const char *written_value(const p4_config *of, const char *key)
{
    static char value[512];
    char *json = NULL, pattern[128];
    value[0] = '\0';
    EXPECT_OK(p4_config_to_json(of, &json));
    snprintf(pattern, sizeof pattern, "\n\t\"%s\":\t", key);
    const char *at = json != NULL ? strstr(json, pattern) : NULL;
    if (at != NULL) {
        at += strlen(pattern);
        size_t bytes = strcspn(at, "\n");
        bytes -= at[bytes - 1] == ',';
        snprintf(value, sizeof value, "%.*s", (int)bytes, at);
    }
    free(json);
    return value;
}

/* ---- one key ---- */

enum { ACCEPTED, REFUSED };
static const struct {
    const char *key, *json;
    int outcome;
    const char *part; /* REFUSED: of the message; ACCEPTED: the value as written */
} values[] = {
    {"seed", "4.0", ACCEPTED, "4"},
    {"seed", "18446744073709551615", ACCEPTED, "18446744073709551615"},
    {"seed", "9007199254740993", ACCEPTED, "9007199254740993"}, /* 2^53 + 1 is no double */
    {"seed", "-0", ACCEPTED, "0"},
    {"seed", "18446744073709551616", REFUSED,
     "key \"seed\": found 18446744073709551616, expected a whole number"},
    {"seed", "1e20", REFUSED, "found 1e20, expected a whole number in [0, 18446744073709551615]"},
    {"seed", "-1", REFUSED, "found -1, expected a whole number"},
    {"seed", "1e400", REFUSED, "found 1e400"},
    {"weight_decay", "1E-400", REFUSED, "found 1E-400, expected a number in [0, 10]"},
    {"weight_decay", "0.0E-9", ACCEPTED, "0"},
    {"weight_decay", "00.5", REFUSED, "found 00.5"},
    {"seed", "99999999999999999999999999999999999999999", REFUSED, "expected a whole number"},
    {"fine_tune_epochs", "3e0", ACCEPTED, "3"},
    {"fine_tune_epochs", "2.5", REFUSED, "found 2.5, expected a whole number in [1, 1000000]"},
    {"fine_tune_epochs", "2147483648", REFUSED, "found 2147483648"},
    {"fine_tune_epochs", "4294967297", REFUSED, "found 4294967297"},
    {"fine_tune_epochs", "-2147483649", REFUSED, "found -2147483649"},
    {"fine_tune_epochs", "0", REFUSED, "found 0"},
    {"fine_tune_epochs", "\"2\"", REFUSED, "found \"2\", expected a whole number"},
    {"fine_tune_epochs", "true", REFUSED, "found true, expected a whole number"},
    {"fine_tune_epochs", "null", REFUSED, "found null, expected a whole number"},
    {"fine_tune_epochs", "[2]", REFUSED, "found a list, expected a whole number"},
    {"fine_tune_epochs", "02", REFUSED, "found 02, expected a whole number"},
    {"fine_tune_epochs", "2.", REFUSED, "found 2., expected a whole number"},
    {"fine_tune_epochs", "2e", REFUSED, ""},
    {"fine_tune_max_steps", "1000000000000", ACCEPTED, "1000000000000"},
    {"fine_tune_max_steps", "9223372036854775808", REFUSED, "found 9223372036854775808"},
    {"fine_tune_max_steps", "9223372036854775807", REFUSED, "found 9223372036854775807"},
    {"fine_tune_max_steps", "-9223372036854775807", REFUSED, "found -9223372036854775807"},
    {"micro_batch_size", "0", REFUSED, "found 0, expected \"auto\" or a whole number in [1, 65536]"},
    {"micro_batch_size", "1", ACCEPTED, "1"},
    {"micro_batch_size", "\"auto\"", ACCEPTED, "\"auto\""},
    {"fine_tune_lr", "\"fast\"", REFUSED,
     "key \"fine_tune_lr\": found \"fast\", expected \"auto\" or a number in (0, 10]"},
    {"fine_tune_lr", "0", REFUSED, "found 0, expected \"auto\" or a number in (0, 10]"},
    {"fine_tune_lr", "\"auto\"", ACCEPTED, "\"auto\""},
    {"distill", "\"auto\"", ACCEPTED, "\"auto\""},
    {"distill", "-1", REFUSED, "found -1, expected \"auto\" or a number in [0, 1]"},
    {"distill", "0", ACCEPTED, "0"},
    {"fine_tune_lr", "\"Auto\"", REFUSED, "found \"Auto\", expected \"auto\" or a number in (0, 10]"},
    {"weight_decay", "\"auto\"", REFUSED, "found \"auto\", expected a number in [0, 10]"},
    {"fine_tune_lr", "1e-320", ACCEPTED, "1e-320"},
    {"fine_tune_lr", "10", ACCEPTED, "10"},
    {"fine_tune_lr", "10.000001", REFUSED, "found 10.000001, expected \"auto\" or a number in (0, 10]"},
    {"fine_tune_lr", "1e999", REFUSED, "found inf, expected \"auto\" or a number in (0, 10]"},
    {"fine_tune_lr", "-1e-3", REFUSED, "found -0.001"},
    {"fine_tune_lr", "NaN", REFUSED, "NaN and infinity are no JSON numbers"},
    {"fine_tune_lr", "-Infinity", REFUSED, "NaN and infinity are no JSON numbers"},
    {"fine_tune_lr", "0.30000000000000004", ACCEPTED, "0.30000000000000004"},
    {"grokfast_ema_alpha", "1", REFUSED, "found 1, expected a number in [0, 1)"},
    {"grokfast_ema_alpha", "0", ACCEPTED, "0"},
    {"collective_timeout_s", "0", REFUSED, "expected a number in (0, 86400]"},
    {"quantization_bits", "1.580", ACCEPTED, "1.58"},
    {"quantization_bits", "8", REFUSED, "Phase 4 uses BitNet 1.58-bit quantization only"},
    {"quantization_bits", "1.6", REFUSED,
     "found 1.6, expected 1.58: Phase 4 uses BitNet 1.58-bit quantization only"},
    {"quantization_bits", "\"1.58\"", REFUSED, "Phase 4 uses BitNet 1.58-bit quantization only"},
    {"max_accuracy_drop", "0.5", ACCEPTED, "0.5"},
    {"max_accuracy_drop", "1.5", REFUSED, "found 1.5, but max_accuracy_drop must be between 0.0 and 0.5"},
    {"max_accuracy_drop", "-0.1", REFUSED, "max_accuracy_drop must be between 0.0 and 0.5"},
    {"activation_bits", "8", ACCEPTED, "8"},
    {"activation_bits", "4", REFUSED, "found 4, expected 0 or 8"},
    {"zero_stage", "1", ACCEPTED, "1"},
    {"zero_stage", "3", REFUSED, "found 3, expected a whole number in [0, 2]"},
    {"overwrite", "1", REFUSED, "found 1, expected true or false"},
    {"overwrite", "\"true\"", REFUSED, "found \"true\", expected true or false"},
    {"overwrite", "True", REFUSED, "true and false are written in lower case"},
    {"device", "\"gpu\"", REFUSED, "found \"gpu\", expected \"auto\", \"cuda\" or \"cpu\""},
    {"device", "\"CPU\"", REFUSED, "found \"CPU\""},
    {"device", "1", REFUSED, "found 1, expected \"auto\""},
    {"device", "{\"name\": [\"cpu\", {\"}\": 1}]}", REFUSED, "found an object, expected \"auto\""},
    {"quantizer", "\"none\"", ACCEPTED, "\"none\""},
    {"packing", "\"2bit\"", ACCEPTED, "\"2bit\""},
    {"model_path", "3", REFUSED, "found 3, expected a string of at most 4095 bytes"},
    {"model_path", "\"caf\\u00e9 \\\"q\\\" \\\\ \\/\"", ACCEPTED, "\"caf\xC3\xA9 \\\"q\\\" \\\\ /\""},
    {"model_path", "\"\\ud83d\\ude00\"", ACCEPTED, "\"\xF0\x9F\x98\x80\""},
    {"model_path", "\"\\ud83d\"", REFUSED, "not valid JSON"},
    {"model_path", "\"a\\u0000b\"", REFUSED, "found \\u0000 in a string"},
    {"model_path", "\"a\\nb\"", REFUSED, "found \"a\\nb\", which holds a control character"},
    {"model_path", "\"a\tb\"", REFUSED, "found the control character 0x09 in a string"},
    {"model_path", "\"a\xFF\"", REFUSED, "which is not UTF-8"},
    {"model_path", "\"\xC0\xAF\"", REFUSED, "which is not UTF-8"},
    {"model_path", "\"\xED\xA0\x80\"", REFUSED, "which is not UTF-8"},
    {"model_path", "\"\xE2\x82\"", REFUSED, "which is not UTF-8"},
    {"wandb_project", "[\"a\"]", REFUSED, "found a list, expected a string of at most 127 bytes"},
    {"eval_files", "[]", ACCEPTED, "[]"},
    {"eval_files", "[\"a, b\", \"c]\", \"\\\"\"]", ACCEPTED, "[\"a, b\", \"c]\", \"\\\"\"]"},
    {"eval_files", "\"a\"", ACCEPTED, "[\"a\"]"},
    {"eval_files", "17", REFUSED, "found 17, expected a string or a list of strings"},
    {"eval_files", "[\"a\", 17]", REFUSED, "found 17 as element 2, expected a string or a list of strings"},
    {"eval_files", "[[\"a\"], \"b\"]", REFUSED, "found a list as element 1"},
    {"eval_files", "[\"a\", \"\"]", REFUSED, "found \"\" as string 2, which is empty"},
    {"eval_files", "[\"a\\tb\"]", REFUSED, "which holds a control character"},
    {"eval_sets", "{}", ACCEPTED, "{}"},
    {"eval_sets", "{\"w\": \"a\", \"c-1.X_\": [\"b\", \"a\"]}", ACCEPTED,
     "{\"w\":[\"a\"],\"c-1.X_\":[\"b\",\"a\"]}"},
    {"eval_sets", "[\"a\"]", REFUSED, "found a list, expected an object of up to 16 names"},
    {"eval_sets", "\"a\"", REFUSED, "found \"a\", expected an object"},
    {"eval_sets", "{\"w\": 3}", REFUSED, "found 3 as \"w\", expected an object"},
    {"eval_sets", "{\"w\": [\"a\", 3]}", REFUSED, "found a list as \"w\""},
    {"eval_sets", "{\"w\": []}", REFUSED, "found no file of \"w\""},
    {"eval_sets", "{\"w\": \"\"}", REFUSED, "found \"\" as string 1, which is empty"},
    {"eval_sets", "{\"\": \"a\"}", REFUSED, "found the name \"\""},
    {"eval_sets", "{\"a b\": \"a\"}", REFUSED, "found the name \"a b\""},
    {"eval_sets", "{\"..\": \"a\"}", REFUSED, "found the name \"..\""},
    {"eval_sets", "{\"a/b\": \"a\"}", REFUSED, "found the name \"a/b\""},
    {"eval_sets", "{\"caf\xC3\xA9\": \"a\"}", REFUSED, "found the name \"caf\xC3\xA9\""},
    {"eval_sets", "{\"w\": \"a\", \"w\": \"b\"}", REFUSED, "found the name \"w\" twice"},
    {"eval_sets", "{\"a2345678901234567890123456789012\": \"a\"}", REFUSED,
     "with the name \"a2345678901234567890123456789012\""},
};

static void test_values(void)
{
    char json[512], where[64];
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        snprintf(json, sizeof json, "{\n \"log_every\": 7,\n \"%s\": %s\n}", values[i].key, values[i].json);
        p4_error_clear();
        if (values[i].outcome == ACCEPTED) {
            EXPECT(read_json(&config, json) == P4_OK, "%s: %s", json, p4_last_error());
            const char *got = written_value(&config, values[i].key);
            EXPECT(strcmp(got, values[i].part) == 0, "%s: written as %s", json, got);
            EXPECT(p4_config_is_user_set(&config, p4_config_find(values[i].key)), "%s is not user_set", json);
            continue;
        }
        memset(&config, 0x11, sizeof config);
        memcpy(&other, &config, sizeof other);
        EXPECT(read_json(&config, json) == P4_E_INPUT, "%s was accepted", json);
        EXPECT(strstr(p4_last_error(), values[i].part) != NULL, "%s: %s", json, p4_last_error());
        snprintf(where, sizeof where, "%s:3: ", SOURCE);
        EXPECT(strncmp(p4_last_error(), where, strlen(where)) == 0, "%s: %s", json, p4_last_error());
        EXPECT(strchr(p4_last_error(), '\n') == NULL, "%s: more than one line: %s", json, p4_last_error());
        EXPECT(memcmp(&config, &other, sizeof config) == 0, "%s: a refused text changed the configuration",
               json);
    }
}

static void test_long_strings(void)
{
    enum { BYTES = 3 * P4_LIST_BYTES };
    char *text = p4_alloc(BYTES, 1), *json = p4_alloc(BYTES + 64, 1);
    for (int bytes = P4_PATH_BYTES - 1; bytes <= P4_PATH_BYTES; bytes++) {
        memset(text, 'x', BYTES);
        text[bytes] = '\0';
        snprintf(json, BYTES + 64, "{\"model_path\": \"%s\"}", text);
        if (bytes < P4_PATH_BYTES) {
            EXPECT_OK(read_json(&config, json));
            EXPECT(strlen(config.model_path) == (size_t)bytes, "%zu", strlen(config.model_path));
        } else {
            EXPECT_REFUSED(read_json(&config, json),
                           "xxx...\" of 4096 bytes, expected a string of at most 4095 bytes");
        }
    }
    for (int bytes = P4_LIST_BYTES - 3; bytes <= P4_LIST_BYTES - 2; bytes++) { /* "a" and its NUL take two */
        memset(text, 'x', BYTES);
        text[bytes] = '\0';
        snprintf(json, BYTES + 64, "{\"train_files\": [\"a\", \"%s\"]}", text);
        if (bytes == P4_LIST_BYTES - 3) {
            EXPECT_OK(read_json(&config, json));
            EXPECT(config.train_files.count == 2, "%d", config.train_files.count);
        } else {
            EXPECT_REFUSED(read_json(&config, json),
                           "found a list of 2 strings with more bytes, expected a string or a list of");
        }
    }
    /* A long value is cut between characters, never inside one: 28 of two bytes fit into 57. */
    size_t used = (size_t)snprintf(json, 64, "{\"device\": \"");
    for (int i = 0; i < 40; i++) {
        used += (size_t)snprintf(json + used, 64, "\xC3\xA9");
    }
    snprintf(json + used, 64, "\"}");
    EXPECT_REFUSED(read_json(&config, json), "\xC3\xA9...\", expected \"auto\"");
    EXPECT(read_json(&config, json) == P4_E_INPUT, "was accepted");
    const char *first = strchr(p4_last_error(), '\xC3'), *dots = strstr(p4_last_error(), "...");
    EXPECT(first != NULL && dots != NULL && dots - first == 56, "%s", p4_last_error());
    p4_error_clear();
    free(text);
    free(json);
}

/* ---- whole texts ---- */

static void test_bad_texts(void)
{
    static const struct {
        const char *json, *part;
    } texts[] = {
        {"", "cfg.json: is empty, expected a JSON object"},
        {" \n\t", "is empty, expected a JSON object"},
        {"\xEF\xBB\xBF", "is empty"},
        {"[1]", "cfg.json:1: found [1], expected a JSON object"},
        {"\n\"x\"", "cfg.json:2: found \"x\", expected a JSON object"},
        {"null", "found null, expected a JSON object"},
        {"{} x", "found \"x\" after the end of the JSON value"},
        {"{}\n{}", "cfg.json:2: found \"{}\" after the end"},
        {"{\"seed\": 1", "the text ends too early"},
        {"{\"seed\": 1,}", "column 12, near \"}\" (a comma too much before it)"},
        {"{\n  'seed': 1}",
         "cfg.json:2: not valid JSON at column 3, near \"'seed': 1}\" (strings take double quotes)"},
        {"{\"seed\": 1 // one\n}", "JSON has no comments"},
        {"{\"seed\": 1\n \"log_every\": 2}", "cfg.json:2: not valid JSON at column 2, near"},
        {"{seed: 1}", "not valid JSON at column 2, near \"seed: 1}\""},
        {"{\"seed\" 1}", "not valid JSON"},
        {"{\"a\": \"\\x\"}", "not valid JSON"},
        {"{\"sed\": 1}", "unknown key \"sed\", the nearest known key is \"seed\""},
        {"{\"fine_tune_lrr\": 1}", "the nearest known key is \"fine_tune_lr\""},
        {"{\"Fine-Tune-Lr\": 1}", "the nearest known key is \"fine_tune_lr\""},
        {"{\"calibration_smaples\": 1}", "the nearest known key is \"calibration_samples\""},
        {"{\"lr\": 1}", "the nearest known key is \"fine_tune_lr\""},
        {"{\"banana\": 1}", "unknown key \"banana\"; phase4_mpi --help keys lists the known keys"},
        {"{\"\": 1}", "unknown key \"\""},
        {"{\"a\\nb\": 1}", "unknown key \"a\\nb\""},
        {"{\"seed\": 1,\n\"log_every\": 3,\n\"seed\": 1}",
         "cfg.json:3: duplicate key \"seed\", expected once; it stands on line 1 already"},
        {"{\"s\\u0065ed\": 1, \"seed\": 1}", "duplicate key \"seed\""},
        {"{\"global_batch_tokens\": 1000}", "cfg.json:1: key \"global_batch_tokens\": found 1000, expected a "
                                            "multiple of calibration_sequence_length, "
                                            "which is 512"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 8,\n\"seed\": \"x\"}",
         "cfg.json: this is a model's config.json (it has model_type \"llama\"); set model_path"},
        {"{\"model_type\": \"llama\", \"model_path\": \"m\"}", "cfg.json:1: unknown key \"model_type\""},
        {"\xFF\xFE{", "not valid JSON at column 1"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        EXPECT_REFUSED(read_json(&config, texts[i].json), texts[i].part);
    }
    EXPECT_REFUSED(p4_config_from_json(&config, "{\0}", 3, SOURCE, P4_RECIPE_SEED), "control character 0x00");
    EXPECT_REFUSED(p4_config_from_json(&config, "{\"seed\": 12}", 9, SOURCE, P4_RECIPE_SEED),
                   "ends too early");
    EXPECT_OK(read_json(&config, "\xEF\xBB\xBF{\r\n\"seed\": 7\r\n}"));
    EXPECT(config.seed == 7, "%llu", (unsigned long long)config.seed);
    EXPECT_OK(read_json(&config, "{\"global_batch_tokens\": 4096, \"calibration_sequence_length\": 1024}"));
}

static void test_deep_and_large_texts(void)
{
    enum { DEPTH = 200000 };
    char *deep = p4_alloc(DEPTH + 64, 1);
    size_t used = (size_t)snprintf(deep, 64, "{\"device\": ");
    memset(deep + used, '[', DEPTH);
    EXPECT_REFUSED(read_json(&config, deep), "lists or objects more than 64 deep");
    for (int i = 0; i < 40; i++) {
        deep[used + 40 + (size_t)i] = ']';
    }
    snprintf(deep + used + 80, 8, "}");
    EXPECT_REFUSED(read_json(&config, deep), "found a list, expected \"auto\"");
    used = (size_t)snprintf(deep, 64, "{");
    for (int i = 0; i < 5000; i++) {
        used += (size_t)snprintf(deep + used, 64, "%s\"key_number_%d\": %d", i > 0 ? ",\n" : "", i, i);
    }
    snprintf(deep + used, 8, "}");
    EXPECT_REFUSED(read_json(&config, deep), "unknown key \"key_number_0\"");
    EXPECT(read_json(&config, deep) == P4_E_INPUT, "was accepted");
    const char *message = p4_last_error(), *last = strrchr(message, '\n');
    EXPECT(last != NULL && strncmp(last, "\n... and ", 9) == 0, "%s", last != NULL ? last : "one line");
    int lines = 0;
    for (const char *at = message; (at = strchr(at, '\n')) != NULL; at++) {
        lines++;
    }
    EXPECT(last != NULL && atoi(last + 9) + lines == 5000, "%d lines and %s", lines, last);
    p4_error_clear();
    free(deep);
}

/* Members whose names start with two slashes are for people. */
static void test_comments(void)
{
    EXPECT_OK(read_json(
        &config, "{\"//\": \"replace the paths\", \"//seed\": [1, {\"a\": 2}], \"//\": 3, \"seed\": 7}"));
    EXPECT(strcmp(written_value(&config, "seed"), "7") == 0, "seed is %s", written_value(&config, "seed"));
    EXPECT_REFUSED(read_json(&config, "{\"/\": 1}"), "unknown key \"/\"");
}

/* All errors of a text at once, in the order of the text, one a line. */
static void test_all_at_once(void)
{
    static const char *const lines[] = {
        "cfg.json:2: key \"fine_tune_lr\": found \"fast\", expected \"auto\" or a number in (0, 10]",
        "cfg.json:3: unknown key \"sedd\", the nearest known key is \"seed\"",
        "cfg.json:6: key \"eval_files\": found 1 as element 3, expected a string or a list of strings, "
        "together below 16384 bytes",
        "cfg.json:7: key \"log_every\": found -3, expected a whole number in [1, 1000000000]",
        "cfg.json:7: duplicate key \"log_every\", expected once; it stands on line 7 already",
        "cfg.json:8: key \"global_batch_tokens\": found 513, expected a multiple of "
        "calibration_sequence_length, "
        "which is 512",
    };
    char want[2048] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        used += (size_t)snprintf(want + used, sizeof want - used, "%s%s", i > 0 ? "\n" : "", lines[i]);
    }
    p4_error_clear();
    EXPECT(
        read_json(&config,
                  "{\n\"fine_tune_lr\": \"fast\",\n\"sedd\": {\"a\": 1,\"a\": 2},\n\"eval_files\": [\"a\",\n"
                  "\"]\",\n1], \"device\": \"cpu\",\n\"log_every\": -3, \"log_every\": 4,\n"
                  "\"global_batch_tokens\": 513}") == P4_E_INPUT,
        "was accepted");
    EXPECT(strcmp(p4_last_error(), want) == 0, "got:\n%s\nwant:\n%s", p4_last_error(), want);
    p4_error_clear();
}

static void test_recipes(void)
{
    EXPECT_OK(read_json(&config, "{\"fine_tune_lr\": 0.5, \"recipe\": \"seed\", \"seed\": 3}"));
    p4_config_default(&other);
    other.fine_tune_lr = 0.5;
    other.seed = 3;
    memcpy(other.user_set, config.user_set, sizeof other.user_set);
    EXPECT(memcmp(&config, &other, sizeof config) == 0,
           "keys before the recipe are kept, the rest follows it");
    EXPECT_OK(p4_config_from_json(&config, "{}", 2, SOURCE, P4_RECIPE_SEED));
    p4_config_default(&other);
    EXPECT(memcmp(&config, &other, sizeof config) == 0, "{} is the recipe that was asked for");
    EXPECT_OK(p4_config_from_json(&config, "{\"recipe\": \"quality\"}", 21, SOURCE, P4_RECIPE_SEED));
    EXPECT(config.reconstruct && !config.enable_grokfast, "the file's recipe wins");
    EXPECT_OK(p4_config_set(&config, "recompute", "true"));
    EXPECT(config.recompute == P4_RECOMPUTE_BLOCKS, "true is %d", (int)config.recompute);
    EXPECT_OK(p4_config_set(&config, "recompute", "light"));
    EXPECT(config.recompute == P4_RECOMPUTE_LIGHT, "light is %d", (int)config.recompute);
    EXPECT_OK(p4_config_set(&config, "recompute", "false"));
    EXPECT(config.recompute == P4_RECOMPUTE_NONE, "false is %d", (int)config.recompute);
    EXPECT_OK(read_json(&config, "{\"recompute\": true}"));
    EXPECT(config.recompute == P4_RECOMPUTE_BLOCKS, "true is %d in JSON", (int)config.recompute);
    EXPECT_REFUSED(p4_config_set(&config, "recompute", "1"),
                   "\"none\" (false), \"light\", \"blocks\" (true) or \"auto\"");
    EXPECT_REFUSED(p4_config_set(&config, "optimizer", "true"), "mugrokfast");
    EXPECT_OK(p4_config_from_json(&config, "{}", 2, SOURCE, P4_RECIPE_QUALITY));
    EXPECT_OK(p4_config_set(&config, "optimizer", "adamw"));
    EXPECT_OK(p4_config_set(&config, "recipe", "seed"));
    EXPECT(config.optimizer == P4_OPTIMIZER_ADAMW && config.quantizer == P4_QUANTIZER_ABSMEAN &&
               config.fine_tune_lr == 1e-5 && config.enable_grokfast,
           "a recipe that is set moves the keys that are not");
}

/* ---- round trip ---- */

/* A value of each row that is not its default. */
static void change(p4_config *of, const p4_config_row *row)
{
    char *field = (char *)of + row->offset;
    int value;
    switch (row->type) {
    case P4_CONFIG_BOOL:
        *(bool *)field = !*(bool *)field;
        break;
    case P4_CONFIG_INT32:
        *(int32_t *)field = *(int32_t *)field == (int32_t)row->max ? (int32_t)row->min : (int32_t)row->max;
        break;
    case P4_CONFIG_INT64:
        *(int64_t *)field = (int64_t)row->max;
        break;
    case P4_CONFIG_UINT64:
        *(uint64_t *)field = UINT64_MAX;
        break;
    case P4_CONFIG_REAL:
        *(double *)field = row->min + (row->max - row->min) / 3.0;
        break;
    case P4_CONFIG_ENUM:
        memcpy(&value, field, sizeof value);
        value = row->names[value + 1] != NULL ? value + 1 : 0;
        memcpy(field, &value, sizeof value);
        break;
    case P4_CONFIG_PATH:
    case P4_CONFIG_NAME:
        snprintf(field, row->bytes, "a/\"b\"\\c \xC3\xBC %s", row->name);
        memset(field + strlen(field), 0, row->bytes - strlen(field));
        break;
    case P4_CONFIG_LIST:
        EXPECT(p4_list_append((p4_list *)field, "*.jsonl[.]gz"), "first string");
        EXPECT(p4_list_append((p4_list *)field, "\"\\"), "second string");
        break;
    case P4_CONFIG_SETS: {
        p4_sets *sets = (p4_sets *)(void *)field;
        EXPECT(p4_sets_add(sets, "a") && p4_sets_append(sets, "*.txt") && p4_sets_append(sets, "\"\\"),
               "a set");
        EXPECT(p4_sets_add(sets, "B-2.c_d") && p4_sets_append(sets, "*.txt"), "another set");
        break;
    }
    case P4_CONFIG_NUMBERS:
        *(p4_numbers *)(void *)field = (p4_numbers){.count = 2, .values = {row->max / 3.0, row->max}};
        break;
    }
}

static void expect_round_trip(const p4_config *of, const char *what)
{
    char *json = NULL;
    EXPECT_OK(p4_config_to_json(of, &json));
    if (json == NULL) {
        return;
    }
    EXPECT(read_json(&other, json) == P4_OK, "%s: %s", what, p4_last_error());
    for (int i = 0; i < p4_config_rows; i++) {
        EXPECT(p4_config_is_user_set(&other, i), "%s: %s is not user_set", what, p4_config_table[i].name);
    }
    memcpy(other.user_set, of->user_set, sizeof other.user_set);
    EXPECT(memcmp(of, &other, sizeof *of) == 0, "%s: read back differently:\n%s", what, json);
    free(json);
}

static void test_round_trip(void)
{
    static p4_config all;
    p4_config_default(&all);
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        p4_config_default(&config);
        memcpy(&other, &config, sizeof other);
        change(&config, row);
        change(&all, row);
        EXPECT(memcmp(&config, &other, sizeof config) != 0 || row->min == row->max, "%s did not change",
               row->name);
        config.calibration_sequence_length =
            config.global_batch_tokens > 0 ? 512 : config.calibration_sequence_length;
        config.global_batch_tokens -= config.global_batch_tokens % 512;
        config.eval_stride = config.eval_stride > 0 ? 511 : 0;
        config.distill = config.distill_blocks > 0 ? 0.5 : config.distill; /* which it needs */
        expect_round_trip(&config, row->name);
    }
    all.calibration_sequence_length = 1 << 20;
    all.global_batch_tokens = 1 << 20;
    all.device = P4_DEVICE_CPU; /* exact_sums goes with nothing else */
    expect_round_trip(&all, "all rows");
    char text[32];
    static const double reals[] = {0.1, 1e-5, 2.0 / 3,    5e-324, 1.7976931348623157e308,
                                   600, 1e15, 123456.789, 1e-3};
    static const char *const texts[] = {
        "0.1", "1e-05", "0.6666666666666666", "5e-324", "1.7976931348623157e+308",
        "600", "1e+15", "123456.789",         "0.001"};
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        p4_config_format_real(text, reals[i]);
        EXPECT(strcmp(text, texts[i]) == 0 && strtod(text, NULL) == reals[i], "%s, want %s", text, texts[i]);
    }
}

int main(void)
{
    test_values();
    test_long_strings();
    test_bad_texts();
    test_deep_and_large_texts();
    test_comments();
    test_all_at_once();
    test_recipes();
    test_round_trip();
    return TEST_END();
}
