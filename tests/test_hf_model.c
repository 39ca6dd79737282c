/* Opening Hugging Face directories: the fixtures, hub caches, shards, and everything that may be wrong with
 * them. */
#include "fixture_models.h"
#include "hf_world.h"

static void test_fixture(const char *path)
{
    p4_hf_model hf;
    float row[512];
    EXPECT_OK(p4_hf_model_open(&hf, path));
    EXPECT(hf.stored_bytes > 0 && hf.stored_bytes == (double)p4_model_count_elements(&hf.model) *
                                                         (double)p4_dtype_bytes(hf.model.weights[0].dtype),
           "%s: %.0f bytes", path, hf.stored_bytes);
    for (int64_t i = 0; i < hf.model.params_count; i++) {
        const p4_param *p = &hf.model.params[i];
        EXPECT(hf.model.weights[i].data != NULL && hf.model.weights[i].transposed == p->transposed, "%s",
               p->name);
        p4_weight_row_f32(row, &hf.model.weights[i], p->rows - 1);
        p4_hf_model_drop_pages(&hf, i);
        float before = row[p->cols - 1];
        p4_weight_row_f32(row, &hf.model.weights[i], p->rows - 1);
        EXPECT(isfinite(before) && before != 0 && row[p->cols - 1] == before, "%s: last element", p->name);
    }
    p4_hf_model_close(&hf);
    EXPECT(hf.path == NULL && hf.shards == NULL && hf.model.params == NULL, "close leaves nothing");
}

static void expect_open(const char *name)
{
    p4_hf_model hf;
    p4_error_clear();
    EXPECT_OK(p4_hf_model_open(&hf, at(name)));
    p4_hf_model_close(&hf);
}

static void expect_refused(const char *name, const char *part)
{
    p4_hf_model hf;
    EXPECT_REFUSED(p4_hf_model_open(&hf, at(name)), part);
    EXPECT(hf.path == NULL && hf.shards == NULL && hf.shard_count == 0 && hf.model.params == NULL,
           "left open: %s", part);
}

static void test_small(void)
{
    p4_hf_model hf;
    make_small("small");
    EXPECT_OK(p4_hf_model_open(&hf, at("small")));
    EXPECT(hf.shard_count == 1 && strcmp(hf.stored_dtype, "F32") == 0 &&
               strcmp(hf.config_json, small_config) == 0,
           "what it is");
    for (int64_t i = 0; i < hf.model.params_count; i++) {
        float row[16];
        const p4_param *p = &hf.model.params[i];
        p4_weight_row_f32(row, &hf.model.weights[i], p->rows - 1);
        float want = (float)i + (float)(p->rows * p->cols - 1) / 64;
        EXPECT(row[p->cols - 1] == want, "%s: %g, want %g", p->name, (double)row[p->cols - 1], (double)want);
    }
    float *own = calloc(1 << 20, 1); /* a weight in memory instead of a file: its pages must stay */
    own[1 << 10] = 7;
    hf.model.weights[0] = (p4_weight){.dtype = P4_F32, .rows = 1 << 8, .cols = 1 << 10, .data = own};
    p4_hf_model_drop_pages(&hf, 0);
    EXPECT(own[1 << 10] == 7, "memory was emptied");
    free(own);
    p4_hf_model_close(&hf);
}

/* Which tensors there are, and what they look like. */
static void test_tensors(void)
{
    p4_safetensors_entry all[MOST_ENTRIES], some[MOST_ENTRIES];
    int count = small_entries(all), used = 0;
    make_small("m");
    for (int i = 0; i < count; i++) {
        if (strstr(all[i].name, "k_proj") == NULL && strstr(all[i].name, "model.norm") == NULL) {
            some[used++] = all[i];
        }
    }
    some[used++] = (p4_safetensors_entry){.name = "score.weight", .dtype = P4_F32, .rank = 1, .shape = {3}};
    put_weights("m/model.safetensors", some, used);
    expect_refused(
        "m",
        "2 missing (model.layers.0.self_attn.k_proj.weight, model.norm.weight), 1 unexpected (score.weight)");
    for (int i = 0; i < 6; i++) {
        static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
        all[count + i] = (p4_safetensors_entry){.name = names[i], .dtype = P4_F32, .rank = 1, .shape = {2}};
    }
    put_weights("m/model.safetensors", all, count + 6);
    expect_refused("m", "0 missing (), 6 unexpected (a, b, c, d and 2 more)");

    /* what belongs to no parameter but is known */
    all[count] =
        (p4_safetensors_entry){.name = "model.layers.0.self_attn.rotary_emb.inv_freq", .dtype = P4_F32};
    all[count + 1] =
        (p4_safetensors_entry){.name = "h.0.attn.bias", .dtype = P4_F32, .rank = 4, .shape = {1, 1, 2, 2}};
    all[count + 2] = (p4_safetensors_entry){.name = "h.0.attn.masked_bias", .dtype = P4_F32};
    put_weights("m/model.safetensors", all, count + 3);
    expect_open("m");
    all[count + 1].rank = 3;
    put_weights("m/model.safetensors", all, count + 3);
    expect_refused("m", "1 unexpected (h.0.attn.bias)");

    all[1].shape[0] = 5;
    put_weights("m/model.safetensors", all, count);
    expect_refused("m", "input_layernorm.weight\" has the shape [5], config.json describes [4]");
    all[1].shape[0] = 4;
    all[2].rank = 3;
    all[2].shape[2] = 1;
    put_weights("m/model.safetensors", all, count);
    expect_refused("m", "has the shape [4, 4, 1], config.json describes [4, 4]");
}

/* Replaces text of the same length in a file. */
static void patch(const char *name, const char *from, const char *to)
{
    char bytes[8192];
    size_t length = strlen(from);
    FILE *file = fopen(at(name), "r+");
    size_t count = fread(bytes, 1, sizeof bytes, file);
    size_t i = 0;
    while (i + length <= count && memcmp(bytes + i, from, length) != 0) {
        i++;
    }
    EXPECT(i + length <= count && strlen(to) == length, "%s is not in %s", from, name);
    fseek(file, (long)i, SEEK_SET);
    fwrite(to, 1, length, file);
    fclose(file);
}

static void test_damaged_file(void)
{
    make_small("d");
    patch("d/model.safetensors", "\"model.norm.weight\":{\"dtype\":\"F32\"",
          "\"model.norm.weight\":{\"dtype\":\"I32\"");
    expect_refused("d", "tensor \"model.norm.weight\" holds I32, expected F32, F16 or BF16");
    make_small("d");
    struct stat status;
    EXPECT(stat(at("d/model.safetensors"), &status) == 0, "stat");
    EXPECT(truncate(at("d/model.safetensors"), status.st_size - 1) == 0, "truncate");
    expect_refused("d", "model.safetensors: tensor \"lm_head.weight\" ends");
    EXPECT(truncate(at("d/model.safetensors"), 100) == 0, "truncate");
    expect_refused("d", "truncated file");
    EXPECT(truncate(at("d/model.safetensors"), 0) == 0, "truncate");
    expect_refused("d", "too short");
}

static void expect_tied(const char *name, bool tied)
{
    p4_hf_model hf;
    EXPECT_OK(p4_hf_model_open(&hf, at(name)));
    EXPECT(hf.model.arch.tied == tied, "tied %d, expected %d", hf.model.arch.tied, tied);
    p4_hf_model_close(&hf);
}

static void copy_embedding_to_head(const char *name)
{
    p4_safetensors file;
    EXPECT_OK(p4_safetensors_open(&file, at(name)));
    const p4_safetensor *embed = p4_safetensors_find(&file, "model.embed_tokens.weight"),
                        *head = p4_safetensors_find(&file, "lm_head.weight");
    FILE *stream = fopen(at(name), "r+");
    EXPECT(embed != NULL && head != NULL && stream != NULL && embed->bytes == head->bytes, "%s", name);
    fseek(stream, (long)((const char *)head->data - (const char *)file.mapping), SEEK_SET);
    EXPECT(fwrite(embed->data, 1, embed->bytes, stream) == embed->bytes, "write");
    fclose(stream);
    p4_safetensors_close(&file);
}

static void test_tied(void)
{
    p4_hf_model hf;
    p4_safetensors_entry all[MOST_ENTRIES];
    int count = small_entries(all);
    char config[1024];
    make_small("tied");
    snprintf(config, sizeof config, "{\"tie_word_embeddings\": true, %s", strchr(small_config, '{') + 1);
    put("tied/config.json", config);
    EXPECT(strcmp(all[count - 1].name, "lm_head.weight") == 0, "%s", all[count - 1].name);
    expect_tied("tied", false); /* a head with values of its own counts */
    EXPECT_OK(p4_hf_model_open(&hf, at("tied")));
    EXPECT(strstr(hf.config_json, "\"tie_word_embeddings\":\tfalse") != NULL, "%s", hf.config_json);
    p4_hf_model_close(&hf);
    copy_embedding_to_head("tied/model.safetensors");
    expect_tied("tied", true);
    put_weights("tied/model.safetensors", all, count - 1);
    expect_tied("tied", true);
    put_weights("tied/model.safetensors", all + 1, count - 1); /* the matrix under the head's name alone */
    EXPECT(strcmp(all[0].name, "model.embed_tokens.weight") == 0, "%s", all[0].name);
    expect_tied("tied", true);
    put_weights("tied/model.safetensors", all + 1, count - 2);
    expect_refused("tied", "1 missing (model.embed_tokens.weight)");
    put_weights("tied/model.safetensors", all, count - 1);
    put("tied/config.json", small_config);
    expect_refused("tied", "1 missing (lm_head.weight)");
}

/* The entries of a table, as small_entries has them for small_model. */
static int entries_of(p4_safetensors_entry entries[MOST_ENTRIES], const p4_model *model)
{
    p4_model usual = small_model;
    small_model = *model;
    int count = small_entries(entries);
    small_model = usual;
    return count;
}

/* A head that has another name in some files of its family. */
static void test_alias(void)
{
    static const char config[] =
        "{\"model_type\": \"gpt_neox\", \"vocab_size\": 10, \"hidden_size\": 8, \"num_hidden_layers\": 1, "
        "\"num_attention_heads\": 1, \"intermediate_size\": 6}";
    p4_arch arch;
    p4_model model;
    p4_safetensors_entry all[MOST_ENTRIES];
    EXPECT_OK(p4_hf_config_parse(&arch, config, strlen(config), "alias"));
    EXPECT_OK(p4_model_init(&model, &arch, ""));
    int count = entries_of(all, &model);
    make_small("alias");
    put("alias/config.json", config);
    put_weights("alias/model.safetensors", all, count);
    expect_open("alias");
    EXPECT(strcmp(all[count - 1].name, "embed_out.weight") == 0, "%s", all[count - 1].name);
    all[count] = all[count - 1];
    all[count].name = "lm_head.weight";
    put_weights("alias/model.safetensors", all, count + 1);
    expect_refused("alias", "\"embed_out.weight\" and \"lm_head.weight\" are two names of one tensor");
    all[count - 1] = all[count];
    put_weights("alias/model.safetensors", all, count);
    expect_open("alias");
    p4_model_close(&model);
}

/* Two shards: embedding and block in the first, the rest in the second; `index` names them. */
static void make_sharded(const char *index)
{
    p4_safetensors_entry all[MOST_ENTRIES];
    int count = small_entries(all);
    make_small("s");
    EXPECT(unlink(at("s/model.safetensors")) == 0, "unlink");
    put_weights("s/a.safetensors", all, count - 2);
    put_weights("s/b.safetensors", all + count - 2, 2);
    put("s/model.safetensors.index.json", index);
}

/* An index whose map gives every tensor of the small model its shard, but `name` the JSON value `file` (NULL:
 * not listed); `more` is put before the map's other entries. */
static const char *index_text(const char *name, const char *file, const char *more)
{
    static char text[4096];
    p4_safetensors_entry all[MOST_ENTRIES];
    int count = small_entries(all);
    size_t used = (size_t)snprintf(
        text, sizeof text, "{\"metadata\": {\"total_size\": 1, \"x\": []}, \"weight_map\": {%s", more);
    const char *comma = "";
    for (int i = 0; i < count; i++) {
        bool changed = name != NULL && strcmp(all[i].name, name) == 0;
        if (!changed || file != NULL) {
            used += (size_t)snprintf(text + used, sizeof text - used, "%s\"%s\": %s", comma, all[i].name,
                                     changed          ? file
                                     : i >= count - 2 ? "\"b.safetensors\""
                                                      : "\"a.safetensors\"");
            comma = ", ";
        }
    }
    snprintf(text + used, sizeof text - used, "}}");
    return text;
}

static void test_index(void)
{
    static const struct {
        const char *name, *file, *more, *refusal;
    } cases[] = {
        {NULL, NULL, "", NULL},
        {"lm_head.weight", "\"../small/model.safetensors\"", "", "expected a file beside the index"},
        {"lm_head.weight", "\"/etc/passwd\"", "", "expected a file beside the index"},
        {"lm_head.weight", "\"..\"", "", "expected a file beside the index"},
        {"lm_head.weight", "\"\"", "", "expected a file beside the index"},
        {"lm_head.weight", "\"x/b.safetensors\"", "", "expected a file beside the index"},
        {"lm_head.weight", "\"pytorch_model-00001-of-00002.bin\"", "", "expected a .safetensors file"},
        {"lm_head.weight", "7", "", "gives no file name"},
        {"lm_head.weight", "null", "", "gives no file name"},
        {"lm_head.weight", "\"c.safetensors\"", "", "c.safetensors: cannot open: No such file"},
        {"lm_head.weight", "\"a.safetensors\"", "", "is in b.safetensors, the index says a.safetensors"},
        {"lm_head.weight", NULL, "", "0 listed but not there (), 1 there but not listed (lm_head.weight)"},
        {NULL, NULL, "\"ghost\": \"a.safetensors\", ", "1 listed but not there (ghost), 0 there"},
        {NULL, NULL, "\"lm_head.weight\": \"b.safetensors\", ", "\"lm_head.weight\" appears twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_sharded(index_text(cases[i].name, cases[i].file, cases[i].more));
        if (cases[i].refusal == NULL) {
            expect_open("s");
        } else {
            expect_refused("s", cases[i].refusal);
        }
    }
    static const char *const texts[][2] = {{"", "index.json: byte 0: not valid JSON"},
                                           {"{", "not valid JSON"},
                                           {"[]", "the JSON value is not an object"},
                                           {"7", "the JSON value is not an object"},
                                           {"{}", "no object \"weight_map\""},
                                           {"{\"weight_map\": {}}", "no object \"weight_map\""},
                                           {"{\"weight_map\": []}", "no object \"weight_map\""},
                                           {"{\"weight_map\": {}, \"weight_map\": {}}", "occurs twice"}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        make_sharded(texts[i][0]);
        expect_refused("s", texts[i][1]);
    }
    char *deep = malloc(100001);
    memset(deep, '[', 100000);
    deep[100000] = '\0';
    memcpy(deep, "{\"weight_map\":", 14);
    make_sharded(deep);
    expect_refused("s", "nested deeper than 1000");
    free(deep);
}

/* A single file counts whatever an index beside it says. */
static void test_both(void)
{
    p4_hf_model hf;
    make_sharded(index_text(NULL, NULL, ""));
    make_small("small");
    EXPECT(rename(at("small/model.safetensors"), at("s/model.safetensors")) == 0, "rename");
    EXPECT_OK(p4_hf_model_open(&hf, at("s")));
    EXPECT(hf.shard_count == 1 && strcmp(hf.shards[0].path, at("s/model.safetensors")) == 0, "%s",
           hf.shards[0].path);
    EXPECT(strcmp(p4_hf_model_file_of(&hf, &hf.model.weights[1]), hf.shards[0].path) == 0,
           "file of a weight");
    p4_hf_model_close(&hf);
}

static void test_lfs_pointer(void)
{
    make_small("small");
    put("small/model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n");
    expect_refused("small",
                   "small/model.safetensors: a git-lfs pointer, not the file itself; run \"git lfs pull\"");
}

/* The same tensor in both shards. */
static void test_duplicate(void)
{
    p4_safetensors_entry all[MOST_ENTRIES];
    int count = small_entries(all);
    make_sharded(index_text(NULL, NULL, ""));
    put_weights("s/b.safetensors", all + count - 3, 3);
    expect_refused("s", "mlp.down_proj.weight\" is in b.safetensors, the index says a.safetensors");
}

static void test_no_weights(void)
{
    p4_hf_model hf;
    expect_refused("nowhere", "nowhere/config.json: cannot open: No such file");
    EXPECT_REFUSED(p4_hf_model_open(&hf, "org-x/No.such-model"),
                   "hf download org-x/No.such-model --local-dir");
    EXPECT_OK(p4_make_directories("org-y"));
    EXPECT_REFUSED(p4_hf_model_open(&hf, "org-y/model"),
                   "org-y/model/config.json: cannot open: No such file or directory; expected a Hugging Face "
                   "model directory (model_path)");
    EXPECT(strstr(p4_last_error(), "hf download") == NULL, "a path is taken for a name: %s", p4_last_error());
    EXPECT_OK(p4_remove_tree("org-y"));
    EXPECT_OK(p4_make_directories(at("empty")));
    expect_refused("empty", "empty/config.json: cannot open");
    put("empty/config.json", small_config);
    expect_refused("empty", "no model.safetensors and no model.safetensors.index.json");
    put("empty/pytorch_model-00001-of-00002.bin", "pickle");
    expect_refused("empty", "only there as pytorch_model-00001-of-00002.bin");
    EXPECT_OK(p4_remove_tree(at("empty/config.json")));
    EXPECT_OK(p4_make_directories(at("empty/config.json")));
    expect_refused("empty", "config.json: not a regular file");
    EXPECT_REFUSED(p4_hf_model_open(&hf, at("small/config.json")), "Not a directory");
    char *large = malloc(2000001);
    memset(large, ' ', 2000000);
    large[2000000] = '\0';
    make_small("large");
    put("large/config.json", large);
    expect_refused("large", "2000000 bytes, expected at most 1048576");
    free(large);
    EXPECT_OK(p4_atomic_write_all(at("large/config.json"), "{\0}", 3));
    expect_refused("large", "byte 1 is NUL");
}

/* A hub cache: refs/main names a snapshot whose files are links into blobs. */
static void test_hub_cache(void)
{
    make_small("small");
    EXPECT_OK(p4_make_directories(at("hub/refs")));
    EXPECT_OK(p4_make_directories(at("hub/blobs")));
    EXPECT_OK(p4_make_directories(at("hub/snapshots/0a1b")));
    EXPECT(rename(at("small/config.json"), at("hub/blobs/1")) == 0, "rename");
    EXPECT(rename(at("small/model.safetensors"), at("hub/blobs/2")) == 0, "rename");
    EXPECT(symlink("../../blobs/1", at("hub/snapshots/0a1b/config.json")) == 0, "symlink");
    EXPECT(symlink("../../blobs/2", at("hub/snapshots/0a1b/model.safetensors")) == 0, "symlink");
    put("hub/refs/main", "0a1b\n");
    expect_open("hub");
    expect_open("hub/snapshots/0a1b");
    put("hub/refs/main", "../small");
    expect_refused("hub", "expected the name of a snapshot");
    put("hub/refs/main", "");
    expect_refused("hub", "expected the name of a snapshot");
    put("hub/refs/main", "gone");
    expect_refused("hub", "hub/snapshots/gone/config.json: cannot open");
}

int main(void)
{
    p4_log_setup(P4_LOG_QUIET, false);
    make_world();
    for_each_model(test_fixture);
    test_small();
    test_tensors();
    test_damaged_file();
    test_tied();
    test_alias();
    test_index();
    test_both();
    test_lfs_pointer();
    test_duplicate();
    test_no_weights();
    test_hub_cache();
    return end_world();
}
