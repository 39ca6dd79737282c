/* The value of a key, from JSON. */
#include "io/json/config_values.h"

#include <stdio.h>
#include <string.h>

#include "src/phase4/config.h"

static void complain_found(const p4_config_row *row, const p4_json_value *value, const char *more,
                           p4_config_report *report)
{
    char excerpt[80], found[160];
    if (cJSON_IsObject(value->item) || cJSON_IsArray(value->item)) {
        snprintf(found, sizeof found, "%s%s", cJSON_IsObject(value->item) ? "an object" : "a list", more);
    } else if (cJSON_IsString(value->item)) {
        const char *string = value->item->valuestring;
        snprintf(found, sizeof found, "\"%s\"%s", p4_config_format_excerpt(excerpt, string, strlen(string)),
                 more);
    } else {
        snprintf(found, sizeof found, "%s%s", p4_config_format_excerpt(excerpt, value->raw, value->raw_bytes),
                 more);
    }
    p4_config_complain_value(report, value->line, row, found);
}

static bool read_integer(void *field, const p4_config_row *row, const p4_json_value *value)
{
    bool negative;
    uint64_t magnitude;
    if (!p4_json_whole(value, &negative, &magnitude)) {
        return false;
    }
    if (row->type == P4_CONFIG_UINT64) {
        *(uint64_t *)field = magnitude;
        return !negative || magnitude == 0;
    }
    if (magnitude > (row->type == P4_CONFIG_INT32 ? INT32_MAX : INT64_MAX)) {
        return false;
    }
    int64_t whole = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    if (row->type == P4_CONFIG_INT32) {
        *(int32_t *)field = (int32_t)whole;
    } else {
        *(int64_t *)field = whole;
    }
    return true;
}

static bool read_enum(void *field, const p4_config_row *row, const p4_json_value *value)
{
    for (int i = 0; cJSON_IsString(value->item) && row->names[i] != NULL; i++) {
        if (strcmp(row->names[i], value->item->valuestring) == 0) {
            memcpy(field, &i, sizeof i);
            return true;
        }
    }
    if (row->true_name > 0 && cJSON_IsBool(value->item)) {
        int index = cJSON_IsTrue(value->item) ? row->true_name : 0;
        memcpy(field, &index, sizeof index);
        return true;
    }
    return false;
}

static bool read_string(char *field, const p4_config_row *row, const p4_json_value *value,
                        p4_config_report *report)
{
    size_t bytes = cJSON_IsString(value->item) ? strlen(value->item->valuestring) : row->bytes;
    if (bytes >= row->bytes) {
        char more[48] = "";
        if (cJSON_IsString(value->item)) {
            snprintf(more, sizeof more, " of %zu bytes", bytes);
        }
        complain_found(row, value, more, report);
        return false;
    }
    memset(field, 0, row->bytes);
    memcpy(field, value->item->valuestring, bytes);
    return true;
}

/* A string alone is a list of one. */
static bool read_list(p4_list *list, const p4_config_row *row, const p4_json_value *value,
                      p4_config_report *report)
{
    const cJSON *item;
    char more[64];
    if (cJSON_IsString(value->item)) {
        memset(list, 0, sizeof *list);
        bool fits = p4_list_append(list, value->item->valuestring);
        if (!fits) {
            snprintf(more, sizeof more, " of %zu bytes", strlen(value->item->valuestring));
            complain_found(row, value, more, report);
        }
        return fits;
    }
    if (!cJSON_IsArray(value->item)) {
        complain_found(row, value, "", report);
        return false;
    }
    memset(list, 0, sizeof *list);
    p4_json_cursor inside = {.at = value->raw + 1, .line = value->line};
    int index = 0;
    cJSON_ArrayForEach(item, value->item)
    {
        p4_json_value element = p4_json_next_value(&inside, item);
        index++;
        if (!cJSON_IsString(item)) {
            snprintf(more, sizeof more, " as element %d", index);
            complain_found(row, &element, more, report);
            return false;
        }
        if (!p4_list_append(list, item->valuestring)) {
            snprintf(more, sizeof more, " of %d strings with more bytes", cJSON_GetArraySize(value->item));
            complain_found(row, value, more, report);
            return false;
        }
    }
    return true;
}

/* A set's strings: one, or a list. */
static bool read_set(p4_sets *sets, const p4_config_row *row, const p4_json_value *value,
                     p4_config_report *report)
{
    const cJSON *item, *name = value->item;
    char more[160], excerpt[80];
    bool one = cJSON_IsString(value->item), ok = one || cJSON_IsArray(value->item);
    p4_config_format_excerpt(excerpt, name->string, strlen(name->string));
    if (!p4_sets_add(sets, name->string)) {
        snprintf(more, sizeof more, " with the name \"%s\"", excerpt);
        complain_found(row, value, more, report);
        return false;
    }
    ok = ok && (!one || p4_sets_append(sets, value->item->valuestring));
    cJSON_ArrayForEach(item, value->item) /* a string has none */
    {
        ok = ok && cJSON_IsString(item) && p4_sets_append(sets, item->valuestring);
    }
    if (!ok) {
        snprintf(more, sizeof more, " as \"%s\"", excerpt);
        complain_found(row, value, more, report);
    }
    return ok;
}

static bool read_sets(p4_sets *sets, const p4_config_row *row, const p4_json_value *value,
                      p4_config_report *report)
{
    const cJSON *item;
    if (!cJSON_IsObject(value->item)) {
        complain_found(row, value, "", report);
        return false;
    }
    memset(sets, 0, sizeof *sets);
    p4_json_cursor inside = {.at = value->raw, .line = value->line};
    p4_json_enter(&inside);
    cJSON_ArrayForEach(item, value->item)
    {
        (void)p4_json_next_key(&inside);
        p4_json_value element = p4_json_next_value(&inside, item);
        if (!read_set(sets, row, &element, report)) {
            return false;
        }
    }
    return true;
}

static bool read_numbers(p4_numbers *numbers, const p4_config_row *row, const p4_json_value *value,
                         p4_config_report *report)
{
    const cJSON *item;
    char more[64];
    int count = cJSON_GetArraySize(value->item);
    snprintf(more, sizeof more, " of %d", count);
    if (!cJSON_IsArray(value->item) || count > P4_NUMBERS_MAX) {
        complain_found(row, value, cJSON_IsArray(value->item) ? more : "", report);
        return false;
    }
    memset(numbers, 0, sizeof *numbers);
    p4_json_cursor inside = {.at = value->raw + 1, .line = value->line};
    cJSON_ArrayForEach(item, value->item)
    {
        p4_json_value element = p4_json_next_value(&inside, item);
        if (!p4_json_is_number(&element) || p4_json_underflows(&element)) {
            snprintf(more, sizeof more, " as element %d", (int)numbers->count + 1);
            complain_found(row, &element, more, report);
            return false;
        }
        numbers->values[numbers->count++] = item->valuedouble;
    }
    return true;
}

static void set_number(void *field, p4_config_type type, double value)
{
    switch (type) {
    case P4_CONFIG_INT32:
        *(int32_t *)field = (int32_t)value;
        break;
    case P4_CONFIG_INT64:
        *(int64_t *)field = (int64_t)value;
        break;
    default:
        *(double *)field = value;
    }
}

/* What a word stands for is refused as a number, unless the range allows it. */
static bool read_number(void *field, const p4_config_row *row, const p4_json_value *value)
{
    if (cJSON_IsString(value->item) && p4_config_is_word(row, value->item->valuestring)) {
        set_number(field, row->type, row->word_value);
        return true;
    }
    double number = value->item->valuedouble;
    bool below = number < row->min || (row->min_open && number == row->min);
    bool reserved = row->word != NULL && number == row->word_value && below;
    if (row->type != P4_CONFIG_REAL) {
        return read_integer(field, row, value) && !reserved;
    }
    *(double *)field = number;
    return p4_json_is_number(value) && !p4_json_underflows(value) && !reserved;
}

void p4_config_read_row(p4_config *config, int row_index, const p4_json_value *value,
                        p4_config_report *report)
{
    const p4_config_row *row = &p4_config_table[row_index];
    char *field = (char *)config + row->offset;
    int complaints = report->count;
    bool ok = false;
    switch (row->type) {
    case P4_CONFIG_BOOL:
        ok = cJSON_IsBool(value->item);
        *(bool *)field = cJSON_IsTrue(value->item);
        break;
    case P4_CONFIG_INT32:
    case P4_CONFIG_INT64:
    case P4_CONFIG_UINT64:
    case P4_CONFIG_REAL:
        ok = read_number(field, row, value);
        break;
    case P4_CONFIG_ENUM:
        ok = read_enum(field, row, value);
        break;
    case P4_CONFIG_PATH:
    case P4_CONFIG_NAME:
        ok = read_string(field, row, value, report);
        break;
    case P4_CONFIG_LIST:
        ok = read_list((p4_list *)field, row, value, report);
        break;
    case P4_CONFIG_NUMBERS:
        ok = read_numbers((p4_numbers *)(void *)field, row, value, report);
        break;
    case P4_CONFIG_SETS:
        ok = read_sets((p4_sets *)(void *)field, row, value, report);
        break;
    }
    if (ok) {
        report->lines[row_index] = value->line;
        p4_config_check_row(config, row_index, report);
    } else if (report->count == complaints) {
        complain_found(row, value, "", report);
    }
    if (report->count == complaints) {
        p4_config_mark_user_set(config, row_index);
    }
}
