/* path_list.h - the growing list of files that a split reads, out of patterns and folders. */
#ifndef P4_PATH_LIST_H
#define P4_PATH_LIST_H

#include "src/leaf/base.h"

typedef struct p4_paths {
    char **items; /* heap strings */
    int64_t count, capacity;
} p4_paths;

void p4_paths_free(p4_paths *paths);
/* Appends a copy of `path`. Local. */
p4_rc p4_paths_add(p4_paths *paths, const char *path);
/* Appends the files that match, in the order of their bytes; none is no error. A file whose name is the
 * pattern itself counts as the match. A folder that matches is appended as it is. Local. */
p4_rc p4_paths_add_glob(p4_paths *paths, const char *pattern);
/* Appends the wanted files (p4_data_is_wanted) of a folder and all below it, in the order of their bytes.
 * *table (to free by the caller) when not NULL: the first .parquet, .arrow or .csv file met, else NULL.
 * Local.
 */
p4_rc p4_paths_add_tree(p4_paths *paths, const char *folder, char **table);
void p4_paths_sort(p4_paths *paths); /* in the order of their bytes */
/* Keeps the first of equal paths; the order of the rest stays. Local. */
p4_rc p4_paths_drop_repeats(p4_paths *paths);

typedef enum p4_path_kind { P4_PATH_NOTHING, P4_PATH_FILE, P4_PATH_FOLDER } p4_path_kind;
p4_path_kind p4_path_kind_of(const char *path); /* links followed; a pipe or device counts as a file */

#endif
