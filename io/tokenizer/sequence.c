#include "io/tokenizer/sequence.h"

#include <stdio.h>
#include <string.h>

#include "io/tokenizer/state.h"

static p4_rc walk(p4_tokenizer *t, const char *where, const cJSON *part, const char *list_key,
                  p4_tok_component_reader *read)
{
    p4_rc rc = P4_OK;
    const char *type;
    TRY(p4_json_string(&type, t->source, where, part, "type", true));
    if (strcmp(type, "Sequence") != 0) {
        return read(t, where, part, type);
    }
    const cJSON *list;
    TRY(p4_json_member(&list, t->source, where, part, list_key, true));
    CHECK(cJSON_IsArray(list), "%s: %s.%s must be an array", t->source, where, list_key);
    int index = 0;
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        char inner[P4_TOK_WHERE_BYTES];
        int written = snprintf(inner, sizeof inner, "%s.%s[%d]", where, list_key, index++);
        CHECK(written < P4_TOK_WHERE_BYTES, "%s: %s: sequences nested too deep", t->source, where);
        TRY(walk(t, inner, item, list_key, read));
    }
done:
    return rc;
}

p4_rc p4_tok_walk(p4_tokenizer *t, const cJSON *root, const char *key, const char *list_key,
                  p4_tok_component_reader *read)
{
    p4_rc rc = P4_OK;
    const cJSON *part;
    TRY(p4_json_member(&part, t->source, "", root, key, false));
    if (part != NULL && !cJSON_IsNull(part)) {
        TRY(walk(t, key, part, list_key, read));
    }
done:
    return rc;
}

p4_rc p4_tok_unsupported(const p4_tokenizer *t, const char *where, const char *type, const char *supported)
{
    return FAIL("%s: %s.type is \"%.60s\"; supported: %s", t->source, where, type, supported);
}
