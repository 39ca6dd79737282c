/* Writing Hugging Face directories: round trips of the fixtures, what is copied, and that nothing
 * half-written stays. */
#include "hf_world.h"

static p4_rc rows_of(void *user, uint16_t *rows_out, int64_t param, int64_t first_row, int64_t rows)
{
    const p4_hf_model *hf = user;
    int64_t cols = hf->model.params[param].cols;
    float *row = p4_alloc((size_t)cols, sizeof *row);
    for (int64_t r = 0; r < rows; r++) {
        p4_weight_row_f32(row, &hf->model.weights[param], first_row + r);
        p4_f32s_to_f16(rows_out + r * cols, row, cols);
    }
    free(row);
    return P4_OK;
}

static p4_rc write_with(const char *name, const p4_hf_model *origin, uint64_t shard_bytes,
                        p4_rc (*rows)(void *, uint16_t *, int64_t, int64_t, int64_t), const void *user)
{
    const p4_hf_source source = {.rows = rows, .user = (void *)(uintptr_t)user, .threads = 3};
    return p4_hf_model_write(at(name), origin, shard_bytes, &source);
}

/* Every element of the copy is the origin's, rounded to fp16. */
static void compare_models(const p4_hf_model *origin, const p4_hf_model *copy)
{
    int64_t wrong = 0;
    EXPECT(copy->model.params_count == origin->model.params_count && strcmp(copy->stored_dtype, "F16") == 0,
           "%lld of %s", (long long)copy->model.params_count, copy->stored_dtype);
    for (int64_t i = 0; i < origin->model.params_count; i++) {
        float want[256], got[256];
        const p4_param *p = &origin->model.params[i];
        EXPECT(strcmp(p->name, copy->model.params[i].name) == 0, "%s became %s", p->name,
               copy->model.params[i].name);
        for (int64_t r = 0; r < p->rows; r++) {
            p4_weight_row_f32(want, &origin->model.weights[i], r);
            p4_weight_row_f32(got, &copy->model.weights[i], r);
            for (int64_t c = 0; c < p->cols; c++) {
                wrong += got[c] != p4_f16_to_f32(p4_f32_to_f16(want[c]));
            }
        }
    }
    EXPECT(wrong == 0, "%lld elements differ", (long long)wrong);
}

static void test_round_trip(const char *fixture, uint64_t shard_bytes, int64_t shards)
{
    char path[WORLD_PATH_BYTES], name[64];
    p4_hf_model origin, copy;
    snprintf(path, sizeof path, "%s/models/%s", P4_FIXTURES, fixture);
    snprintf(name, sizeof name, "copies/%s", fixture);
    EXPECT_OK(p4_hf_model_open(&origin, path));
    EXPECT_OK(write_with(name, &origin, shard_bytes, rows_of, &origin));
    EXPECT_OK(p4_hf_model_open(&copy, at(name)));
    EXPECT(copy.shard_count == shards, "%s: %lld shards", fixture, (long long)copy.shard_count);
    compare_models(&origin, &copy);
    EXPECT(strstr(copy.config_json, "dtype\":\t\"float16\"") != NULL, "%s: %s", fixture, copy.config_json);
    p4_hf_model_close(&copy);
    p4_hf_model_close(&origin);
}

/* Only dtype and torch_dtype change. Keys keep their order, and numbers their spelling: 10000.0 is no
 * integer, and 12345678901234567890 does not fit a double. */
static void test_config_text(void)
{
    static const struct {
        const char *before, *after;
    } cases[] = {
        {"{\"dtype\": \"bfloat16\", \"x\": 1e-05}", "{\n\t\"dtype\":\t\"float16\",\n\t\"x\":\t1e-05\n}\n"},
        {"{\"a\":[1,{\"dtype\":2}],\"torch_dtype\":null}",
         "{\n\t\"a\":\t[1, {\n\t\t\t\"dtype\":\t2\n\t\t}],\n\t\"torch_dtype\":\t\"float16\"\n}\n"},
        {"\xef\xbb\xbf {\"torch_dtype\":\"float32\",\"dtype\" :\t{\"a\": [\"}\"]}\n}",
         "{\n\t\"torch_dtype\":\t\"float16\",\n\t\"dtype\":\t\"float16\"\n}\n"},
        {"{\"s\": \"\\\"dtype\\\": \\\\\", \"dtype\": \"x\", \"dtype\": 1, \"b\": 10000.0}",
         "{\n\t\"s\":\t\"\\\"dtype\\\": \\\\\",\n\t\"dtype\":\t\"float16\",\n\t\"dtype\":\t\"float16\","
         "\n\t\"b\":\t10000.0\n}\n"},
        {"{\"x\": 12345678901234567890 , \"u\": \"\\u00e9\"}",
         "{\n\t\"x\":\t12345678901234567890,\n\t\"u\":\t\"\xc3\xa9\",\n\t\"torch_dtype\":\t\"float16\"\n}\n"},
        {"{\"o\": {}, \"l\": [ ], \"n\": {\"a\": [[-1.50e+3, 9007199254740993], {}], \"b\": -0}, \"t\": "
         "true}",
         "{\n\t\"o\":\t{\n\t},\n\t\"l\":\t[],\n\t\"n\":\t{\n\t\t\"a\":\t[[-1.50e+3, 9007199254740993], {\n"
         "\t\t\t}],\n\t\t\"b\":\t-0\n\t},\n\t\"t\":\ttrue,\n\t\"torch_dtype\":\t\"float16\"\n}\n"},
        {"{}", "{\n\t\"torch_dtype\":\t\"float16\"\n}\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = p4_hf_config_as_fp16(cases[i].before);
        EXPECT(text != NULL && strcmp(text, cases[i].after) == 0, "became %s\nexpected %s", text,
               cases[i].after);
        free(text);
    }
}

static void test_copied_files(void)
{
    static const char *const along[] = {"tokenizer.json", "merges.txt", "LICENSE.txt", "USE_POLICY.md",
                                        "README.md"};
    static const char *const left[] = {"pytorch_model.bin", "training.json", "model.gguf", "notes.txt"};
    p4_hf_model origin;
    char path[WORLD_PATH_BYTES], text[64] = "";
    make_small("full");
    for (size_t i = 0; i < sizeof along / sizeof along[0]; i++) {
        snprintf(path, sizeof path, "full/%s", along[i]);
        put(path, along[i]);
    }
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        snprintf(path, sizeof path, "full/%s", left[i]);
        put(path, left[i]);
    }
    EXPECT(symlink("nowhere", at("full/vocab.json")) == 0, "symlink");
    EXPECT_OK(p4_hf_model_open(&origin, at("full")));
    EXPECT_OK(write_with("deep/er/copy///", &origin, 0, rows_of, &origin));
    for (size_t i = 0; i < sizeof along / sizeof along[0]; i++) {
        snprintf(path, sizeof path, "deep/er/copy/%s", along[i]);
        FILE *file = fopen(at(path), "r");
        EXPECT(file != NULL && fgets(text, sizeof text, file) != NULL && strcmp(text, along[i]) == 0, "%s",
               along[i]);
        if (file != NULL) {
            fclose(file);
        }
    }
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        snprintf(path, sizeof path, "deep/er/copy/%s", left[i]);
        EXPECT(!is_there(path), "%s was copied", left[i]);
    }
    EXPECT(!is_there("deep/er/copy/vocab.json"), "a broken link was copied");
    p4_hf_model_close(&origin);
}

static void test_targets(void)
{
    p4_hf_model origin, copy;
    make_small("origin");
    EXPECT_OK(p4_hf_model_open(&origin, at("origin")));
    /* an older model there is replaced whole: shards of it would win over the new single file */
    EXPECT_OK(write_with("target", &origin, 100, rows_of, &origin));
    EXPECT(is_there("target/model.safetensors.index.json"), "index");
    EXPECT_OK(write_with("target", &origin, 0, rows_of, &origin));
    EXPECT(!is_there("target/model.safetensors.index.json") && is_there("target/model.safetensors"),
           "old index");
    EXPECT_OK(p4_hf_model_open(&copy, at("target")));
    p4_hf_model_close(&copy);
    /* anything else there is not */
    put("target/thesis.tex", "important");
    EXPECT_REFUSED(write_with("target", &origin, 0, rows_of, &origin), "holds \"thesis.tex\"");
    EXPECT(is_there("target/thesis.tex") && is_there("target/model.safetensors"),
           "the refused target was changed");
    EXPECT_REFUSED(write_with("origin/", &origin, 0, rows_of, &origin), "the model is read from it");
    EXPECT(symlink("origin", at("link")) == 0, "symlink");
    EXPECT_REFUSED(write_with("link", &origin, 0, rows_of, &origin), "the model is read from it");
    put("file", "");
    EXPECT_REFUSED(write_with("file", &origin, 0, rows_of, &origin), "is a file");
    EXPECT_REFUSED(write_with("file/below", &origin, 0, rows_of, &origin), "is a file");
    p4_hf_model_close(&origin);
}

typedef struct saboteur {
    const p4_hf_model *hf;
    int64_t param, row;
    float value;
    bool fail;
} saboteur;

static p4_rc sabotaged_rows(void *user, uint16_t *rows_out, int64_t param, int64_t first_row, int64_t rows)
{
    const saboteur *s = user;
    p4_rc rc = rows_of((void *)(uintptr_t)s->hf, rows_out, param, first_row, rows);
    if (param == s->param && s->row >= first_row && s->row < first_row + rows) {
        rows_out[(s->row - first_row) * s->hf->model.params[param].cols + 1] = p4_f32_to_f16(s->value);
        rc = s->fail ? FAIL("the source failed") : rc;
    }
    return rc;
}

static p4_rc not_ready(void *user)
{
    (void)user;
    EXPECT(is_there("late.tmp/model.safetensors") && is_there("late.tmp/config.json") && !is_there("late"),
           "asked before the files are there");
    return FAIL("the other file failed");
}

static void test_not_ready(void)
{
    p4_hf_model origin;
    make_small("origin");
    EXPECT_OK(p4_hf_model_open(&origin, at("origin")));
    const p4_hf_source source = {.rows = rows_of, .ready = not_ready, .user = &origin, .threads = 1};
    EXPECT_REFUSED(p4_hf_model_write(at("late"), &origin, 0, &source), "the other file failed");
    EXPECT(!is_there("late") && !is_there("late.tmp"), "something stayed");
    p4_hf_model_close(&origin);
}

static void test_failures(void)
{
    p4_hf_model origin;
    make_small("origin");
    EXPECT_OK(p4_hf_model_open(&origin, at("origin")));
    int64_t last = origin.model.params_count - 1;
    struct {
        saboteur s;
        const char *part;
    } cases[] = {
        {{&origin, last, 9, 65520.0f, false},
         "\"lm_head.weight\", row 9, column 1: inf cannot be stored as float16"},
        {{&origin, last, 0, -1e30f, false}, "row 0, column 1: -inf cannot be stored"},
        {{&origin, 1, 0, NAN, false}, "input_layernorm.weight\", row 0, column 1: nan cannot be stored"},
        {{&origin, last, 0, 0, true}, "the source failed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        EXPECT_REFUSED(write_with("broken", &origin, 200, sabotaged_rows, &cases[i].s), cases[i].part);
        EXPECT(!is_there("broken") && !is_there("broken.tmp"), "something stayed");
    }
    saboteur edge = {&origin, last, 9, 65519.0f, false};
    EXPECT_OK(write_with("broken", &origin, 200, sabotaged_rows, &edge));
    EXPECT_REFUSED(write_with("broken", &origin, 0, sabotaged_rows, &cases[0].s), "cannot be stored");
    EXPECT(is_there("broken/model.safetensors.index.json") && !is_there("broken.tmp"),
           "the older copy is gone");
    p4_hf_model_close(&origin);
}

/* Rows in several pieces, and a Conv1D whose turning goes over piece borders: [1500, 700] is more than one
 * piece. */
static p4_rc pattern_rows(void *user, uint16_t *rows_out, int64_t param, int64_t first_row, int64_t rows)
{
    const p4_model *model = user;
    int64_t cols = model->params[param].cols;
    for (int64_t i = 0; i < rows * cols; i++) {
        rows_out[i] = p4_f32_to_f16((float)((first_row * cols + i) % 1021) / 1024);
    }
    return P4_OK;
}

static void test_pieces(void)
{
    static char config[] =
        "{\"model_type\":\"gpt2\",\"vocab_size\":800,\"n_embd\":700,\"n_layer\":1,\"n_head\":7,"
        "\"n_positions\":3,\"n_inner\":1500}";
    p4_hf_model origin = {.config_json = config}, copy;
    p4_arch arch;
    static float row[3 * 700];
    int64_t wrong = 0;
    EXPECT_OK(p4_hf_config_parse(&arch, config, strlen(config), "pieces"));
    EXPECT_OK(p4_model_init(&origin.model, &arch, "transformer."));
    EXPECT_OK(write_with("pieces", &origin, 0, pattern_rows, &origin.model));
    EXPECT_OK(p4_hf_model_open(&copy, at("pieces")));
    for (int64_t i = 0; i < copy.model.params_count; i++) {
        const p4_param *p = &copy.model.params[i];
        for (int64_t r = 0; r < p->rows; r++) {
            p4_weight_row_f32(row, &copy.model.weights[i], r);
            for (int64_t c = 0; c < p->cols; c++) {
                wrong += row[c] != (float)((r * p->cols + c) % 1021) / 1024;
            }
        }
    }
    EXPECT(wrong == 0, "%lld elements differ", (long long)wrong);
    p4_hf_model_close(&copy);
    p4_model_close(&origin.model);
}

int main(void)
{
    p4_log_setup(P4_LOG_QUIET, false);
    make_world();
    test_round_trip("llama-gqa", 0, 1);
    test_round_trip("llama-bias", 1 << 30, 1);
    test_round_trip("llama-llama3", 0, 1);
    test_round_trip("llama-linear", 20000, 2);
    test_round_trip("llama-bf16", 0, 1);
    test_round_trip("llama-mlp-bias", 0, 1);
    test_round_trip("gpt2-prefix", 1, 28);
    test_round_trip("gpt2-plain", 0, 1);
    test_round_trip("gpt2-untied", 10000, 2);
    test_config_text();
    test_copied_files();
    test_targets();
    test_failures();
    test_not_ready();
    test_pieces();
    return end_world();
}
