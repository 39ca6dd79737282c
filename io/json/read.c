#include "io/json/read.h"

#include <string.h>

#include "io/json/text.h"
#include "io/utf8/utf8.h"

/* The place of an escaped NUL. A backslash occurs inside strings only. */
static bool find_nul_escape(const char *json, size_t bytes, size_t *at)
{
    for (const char *p = json, *end = json + bytes; (p = memchr(p, '\\', (size_t)(end - p))) != NULL;
         p += 2) {
        if (end - p < 2) {
            return false;
        }
        if (end - p >= 6 && memcmp(p + 1, "u0000", 5) == 0) {
            *at = (size_t)(p - json);
            return true;
        }
    }
    return false;
}

/* The place of something that stands where a number may and is none by JSON's grammar: cJSON accepts "01". */
static bool find_bad_number(const char *json, size_t bytes, size_t *at)
{
    bool in_string = false;
    for (size_t i = 0; i < bytes; i++) {
        if (json[i] == '"') {
            in_string = !in_string;
        } else if (in_string) {
            i += json[i] == '\\';
        } else if (json[i] == '-' || (json[i] >= '0' && json[i] <= '9')) {
            size_t length = p4_json_number_bytes(json + i, bytes - i);
            *at = i;
            if (length == 0 || (i + length < bytes && strchr("+-.0123456789Ee", json[i + length]) != NULL)) {
                return true;
            }
            i += length - 1;
        }
    }
    return false;
}

p4_rc p4_json_read(cJSON **root, const char *json, size_t bytes, const char *source)
{
    p4_rc rc = P4_OK;
    const char *end = NULL;
    *root = NULL;
    size_t at = p4_utf8_valid_bytes(json, bytes);
    CHECK(at == bytes, "%s: byte %zu is not UTF-8", source, at);
    CHECK(memchr(json, '\0', bytes) == NULL, "%s: a NUL byte in the JSON text", source);
    CHECK(!find_nul_escape(json, bytes, &at), "%s: byte %zu: a string with \\u0000 is not supported", source,
          at);
    *root = cJSON_ParseWithLengthOpts(json, bytes, &end, false);
    at = end == NULL ? 0 : (size_t)(end - json);
    CHECK(*root != NULL, "%s: byte %zu: not valid JSON, or nested deeper than %d", source, at,
          CJSON_NESTING_LIMIT);
    while (at < bytes && memchr(" \t\r\n", json[at], 4) != NULL) {
        at++;
    }
    CHECK(at == bytes, "%s: byte %zu: something follows the JSON value", source, at);
    CHECK(!find_bad_number(json, bytes, &at), "%s: byte %zu: not a JSON number", source, at);
    CHECK(cJSON_IsObject(*root), "%s: the JSON value is not an object", source);
done:
    if (rc != P4_OK) {
        cJSON_Delete(*root);
        *root = NULL;
    }
    return rc;
}

static const char *dot(const char *where)
{
    return *where != '\0' ? "." : "";
}

p4_rc p4_json_member(const cJSON **item, const char *source, const char *where, const cJSON *object,
                     const char *key, bool required)
{
    *item = NULL;
    if (!cJSON_IsObject(object)) {
        return FAIL("%s: %s is not an object", source, *where != '\0' ? where : "the file");
    }
    for (const cJSON *child = object->child; child != NULL; child = child->next) {
        if (strcmp(child->string, key) == 0) {
            if (*item != NULL) {
                return FAIL("%s: %s%s%s occurs twice", source, where, dot(where), key);
            }
            *item = child;
        }
    }
    if (*item == NULL && required) {
        return FAIL("%s: %s%s%s is missing", source, where, dot(where), key);
    }
    return P4_OK;
}

p4_rc p4_json_bool(bool *value, const char *source, const char *where, const cJSON *object, const char *key,
                   bool required)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    TRY(p4_json_member(&item, source, where, object, key, required));
    if (item != NULL) {
        CHECK(cJSON_IsBool(item), "%s: %s%s%s must be true or false", source, where, dot(where), key);
        *value = cJSON_IsTrue(item);
    }
done:
    return rc;
}

p4_rc p4_json_string(const char **value, const char *source, const char *where, const cJSON *object,
                     const char *key, bool required)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    *value = NULL;
    TRY(p4_json_member(&item, source, where, object, key, required));
    if (item != NULL && (required || !cJSON_IsNull(item))) {
        CHECK(cJSON_IsString(item), "%s: %s%s%s must be a string", source, where, dot(where), key);
        *value = item->valuestring;
    }
done:
    return rc;
}

bool p4_json_is_whole(const cJSON *item, int64_t limit, int64_t *value)
{
    /* Compared before the cast: a double out of range must not be cast. */
    bool fits = cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble < (double)limit;
    *value = fits ? (int64_t)item->valuedouble : -1;
    fits = fits && (double)*value == item->valuedouble;
    *value = fits ? *value : -1;
    return fits;
}

p4_rc p4_json_integer(int64_t *value, const char *source, const char *where, const cJSON *object,
                      const char *key, int64_t limit)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    TRY(p4_json_member(&item, source, where, object, key, true));
    CHECK(p4_json_is_whole(item, limit, value), "%s: %s%s%s must be a whole number from 0 to %lld", source,
          where, dot(where), key, (long long)limit - 1);
done:
    return rc;
}
