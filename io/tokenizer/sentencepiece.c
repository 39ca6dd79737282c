#include "io/tokenizer/sentencepiece.h"

#include <math.h>
#include <sentencepiece.pb-c.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/charsmap.h"
#include "io/tokenizer/map.h"
#include "io/utf8/utf8.h"

enum {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER = 4,
    MODEL_UNIGRAM = 1,
    MODEL_BPE = 2
};
/* Long pieces of one character can be cut in a number of ways that grows with the square of the file's size:
 * the limits of merges keep the memory for them near that of the largest file. */
enum { PIECES_MAX = 1 << 21, PIECE_BYTES_MAX = 1 << 12, MERGES_MAX = 1 << 22, MERGE_BYTES_MAX = 1 << 28 };

#define MARK "\xe2\x96\x81"

typedef struct candidate { /* a merge, before the merges are ordered */
    float score;
    int32_t id;       /* of the token that it makes */
    const char *left; /* the token's text */
    size_t left_bytes, bytes;
} candidate;

typedef struct candidates {
    candidate *list; /* heap */
    size_t count;
    int64_t capacity;
    size_t bytes; /* of the texts of all */
} candidates;

static p4_rc check(const P4Spm__Model *model, const char *source)
{
    p4_rc rc = P4_OK;
    CHECK(model->n_pieces > 0 && model->n_pieces <= PIECES_MAX, "%s: %zu pieces; 1 to %d are supported",
          source, model->n_pieces, PIECES_MAX);
    CHECK(model->trainer_spec != NULL && model->normalizer_spec != NULL,
          "%s: trainer_spec or normalizer_spec is missing: not a SentencePiece model", source);
    int type = model->trainer_spec->model_type;
    CHECK(type == MODEL_UNIGRAM || type == MODEL_BPE, "%s: model_type is %d; supported: 1 (Unigram), 2 (BPE)",
          source, type);
    for (size_t i = 0; i < model->n_pieces; i++) {
        const char *piece = model->pieces[i]->piece;
        size_t bytes = piece != NULL ? strlen(piece) : 0;
        CHECK(bytes > 0 && bytes <= PIECE_BYTES_MAX && p4_utf8_valid_bytes(piece, bytes) == bytes,
              "%s: piece %zu has %zu bytes or is not UTF-8; 1 to %d are supported", source, i, bytes,
              PIECE_BYTES_MAX);
        CHECK(isfinite(model->pieces[i]->score), "%s: the score of piece %zu is no finite number", source, i);
    }
done:
    return rc;
}

/* --- merges --- */

/* Adds the ways to cut a piece into two pieces of the map, the shortest left one first. */
static p4_rc add_cuts(candidates *all, const p4_tok_map *map, const P4Spm__Piece *piece, int32_t id,
                      const char *source)
{
    p4_rc rc = P4_OK;
    size_t bytes = strlen(piece->piece);
    for (size_t at = 0;;) {
        bool valid;
        at += p4_utf8_next(piece->piece + at, bytes - at, &valid);
        if (at >= bytes) {
            return P4_OK;
        }
        if (p4_tok_map_find(map, piece->piece, at) < 0 ||
            p4_tok_map_find(map, piece->piece + at, bytes - at) < 0) {
            continue;
        }
        all->bytes += bytes;
        CHECK(all->count < MERGES_MAX && all->bytes <= MERGE_BYTES_MAX,
              "%s: more than %d merges, or of more than %d bytes, are not supported", source, MERGES_MAX,
              MERGE_BYTES_MAX);
        candidate *list = p4_grow(all->list, (int64_t)all->count, &all->capacity, sizeof *list);
        if (list == NULL) {
            return P4_E_SYSTEM;
        }
        all->list = list;
        list[all->count++] = (candidate){
            .score = piece->score, .id = id, .left = piece->piece, .left_bytes = at, .bytes = bytes};
    }
done:
    return rc;
}

/* By falling score, then by id, then by the left text. */
static int by_score(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    if (x->id != y->id) {
        return x->id < y->id ? -1 : 1;
    }
    return (x->left_bytes > y->left_bytes) - (x->left_bytes < y->left_bytes);
}

/* Merges in the order of their ranks: for a class in the order of the pieces' ids, otherwise of the normal
 * pieces by their scores. */
static p4_rc add_merges(cJSON *object, const P4Spm__Model *model, bool by_id, const char *source)
{
    p4_rc rc = P4_OK;
    candidates all = {0};
    p4_tok_map map = {0};
    cJSON *merges = cJSON_AddArrayToObject(object, "merges");
    TRY(p4_tok_map_create(&map, model->n_pieces));
    for (size_t i = 0; i < model->n_pieces; i++) {
        const P4Spm__Piece *piece = model->pieces[i];
        bool taken = by_id || piece->type == PIECE_NORMAL;
        CHECK(!taken || p4_tok_map_put(&map, (p4_tok_text){piece->piece, strlen(piece->piece)}, (int32_t)i),
              "%s: the piece \"%.60s\" occurs twice", source, piece->piece);
    }
    for (size_t i = 0; i < model->n_pieces; i++) {
        if (by_id || model->pieces[i]->type == PIECE_NORMAL) {
            TRY(add_cuts(&all, &map, model->pieces[i], (int32_t)i, source));
        }
    }
    if (!by_id && all.count > 0) {
        qsort(all.list, all.count, sizeof *all.list, by_score);
    }
    for (size_t i = 0; i < all.count; i++) {
        const candidate *one = &all.list[i];
        char text[PIECE_BYTES_MAX + 1];
        memcpy(text, one->left, one->left_bytes);
        text[one->left_bytes] = '\0';
        cJSON *pair = cJSON_CreateArray();
        cJSON_AddItemToArray(pair, cJSON_CreateString(text));
        cJSON_AddItemToArray(pair, cJSON_CreateString(one->left + one->left_bytes));
        CHECK(cJSON_AddItemToArray(merges, pair), "out of memory: the merges of %s", source);
    }
done:
    p4_tok_map_free(&map);
    free(all.list);
    return rc;
}

/* --- the model --- */

static p4_rc bpe_model(cJSON *object, const P4Spm__Model *model, bool has_class, const char *source)
{
    p4_rc rc = P4_OK;
    bool user_defined = false;
    cJSON_AddStringToObject(object, "type", "BPE");
    cJSON_AddStringToObject(object, "unk_token", model->trainer_spec->unk_piece);
    cJSON_AddBoolToObject(object, "fuse_unk", true);
    cJSON_AddBoolToObject(object, "byte_fallback", model->trainer_spec->byte_fallback);
    cJSON *vocab = cJSON_AddObjectToObject(object, "vocab");
    for (size_t i = 0; i < model->n_pieces; i++) {
        user_defined = user_defined || model->pieces[i]->type == PIECE_USER;
        CHECK(cJSON_AddItemToObject(vocab, model->pieces[i]->piece, cJSON_CreateNumber((double)i)),
              "out of memory: the vocabulary of %s", source);
    }
    cJSON_AddBoolToObject(object, "ignore_merges", user_defined);
    TRY(add_merges(object, model, has_class, source));
done:
    return rc;
}

static p4_rc unigram_model(cJSON *object, const P4Spm__Model *model, const char *source)
{
    p4_rc rc = P4_OK;
    cJSON_AddStringToObject(object, "type", "Unigram");
    cJSON_AddNumberToObject(object, "unk_id", model->trainer_spec->unk_id);
    cJSON_AddBoolToObject(object, "byte_fallback", model->trainer_spec->byte_fallback);
    cJSON *vocab = cJSON_AddArrayToObject(object, "vocab");
    for (size_t i = 0; i < model->n_pieces; i++) {
        cJSON *pair = cJSON_CreateArray();
        cJSON_AddItemToArray(pair, cJSON_CreateString(model->pieces[i]->piece));
        cJSON_AddItemToArray(pair, cJSON_CreateNumber(model->pieces[i]->score));
        CHECK(cJSON_AddItemToArray(vocab, pair), "out of memory: the vocabulary of %s", source);
    }
done:
    return rc;
}

/* --- the pipeline of the model's own settings --- */

static cJSON *replace_step(const char *kind, const char *pattern, const char *content)
{
    cJSON *step = cJSON_CreateObject();
    cJSON_AddStringToObject(step, "type", "Replace");
    cJSON_AddStringToObject(cJSON_AddObjectToObject(step, "pattern"), kind, pattern);
    cJSON_AddStringToObject(step, "content", content);
    return step;
}

static cJSON *sequence_in(cJSON *root, const char *key, const char *list)
{
    cJSON *object = cJSON_AddObjectToObject(root, key);
    cJSON_AddStringToObject(object, "type", "Sequence");
    return cJSON_AddArrayToObject(object, list);
}

static p4_rc add_normalizer(cJSON *root, const P4Spm__NormalizerSpec *spec, bool legacy)
{
    p4_rc rc = P4_OK;
    cJSON *steps = sequence_in(root, "normalizer", "normalizers");
    char *base64 = NULL;
    if (spec->precompiled_charsmap.len > 0) {
        base64 = p4_tok_base64(spec->precompiled_charsmap.data, spec->precompiled_charsmap.len);
        if (base64 == NULL) {
            return P4_E_SYSTEM;
        }
        cJSON *step = cJSON_CreateObject();
        cJSON_AddStringToObject(step, "type", "Precompiled");
        cJSON_AddStringToObject(step, "precompiled_charsmap", base64);
        cJSON_AddItemToArray(steps, step);
    }
    if (spec->remove_extra_whitespaces) {
        cJSON_AddItemToArray(steps, replace_step("Regex", "\\A +| +\\z", ""));
        cJSON_AddItemToArray(steps, replace_step("Regex", " {2,}", " "));
    }
    if (spec->escape_whitespaces) {
        cJSON_AddItemToArray(steps, replace_step("String", " ", MARK));
    }
    if (spec->add_dummy_prefix && legacy) { /* a Metaspace adds none to a text that begins with a mark */
        cJSON_AddItemToArray(steps, replace_step("Regex", "\\A" MARK, MARK MARK));
    }
    free(base64);
    return rc;
}

static int by_length(const void *a, const void *b)
{
    const P4Spm__Piece *const *x = a, *const *y = b;
    size_t left = strlen((*x)->piece), right = strlen((*y)->piece);
    return left != right ? (left < right) - (left > right) : strcmp((*x)->piece, (*y)->piece);
}

/* User-defined pieces, which are never merged, as alternatives of a pattern, the longest first. */
static p4_rc add_user_defined(cJSON *steps, const P4Spm__Model *model)
{
    p4_rc rc = P4_OK;
    size_t count = 0;
    p4_tok_buffer pattern = {0};
    const P4Spm__Piece **pieces = p4_alloc(model->n_pieces, sizeof *pieces);
    if (pieces == NULL) {
        return P4_E_SYSTEM;
    }
    for (size_t i = 0; i < model->n_pieces; i++) {
        if (model->pieces[i]->type == PIECE_USER) {
            pieces[count++] = model->pieces[i];
        }
    }
    if (count == 0) {
        goto done;
    }
    qsort(pieces, count, sizeof *pieces, by_length);
    for (size_t i = 0; i < count; i++) {
        TRY(p4_tok_buffer_append(&pattern, "|", i > 0 ? 1 : 0));
        for (const char *at = pieces[i]->piece; *at != '\0'; at++) {
            TRY(p4_tok_buffer_append(&pattern, "\\", strchr("\\^$.|?*+()[]{}-&#~", *at) != NULL ? 1 : 0));
            TRY(p4_tok_buffer_append(&pattern, at, 1));
        }
    }
    TRY(p4_tok_buffer_append(&pattern, "", 1));
    cJSON *step = cJSON_CreateObject();
    cJSON_AddStringToObject(step, "type", "Split");
    cJSON_AddStringToObject(cJSON_AddObjectToObject(step, "pattern"), "Regex", pattern.data);
    cJSON_AddStringToObject(step, "behavior", "Isolated");
    cJSON_AddFalseToObject(step, "invert");
    cJSON_AddItemToArray(steps, step);
done:
    p4_tok_buffer_free(&pattern);
    free(pieces);
    return rc;
}

static void add_decoder(cJSON *root, const P4Spm__Model *model)
{
    bool prefix = model->normalizer_spec->add_dummy_prefix;
    cJSON *steps = sequence_in(root, "decoder", "decoders");
    cJSON_AddItemToArray(steps, replace_step("String", MARK, " "));
    if (model->trainer_spec->byte_fallback) {
        cJSON_AddItemToArray(steps, cJSON_Parse("{\"type\":\"ByteFallback\"}"));
    }
    if (prefix || model->trainer_spec->byte_fallback) {
        cJSON_AddItemToArray(steps, cJSON_Parse("{\"type\":\"Fuse\"}"));
    }
    if (prefix) {
        cJSON_AddItemToArray(steps,
                             cJSON_Parse("{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"));
    }
}

static p4_rc own_pipeline(cJSON *root, const P4Spm__Model *model, bool legacy)
{
    p4_rc rc = P4_OK;
    TRY(add_normalizer(root, model->normalizer_spec, legacy));
    cJSON *steps = sequence_in(root, "pre_tokenizer", "pretokenizers");
    if (model->normalizer_spec->add_dummy_prefix) {
        cJSON *step = cJSON_CreateObject();
        cJSON_AddStringToObject(step, "type", "Metaspace");
        cJSON_AddStringToObject(step, "replacement", MARK);
        cJSON_AddStringToObject(step, "prepend_scheme", legacy ? "always" : "first");
        cJSON_AddFalseToObject(step, "split");
        cJSON_AddItemToArray(steps, step);
    }
    TRY(add_user_defined(steps, model));
    add_decoder(root, model);
done:
    return rc;
}

/* Control pieces are added tokens; for a class, which knows its unknown token, user-defined ones too; without
 * one the unknown token. */
static p4_rc add_tokens(cJSON *root, const P4Spm__Model *model, bool has_class, const char *source)
{
    p4_rc rc = P4_OK;
    cJSON *list = cJSON_AddArrayToObject(root, "added_tokens");
    for (size_t i = 0; i < model->n_pieces; i++) {
        int type = model->pieces[i]->type;
        bool control = type == PIECE_CONTROL || (type == PIECE_UNKNOWN && !has_class);
        if (!control && (type != PIECE_USER || !has_class)) {
            continue;
        }
        cJSON *token = cJSON_CreateObject();
        cJSON_AddNumberToObject(token, "id", (double)i);
        cJSON_AddStringToObject(token, "content", model->pieces[i]->piece);
        cJSON_AddFalseToObject(token, "single_word");
        cJSON_AddFalseToObject(token, "lstrip");
        cJSON_AddFalseToObject(token, "rstrip");
        cJSON_AddFalseToObject(token, "normalized");
        cJSON_AddBoolToObject(token, "special", control);
        CHECK(cJSON_AddItemToArray(list, token), "out of memory: the added tokens of %s", source);
    }
done:
    return rc;
}

p4_rc p4_tok_sentencepiece(cJSON **root, const void *model_bytes, size_t bytes, const p4_tok_class *chosen,
                           const cJSON *config, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *option = cJSON_GetObjectItemCaseSensitive(config, "legacy");
    bool legacy = option == NULL || cJSON_IsTrue(option);
    P4Spm__Model *model = p4_spm__model__unpack(NULL, bytes, model_bytes);
    *root = NULL;
    CHECK(model != NULL, "%s: not a SentencePiece model", source);
    TRY(check(model, source));
    CHECK(chosen == NULL || model->trainer_spec->model_type == MODEL_BPE,
          "%s: a Unigram model, but the tokenizer class %s needs BPE", source, chosen->name);
    *root = cJSON_CreateObject();
    TRY(add_tokens(*root, model, chosen != NULL, source));
    if (chosen == NULL) {
        TRY(own_pipeline(*root, model, legacy));
    }
    cJSON *object = cJSON_AddObjectToObject(*root, "model");
    if (model->trainer_spec->model_type == MODEL_BPE) {
        TRY(bpe_model(object, model, chosen != NULL, source));
    } else {
        TRY(unigram_model(object, model, source));
    }
done:
    if (model != NULL) {
        p4_spm__model__free_unpacked(model, NULL);
    }
    if (rc != P4_OK) {
        cJSON_Delete(*root);
        *root = NULL;
    }
    return rc;
}
