/* gguf_tokens.c - the tokenizer of a GGUF file as the text of a tokenizer.json. */
#include <stdlib.h>
#include <string.h>

#include "io/gguf/gguf_model.h"
#include "io/json/write.h"

/* llama.cpp's kinds of tokens. */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

/* Words of byte-level tokenizers by llama.cpp's name. */
static const struct {
    const char *name, *pre_tokenizer;
    bool ignore_merges;
} words[] = {
#define SPLIT(pattern)                                                                                    \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern     \
    "\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false," \
    "\"trim_offsets\":true,\"use_regex\":false}]}"
#define CASELESS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
#define REST "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define BYTE_LEVEL \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}"
    {"gpt-2", BYTE_LEVEL, false},
    {"llama-bpe", SPLIT(CASELESS "\\\\p{N}{1,3}" REST), true},
    {"dbrx", SPLIT(CASELESS "\\\\p{N}{1,3}" REST), false},
    {"qwen2", SPLIT(CASELESS "\\\\p{N}" REST), false},
    {"smollm",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}," BYTE_LEVEL
     "]}",
     false},
#undef SPLIT
#undef CASELESS
#undef REST
#undef BYTE_LEVEL
};

typedef struct reading {
    const p4_gguf_view *file;
    const p4_gguf_key *tokens, *kinds, *scores;
    cJSON *root, *model, *vocab, *added;
    p4_gguf_text *texts; /* [tokens->count] */
} reading;

static bool equals(p4_gguf_text text, const char *want)
{
    return text.bytes == strlen(want) && memcmp(text.data, want, text.bytes) == 0;
}

/* A heap string in place of the one in *copy. */
static p4_rc string_of(char **copy, const reading *r, p4_gguf_text text)
{
    p4_rc rc = P4_OK;
    free(*copy);
    *copy = NULL;
    CHECK(memchr(text.data, '\0', text.bytes) == NULL,
          "%s: byte %lld: a text of the tokenizer holds a NUL character", r->file->path,
          (long long)((const uint8_t *)text.data - (const uint8_t *)r->file->mapping));
    *copy = p4_alloc(text.bytes + 1, 1);
    TRY(*copy != NULL ? P4_OK : P4_E_SYSTEM);
    memcpy(*copy, text.data, text.bytes);
done:
    return rc;
}

static int kind_of(const reading *r, uint64_t id)
{
    return r->kinds != NULL ? (int)p4_gguf_view_element(r->kinds, id) : NORMAL;
}

static p4_rc find_lists(reading *r)
{
    p4_rc rc = P4_OK;
    const char *path = r->file->path;
    r->tokens = p4_gguf_view_key(r->file, "tokenizer.ggml.tokens");
    r->kinds = p4_gguf_view_key(r->file, "tokenizer.ggml.token_type");
    r->scores = p4_gguf_view_key(r->file, "tokenizer.ggml.scores");
    CHECK(r->tokens != NULL && r->tokens->is_list && r->tokens->type == P4_GGUF_VIEW_TEXT,
          "%s: tokenizer.ggml.tokens is not a list of texts", path);
    const p4_gguf_key *others[] = {r->kinds, r->scores};
    for (int i = 0; i < 2; i++) {
        CHECK(others[i] == NULL || (others[i]->is_list && others[i]->type != P4_GGUF_VIEW_TEXT &&
                                    others[i]->count == r->tokens->count),
              "%s: %s is not a list of %llu numbers", path,
              i == 0 ? "tokenizer.ggml.token_type" : "tokenizer.ggml.scores",
              (unsigned long long)r->tokens->count);
    }
    r->texts = p4_alloc((size_t)r->tokens->count, sizeof *r->texts);
    TRY(r->texts != NULL ? P4_OK : P4_E_SYSTEM);
    const uint8_t *at = r->tokens->data;
    for (uint64_t i = 0; i < r->tokens->count; i++) {
        r->texts[i] = p4_gguf_view_next_text(&at);
    }
done:
    return rc;
}

static bool add_added(reading *r, const char *text, uint64_t id, bool special)
{
    cJSON *token = cJSON_CreateObject();
    return token != NULL && cJSON_AddItemToArray(r->added, token) &&
           cJSON_AddNumberToObject(token, "id", (double)id) != NULL &&
           cJSON_AddStringToObject(token, "content", text) != NULL &&
           cJSON_AddFalseToObject(token, "single_word") != NULL &&
           cJSON_AddFalseToObject(token, "lstrip") != NULL &&
           cJSON_AddFalseToObject(token, "rstrip") != NULL &&
           cJSON_AddFalseToObject(token, "normalized") != NULL &&
           cJSON_AddBoolToObject(token, "special", special) != NULL;
}

/* Vocabulary and added tokens. Rows that no token uses are left out. */
static p4_rc put_vocabulary(reading *r)
{
    p4_rc rc = P4_OK;
    char *text = NULL;
    r->added = cJSON_AddArrayToObject(r->root, "added_tokens");
    r->vocab = cJSON_AddObjectToObject(r->model, "vocab");
    TRY(r->added != NULL && r->vocab != NULL ? P4_OK : P4_E_SYSTEM);
    for (uint64_t i = 0; i < r->tokens->count; i++) {
        int kind = kind_of(r, i);
        if (kind == UNUSED) {
            continue;
        }
        TRY(string_of(&text, r, r->texts[i]));
        bool added = kind == CONTROL || kind == USER_DEFINED;
        bool ok = cJSON_AddItemToObject(r->vocab, text, cJSON_CreateNumber((double)i)) &&
                  (!added || add_added(r, text, i, kind == CONTROL));
        TRY(ok ? P4_OK : P4_E_SYSTEM);
    }
done:
    free(text);
    return rc;
}

static p4_rc put_listed_merges(reading *r)
{
    p4_rc rc = P4_OK;
    char *text = NULL;
    const p4_gguf_key *list = p4_gguf_view_key(r->file, "tokenizer.ggml.merges");
    cJSON *merges = cJSON_AddArrayToObject(r->model, "merges");
    CHECK(list != NULL && list->is_list && list->type == P4_GGUF_VIEW_TEXT,
          "%s: tokenizer.ggml.merges is not a list of texts", r->file->path);
    const uint8_t *at = list->data;
    for (uint64_t i = 0; i < list->count; i++) {
        TRY(string_of(&text, r, p4_gguf_view_next_text(&at)));
        bool ok = merges != NULL && cJSON_AddItemToArray(merges, cJSON_CreateString(text));
        TRY(ok ? P4_OK : P4_E_SYSTEM);
    }
done:
    free(text);
    return rc;
}

static p4_rc put_byte_level(reading *r)
{
    p4_rc rc = P4_OK;
    p4_gguf_text pre;
    bool found;
    int64_t which = -1;
    TRY(p4_gguf_view_string(r->file, "tokenizer.ggml.pre", &pre, &found));
    for (size_t i = 0; found && i < sizeof words / sizeof words[0]; i++) {
        which = equals(pre, words[i].name) ? (int64_t)i : which;
    }
    CHECK(which >= 0, "%s: tokenizer.ggml.pre is \"%.*s\", expected gpt-2, llama-bpe, dbrx, qwen2 or smollm",
          r->file->path, (int)p4_min_i64((int64_t)pre.bytes, 40), pre.data);
    TRY(put_listed_merges(r));
    bool ok = cJSON_AddBoolToObject(r->model, "ignore_merges", words[which].ignore_merges) != NULL &&
              cJSON_AddItemToObject(r->root, "pre_tokenizer", cJSON_Parse(words[which].pre_tokenizer)) &&
              cJSON_AddItemToObject(r->root, "decoder", cJSON_Parse("{\"type\":\"ByteLevel\"}"));
    rc = ok ? P4_OK : P4_E_SYSTEM;
done:
    return rc;
}

/* --- SentencePiece ----------------------------------------------------------------------------- */

typedef struct pair {
    uint64_t merged;
    size_t left_bytes;
    double score;
} pair;

/* The piece of the higher score is merged first. */
static int by_score(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    if (x->merged != y->merged) {
        return x->merged < y->merged ? -1 : 1;
    }
    return (x->left_bytes > y->left_bytes) - (x->left_bytes < y->left_bytes);
}

/* Indices of pieces, sorted by their texts, to find one by its text. */
typedef struct piece_order {
    const p4_gguf_text *texts;
    p4_gguf_text *sorted;
    uint64_t count;
} piece_order;

static int by_text(const void *a, const void *b)
{
    const p4_gguf_text *x = a, *y = b;
    size_t least = x->bytes < y->bytes ? x->bytes : y->bytes;
    int order = memcmp(x->data, y->data, least);
    return order != 0 ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static bool is_piece(const piece_order *order, const char *data, size_t bytes)
{
    const p4_gguf_text text = {data, bytes};
    return bsearch(&text, order->sorted, order->count, sizeof text, by_text) != NULL;
}

/* All ways to make a piece of two others; `pairs` NULL: only counts them. */
static uint64_t find_pairs(const reading *r, const piece_order *order, pair *pairs)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < r->tokens->count; i++) {
        p4_gguf_text t = r->texts[i];
        for (size_t left = 1; kind_of(r, i) == NORMAL && left < t.bytes; left++) {
            bool boundary = ((unsigned char)t.data[left] & 0xc0) != 0x80;
            if (!boundary || !is_piece(order, t.data, left) ||
                !is_piece(order, t.data + left, t.bytes - left)) {
                continue;
            }
            if (pairs != NULL) {
                pairs[count] = (pair){i, left, p4_gguf_view_element(r->scores, i)};
            }
            count++;
        }
    }
    return count;
}

static p4_rc put_pairs(reading *r, const pair *pairs, uint64_t count)
{
    p4_rc rc = P4_OK;
    char *left = NULL, *right = NULL;
    cJSON *merges = cJSON_AddArrayToObject(r->model, "merges");
    TRY(merges != NULL ? P4_OK : P4_E_SYSTEM);
    for (uint64_t i = 0; i < count; i++) {
        p4_gguf_text whole = r->texts[pairs[i].merged];
        size_t cut = pairs[i].left_bytes;
        TRY(string_of(&left, r, (p4_gguf_text){whole.data, cut}));
        TRY(string_of(&right, r, (p4_gguf_text){whole.data + cut, whole.bytes - cut}));
        const char *both[] = {left, right};
        TRY(cJSON_AddItemToArray(merges, cJSON_CreateStringArray(both, 2)) ? P4_OK : P4_E_SYSTEM);
    }
done:
    free(left);
    free(right);
    return rc;
}

static p4_rc put_scored_merges(reading *r)
{
    p4_rc rc = P4_OK;
    piece_order order = {.texts = r->texts};
    pair *pairs = NULL;
    order.sorted = p4_alloc((size_t)r->tokens->count, sizeof *order.sorted);
    TRY(order.sorted != NULL ? P4_OK : P4_E_SYSTEM);
    for (uint64_t i = 0; i < r->tokens->count; i++) {
        if (kind_of(r, i) == NORMAL) {
            order.sorted[order.count++] = r->texts[i];
        }
    }
    qsort(order.sorted, order.count, sizeof *order.sorted, by_text);
    uint64_t count = find_pairs(r, &order, NULL);
    pairs = p4_alloc((size_t)count, sizeof *pairs);
    TRY(pairs != NULL ? P4_OK : P4_E_SYSTEM);
    (void)find_pairs(r, &order, pairs);
    qsort(pairs, count, sizeof *pairs, by_score);
    TRY(put_pairs(r, pairs, count));
done:
    free(order.sorted);
    free(pairs);
    return rc;
}

#define MARK "\xe2\x96\x81"
static p4_rc put_sentencepiece(reading *r)
{
    static const char replace[] =
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}";
    static const char decoder[] =
        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"" MARK
        "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
        "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}";
    p4_rc rc = P4_OK;
    char *unknown = NULL, *normalizer = NULL;
    double prefix = 1;
    bool found;
    CHECK(r->scores != NULL, "%s: has no tokenizer.ggml.scores", r->file->path);
    TRY(put_scored_merges(r));
    TRY(p4_gguf_view_number(r->file, "tokenizer.ggml.add_space_prefix", &prefix, &found));
    for (uint64_t i = 0; i < r->tokens->count && unknown == NULL; i++) {
        TRY(kind_of(r, i) == UNKNOWN ? string_of(&unknown, r, r->texts[i]) : P4_OK);
    }
    normalizer = p4_format("{\"type\":\"Sequence\",\"normalizers\":[%s%s]}",
                           prefix != 0 ? "{\"type\":\"Prepend\",\"prepend\":\"" MARK "\"}," : "", replace);
    bool ok = normalizer != NULL && cJSON_AddTrueToObject(r->model, "byte_fallback") != NULL &&
              cJSON_AddTrueToObject(r->model, "fuse_unk") != NULL &&
              (unknown == NULL || cJSON_AddStringToObject(r->model, "unk_token", unknown) != NULL) &&
              cJSON_AddItemToObject(r->root, "normalizer", cJSON_Parse(normalizer)) &&
              cJSON_AddItemToObject(r->root, "decoder", cJSON_Parse(decoder));
    rc = ok ? P4_OK : P4_E_SYSTEM;
done:
    free(unknown);
    free(normalizer);
    return rc;
}

/* The token that begins each text, if the file asks for one. */
static p4_rc put_template(reading *r, bool by_default)
{
    p4_rc rc = P4_OK;
    double add = by_default, id = 0;
    bool found, has_id;
    char *text = NULL;
    TRY(p4_gguf_view_number(r->file, "tokenizer.ggml.add_bos_token", &add, &found));
    TRY(p4_gguf_view_number(r->file, "tokenizer.ggml.bos_token_id", &id, &has_id));
    if (add == 0 || !has_id) {
        return P4_OK;
    }
    CHECK(id >= 0 && id < (double)r->tokens->count, "%s: tokenizer.ggml.bos_token_id is %g", r->file->path,
          id);
    TRY(string_of(&text, r, r->texts[(uint64_t)id]));
    cJSON *post =
        cJSON_Parse("{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"type_id\":0}},"
                    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{}}");
    bool ok = post != NULL && cJSON_AddItemToObject(r->root, "post_processor", post);
    if (ok) {
        cJSON *single = cJSON_GetObjectItem(post, "single"),
              *special = cJSON_GetObjectItem(post, "special_tokens");
        cJSON *token = cJSON_AddObjectToObject(special, text);
        double ids[] = {id};
        const char *tokens[] = {text};
        ok =
            cJSON_AddStringToObject(cJSON_GetObjectItem(single->child, "SpecialToken"), "id", text) != NULL &&
            token != NULL && cJSON_AddStringToObject(token, "id", text) != NULL &&
            cJSON_AddItemToObject(token, "ids", cJSON_CreateDoubleArray(ids, 1)) &&
            cJSON_AddItemToObject(token, "tokens", cJSON_CreateStringArray(tokens, 1));
    }
    rc = ok ? P4_OK : P4_E_SYSTEM;
done:
    free(text);
    return rc;
}

p4_rc p4_gguf_tokenizer_json(char **json, const p4_gguf_view *file)
{
    p4_rc rc = P4_OK;
    reading r = {.file = file, .root = cJSON_CreateObject()};
    p4_gguf_text kind;
    *json = NULL;
    TRY(p4_gguf_view_string(file, "tokenizer.ggml.model", &kind, NULL));
    bool byte_level = equals(kind, "gpt2");
    CHECK(byte_level || equals(kind, "llama"), "%s: tokenizer.ggml.model is \"%.*s\", expected gpt2 or llama",
          file->path, (int)p4_min_i64((int64_t)kind.bytes, 40), kind.data);
    TRY(find_lists(&r));
    r.model = cJSON_AddObjectToObject(r.root, "model");
    TRY(r.model != NULL && cJSON_AddStringToObject(r.model, "type", "BPE") != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(put_vocabulary(&r));
    TRY(byte_level ? put_byte_level(&r) : put_sentencepiece(&r));
    TRY(put_template(&r, !byte_level));
    *json = p4_json_print(r.root, true, false);
    r.root = NULL;
    rc = *json != NULL ? P4_OK : P4_E_SYSTEM;
done:
    cJSON_Delete(r.root);
    free(r.texts);
    return rc;
}
