#include "io/tokenizer/members.h"

#include <string.h>

#include "io/tokenizer/state.h"
#include "io/utf8/utf8.h"

enum { REPLACE_BYTES_MAX = 64 }; /* of what a Replace puts in */

p4_rc p4_tok_keep_member(p4_tokenizer *t, p4_tok_text *kept, const char *where, const cJSON *object,
                         const char *key)
{
    p4_rc rc = P4_OK;
    const char *text;
    TRY(p4_json_string(&text, t->source, where, object, key, true));
    TRY(p4_tok_keep(&t->strings, kept, text, strlen(text)));
done:
    return rc;
}

p4_rc p4_tok_read_pattern(p4_tokenizer *t, p4_tok_text *pattern, bool *literal, const char *where,
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

p4_rc p4_tok_read_replace(p4_tokenizer *t, p4_tok_text *from, bool *literal, p4_tok_text *to,
                          const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    TRY(p4_tok_read_pattern(t, from, literal, where, part));
    TRY(p4_tok_keep_member(t, to, where, part, "content"));
    CHECK(to->bytes <= REPLACE_BYTES_MAX, "%s: %s.content has %zu bytes; at most %d are supported", t->source,
          where, to->bytes, REPLACE_BYTES_MAX);
done:
    return rc;
}

p4_rc p4_tok_read_mark(p4_tokenizer *t, p4_tok_text *mark, const char *where, const cJSON *part)
{
    p4_rc rc = P4_OK;
    bool valid;
    TRY(p4_tok_keep_member(t, mark, where, part, "replacement"));
    CHECK(mark->bytes > 0 && p4_utf8_next(mark->data, mark->bytes, &valid) == mark->bytes,
          "%s: %s.replacement must be one character", t->source, where);
done:
    return rc;
}

p4_rc p4_tok_read_scheme(const p4_tokenizer *t, p4_tok_scheme *chosen, const char *where, const cJSON *part)
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
    CHECK(prefix || text == NULL || index == P4_TOK_SCHEME_NEVER,
          "%s: %s: add_prefix_space false contradicts prepend_scheme \"%s\"", t->source, where, text);
    *chosen = prefix ? (p4_tok_scheme)index : P4_TOK_SCHEME_NEVER;
done:
    return rc;
}
