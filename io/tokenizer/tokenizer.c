/* tokenizer.c - opening a tokenizer, and the way of a text through it: added tokens, normalizer, added tokens
 * again, pre-tokenizer, model, and the ids around it. */
#include "io/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/tokenizer/directory.h"
#include "io/tokenizer/load.h"
#include "io/tokenizer/state.h"
#include "io/tokenizer/unicode.h"

/* --- opening --- */

/* Takes over `json`. */
static p4_rc parse_owned(p4_tokenizer **tokenizer, char *json, size_t json_bytes, const char *source)
{
    p4_tokenizer *t = p4_alloc(1, sizeof *t);
    *tokenizer = NULL;
    if (t == NULL) {
        free(json);
        return P4_E_SYSTEM;
    }
    t->json = json;
    t->json_bytes = json_bytes;
    t->source = p4_strdup(source);
    p4_rc rc = t->source == NULL ? P4_E_SYSTEM : p4_tok_load(t);
    if (rc != P4_OK) {
        p4_tokenizer_close(t);
        return rc;
    }
    *tokenizer = t;
    return P4_OK;
}

p4_rc p4_tokenizer_parse(p4_tokenizer **tokenizer, const char *json, size_t json_bytes, const char *source)
{
    *tokenizer = NULL;
    if (json_bytes > P4_TOK_FILE_BYTES_MAX) {
        return FAIL("%s: %zu bytes; a tokenizer.json may have at most %d", source, json_bytes,
                    P4_TOK_FILE_BYTES_MAX);
    }
    char *copy = p4_alloc(json_bytes + 1, 1);
    if (copy == NULL) {
        return P4_E_SYSTEM;
    }
    if (json_bytes > 0) {
        memcpy(copy, json, json_bytes);
    }
    return parse_owned(tokenizer, copy, json_bytes, source);
}

p4_rc p4_tokenizer_open(p4_tokenizer **tokenizer, const char *directory)
{
    p4_rc rc = P4_OK;
    char *json = NULL, *source = NULL;
    size_t bytes = 0;
    *tokenizer = NULL;
    TRY(p4_tok_directory_read(&json, &bytes, &source, directory));
    rc = parse_owned(tokenizer, json, bytes, source);
done:
    free(source);
    return rc;
}

const char *const p4_tokenizer_files[P4_TOKENIZER_FILES] = {
    "tokenizer.json",    "tokenizer.model",        "vocab.json", "merges.txt", "tokenizer_config.json",
    "added_tokens.json", "special_tokens_map.json"};

bool p4_tokenizer_present(const char *directory)
{
    bool present = false;
    for (int i = 0; i < 3 && !present; i++) { /* those that have a vocabulary */
        char *path = p4_format("%s/%s", directory, p4_tokenizer_files[i]);
        present = path != NULL && p4_file_exists(path);
        free(path);
    }
    return present;
}

void p4_tokenizer_close(p4_tokenizer *tokenizer)
{
    if (tokenizer == NULL) {
        return;
    }
    p4_tok_normalizer_free(&tokenizer->normalizer);
    p4_tok_splitter_free(&tokenizer->splitter);
    p4_tok_bpe_free(&tokenizer->bpe);
    p4_tok_unigram_free(&tokenizer->unigram);
    p4_tok_map_free(&tokenizer->added_ids);
    p4_tok_trie_free(&tokenizer->raw_trie);
    p4_tok_trie_free(&tokenizer->normal_trie);
    p4_tok_strings_free(&tokenizer->strings);
    free(tokenizer->decoder.refusal);
    free(tokenizer->source);
    free(tokenizer->json);
    free(tokenizer->token_text);
    free(tokenizer->added);
    free(tokenizer->before.ids);
    free(tokenizer->after.ids);
    free(tokenizer);
}

/* --- scratch memory --- */

struct p4_tokenizer_scratch {
    const p4_tokenizer *tokenizer;
    p4_tok_buffer clean;
    p4_tok_normal_scratch normal;
    p4_tok_split_scratch split;
    p4_tok_bpe_scratch bpe;
};

p4_rc p4_tokenizer_scratch_create(p4_tokenizer_scratch **scratch, const p4_tokenizer *tokenizer)
{
    p4_rc rc = P4_OK;
    p4_tokenizer_scratch *s = p4_alloc(1, sizeof *s);
    *scratch = NULL;
    if (s == NULL) {
        return P4_E_SYSTEM;
    }
    s->tokenizer = tokenizer;
    TRY(p4_tok_bpe_scratch_create(&s->bpe));
    *scratch = s;
done:
    if (rc != P4_OK) {
        p4_tokenizer_scratch_free(s);
    }
    return rc;
}

void p4_tokenizer_scratch_free(p4_tokenizer_scratch *scratch)
{
    if (scratch == NULL) {
        return;
    }
    p4_tok_buffer_free(&scratch->clean);
    p4_tok_normal_scratch_free(&scratch->normal);
    p4_tok_split_scratch_free(&scratch->split);
    p4_tok_bpe_scratch_free(&scratch->bpe);
    free(scratch);
}

/* --- encoding --- */

/* A part of the text without tokens that are matched before the normalizer. */
static p4_rc encode_segment(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, p4_tok_text text,
                            bool at_start, p4_ids *ids)
{
    p4_rc rc = P4_OK;
    p4_tok_scan scan;
    p4_tok_text piece;
    int32_t token;
    size_t offset;
    const p4_tok_sink sink = {&tokenizer->bpe, &scratch->bpe, ids};
    TRY(p4_tok_normalize(&tokenizer->normalizer, &scratch->normal, &text, tokenizer->source));
    p4_tok_scan_start(&scan, &tokenizer->normal_trie, tokenizer->added, text);
    while (p4_tok_scan_next(&scan, &token, &piece, &offset)) {
        if (token >= 0) {
            TRY(p4_ids_append(ids, &tokenizer->added[token].id, 1));
        } else {
            TRY(p4_tok_split(&tokenizer->splitter, &scratch->split, piece, at_start && offset == 0, &sink));
        }
    }
done:
    return rc;
}

p4_rc p4_tokenizer_encode(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, const char *text,
                          size_t bytes, bool add_special, p4_ids *ids, int64_t *replaced)
{
    p4_rc rc = P4_OK;
    int64_t invalid = 0, count_before = ids->count;
    p4_tok_text whole = {bytes > 0 ? text : "", bytes}, piece;
    p4_tok_scan scan;
    int32_t token;
    size_t offset;
    if (scratch->tokenizer != tokenizer) {
        return FAULT("%s: the scratch memory belongs to another tokenizer", tokenizer->source);
    }
    TRY(p4_tok_clean(&whole, &scratch->clean, &invalid));
    if (add_special) {
        TRY(p4_ids_append(ids, tokenizer->before.ids, tokenizer->before.count));
    }
    p4_tok_scan_start(&scan, &tokenizer->raw_trie, tokenizer->added, whole);
    while (p4_tok_scan_next(&scan, &token, &piece, &offset)) {
        if (token >= 0) {
            TRY(p4_ids_append(ids, &tokenizer->added[token].id, 1));
        } else {
            TRY(encode_segment(tokenizer, scratch, piece, offset == 0, ids));
        }
    }
    if (add_special) {
        TRY(p4_ids_append(ids, tokenizer->after.ids, tokenizer->after.count));
    }
done:
    if (rc != P4_OK) {
        ids->count = count_before;
    } else if (replaced != NULL) {
        *replaced += invalid;
    }
    return rc;
}

/* --- decoding --- */

p4_rc p4_tokenizer_decode(const p4_tokenizer *tokenizer, const int32_t *ids, int64_t count, char **text)
{
    p4_rc rc = P4_OK;
    *text = NULL;
    p4_tok_text *tokens = p4_alloc((size_t)count, sizeof *tokens);
    if (tokens == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < count; i++) {
        bool known =
            ids[i] >= 0 && ids[i] < tokenizer->vocab_count && tokenizer->token_text[ids[i]].data != NULL;
        CHECK(known, "%s: id %d at place %lld is no token", tokenizer->source, ids[i], (long long)i);
        tokens[i] = tokenizer->token_text[ids[i]];
    }
    rc = p4_tok_decode(&tokenizer->decoder, tokenizer->source, tokens, count, text);
done:
    free(tokens);
    return rc;
}

/* --- look-ups --- */

int64_t p4_tokenizer_vocab_count(const p4_tokenizer *tokenizer)
{
    return tokenizer->vocab_count;
}

int32_t p4_tokenizer_id(const p4_tokenizer *tokenizer, const char *token)
{
    return p4_tok_id(tokenizer, token, strlen(token));
}

const char *p4_tokenizer_json(const p4_tokenizer *tokenizer)
{
    return tokenizer->json;
}
