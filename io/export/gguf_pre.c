/* gguf_pre.c - which of llama.cpp's ways to encode is that of a tokenizer.json. */
#include <string.h>

#include "io/export/gguf_tokenizer.h"
#include "io/json/read.h"
#include "io/tokenizer/state.h"

/* Words by a pattern of their own, with llama.cpp's name for it. ignore_merges is part of what the name
 * means. */
static const struct {
    const char *pattern, *name;
    bool ignore_merges;
} patterns[] = {
#define CASELESS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    {CASELESS "\\p{N}{1,3}" REST, "llama-bpe", true},
    {CASELESS "\\p{N}{1,3}" REST, "dbrx", false},
    {CASELESS "\\p{N}" REST, "qwen2", false},
    {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
     "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     "tekken", true},
#undef CASELESS
#undef REST
};

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static bool is_text(const cJSON *item, const char *text)
{
    return cJSON_IsString(item) && strcmp(item->valuestring, text) == 0;
}

static bool is_type(const cJSON *part, const char *type)
{
    return is_text(member(part, "type"), type);
}

/* ByteLevel without a space before the text; by_regex: it cuts GPT-2's words. */
static bool is_byte_level(const cJSON *part, bool by_regex)
{
    const cJSON *regex = member(part, "use_regex");
    return is_type(part, "ByteLevel") && !cJSON_IsTrue(member(part, "add_prefix_space")) &&
           (regex == NULL || cJSON_IsTrue(regex)) == by_regex;
}

/* A split that makes each match a piece; the known patterns leave nothing between matches. */
static const char *split_pattern(const cJSON *part)
{
    const cJSON *pattern = member(member(part, "pattern"), "Regex");
    bool inverted = cJSON_IsTrue(member(part, "invert"));
    bool cuts = is_text(member(part, "behavior"), inverted ? "Removed" : "Isolated");
    return is_type(part, "Split") && cuts && cJSON_IsString(pattern) ? pattern->valuestring : NULL;
}

/* llama.cpp's name for the words of a byte-level tokenizer; NULL: it has none. */
static const char *pre_name(const cJSON *pre, bool ignore_merges)
{
    const cJSON *list = member(pre, "pretokenizers");
    const cJSON *first = cJSON_IsArray(list) ? list->child : NULL,
                *second = first != NULL ? first->next : NULL;
    if (is_byte_level(pre, true)) {
        return ignore_merges ? NULL : "gpt-2";
    }
    if (!is_type(pre, "Sequence") || second == NULL || second->next != NULL) {
        return NULL;
    }
    if (is_type(first, "Digits") && cJSON_IsTrue(member(first, "individual_digits")) &&
        is_byte_level(second, true)) {
        return ignore_merges ? NULL : "smollm";
    }
    const char *pattern = split_pattern(first);
    for (size_t i = 0;
         pattern != NULL && is_byte_level(second, false) && i < sizeof patterns / sizeof *patterns; i++) {
        if (strcmp(pattern, patterns[i].pattern) == 0 && patterns[i].ignore_merges == ignore_merges) {
            return patterns[i].name;
        }
    }
    return NULL;
}

static bool equals(p4_tok_text text, const char *want)
{
    return text.bytes == strlen(want) && memcmp(text.data, want, text.bytes) == 0;
}

/* Spaces become marks in the normalizer, with or without one more at the beginning, or in Metaspace. */
static p4_rc find_marks(p4_gguf_encoding *e, const p4_tokenizer *t, const cJSON *pre, const char *writer)
{
    p4_rc rc = P4_OK;
    bool replaced = false;
    for (int i = 0; i < t->normalizer.count; i++) {
        const p4_tok_normal_step *step = &t->normalizer.step[i];
        bool replaces = step->action == P4_TOK_REPLACE && step->pattern == NULL && equals(step->from, " ");
        bool prepends = step->action == P4_TOK_PREPEND;
        CHECK((replaces || prepends) && equals(step->to, P4_TOK_MARK),
              "%s: %s: llama.cpp has no normalizer for pieces of SentencePiece but spaces that become U+2581",
              writer, t->source);
        replaced = replaced || replaces;
        e->add_space_prefix = e->add_space_prefix || prepends;
    }
    if (is_type(pre, "Metaspace")) {
        const cJSON *scheme = member(pre, "prepend_scheme"), *old = member(pre, "add_prefix_space");
        bool never = scheme != NULL ? is_text(scheme, "never") : cJSON_IsFalse(old);
        e->add_space_prefix = e->add_space_prefix || !never;
        CHECK(cJSON_IsFalse(member(pre, "split")) || t->bpe.cuts_at_marks,
              "%s: %s: Metaspace cuts words that pieces of the vocabulary span, llama.cpp does not", writer,
              t->source);
        replaced = true;
    } else {
        bool harmless = is_type(pre, "Split") && is_text(member(member(pre, "pattern"), "String"), " ");
        CHECK(pre == NULL || cJSON_IsNull(pre) || (harmless && replaced),
              "%s: %s: llama.cpp does not cut text as this pre_tokenizer does before SentencePiece's BPE",
              writer, t->source);
    }
    CHECK(replaced, "%s: %s: llama.cpp writes spaces as U+2581, this tokenizer does not", writer, t->source);
done:
    return rc;
}

/* Ids around a text: at most BOS before it and EOS behind it. */
static p4_rc check_around(const p4_export_source *source, const char *writer)
{
    p4_rc rc = P4_OK;
    const p4_tokenizer *t = source->tokenizer;
    CHECK(t->before.count <= 1 && t->after.count <= 1,
          "%s: %s: llama.cpp puts one token before and one behind a text, this tokenizer %lld and %lld",
          writer, t->source, (long long)t->before.count, (long long)t->after.count);
    CHECK(t->after.count == 0 || t->after.ids[0] == source->hf->model.arch.eos_id,
          "%s: %s: llama.cpp puts eos_token_id behind a text, this tokenizer another token", writer,
          t->source);
    CHECK(t->vocab_count <= source->hf->model.arch.V, "%s: %s: %lld tokens, the model's vocabulary has %lld",
          writer, t->source, (long long)t->vocab_count, (long long)source->hf->model.arch.V);
done:
    return rc;
}

p4_rc p4_gguf_encoding_find(p4_gguf_encoding *e, const p4_export_source *source, const char *writer)
{
    p4_rc rc = P4_OK;
    const p4_tokenizer *t = source->tokenizer;
    cJSON *root = NULL;
    *e = (p4_gguf_encoding){.model = "none"};
    if (t == NULL) {
        return P4_OK;
    }
    TRY(p4_json_read(&root, t->json, t->json_bytes, t->source));
    const cJSON *pre = member(root, "pre_tokenizer");
    CHECK(t->bpe.unigram == NULL, "%s: %s: a Unigram model is not written", writer, t->source);
    if (t->bpe.byte_level) {
        bool normal = t->normalizer.count == 0 ||
                      (t->normalizer.count == 1 && t->normalizer.step[0].action == P4_TOK_NFC);
        CHECK(normal, "%s: %s: llama.cpp does not normalize as this tokenizer does", writer, t->source);
        e->model = "gpt2";
        e->pre = pre_name(pre, t->bpe.ignore_merges);
        CHECK(e->pre != NULL, "%s: %s: llama.cpp does not cut words as this pre_tokenizer does", writer,
              t->source);
    } else {
        CHECK(t->bpe.byte_fallback && !t->bpe.ignore_merges,
              "%s: %s: llama.cpp takes byte-level BPE, and SentencePiece's with byte_fallback", writer,
              t->source);
        e->model = "llama";
        e->pre = "default";
        TRY(find_marks(e, t, pre, writer));
        TRY(p4_gguf_check_scores(t, writer));
    }
    TRY(check_around(source, writer));
done:
    cJSON_Delete(root);
    return rc;
}
