#include "io/json/write.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json/text.h"
#include "io/utf8/utf8.h"

bool p4_json_put_reals(cJSON *object, const p4_json_real *reals, size_t count)
{
    bool ok = object != NULL;
    for (size_t i = 0; ok && i < count; i++) {
        ok = (isfinite(reals[i].value) ? cJSON_AddNumberToObject(object, reals[i].key, reals[i].value)
                                       : cJSON_AddNullToObject(object, reals[i].key)) != NULL;
    }
    return ok;
}

bool p4_json_put_whole(cJSON *object, const char *key, int64_t value)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRId64, value);
    return cJSON_AddRawToObject(object, key, digits) != NULL;
}

bool p4_json_put_text(cJSON *object, const char *key, const char *text)
{
    if (object == NULL || text[0] == '\0') {
        return object != NULL && cJSON_AddNullToObject(object, key) != NULL;
    }
    char *clean = p4_strdup(text);
    if (clean == NULL) {
        return false;
    }
    size_t bytes = strlen(clean), at = 0;
    while ((at += p4_utf8_valid_bytes(clean + at, bytes - at)) < bytes) {
        clean[at++] = '?';
    }
    bool ok = cJSON_AddStringToObject(object, key, clean) != NULL;
    free(clean);
    return ok;
}

bool p4_json_set_raw(cJSON *item, const char *json, size_t bytes)
{
    char *copy = cJSON_malloc(bytes + 1);
    if (copy == NULL) {
        return false;
    }
    memcpy(copy, json, bytes);
    copy[bytes] = '\0';
    cJSON_Delete(item->child);
    cJSON_free(item->valuestring);
    item->child = NULL;
    item->valuestring = copy;
    item->type = cJSON_Raw;
    return true;
}

/* The cursor stands before the value whose tree is `item`, and moves behind it. */
static bool keep_numbers(cJSON *item, p4_json_cursor *cursor)
{
    bool ok = true;
    if (!cJSON_IsObject(item) && !cJSON_IsArray(item)) {
        p4_json_value value = p4_json_next_value(cursor, item);
        return !p4_json_is_number(&value) || p4_json_set_raw(item, value.raw, value.raw_bytes);
    }
    p4_json_enter(cursor);
    for (cJSON *child = item->child; ok && child != NULL; child = child->next) {
        if (cJSON_IsObject(item)) {
            (void)p4_json_next_key(cursor);
        }
        ok = keep_numbers(child, cursor);
    }
    p4_json_leave(cursor);
    return ok;
}

bool p4_json_keep_numbers(cJSON *root, const char *json)
{
    p4_json_cursor cursor = {.at = p4_json_skip_mark(json), .line = 1};
    return keep_numbers(root, &cursor);
}

char *p4_json_print(cJSON *root, bool complete, bool indented)
{
    char *printed = NULL, *text = NULL;
    if (complete) {
        printed = indented ? cJSON_Print(root) : cJSON_PrintUnformatted(root);
    }
    if (printed == NULL) {
        (void)FAULT("out of memory while JSON was written");
    } else {
        text = p4_format("%s\n", printed);
    }
    cJSON_free(printed);
    cJSON_Delete(root);
    return text;
}
