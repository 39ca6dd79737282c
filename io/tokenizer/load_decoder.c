#include <string.h>

#include "io/tokenizer/members.h"
#include "io/tokenizer/parts.h"
#include "io/tokenizer/sequence.h"
#include "io/tokenizer/state.h"
#include "io/utf8/utf8.h"

static p4_rc read_strip(p4_tokenizer *t, p4_tok_decode_step *step, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    bool valid;
    TRY(p4_tok_keep_member(t, &step->from, where, part, "content"));
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
        bool literal = false;
        TRY(p4_tok_read_replace(t, &step->from, &literal, &step->to, where, part));
        CHECK(literal, "%s: %s.pattern is a Regex; a decoder's Replace is supported for a String", t->source,
              where);
    } else if (step->action == P4_TOK_DECODE_STRIP) {
        TRY(read_strip(t, step, where, part));
    } else if (step->action == P4_TOK_DECODE_METASPACE) {
        p4_tok_scheme chosen;
        TRY(p4_tok_read_mark(t, &step->from, where, part));
        TRY(p4_tok_read_scheme(t, &chosen, where, part));
        step->drop_first = chosen != P4_TOK_SCHEME_NEVER;
    }
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
