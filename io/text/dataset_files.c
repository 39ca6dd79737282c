/* Which files a split reads: the files that the configuration names, or a data set in the forms it has on
 * disk. */
#include "io/text/dataset_parts.h"
#include "io/text/path_list.h"
#include "src/config.h"
#include "src/phase4/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_FOLDERS = 16, MOST_FORMS = 5 };

/* One way in which a data set lies in its folder. Patterns are separated by '|'. */
typedef struct set_form {
    const char *train; /* "**": the text files of the whole tree */
    const char *eval;  /* NULL: has no split for evaluation */
    const char *eval_else;
    bool by_name_only; /* says nothing by itself: the folder must bear the data set's name */
} set_form;

/* The first folder under dataset_root that holds one of the forms, and its first form, is the data set. */
typedef struct named_set {
    const char *name;
    const char *folders[MOST_FOLDERS]; /* "": dataset_root itself */
    set_form forms[MOST_FORMS];
    bool one_only; /* its folders are data sets of different sizes: finding two is an error */
} named_set;

static const named_set named_sets[] = {
    [P4_DATASET_OPENWEBTEXT] =
        {.name = "openwebtext",
         .folders = {"openwebtext", ""},
         .forms = {{.train = "urlsf_subset*.tar|subsets/urlsf_subset*.tar"},
                   {.train = "urlsf_subset*_data.xz"},
                   {.train = "train.bin", .eval = "val.bin", .by_name_only = true}, /* nanoGPT */
                   {.train = "**", .by_name_only = true}}},
    [P4_DATASET_C4] = {.name = "c4",
                       .folders = {"c4/en", "c4", "en", ""},
                       .forms = {{.train = "c4-train.*.json|c4-train.*.json.gz",
                                  .eval = "c4-validation.*.json|c4-validation.*.json.gz"}}},
    [P4_DATASET_WIKITEXT] =
        {.name = "wikitext",
         .folders = {"wikitext", "wikitext-2-raw", "wikitext-2-raw-v1", "wikitext-2", "wikitext-103-raw",
                     "wikitext-103-raw-v1", "wikitext-103", "wikitext/wikitext-2-raw",
                     "wikitext/wikitext-2-raw-v1", "wikitext/wikitext-2", "wikitext/wikitext-103-raw",
                     "wikitext/wikitext-103-raw-v1", "wikitext/wikitext-103", ""},
         .forms = {{.train = "wiki.train.raw", .eval = "wiki.valid.raw", .eval_else = "wiki.test.raw"},
                   {.train = "wiki.train.tokens",
                    .eval = "wiki.valid.tokens",
                    .eval_else = "wiki.test.tokens"}},
         .one_only = true},
};

/* ---- a named data set ---- */

/* What one folder holds of a data set. */
typedef struct set_holding {
    p4_paths train, eval;
} set_holding;

static void holding_free(set_holding *holding)
{
    p4_paths_free(&holding->train);
    p4_paths_free(&holding->eval);
}

/* The heap string root/folder, without doubled slashes. */
static char *join(const char *root, const char *folder)
{
    size_t length = strlen(root);
    while (length > 1 && root[length - 1] == '/') {
        length--;
    }
    return p4_format("%.*s%s%s", (int)length, root, folder[0] != '\0' ? "/" : "", folder);
}

/* The last name of the path holds the data set's name. */
static bool bears_name(const char *folder, const char *name)
{
    size_t end = strlen(folder), length = strlen(name);
    while (end > 0 && folder[end - 1] == '/') {
        end--;
    }
    size_t start = end;
    while (start > 0 && folder[start - 1] != '/') {
        start--;
    }
    for (size_t at = start; at + length <= end; at++) {
        if (strncasecmp(folder + at, name, length) == 0) {
            return true;
        }
    }
    return false;
}

/* A shard that lies there as x.json and as x.json.gz is read once. */
static void drop_packed_twins(p4_paths *paths)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < paths->count; i++) {
        const char *before = kept > 0 ? paths->items[kept - 1] : "";
        size_t length = strlen(before);
        bool twin = length > 0 && strncmp(paths->items[i], before, length) == 0 &&
                    strcmp(paths->items[i] + length, ".gz") == 0;
        if (twin) {
            free(paths->items[i]);
        } else {
            paths->items[kept++] = paths->items[i];
        }
    }
    paths->count = kept;
}

/* The files of `patterns` in `folder`, in the order of their bytes. Characters of the folder's own name that
 * mean something in a pattern are escaped. */
static p4_rc find_patterns(p4_paths *found, const char *folder, const char *patterns)
{
    p4_rc rc = P4_OK;
    char *escaped = p4_alloc(2 * strlen(folder) + 1, 1), *pattern = NULL;
    if (escaped == NULL) {
        return P4_E_SYSTEM;
    }
    for (size_t i = 0, to = 0; folder[i] != '\0'; i++) {
        if (strchr("*?[\\", folder[i]) != NULL) {
            escaped[to++] = '\\';
        }
        escaped[to++] = folder[i];
    }
    while (patterns != NULL && patterns[0] != '\0') {
        size_t length = strcspn(patterns, "|");
        free(pattern);
        pattern = p4_format("%s/%.*s", escaped, (int)length, patterns);
        if (pattern == NULL) {
            rc = P4_E_SYSTEM;
            goto done;
        }
        TRY(p4_paths_add_glob(found, pattern));
        patterns += length + (patterns[length] == '|');
    }
    p4_paths_sort(found);
    drop_packed_twins(found);
done:
    free(pattern);
    free(escaped);
    return rc;
}

/* The first form of the data set in one folder; `holding` stays empty when there is none. */
static p4_rc search_folder(set_holding *holding, const named_set *set, const char *folder)
{
    p4_rc rc = P4_OK;
    for (int i = 0; i < MOST_FORMS && set->forms[i].train != NULL; i++) {
        const set_form *form = &set->forms[i];
        if (form->by_name_only && !bears_name(folder, set->name)) {
            continue;
        }
        if (strcmp(form->train, "**") == 0) {
            TRY(p4_paths_add_tree(&holding->train, folder, NULL));
        } else {
            TRY(find_patterns(&holding->train, folder, form->train));
        }
        TRY(find_patterns(&holding->eval, folder, form->eval));
        if (holding->eval.count == 0) {
            TRY(find_patterns(&holding->eval, folder, form->eval_else));
        }
        if (holding->train.count + holding->eval.count > 0) {
            break;
        }
    }
done:
    return rc;
}

/* Fails when the folder holds the data set as parquet or arrow. */
static p4_rc refuse_tables(const named_set *set, const char *folder)
{
    p4_paths found = {.items = NULL};
    bool deep = bears_name(folder, set->name);
    p4_rc rc =
        find_patterns(&found, folder, deep ? "*.parquet|*.arrow|*/*.parquet|*/*.arrow" : "*.parquet|*.arrow");
    if (rc == P4_OK && found.count > 0) {
        rc = p4_data_refuse_table(found.items[0]);
    }
    p4_paths_free(&found);
    return rc;
}

/* Appends to a message that is cut when it is full. */
static void say(char *message, size_t capacity, const char *separator, const char *text)
{
    size_t used = strlen(message);
    snprintf(message + used, capacity - used, "%s%s", used > 0 ? separator : "", text);
}

/* Always fails: which files were looked for, where. */
static p4_rc refuse_missing(const named_set *set, const char *root, bool train_only)
{
    char files[1024] = "", folders[4096] = "", pattern[256];
    for (int i = 0; i < MOST_FORMS && set->forms[i].train != NULL; i++) {
        const char *sides[] = {set->forms[i].train, train_only ? NULL : set->forms[i].eval,
                               train_only ? NULL : set->forms[i].eval_else};
        for (size_t side = 0; side < sizeof sides / sizeof sides[0]; side++) {
            for (const char *at = sides[side]; at != NULL && at[0] != '\0';
                 at += at[strcspn(at, "|")] == '|') {
                snprintf(pattern, sizeof pattern, "%.*s", (int)strcspn(at, "|"), at);
                say(files, sizeof files, ", ",
                    strcmp(pattern, "**") == 0 ? "or a tree of .txt, .jsonl" : pattern);
                at += strcspn(at, "|");
            }
        }
    }
    for (int i = 0; i < MOST_FOLDERS && set->folders[i] != NULL; i++) {
        say(folders, sizeof folders, ", ", set->folders[i][0] != '\0' ? set->folders[i] : "itself");
    }
    return FAIL("dataset_root %s: holds no data set %s; looked for %s in its folders %s", root, set->name,
                files, folders);
}

/* Searches the folders in order; parquet or arrow is mentioned only when no folder holds the data set
 * otherwise. */
static p4_rc search_root(set_holding *holding, const named_set *set, const char *root)
{
    p4_rc rc = P4_OK;
    char *folder = NULL, *first = NULL;
    for (int pass = 0; pass < 2 && first == NULL; pass++) {
        for (int i = 0; i < MOST_FOLDERS && set->folders[i] != NULL; i++) {
            set_holding here = {.train = {.items = NULL}};
            free(folder);
            folder = join(root, set->folders[i]);
            if (folder == NULL) {
                rc = P4_E_SYSTEM;
                goto done;
            }
            if (p4_path_kind_of(folder) != P4_PATH_FOLDER || (first != NULL && !set->one_only)) {
                continue;
            }
            rc = pass == 0 ? search_folder(&here, set, folder) : refuse_tables(set, folder);
            bool found = here.train.count + here.eval.count > 0;
            if (rc == P4_OK && found && first != NULL) {
                rc = FAIL("dataset_root: both %s and %s hold a %s; name one of them as dataset_root", first,
                          folder, set->name);
            } else if (rc == P4_OK && found) {
                *holding = here;
                here = (set_holding){.train = {.items = NULL}};
                first = folder;
                folder = NULL;
            }
            holding_free(&here);
            if (rc != P4_OK) {
                goto done;
            }
        }
    }
done:
    free(folder);
    free(first);
    return rc;
}

static p4_rc find_named(p4_paths *paths, bool *held_out, const p4_config *config, p4_split split)
{
    p4_rc rc = P4_OK;
    const named_set *set = &named_sets[config->calibration_dataset];
    const char *root = config->dataset_root;
    set_holding holding = {.train = {.items = NULL}};
    CHECK(config->calibration_files.count == 0,
          "calibration_files are named, but calibration_dataset is \"%s\": set it to \"custom\" to read them",
          set->name);
    CHECK(root[0] != '\0', "calibration_dataset \"%s\" needs dataset_root, the folder in which it lies",
          set->name);
    CHECK(p4_path_kind_of(root) == P4_PATH_FOLDER, "dataset_root %s: there is no such folder", root);
    TRY(search_root(&holding, set, root));
    bool evaluates = split == P4_SPLIT_EVAL;
    *held_out = evaluates && holding.eval.count == 0;
    p4_paths *wanted = evaluates && !*held_out ? &holding.eval : &holding.train;
    if (wanted->count == 0) {
        rc = refuse_missing(set, root, !evaluates);
        goto done;
    }
    *paths = *wanted;
    *wanted = (p4_paths){.items = NULL};
done:
    holding_free(&holding);
    return rc;
}

/* ---- files that the configuration names ---- */

/* Adds the text files in a folder that the configuration names. */
static p4_rc add_folder(p4_paths *paths, const char *folder, const char *key)
{
    int64_t before = paths->count;
    char *table = NULL;
    p4_rc rc = p4_paths_add_tree(paths, folder, &table);
    if (rc == P4_OK && paths->count == before) {
        rc = table != NULL
                 ? p4_data_refuse_table(table)
                 : FAIL("%s: %s: the folder holds no .txt, .jsonl, .json.gz, .raw, .tokens or .tar file "
                        "(others are read when they are named)",
                        key, folder);
    }
    free(table);
    return rc;
}

/* The files of one entry of a list. */
static p4_rc add_entry(p4_paths *paths, const char *entry, const char *key)
{
    p4_rc rc = P4_OK;
    p4_paths matches = {.items = NULL};
    TRY(p4_paths_add_glob(&matches, entry));
    CHECK(matches.count > 0, "%s: \"%s\": no such file, and no file that matches", key, entry);
    for (int64_t i = 0; i < matches.count; i++) {
        if (p4_path_kind_of(matches.items[i]) == P4_PATH_FOLDER) {
            TRY(add_folder(paths, matches.items[i], key));
        } else {
            TRY(p4_paths_add(paths, matches.items[i]));
        }
    }
done:
    p4_paths_free(&matches);
    return rc;
}

static p4_rc find_listed(p4_paths *paths, const p4_list *list, const char *key)
{
    p4_rc rc = P4_OK;
    for (const char *entry = NULL; (entry = p4_list_next(list, entry)) != NULL;) {
        TRY(add_entry(paths, entry, key));
    }
    TRY(p4_paths_drop_repeats(paths));
done:
    return rc;
}

/* The same, with weights: a file that two entries name belongs to the first of them. */
static p4_rc find_weighted(p4_paths *paths, p4_mixture *mixture, const p4_list *list,
                           const p4_numbers *weights, const char *key)
{
    p4_rc rc = P4_OK;
    double total = 0;
    CHECK(weights->count == list->count, "%s: found %d weights, expected %d: one for each entry", key,
          (int)weights->count, (int)list->count);
    for (const char *entry = NULL; (entry = p4_list_next(list, entry)) != NULL;) {
        int64_t before = paths->count, s = mixture->source_count++;
        TRY(add_entry(paths, entry, key));
        TRY(p4_paths_drop_repeats(paths));
        CHECK(paths->count > before, "%s: \"%s\": names no file that an entry before it does not name", key,
              entry);
        int32_t *source = p4_resize(mixture->source, (size_t)paths->count, sizeof *source);
        TRY(source != NULL ? P4_OK : P4_E_SYSTEM);
        mixture->source = source;
        for (int64_t i = before; i < paths->count; i++) {
            source[i] = (int32_t)s;
        }
        total += weights->values[s];
    }
    for (int64_t s = 0; s < mixture->source_count; s++) {
        mixture->share[s] = weights->values[s] / total;
    }
done:
    return rc;
}

static p4_rc find_entries(p4_split_files *files, p4_paths *paths, const p4_list *list,
                          const p4_numbers *weights, const char *key)
{
    return weights->count > 0 ? find_weighted(paths, &files->mixture, list, weights, key)
                              : find_listed(paths, list, key);
}

p4_rc p4_dataset_files(p4_split_files *files, const p4_config *config, p4_split split)
{
    p4_rc rc = P4_OK;
    p4_paths found = {.items = NULL};
    *files = (p4_split_files){.paths = NULL};
    if (split == P4_SPLIT_EVAL && config->eval_files.count > 0) {
        TRY(find_listed(&found, &config->eval_files, "eval_files"));
    } else if (split == P4_SPLIT_TRAIN && config->train_files.count > 0) {
        TRY(find_entries(files, &found, &config->train_files, &config->train_weights, "train_files"));
    } else if (config->calibration_dataset == P4_DATASET_CUSTOM) {
        CHECK(config->calibration_files.count > 0,
              "calibration_dataset \"custom\" needs calibration_files: at least one path or pattern");
        TRY(find_entries(files, &found, &config->calibration_files, &config->calibration_weights,
                         "calibration_files"));
        files->held_out = split == P4_SPLIT_EVAL;
    } else {
        TRY(find_named(&found, &files->held_out, config, split));
    }
    files->paths = found.items;
    files->count = found.count;
    found = (p4_paths){.items = NULL};
done:
    p4_paths_free(&found);
    return rc;
}

p4_rc p4_dataset_set_files(p4_split_files *files, const p4_config *config, int set)
{
    p4_rc rc = P4_OK;
    const p4_sets *sets = &config->eval_sets;
    p4_paths found = {.items = NULL};
    char key[sizeof "eval_sets \"\"" + P4_SET_NAME_BYTES];
    *files = (p4_split_files){.paths = NULL};
    snprintf(key, sizeof key, "eval_sets \"%s\"", sets->names[set]);
    for (const char *entry = NULL; (entry = p4_sets_next(sets, set, entry)) != NULL;) {
        TRY(add_entry(&found, entry, key));
    }
    TRY(p4_paths_drop_repeats(&found));
    files->paths = found.items;
    files->count = found.count;
    found = (p4_paths){.items = NULL};
done:
    p4_paths_free(&found);
    return rc;
}

void p4_split_files_free(p4_split_files *files)
{
    p4_paths_free(&(p4_paths){.items = files->paths, .count = files->count});
    p4_mixture_free(&files->mixture);
    *files = (p4_split_files){.paths = NULL};
}
