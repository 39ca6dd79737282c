/* JSON text -> p4_config, by the configuration table. */
#include "io/json/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/json/config_values.h"

enum { MAX_FILE_BYTES = 16 << 20 };

static void complain_unknown(const char *key, int line, p4_config_report *report)
{
    char excerpt[80];
    const char *nearest = p4_config_nearest(key);
    p4_config_format_excerpt(excerpt, key, strlen(key));
    if (nearest != NULL) {
        p4_config_complain(report, line, "unknown key \"%s\", the nearest known key is \"%s\"", excerpt,
                           nearest);
    } else {
        p4_config_complain(report, line, "unknown key \"%s\"; phase4_mpi --help keys lists the known keys",
                           excerpt);
    }
}

/* The file that lies beside a model's weights, taken for a configuration: its many keys are one error. */
static bool complain_model(const cJSON *tree, p4_config_report *report)
{
    char excerpt[80];
    const char *family = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, "model_type"));
    if (family == NULL || cJSON_GetObjectItemCaseSensitive(tree, "model_path") != NULL) {
        return false;
    }
    p4_config_format_excerpt(excerpt, family, strlen(family));
    p4_config_complain(report, 0,
                       "this is a model's config.json (it has model_type \"%s\"); set model_path to its "
                       "directory in a configuration of your own",
                       excerpt);
    report->unreadable = true;
    return true;
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
    if (complain_model(tree, report)) {
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
            p4_config_read_row(config, row, &value, report);
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

/* NAME=FILE as an object. */
static char *set_json(const char *text, const char *equals)
{
    char *name = p4_format("%.*s", (int)(equals - text), text), *json = NULL;
    cJSON *object = cJSON_CreateObject();
    if (name != NULL && cJSON_AddStringToObject(object, name, equals + 1) != NULL) {
        char *printed = cJSON_PrintUnformatted(object);
        json = printed != NULL ? p4_strdup(printed) : NULL;
        cJSON_free(printed);
    }
    cJSON_Delete(object);
    free(name);
    return json;
}

/* The JSON that a key=value argument stands for: the text itself, or as a string if its quotes were left out,
 * or as a list of that one string, or of sets the one that NAME=FILE names. The caller frees; NULL: out of
 * memory. */
static char *argument_json(const p4_config_row *row, const char *text)
{
    char first = text[strspn(text, " \t\r\n")];
    const char *equals = row->type == P4_CONFIG_SETS && first != '{' ? strchr(text, '=') : NULL;
    if (equals != NULL) {
        return set_json(text, equals);
    }
    bool list = row->type == P4_CONFIG_LIST && first != '[';
    bool truth = row->true_name > 0 && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0);
    bool string = list || (row->type == P4_CONFIG_ENUM && !truth) || row->type == P4_CONFIG_PATH ||
                  row->type == P4_CONFIG_NAME || p4_config_is_word(row, text);
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
        p4_config_read_row(config, row_index, &value, report);
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
        snprintf(both, sizeof both, "%s and command line", source);
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
