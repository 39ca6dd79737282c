#include "io/tokenizer/post.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/sequence.h"
#include "io/tokenizer/state.h"

enum { TEMPLATE_PIECES_MAX = 64 };

static p4_rc special_insert(p4_tok_special *special, int64_t at, int32_t id)
{
    int32_t *grown = p4_resize(special->ids, (size_t)special->count + 1, sizeof *grown);
    if (grown == NULL) {
        return P4_E_SYSTEM;
    }
    special->ids = grown;
    memmove(grown + at + 1, grown + at, (size_t)(special->count - at) * sizeof *grown);
    grown[at] = id;
    special->count++;
    return P4_OK;
}

/* The ids of {"SpecialToken": {"id": NAME}}, which special_tokens[NAME] lists. */
static p4_rc template_token(p4_tokenizer *t, p4_tok_special *special, const char *where, const cJSON *token,
                            const cJSON *names)
{
    p4_rc rc = P4_OK;
    const char *name;
    const cJSON *entry, *ids;
    char inner[P4_TOK_WHERE_BYTES];
    TRY(p4_json_string(&name, t->source, where, token, "id", true));
    snprintf(inner, sizeof inner, "%.60s.special_tokens", where);
    TRY(p4_json_member(&entry, t->source, inner, names, name, true));
    TRY(p4_json_member(&ids, t->source, inner, entry, "ids", true));
    CHECK(cJSON_IsArray(ids), "%s: %s: the ids of \"%.60s\" must be an array", t->source, inner, name);
    for (const cJSON *item = ids->child; item != NULL; item = item->next) {
        int64_t id;
        CHECK(p4_json_is_whole(item, t->vocab_count, &id) && t->token_text[id].data != NULL,
              "%s: %s: \"%.60s\" has an id that is no token's", t->source, inner, name);
        TRY(special_insert(special, special->count, (int32_t)id));
    }
done:
    return rc;
}

/* Puts the ids of one processor around those of the processors before it. */
static p4_rc surround(p4_tokenizer *t, const p4_tok_special *before, const p4_tok_special *after)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < before->count; i++) {
        TRY(special_insert(&t->before, i, before->ids[i]));
    }
    for (int64_t i = 0; i < after->count; i++) {
        TRY(special_insert(&t->after, t->after.count, after->ids[i]));
    }
done:
    return rc;
}

static p4_rc read_template(p4_tokenizer *t, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    const cJSON *pieces, *names;
    bool text_seen = false;
    p4_tok_special before = {0}, after = {0};
    int count = 0;
    TRY(p4_json_member(&pieces, t->source, where, part, "single", true));
    TRY(p4_json_member(&names, t->source, where, part, "special_tokens", true));
    CHECK(cJSON_IsArray(pieces), "%s: %s.single must be an array", t->source, where);
    for (const cJSON *piece = pieces->child; piece != NULL; piece = piece->next) {
        const cJSON *kind = cJSON_IsObject(piece) ? piece->child : NULL;
        bool is_text = kind != NULL && strcmp(kind->string, "Sequence") == 0;
        bool is_token = kind != NULL && strcmp(kind->string, "SpecialToken") == 0;
        CHECK(++count <= TEMPLATE_PIECES_MAX, "%s: %s.single has more than %d pieces", t->source, where,
              TEMPLATE_PIECES_MAX);
        CHECK(is_text || is_token, "%s: %s.single: a piece must be a SpecialToken or a Sequence", t->source,
              where);
        if (is_text) {
            const char *id;
            TRY(p4_json_string(&id, t->source, where, kind, "id", true));
            CHECK(!text_seen && strcmp(id, "A") == 0, "%s: %s.single must hold the Sequence A once",
                  t->source, where);
            text_seen = true;
        } else {
            TRY(template_token(t, text_seen ? &after : &before, where, kind, names));
        }
    }
    CHECK(text_seen, "%s: %s.single must hold the Sequence A once", t->source, where);
    TRY(surround(t, &before, &after));
done:
    free(before.ids);
    free(after.ids);
    return rc;
}

/* ["</s>", 2] */
static p4_rc read_pair(p4_tokenizer *t, p4_tok_special *special, const char *where, const cJSON *part,
                       const char *key)
{
    p4_rc rc = P4_OK;
    const cJSON *pair;
    int64_t id;
    TRY(p4_json_member(&pair, t->source, where, part, key, true));
    const cJSON *name = cJSON_IsArray(pair) ? pair->child : NULL;
    CHECK(name != NULL && cJSON_IsString(name) && name->next != NULL && name->next->next == NULL &&
              p4_json_is_whole(name->next, t->vocab_count, &id) && t->token_text[id].data != NULL,
          "%s: %s.%s must be [\"token\", id of a token]", t->source, where, key);
    TRY(special_insert(special, 0, (int32_t)id));
done:
    return rc;
}

/* RobertaProcessing and BertProcessing: cls before the text, sep behind it. */
static p4_rc read_cls_sep(p4_tokenizer *t, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    p4_tok_special before = {0}, after = {0};
    TRY(read_pair(t, &before, where, part, "cls"));
    TRY(read_pair(t, &after, where, part, "sep"));
    TRY(surround(t, &before, &after));
done:
    free(before.ids);
    free(after.ids);
    return rc;
}

static p4_rc read_post(p4_tokenizer *t, const char *where, const cJSON *part, const char *type)
{
    if (strcmp(type, "ByteLevel") == 0) {
        return P4_OK; /* trims offsets, no ids */
    }
    if (strcmp(type, "TemplateProcessing") == 0) {
        return read_template(t, where, part);
    }
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
        return read_cls_sep(t, where, part);
    }
    return p4_tok_unsupported(t, where, type,
                              "ByteLevel, TemplateProcessing, RobertaProcessing, BertProcessing, Sequence");
}

p4_rc p4_tok_load_post(p4_tokenizer *t, const cJSON *root)
{
    return p4_tok_walk(t, root, "post_processor", "processors", read_post);
}
