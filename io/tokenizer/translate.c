#include "io/tokenizer/translate.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLASS_DEPTH_MAX = 8 };

/* Oniguruma's \w has these numbers of Latin-1 too. */
#define WORDS P4_TOK_WORDS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define WORD "[" WORDS "]"

typedef struct translation {
    const char *at, *end;
    const char *source, *where;
    size_t atom;      /* in the output: where the last atom begins, for an interval behind it */
    size_t open[256]; /* in the output: where the open groups begin */
    int depth;        /* of groups */
    int class_depth;
} translation;

static p4_rc refuse(const translation *t, const char *what)
{
    return FAIL("%s: %s: the pattern has %s, which this program does not support", t->source, t->where, what);
}

static p4_rc put(p4_tok_buffer *out, const char *text)
{
    return p4_tok_buffer_append(out, text, strlen(text));
}

static p4_rc copy(translation *t, p4_tok_buffer *out, size_t bytes)
{
    p4_rc rc = p4_tok_buffer_append(out, t->at, bytes);
    t->at += bytes;
    return rc;
}

static bool begins(const translation *t, const char *text)
{
    size_t bytes = strlen(text);
    return (size_t)(t->end - t->at) >= bytes && memcmp(t->at, text, bytes) == 0;
}

/* --- escapes --- */

/* \p{L}, \P{Lu}: a general category; the scripts that published patterns name. */
static p4_rc property(translation *t, p4_tok_buffer *out)
{
    static const char *const scripts[] = {"Han",    "Hiragana", "Katakana", "Hangul", "Thai",
                                          "Arabic", "Cyrillic", "Latin",    "Greek",  "Hebrew"};
    const char *close = memchr(t->at, '}', (size_t)(t->end - t->at));
    if (close == NULL || t->end - t->at < 4 || t->at[2] != '{') {
        return refuse(t, "\\p without a name in braces");
    }
    const char *name = t->at + 3;
    size_t bytes = (size_t)(close - name);
    if ((bytes == 1 || bytes == 2) && strchr("LMNPSZC", name[0]) != NULL &&
        (bytes == 1 || (name[1] >= 'a' && name[1] <= 'z'))) {
        return copy(t, out, bytes + 4);
    }
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        if (strlen(scripts[i]) == bytes && memcmp(scripts[i], name, bytes) == 0) {
            char text[32]; /* sc: the script itself, without the characters that it shares with others */
            snprintf(text, sizeof text, "\\%c{sc:%s}", t->at[1], scripts[i]);
            t->at = close + 1;
            return put(out, text);
        }
    }
    return refuse(t, "a \\p{...} that is no general category");
}

/* \x{1F600}, \x41, \u00e9: a code point. */
static p4_rc hexadecimal(translation *t, p4_tok_buffer *out)
{
    bool braces = t->at[1] == 'x' && t->end - t->at > 2 && t->at[2] == '{';
    const char *hex = t->at + (braces ? 3 : 2);
    size_t most = braces ? 8 : t->at[1] == 'x' ? 2 : 4, count = 0;
    unsigned long value = 0;
    while (count < most && hex + count < t->end && isxdigit((unsigned char)hex[count])) {
        char digit[2] = {hex[count++], '\0'};
        value = value * 16 + strtoul(digit, NULL, 16);
    }
    bool closed = !braces || (hex + count < t->end && hex[count] == '}');
    if (count == 0 || !closed || (!braces && count != most) || value > 0x10FFFF ||
        (!braces && most == 2 && value > 0x7F)) {
        return refuse(t, "an escape of a code point that the two engines may read differently");
    }
    char text[16];
    snprintf(text, sizeof text, "\\x{%lx}", value);
    t->at = hex + count + (braces ? 1 : 0);
    return put(out, text);
}

/* What an escape stands for: `members` of a class, or `others` than those; NULL: something else. */
typedef struct meaning {
    char letter;
    const char *members;
    bool others;
} meaning;
static const meaning meanings[] = {
    {'s', P4_TOK_SPACES, false}, {'S', P4_TOK_SPACES, true}, {'w', WORDS, false},
    {'W', WORDS, true},          {'h', "0-9a-fA-F", false},  {'H', "0-9a-fA-F", true},
    {'v', "\\x{b}", false},      {'a', "\\x{7}", false},     {'e', "\\x{1b}", false}};

static const meaning *meaning_of(const translation *t)
{
    for (size_t i = 0; t->end - t->at > 1 && i < sizeof meanings / sizeof meanings[0]; i++) {
        if (meanings[i].letter == t->at[1]) {
            return &meanings[i];
        }
    }
    return NULL;
}

/* Escapes that mean the same inside a class and outside. */
static p4_rc common_escape(translation *t, p4_tok_buffer *out)
{
    char what[32];
    char c = t->end - t->at > 1 ? t->at[1] : '\0';
    switch (c) {
    case '\0':
        return refuse(t, "a backslash at its end");
    case 'p':
    case 'P':
        return property(t, out);
    case 'x':
    case 'u':
        return hexadecimal(t, out);
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'd':
    case 'D':
        return copy(t, out, 2);
    default:
        if (ispunct((unsigned char)c)) { /* ASCII only: a character of its own in both engines */
            return copy(t, out, 2);
        }
        snprintf(what, sizeof what, "\\%c", isalnum((unsigned char)c) ? c : '?');
        return refuse(t, what);
    }
}

static p4_rc escape(translation *t, p4_tok_buffer *out)
{
    static const char *const anchors[][2] = {
        {"\\A", "\\A"},
        {"\\z", "\\z"},
        {"\\b", "(?:(?<=" WORD ")(?!" WORD ")|(?<!" WORD ")(?=" WORD "))"},
        {"\\B", "(?:(?<=" WORD ")(?=" WORD ")|(?<!" WORD ")(?!" WORD "))"}};
    const meaning *known = meaning_of(t);
    p4_rc rc = P4_OK;
    if (known != NULL) {
        TRY(put(out, known->others ? "[^" : "["));
        TRY(put(out, known->members));
        t->at += 2;
        return put(out, "]");
    }
    for (size_t i = 0; i < sizeof anchors / sizeof anchors[0]; i++) {
        if (begins(t, anchors[i][0])) {
            t->at += 2;
            return put(out, anchors[i][1]);
        }
    }
    return common_escape(t, out);
done:
    return rc;
}

/* --- classes --- */

/* The parts of an operand of &&: plain members of a class, and alternatives with a bar behind each. */
typedef struct operand {
    p4_tok_buffer members, alternatives;
} operand;

static p4_rc translate_class(translation *t, p4_tok_buffer *out);

/* A member that PCRE2 takes in a class goes to `members`; a class, or a complement, becomes an alternative.
 */
static p4_rc class_member(translation *t, operand *one)
{
    p4_rc rc = P4_OK;
    const meaning *known = *t->at == '\\' ? meaning_of(t) : NULL;
    if (*t->at == '[') {
        CHECK(!begins(t, "[:"),
              "%s: %s: the pattern has a bracket [:...:], which this program does not support", t->source,
              t->where);
        TRY(translate_class(t, &one->alternatives));
        return put(&one->alternatives, "|");
    }
    if (known != NULL && known->others) {
        t->at += 2;
        TRY(put(&one->alternatives, "[^"));
        TRY(put(&one->alternatives, known->members));
        return put(&one->alternatives, "]|");
    }
    if (known != NULL) {
        t->at += 2;
        return put(&one->members, known->members);
    }
    if (*t->at == '^') { /* not at the front of the class, where it would negate, but maybe of its members */
        t->at++;
        return put(&one->members, "\\^");
    }
    return *t->at == '\\' ? common_escape(t, &one->members) : copy(t, &one->members, 1);
done:
    return rc;
}

/* Writes an operand: [members], or (?:class|class|[members]). */
static p4_rc put_operand(p4_tok_buffer *out, const operand *one, bool negated)
{
    p4_rc rc = P4_OK;
    bool plain = one->alternatives.bytes == 0;
    TRY(put(out, plain ? (negated ? "[^" : "[") : negated ? "(?:(?!" : "(?:"));
    if (!plain) {
        bool alone = one->members.bytes == 0;
        TRY(p4_tok_buffer_append(out, one->alternatives.data, one->alternatives.bytes - (alone ? 1 : 0)));
        TRY(put(out, alone ? "" : "["));
    }
    TRY(p4_tok_buffer_append(out, one->members.data, one->members.bytes));
    TRY(put(out, plain || one->members.bytes > 0 ? "]" : ""));
    TRY(put(out, plain ? "" : negated ? ")(?s:.))" : ")"));
done:
    return rc;
}

/* Reads up to the && or the ] that ends the operand. */
static p4_rc read_operand(translation *t, operand *one)
{
    p4_rc rc = P4_OK;
    one->members.bytes = one->alternatives.bytes = 0;
    while (t->at < t->end && *t->at != ']' && !begins(t, "&&")) {
        TRY(class_member(t, one));
    }
    CHECK(t->at < t->end, "%s: %s: the pattern has a class without an end", t->source, t->where);
    if (one->members.bytes + one->alternatives.bytes == 0) {
        return refuse(t, "an empty class");
    }
done:
    return rc;
}

/* A class, from its [ to its ]. [a&&b] becomes (?:(?=[a])[b]): each part matches one character. */
static p4_rc translate_class(translation *t, p4_tok_buffer *out)
{
    p4_rc rc = P4_OK;
    operand one = {0};
    p4_tok_buffer all = {0}; /* the operands of && before the last, as look-aheads */
    if (++t->class_depth > CLASS_DEPTH_MAX) {
        return refuse(t, "classes nested deeper than 8");
    }
    t->at++;
    bool negated = t->at < t->end && *t->at == '^';
    t->at += negated ? 1 : 0;
    TRY(read_operand(t, &one));
    while (*t->at == '&') {
        t->at += 2;
        TRY(put(&all, "(?="));
        TRY(put_operand(&all, &one, false));
        TRY(put(&all, ")"));
        TRY(read_operand(t, &one));
    }
    t->at++;
    t->class_depth--;
    if (all.bytes == 0) {
        TRY(put_operand(out, &one, negated));
        goto done;
    }
    TRY(put(out, negated ? "(?:(?!" : "(?:"));
    TRY(p4_tok_buffer_append(out, all.data, all.bytes));
    TRY(put_operand(out, &one, false));
    TRY(put(out, negated ? ")(?s:.))" : ")"));
done:
    p4_tok_buffer_free(&one.members);
    p4_tok_buffer_free(&one.alternatives);
    p4_tok_buffer_free(&all);
    return rc;
}

/* --- groups and intervals --- */

static p4_rc group(translation *t, p4_tok_buffer *out)
{
    /* (?m: of Oniguruma lets the dot match a line's end, which is (?s: in PCRE2. */
    static const char *const openings[][2] = {{"(?:", "(?:"}, {"(?i:", "(?i:"}, {"(?=", "(?="},
                                              {"(?!", "(?!"}, {"(?<=", "(?<="}, {"(?<!", "(?<!"},
                                              {"(?>", "(?>"}, {"(?m:", "(?s:"}};
    if (t->depth == (int)(sizeof t->open / sizeof t->open[0])) {
        return refuse(t, "groups nested deeper than 256");
    }
    t->open[t->depth++] = out->bytes;
    if (begins(t, "(*")) {
        return refuse(t, "(*");
    }
    if (!begins(t, "(?")) {
        return copy(t, out, 1);
    }
    for (size_t i = 0; i < sizeof openings / sizeof openings[0]; i++) {
        if (begins(t, openings[i][0])) {
            t->at += strlen(openings[i][0]);
            return put(out, openings[i][1]);
        }
    }
    return refuse(t, "a (?...) group other than (?: (?i: (?m: (?= (?! (?<= (?<! (?>");
}

/* {n}, {n,} or {n,m}. A + behind it makes it possessive in PCRE2 and repeats it in Oniguruma; a ? behind {n}
 * changes nothing in PCRE2 and makes it optional in Oniguruma: the atom and its interval get a group of their
 * own then. */
static p4_rc interval(translation *t, p4_tok_buffer *out)
{
    p4_rc rc = P4_OK;
    const char *p = t->at + 1;
    bool digits = p < t->end && isdigit((unsigned char)*p);
    while (p < t->end && (isdigit((unsigned char)*p) || *p == ',')) {
        p++;
    }
    if (!digits || p == t->end || *p != '}') {
        return refuse(t, "a { that is no {n}, {n,} or {n,m}");
    }
    const bool fixed = memchr(t->at, ',', (size_t)(p - t->at)) == NULL;
    const bool quantified = p + 1 < t->end && (p[1] == '+' || (p[1] == '?' && fixed));
    TRY(copy(t, out, (size_t)(p + 1 - t->at)));
    if (quantified) {
        TRY(p4_tok_buffer_reserve(out, 8));
        memmove(out->data + t->atom + 3, out->data + t->atom, out->bytes - t->atom);
        memcpy(out->data + t->atom, "(?:", 3);
        out->bytes += 3;
        TRY(put(out, ")"));
    }
done:
    return rc;
}

/* One element of the pattern; what a quantifier can follow sets t->atom. */
static p4_rc element(translation *t, p4_tok_buffer *out)
{
    size_t before = out->bytes;
    switch (*t->at) {
    case '\\':
        t->atom = before;
        return escape(t, out);
    case '[':
        t->atom = before;
        return translate_class(t, out);
    case '(':
        return group(t, out);
    case ')':
        if (t->depth > 0) {
            t->atom = t->open[--t->depth];
        }
        return copy(t, out, 1);
    case '{':
        return interval(t, out);
    case '^': /* Oniguruma's anchors are those of a line */
        t->at++;
        return put(out, "(?m:^)");
    case '$':
        t->at++;
        return put(out, "(?m:$)");
    case '*':
    case '+':
    case '?':
    case '|':
        return copy(t, out, 1);
    default:
        break;
    }
    t->atom = before;
    size_t bytes = 1; /* a character with all its bytes, which an interval applies to */
    while (t->at + bytes < t->end && ((unsigned char)t->at[bytes] & 0xC0) == 0x80) {
        bytes++;
    }
    return copy(t, out, bytes);
}

p4_rc p4_tok_translate(p4_tok_buffer *out, p4_tok_text pattern, const char *source, const char *where)
{
    p4_rc rc = P4_OK;
    translation t = {
        .at = pattern.data, .end = pattern.data + pattern.bytes, .source = source, .where = where};
    if (begins(&t, "(?i)")) { /* at its start it applies to the whole pattern in both engines */
        TRY(copy(&t, out, 4));
    }
    while (t.at < t.end) {
        TRY(element(&t, out));
    }
done:
    return rc;
}
