/* tokenizer.c - opening a tokenizer, and the way of a text through it: added tokens, normalizer, added tokens
 * again, pre-tokenizer, model, and the ids around it. */
#include "io/tokenizer/tokenizer.h"

#include <stdlib.h>

#include "io/file/files.h"
#include "io/tokenizer/tokenizer_internal.h"

enum { FILE_BYTES_MAX = 1 << 28, JIT_STACK_BYTES = 1 << 15, JIT_STACK_BYTES_MAX = 1 << 22 };

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
    p4_rc rc = t->source == NULL ? P4_E_SYSTEM : p4_tok_json_load(t);
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
    if (json_bytes > FILE_BYTES_MAX) {
        return FAIL("%s: %zu bytes; a tokenizer.json may have at most %d", source, json_bytes,
                    FILE_BYTES_MAX);
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

static p4_rc apply_config(p4_tokenizer *tokenizer, const char *directory)
{
    p4_rc rc = P4_OK;
    char *json = NULL;
    size_t bytes = 0;
    char *path = p4_format("%s/tokenizer_config.json", directory);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    if (p4_file_exists(path)) {
        TRY(p4_file_read(&json, &bytes, path, FILE_BYTES_MAX));
        TRY(p4_tok_config_apply(tokenizer, json, bytes, path));
    }
done:
    free(json);
    free(path);
    return rc;
}

p4_rc p4_tokenizer_open(p4_tokenizer **tokenizer, const char *directory)
{
    p4_rc rc = P4_OK;
    char *json = NULL;
    size_t bytes = 0;
    *tokenizer = NULL;
    char *path = p4_format("%s/tokenizer.json", directory);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    TRY(p4_file_read(&json, &bytes, path, FILE_BYTES_MAX));
    TRY(parse_owned(tokenizer, json, bytes, path));
    TRY(apply_config(*tokenizer, directory));
done:
    free(path);
    if (rc != P4_OK) {
        p4_tokenizer_close(*tokenizer);
        *tokenizer = NULL;
    }
    return rc;
}

void p4_tokenizer_close(p4_tokenizer *tokenizer)
{
    if (tokenizer == NULL) {
        return;
    }
    for (int i = 0; i < tokenizer->pre_tokenizer.count; i++) {
        pcre2_code_free(tokenizer->pre_tokenizer.step[i].pattern);
    }
    p4_tok_map_free(&tokenizer->vocab);
    p4_tok_map_free(&tokenizer->bytes);
    p4_tok_map_free(&tokenizer->added_ids);
    free(tokenizer->source);
    free(tokenizer->json);
    free(tokenizer->strings);
    free(tokenizer->token_text);
    free(tokenizer->merges);
    free(tokenizer->added);
    free(tokenizer->raw_trie.nodes);
    free(tokenizer->normal_trie.nodes);
    free(tokenizer->before.ids);
    free(tokenizer->after.ids);
    free(tokenizer);
}

/* --- scratch memory --- */

p4_rc p4_tokenizer_scratch_create(p4_tokenizer_scratch **scratch, const p4_tokenizer *tokenizer)
{
    p4_tokenizer_scratch *s = p4_alloc(1, sizeof *s);
    *scratch = s;
    if (s == NULL) {
        return P4_E_SYSTEM;
    }
    s->tokenizer = tokenizer;
    s->cache = p4_alloc(P4_TOK_CACHE_SLOTS, sizeof *s->cache);
    s->match = pcre2_match_data_create(1, NULL); /* only the whole match is asked for */
    s->context = pcre2_match_context_create(NULL);
    s->stack = pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_BYTES_MAX, NULL);
    if (s->cache == NULL || s->match == NULL || s->context == NULL) {
        p4_tokenizer_scratch_free(s);
        *scratch = NULL;
        return FAULT("out of memory: the tokenizer's scratch memory could not be had");
    }
    if (s->stack != NULL) { /* NULL: this PCRE2 has no just-in-time compiler */
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
    }
    return P4_OK;
}

void p4_tokenizer_scratch_free(p4_tokenizer_scratch *scratch)
{
    if (scratch == NULL) {
        return;
    }
    pcre2_match_data_free(scratch->match);
    pcre2_match_context_free(scratch->context);
    pcre2_jit_stack_free(scratch->stack);
    p4_tok_buffer_free(&scratch->clean);
    p4_tok_buffer_free(&scratch->normal[0]);
    p4_tok_buffer_free(&scratch->normal[1]);
    for (int i = 0; i < P4_TOK_STEPS_MAX; i++) {
        p4_tok_buffer_free(&scratch->step[i]);
    }
    free(scratch->code_points);
    free(scratch->symbols);
    free(scratch->heap);
    free(scratch->cache);
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
    TRY(p4_tok_normalize(tokenizer, scratch, &text));
    p4_tok_scan_start(&scan, &tokenizer->normal_trie, tokenizer->added, text);
    while (p4_tok_scan_next(&scan, &token, &piece, &offset)) {
        if (token >= 0) {
            TRY(p4_ids_append(ids, &tokenizer->added[token].id, 1));
        } else {
            TRY(p4_tok_pre_tokenize(tokenizer, scratch, piece, at_start && offset == 0, ids));
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

void p4_ids_free(p4_ids *ids)
{
    free(ids->ids);
    *ids = (p4_ids){0};
}

p4_rc p4_ids_append(p4_ids *ids, const int32_t *more, int64_t count)
{
    p4_rc rc = P4_OK;
    TRY(p4_tok_ids_reserve(ids, count));
    if (count > 0) {
        memcpy(ids->ids + ids->count, more, (size_t)count * sizeof *more);
        ids->count += count;
    }
done:
    return rc;
}

/* --- look-ups --- */

int64_t p4_tokenizer_vocab_count(const p4_tokenizer *tokenizer)
{
    return tokenizer->vocab_count;
}

int32_t p4_tokenizer_id(const p4_tokenizer *tokenizer, const char *token)
{
    size_t bytes = strlen(token);
    int32_t id = p4_tok_map_find(&tokenizer->added_ids, token, bytes);
    return id >= 0 ? id : p4_tok_map_find(&tokenizer->vocab, token, bytes);
}

const char *p4_tokenizer_json(const p4_tokenizer *tokenizer)
{
    return tokenizer->json;
}
