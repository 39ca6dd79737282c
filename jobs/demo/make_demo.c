/* make_demo.c - phase4_demo: writes the demo's stories, its tokenizer and the configuration of its model.
 *
 * The same bytes on every run and machine: story i of the training file is stream i, story i of the
 * validation file is stream VALID_STREAM + i, and every choice is an integer from src/leaf/rng.h.
 *
 * The model: V 1024, C 128, F 384, L 6, H 4, Hkv 2, D 32, embedding tied. What its packed form takes:
 *   a layer     q, o 128x128, k, v 64x128, gate, up 384x128, down 128x384: 196,608 weights
 *   the rest    embedding 1024 x 128 = 131,072, norms 13 x 128 = 1,664: 132,736
 *   in fp32     4 B x (6 x 196,608 + 132,736 = 1,312,384) = 5,249,536 B
 *   packed      a layer: 1,152 rows of 26 B, 128 rows of 77 B, 1,280 scales of 2 B = 42,368 B
 *               6 x 42,368 B + 2 B x 132,736 = 519,680 B
 *   ratio       10.1; the target for a tiny model is 6 */
#include "jobs/demo/demo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define VALID_STREAM (UINT64_C(1) << 32)

enum { VOCAB = 1024, DEFAULT_STORIES = 20000, MAX_STORIES = 10000000, TRAIN_PER_VALID = 40 };

typedef struct options {
    const char *out_dir;
    uint64_t stories, seed;
} options;

static const char usage[] =
    "usage: phase4_demo OUT_DIR [--stories N] [--seed S]\n"
    "writes OUT_DIR/stories-train.jsonl (N stories, 20000), OUT_DIR/stories-valid.jsonl and\n"
    "OUT_DIR/model/{config.json,tokenizer.json,tokenizer_config.json}\n";

static const char config_json[] = "{\n"
                                  "  \"architectures\": [\n    \"LlamaForCausalLM\"\n  ],\n"
                                  "  \"attention_bias\": false,\n"
                                  "  \"attention_dropout\": 0.0,\n"
                                  "  \"bos_token_id\": 0,\n"
                                  "  \"dtype\": \"float32\",\n"
                                  "  \"eos_token_id\": 0,\n"
                                  "  \"head_dim\": 32,\n"
                                  "  \"hidden_act\": \"silu\",\n"
                                  "  \"hidden_size\": 128,\n"
                                  "  \"initializer_range\": 0.02,\n"
                                  "  \"intermediate_size\": 384,\n"
                                  "  \"max_position_embeddings\": 256,\n"
                                  "  \"mlp_bias\": false,\n"
                                  "  \"model_type\": \"llama\",\n"
                                  "  \"num_attention_heads\": 4,\n"
                                  "  \"num_hidden_layers\": 6,\n"
                                  "  \"num_key_value_heads\": 2,\n"
                                  "  \"rms_norm_eps\": 1e-05,\n"
                                  "  \"rope_theta\": 10000.0,\n"
                                  "  \"tie_word_embeddings\": true,\n"
                                  "  \"vocab_size\": 1024\n"
                                  "}\n";

static const char tokenizer_config_json[] = "{\n"
                                            "  \"bos_token\": \"<|endoftext|>\",\n"
                                            "  \"eos_token\": \"<|endoftext|>\",\n"
                                            "  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
                                            "  \"unk_token\": \"<|endoftext|>\"\n"
                                            "}\n";

static p4_rc make_directory(const char *path)
{
    struct stat found;
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && stat(path, &found) == 0 && S_ISDIR(found.st_mode))) {
        return P4_OK;
    }
    return FAIL("%s: cannot make this directory: %s", path, strerror(errno));
}

static p4_rc open_file(FILE **file, char **path, const options *o, const char *name)
{
    p4_rc rc = P4_OK;
    *path = p4_format("%s/%s", o->out_dir, name);
    if (*path == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    *file = fopen(*path, "wb");
    CHECK(*file != NULL, "%s: cannot write: %s", *path, strerror(errno));
done:
    return rc;
}

/* Closes and frees; rc is the outcome so far, a failed write makes it an error. */
static p4_rc close_file(p4_rc rc, FILE *file, char *path)
{
    if (file != NULL) {
        bool failed = ferror(file) != 0;
        failed = fclose(file) != 0 || failed;
        if (rc == P4_OK && failed) {
            rc = FAIL("%s: cannot write: %s", path, strerror(errno));
        }
    }
    free(path);
    return rc;
}

static void write_story(FILE *file, const p4_text *story)
{
    fputs("{\"text\": \"", file);
    for (size_t i = 0; i < story->bytes; i++) {
        char c = story->text[i];
        if (c == '\n') {
            fputs("\\n", file);
        } else {
            if (c == '"' || c == '\\') {
                fputc('\\', file);
            }
            fputc(c, file);
        }
    }
    fputs("\"}\n", file);
}

/* One story a line; every story is fed to the tokenizer's trainer when there is one. */
static p4_rc write_stories(const options *o, const char *name, uint64_t first_stream, uint64_t count,
                           p4_bpe_trainer *trainer)
{
    p4_rc rc = P4_OK;
    FILE *file = NULL;
    char *path = NULL;
    p4_text story = {0};
    TRY(open_file(&file, &path, o, name));
    for (uint64_t i = 0; i < count && ferror(file) == 0; i++) {
        TRY(p4_story_make(&story, o->seed, first_stream + i));
        write_story(file, &story);
        if (trainer != NULL) {
            TRY(p4_bpe_feed(trainer, story.text, story.bytes));
        }
    }
done:
    free(story.text);
    return close_file(rc, file, path);
}

static p4_rc write_text(const options *o, const char *name, const char *text)
{
    p4_rc rc = P4_OK;
    FILE *file = NULL;
    char *path = NULL;
    TRY(open_file(&file, &path, o, name));
    fputs(text, file);
done:
    return close_file(rc, file, path);
}

static p4_rc write_tokenizer(const options *o, const p4_bpe_trainer *trainer)
{
    p4_rc rc = P4_OK;
    FILE *file = NULL;
    char *path = NULL;
    TRY(open_file(&file, &path, o, "model/tokenizer.json"));
    p4_bpe_write(trainer, file);
done:
    return close_file(rc, file, path);
}

static p4_rc make_demo(const options *o)
{
    p4_rc rc = P4_OK;
    p4_bpe_trainer *trainer = NULL;
    char *model_dir = p4_format("%s/model", o->out_dir);
    if (model_dir == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    TRY(make_directory(o->out_dir));
    TRY(make_directory(model_dir));
    TRY(p4_bpe_open(&trainer));
    TRY(write_stories(o, "stories-train.jsonl", 0, o->stories, trainer));
    TRY(write_stories(o, "stories-valid.jsonl", VALID_STREAM, 1 + o->stories / TRAIN_PER_VALID, NULL));
    TRY(p4_bpe_learn(trainer, VOCAB));
    TRY(write_tokenizer(o, trainer));
    TRY(write_text(o, "model/tokenizer_config.json", tokenizer_config_json));
    TRY(write_text(o, "model/config.json", config_json));
done:
    p4_bpe_close(trainer);
    free(model_dir);
    return rc;
}

static p4_rc parse_number(uint64_t *number, const char *name, const char *text, uint64_t low, uint64_t high)
{
    p4_rc rc = P4_OK;
    char *end = NULL;
    errno = 0;
    unsigned long long value =
        text != NULL && text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
    CHECK(end != NULL && *end == '\0' && errno == 0 && value >= low && value <= high,
          "%s %s: expected a whole number from %llu to %llu", name, text != NULL ? text : "(nothing)",
          (unsigned long long)low, (unsigned long long)high);
    *number = value;
done:
    return rc;
}

static p4_rc parse_options(options *o, int argc, char **argv)
{
    p4_rc rc = P4_OK;
    *o = (options){.stories = DEFAULT_STORIES, .seed = 1};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--stories") == 0) {
            TRY(parse_number(&o->stories, argv[i], argv[i + 1], 1, MAX_STORIES));
            i++;
        } else if (strcmp(argv[i], "--seed") == 0) {
            TRY(parse_number(&o->seed, argv[i], argv[i + 1], 0, UINT64_MAX));
            i++;
        } else {
            CHECK(argv[i][0] != '-' && o->out_dir == NULL, "\"%s\" is not understood\n%s", argv[i], usage);
            o->out_dir = argv[i];
        }
    }
    CHECK(o->out_dir != NULL, "no output directory was given\n%s", usage);
done:
    return rc;
}

int main(int argc, char **argv)
{
    options o;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    p4_rc rc = parse_options(&o, argc, argv);
    rc = rc == P4_OK ? make_demo(&o) : rc;
    if (rc != P4_OK) {
        fprintf(stderr, "phase4_demo: %s\n", p4_last_error());
    }
    return (int)rc;
}
