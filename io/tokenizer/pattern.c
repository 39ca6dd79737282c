#include "io/tokenizer/pattern.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACES                                                                                               \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"

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
    /* Digits, and one that fixtures split at */
    "\\p{N}", "\\s+"};

typedef struct translation {
    const char *at, *end;
    p4_tok_buffer out;
    bool in_class;
    const char *source, *where;
} translation;

static p4_rc refuse(const translation *t, const char *what)
{
    return FAIL("%s: %s: the pattern has %s, which this program does not support", t->source, t->where, what);
}

static p4_rc copy(translation *t, size_t bytes)
{
    p4_rc rc = p4_tok_buffer_append(&t->out, t->at, bytes);
    t->at += bytes;
    return rc;
}

static p4_rc put(translation *t, const char *text)
{
    return p4_tok_buffer_append(&t->out, text, strlen(text));
}

/* \p{L}, \P{Lu}: a general category; the scripts that published patterns name. */
static p4_rc property(translation *t)
{
    static const char *const scripts[] = {"Han",  "Hiragana", "Katakana", "Hangul",
                                          "Thai", "Arabic",   "Cyrillic", "Latin"};
    const char *close = memchr(t->at, '}', (size_t)(t->end - t->at));
    if (close == NULL || t->end - t->at < 4 || t->at[2] != '{') {
        return refuse(t, "\\p without a name in braces");
    }
    const char *name = t->at + 3;
    size_t bytes = (size_t)(close - name);
    bool known = (bytes == 1 || bytes == 2) && strchr("LMNPSZC", name[0]) != NULL &&
                 (bytes == 1 || (name[1] >= 'a' && name[1] <= 'z'));
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        known = known || (strlen(scripts[i]) == bytes && memcmp(scripts[i], name, bytes) == 0);
    }
    return known ? copy(t, bytes + 4) : refuse(t, "a \\p{...} that is no general category");
}

/* \x{1F600}, \x41, \u00e9: a code point. */
static p4_rc hexadecimal(translation *t)
{
    bool braces = t->at[1] == 'x' && t->end - t->at > 2 && t->at[2] == '{';
    const char *digits = t->at + (braces ? 3 : 2);
    size_t most = braces ? 8 : t->at[1] == 'x' ? 2 : 4, count = 0;
    unsigned long value = 0;
    while (count < most && digits + count < t->end && isxdigit((unsigned char)digits[count])) {
        char digit[2] = {digits[count++], '\0'};
        value = value * 16 + strtoul(digit, NULL, 16);
    }
    bool closed = !braces || (digits + count < t->end && digits[count] == '}');
    if (count == 0 || !closed || (!braces && count != most) || value > 0x10FFFF ||
        (!braces && most == 2 && value > 0x7F)) {
        return refuse(t, "an escape of a code point that the two engines may read differently");
    }
    char text[16];
    snprintf(text, sizeof text, "\\x{%lx}", value);
    t->at = digits + count + (braces ? 1 : 0);
    return put(t, text);
}

static p4_rc escape(translation *t)
{
    if (t->end - t->at < 2) {
        return refuse(t, "a backslash at its end");
    }
    char c = t->at[1];
    char what[32];
    switch (c) {
    case 's':
        t->at += 2;
        return put(t, t->in_class ? SPACES : "[" SPACES "]");
    case 'S':
        if (t->in_class) {
            return refuse(t, "\\S inside a class");
        }
        t->at += 2;
        return put(t, "[^" SPACES "]");
    case 'p':
    case 'P':
        return property(t);
    case 'x':
    case 'u':
        return hexadecimal(t);
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'd':
    case 'D':
        return copy(t, 2);
    default:
        if (ispunct((unsigned char)c)) { /* ASCII only: a character of its own in both engines */
            return copy(t, 2);
        }
        snprintf(what, sizeof what, "\\%c", isalnum((unsigned char)c) ? c : '?');
        return refuse(t, what);
    }
}

static p4_rc group(translation *t)
{
    static const char *const openings[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!"};
    if (t->end - t->at < 2 || t->at[1] != '?') {
        return t->end - t->at > 1 && t->at[1] == '*' ? refuse(t, "(*") : copy(t, 1);
    }
    for (size_t i = 0; i < sizeof openings / sizeof openings[0]; i++) {
        size_t bytes = strlen(openings[i]);
        if ((size_t)(t->end - t->at) >= bytes && memcmp(t->at, openings[i], bytes) == 0) {
            return copy(t, bytes);
        }
    }
    return refuse(t, "a (?...) group other than (?: (?i: (?= (?! (?<= (?<!");
}

/* {n}, {n,} or {n,m}: with + behind it, it is possessive in PCRE2 and a repeated interval in Oniguruma. */
static p4_rc interval(translation *t)
{
    const char *p = t->at + 1;
    bool digits = p < t->end && isdigit((unsigned char)*p);
    while (p < t->end && (isdigit((unsigned char)*p) || *p == ',')) {
        p++;
    }
    if (!digits || p == t->end || *p != '}') {
        return refuse(t, "a { that is no {n}, {n,} or {n,m}");
    }
    if (p + 1 < t->end && p[1] == '+') {
        return refuse(t, "a possessive interval {n,m}+");
    }
    return copy(t, (size_t)(p + 1 - t->at));
}

static p4_rc class_character(translation *t)
{
    if (*t->at == '[') {
        return refuse(t, "a class inside a class");
    }
    if (*t->at == '&' && t->end - t->at > 1 && t->at[1] == '&') {
        return refuse(t, "&& in a class");
    }
    t->in_class = *t->at != ']';
    return copy(t, 1);
}

static p4_rc translate(translation *t)
{
    p4_rc rc = P4_OK;
    while (t->at < t->end) {
        if (*t->at == '\\') {
            TRY(escape(t));
        } else if (t->in_class) {
            TRY(class_character(t));
        } else if (*t->at == '[') {
            t->in_class = true;
            size_t bytes = t->end - t->at > 1 && t->at[1] == '^' ? 2 : 1;
            if (t->at + bytes < t->end && t->at[bytes] == ']') {
                return refuse(t, "an empty class");
            }
            TRY(copy(t, bytes));
        } else if (*t->at == '(') {
            TRY(group(t));
        } else if (*t->at == '{') {
            TRY(interval(t));
        } else if (*t->at == '^' || *t->at == '$') {
            return refuse(t, "an anchor (^ or $)");
        } else {
            TRY(copy(t, 1));
        }
    }
done:
    return rc;
}

static void warn_if_new(const translation *t, p4_tok_text pattern)
{
    for (size_t i = 0; i < sizeof compared_patterns / sizeof compared_patterns[0]; i++) {
        if (strlen(compared_patterns[i]) == pattern.bytes &&
            memcmp(compared_patterns[i], pattern.data, pattern.bytes) == 0) {
            return;
        }
    }
    WARN("%s: %s: the pattern %.*s is none of those compared with the reference tokenizer: check some ids",
         t->source, t->where, (int)(pattern.bytes < 200 ? pattern.bytes : 200), pattern.data);
}

p4_rc p4_tok_pattern_compile(pcre2_code **code, p4_tok_text pattern, bool literal, const char *source,
                             const char *where)
{
    p4_rc rc = P4_OK;
    translation t = {
        .at = pattern.data, .end = pattern.data + pattern.bytes, .source = source, .where = where};
    int error = 0;
    size_t offset = 0;
    uint32_t matches_empty = 0;
    *code = NULL;
    if (literal) {
        TRY(copy(&t, pattern.bytes));
    } else {
        TRY(translate(&t));
        warn_if_new(&t, pattern);
    }
    *code = pcre2_compile((PCRE2_SPTR)t.out.data, t.out.bytes,
                          PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP), &error, &offset, NULL);
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
    p4_tok_buffer_free(&t.out);
    return rc;
}
