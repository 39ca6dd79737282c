#include "io/tokenizer/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json/read.h"
#include "io/tokenizer/byte_alphabet.h"
#include "io/tokenizer/parts.h"
#include "io/tokenizer/post.h"
#include "io/tokenizer/state.h"

enum {
    ADDED_BYTES_MAX = 1024, /* of an added token: a text is searched for the longest at every place */
    SHOWN_BYTES = 60,       /* of a token in a message */
};

static int shown(p4_tok_text text)
{
    return (int)(text.bytes < SHOWN_BYTES ? text.bytes : SHOWN_BYTES);
}

/* --- the model --- */

/* Options of the model that change ids: those that are followed, and those that must be refused. */
static p4_rc load_options(p4_tokenizer *t, const cJSON *model)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    const char *text;
    p4_tok_bpe *bpe = &t->bpe;
    TRY(p4_json_member(&item, t->source, "model", model, "dropout", false));
    CHECK(item == NULL || cJSON_IsNull(item) || (cJSON_IsNumber(item) && item->valuedouble == 0.0),
          "%s: model.dropout must be null: random merges are not supported", t->source);
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        TRY(p4_json_string(&text, t->source, "model", model, affixes[i], false));
        CHECK(text == NULL || text[0] == '\0', "%s: model.%s \"%.60s\" is not supported", t->source,
              affixes[i], text);
    }
    TRY(p4_json_bool(&bpe->byte_fallback, t->source, "model", model, "byte_fallback", false));
    TRY(p4_json_bool(&bpe->fuse_unk, t->source, "model", model, "fuse_unk", false));
    TRY(p4_json_bool(&bpe->ignore_merges, t->source, "model", model, "ignore_merges", false));
    TRY(p4_json_string(&text, t->source, "model", model, "unk_token", false));
    if (text != NULL) {
        TRY(p4_tok_keep(&t->strings, &bpe->unk_token, text, strlen(text)));
    }
done:
    return rc;
}

static size_t count_children(const cJSON *item)
{
    size_t count = 0;
    for (const cJSON *child = item->child; child != NULL; child = child->next) {
        count++;
    }
    return count;
}

static p4_rc load_vocab(p4_tokenizer *t, const cJSON *model)
{
    p4_rc rc = P4_OK;
    const cJSON *vocab;
    TRY(p4_json_member(&vocab, t->source, "model", model, "vocab", true));
    CHECK(cJSON_IsObject(vocab) && vocab->child != NULL,
          "%s: model.vocab must be an object with at least one token", t->source);
    size_t count = count_children(vocab);
    CHECK(count <= P4_TOK_IDS_MAX, "%s: model.vocab has %zu tokens; at most %d are supported", t->source,
          count, P4_TOK_IDS_MAX);
    t->model_tokens = (int32_t)count;
    TRY(p4_tok_map_create(&t->bpe.vocab, count));
    for (const cJSON *child = vocab->child; child != NULL; child = child->next) {
        p4_tok_text token;
        int64_t id;
        TRY(p4_tok_keep(&t->strings, &token, child->string, strlen(child->string)));
        CHECK(p4_json_is_whole(child, P4_TOK_IDS_MAX, &id),
              "%s: model.vocab: the id of \"%.*s\" must be a whole number from 0 to %d", t->source,
              shown(token), token.data, P4_TOK_IDS_MAX - 1);
        CHECK(p4_tok_map_put(&t->bpe.vocab, token, (int32_t)id), "%s: model.vocab has \"%.*s\" twice",
              t->source, shown(token), token.data);
        t->vocab_count = p4_max_i64(t->vocab_count, id + 1);
    }
    if (t->bpe.unk_token.data != NULL) {
        t->bpe.unk_id = p4_tok_map_find(&t->bpe.vocab, t->bpe.unk_token.data, t->bpe.unk_token.bytes);
    }
done:
    return rc;
}

/* A merge is "left right" with one space, or ["left", "right"], which may hold spaces. */
static bool merge_parts(const cJSON *item, p4_tok_text *left, p4_tok_text *right)
{
    if (cJSON_IsString(item)) {
        const char *space = strchr(item->valuestring, ' ');
        if (space == NULL || strchr(space + 1, ' ') != NULL) {
            return false;
        }
        *left = (p4_tok_text){item->valuestring, (size_t)(space - item->valuestring)};
        *right = (p4_tok_text){space + 1, strlen(space + 1)};
        return true;
    }
    const cJSON *first = cJSON_IsArray(item) ? item->child : NULL;
    const cJSON *second = first != NULL ? first->next : NULL;
    if (second == NULL || second->next != NULL || !cJSON_IsString(first) || !cJSON_IsString(second)) {
        return false;
    }
    *left = (p4_tok_text){first->valuestring, strlen(first->valuestring)};
    *right = (p4_tok_text){second->valuestring, strlen(second->valuestring)};
    return true;
}

/* Whether a mark follows something that is not a mark. */
static bool mark_inside(p4_tok_text token)
{
    const p4_tok_text mark = {P4_TOK_MARK, 3};
    const char *at = token.data, *end = token.data + token.bytes;
    while (at < end && p4_tok_find(at, end, mark) == at) {
        at += mark.bytes;
    }
    return p4_tok_find(at, end, mark) != NULL;
}

static p4_rc load_merge(p4_tokenizer *t, const cJSON *item, uint32_t rank, p4_tok_buffer *joined)
{
    p4_rc rc = P4_OK;
    p4_tok_text left, right;
    CHECK(merge_parts(item, &left, &right),
          "%s: model.merges[%u] must be \"left right\" or [\"left\", \"right\"]", t->source, rank);
    joined->bytes = 0;
    TRY(p4_tok_buffer_append(joined, left.data, left.bytes));
    TRY(p4_tok_buffer_append(joined, right.data, right.bytes));
    const p4_tok_text whole = {joined->data, joined->bytes};
    const p4_tok_text parts[] = {left, right, whole};
    int32_t ids[3];
    for (int i = 0; i < 3; i++) {
        ids[i] = p4_tok_map_find(&t->bpe.vocab, parts[i].data, parts[i].bytes);
        CHECK(ids[i] >= 0, "%s: model.merges[%u]: \"%.*s\" is not in model.vocab", t->source, rank,
              shown(parts[i]), parts[i].data);
    }
    p4_tok_merges_put(&t->bpe, ids[0], ids[1], rank, ids[2]);
    t->bpe.cuts_at_marks = t->bpe.cuts_at_marks && !mark_inside(whole);
done:
    return rc;
}

static p4_rc load_merges(p4_tokenizer *t, const cJSON *model)
{
    p4_rc rc = P4_OK;
    const cJSON *merges;
    p4_tok_buffer joined = {0};
    uint32_t rank = 0;
    TRY(p4_json_member(&merges, t->source, "model", model, "merges", true));
    CHECK(cJSON_IsArray(merges), "%s: model.merges must be an array", t->source);
    TRY(p4_tok_merges_create(&t->bpe, count_children(merges)));
    /* Words end at marks unless a merge spans one. No character may be dropped either: that would make marks
     * adjacent which were not. */
    t->bpe.cuts_at_marks = !t->bpe.byte_level && !t->bpe.ignore_merges && t->bpe.unk_token.data != NULL &&
                           p4_tok_map_find(&t->bpe.vocab, P4_TOK_MARK, 3) >= 0;
    for (const cJSON *item = merges->child; item != NULL; item = item->next) {
        bool heading =
            cJSON_IsString(item) && strncmp(item->valuestring, "#version", 8) == 0; /* of old merges.txt */
        if (!heading) {
            TRY(load_merge(t, item, rank++, &joined));
        }
    }
done:
    p4_tok_buffer_free(&joined);
    return rc;
}

/* --- added tokens --- */

static p4_rc load_added_token(p4_tokenizer *t, const cJSON *item, int32_t index)
{
    p4_rc rc = P4_OK;
    p4_tok_added *added = &t->added[index];
    char where[32];
    const char *content;
    int64_t id;
    snprintf(where, sizeof where, "added_tokens[%d]", index);
    TRY(p4_json_integer(&id, t->source, where, item, "id", P4_TOK_IDS_MAX));
    TRY(p4_json_string(&content, t->source, where, item, "content", true));
    size_t bytes = strlen(content);
    CHECK(bytes > 0 && bytes <= ADDED_BYTES_MAX, "%s: %s.content has %zu bytes; 1 to %d are supported",
          t->source, where, bytes, ADDED_BYTES_MAX);
    TRY(p4_json_bool(&added->single_word, t->source, where, item, "single_word", true));
    TRY(p4_json_bool(&added->lstrip, t->source, where, item, "lstrip", true));
    TRY(p4_json_bool(&added->rstrip, t->source, where, item, "rstrip", true));
    TRY(p4_json_bool(&added->normalized, t->source, where, item, "normalized", true));
    TRY(p4_json_bool(&added->special, t->source, where, item, "special", true));
    TRY(p4_tok_keep(&t->strings, &added->content, content, bytes));
    added->id = p4_tok_added_id(&t->last_added, added->content, &t->bpe.vocab, t->model_tokens);
    if (added->id != id) {
        WARN("%s: %s: \"%.*s\" has id %lld here; the reference library gives it %d, and so does this program",
             t->source, where, shown(added->content), content, (long long)id, added->id);
    }
    CHECK(p4_tok_map_put(&t->added_ids, added->content, added->id), "%s: %s: \"%.*s\" is added twice",
          t->source, where, shown(added->content), content);
    t->vocab_count = p4_max_i64(t->vocab_count, (int64_t)added->id + 1);
done:
    return rc;
}

static p4_rc load_added(p4_tokenizer *t, const cJSON *root)
{
    p4_rc rc = P4_OK;
    const cJSON *list;
    TRY(p4_json_member(&list, t->source, "", root, "added_tokens", false));
    if (list == NULL || cJSON_IsNull(list)) {
        return P4_OK;
    }
    CHECK(cJSON_IsArray(list), "%s: added_tokens must be an array", t->source);
    size_t count = count_children(list);
    CHECK(count < P4_TOK_IDS_MAX, "%s: added_tokens has %zu entries; at most %d are supported", t->source,
          count, P4_TOK_IDS_MAX - 1);
    t->added = p4_alloc(count, sizeof *t->added);
    if (t->added == NULL) {
        return P4_E_SYSTEM;
    }
    TRY(p4_tok_map_create(&t->added_ids, count));
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        TRY(load_added_token(t, item, t->added_count));
        t->added_count++;
    }
done:
    return rc;
}

/* The reference looks for special tokens before the others, which matters when two have equal patterns. */
static p4_rc build_tries(p4_tokenizer *t)
{
    p4_rc rc = P4_OK;
    p4_tok_normal_scratch scratch = {0};
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t i = 0; i < t->added_count; i++) {
            p4_tok_text pattern = t->added[i].content;
            if (t->added[i].special != (pass == 0)) {
                continue;
            }
            if (t->added[i].normalized) {
                TRY(p4_tok_normalize(&t->normalizer, &scratch, &pattern, t->source));
            }
            TRY(p4_tok_trie_add(t->added[i].normalized ? &t->normal_trie : &t->raw_trie, pattern, i));
        }
    }
done:
    p4_tok_normal_scratch_free(&scratch);
    return rc;
}

/* --- tables derived from the whole --- */

/* The token of each id. An added token may have the id of a token of the model; two tokens of the model may
 * not share an id. */
static p4_rc index_tokens(p4_tokenizer *t)
{
    p4_rc rc = P4_OK;
    t->token_text = p4_alloc((size_t)t->vocab_count, sizeof *t->token_text);
    if (t->token_text == NULL) {
        return P4_E_SYSTEM;
    }
    for (size_t slot = 0; slot < t->bpe.vocab.slots; slot++) {
        p4_tok_text token = t->bpe.vocab.keys[slot];
        if (token.data != NULL) {
            p4_tok_text *place = &t->token_text[t->bpe.vocab.values[slot]];
            CHECK(place->data == NULL, "%s: model.vocab: \"%.*s\" and \"%.*s\" have the same id %d",
                  t->source, shown(*place), place->data, shown(token), token.data, t->bpe.vocab.values[slot]);
            *place = token;
        }
    }
    for (int32_t i = 0; i < t->added_count; i++) {
        t->token_text[t->added[i].id] = t->added[i].content;
    }
done:
    return rc;
}

/* For ignore_merges: byte-level pieces are looked up as the bytes that they consist of. */
static p4_rc index_bytes(p4_tokenizer *t)
{
    p4_rc rc = P4_OK;
    TRY(p4_tok_map_create(&t->bpe.bytes, t->bpe.vocab.slots / 2));
    for (size_t slot = 0; slot < t->bpe.vocab.slots; slot++) {
        p4_tok_text token = t->bpe.vocab.keys[slot], raw;
        size_t at = 0, length, count = 0;
        if (token.data == NULL) {
            continue;
        }
        TRY(p4_tok_keep(&t->strings, &raw, token.data, token.bytes));
        char *to = t->strings.data + (raw.data - t->strings.data);
        for (unsigned char byte; p4_tok_char_byte(token.data + at, token.bytes - at, &byte, &length);
             at += length) {
            to[count++] = (char)byte;
        }
        if (at == token.bytes && count > 0) {
            raw.bytes = count;
            (void)p4_tok_map_put(&t->bpe.bytes, raw,
                                 t->bpe.vocab.values[slot]); /* the alphabet is one to one */
        }
    }
done:
    return rc;
}

static void index_symbols(p4_tokenizer *t)
{
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        size_t bytes = p4_tok_byte_char((unsigned char)byte, text);
        t->bpe.byte_id[byte] = p4_tok_map_find(&t->bpe.vocab, text, bytes);
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
        t->bpe.fallback[byte] = p4_tok_map_find(&t->bpe.vocab, text, 6);
    }
}

static bool has(const cJSON *model, const char *member)
{
    return cJSON_GetObjectItemCaseSensitive(model, member) != NULL;
}

/* Old files have no type. The reference takes the first of BPE, WordPiece, WordLevel and Unigram that the
 * members fit. */
static const char *untagged_type(const cJSON *model)
{
    if (cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(model, "vocab"))) {
        return "Unigram";
    }
    return has(model, "merges") || !has(model, "unk_token")                                    ? "BPE"
           : has(model, "continuing_subword_prefix") && has(model, "max_input_chars_per_word") ? "WordPiece"
                                                                                               : "WordLevel";
}

/* The splitter and the model both depend on it. */
static p4_rc find_type(p4_tokenizer *t, const cJSON *model)
{
    p4_rc rc = P4_OK;
    const char *type;
    TRY(p4_json_string(&type, t->source, "model", model, "type", false));
    bool tagged = type != NULL;
    type = tagged ? type : untagged_type(model);
    bool unigram = strcmp(type, "Unigram") == 0;
    CHECK(unigram || strcmp(type, "BPE") == 0, "%s: model.type is %s\"%.60s\"; supported: BPE, Unigram",
          t->source, tagged ? "" : "missing, and the members are those of ", type);
    t->bpe.unigram = unigram ? &t->unigram : NULL;
    t->bpe.unk_id = t->last_added = -1;
done:
    return rc;
}

static p4_rc load_model(p4_tokenizer *t, const cJSON *model)
{
    p4_rc rc = P4_OK;
    if (t->bpe.unigram != NULL) {
        return p4_tok_load_unigram(t, model);
    }
    TRY(load_options(t, model));
    TRY(load_vocab(t, model));
    TRY(load_merges(t, model));
done:
    return rc;
}

p4_rc p4_tok_load(p4_tokenizer *t)
{
    p4_rc rc = P4_OK;
    cJSON *root = NULL;
    const cJSON *model;
    t->bpe.source = t->source;
    TRY(p4_json_read(&root, t->json, t->json_bytes, t->source));
    /* A string takes no more bytes than its source; it is kept once, and a token once more as bytes. */
    TRY(p4_tok_strings_create(&t->strings, 2 * t->json_bytes + 64));
    TRY(p4_json_member(&model, t->source, "", root, "model", true));
    TRY(p4_tok_load_normalizer(t, root));
    TRY(find_type(t, model));
    TRY(p4_tok_load_splitter(t, root));
    TRY(load_model(t, model));
    TRY(load_added(t, root));
    TRY(index_tokens(t));
    if (t->bpe.byte_level && t->bpe.ignore_merges) {
        TRY(index_bytes(t));
    }
    index_symbols(t);
    TRY(build_tries(t));
    TRY(p4_tok_load_post(t, root));
    TRY(p4_tok_load_decoder(t, root));
done:
    cJSON_Delete(root);
    return rc;
}
