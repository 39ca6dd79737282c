#include "io/batch/models.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/hf/hf_model.h"
#include "src/leaf/hash.h"

enum { CONFIG_BYTES = 1 << 20 };

typedef struct models {
    char **paths; /* heap */
    int64_t count, capacity;
} models;

static p4_rc add(models *m, const char *path)
{
    char **paths = p4_grow(m->paths, m->count, &m->capacity, sizeof *paths);
    if (paths == NULL) {
        return P4_E_SYSTEM;
    }
    m->paths = paths;
    paths[m->count] = p4_strdup(path);
    return paths[m->count++] != NULL ? P4_OK : P4_E_SYSTEM;
}

/* A model: a directory with a config.json, or the outer folder of a hub cache. */
static p4_rc is_model(bool *is, const char *path)
{
    char *config = p4_format("%s/config.json", path), *ref = p4_format("%s/refs/main", path);
    p4_rc rc = config != NULL && ref != NULL ? P4_OK : P4_E_SYSTEM;
    *is = rc == P4_OK && (p4_file_exists(config) || p4_file_exists(ref));
    free(config);
    free(ref);
    return rc;
}

/* The models directly in a directory; names with a dot at the start are somebody's work in progress. */
static p4_rc add_directory(models *m, const char *directory)
{
    p4_rc rc = P4_OK;
    char **names = NULL, *path = NULL;
    int64_t count = 0;
    TRY(p4_dir_list(&names, &count, directory));
    for (int64_t i = 0; i < count; i++) {
        bool is;
        path = p4_format("%s/%s", directory, names[i]);
        TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
        TRY(is_model(&is, path));
        TRY(is && names[i][0] != '.' ? add(m, path) : P4_OK);
        free(path);
        path = NULL;
    }
done:
    free(path);
    p4_names_free(names, count);
    return rc;
}

static p4_rc add_pattern(models *m, const char *pattern, const char *source)
{
    p4_rc rc = P4_OK;
    int64_t before = m->count;
    glob_t found = {0};
    bool is = false;
    TRY(is_model(&is, pattern));
    if (!is && p4_directory_exists(pattern)) {
        TRY(add_directory(m, pattern));
    } else if (is) {
        TRY(add(m, pattern));
    } else if (glob(pattern, GLOB_NOSORT, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            TRY(is_model(&is, found.gl_pathv[i]));
            TRY(is ? add(m, found.gl_pathv[i]) : P4_OK);
        }
    }
    CHECK(m->count > before,
          "%s: key \"models\": found \"%.200s\", expected a directory of models or a pattern of model "
          "directories: none there holds a config.json",
          source, pattern);
done:
    globfree(&found);
    return rc;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort_and_drop_repeats(models *m)
{
    int64_t kept = 0;
    if (m->count > 1) {
        qsort(m->paths, (size_t)m->count, sizeof *m->paths, by_bytes);
    }
    for (int64_t i = 0; i < m->count; i++) {
        if (kept > 0 && strcmp(m->paths[kept - 1], m->paths[i]) == 0) {
            free(m->paths[i]);
        } else {
            m->paths[kept++] = m->paths[i];
        }
    }
    m->count = kept;
}

p4_rc p4_models_find(char ***found, int64_t *count, const cJSON *patterns, const char *source)
{
    p4_rc rc = P4_OK;
    models m = {0};
    const cJSON *item;
    CHECK(cJSON_IsString(patterns) || cJSON_IsArray(patterns),
          "%s: key \"models\": expected a directory of models, a pattern, or a list of them", source);
    if (cJSON_IsString(patterns)) {
        TRY(add_pattern(&m, patterns->valuestring, source));
    }
    cJSON_ArrayForEach(item, patterns) /* a string has no members */
    {
        CHECK(cJSON_IsString(item), "%s: key \"models\": expected strings in the list", source);
        TRY(add_pattern(&m, item->valuestring, source));
    }
    sort_and_drop_repeats(&m);
done:
    *found = m.paths;
    *count = m.count;
    return rc;
}

/* there: false for a link to nothing, which is no file of the model. A file that cannot be examined is an
 * error: without it the model would pass for another. */
static p4_rc examine(bool *there, struct stat *status, const char *path)
{
    *there = stat(path, status) == 0;
    return *there || errno == ENOENT ? P4_OK : p4_fail_errno(path, "examine");
}

/* Adds "name fingerprint\n" of a file to the text. */
static p4_rc add_file(char **text, const char *directory, const char *name, int64_t *bytes)
{
    p4_rc rc = P4_OK;
    struct stat status;
    bool there;
    char fingerprint[P4_FINGERPRINT_BYTES], *longer = NULL, *path = p4_format("%s/%s", directory, name);
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(examine(&there, &status, path));
    if (!there || !S_ISREG(status.st_mode)) {
        goto done;
    }
    TRY(p4_fingerprint_file(fingerprint, path));
    *bytes += status.st_size;
    longer = p4_format("%s%s %s\n", *text, name, fingerprint);
    TRY(longer != NULL ? P4_OK : P4_E_SYSTEM);
    free(*text);
    *text = longer;
done:
    free(path);
    return rc;
}

p4_rc p4_model_fingerprint(char fingerprint[P4_FINGERPRINT_BYTES], const char *model_path)
{
    p4_rc rc = P4_OK;
    char *directory = NULL, *text = p4_strdup(""), **names = NULL, whole[P4_FINGERPRINT_BYTES];
    int64_t count = 0, bytes = 0;
    const int CHECKSUM_CHARACTERS = 14; /* "crc32:" and 8 digits */
    TRY(text != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_hf_find_directory(&directory, model_path));
    TRY(p4_dir_list(&names, &count, directory));
    for (int64_t i = 0; i < count; i++) {
        TRY(names[i][0] != '.' ? add_file(&text, directory, names[i], &bytes) : P4_OK);
    }
    p4_fingerprint_text(whole, text);
    snprintf(fingerprint, P4_FINGERPRINT_BYTES, "%.*s:%lld", CHECKSUM_CHARACTERS, whole, (long long)bytes);
done:
    free(directory);
    free(text);
    p4_names_free(names, count);
    return rc;
}

/* Adds a weight file's name and length. */
static p4_rc mix_file(uint64_t *shape, const char *directory, const char *name)
{
    p4_rc rc = P4_OK;
    struct stat status;
    bool there;
    char *path = p4_format("%s/%s", directory, name);
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(examine(&there, &status, path));
    if (there) {
        int64_t bytes = status.st_size;
        *shape = p4_hash(*shape, name, strlen(name));
        *shape = p4_hash(*shape, &bytes, sizeof bytes);
    }
done:
    free(path);
    return rc;
}

p4_rc p4_model_shape(uint64_t *shape, const char *model_path)
{
    p4_rc rc = P4_OK;
    char *directory = NULL, *path = NULL, *text = NULL, **names = NULL;
    size_t bytes = 0;
    int64_t count = 0;
    TRY(p4_hf_find_directory(&directory, model_path));
    path = p4_format("%s/config.json", directory);
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_file_read(&text, &bytes, path, CONFIG_BYTES));
    *shape = p4_hash(P4_HASH_START, text, bytes);
    TRY(p4_dir_list(&names, &count, directory));
    for (int64_t i = 0; i < count; i++) {
        const char *ending = strrchr(names[i], '.');
        TRY(ending != NULL && strcmp(ending, ".safetensors") == 0 ? mix_file(shape, directory, names[i])
                                                                  : P4_OK);
    }
done:
    free(directory);
    free(path);
    free(text);
    p4_names_free(names, count);
    return rc;
}
