#include "io/hf/hf_keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *p4_hf_json_kind(const cJSON *item)
{
    return cJSON_IsString(item)   ? "a string"
           : cJSON_IsNumber(item) ? "a number"
           : cJSON_IsBool(item)   ? "true or false"
           : cJSON_IsArray(item)  ? "a list"
           : cJSON_IsObject(item) ? "an object"
                                  : "null";
}

p4_rc p4_hf_find_key(const p4_hf_keys *keys, const char *key, const cJSON **item)
{
    const cJSON *child;
    int found = 0;
    *item = NULL;
    cJSON_ArrayForEach(child, keys->object)
    {
        if (strcmp(child->string, key) == 0) {
            *item = cJSON_IsNull(child) ? NULL : child;
            found++;
        }
    }
    return found <= 1 ? P4_OK
                      : FAIL("%s: key \"%s%s\" appears %d times, expected once", keys->source, keys->inside,
                             key, found);
}

bool p4_hf_is_null(const p4_hf_keys *keys, const char *key)
{
    return cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(keys->object, key));
}

static p4_rc missing(const p4_hf_keys *keys, const char *key)
{
    return FAIL("%s: required key \"%s%s\" is missing", keys->source, keys->inside, key);
}

p4_rc p4_hf_read_number(const p4_hf_keys *keys, const char *key, double *value, double min, double max)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    TRY(p4_hf_find_key(keys, key, &item));
    if (item == NULL) {
        return P4_OK;
    }
    CHECK(cJSON_IsNumber(item), "%s: \"%s%s\" is %s, expected a number", keys->source, keys->inside, key,
          p4_hf_json_kind(item));
    CHECK(item->valuedouble >= min && item->valuedouble <= max,
          "%s: \"%s%s\" is %.15g, expected %.15g to %.15g", keys->source, keys->inside, key,
          item->valuedouble, min, max);
    *value = item->valuedouble;
done:
    return rc;
}

p4_rc p4_hf_read_int(const p4_hf_keys *keys, const char *key, int64_t *value, int64_t min, int64_t max)
{
    p4_rc rc = P4_OK;
    double number = NAN;
    TRY(p4_hf_read_number(keys, key, &number, (double)min, (double)max));
    if (isnan(number)) {
        return P4_OK;
    }
    CHECK(number == floor(number), "%s: \"%s%s\" is %.15g, expected a whole number", keys->source,
          keys->inside, key, number);
    *value = (int64_t)number;
done:
    return rc;
}

p4_rc p4_hf_need_number(const p4_hf_keys *keys, const char *key, double *value, double min, double max)
{
    *value = NAN;
    p4_rc rc = p4_hf_read_number(keys, key, value, min, max);
    return rc == P4_OK && isnan(*value) ? missing(keys, key) : rc;
}

p4_rc p4_hf_need_int(const p4_hf_keys *keys, const char *key, int64_t *value, int64_t max)
{
    *value = 0;
    p4_rc rc = p4_hf_read_int(keys, key, value, 1, max);
    return rc == P4_OK && *value == 0 ? missing(keys, key) : rc;
}

p4_rc p4_hf_read_bool(const p4_hf_keys *keys, const char *key, bool *value)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    TRY(p4_hf_find_key(keys, key, &item));
    if (item == NULL) {
        return P4_OK;
    }
    CHECK(cJSON_IsBool(item), "%s: \"%s%s\" is %s, expected true or false", keys->source, keys->inside, key,
          p4_hf_json_kind(item));
    *value = cJSON_IsTrue(item);
done:
    return rc;
}

p4_rc p4_hf_read_word(const p4_hf_keys *keys, const char *key, const char **value)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    TRY(p4_hf_find_key(keys, key, &item));
    if (item == NULL) {
        return P4_OK;
    }
    CHECK(cJSON_IsString(item), "%s: \"%s%s\" is %s, expected a string", keys->source, keys->inside, key,
          p4_hf_json_kind(item));
    *value = item->valuestring;
done:
    return rc;
}

p4_rc p4_hf_only_bool(const p4_hf_keys *keys, const char *key, bool wanted)
{
    p4_rc rc = P4_OK;
    bool value = wanted;
    TRY(p4_hf_read_bool(keys, key, &value));
    CHECK(value == wanted, "%s: \"%s%s\" is %s, supported is only %s", keys->source, keys->inside, key,
          value ? "true" : "false", wanted ? "true" : "false");
done:
    return rc;
}

p4_rc p4_hf_only_number(const p4_hf_keys *keys, const char *key, double wanted, double min, double max)
{
    p4_rc rc = P4_OK;
    double value = wanted;
    TRY(p4_hf_read_number(keys, key, &value, min, max));
    CHECK(value == wanted, "%s: \"%s%s\" is %g, supported is only %g", keys->source, keys->inside, key, value,
          wanted);
done:
    return rc;
}

p4_rc p4_hf_only_words(const p4_hf_keys *keys, const char *key, const char *const *words)
{
    p4_rc rc = P4_OK;
    char supported[128] = "";
    size_t used = 0;
    const char *value = words[0];
    TRY(p4_hf_read_word(keys, key, &value));
    for (int i = 0; words[i] != NULL && used < sizeof supported; i++) {
        if (strcmp(value, words[i]) == 0) {
            return P4_OK;
        }
        used +=
            (size_t)snprintf(supported + used, sizeof supported - used, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    rc = FAIL("%s: \"%s%s\" is \"%.64s\", supported: %s", keys->source, keys->inside, key, value, supported);
done:
    return rc;
}
