/* JSON text -> p4_config, by the configuration table. */
#include "io/json/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/json/text.h"

enum { MAX_FILE_BYTES = 16 << 20 };

/* ---- values ---- */

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

/* The word for 0 sets a number to 0; the number 0 is then for the range to allow. */
static bool read_number(void *field, const p4_config_row *row, const p4_json_value *value)
{
    if (cJSON_IsString(value->item) && p4_config_is_zero_name(row, value->item->valuestring)) {
        memset(field, 0, row->bytes);
        return true;
    }
    if (row->type != P4_CONFIG_REAL) {
        return read_integer(field, row, value);
    }
    *(double *)field = value->item->valuedouble;
    bool zero = value->item->valuedouble == 0 && row->min_open && row->min == 0;
    return p4_json_is_number(value) && !p4_json_underflows(value) && !(zero && row->zero_name != NULL);
}

/* Reads one row's value and checks its range. A refused value is reported and its user_set bit left as it is.
 */
static void read_row(p4_config *config, int row_index, const p4_json_value *value, p4_config_report *report)
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

static void complain_unknown(const char *key, int line, p4_config_report *report)
{
    char excerpt[80];
    const char *nearest = p4_config_nearest(key);
    p4_config_format_excerpt(excerpt, key, strlen(key));
    if (nearest != NULL) {
        p4_config_complain(report, line, "unknown key \"%s\", the nearest known key is \"%s\"", excerpt,
                           nearest);
    } else {
        p4_config_complain(report, line, "unknown key \"%s\"; phase4_mpi --help lists the known keys",
                           excerpt);
    }
}

/* Reads the members of a JSON object into *config, which holds the defaults of config->recipe. */
static void read_members(p4_config *config, const char *json, const cJSON *tree, p4_config_report *report)
{
    int first_line[P4_CONFIG_ROWS_MAX] = {0};
    p4_json_cursor text = {.at = json, .line = 1};
    const cJSON *item;
    if (!cJSON_IsObject(tree)) {
        p4_json_value value = p4_json_next_value(&text, tree);
        char excerpt[80];
        p4_config_complain(report, value.line, "found %s, expected a JSON object { \"key\": value, ... }",
                           p4_config_format_excerpt(excerpt, value.raw, value.raw_bytes));
        report->unreadable = true;
        return;
    }
    p4_json_enter(&text);
    cJSON_ArrayForEach(item, tree)
    {
        int key_line = p4_json_next_key(&text);
        p4_json_value value = p4_json_next_value(&text, item);
        int row = p4_config_find(item->string);
        if (strncmp(item->string, "//", 2) == 0) { /* a comment */
            continue;
        }
        if (row < 0) {
            complain_unknown(item->string, key_line, report);
        } else if (first_line[row] > 0 && report->lineless) {
            p4_config_complain(report, 0, "duplicate key \"%s\", expected once", item->string);
        } else if (first_line[row] > 0) {
            p4_config_complain(report, key_line,
                               "duplicate key \"%s\", expected once; it stands on line %d already",
                               item->string, first_line[row]);
        } else {
            first_line[row] = key_line;
            read_row(config, row, &value, report);
        }
    }
    p4_config_rebase(config); /* the recipe may have changed, wherever it stood */
}

/* Reads JSON text that need not be NUL-terminated into *config. Problems go to the report. */
static p4_rc read_text(p4_config *config, const char *json, size_t json_bytes, p4_config_report *report)
{
    char *text = p4_alloc(json_bytes + 1, 1);
    if (text == NULL) {
        return P4_E_SYSTEM;
    }
    memcpy(text, json, json_bytes);
    const char *start = p4_json_skip_mark(text);
    cJSON *tree = p4_json_parse(start, json_bytes - (size_t)(start - text), report);
    if (tree != NULL) {
        read_members(config, start, tree, report);
    } else {
        report->unreadable = true;
    }
    cJSON_Delete(tree);
    free(text);
    return P4_OK;
}

p4_rc p4_config_parse(p4_config *config, const char *json, size_t json_bytes, const char *source,
                      p4_recipe recipe)
{
    p4_rc rc = P4_OK;
    p4_config_report report = {.source = source};
    p4_config *fresh = p4_alloc(1, sizeof *fresh);
    if (fresh == NULL) {
        return P4_E_SYSTEM;
    }
    p4_config_recipe(fresh, recipe);
    TRY(read_text(fresh, json, json_bytes, &report));
    p4_config_check_rules(fresh, &report);
    TRY(p4_config_report_end(&report));
    *config = *fresh;
done:
    free(fresh);
    return rc;
}

p4_rc p4_config_from_json(p4_config *config, const char *json, size_t json_bytes, const char *source,
                          p4_recipe recipe)
{
    p4_error_clear();
    return p4_config_parse(config, json, json_bytes, source, recipe);
}

/* ---- one key from text ---- */

/* The JSON that a key=value argument stands for: the text itself, or as a string if its quotes were left out,
 * or as a list of that one string. The caller frees; NULL: out of memory. */
static char *argument_json(const p4_config_row *row, const char *text)
{
    char first = text[strspn(text, " \t\r\n")];
    bool list = row->type == P4_CONFIG_LIST && first != '[';
    bool truth = row->true_name > 0 && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0);
    bool string = list || (row->type == P4_CONFIG_ENUM && !truth) || row->type == P4_CONFIG_PATH ||
                  row->type == P4_CONFIG_NAME || p4_config_is_zero_name(row, text);
    cJSON *bare = string && first != '"' ? cJSON_CreateString(text) : NULL;
    char *quoted = bare != NULL ? cJSON_PrintUnformatted(bare) : NULL;
    char *json = NULL;
    if (quoted != NULL || !string || first == '"') {
        json = p4_format(list ? "[%s]" : "%s", quoted != NULL ? quoted : text);
    }
    cJSON_free(quoted);
    cJSON_Delete(bare);
    return json;
}

/* Reads the text of an argument as the value of a row. */
static p4_rc set_row(p4_config *config, int row_index, const char *text, p4_config_report *report)
{
    const p4_config_row *row = &p4_config_table[row_index];
    char excerpt[80], found[160];
    p4_config_report syntax = {0}; /* discarded: its columns mean nothing in an argument */
    char *json = argument_json(row, text);
    if (json == NULL) {
        return FAULT("out of memory for the value of key \"%s\"", row->name);
    }
    cJSON *tree = p4_json_parse(json, strlen(json), &syntax);
    if (tree == NULL) {
        snprintf(found, sizeof found, "\"%s\"", p4_config_format_excerpt(excerpt, text, strlen(text)));
        p4_config_complain_value(report, 0, row, found);
    } else {
        p4_json_cursor cursor = {.at = json, .line = INT32_MIN}; /* an argument has no lines: stays below 1 */
        p4_json_value value = p4_json_next_value(&cursor, tree);
        read_row(config, row_index, &value, report);
    }
    cJSON_Delete(tree);
    free(json);
    return P4_OK;
}

static p4_rc set_key(p4_config *config, const char *key, const char *text, p4_config_report *report)
{
    int row = p4_config_find(key);
    if (row < 0) {
        complain_unknown(key, 0, report);
        return P4_OK;
    }
    p4_rc rc = set_row(config, row, text, report);
    p4_config_rebase(config); /* the key may have been the recipe */
    return rc;
}

p4_rc p4_config_set_key(p4_config *config, const char *key, const char *value)
{
    p4_rc rc = P4_OK;
    p4_config_report report = {0};
    p4_config *fresh = p4_alloc(1, sizeof *fresh);
    if (fresh == NULL) {
        return P4_E_SYSTEM;
    }
    *fresh = *config;
    TRY(set_key(fresh, key, value, &report));
    TRY(p4_config_report_end(&report));
    *config = *fresh;
done:
    free(fresh);
    return rc;
}

p4_rc p4_config_set(p4_config *config, const char *key, const char *value)
{
    p4_error_clear();
    return p4_config_set_key(config, key, value);
}

/* ---- files ---- */

static p4_rc read_whole_file(const char *path, char **text, size_t *bytes)
{
    p4_rc rc = P4_OK;
    struct stat status;
    char *buffer = NULL;
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL, "%s: cannot be opened: %s, expected a configuration file", path, strerror(errno));
    CHECK(fstat(fileno(file), &status) == 0, "%s: cannot be examined: %s", path, strerror(errno));
    CHECK(!S_ISDIR(status.st_mode), "%s: is a directory, expected a configuration file", path);
    CHECK(status.st_size <= MAX_FILE_BYTES, "%s: has %lld bytes, expected a configuration file of at most %d",
          path, (long long)status.st_size, (int)MAX_FILE_BYTES);
    buffer = p4_alloc(MAX_FILE_BYTES + 1, 1); /* a pipe does not say its length */
    if (buffer == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    *bytes = fread(buffer, 1, MAX_FILE_BYTES + 1, file);
    CHECK(ferror(file) == 0, "%s: cannot be read: %s", path, strerror(errno));
    CHECK(*bytes <= MAX_FILE_BYTES, "%s: has more than %d bytes, expected a configuration file", path,
          (int)MAX_FILE_BYTES);
    *text = buffer;
    buffer = NULL;
done:
    free(buffer);
    if (file != NULL) {
        fclose(file);
    }
    return rc;
}

static p4_rc apply_overrides(p4_config *config, char *const *overrides, int count, p4_config_report *report)
{
    char key[P4_NAME_BYTES];
    const char *file = report->source;
    p4_rc rc = P4_OK;
    report->source = "command line";
    for (int i = 0; i < count && rc == P4_OK; i++) {
        const char *equals = strchr(overrides[i], '=');
        size_t bytes = equals != NULL ? (size_t)(equals - overrides[i]) : 0;
        if (bytes == 0 || bytes >= sizeof key) {
            char excerpt[80];
            p4_config_complain(report, 0, "found \"%s\", expected key=value",
                               p4_config_format_excerpt(excerpt, overrides[i], strlen(overrides[i])));
            continue;
        }
        memcpy(key, overrides[i], bytes);
        key[bytes] = '\0';
        rc = set_key(config, key, equals + 1, report);
    }
    report->source = file;
    return rc;
}

p4_rc p4_config_read_text(p4_config *config, const char *text, size_t bytes, const char *source,
                          bool lineless, p4_recipe recipe, char *const *overrides, int count)
{
    p4_rc rc = P4_OK;
    char both[600];
    p4_config_report report = {.source = source, .lineless = lineless};
    p4_config *fresh = p4_alloc(1, sizeof *fresh);
    if (fresh == NULL) {
        return P4_E_SYSTEM;
    }
    p4_config_recipe(fresh, recipe);
    TRY(read_text(fresh, text, bytes, &report));
    TRY(apply_overrides(fresh, overrides, count, &report));
    if (count > 0) { /* what follows checks values of both */
        snprintf(both, sizeof both, "%s with the command line", source);
        report.unplaced = both;
    }
    p4_config_check_rules(fresh, &report);
    p4_config_check_job(fresh, &report);
    TRY(p4_config_report_end(&report));
    *config = *fresh;
done:
    free(fresh);
    return rc;
}

p4_rc p4_config_read_file(p4_config *config, const char *path, p4_recipe recipe, char *const *overrides,
                          int count)
{
    char *text = NULL;
    size_t bytes = 0;
    p4_rc rc = read_whole_file(path, &text, &bytes);
    if (rc == P4_OK) {
        rc = p4_config_read_text(config, text, bytes, path, false, recipe, overrides, count);
    }
    free(text);
    return rc;
}
