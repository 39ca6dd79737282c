#include <string.h>

#include "io/tokenizer/members.h"
#include "io/tokenizer/parts.h"
#include "io/tokenizer/sequence.h"
#include "io/tokenizer/state.h"

static p4_rc read_strip(const p4_tokenizer *t, p4_tok_normal_step *step, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    TRY(p4_json_bool(&step->strips_left, t->source, where, part, "strip_left", true));
    TRY(p4_json_bool(&step->strips_right, t->source, where, part, "strip_right", true));
done:
    return rc;
}

static p4_rc read_replace(p4_tokenizer *t, p4_tok_normal_step *step, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    bool literal = false;
    TRY(p4_tok_read_replace(t, &step->from, &literal, &step->to, where, part));
    if (!literal) {
        TRY(p4_tok_pattern_compile(&step->pattern, step->from, P4_TOK_ONIGURUMA, t->source, where));
    }
done:
    return rc;
}

static p4_rc read_charsmap(p4_tokenizer *t, p4_tok_normal_step *step, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    const char *base64;
    TRY(p4_json_string(&base64, t->source, where, part, "precompiled_charsmap", true));
    TRY(p4_tok_charsmap_read(&step->charsmap, base64, t->source, where));
done:
    return rc;
}

static p4_rc read_normalizer(p4_tokenizer *t, const char *where, const cJSON *part, const char *type)
{
    static const char *const names[] = {/* in the order of p4_tok_normal */
                                        "NFC",     "NFD",       "NFKC",  "NFKD",         "Prepend",
                                        "Replace", "Lowercase", "Strip", "StripAccents", "Precompiled"};
    enum { NAMES = sizeof names / sizeof names[0] };
    int index = 0;
    while (index < NAMES && strcmp(names[index], type) != 0) {
        index++;
    }
    if (index == NAMES) {
        return p4_tok_unsupported(t, where, type,
                                  "NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, StripAccents, "
                                  "Precompiled, Sequence");
    }
    p4_tok_normalizer *normalizer = &t->normalizer;
    if (normalizer->count == P4_TOK_STEPS_MAX) {
        return FAIL("%s: %s: more than %d steps", t->source, where, P4_TOK_STEPS_MAX);
    }
    p4_tok_normal_step *step = &normalizer->step[normalizer->count++];
    step->action = (p4_tok_normal)index;
    switch (step->action) {
    case P4_TOK_PREPEND:
        return p4_tok_keep_member(t, &step->to, where, part, "prepend");
    case P4_TOK_REPLACE:
        return read_replace(t, step, where, part);
    case P4_TOK_STRIP:
        return read_strip(t, step, where, part);
    case P4_TOK_PRECOMPILED:
        return read_charsmap(t, step, where, part);
    default:
        return P4_OK;
    }
}

p4_rc p4_tok_load_normalizer(p4_tokenizer *t, const cJSON *root)
{
    return p4_tok_walk(t, root, "normalizer", "normalizers", read_normalizer);
}
