/* p4_config -> JSON text, by the configuration table. */
#include <stdlib.h>
#include <string.h>

#include "io/json/config.h"
#include "io/json/read.h"
#include "io/json/write.h"

static cJSON *numbers_value(const p4_numbers *numbers)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = list != NULL;
    for (int32_t i = 0; ok && i < numbers->count; i++) {
        char number[32];
        p4_config_format_real(number, numbers->values[i]);
        ok = cJSON_AddItemToArray(list, cJSON_CreateRaw(number));
    }
    if (!ok) {
        cJSON_Delete(list);
        list = NULL;
    }
    return list;
}

/* Each set's files as a list; in one line, as the other values are. */
static cJSON *sets_value(const p4_sets *sets)
{
    cJSON *object = cJSON_CreateObject();
    bool ok = object != NULL;
    for (int32_t i = 0; ok && i < sets->count; i++) {
        cJSON *list = cJSON_AddArrayToObject(object, sets->names[i]);
        const char *string = NULL;
        ok = list != NULL;
        while (ok && (string = p4_sets_next(sets, i, string)) != NULL) {
            ok = cJSON_AddItemToArray(list, cJSON_CreateString(string));
        }
    }
    char *line = ok ? cJSON_PrintUnformatted(object) : NULL;
    cJSON *value = line != NULL ? cJSON_CreateRaw(line) : NULL;
    cJSON_free(line);
    cJSON_Delete(object);
    return value;
}

/* The value of a row, as the tree that p4_config_parse reads back the same; NULL: out of memory. */
static cJSON *row_value(const p4_config *config, const p4_config_row *row)
{
    const char *field = (const char *)config + row->offset, *string = NULL;
    char scalar[64];
    if (row->type == P4_CONFIG_PATH || row->type == P4_CONFIG_NAME) {
        return cJSON_CreateString(field);
    }
    if (row->type == P4_CONFIG_NUMBERS) {
        return numbers_value((const p4_numbers *)(const void *)field);
    }
    if (row->type == P4_CONFIG_SETS) {
        return sets_value((const p4_sets *)(const void *)field);
    }
    if (row->type != P4_CONFIG_LIST) {
        return cJSON_CreateRaw(p4_config_format_scalar(scalar, config, row));
    }
    cJSON *list = cJSON_CreateArray();
    bool ok = list != NULL;
    while (ok && (string = p4_list_next((const p4_list *)field, string)) != NULL) {
        ok = cJSON_AddItemToArray(list, cJSON_CreateString(string));
    }
    if (!ok) {
        cJSON_Delete(list);
        list = NULL;
    }
    return list;
}

/* NULL: out of memory. */
static char *print_rows(const p4_config *config, const p4_config_row *const *rows, int count, bool indented)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = root != NULL;
    for (int i = 0; ok && i < count; i++) {
        cJSON *value = row_value(config, rows[i]);
        ok = cJSON_AddItemToObject(root, rows[i]->name, value);
        if (!ok) {
            cJSON_Delete(value);
        }
    }
    return p4_json_print(root, ok, indented);
}

p4_rc p4_config_print(const p4_config *config, char **json)
{
    p4_rc rc = P4_OK;
    const p4_config_row *rows[P4_CONFIG_ROWS_MAX];
    TRY(p4_config_check(config)); /* what is written can be read again */
    for (int i = 0; i < p4_config_rows; i++) {
        rows[i] = &p4_config_table[i];
    }
    *json = print_rows(config, rows, p4_config_rows, true);
    rc = *json != NULL ? P4_OK : P4_E_SYSTEM;
done:
    return rc;
}

static int by_name(const void *a, const void *b)
{
    const p4_config_row *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* The value as one line of JSON, heap; NULL: out of memory. */
static char *value_text(const p4_config *config, const p4_config_row *row)
{
    cJSON *value = row_value(config, row);
    char *text = value != NULL ? cJSON_PrintUnformatted(value) : NULL;
    cJSON_Delete(value);
    return text;
}

static bool put_defaults(cJSON *root, const char *name, const p4_config *defaults)
{
    cJSON *object = cJSON_AddObjectToObject(root, name);
    bool ok = object != NULL;
    for (int i = 0; ok && i < p4_config_rows; i++) {
        char *text = value_text(defaults, &p4_config_table[i]);
        ok = text != NULL && cJSON_AddStringToObject(object, p4_config_table[i].name, text) != NULL;
        cJSON_free(text);
    }
    return ok;
}

p4_rc p4_config_print_defaults(char **json)
{
    p4_config *defaults = p4_alloc(1, sizeof *defaults);
    cJSON *root = cJSON_CreateObject();
    bool ok = defaults != NULL && root != NULL;
    for (int r = 0; ok && p4_recipe_names[r] != NULL; r++) {
        p4_config_recipe(defaults, (p4_recipe)r);
        ok = put_defaults(root, p4_recipe_names[r], defaults);
    }
    free(defaults);
    *json = p4_json_print(root, ok, true);
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}

struct p4_config_defaults {
    cJSON *root;
};

p4_rc p4_config_read_defaults(p4_config_defaults **defaults, const char *json, size_t bytes,
                              const char *source)
{
    p4_rc rc = P4_OK;
    p4_config_defaults *made = *defaults = p4_alloc(1, sizeof *made);
    TRY(made != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_json_read(&made->root, json, bytes, source));
    for (int r = 0; p4_recipe_names[r] != NULL; r++) { /* another version may have others */
        const cJSON *of = cJSON_GetObjectItemCaseSensitive(made->root, p4_recipe_names[r]);
        CHECK(cJSON_IsObject(of) || (of == NULL && r != P4_RECIPE_QUALITY),
              "%s: found no object \"%s\" of defaults", source, p4_recipe_names[r]);
    }
done:
    return rc;
}

void p4_config_free_defaults(p4_config_defaults *defaults)
{
    if (defaults != NULL) {
        cJSON_Delete(defaults->root);
    }
    free(defaults);
}

/* The default that another version had, as text; NULL: it does not know the key. */
static const char *other_default(const p4_config_defaults *opt_defaults, p4_recipe recipe, const char *key)
{
    const cJSON *of = opt_defaults == NULL
                          ? NULL
                          : cJSON_GetObjectItemCaseSensitive(opt_defaults->root, p4_recipe_names[recipe]);
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(of, key));
}

/* Does the value differ from the default? *ok: false when memory is out. */
static bool is_chosen(const p4_config *config, const p4_config *usual, const p4_config_row *row,
                      const p4_config_defaults *opt_defaults, bool *ok)
{
    const char *other = other_default(opt_defaults, config->recipe, row->name);
    if (other == NULL) {
        return memcmp((const char *)config + row->offset, (const char *)usual + row->offset, row->bytes) != 0;
    }
    char *text = value_text(config, row);
    bool differs = text == NULL || strcmp(text, other) != 0;
    *ok = *ok && text != NULL;
    cJSON_free(text);
    return differs;
}

p4_rc p4_config_print_chosen(const p4_config *config, const p4_config_defaults *opt_defaults, char **json)
{
    const p4_config_row *rows[P4_CONFIG_ROWS_MAX];
    int count = 0;
    bool ok = true;
    p4_config *usual = p4_alloc(1, sizeof *usual);
    *json = NULL;
    if (usual == NULL) {
        return P4_E_SYSTEM;
    }
    p4_config_recipe(usual, config->recipe);
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        bool is_recipe = row->offset == offsetof(p4_config, recipe);
        if ((is_recipe || is_chosen(config, usual, row, opt_defaults, &ok)) && !row->no_result) {
            rows[count++] = row;
        }
    }
    free(usual);
    qsort(rows, (size_t)count, sizeof *rows, by_name);
    *json = ok ? print_rows(config, rows, count, false) : NULL;
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_config_to_json(const p4_config *config, char **json)
{
    p4_error_clear();
    return p4_config_print(config, json);
}
