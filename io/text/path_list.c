#include "io/text/path_list.h"

#include "io/file/files.h"
#include "io/text/dataset_parts.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEEPEST_FOLDER = 32 };

void p4_paths_free(p4_paths *paths)
{
    for (int64_t i = 0; i < paths->count; i++) {
        free(paths->items[i]);
    }
    free(paths->items);
    *paths = (p4_paths){.items = NULL};
}

/* Takes `path` over; NULL is a string that could not be allocated. */
static p4_rc take(p4_paths *paths, char *path)
{
    char **items = path != NULL ? p4_grow(paths->items, paths->count, &paths->capacity, sizeof *items) : NULL;
    if (items == NULL) {
        free(path);
        return P4_E_SYSTEM;
    }
    paths->items = items;
    items[paths->count++] = path;
    return P4_OK;
}

p4_rc p4_paths_add(p4_paths *paths, const char *path)
{
    return take(paths, p4_strdup(path));
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort_from(p4_paths *paths, int64_t from)
{
    if (paths->count > from) {
        qsort(paths->items + from, (size_t)(paths->count - from), sizeof *paths->items, by_bytes);
    }
}

void p4_paths_sort(p4_paths *paths)
{
    sort_from(paths, 0);
}

p4_path_kind p4_path_kind_of(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        return P4_PATH_NOTHING;
    }
    return S_ISDIR(status.st_mode) ? P4_PATH_FOLDER : P4_PATH_FILE;
}

p4_rc p4_paths_add_glob(p4_paths *paths, const char *pattern)
{
    p4_rc rc = P4_OK;
    glob_t found = {0};
    int64_t from = paths->count;
    if (p4_path_kind_of(pattern) != P4_PATH_NOTHING) {
        return p4_paths_add(paths, pattern);
    }
    int status = glob(pattern, GLOB_NOSORT, NULL, &found); /* sorted below: glob's order follows the locale */
    CHECK(status == 0 || status == GLOB_NOMATCH, "%s: the pattern cannot be expanded (%s)", pattern,
          status == GLOB_NOSPACE ? "out of memory" : "a folder cannot be read");
    for (size_t i = 0; status == 0 && i < found.gl_pathc; i++) {
        TRY(p4_paths_add(paths, found.gl_pathv[i]));
    }
    sort_from(paths, from);
done:
    globfree(&found);
    return rc;
}

static p4_rc add_tree(p4_paths *paths, const char *folder, char **table, int depth)
{
    p4_rc rc = P4_OK;
    char **names = NULL, *path = NULL;
    int64_t count = 0;
    CHECK(depth < DEEPEST_FOLDER, "%s: more than %d folders inside one another (do links make a circle?)",
          folder, DEEPEST_FOLDER);
    TRY(p4_dir_list(&names, &count, folder));
    for (int64_t i = 0; i < count; i++) {
        free(path);
        path = p4_format("%s/%s", folder, names[i]);
        if (path == NULL) {
            rc = P4_E_SYSTEM;
            goto done;
        }
        p4_path_kind kind = names[i][0] == '.' ? P4_PATH_NOTHING : p4_path_kind_of(path);
        if (kind == P4_PATH_FOLDER) {
            TRY(add_tree(paths, path, table, depth + 1));
        } else if (kind == P4_PATH_FILE && p4_data_is_wanted(path)) {
            TRY(p4_paths_add(paths, path));
        } else if (kind == P4_PATH_FILE && table != NULL && *table == NULL &&
                   p4_data_kind_of(path) == P4_DATA_TABLE) {
            *table = path;
            path = NULL;
        }
    }
done:
    free(path);
    p4_names_free(names, count);
    return rc;
}

p4_rc p4_paths_add_tree(p4_paths *paths, const char *folder, char **table)
{
    int64_t from = paths->count;
    if (table != NULL) {
        *table = NULL;
    }
    p4_rc rc = add_tree(paths, folder, table, 0);
    sort_from(paths, from);
    return rc;
}

/* Two items of one list: equal paths in the order of their places. */
static int by_bytes_then_place(const void *a, const void *b)
{
    char *const *first = *(char **const *)a, *const *second = *(char **const *)b;
    int order = strcmp(*first, *second);
    return order != 0 ? order : (first > second) - (first < second);
}

p4_rc p4_paths_drop_repeats(p4_paths *paths)
{
    char ***places = p4_alloc((size_t)paths->count, sizeof *places);
    if (places == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < paths->count; i++) {
        places[i] = &paths->items[i];
    }
    qsort(places, (size_t)paths->count, sizeof *places, by_bytes_then_place);
    for (int64_t i = 1, first = 0; i < paths->count; i++) {
        if (strcmp(*places[i], *places[first]) == 0) {
            free(*places[i]);
            *places[i] = NULL;
        } else {
            first = i;
        }
    }
    free(places);
    int64_t kept = 0;
    for (int64_t i = 0; i < paths->count; i++) {
        if (paths->items[i] != NULL) {
            paths->items[kept++] = paths->items[i];
        }
    }
    paths->count = kept;
    return P4_OK;
}
