#include "io/out/directory.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/json/write.h"
#include "io/out/earlier.h"
#include "io/out/outputs.h"
#include "io/out/results_read.h"
#include "src/leaf/names.h"

enum { MAX_LIST_BYTES = 1 << 16, RESERVE_BYTES = 256 << 10 };
static const char list_name[] = ".phase4_run";

/* The names that a run may write under: forms of each output, and what only an unfinished run has. */
typedef enum form { FINAL, TEMPORARY, OLDER, SCRATCH } form;
static const char *const suffixes[] = {[FINAL] = "", [TEMPORARY] = ".tmp", [OLDER] = ".old", [SCRATCH] = ""};
static const char *const scratch[] = {P4_TRAINING_TOKENS_FILE, P4_TRAINING_TOKENS_FILE ".tmp",
                                      P4_TEACHER_CACHE_FILE, P4_TEACHER_CACHE_FILE ".tmp", P4_RESERVE_FILE};
enum {
    FORMS = SCRATCH,
    SCRATCHES = sizeof scratch / sizeof scratch[0],
    NAMES = FORMS * (P4_OUTPUTS + 1) + SCRATCHES,
};

typedef struct name {
    form form;
    char text[64]; /* "": none */
} name;

static name name_at(int index)
{
    name n = {.form = index < FORMS * (P4_OUTPUTS + 1) ? (form)(index % FORMS) : SCRATCH};
    int output = index / FORMS;
    const char *base = n.form == SCRATCH      ? scratch[index - FORMS * (P4_OUTPUTS + 1)]
                       : output == P4_OUTPUTS ? P4_RESULTS_FILE
                                              : p4_outputs[output].name;
    if (n.form == SCRATCH || output == P4_OUTPUTS || (p4_outputs[output].traits & P4_OUTPUT_INSIDE) == 0) {
        snprintf(n.text, sizeof n.text, "%s%s", base, suffixes[n.form]);
    }
    return n;
}

static bool is_there(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

/* Whether results.json says that its run failed: such a file does not guard the directory, any other does.
 */
static bool is_failed_run(const char *output_path)
{
    cJSON *root = p4_results_read(output_path);
    bool failed = cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(root, "success"));
    cJSON_Delete(root);
    return failed;
}

static bool begins_with(const char *text, const char *beginning)
{
    return strncmp(text, beginning, strlen(beginning)) == 0;
}

p4_rc p4_output_check_ended(const char *output_path)
{
    p4_rc rc = P4_OK;
    cJSON *root = p4_results_read(output_path);
    const char *error = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "error"));
    if (cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(root, "success")) && error != NULL) {
        CHECK(!begins_with(error, P4_UNFINISHED_ERROR) && !begins_with(error, P4_STOPPED_ERROR),
              "%s: this run has not ended; the same command continues it", output_path);
        rc = FAIL("%s: this run failed and left no model: %s", output_path, error);
    }
done:
    cJSON_Delete(root);
    return rc;
}

/* The list that an unfinished run left, NULL: there is none. */
static cJSON *read_list(const char *output_path)
{
    char *text = NULL, *path = p4_format("%s/%s", output_path, list_name);
    size_t bytes = 0;
    cJSON *list = NULL;
    if (path != NULL && is_there(path) && p4_file_read(&text, &bytes, path, MAX_LIST_BYTES) == P4_OK) {
        list = cJSON_ParseWithLength(text, bytes);
    }
    p4_error_clear(); /* without a list nothing is an unfinished run's: all is protected */
    free(text);
    free(path);
    return list;
}

static bool is_listed(const cJSON *list, const char *text)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        if (cJSON_IsString(item) && strcmp(item->valuestring, text) == 0) {
            return true;
        }
    }
    return false;
}

/* What is there under the names of a run. */
typedef struct found {
    p4_name_sample results; /* of another run */
    char in_the_way[64];
    bool there[NAMES], own[NAMES]; /* own: an unfinished run's, or not there */
} found;

static p4_rc look_around(found *f, const char *output_path)
{
    cJSON *list = read_list(output_path);
    *f = (found){.results = {.count = 0}};
    for (int i = 0; i < NAMES; i++) {
        name n = name_at(i);
        char *path = p4_format("%s/%s", output_path, n.text);
        if (path == NULL) {
            cJSON_Delete(list);
            return P4_E_SYSTEM;
        }
        f->there[i] = n.text[0] != '\0' && is_there(path);
        bool failed = strcmp(n.text, P4_RESULTS_FILE) == 0 && f->there[i] && is_failed_run(output_path);
        f->own[i] = n.text[0] != '\0' && (!f->there[i] || failed || is_listed(list, n.text));
        if (f->there[i] && !f->own[i] && n.form == FINAL) {
            p4_name_sample_add(&f->results, n.text);
        } else if (f->there[i] && !f->own[i] && n.form != OLDER) {
            snprintf(f->in_the_way, sizeof f->in_the_way, "%s", n.text);
        }
        free(path);
    }
    cJSON_Delete(list);
    return P4_OK;
}

static p4_rc judge(found *f, const char *output_path, bool overwrite, const p4_config *opt_config)
{
    p4_rc rc = P4_OK;
    if (f->results.count > 0 && !overwrite) {
        return p4_earlier_refuse(output_path, opt_config, p4_name_sample_text(&f->results));
    }
    CHECK(f->in_the_way[0] == '\0',
          "%s/%s: is in the way: the run writes under this name, and what is there is not its own; remove or "
          "rename it",
          output_path, f->in_the_way);
done:
    return rc;
}

p4_rc p4_output_examine(const char *output_path, bool overwrite, const p4_config *opt_config)
{
    p4_rc rc = P4_OK;
    found f;
    CHECK(output_path[0] != '\0', "output_path is empty: it must name a directory");
    TRY(look_around(&f, output_path));
    rc = judge(&f, output_path, overwrite, opt_config);
done:
    return rc;
}

/* Temporary files of an unfinished run; but the probabilities of a cached teacher are for the run that
 * continues it, which knows them by their key. */
static p4_rc remove_leftovers(const found *f, const char *output_path)
{
    p4_rc rc = P4_OK;
    for (int i = 0; rc == P4_OK && i < NAMES; i++) {
        name n = name_at(i);
        if (f->there[i] && f->own[i] && n.form != FINAL && strcmp(n.text, P4_TEACHER_CACHE_FILE) != 0) {
            char *path = p4_format("%s/%s", output_path, n.text);
            rc = path != NULL ? p4_remove_tree(path) : P4_E_SYSTEM;
            free(path);
        }
    }
    return rc;
}

/* This also tests that the directory is writable. */
static p4_rc write_list(const found *f, const char *output_path)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = list != NULL;
    for (int i = 0; ok && i < NAMES; i++) {
        cJSON *item = f->own[i] ? cJSON_CreateString(name_at(i).text) : NULL;
        ok = !f->own[i] || cJSON_AddItemToArray(list, item);
    }
    char *path = p4_format("%s/%s", output_path, list_name), *text = p4_json_print(list, ok, false);
    p4_rc rc = path == NULL || text == NULL ? P4_E_SYSTEM : p4_atomic_write_all(path, text, strlen(text));
    free(text);
    free(path);
    return rc;
}

/* Blocks of the disk for results.json. Where they are not to be had, nothing is left. */
static p4_rc make_reserve(const char *output_path)
{
    p4_rc rc = P4_OK;
    char *path = p4_format("%s/" P4_RESERVE_FILE, output_path);
    int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(fd >= 0 ? P4_OK : p4_fail_errno(path, "create"));
    errno = posix_fallocate(fd, 0, RESERVE_BYTES);
    TRY(errno == 0 ? P4_OK : p4_fail_errno(path, "write"));
done:
    if (fd >= 0) {
        close(fd);
        if (rc != P4_OK) {
            (void)unlink(path);
        }
    }
    free(path);
    return rc;
}

void p4_output_free_reserve(const char *output_path)
{
    char *path = p4_format("%s/" P4_RESERVE_FILE, output_path);
    if (path != NULL && unlink(path) != 0 && errno != ENOENT) {
        WARN("warning: %s: cannot be removed", path);
    }
    free(path);
}

static p4_rc take(p4_hold **hold, const char *output_path, bool overwrite, bool reserves)
{
    p4_rc rc = P4_OK;
    found f;
    char *list = p4_format("%s/%s", output_path, list_name);
    *hold = NULL;
    TRY(list != NULL ? P4_OK : P4_E_SYSTEM);
    CHECK(output_path[0] != '\0', "output_path is empty: it must name a directory");
    TRY(p4_make_directories(output_path));
    TRY(p4_hold_take(hold, output_path, P4_HOLD_BEAT_S));
    TRY(look_around(&f, output_path));
    TRY(judge(&f, output_path, overwrite, NULL));
    TRY(remove_leftovers(&f, output_path));
    const bool listed = is_there(list);
    TRY(write_list(&f, output_path));
    rc = reserves ? make_reserve(output_path) : P4_OK;
    if (rc != P4_OK && !listed) { /* it would speak of a run that has not ended */
        (void)unlink(list);
    }
done:
    if (rc != P4_OK) {
        p4_hold_release(*hold);
        *hold = NULL;
    }
    free(list);
    return rc;
}

p4_rc p4_output_take(p4_hold **hold, const char *output_path, bool overwrite)
{
    return take(hold, output_path, overwrite, true);
}

p4_rc p4_output_borrow(p4_hold **hold, const char *output_path)
{
    p4_rc rc = P4_OK;
    struct stat status;
    char *list = p4_format("%s/%s", output_path, list_name);
    *hold = NULL;
    TRY(list != NULL ? P4_OK : P4_E_SYSTEM);
    CHECK(lstat(list, &status) != 0,
          "%s: holds a run that has not ended; continue it, or choose another output_path", output_path);
    rc = take(hold, output_path, true, false);
done:
    free(list);
    return rc;
}

void p4_output_leave(p4_hold *hold, const char *output_path, bool finished)
{
    char *path = hold != NULL && finished ? p4_format("%s/%s", output_path, list_name) : NULL;
    char *cache = hold != NULL && finished ? p4_format("%s/%s", output_path, P4_TEACHER_CACHE_FILE) : NULL;
    if (cache != NULL && unlink(cache) != 0 && errno != ENOENT) {
        WARN("warning: %s: cannot be removed", cache);
    }
    free(cache);
    if (hold != NULL && (finished || p4_hold_check(hold) == P4_OK)) {
        p4_output_free_reserve(output_path);
    }
    if (path != NULL && unlink(path) != 0 && errno != ENOENT) {
        WARN("warning: %s: cannot be removed: the next run will "
             "take these results for those of a run that did not end",
             path);
    }
    free(path);
    p4_hold_release(hold);
}

p4_rc p4_output_drop_stale(const char *output_path, const p4_output_paths *written)
{
    p4_rc rc = P4_OK;
    for (int i = 0; rc == P4_OK && i < P4_OUTPUTS; i++) {
        bool inside = (p4_outputs[i].traits & P4_OUTPUT_INSIDE) != 0;
        if (!inside && p4_output_path(written, &p4_outputs[i])[0] == '\0') {
            char *path = p4_format("%s/%s", output_path, p4_outputs[i].name);
            rc = path != NULL ? p4_remove_tree(path) : P4_E_SYSTEM;
            free(path);
        }
    }
    return rc;
}

void p4_output_forget_missing(p4_output_paths *written)
{
    for (int i = 0; i < P4_OUTPUTS; i++) {
        char *path = (char *)written + p4_outputs[i].path;
        if ((p4_outputs[i].traits & P4_OUTPUT_ASIDE) != 0 && path[0] != '\0' && !is_there(path)) {
            WARN("warning: %s: is not there; the run goes on without it", path);
            path[0] = '\0';
        }
    }
}

p4_rc p4_output_check(const p4_output_paths *written)
{
    p4_rc rc = P4_OK;
    for (int i = 0; i < P4_OUTPUTS; i++) {
        const char *path = p4_output_path(written, &p4_outputs[i]);
        CHECK(path[0] == '\0' || is_there(path), "%s: was removed while the run was under way", path);
    }
done:
    return rc;
}
