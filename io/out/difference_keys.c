/* The keys in which the configurations of two results differ. */
#include <stdlib.h>
#include <string.h>

#include "io/json/read.h"
#include "io/json/write.h"
#include "io/out/inspection.h"
#include "src/config.h"

/* The value as JSON, heap; *out NULL: the configuration does not have the key. */
static p4_rc value_text(char **out, const cJSON *value)
{
    char *printed = value != NULL ? cJSON_PrintUnformatted(value) : NULL;
    *out = printed != NULL ? p4_strdup(printed) : NULL;
    cJSON_free(printed);
    return value == NULL || *out != NULL ? P4_OK : FAULT("out of memory while configurations were compared");
}

/* key: of the configuration table. */
static p4_rc add_key(p4_result_difference *d, const char *key, const cJSON *a, const cJSON *b)
{
    p4_rc rc = P4_OK;
    p4_key_difference made = {.key = key};
    TRY(value_text(&made.a, a));
    TRY(value_text(&made.b, b));
    if (made.a != NULL && made.b != NULL && strcmp(made.a, made.b) == 0) {
        goto done;
    }
    p4_key_difference *grown = p4_resize(d->keys, (size_t)d->key_count + 1, sizeof *grown);
    TRY(grown != NULL ? P4_OK : P4_E_SYSTEM);
    d->keys = grown;
    d->keys[d->key_count++] = made;
    return P4_OK;
done:
    free(made.a);
    free(made.b);
    return rc;
}

p4_rc p4_result_difference_keys(p4_result_difference *d, const char *json_a, const char *json_b)
{
    p4_rc rc = P4_OK;
    cJSON *a = NULL, *b = NULL;
    TRY(p4_json_read(&a, json_a, strlen(json_a), d->a));
    TRY(p4_json_read(&b, json_b, strlen(json_b), d->b));
    TRY(p4_json_keep_numbers(a, json_a) && p4_json_keep_numbers(b, json_b) ? P4_OK : P4_E_SYSTEM);
    for (int i = 0; i < p4_config_rows; i++) {
        const char *key = p4_config_table[i].name;
        const cJSON *in_a = cJSON_GetObjectItemCaseSensitive(a, key),
                    *in_b = cJSON_GetObjectItemCaseSensitive(b, key);
        if (in_a != NULL || in_b != NULL) {
            TRY(add_key(d, key, in_a, in_b));
        }
    }
done:
    cJSON_Delete(a);
    cJSON_Delete(b);
    return rc;
}
