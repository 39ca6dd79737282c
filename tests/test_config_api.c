/* The configuration in memory: defaults of both recipes, p4_config_validate, p4_config_set, size classes,
 * lists, names and help. Files: test_config_files.c. What update_docs.sh takes from it: `test_config_api
 * --markdown` prints the tables of docs/configuration.md, `--families` the list in README.md, `--man` the
 * manual page of phase4_mpi, `--man=NAME` that of a program that `--programs` lists. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/json/config.h"
#include "jobs/batch/cli.h"
#include "jobs/cli.h"
#include "jobs/export_result.h"
#include "jobs/generate.h"
#include "jobs/inspect.h"
#include "jobs/make_report.h"
#include "jobs/measure.h"
#include "src/families.h"

static p4_config config, other;

/* ---- defaults ---- */

/* Every key with its default as JSON: the specification's list and ours, written down once more. NULL: as in
 * seed. */
static const struct {
    const char *key, *seed, *quality;
} defaults[] = {
    {"model_path", "\"\"", NULL},
    {"output_path", "\"phase4_bitnet_output\"", NULL},
    {"recipe", "\"seed\"", "\"quality\""},
    {"init", "\"checkpoint\"", NULL},
    {"overwrite", "false", NULL},
    {"device", "\"auto\"", NULL},
    {"threads_per_rank", "0", NULL},
    {"mixed_precision", "true", NULL},
    {"collective_timeout_s", "600", NULL},
    {"quantization_bits", "1.58", NULL},
    {"quantizer", "\"absmean\"", NULL},
    {"scale_granularity", "\"row\"", NULL},
    {"sparsity_threshold", "0.1", "0.5"},
    {"activation_bits", "0", NULL},
    {"preserve_embedding_precision", "true", NULL},
    {"preserve_output_precision", "true", NULL},
    {"preserve_layers", "[]", NULL},
    {"calibration_dataset", "\"openwebtext\"", NULL},
    {"dataset_root", "\"\"", NULL},
    {"calibration_files", "[]", NULL},
    {"eval_files", "[]", NULL},
    {"eval_sets", "{}", NULL},
    {"train_files", "[]", NULL},
    {"calibration_weights", "[]", NULL},
    {"train_weights", "[]", NULL},
    {"text_field", "\"\"", NULL},
    {"chat_template", "\"auto\"", NULL},
    {"calibration_samples", "1000", NULL},
    {"eval_samples", "1000", NULL},
    {"eval_bos", "false", NULL},
    {"eval_stride", "0", NULL},
    {"calibration_batch_size", "4", NULL},
    {"calibration_sequence_length", "512", NULL},
    {"num_workers", "4", NULL},
    {"token_cache", "\"\"", NULL},
    {"seed", "42", NULL},
    {"enable_fine_tuning", "true", NULL},
    {"fine_tune_epochs", "2", NULL},
    {"fine_tune_max_steps", "0", NULL},
    {"fine_tune_lr", "1e-05", "\"auto\""},
    {"lr_final_fraction", "1", "0"},
    {"warmup_steps", "50", NULL},
    {"optimizer", "\"mugrokfast\"", NULL},
    {"optimizer_state", "\"fp32\"", NULL},
    {"weight_decay", "0", "0.1"},
    {"gradient_clip", "1", NULL},
    {"micro_batch_size", "\"auto\"", NULL},
    {"global_batch_tokens", "0", NULL},
    {"enable_grokfast", "true", "false"},
    {"grokfast_ema_alpha", "0.98", NULL},
    {"grokfast_lambda", "2", NULL},
    {"learn_scales", "false", NULL},
    {"distill", "0", "\"auto\""},
    {"distill_temperature", "1", NULL},
    {"distill_teacher", "\"auto\"", NULL},
    {"distill_top_k", "64", NULL},
    {"distill_blocks", "0", NULL},
    {"zero_stage", "2", NULL},
    {"exact_sums", "false", NULL},
    {"recompute", "\"auto\"", NULL},
    {"log_every", "10", NULL},
    {"eval_every", "0", NULL},
    {"reconstruct", "false", "true"},
    {"reconstruct_tokens", "0", NULL},
    {"reconstruct_steps", "0", NULL},
    {"reconstruct_lr", "0.001", NULL},
    {"reconstruct_window", "1", "2"},
    {"checkpoint_minutes", "15", NULL},
    {"checkpoint_every", "0", NULL},
    {"resume", "\"auto\"", NULL},
    {"max_minutes", "0", NULL},
    {"target_compression_ratio", "8", NULL},
    {"max_accuracy_drop", "0.1", NULL},
    {"fine_tune_threshold", "0.05", NULL},
    {"save_quantized", "true", NULL},
    {"save_dequantized_fp16", "true", NULL},
    {"packing", "\"base3x5\"", NULL},
    {"exports", "[]", NULL},
    {"sample_texts", "3", NULL},
    {"wandb_enabled", "true", NULL},
    {"wandb_project", "\"agent-forge-v2\"", NULL},
    {"tensorboard_enabled", "false", NULL},
};
enum { DEFAULTS = sizeof defaults / sizeof defaults[0] };

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

static void test_defaults(void)
{
    static p4_config quality, seed;
    memset(&quality, 0x5A, sizeof quality);
    p4_config_recipe(&quality, P4_RECIPE_QUALITY);
    p4_config_default(&seed);
    EXPECT(p4_config_rows == DEFAULTS, "%d rows, %d defaults", p4_config_rows, (int)DEFAULTS);
    for (int i = 0; i < DEFAULTS; i++) {
        const char *key = defaults[i].key,
                   *want = defaults[i].quality != NULL ? defaults[i].quality : defaults[i].seed;
        EXPECT(strcmp(p4_config_table[i].name, key) == 0, "row %d is %s", i, p4_config_table[i].name);
        const char *got = written_value(&seed, key);
        EXPECT(strcmp(got, defaults[i].seed) == 0, "%s of recipe seed is %s", key, got);
        got = written_value(&quality, key);
        EXPECT(strcmp(got, want) == 0, "%s of recipe quality is %s", key, got);
    }
    EXPECT(seed.fine_tune_lr == 1e-5 && quality.fine_tune_lr == 0, "%g %g", seed.fine_tune_lr,
           quality.fine_tune_lr);
    EXPECT(quality.optimizer == P4_OPTIMIZER_MUGROKFAST && seed.optimizer == P4_OPTIMIZER_MUGROKFAST,
           "optimizers");
    EXPECT(seed.seed == 42 && seed.calibration_dataset == P4_DATASET_OPENWEBTEXT, "seed fields");
    EXPECT(strcmp(seed.wandb_project, "agent-forge-v2") == 0, "%s", seed.wandb_project);
    EXPECT_OK(p4_config_validate(&seed));
    EXPECT_OK(p4_config_validate(&quality));
}

static void test_table(void)
{
    size_t end = 0;
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        EXPECT(row->offset >= end, "%s does not follow the row before it", row->name);
        end = row->offset + row->bytes;
        EXPECT(row->help != NULL && strlen(row->help) > 10 && strchr(row->help, '|') == NULL, "help of %s",
               row->name);
        EXPECT((row->type == P4_CONFIG_ENUM) == (row->names != NULL), "names of %s", row->name);
        bool text = row->type == P4_CONFIG_PATH || row->type == P4_CONFIG_NAME;
        EXPECT(text == (row->text != NULL), "text of %s", row->name);
        EXPECT(strlen(row->name) <= 29, "%s is wider than the column of --help", row->name);
    }
    EXPECT(p4_config_table[0].group != NULL, "the first row has no group");
    EXPECT(end <= offsetof(p4_config, user_set), "the table ends at %zu", end);
}

/* ---- in memory ---- */

static void test_validate(void)
{
    static const struct {
        const char *key;
        size_t offset;
        double value;
        const char *part;
    } reals[] = {
        {"quantization_bits", offsetof(p4_config, quantization_bits), 2.0,
         "BitNet 1.58-bit quantization only"},
        {"max_accuracy_drop", offsetof(p4_config, max_accuracy_drop), 1.5, "must be between 0.0 and 0.5"},
        {"max_accuracy_drop", offsetof(p4_config, max_accuracy_drop), NAN, "found nan"},
        {"fine_tune_lr", offsetof(p4_config, fine_tune_lr), NAN,
         "found nan, expected \"auto\" or a number in (0, 10]"},
        {"fine_tune_lr", offsetof(p4_config, fine_tune_lr), INFINITY, "found inf"},
        {"gradient_clip", offsetof(p4_config, gradient_clip), -INFINITY, "found -inf"},
    };
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        p4_config_default(&config);
        memcpy((char *)&config + reals[i].offset, &reals[i].value, sizeof(double));
        EXPECT_REFUSED(p4_config_validate(&config), reals[i].key);
        EXPECT_REFUSED(p4_config_validate(&config), reals[i].part);
        char *json = NULL;
        EXPECT_REFUSED(p4_config_to_json(&config, &json), reals[i].part);
        EXPECT(json == NULL, "an invalid configuration was written");
    }
    p4_config_default(&config);
    config.device = (p4_device_kind)7;
    config.calibration_sequence_length = -1;
    config.global_batch_tokens = INT64_MAX;
    memset(config.wandb_project, 'x', sizeof config.wandb_project);
    config.eval_files.count = 3;
    memset(config.eval_files.bytes, 'y', sizeof config.eval_files.bytes);
    config.train_files.count = -1;
    EXPECT_REFUSED(p4_config_validate(&config),
                   "key \"device\": found 7, expected \"auto\", \"cuda\" or \"cpu\"\n");
    EXPECT_REFUSED(p4_config_validate(&config), "\nkey \"eval_files\": found a list that runs over its end");
    EXPECT_REFUSED(p4_config_validate(&config), "\nkey \"train_files\": found a negative count");
    EXPECT_REFUSED(p4_config_validate(&config), "\nkey \"calibration_sequence_length\": found -1, expected");
    EXPECT_REFUSED(p4_config_validate(&config), "\nkey \"global_batch_tokens\": found 9223372036854775807");
    EXPECT_REFUSED(p4_config_validate(&config), "\nkey \"wandb_project\": found a string without an end");
    p4_config_default(&config);
    config.global_batch_tokens = 513;
    EXPECT_REFUSED(p4_config_validate(&config),
                   "found 513, expected a multiple of calibration_sequence_length");
    config.global_batch_tokens = 1024;
    EXPECT_OK(p4_config_validate(&config));
}

static void test_validate_job(void)
{
    p4_config_default(&config);
    EXPECT_OK(p4_config_validate(&config)); /* samples may be set in memory */
    EXPECT_REFUSED(p4_config_validate_job(&config),
                   "key \"model_path\": found \"\", expected the directory of a model\n");
    EXPECT_REFUSED(p4_config_validate_job(&config),
                   "\nkey \"dataset_root\": found \"\", expected the directory that "
                   "holds \"openwebtext\"");
    EXPECT_OK(p4_config_set(&config, "model_path", "model"));
    EXPECT_OK(p4_config_set(&config, "dataset_root", "datasets"));
    EXPECT_OK(p4_config_validate_job(&config));
    EXPECT_OK(p4_config_set(&config, "output_path", ""));
    EXPECT_REFUSED(p4_config_validate_job(&config), "key \"output_path\": found \"\"");
    EXPECT_OK(p4_config_set(&config, "output_path", "out"));
    EXPECT_OK(p4_config_set(&config, "calibration_dataset", "custom"));
    EXPECT_REFUSED(p4_config_validate_job(&config),
                   "key \"calibration_files\": found [], expected the files of "
                   "calibration_dataset \"custom\"");
    /* Each reader of the calibration data asks for it alone, until none is left. */
    EXPECT_OK(p4_config_set(&config, "calibration_samples", "0"));
    EXPECT_REFUSED(p4_config_validate_job(&config),
                   "needed by [enable_fine_tuning without train_files] [eval_samples without eval_files]");
    EXPECT_OK(p4_config_set(&config, "eval_files", "a.txt"));
    EXPECT_REFUSED(p4_config_validate_job(&config), "needed by [enable_fine_tuning without train_files]");
    EXPECT_OK(p4_config_set(&config, "enable_fine_tuning", "false"));
    EXPECT_OK(p4_config_validate_job(&config));
    EXPECT_OK(p4_config_set(&config, "calibration_samples", "1"));
    EXPECT_REFUSED(p4_config_validate_job(&config), "needed by [calibration_samples]");
    EXPECT_OK(p4_config_set(&config, "calibration_files", "b.txt"));
    EXPECT_OK(p4_config_validate_job(&config));
    EXPECT_OK(p4_config_set(&config, "reconstruct", "true"));
    EXPECT_OK(p4_config_validate_job(&config));
    EXPECT_OK(p4_config_set(&config, "calibration_samples", "0"));
    EXPECT_REFUSED(p4_config_validate_job(&config),
                   "key \"reconstruct\": found true, expected false: with calibration_samples 0");
    EXPECT_OK(p4_config_set(&config, "calibration_samples", "1"));
    EXPECT_OK(p4_config_set(&config, "quantizer", "none"));
    EXPECT_REFUSED(p4_config_validate_job(&config),
                   "key \"reconstruct\": found true, expected false: with quantizer \"none\"");
    EXPECT_OK(p4_config_set(&config, "quantizer", "absmean"));
    EXPECT_OK(p4_config_set(&config, "calibration_dataset", "c4"));
    EXPECT_REFUSED(p4_config_validate_job(&config),
                   "key \"calibration_files\": found 1 entry, expected none with calibration_dataset \"c4\"");
}

static void test_size_classes(void)
{
    static const struct {
        int64_t params;
        p4_size_category category;
        const char *name;
        double target, threshold;
    } sizes[] = {
        {0, P4_SIZE_TINY, "tiny", 6, 0.05},
        {9999999, P4_SIZE_TINY, "tiny", 6, 0.05},
        {10000000, P4_SIZE_SMALL, "small", 8, 0.10},
        {25000000, P4_SIZE_SMALL, "small", 8, 0.10},
        {499999999, P4_SIZE_SMALL, "small", 8, 0.10},
        {500000000, P4_SIZE_MEDIUM, "medium", 10, 0.15},
        {1999999999, P4_SIZE_MEDIUM, "medium", 10, 0.15},
        {2000000000, P4_SIZE_LARGE, "large", 12, 0.20},
        {INT64_MAX, P4_SIZE_LARGE, "large", 12, 0.20},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        p4_config_default(&config);
        p4_config_adapt_to_model_size(&config, sizes[i].params);
        EXPECT(p4_config_size_category(sizes[i].params) == sizes[i].category, "%lld",
               (long long)sizes[i].params);
        EXPECT(strcmp(p4_size_category_name(sizes[i].category), sizes[i].name) == 0, "%s", sizes[i].name);
        EXPECT(config.target_compression_ratio == sizes[i].target &&
                   config.sparsity_threshold == sizes[i].threshold,
               "%lld: %g %g", (long long)sizes[i].params, config.target_compression_ratio,
               config.sparsity_threshold);
    }
    /* What the user set stays, even when it is the default. */
    const char *json = "{\"sparsity_threshold\": 0.1}";
    EXPECT_OK(p4_config_from_json(&config, json, strlen(json), "cfg.json", P4_RECIPE_SEED));
    p4_config_adapt_to_model_size(&config, 3000000000);
    EXPECT(config.sparsity_threshold == 0.1 && config.target_compression_ratio == 12, "%g %g",
           config.sparsity_threshold, config.target_compression_ratio);
    p4_config_default(&config);
    EXPECT_OK(p4_config_set(&config, "target_compression_ratio", "8.0"));
    p4_config_adapt_to_model_size(&config, 1000);
    EXPECT(config.sparsity_threshold == 0.05 && config.target_compression_ratio == 8, "%g %g",
           config.sparsity_threshold, config.target_compression_ratio);
}

static void test_lists(void)
{
    static p4_list list;
    static const char *const strings[] = {"a", "", "bcd", "e"};
    EXPECT(p4_list_next(&list, NULL) == NULL, "an empty list has a first string");
    for (int i = 0; i < 4; i++) {
        EXPECT(p4_list_append(&list, strings[i]), "string %d", i);
    }
    const char *string = NULL;
    for (int i = 0; i < 4; i++) {
        string = p4_list_next(&list, string);
        EXPECT(string != NULL && strcmp(string, strings[i]) == 0, "string %d", i);
    }
    EXPECT(p4_list_next(&list, string) == NULL, "the list has no end");
    char *big = p4_alloc(P4_LIST_BYTES, 1);
    memset(big, 'x', P4_LIST_BYTES - 1);
    EXPECT(!p4_list_append(&list, big) && list.count == 4, "what does not fit was appended");
    free(big);
}

static void test_names(void)
{
    EXPECT(p4_edit_distance("", "") == 0 && p4_edit_distance("", "abc") == 3, "empty words");
    EXPECT(p4_edit_distance("kitten", "sitting") == 3, "%d", p4_edit_distance("kitten", "sitting"));
    EXPECT(p4_edit_distance("seed", "sede") == 1, "neighbours that are swapped");
    EXPECT(p4_edit_distance("Fine-Tune", "fine_tune") == 0, "case and dashes");
    for (int i = 0; i < p4_config_rows; i++) {
        const char *name = p4_config_table[i].name;
        char typo[64];
        size_t bytes = strlen(name);
        EXPECT(p4_config_find(name) == i && strcmp(p4_config_nearest(name), name) == 0, "%s", name);
        for (size_t cut = 1; cut < bytes; cut++) { /* one letter missing */
            snprintf(typo, sizeof typo, "%.*s%s", (int)cut, name, name + cut + 1);
            EXPECT(p4_edit_distance(typo, name) == 1, "%s", typo);
            EXPECT(p4_edit_distance(p4_config_nearest(typo), typo) == 1, "%s: %s", typo,
                   p4_config_nearest(typo));
        }
    }
    EXPECT(p4_config_nearest("banana") == NULL && p4_config_nearest("") == NULL,
           "a word that is near to none");
    EXPECT(p4_config_find("") == -1 && p4_config_find("Seed") == -1, "names are exact");
}

/* ---- arguments ---- */

static void test_set(void)
{
    static const struct {
        const char *key, *value, *part; /* part NULL: accepted */
    } sets[] = {
        {"seed", "7", NULL},
        {"seed", " 7 ", NULL},
        {"seed", "18446744073709551615", NULL},
        {"seed", "", "key \"seed\": found \"\", expected a whole number"},
        {"seed", "7x", "found \"7x\", expected a whole number"},
        {"seed", "1 2", "found \"1 2\""},
        {"sede", "7", "unknown key \"sede\", the nearest known key is \"seed\""},
        {"", "7", "unknown key \"\""},
        {"fine_tune_lr", "3e-4", NULL},
        {"fine_tune_lr", "fast",
         "key \"fine_tune_lr\": found \"fast\", expected \"auto\" or a number in (0, 10]"},
        {"fine_tune_lr", "nan", "found \"nan\""},
        {"fine_tune_lr", "11", "found 11, expected \"auto\" or a number in (0, 10]"},
        {"device", "cpu", NULL},
        {"device", "\"cpu\"", NULL},
        {"device", "tpu", "found \"tpu\", expected \"auto\", \"cuda\" or \"cpu\""},
        {"device", "\"cpu", "found \"\"cpu\""},
        {"overwrite", "true", NULL},
        {"overwrite", "yes", "found \"yes\", expected true or false"},
        {"wandb_project", "12", NULL},
        {"wandb_project", "\"a b\"", NULL},
        {"wandb_project", "a\nb", "which holds a control character"},
        {"wandb_project", "a\xFF", "which is not UTF-8"},
        {"eval_files", "a, b.txt", NULL},
        {"eval_files", "\"a\"", NULL},
        {"eval_files", "[\"a\", \"b\"]", NULL},
        {"eval_files", "[]", NULL},
        {"eval_files", "", "found \"\" as string 1, which is empty"},
        {"eval_files", "[\n\n1]",
         "key \"eval_files\": found 1 as element 1, expected a string or a list of strings"},
        {"eval_files", "[\"a\"", "found \"[\"a\"\", expected a string or a list of strings"},
        {"eval_files", "a\"], [\"b", NULL},
        {"eval_files", "[a]", "found \"[a]\", expected a string or a list of strings"},
        {"eval_sets", "code=a=b.txt", NULL},
        {"eval_sets", "{\"w\": [\"a\"], \"v\": \"b\"}", NULL},
        {"eval_sets", "a.txt", "found \"a.txt\", expected an object of up to 16 names"},
        {"eval_sets", "=a.txt", "found the name \"\""},
        {"quantization_bits", "4", "Phase 4 uses BitNet 1.58-bit quantization only"},
    };
    p4_config_default(&config);
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        memcpy(&other, &config, sizeof other);
        if (sets[i].part == NULL) {
            EXPECT(p4_config_set(&config, sets[i].key, sets[i].value) == P4_OK, "%s: %s", sets[i].value,
                   p4_last_error());
            EXPECT(p4_config_is_user_set(&config, p4_config_find(sets[i].key)), "%s is not user_set",
                   sets[i].key);
        } else {
            EXPECT_REFUSED(p4_config_set(&config, sets[i].key, sets[i].value), sets[i].part);
            EXPECT(memcmp(&config, &other, sizeof config) == 0, "%s: a refused value was set", sets[i].value);
        }
    }
    EXPECT(config.seed == UINT64_MAX && config.fine_tune_lr == 3e-4 && config.device == P4_DEVICE_CPU,
           "values");
    EXPECT(strcmp(config.wandb_project, "a b") == 0, "%s", config.wandb_project);
    EXPECT_OK(p4_config_set(&config, "eval_files", "a, b.txt"));
    EXPECT(config.eval_files.count == 1 && strcmp(config.eval_files.bytes, "a, b.txt") == 0, "one path");
    EXPECT_OK(p4_config_set(&config, "eval_sets", "code=a=b.txt"));
    EXPECT(config.eval_sets.count == 1 && strcmp(config.eval_sets.names[0], "code") == 0 &&
               strcmp(config.eval_sets.strings.bytes, "a=b.txt") == 0,
           "one set of one path");
}

static void test_help(void)
{
    char *text = NULL;
    size_t bytes = 0;
    for (int markdown = 0; markdown < 2; markdown++) {
        FILE *out = open_memstream(&text, &bytes);
        (markdown ? p4_config_print_markdown : p4_config_print_help)(out);
        fclose(out);
        for (int i = 0; i < p4_config_rows; i++) {
            char pattern[64];
            snprintf(pattern, sizeof pattern, markdown ? "\n| `%s` | " : "\n  %-29s ",
                     p4_config_table[i].name);
            EXPECT(strstr(text, pattern) != NULL, "%s is not in the help", p4_config_table[i].name);
            EXPECT(strstr(text, p4_config_table[i].help) != NULL, "the help of %s", p4_config_table[i].name);
        }
        EXPECT(
            strstr(text,
                   markdown
                       ? "| `fine_tune_lr` | `\"auto\"` | `seed`: `1e-05` | \"auto\" or a number in (0, 10] |"
                       : "\"auto\" or a number in (0, 10], default \"auto\" (recipe seed: 1e-05)\n") != NULL,
            "%s", text);
        free(text);
    }
}

/* The programs whose command line is a table of options.h. */
static const p4_program *const programs[] = {&p4_batch_program,    &p4_inspect_program, &p4_evaluate_program,
                                             &p4_generate_program, &p4_export_program,  &p4_report_program};
enum { PROGRAMS = sizeof programs / sizeof programs[0] };

/* The parts of the pages that the tables make; false: something else is asked. */
static bool print_docs(const char *what)
{
    if (strcmp(what, "--markdown") == 0) {
        p4_config_print_markdown(stdout);
    } else if (strcmp(what, "--man") == 0) {
        p4_cli_print_man(stdout);
    } else if (strcmp(what, "--families") == 0) {
        p4_families_print(stdout, true);
    } else if (strcmp(what, "--programs") == 0) {
        for (int i = 0; i < PROGRAMS; i++) {
            printf("%s\n", programs[i]->name);
        }
    } else {
        for (int i = 0; i < PROGRAMS; i++) {
            if (strncmp(what, "--man=", 6) == 0 && strcmp(what + 6, programs[i]->name) == 0) {
                p4_program_print_man(stdout, programs[i]);
                return true;
            }
        }
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc == 2 && print_docs(argv[1])) {
        return 0;
    }
    test_defaults();
    test_table();
    test_validate();
    test_validate_job();
    test_size_classes();
    test_lists();
    test_names();
    test_set();
    test_help();
    return TEST_END();
}
