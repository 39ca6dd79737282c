#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/tokenizer/load.h"
#include "io/tokenizer/state.h"

static p4_rc load_entry(p4_tokenizer *t, const cJSON *item, int32_t id)
{
    p4_rc rc = P4_OK;
    const cJSON *token = cJSON_IsArray(item) ? item->child : NULL;
    const cJSON *score = token != NULL ? token->next : NULL;
    p4_tok_text text;
    CHECK(score != NULL && score->next == NULL && cJSON_IsString(token) && cJSON_IsNumber(score) &&
              isfinite(score->valuedouble),
          "%s: model.vocab[%d] must be [\"token\", score]", t->source, id);
    TRY(p4_tok_keep(&t->strings, &text, token->valuestring, strlen(token->valuestring)));
    CHECK(p4_tok_map_put(&t->bpe.vocab, text, id), "%s: model.vocab has \"%.60s\" twice", t->source,
          text.data);
    TRY(p4_tok_trie_add(&t->unigram.trie, text, id));
    t->unigram.scores[id] = score->valuedouble;
    if (id == 0 || score->valuedouble < t->unigram.least_score) {
        t->unigram.least_score = score->valuedouble;
    }
done:
    return rc;
}

p4_rc p4_tok_load_unigram(p4_tokenizer *t, const cJSON *model)
{
    p4_rc rc = P4_OK;
    const cJSON *vocab, *item;
    p4_tok_unigram *unigram = &t->unigram;
    int64_t unk_id = -1;
    int count = 0;
    TRY(p4_json_bool(&unigram->byte_fallback, t->source, "model", model, "byte_fallback", false));
    TRY(p4_json_member(&vocab, t->source, "model", model, "vocab", true));
    CHECK(cJSON_IsArray(vocab) && vocab->child != NULL,
          "%s: model.vocab of a Unigram model must be an array of [\"token\", score]", t->source);
    for (item = vocab->child; item != NULL; item = item->next) {
        CHECK(count++ < P4_TOK_IDS_MAX, "%s: model.vocab has more than %d tokens", t->source, P4_TOK_IDS_MAX);
    }
    unigram->source = t->source;
    unigram->scores = p4_alloc((size_t)count, sizeof *unigram->scores);
    if (unigram->scores == NULL) {
        return P4_E_SYSTEM;
    }
    TRY(p4_tok_map_create(&t->bpe.vocab, (size_t)count));
    for (item = vocab->child; item != NULL; item = item->next) {
        TRY(load_entry(t, item, unigram->count++));
    }
    TRY(p4_json_member(&item, t->source, "model", model, "unk_id", false));
    CHECK(item == NULL || cJSON_IsNull(item) || p4_json_is_whole(item, count, &unk_id),
          "%s: model.unk_id must be the id of a token, from 0 to %d, or null", t->source, count - 1);
    unigram->unk_id = (int32_t)unk_id;
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
        unigram->fallback[byte] = p4_tok_map_find(&t->bpe.vocab, text, 6);
    }
    t->vocab_count = t->model_tokens = count;
done:
    return rc;
}
