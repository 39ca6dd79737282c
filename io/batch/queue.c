#include "io/batch/queue.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/batch/models.h"
#include "io/file/files.h"
#include "io/json/text.h"
#include "io/json/write.h"
#include "io/utf8/utf8.h"
#include "src/config.h"

enum { QUEUE_BYTES = 256 << 20, CONFIG_BYTES = 16 << 20, RANKS_MOST = 1 << 20 };

/* The keys of an entry that are not the configuration's. */
static const char *const own_keys[] = {"name", "cfg", "ranks", "max_ranks"};
enum { OWN_KEYS = sizeof own_keys / sizeof own_keys[0] };

void p4_queue_free(p4_queue *queue)
{
    for (int64_t i = 0; i < queue->count; i++) {
        free(queue->entries[i].name);
        free(queue->entries[i].source);
        free(queue->entries[i].former_name);
        free(queue->entries[i].text);
        free(queue->entries[i].error);
    }
    free(queue->entries);
    *queue = (p4_queue){0};
}

static p4_queue_entry *add(p4_queue *queue)
{
    p4_queue_entry *entries = p4_grow(queue->entries, queue->count, &queue->capacity, sizeof *entries);
    if (entries == NULL) {
        return NULL;
    }
    queue->entries = entries;
    entries[queue->count] = (p4_queue_entry){0};
    return &entries[queue->count++];
}

/* The JSON of a file or of a text, with its numbers as they are spelled there. The caller deletes. */
static p4_rc parse(cJSON **root, const char *text, size_t bytes, const char *source)
{
    p4_rc rc = P4_OK;
    p4_config_report *report = p4_alloc(1, sizeof *report);
    const char *start = p4_json_skip_mark(text);
    *root = NULL;
    TRY(report != NULL ? P4_OK : P4_E_SYSTEM);
    report->source = source;
    *root = p4_json_parse(start, bytes - (size_t)(start - text), report);
    TRY(*root != NULL ? P4_OK : p4_config_report_end(report));
    TRY(p4_json_keep_numbers(*root, start) ? P4_OK : FAULT("out of memory for %s", source));
done:
    free(report);
    return rc;
}

static p4_rc parse_file(cJSON **root, const char *path, size_t limit)
{
    char *text = NULL;
    size_t bytes = 0;
    *root = NULL;
    p4_rc rc = p4_file_read(&text, &bytes, path, limit);
    rc = rc == P4_OK ? parse(root, text, bytes, path) : rc;
    free(text);
    return rc;
}

/* ---- one entry ---- */

/* Raw: numbers are kept as they are spelled. */
static bool is_count(const cJSON *item, int *count)
{
    char *end = NULL;
    long value = cJSON_IsRaw(item) && item->valuestring != NULL ? strtol(item->valuestring, &end, 10) : 0;
    *count = (int)value;
    return value > 0 && value <= RANKS_MOST && *end == '\0';
}

static p4_rc take_count(int *count, const cJSON *object, const char *key, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    CHECK(item == NULL || is_count(item, count), "%s: key \"%s\": expected a whole number from 1 to %d",
          source, key, (int)RANKS_MOST);
done:
    return rc;
}

/* "dir/a.json" and "models/a/" are both "a". The caller frees. */
static char *name_of(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    size_t start = end;
    while (start > 0 && path[start - 1] != '/') {
        start--;
    }
    if (end - start > 5 && strncmp(path + end - 5, ".json", 5) == 0) {
        end -= 5;
    }
    return p4_format("%.*s", (int)(end - start), path + start);
}

/* It names a log file and stands in tables. */
static p4_rc check_name(const p4_queue_entry *entry)
{
    p4_rc rc = P4_OK;
    size_t bytes = strlen(entry->name);
    bool plain = p4_utf8_valid_bytes(entry->name, bytes) == bytes && entry->name[0] != '\0' &&
                 entry->name[0] != '.' && bytes < 200;
    for (const char *at = entry->name; *at != '\0'; at++) {
        plain = plain && *at != '/' && (unsigned char)*at >= ' ' && *at != 0x7f;
    }
    CHECK(plain,
          "%s: the name \"%.200s\" cannot name a file: expected 1 to 199 bytes of UTF-8 without \"/\" "
          "and control characters, and no dot at the start",
          entry->source, entry->name);
done:
    return rc;
}

static const char *model_of(const cJSON *object)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "model_path"));
}

/* "c-llama": one file may be the configuration of several models, and a model may have several. The name does
 * not depend on the other entries, so that it stays the same when the queue grows. */
static p4_rc name_both(p4_queue_entry *entry, const char *path, const char *model)
{
    char *last = name_of(model);
    entry->former_name = name_of(path);
    entry->name =
        last != NULL && entry->former_name != NULL ? p4_format("%s-%s", entry->former_name, last) : NULL;
    free(last);
    return entry->name != NULL ? P4_OK : P4_E_SYSTEM;
}

/* object: the entry, NULL: it is a file alone. base: the configuration over which the entry's keys count, as
 * an object or as the file `path`; NULL: none. */
static p4_rc take_name(p4_queue_entry *entry, const cJSON *object, const cJSON *base, const char *path)
{
    p4_rc rc = P4_OK;
    const cJSON *given = cJSON_GetObjectItemCaseSensitive(object, "name");
    const char *own = model_of(object), *named = path != NULL ? path : own != NULL ? own : model_of(base);
    CHECK(given == NULL || cJSON_IsString(given), "%s: key \"name\": expected a string", entry->source);
    CHECK(given != NULL || named != NULL, "%s: has neither a \"name\" nor a \"model_path\" to be named after",
          entry->source);
    if (given == NULL && path != NULL && own != NULL) {
        TRY(name_both(entry, path, own));
    } else {
        entry->name = given != NULL ? p4_strdup(given->valuestring) : name_of(named);
        TRY(entry->name != NULL ? P4_OK : P4_E_SYSTEM);
    }
    TRY(check_name(entry));
done:
    return rc;
}

/* Moves the members of `from` into `to`, in place of those with their keys. */
static bool overlay(cJSON *to, cJSON *from)
{
    bool ok = true;
    while (ok && from->child != NULL) {
        cJSON *item = cJSON_DetachItemViaPointer(from, from->child);
        cJSON_DeleteItemFromObjectCaseSensitive(to, item->string);
        char *key = p4_strdup(item->string);
        ok = key != NULL && cJSON_AddItemToObject(to, key, item);
        if (!ok) {
            cJSON_Delete(item);
        }
        free(key);
    }
    return ok;
}

/* The entry's configuration out of the object `own`, whose members count over those of `base` (NULL: there is
 * none). Deletes both. */
static p4_rc take_text(p4_queue_entry *entry, cJSON *own, cJSON *base)
{
    bool ok = true;
    for (int k = 0; k < OWN_KEYS; k++) {
        cJSON_DeleteItemFromObjectCaseSensitive(own, own_keys[k]);
    }
    if (base != NULL) {
        ok = overlay(base, own);
        cJSON_Delete(own);
        own = base;
    }
    entry->text = p4_json_print(own, ok, true);
    entry->composed = true;
    return entry->text != NULL ? P4_OK : P4_E_SYSTEM;
}

/* What is wrong with one configuration is that entry's failure and not the queue's. */
static p4_rc keep_error(p4_queue_entry *entry, p4_rc rc)
{
    if (rc == P4_E_INPUT) {
        entry->error = p4_strdup(p4_last_error());
        p4_error_clear();
        rc = entry->error != NULL ? P4_OK : P4_E_SYSTEM;
    }
    return rc;
}

/* "queue.json, model 3" -> "queue.json, model 3 (cfg a.json)": keys of both files may be wrong. */
static p4_rc name_base(p4_queue_entry *entry, const char *kind, const char *path)
{
    char *source = p4_format("%s (%s %s)", entry->source, kind, path);
    if (source == NULL) {
        return P4_E_SYSTEM;
    }
    free(entry->source);
    entry->source = source;
    return P4_OK;
}

static p4_rc read_base(cJSON **base, const char *path)
{
    p4_rc rc = P4_OK;
    TRY(parse_file(base, path, CONFIG_BYTES));
    CHECK(cJSON_IsObject(*base), "%s: expected a JSON object { \"key\": value, ... }", path);
done:
    return rc;
}

/* The key of an entry that was meant by one that neither a configuration nor an entry has, where none of a
 * configuration is nearer; NULL: none. */
static const char *meant_by(const char *key)
{
    const char *nearest = p4_config_nearest(key), *meant = NULL;
    int least = p4_edits_likely(key) + 1;
    for (int k = 0; k < OWN_KEYS; k++) {
        int distance = p4_edit_distance(key, own_keys[k]);
        if (distance < least) {
            least = distance, meant = own_keys[k];
        }
    }
    return nearest != NULL && p4_edit_distance(key, nearest) < least ? NULL : meant;
}

static p4_rc check_keys(const p4_queue_entry *entry, const cJSON *object)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    cJSON_ArrayForEach(item, object)
    {
        bool known = p4_config_find(item->string) >= 0 || strncmp(item->string, "//", 2) == 0;
        for (int k = 0; k < OWN_KEYS; k++) {
            known = known || strcmp(item->string, own_keys[k]) == 0;
        }
        const char *meant = known ? NULL : meant_by(item->string);
        CHECK(meant == NULL, "%s: unknown key \"%.80s\", the nearest known key is \"%s\"", entry->source,
              item->string, meant);
    }
done:
    return rc;
}

/* An object: the configuration itself, or "cfg" (a file or an object) with keys that count over it. Takes it
 * over. */
static p4_rc take_object(p4_queue_entry *entry, cJSON *object)
{
    p4_rc rc = P4_OK;
    cJSON *base = NULL, *cfg = cJSON_DetachItemFromObjectCaseSensitive(object, "cfg");
    const char *path = cJSON_GetStringValue(cfg);
    CHECK(cfg == NULL || path != NULL || cJSON_IsObject(cfg),
          "%s: key \"cfg\": expected the name of a configuration file or an object", entry->source);
    TRY(take_name(entry, object, cfg, path));
    TRY(take_count(&entry->ranks, object, "ranks", entry->source));
    TRY(take_count(&entry->max_ranks, object, "max_ranks", entry->source));
    TRY(keep_error(entry, check_keys(entry, object)));
    TRY(entry->error == NULL && path != NULL ? keep_error(entry, read_base(&base, path)) : P4_OK);
    if (entry->error != NULL) {
        goto done;
    }
    if (path != NULL) {
        TRY(name_base(entry, "cfg", path));
    } else {
        base = cfg;
        cfg = NULL;
    }
    rc = take_text(entry, object, base);
    object = base = NULL;
done:
    cJSON_Delete(object);
    cJSON_Delete(base);
    cJSON_Delete(cfg);
    return rc;
}

/* A configuration file: its text as it is. */
static p4_rc take_file(p4_queue_entry *entry, const char *path)
{
    p4_rc rc = P4_OK;
    size_t bytes;
    free(entry->source);
    entry->source = p4_strdup(path);
    TRY(entry->source != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(take_name(entry, NULL, NULL, path));
    TRY(keep_error(entry, p4_file_read(&entry->text, &bytes, path, CONFIG_BYTES)));
done:
    return rc;
}

static p4_rc read_list(p4_queue *queue, cJSON *list, const char *path)
{
    p4_rc rc = P4_OK;
    for (int64_t number = 1; list->child != NULL; number++) {
        cJSON *item = cJSON_DetachItemViaPointer(list, list->child);
        p4_queue_entry *entry = add(queue);
        char *source = entry != NULL ? p4_format("%s, model %lld", path, (long long)number) : NULL;
        if (source == NULL) {
            cJSON_Delete(item);
            return P4_E_SYSTEM;
        }
        entry->source = source;
        if (cJSON_IsObject(item)) {
            TRY(take_object(entry, item)); /* takes it over */
            continue;
        }
        rc = cJSON_IsString(item)
                 ? take_file(entry, item->valuestring)
                 : FAIL("%s: expected the name of a configuration file or an object", entry->source);
        cJSON_Delete(item);
        TRY(rc);
    }
done:
    return rc;
}

/* ---- many models, one template ---- */

/* Each model's results lie in a directory of its own: the template's output_path with {model} in it, or that
 * and the model's name. file: of the template, NULL: it stands in the queue. */
static p4_rc add_model(p4_queue *queue, const cJSON *template, const char *file, const char *source,
                       const char *model)
{
    p4_rc rc = P4_OK;
    char *path = NULL;
    p4_queue_entry *entry = add(queue);
    cJSON *own = cJSON_CreateObject(), *base = cJSON_Duplicate(template, true);
    TRY(entry != NULL && own != NULL && base != NULL ? P4_OK : P4_E_SYSTEM);
    entry->source = p4_format("%s, model %s", source, model);
    entry->name = name_of(model);
    TRY(entry->source != NULL && entry->name != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(check_name(entry));
    TRY(file != NULL ? name_base(entry, "template", file) : P4_OK);
    const char *output = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(base, "output_path"));
    output = output != NULL ? output : "phase4_bitnet_output";
    path = strstr(output, "{model}") != NULL ? p4_strdup(output) : p4_format("%s/%s", output, entry->name);
    TRY(path != NULL && p4_json_put_text(own, "model_path", model) &&
                p4_json_put_text(own, "output_path", path)
            ? P4_OK
            : P4_E_SYSTEM);
    rc = take_text(entry, own, base);
    own = base = NULL;
done:
    free(path);
    cJSON_Delete(own);
    cJSON_Delete(base);
    return rc;
}

static p4_rc read_models(p4_queue *queue, cJSON *root, const char *path)
{
    p4_rc rc = P4_OK;
    char **models = NULL;
    int64_t count = 0;
    int ranks = 0, max_ranks = 0;
    cJSON *template = cJSON_DetachItemFromObjectCaseSensitive(root, "template");
    const char *file = cJSON_GetStringValue(template);
    cJSON *read = NULL;
    const cJSON *patterns = cJSON_GetObjectItemCaseSensitive(root, "models"), *item;
    cJSON_ArrayForEach(item, root)
    {
        bool known = strcmp(item->string, "models") == 0 || strcmp(item->string, "ranks") == 0 ||
                     strcmp(item->string, "max_ranks") == 0 || strncmp(item->string, "//", 2) == 0;
        CHECK(known, "%s: unknown key \"%.80s\"; the keys of a queue are models, template, ranks, max_ranks",
              path, item->string);
    }
    TRY(file != NULL ? read_base(&read, file) : P4_OK);
    CHECK(read != NULL || cJSON_IsObject(template),
          "%s: key \"template\": expected a configuration: an object, or the name of a file", path);
    TRY(take_count(&ranks, root, "ranks", path));
    TRY(take_count(&max_ranks, root, "max_ranks", path));
    TRY(p4_models_find(&models, &count, patterns, path));
    for (int64_t i = 0; i < count; i++) {
        TRY(add_model(queue, read != NULL ? read : template, file, path, models[i]));
        queue->entries[queue->count - 1].ranks = ranks;
        queue->entries[queue->count - 1].max_ranks = max_ranks;
    }
done:
    p4_names_free(models, count);
    cJSON_Delete(template);
    cJSON_Delete(read);
    return rc;
}

/* One model a line; empty lines, and those that start with "#", say nothing. */
static p4_rc read_lines(p4_queue *queue, const char *path, const char *template_path)
{
    p4_rc rc = P4_OK;
    char *text = NULL;
    size_t bytes = 0;
    cJSON *template = NULL;
    TRY(read_base(&template, template_path));
    TRY(p4_file_read(&text, &bytes, path, QUEUE_BYTES));
    for (char *line = text, *next; *line != '\0'; line = next) {
        size_t length = strcspn(line, "\n");
        next = line + length + (line[length] == '\n');
        while (length > 0 && strchr(" \t\r", line[length - 1]) != NULL) {
            length--;
        }
        line[length] = '\0';
        line += strspn(line, " \t");
        if (line[0] != '\0' && line[0] != '#') {
            TRY(add_model(queue, template, template_path, path, line));
        }
    }
done:
    free(text);
    cJSON_Delete(template);
    return rc;
}

/* ---- the whole ---- */

static p4_rc read_json(p4_queue *queue, const char *path)
{
    p4_rc rc = P4_OK;
    cJSON *root = NULL;
    char *text = NULL;
    size_t bytes = 0;
    TRY(p4_file_read(&text, &bytes, path, QUEUE_BYTES));
    const char *start = p4_json_skip_mark(text);
    start += strspn(start, " \t\r\n");
    CHECK(strchr("[{", *start) != NULL, /* or its end: the parser says that it is empty */
          "%s: is neither a list nor an object of JSON; a text file with one model directory a line is read "
          "with --template",
          path);
    TRY(parse(&root, text, bytes, path));
    if (cJSON_IsArray(root)) {
        rc = read_list(queue, root, path);
    } else if (cJSON_IsObject(root) && cJSON_HasObjectItem(root, "models")) {
        rc = read_models(queue, root, path);
    } else {
        rc = FAIL("%s: expected a list of configurations, or an object with the keys \"models\" and "
                  "\"template\" (a text file of models is read with --template)",
                  path);
    }
done:
    free(text);
    cJSON_Delete(root);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const p4_queue_entry *const *)a)->name, (*(const p4_queue_entry *const *)b)->name);
}

static p4_rc check_names(const p4_queue *queue)
{
    p4_rc rc = P4_OK;
    const p4_queue_entry **sorted = p4_alloc((size_t)queue->count, sizeof *sorted);
    TRY(sorted != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < queue->count; i++) {
        sorted[i] = &queue->entries[i];
    }
    qsort(sorted, (size_t)queue->count, sizeof *sorted, by_name);
    for (int64_t i = 1; i < queue->count; i++) {
        CHECK(strcmp(sorted[i - 1]->name, sorted[i]->name) != 0,
              "%s and %s: both are named \"%s\", expected names that differ: give them a \"name\"",
              sorted[i - 1]->source, sorted[i]->source, sorted[i]->name);
    }
done:
    free(sorted);
    return rc;
}

p4_rc p4_queue_read(p4_queue *queue, const char *path, const char *template_path)
{
    p4_rc rc = P4_OK;
    *queue = (p4_queue){0};
    TRY(template_path != NULL ? read_lines(queue, path, template_path) : read_json(queue, path));
    CHECK(queue->count > 0, "%s: names no model", path);
    TRY(check_names(queue));
done:
    return rc;
}
