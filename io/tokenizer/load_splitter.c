#include "io/tokenizer/parts.h"

#include <string.h>

#include "io/tokenizer/members.h"
#include "io/tokenizer/sequence.h"
#include "io/tokenizer/state.h"
#include "io/tokenizer/translate.h"
#include "io/utf8/utf8.h"

/* Punctuation as the reference knows it: that of Unicode 8, and the signs of ASCII. */
#define PUNCTUATION_SINCE                                                                  \
    "\\x{61d}\\x{9fd}\\x{a76}\\x{c77}\\x{c84}\\x{1b7d}-\\x{1b7e}\\x{2e43}-\\x{2e4f}"       \
    "\\x{2e52}-\\x{2e5d}\\x{10ead}\\x{10f55}-\\x{10f59}\\x{10f86}-\\x{10f89}"              \
    "\\x{1144b}-\\x{1144f}\\x{1145a}-\\x{1145b}\\x{1145d}\\x{11660}-\\x{1166c}\\x{116b9}"  \
    "\\x{1183b}\\x{11944}-\\x{11946}\\x{119e2}\\x{11a3f}-\\x{11a46}\\x{11a9a}-\\x{11a9c}"  \
    "\\x{11a9e}-\\x{11aa2}\\x{11c41}-\\x{11c45}\\x{11c70}-\\x{11c71}\\x{11ef7}-\\x{11ef8}" \
    "\\x{11fff}\\x{12ff1}-\\x{12ff2}\\x{16e97}-\\x{16e9a}\\x{16fe2}\\x{1e95e}-\\x{1e95f}"
#define PUNCTUATION "(?![" PUNCTUATION_SINCE "])[\\p{P}$+<=>^`|~\\x{166d}\\x{111c9}]"
#define JOINERS "\\x{200c}\\x{200d}"
#define WORDS_OR_SIGNS "[" P4_TOK_WORDS JOINERS "]+|[^" P4_TOK_WORDS JOINERS P4_TOK_SPACES "]+"

/* A new last step; NULL, with the message recorded, when there are too many. */
static p4_tok_split_step *add_step(p4_tokenizer *t, const char *where, p4_tok_action action)
{
    p4_tok_splitter *splitter = &t->splitter;
    if (splitter->count == P4_TOK_STEPS_MAX) {
        (void)FAIL("%s: %s: more than %d steps", t->source, where, P4_TOK_STEPS_MAX);
        return NULL;
    }
    p4_tok_split_step *step = &splitter->step[splitter->count++];
    step->action = action;
    return step;
}

static p4_rc add_split(p4_tokenizer *t, const char *where, p4_tok_text pattern, p4_tok_syntax syntax,
                       p4_tok_behavior behavior, bool invert)
{
    p4_tok_split_step *step = add_step(t, where, P4_TOK_SPLIT);
    if (step == NULL) {
        return P4_E_INPUT;
    }
    step->behavior = behavior;
    step->invert = invert;
    return p4_tok_pattern_compile(&step->pattern, pattern, syntax, t->source, where);
}

/* `mark` in front of a piece that does not begin with it. */
static p4_rc add_prefix(p4_tokenizer *t, const char *where, p4_tok_text mark, bool first_only)
{
    p4_tok_split_step *step = add_step(t, where, P4_TOK_PREFIX);
    if (step == NULL) {
        return P4_E_INPUT;
    }
    step->to = mark;
    step->first_only = first_only;
    return P4_OK;
}

static p4_rc add_replace(p4_tokenizer *t, const char *where, p4_tok_text from, p4_tok_text to)
{
    p4_tok_split_step *step = add_step(t, where, P4_TOK_SUBSTITUTE);
    if (step == NULL) {
        return P4_E_INPUT;
    }
    step->from = from;
    step->to = to;
    return P4_OK;
}

static p4_rc read_behavior(const p4_tokenizer *t, p4_tok_behavior *behavior, const char *where,
                           const cJSON *part, bool required)
{
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    p4_rc rc = P4_OK;
    const char *text;
    int index = 0;
    TRY(p4_json_string(&text, t->source, where, part, "behavior", required));
    while (text != NULL && index < 5 && strcmp(names[index], text) != 0) {
        index++;
    }
    CHECK(index < 5,
          "%s: %s.behavior is \"%.60s\"; supported: Isolated, Removed, Contiguous, MergedWithPrevious, "
          "MergedWithNext",
          t->source, where, text);
    *behavior = (p4_tok_behavior)index;
done:
    return rc;
}

static p4_rc read_split(p4_tokenizer *t, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    p4_tok_text pattern;
    p4_tok_behavior behavior = P4_TOK_ISOLATED;
    bool literal = false, invert;
    TRY(p4_tok_read_pattern(t, &pattern, &literal, where, part));
    TRY(read_behavior(t, &behavior, where, part, true));
    TRY(p4_json_bool(&invert, t->source, where, part, "invert", true));
    TRY(add_split(t, where, pattern, literal ? P4_TOK_LITERAL : P4_TOK_ONIGURUMA, behavior, invert));
done:
    return rc;
}

static p4_rc read_digits(p4_tokenizer *t, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    bool individual;
    const p4_tok_text digit = {"\\p{N}", 5};
    TRY(p4_json_bool(&individual, t->source, where, part, "individual_digits", true));
    TRY(add_split(t, where, digit, P4_TOK_PCRE2, individual ? P4_TOK_ISOLATED : P4_TOK_CONTIGUOUS, false));
done:
    return rc;
}

static p4_rc read_punctuation(p4_tokenizer *t, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    const p4_tok_text mark = {PUNCTUATION, strlen(PUNCTUATION)};
    p4_tok_behavior behavior = P4_TOK_ISOLATED;
    TRY(read_behavior(t, &behavior, where, part, false));
    TRY(add_split(t, where, mark, P4_TOK_PCRE2, behavior, false));
done:
    return rc;
}

/* Words and runs of anything else that is not white space, which vanishes. */
static p4_rc read_whitespace(p4_tokenizer *t, const char *where, const cJSON *part)
{
    (void)part;
    const p4_tok_text words = {WORDS_OR_SIGNS, strlen(WORDS_OR_SIGNS)};
    return add_split(t, where, words, P4_TOK_PCRE2, P4_TOK_REMOVED, true);
}

static p4_rc read_whitespace_split(p4_tokenizer *t, const char *where, const cJSON *part)
{
    (void)part;
    const p4_tok_text space = {"[" P4_TOK_SPACES "]", strlen("[" P4_TOK_SPACES "]")};
    return add_split(t, where, space, P4_TOK_PCRE2, P4_TOK_REMOVED, false);
}

static p4_rc read_delimiter(p4_tokenizer *t, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    p4_tok_text delimiter;
    bool valid;
    TRY(p4_tok_keep_member(t, &delimiter, where, part, "delimiter"));
    CHECK(delimiter.bytes > 0 && p4_utf8_next(delimiter.data, delimiter.bytes, &valid) == delimiter.bytes,
          "%s: %s.delimiter must be one character", t->source, where);
    TRY(add_split(t, where, delimiter, P4_TOK_LITERAL, P4_TOK_REMOVED, false));
done:
    return rc;
}

/* A space in front where there is none, the GPT-2 pattern, then bytes in place of characters. */
static p4_rc read_byte_level(p4_tokenizer *t, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    const p4_tok_text space = {" ", 1};
    bool prefix, use_regex = true;
    TRY(p4_json_bool(&prefix, t->source, where, part, "add_prefix_space", true));
    TRY(p4_json_bool(&use_regex, t->source, where, part, "use_regex", false));
    if (prefix) {
        TRY(add_prefix(t, where, space, false));
    }
    if (use_regex) {
        const p4_tok_text pattern = {p4_tok_pattern_gpt2, strlen(p4_tok_pattern_gpt2)};
        TRY(add_split(t, where, pattern, P4_TOK_ONIGURUMA, P4_TOK_ISOLATED, false));
    }
    t->bpe.byte_level = true;
done:
    return rc;
}

static p4_rc read_metaspace(p4_tokenizer *t, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    const p4_tok_text space = {" ", 1};
    p4_tok_text mark;
    p4_tok_scheme chosen;
    bool splits = true;
    TRY(p4_tok_read_mark(t, &mark, where, part));
    TRY(p4_tok_read_scheme(t, &chosen, where, part));
    TRY(p4_json_bool(&splits, t->source, where, part, "split", false));
    TRY(add_replace(t, where, space, mark));
    if (chosen != P4_TOK_SCHEME_NEVER) {
        TRY(add_prefix(t, where, mark, chosen == P4_TOK_SCHEME_FIRST));
    }
    if (splits) {
        TRY(add_split(t, where, mark, P4_TOK_LITERAL, P4_TOK_WITH_NEXT, false));
    }
done:
    return rc;
}

/* The steps after a ByteLevel see characters of the byte alphabet. */
static p4_rc map_bytes_first(p4_tokenizer *t, const char *where)
{
    if (!t->bpe.byte_level) {
        return P4_OK;
    }
    t->bpe.byte_level = false;
    return add_step(t, where, P4_TOK_MAP_BYTES) != NULL ? P4_OK : P4_E_INPUT;
}

static p4_rc read_pre_tokenizer(p4_tokenizer *t, const char *where, const cJSON *part, const char *type)
{
    static const struct {
        const char *type;
        p4_rc (*read)(p4_tokenizer *, const char *, const cJSON *);
    } readers[] = {{"ByteLevel", read_byte_level},
                   {"Split", read_split},
                   {"Digits", read_digits},
                   {"Metaspace", read_metaspace},
                   {"Punctuation", read_punctuation},
                   {"Whitespace", read_whitespace},
                   {"WhitespaceSplit", read_whitespace_split},
                   {"CharDelimiterSplit", read_delimiter}};
    for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++) {
        if (strcmp(type, readers[i].type) == 0) {
            p4_rc rc = map_bytes_first(t, where);
            return rc == P4_OK ? readers[i].read(t, where, part) : rc;
        }
    }
    return p4_tok_unsupported(t, where, type,
                              "ByteLevel, Split, Digits, Metaspace, Punctuation, Whitespace, "
                              "WhitespaceSplit, CharDelimiterSplit, Sequence");
}

p4_rc p4_tok_load_splitter(p4_tokenizer *t, const cJSON *root)
{
    p4_rc rc = P4_OK;
    TRY(p4_tok_walk(t, root, "pre_tokenizer", "pretokenizers", read_pre_tokenizer));
    if (t->bpe.unigram != NULL) { /* BPE alone takes bytes for the characters that stand for them */
        TRY(map_bytes_first(t, "pre_tokenizer"));
    }
done:
    return rc;
}
