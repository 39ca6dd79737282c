#include "io/out/directory.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/out/outputs.h"

enum { MAX_RESULTS_BYTES = 64 << 20, MAX_MARK_BYTES = 4096 };
static const char mark_name[] = ".phase4_run"; /* holds the run_fingerprint */

static bool is_there(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

/* Whether a results.json says that its run failed: such a file does not guard the directory, any other does.
 */
static bool is_failed_run(const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    if (p4_file_read(&text, &bytes, path, MAX_RESULTS_BYTES) != P4_OK) {
        p4_error_clear();
        return false;
    }
    cJSON *root = cJSON_ParseWithLength(text, bytes);
    bool failed = cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(root, "success"));
    cJSON_Delete(root);
    free(text);
    return failed;
}

/* Adds the name to the comma-separated list in found. */
static void add_found(char found[256], const char *name)
{
    size_t used = strlen(found);
    snprintf(found + used, 256 - used, "%s%s", used > 0 ? ", " : "", name);
}

/* The names of the results that the directory holds, comma separated, into found ("": none). */
static p4_rc find_results(char found[256], const char *output_path)
{
    found[0] = '\0';
    for (int i = 0; i <= P4_OUTPUTS; i++) {
        const char *name = i < P4_OUTPUTS ? p4_outputs[i].name : P4_RESULTS_FILE;
        bool guards = i == P4_OUTPUTS || (p4_outputs[i].traits & P4_OUTPUT_GUARDS) != 0;
        char *path = p4_format("%s/%s", output_path, name);
        if (path == NULL) {
            return P4_E_SYSTEM;
        }
        if (guards && is_there(path) && !(i == P4_OUTPUTS && is_failed_run(path))) {
            add_found(found, name);
        }
        free(path);
    }
    return P4_OK;
}

/* Whether the run that used the directory last is this one. */
static bool is_same_run(const char *mark_path, const char *run_fingerprint)
{
    char *text = NULL;
    size_t bytes = 0;
    if (run_fingerprint == NULL || !is_there(mark_path)) {
        return false;
    }
    if (p4_file_read(&text, &bytes, mark_path, MAX_MARK_BYTES) != P4_OK) {
        p4_error_clear();
        return false;
    }
    bool same = strcmp(text, run_fingerprint) == 0;
    free(text);
    return same;
}

/* Removes what a run that was killed left for its own use: the training tokens, complete or not. */
static p4_rc remove_leftovers(const char *output_path)
{
    p4_rc rc = P4_OK;
    char *tokens = p4_format("%s/" P4_TRAINING_TOKENS_FILE, output_path);
    char *unfinished = tokens != NULL ? p4_temp_path(tokens) : NULL;
    TRY(unfinished != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_remove_tree(tokens));
    TRY(p4_remove_tree(unfinished));
done:
    free(unfinished);
    free(tokens);
    return rc;
}

p4_rc p4_output_prepare(const char *output_path, bool overwrite, const char *run_fingerprint)
{
    p4_rc rc = P4_OK;
    char found[256];
    char *mark_path = p4_format("%s/%s", output_path, mark_name);
    if (mark_path == NULL) {
        return P4_E_SYSTEM;
    }
    CHECK(output_path[0] != '\0', "output_path is empty: it must name a directory");
    TRY(p4_make_directories(output_path));
    TRY(find_results(found, output_path));
    CHECK(found[0] == '\0' || overwrite || is_same_run(mark_path, run_fingerprint),
          "%s: holds the results of another run (%s); set overwrite to true or choose another output_path",
          output_path, found);
    /* This also tests that the directory is writable. */
    const char *mark = run_fingerprint != NULL ? run_fingerprint : "";
    TRY(p4_atomic_write_all(mark_path, mark, strlen(mark)));
    TRY(remove_leftovers(output_path));
done:
    free(mark_path);
    return rc;
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
