/* p4_config -> JSON text, by the configuration table. */
#include <stdlib.h>
#include <string.h>

#include "io/json/config.h"
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

static bool is_one_of(const char *name, const char *const *names)
{
    while (*names != NULL && strcmp(*names, name) != 0) {
        names++;
    }
    return *names != NULL;
}

p4_rc p4_config_print_chosen(const p4_config *config, const char *const *except, char **json)
{
    const p4_config_row *rows[P4_CONFIG_ROWS_MAX];
    int count = 0;
    p4_config *defaults = p4_alloc(1, sizeof *defaults);
    if (defaults == NULL) {
        return P4_E_SYSTEM;
    }
    p4_config_recipe(defaults, config->recipe);
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        const char *value = (const char *)config + row->offset, *usual = (const char *)defaults + row->offset;
        bool is_recipe = row->offset == offsetof(p4_config, recipe);
        if ((is_recipe || memcmp(value, usual, row->bytes) != 0) && !is_one_of(row->name, except)) {
            rows[count++] = row;
        }
    }
    free(defaults);
    qsort(rows, (size_t)count, sizeof *rows, by_name);
    *json = print_rows(config, rows, count, false);
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_config_to_json(const p4_config *config, char **json)
{
    p4_error_clear();
    return p4_config_print(config, json);
}
