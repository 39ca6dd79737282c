#include "io/tokenizer/parts.h"

#include <string.h>

#include "io/tokenizer/sequence.h"
#include "io/tokenizer/state.h"
#include "io/utf8/utf8.h"

enum { REPLACE_BYTES_MAX = 64 }; /* of what a Replace puts in */

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

static p4_rc keep_string(p4_tokenizer *t, p4_tok_text *kept, const char *where, const cJSON *object,
                         const char *key)
{
    p4_rc rc = P4_OK;
    const char *text;
    TRY(p4_json_string(&text, t->source, where, object, key, true));
    TRY(p4_tok_keep(&t->strings, kept, text, strlen(text)));
done:
    return rc;
}

/* {"String": "x"} or {"Regex": "x"}, not empty. */
static p4_rc read_pattern(p4_tokenizer *t, p4_tok_text *pattern, bool *literal, const char *where,
                          const cJSON *part)
{
    p4_rc rc = P4_OK;
    const cJSON *object;
    TRY(p4_json_member(&object, t->source, where, part, "pattern", true));
    CHECK(cJSON_IsObject(object) && object->child != NULL && object->child->next == NULL &&
              cJSON_IsString(object->child),
          "%s: %s.pattern must be {\"String\": ...} or {\"Regex\": ...}", t->source, where);
    const char *kind = object->child->string, *text = object->child->valuestring;
    *literal = strcmp(kind, "String") == 0;
    CHECK(*literal || strcmp(kind, "Regex") == 0, "%s: %s.pattern is a \"%.60s\"; supported: String, Regex",
          t->source, where, kind);
    CHECK(text[0] != '\0', "%s: %s.pattern is empty", t->source, where);
    TRY(p4_tok_keep(&t->strings, pattern, text, strlen(text)));
done:
    return rc;
}

/* Replace of a plain string, in a normalizer or a decoder. */
static p4_rc read_replace(p4_tokenizer *t, p4_tok_text *from, p4_tok_text *to, const char *where,
                          const cJSON *part)
{
    p4_rc rc = P4_OK;
    bool literal = false;
    TRY(read_pattern(t, from, &literal, where, part));
    CHECK(literal, "%s: %s.pattern is a Regex; a Replace is supported for a String", t->source, where);
    TRY(keep_string(t, to, where, part, "content"));
    CHECK(to->bytes <= REPLACE_BYTES_MAX, "%s: %s.content has %zu bytes; at most %d are supported", t->source,
          where, to->bytes, REPLACE_BYTES_MAX);
done:
    return rc;
}

static p4_rc read_normalizer(p4_tokenizer *t, const char *where, const cJSON *part, const char *type)
{
    static const char *const names[] = {"NFC", "Prepend", "Replace"}; /* in the order of p4_tok_normal */
    int index = 0;
    while (index < 3 && strcmp(names[index], type) != 0) {
        index++;
    }
    if (index == 3) {
        return p4_tok_unsupported(t, where, type, "NFC, Prepend, Replace, Sequence");
    }
    p4_tok_normalizer *normalizer = &t->normalizer;
    if (normalizer->count == P4_TOK_STEPS_MAX) {
        return FAIL("%s: %s: more than %d steps", t->source, where, P4_TOK_STEPS_MAX);
    }
    p4_tok_normal_step *step = &normalizer->step[normalizer->count++];
    step->action = (p4_tok_normal)index;
    switch (step->action) {
    case P4_TOK_PREPEND:
        return keep_string(t, &step->to, where, part, "prepend");
    case P4_TOK_REPLACE:
        return read_replace(t, &step->from, &step->to, where, part);
    default:
        return P4_OK;
    }
}

/* --- pre-tokenizers --- */

static p4_rc add_split(p4_tokenizer *t, const char *where, p4_tok_text pattern, bool literal,
                       p4_tok_behavior behavior, bool invert)
{
    p4_tok_split_step *step = add_step(t, where, P4_TOK_SPLIT);
    if (step == NULL) {
        return P4_E_INPUT;
    }
    step->behavior = behavior;
    step->invert = invert;
    return p4_tok_pattern_compile(&step->pattern, pattern, literal, t->source, where);
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

static p4_rc read_split(p4_tokenizer *t, const char *where, const cJSON *part)
{
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    p4_rc rc = P4_OK;
    p4_tok_text pattern;
    const char *behavior;
    bool literal = false, invert;
    int index = 0;
    TRY(read_pattern(t, &pattern, &literal, where, part));
    TRY(p4_json_string(&behavior, t->source, where, part, "behavior", true));
    TRY(p4_json_bool(&invert, t->source, where, part, "invert", true));
    while (index < 5 && strcmp(names[index], behavior) != 0) {
        index++;
    }
    CHECK(index < 5,
          "%s: %s.behavior is \"%.60s\"; supported: Isolated, Removed, Contiguous, MergedWithPrevious, "
          "MergedWithNext",
          t->source, where, behavior);
    TRY(add_split(t, where, pattern, literal, (p4_tok_behavior)index, invert));
done:
    return rc;
}

static p4_rc read_digits(p4_tokenizer *t, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    bool individual;
    const p4_tok_text digit = {"\\p{N}", 5};
    TRY(p4_json_bool(&individual, t->source, where, part, "individual_digits", true));
    TRY(add_split(t, where, digit, false, individual ? P4_TOK_ISOLATED : P4_TOK_CONTIGUOUS, false));
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
        TRY(add_split(t, where, pattern, false, P4_TOK_ISOLATED, false));
    }
    t->bpe.byte_level = true;
done:
    return rc;
}

/* The character that stands for a space, in a pre-tokenizer and a decoder. */
static p4_rc metaspace_mark(p4_tokenizer *t, p4_tok_text *mark, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    bool valid;
    TRY(keep_string(t, mark, where, part, "replacement"));
    CHECK(mark->bytes > 0 && p4_utf8_next(mark->data, mark->bytes, &valid) == mark->bytes,
          "%s: %s.replacement must be one character", t->source, where);
done:
    return rc;
}

typedef enum scheme { SCHEME_ALWAYS, SCHEME_FIRST, SCHEME_NEVER } scheme;

/* prepend_scheme; the older add_prefix_space false is "never", and may not contradict it. */
static p4_rc metaspace_scheme(const p4_tokenizer *t, scheme *chosen, const char *where, const cJSON *part)
{
    static const char *const names[] = {"always", "first", "never"};
    p4_rc rc = P4_OK;
    const char *text;
    bool prefix = true;
    int index = 0;
    TRY(p4_json_string(&text, t->source, where, part, "prepend_scheme", false));
    TRY(p4_json_bool(&prefix, t->source, where, part, "add_prefix_space", false));
    while (text != NULL && index < 3 && strcmp(names[index], text) != 0) {
        index++;
    }
    CHECK(index < 3, "%s: %s.prepend_scheme is \"%.60s\"; supported: always, first, never", t->source, where,
          text);
    CHECK(prefix || text == NULL || index == SCHEME_NEVER,
          "%s: %s: add_prefix_space false contradicts prepend_scheme \"%s\"", t->source, where, text);
    *chosen = prefix ? (scheme)index : SCHEME_NEVER;
done:
    return rc;
}

static p4_rc read_metaspace(p4_tokenizer *t, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    const p4_tok_text space = {" ", 1};
    p4_tok_text mark;
    scheme chosen;
    bool splits = true;
    TRY(metaspace_mark(t, &mark, where, part));
    TRY(metaspace_scheme(t, &chosen, where, part));
    TRY(p4_json_bool(&splits, t->source, where, part, "split", false));
    TRY(add_replace(t, where, space, mark));
    if (chosen != SCHEME_NEVER) {
        TRY(add_prefix(t, where, mark, chosen == SCHEME_FIRST));
    }
    if (splits) {
        TRY(add_split(t, where, mark, true, P4_TOK_WITH_NEXT, false));
    }
done:
    return rc;
}

static p4_rc read_pre_tokenizer(p4_tokenizer *t, const char *where, const cJSON *part, const char *type)
{
    if (t->bpe.byte_level) {
        return FAIL("%s: %s: a step after ByteLevel is not supported", t->source, where);
    }
    if (strcmp(type, "Split") == 0) {
        return read_split(t, where, part);
    }
    if (strcmp(type, "Digits") == 0) {
        return read_digits(t, where, part);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        return read_byte_level(t, where, part);
    }
    if (strcmp(type, "Metaspace") == 0) {
        return read_metaspace(t, where, part);
    }
    return p4_tok_unsupported(t, where, type, "ByteLevel, Split, Digits, Metaspace, Sequence");
}

/* --- decoders --- */

static p4_rc read_strip(p4_tokenizer *t, p4_tok_decode_step *step, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    bool valid;
    TRY(keep_string(t, &step->from, where, part, "content"));
    CHECK(step->from.bytes > 0 && p4_utf8_next(step->from.data, step->from.bytes, &valid) == step->from.bytes,
          "%s: %s.content must be one character", t->source, where);
    TRY(p4_json_integer(&step->start, t->source, where, part, "start", INT32_MAX));
    TRY(p4_json_integer(&step->stop, t->source, where, part, "stop", INT32_MAX));
done:
    return rc;
}

static p4_rc read_decoder(p4_tokenizer *t, const char *where, const cJSON *part, const char *type)
{
    static const char *const names[] = {"ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"};
    p4_rc rc = P4_OK;
    int index = 0;
    CHECK(t->decoder.count < P4_TOK_STEPS_MAX, "%s: %s: more than %d steps", t->source, where,
          P4_TOK_STEPS_MAX);
    while (index < 6 && strcmp(names[index], type) != 0) {
        index++;
    }
    if (index == 6) {
        return p4_tok_unsupported(t, where, type,
                                  "ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence");
    }
    p4_tok_decode_step *step = &t->decoder.step[t->decoder.count++];
    step->action = (p4_tok_decoding)index;
    if (step->action == P4_TOK_DECODE_REPLACE) {
        TRY(read_replace(t, &step->from, &step->to, where, part));
    } else if (step->action == P4_TOK_DECODE_STRIP) {
        TRY(read_strip(t, step, where, part));
    } else if (step->action == P4_TOK_DECODE_METASPACE) {
        scheme chosen;
        TRY(metaspace_mark(t, &step->from, where, part));
        TRY(metaspace_scheme(t, &chosen, where, part));
        step->drop_first = chosen != SCHEME_NEVER;
    }
done:
    return rc;
}

p4_rc p4_tok_load_parts(p4_tokenizer *t, const cJSON *root)
{
    p4_rc rc = P4_OK;
    TRY(p4_tok_walk(t, root, "normalizer", "normalizers", read_normalizer));
    TRY(p4_tok_walk(t, root, "pre_tokenizer", "pretokenizers", read_pre_tokenizer));
done:
    return rc;
}

p4_rc p4_tok_load_decoder(p4_tokenizer *t, const cJSON *root)
{
    const cJSON *part = cJSON_GetObjectItemCaseSensitive(root, "decoder");
    t->decoder.present = part != NULL && !cJSON_IsNull(part);
    p4_rc rc = p4_tok_walk(t, root, "decoder", "decoders", read_decoder);
    if (rc == P4_E_INPUT) { /* the message is for whoever wants to decode */
        t->decoder.refusal = p4_strdup(p4_last_error());
        if (t->decoder.refusal != NULL) {
            p4_error_clear();
            rc = P4_OK;
        }
    }
    return rc;
}
