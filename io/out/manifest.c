#include "io/out/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/json/read.h"
#include "io/json/write.h"

/* Version 3 added checkpoints of reconstruction, versions 4 and 5 members of the evaluations, version 6 the
 * weight of distillation: programs of the version before would misread them, and this one reads what they
 * wrote. */
enum { MAX_FILE_BYTES = 64 << 20, VERSION = 6, WITH_DISTILL = 6, OLDEST = 2 };
static const char format_name[] = "phase4-checkpoint";
static const int64_t STEPS_LIMIT = (int64_t)1 << 50;

void p4_manifest_free(p4_manifest *m)
{
    free(m->inputs);
    free(m->parts);
    free(m->config_json);
    for (int64_t i = 0; i < m->warning_count; i++) {
        free(m->warnings[i]);
    }
    *m = (p4_manifest){0};
}

p4_rc p4_manifest_add_warning(p4_manifest *m, const char *text)
{
    if (m->warning_count == P4_WARNINGS_MAX) {
        return P4_OK;
    }
    char *copy = p4_strdup(text);
    if (copy == NULL) {
        return P4_E_SYSTEM;
    }
    m->warnings[m->warning_count++] = copy;
    return P4_OK;
}

p4_rc p4_manifest_add_input(p4_manifest *m, const char *name, const char *fingerprint)
{
    if (m->input_count == P4_MANIFEST_MAX_INPUTS) {
        return FAIL("more than %d input files to keep fingerprints of", P4_MANIFEST_MAX_INPUTS);
    }
    p4_manifest_input *grown = p4_resize(m->inputs, (size_t)m->input_count + 1, sizeof *grown);
    if (grown == NULL) {
        return P4_E_SYSTEM;
    }
    m->inputs = grown;
    p4_manifest_input *input = &grown[m->input_count++];
    snprintf(input->name, sizeof input->name, "%s", name);
    snprintf(input->fingerprint, sizeof input->fingerprint, "%s", fingerprint);
    return P4_OK;
}

bool p4_manifest_has_stage(const p4_manifest *m, const char *stage)
{
    for (int64_t i = 0; i < m->stage_count; i++) {
        if (strcmp(m->stages[i], stage) == 0) {
            return true;
        }
    }
    return false;
}

static const char *fingerprint_of(const p4_manifest *m, const char *name)
{
    for (int64_t i = 0; i < m->input_count; i++) {
        if (strcmp(m->inputs[i].name, name) == 0) {
            return m->inputs[i].fingerprint;
        }
    }
    return "none";
}

/* Adds the inputs of `of` that differ between the two; those that both have only if `shared`. */
static char *add_conflicts(char *all, const p4_manifest *of, const p4_manifest *run,
                           const p4_manifest *checkpoint, bool shared)
{
    for (int64_t i = 0; all != NULL && i < of->input_count; i++) {
        const char *name = of->inputs[i].name;
        const char *found = fingerprint_of(run, name), *kept = fingerprint_of(checkpoint, name);
        bool both = strcmp(found, "none") != 0 && strcmp(kept, "none") != 0;
        if (strcmp(found, kept) == 0 || (both && !shared)) {
            continue;
        }
        char *longer = p4_format("%s%s%s: found %s, the checkpoint has %s", all, all[0] != '\0' ? "\n" : "",
                                 name, found, kept);
        free(all);
        all = longer;
    }
    return all;
}

char *p4_manifest_conflicts(const p4_manifest *run, const p4_manifest *checkpoint)
{
    char *all = p4_strdup("");
    all = add_conflicts(all, run, run, checkpoint, true);
    return add_conflicts(all, checkpoint, run, checkpoint, false);
}

/* ---- writing ---- */

static bool put_warnings(cJSON *list, const p4_manifest *m)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < m->warning_count; i++) {
        cJSON *item = cJSON_CreateString(m->warnings[i]);
        ok = item != NULL && cJSON_AddItemToArray(list, item);
        if (!ok) {
            cJSON_Delete(item);
        }
    }
    return ok;
}

static bool put_inputs(cJSON *list, const p4_manifest *m)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < m->input_count; i++) {
        cJSON *object = cJSON_CreateObject();
        ok = p4_json_put_text(object, "name", m->inputs[i].name) &&
             p4_json_put_text(object, "fingerprint", m->inputs[i].fingerprint);
        ok = object != NULL && cJSON_AddItemToArray(list, object) && ok;
    }
    return ok;
}

static bool put_parts(cJSON *list, const p4_manifest *m)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < m->part_count; i++) {
        cJSON *object = cJSON_CreateObject();
        ok = object != NULL && p4_json_put_whole(object, "rank", m->parts[i].rank) &&
             p4_json_put_whole(object, "bytes", m->parts[i].bytes);
        ok = object != NULL && cJSON_AddItemToArray(list, object) && ok;
    }
    return ok;
}

static bool put_stages(cJSON *list, const p4_manifest *m)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < m->stage_count; i++) {
        ok = cJSON_AddItemToArray(list, cJSON_CreateString(m->stages[i]));
    }
    return ok;
}

static bool put_times(cJSON *object, const p4_manifest *m)
{
    bool ok = object != NULL;
    for (int64_t i = 0; ok && i < m->time_count; i++) {
        const p4_json_real time = {m->times[i].stage, m->times[i].seconds};
        ok = p4_json_put_reals(object, &time, 1);
    }
    return ok;
}

static char *print(const p4_manifest *m)
{
    const p4_json_real reals[] = {
        {"fine_tune_lr", m->lr}, {"distill", m->distill}, {"elapsed_s", m->elapsed_s}};
    cJSON *root = cJSON_CreateObject();
    bool ok =
        p4_json_put_text(root, "format", format_name) && p4_json_put_whole(root, "format_version", VERSION) &&
        p4_json_put_text(root, "producer", m->producer) && p4_json_put_text(root, "created", m->created) &&
        p4_json_put_text(root, "started", m->started) && p4_json_put_whole(root, "continued", m->continued) &&
        p4_json_put_whole(root, "ranks", m->ranks) && p4_json_put_whole(root, "step", m->step) &&
        p4_json_put_whole(root, "updates", m->updates) &&
        cJSON_AddBoolToObject(root, "training", m->training) != NULL &&
        p4_json_put_whole(root, "text_windows", m->text_windows) &&
        p4_json_put_reals(root, reals, sizeof reals / sizeof reals[0]) &&
        put_stages(cJSON_AddArrayToObject(root, "stages"), m) &&
        put_times(cJSON_AddObjectToObject(root, "timing"), m) &&
        put_inputs(cJSON_AddArrayToObject(root, "inputs"), m) &&
        put_warnings(cJSON_AddArrayToObject(root, "warnings"), m) &&
        put_parts(cJSON_AddArrayToObject(root, "parts"), m) &&
        cJSON_AddRawToObject(root, "config", m->config_json) != NULL;
    return p4_json_print(root, ok, true);
}

p4_rc p4_manifest_write(const p4_manifest *m, const char *directory)
{
    p4_rc rc = P4_OK;
    char *path = p4_format("%s/%s", directory, P4_MANIFEST_FILE), *json = NULL;
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    json = print(m);
    TRY(json != NULL ? P4_OK : P4_E_SYSTEM);
    rc = p4_atomic_write_all(path, json, strlen(json));
done:
    free(json);
    free(path);
    return rc;
}

/* ---- reading ---- */

static p4_rc take_text(char *to, size_t to_bytes, const cJSON *object, const char *where, const char *key,
                       const char *source)
{
    p4_rc rc = P4_OK;
    const char *text;
    TRY(p4_json_string(&text, source, where, object, key, true));
    CHECK(strlen(text) < to_bytes, "%s: %s is longer than %zu bytes", source, key, to_bytes - 1);
    strcpy(to, text);
done:
    return rc;
}

static p4_rc take_array(const cJSON **list, const cJSON *root, const char *key, int64_t most,
                        const char *source)
{
    p4_rc rc = P4_OK;
    TRY(p4_json_member(list, source, "", root, key, true));
    CHECK(cJSON_IsArray(*list) && cJSON_GetArraySize(*list) <= most, "%s: %s must be a list of at most %lld",
          source, key, (long long)most);
done:
    return rc;
}

static p4_rc take_stages(p4_manifest *m, const cJSON *root, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *list, *item;
    TRY(take_array(&list, root, "stages", P4_MAX_STAGES, source));
    cJSON_ArrayForEach(item, list)
    {
        CHECK(cJSON_IsString(item) && strlen(item->valuestring) < sizeof m->stages[0],
              "%s: stages must be names of at most %zu bytes", source, sizeof m->stages[0] - 1);
        strcpy(m->stages[m->stage_count++], item->valuestring);
    }
    TRY(p4_json_member(&list, source, "", root, "timing", true));
    cJSON_ArrayForEach(item, list)
    {
        CHECK(cJSON_IsNumber(item) && strlen(item->string) < sizeof m->times[0].stage &&
                  m->time_count < P4_MAX_STAGES,
              "%s: timing must be at most %d numbers", source, (int)P4_MAX_STAGES);
        strcpy(m->times[m->time_count].stage, item->string);
        m->times[m->time_count++].seconds = item->valuedouble;
    }
done:
    return rc;
}

static p4_rc take_inputs(p4_manifest *m, const cJSON *root, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *list, *item;
    p4_manifest_input input;
    TRY(take_array(&list, root, "inputs", P4_MANIFEST_MAX_INPUTS, source));
    cJSON_ArrayForEach(item, list)
    {
        TRY(take_text(input.name, sizeof input.name, item, "inputs", "name", source));
        TRY(take_text(input.fingerprint, sizeof input.fingerprint, item, "inputs", "fingerprint", source));
        TRY(p4_manifest_add_input(m, input.name, input.fingerprint));
    }
done:
    return rc;
}

/* Checkpoints of earlier versions have none. */
static p4_rc take_warnings(p4_manifest *m, const cJSON *root, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *item, *list = cJSON_GetObjectItemCaseSensitive(root, "warnings");
    CHECK(list == NULL || cJSON_IsArray(list), "%s: warnings must be a list", source);
    cJSON_ArrayForEach(item, list)
    {
        CHECK(cJSON_IsString(item), "%s: warnings must be texts", source);
        TRY(p4_manifest_add_warning(m, item->valuestring));
    }
done:
    return rc;
}

static p4_rc take_parts(p4_manifest *m, const cJSON *root, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *list, *item;
    TRY(take_array(&list, root, "parts", P4_MANIFEST_MAX_PARTS, source));
    m->parts = p4_alloc((size_t)cJSON_GetArraySize(list), sizeof *m->parts);
    TRY(m->parts != NULL ? P4_OK : P4_E_SYSTEM);
    cJSON_ArrayForEach(item, list)
    {
        p4_manifest_part *part = &m->parts[m->part_count++];
        TRY(p4_json_integer(&part->rank, source, "parts", item, "rank", P4_MANIFEST_MAX_PARTS));
        TRY(p4_json_integer(&part->bytes, source, "parts", item, "bytes", STEPS_LIMIT));
    }
done:
    return rc;
}

/* Checkpoints of earlier versions are of a training whose weight the configuration states. */
static p4_rc take_distill(p4_manifest *m, const cJSON *root, int64_t version, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *distill;
    m->distill = -1;
    if (version >= WITH_DISTILL) {
        TRY(p4_json_member(&distill, source, "", root, "distill", true));
        CHECK(cJSON_IsNumber(distill) && distill->valuedouble >= 0 && distill->valuedouble <= 1,
              "%s: distill must be a number from 0 to 1", source);
        m->distill = distill->valuedouble;
    }
done:
    return rc;
}

static p4_rc take_numbers(p4_manifest *m, const cJSON *root, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *elapsed, *lr;
    TRY(p4_json_integer(&m->ranks, source, "", root, "ranks", P4_MANIFEST_MAX_PARTS));
    TRY(p4_json_integer(&m->step, source, "", root, "step", STEPS_LIMIT));
    TRY(p4_json_integer(&m->updates, source, "", root, "updates", STEPS_LIMIT));
    TRY(p4_json_bool(&m->training, source, "", root, "training", true));
    TRY(p4_json_integer(&m->text_windows, source, "", root, "text_windows", STEPS_LIMIT));
    TRY(p4_json_member(&lr, source, "", root, "fine_tune_lr", true));
    CHECK(cJSON_IsNumber(lr) && lr->valuedouble >= 0, "%s: fine_tune_lr must be a number of at least 0",
          source);
    m->lr = lr->valuedouble;
    TRY(p4_json_member(&elapsed, source, "", root, "elapsed_s", true));
    CHECK(cJSON_IsNumber(elapsed), "%s: elapsed_s must be a number", source);
    m->elapsed_s = elapsed->valuedouble;
done:
    return rc;
}

static p4_rc take_all(p4_manifest *m, cJSON *root, const char *json, const char *source)
{
    p4_rc rc = P4_OK;
    char format[64];
    int64_t version;
    const cJSON *config;
    TRY(take_text(format, sizeof format, root, "", "format", source));
    CHECK(strcmp(format, format_name) == 0, "%s: its format is \"%s\", expected \"%s\"", source, format,
          format_name);
    TRY(p4_json_integer(&version, source, "", root, "format_version", STEPS_LIMIT));
    CHECK(version >= OLDEST && version <= VERSION,
          "%s: is of format version %lld, this program reads %d and %d", source, (long long)version,
          (int)OLDEST, (int)VERSION);
    TRY(take_text(m->producer, sizeof m->producer, root, "", "producer", source));
    TRY(take_text(m->created, sizeof m->created, root, "", "created", source));
    TRY(take_text(m->started, sizeof m->started, root, "", "started", source));
    TRY(p4_json_integer(&m->continued, source, "", root, "continued", STEPS_LIMIT));
    TRY(take_numbers(m, root, source));
    TRY(take_distill(m, root, version, source));
    TRY(take_stages(m, root, source));
    TRY(take_inputs(m, root, source));
    TRY(take_warnings(m, root, source));
    TRY(take_parts(m, root, source));
    TRY(p4_json_member(&config, source, "", root, "config", true));
    CHECK(cJSON_IsObject(config), "%s: config must be an object", source);
    if (!p4_json_keep_numbers(root, json)) { /* from here on no number can be read */
        return FAULT("out of memory while %s was read", source);
    }
    char *printed = cJSON_Print(config);
    m->config_json = printed != NULL ? p4_strdup(printed) : NULL;
    cJSON_free(printed);
    rc = m->config_json != NULL ? P4_OK : FAULT("out of memory while %s was read", source);
done:
    return rc;
}

p4_rc p4_manifest_read(p4_manifest *m, const char *directory)
{
    p4_rc rc = P4_OK;
    char *path = p4_format("%s/%s", directory, P4_MANIFEST_FILE), *json = NULL;
    size_t bytes = 0;
    cJSON *root = NULL;
    *m = (p4_manifest){0};
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_file_read(&json, &bytes, path, MAX_FILE_BYTES));
    TRY(p4_json_read(&root, json, bytes, path));
    TRY(take_all(m, root, json, path));
done:
    cJSON_Delete(root);
    free(json);
    free(path);
    return rc;
}
