#include "io/export/gguf_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/json/read.h"
#include "io/tokenizer/state.h"

enum { CONFIG_LIMIT = 16 << 20 };

/* llama.cpp's kinds of tokens. */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

typedef struct vocabulary { /* by id, of all rows of the embedding */
    int64_t count;
    int32_t *kinds;
    float *scores;
} vocabulary;

static p4_rc find_kinds(vocabulary *v, const p4_tokenizer *t)
{
    v->kinds = p4_alloc((size_t)v->count, sizeof *v->kinds);
    v->scores = p4_alloc((size_t)v->count, sizeof *v->scores);
    if (v->kinds == NULL || v->scores == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < v->count; i++) {
        bool there = i < t->vocab_count && t->token_text[i].data != NULL;
        v->kinds[i] = there ? NORMAL : UNUSED;
        v->scores[i] = there ? 0.0f : -10000.0f;
    }
    for (int byte = 0; t->bpe.byte_fallback && byte < 256; byte++) {
        if (t->bpe.fallback[byte] >= 0) {
            v->kinds[t->bpe.fallback[byte]] = BYTE;
        }
    }
    for (int32_t i = 0; i < t->added_count; i++) {
        v->kinds[t->added[i].id] = t->added[i].special ? CONTROL : USER_DEFINED;
        v->scores[t->added[i].id] = -1000.0f;
    }
    if (t->bpe.unk_id >= 0) {
        v->kinds[t->bpe.unk_id] = UNKNOWN;
    }
    return P4_OK;
}

/* In how many ways a piece is made of two pieces. */
static int64_t count_splits(const p4_tokenizer *t, p4_tok_text piece)
{
    int64_t count = 0;
    for (size_t at = 1; at < piece.bytes; at++) {
        bool starts = ((unsigned char)piece.data[at] & 0xc0u) != 0x80u; /* a character */
        if (starts && p4_tok_map_find(&t->bpe.vocab, piece.data, at) >= 0 &&
            p4_tok_map_find(&t->bpe.vocab, piece.data + at, piece.bytes - at) >= 0) {
            count++;
        }
    }
    return count;
}

/* SentencePiece merges any two neighbors that make a piece, those with the highest score first. Scores that
 * say the same as the merges: the first rank of each piece, negative. That is exact when the merges are all
 * splits of all pieces, and those of a piece follow one another, as they do where a SentencePiece model was
 * converted. */
static p4_rc find_scores(vocabulary *v, const p4_tokenizer *t, const char *writer)
{
    p4_rc rc = P4_OK;
    int64_t splits = 0, merges = 0;
    p4_tok_merge *by_rank = NULL;
    for (size_t slot = 0; slot < t->bpe.merge_slots; slot++) {
        merges += t->bpe.merges[slot].pair != UINT64_MAX;
    }
    for (int64_t id = 0; id < t->vocab_count; id++) {
        splits += v->kinds[id] == NORMAL ? count_splits(t, t->token_text[id]) : 0;
    }
    CHECK(splits == merges,
          "%s: %s: llama.cpp merges any two pieces that make a piece, in %lld ways; model.merges has %lld",
          writer, t->source, (long long)splits, (long long)merges);
    by_rank = p4_alloc((size_t)merges, sizeof *by_rank);
    TRY(by_rank != NULL ? P4_OK : P4_E_SYSTEM);
    for (size_t slot = 0; slot < t->bpe.merge_slots; slot++) {
        const p4_tok_merge *m = &t->bpe.merges[slot];
        if (m->pair != UINT64_MAX) {
            CHECK(m->rank < merges, "%s: %s: model.merges has a pair twice", writer, t->source);
            by_rank[m->rank] = *m;
        }
    }
    for (int64_t rank = 0; rank < merges; rank++) {
        int32_t id = by_rank[rank].id;
        bool follows = rank > 0 && by_rank[rank - 1].id == id;
        CHECK(follows || v->scores[id] == 0.0f,
              "%s: %s: the merges that make token %d do not follow one another; llama.cpp gives a token one "
              "rank",
              writer, t->source, id);
        v->scores[id] = follows ? v->scores[id] : -(float)(rank + 1);
    }
done:
    free(by_rank);
    return rc;
}

p4_rc p4_gguf_check_scores(const p4_tokenizer *tokenizer, const char *writer)
{
    vocabulary v = {.count = tokenizer->vocab_count};
    p4_rc rc = find_kinds(&v, tokenizer);
    rc = rc == P4_OK ? find_scores(&v, tokenizer, writer) : rc;
    free(v.kinds);
    free(v.scores);
    return rc;
}

static void put_tokens(p4_gguf *g, const vocabulary *v, const p4_tokenizer *t)
{
    char pad[32];
    p4_gguf_put_list(g, "tokenizer.ggml.tokens", P4_GGUF_VALUE_TEXT, v->count);
    for (int64_t i = 0; i < v->count; i++) {
        snprintf(pad, sizeof pad, "[PAD%lld]", (long long)i);
        if (v->kinds[i] == UNUSED) {
            p4_gguf_add_text(g, pad, strlen(pad));
        } else {
            p4_gguf_add_text(g, t->token_text[i].data, t->token_text[i].bytes);
        }
    }
    p4_gguf_put_list(g, "tokenizer.ggml.token_type", P4_GGUF_VALUE_I32, v->count);
    for (int64_t i = 0; i < v->count; i++) {
        p4_gguf_add_i32(g, v->kinds[i]);
    }
}

/* One merge as "left right"; a space inside a part is written as the byte alphabet does. */
static p4_rc put_merge(p4_gguf *g, const cJSON *item, p4_tok_buffer *joined)
{
    static const p4_tok_text space = {" ", 1}, mark = {"\xc4\xa0", 2};
    p4_rc rc = P4_OK;
    if (cJSON_IsString(item)) {
        p4_gguf_add_text(g, item->valuestring, strlen(item->valuestring));
        return P4_OK;
    }
    joined->bytes = 0;
    for (const cJSON *part = item->child; part != NULL; part = part->next) { /* two: the loader checked it */
        TRY(p4_tok_buffer_append(joined, " ", part == item->child ? 0 : 1));
        TRY(p4_tok_buffer_replace(joined, (p4_tok_text){part->valuestring, strlen(part->valuestring)}, space,
                                  mark));
    }
    p4_gguf_add_text(g, joined->data, joined->bytes);
done:
    return rc;
}

static bool is_heading(const cJSON *item)
{
    return cJSON_IsString(item) && strncmp(item->valuestring, "#version", 8) == 0;
}

static p4_rc put_merges(p4_gguf *g, const p4_tokenizer *t)
{
    p4_rc rc = P4_OK;
    cJSON *root = NULL;
    p4_tok_buffer joined = {0};
    int64_t count = 0;
    TRY(p4_json_read(&root, t->json, t->json_bytes, t->source));
    const cJSON *list =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(root, "model"), "merges");
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        count += !is_heading(item);
    }
    if (count > 0) { /* readers do not expect empty lists */
        p4_gguf_put_list(g, "tokenizer.ggml.merges", P4_GGUF_VALUE_TEXT, count);
    }
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        TRY(is_heading(item) ? P4_OK : put_merge(g, item, &joined));
    }
done:
    p4_tok_buffer_free(&joined);
    cJSON_Delete(root);
    return rc;
}

/* ---- special tokens and the chat template ---- */

/* The id of a token that tokenizer_config.json names, by itself or as an object; -1: none. */
static int32_t named_id(const cJSON *config, const char *key, const p4_tokenizer *t)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, key);
    item = cJSON_IsObject(item) ? cJSON_GetObjectItemCaseSensitive(item, "content") : item;
    return cJSON_IsString(item) ? p4_tokenizer_id(t, item->valuestring) : -1;
}

static void put_id(p4_gguf *g, const char *key, int32_t id)
{
    if (id >= 0) {
        p4_gguf_put_u32(g, key, id);
    }
}

static void put_special(p4_gguf *g, const p4_tokenizer *t, const p4_arch *arch, const cJSON *config)
{
    int32_t bos = t->before.count == 1 ? t->before.ids[0] : arch->bos_id;
    put_id(g, "tokenizer.ggml.bos_token_id", bos >= 0 ? bos : named_id(config, "bos_token", t));
    put_id(g, "tokenizer.ggml.eos_token_id",
           arch->eos_id >= 0 ? arch->eos_id : named_id(config, "eos_token", t));
    put_id(g, "tokenizer.ggml.unknown_token_id", t->bpe.unk_id);
    put_id(g, "tokenizer.ggml.padding_token_id", named_id(config, "pad_token", t));
    p4_gguf_put_bool(g, "tokenizer.ggml.add_bos_token", t->before.count == 1);
    p4_gguf_put_bool(g, "tokenizer.ggml.add_eos_token", t->after.count == 1);
}

/* *text: a file of the model's directory; NULL when there is none. */
static p4_rc read_beside(char **text, size_t *bytes, const p4_export_source *source, const char *name)
{
    p4_rc rc = P4_OK;
    char *path = p4_format("%s/%s", source->hf->path, name);
    *text = NULL;
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    if (p4_file_exists(path)) {
        rc = p4_file_read(text, bytes, path, CONFIG_LIMIT);
    }
    free(path);
    return rc;
}

static p4_rc put_config(p4_gguf *g, const p4_export_source *source)
{
    p4_rc rc = P4_OK;
    char *text = NULL, *jinja = NULL;
    size_t bytes = 0, jinja_bytes;
    cJSON *config = NULL;
    TRY(read_beside(&text, &bytes, source, "tokenizer_config.json"));
    TRY(read_beside(&jinja, &jinja_bytes, source, "chat_template.jinja"));
    TRY(text != NULL ? p4_json_read(&config, text, bytes, "tokenizer_config.json") : P4_OK);
    put_special(g, source->tokenizer, &source->hf->model.arch, config);
    const cJSON *inside = cJSON_GetObjectItemCaseSensitive(config, "chat_template");
    if (jinja != NULL || cJSON_IsString(inside)) {
        p4_gguf_put_text(g, "tokenizer.chat_template", jinja != NULL ? jinja : inside->valuestring);
    }
done:
    cJSON_Delete(config);
    free(jinja);
    free(text);
    return rc;
}

p4_rc p4_gguf_put_tokenizer(p4_gguf *g, const p4_gguf_encoding *encoding, const p4_export_source *source)
{
    p4_rc rc = P4_OK;
    vocabulary v = {.count = source->hf->model.arch.V};
    bool pieces = strcmp(encoding->model, "llama") == 0;
    p4_gguf_put_text(g, "tokenizer.ggml.model", encoding->model);
    if (source->tokenizer == NULL) {
        return P4_OK;
    }
    p4_gguf_put_text(g, "tokenizer.ggml.pre", encoding->pre);
    TRY(find_kinds(&v, source->tokenizer));
    put_tokens(g, &v, source->tokenizer);
    if (pieces) {
        TRY(find_scores(&v, source->tokenizer, "gguf"));
        p4_gguf_put_list(g, "tokenizer.ggml.scores", P4_GGUF_VALUE_F32, v.count);
        for (int64_t i = 0; i < v.count; i++) {
            p4_gguf_add_f32(g, v.scores[i]);
        }
        p4_gguf_put_bool(g, "tokenizer.ggml.add_space_prefix", encoding->add_space_prefix);
    } else {
        TRY(put_merges(g, source->tokenizer));
    }
    TRY(put_config(g, source));
done:
    free(v.kinds);
    free(v.scores);
    return rc;
}
