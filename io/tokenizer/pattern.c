#include "io/tokenizer/pattern.h"

#include <ctype.h>
#include <string.h>

#include "io/tokenizer/bpe.h"
#include "io/tokenizer/translate.h"

#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
const char *const p4_tok_pattern_gpt2 = GPT2_PATTERN;

/* Patterns whose pieces were compared with the reference's on every assigned character and on random strings;
 * any other pattern gets a warning. */
static const char *const compared_patterns[] = {
    GPT2_PATTERN,
    /* Llama 3, then Qwen 2 and 3 */
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    /* GPT-4o */
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    /* normalizers that are made of a SentencePiece model (sentencepiece.c) */
    "\\A +| +\\z", " {2,}", "\\A" P4_TOK_MARK,
    /* one that fixtures split at */
    "\\s+"};

/* Alternatives of literal text, such as those of a model's own symbols: they mean the same in every engine.
 */
static bool is_literal(p4_tok_text pattern)
{
    for (size_t i = 0; i < pattern.bytes; i++) {
        bool escaped = pattern.data[i] == '\\' && i + 1 < pattern.bytes;
        i += escaped ? 1 : 0;
        if (escaped ? !ispunct((unsigned char)pattern.data[i])
                    : memchr("\\^$.[](){}*+?", pattern.data[i], 13) != NULL) {
            return false;
        }
    }
    return true;
}

static void warn_if_new(p4_tok_text pattern, const char *source, const char *where)
{
    for (size_t i = 0; i < sizeof compared_patterns / sizeof compared_patterns[0]; i++) {
        if (strlen(compared_patterns[i]) == pattern.bytes &&
            memcmp(compared_patterns[i], pattern.data, pattern.bytes) == 0) {
            return;
        }
    }
    if (is_literal(pattern)) {
        return;
    }
    WARN("%s: %s: the pattern %.*s is none of those compared with the reference tokenizer: check some ids",
         source, where, (int)(pattern.bytes < 200 ? pattern.bytes : 200), pattern.data);
}

p4_rc p4_tok_pattern_compile(pcre2_code **code, p4_tok_text pattern, p4_tok_syntax syntax, const char *source,
                             const char *where)
{
    p4_rc rc = P4_OK;
    p4_tok_buffer translated = {0};
    pcre2_compile_context *context = NULL;
    int error = 0;
    size_t offset = 0;
    uint32_t matches_empty = 0;
    *code = NULL;
    if (syntax == P4_TOK_ONIGURUMA) {
        TRY(p4_tok_translate(&translated, pattern, source, where));
        warn_if_new(pattern, source, where);
    } else {
        TRY(p4_tok_buffer_append(&translated, pattern.data, pattern.bytes));
    }
    context = pcre2_compile_context_create(NULL);
    if (context == NULL || pcre2_set_newline(context, PCRE2_NEWLINE_LF) != 0) {
        rc = FAULT("out of memory: no context for patterns");
        goto done;
    }
    *code = pcre2_compile((PCRE2_SPTR)translated.data, translated.bytes,
                          PCRE2_UTF | (syntax == P4_TOK_LITERAL ? PCRE2_LITERAL : PCRE2_UCP), &error, &offset,
                          context);
    if (*code == NULL) {
        PCRE2_UCHAR message[256];
        pcre2_get_error_message(error, message, sizeof message);
        rc = FAIL("%s: %s: the pattern cannot be compiled: %s", source, where, (const char *)message);
        goto done;
    }
    pcre2_pattern_info(*code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
    CHECK(matches_empty == 0,
          "%s: %s: the pattern can match the empty string, which this program does not support", source,
          where);
    /* Without just-in-time compilation (a PCRE2 built without it) matching is slower and the same. */
    (void)pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE);
done:
    if (rc != P4_OK) {
        pcre2_code_free(*code);
        *code = NULL;
    }
    pcre2_compile_context_free(context);
    p4_tok_buffer_free(&translated);
    return rc;
}
