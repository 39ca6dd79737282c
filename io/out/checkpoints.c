#include "io/out/checkpoints.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"

/* What the name of an entry says. */
typedef struct entry {
    int64_t step;
    enum { COMPLETE, REPLACED, UNFINISHED } state;
    const char *name;
} entry;

/* False: the name is none of ours. */
static bool read_name(entry *e, const char *name)
{
    static const char prefix[] = "step-", unfinished[] = ".tmp";
    char *end = NULL;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) {
        return false;
    }
    const char *digits = name + sizeof prefix - 1;
    size_t count = strspn(digits, "0123456789");
    if (count == 0 || count > 18) {
        return false;
    }
    *e = (entry){.step = strtoll(digits, &end, 10), .name = name};
    size_t rest = strlen(end), ending = sizeof unfinished - 1;
    if (rest == 0) {
        e->state = COMPLETE;
    } else if (strcmp(end, ".old") == 0) {
        e->state = REPLACED;
    } else if (end[0] == '.' && rest >= ending && strcmp(end + rest - ending, unfinished) == 0) {
        e->state = UNFINISHED; /* of whomever */
    } else {
        return false;
    }
    return true;
}

/* Later steps first; of one step, the one that replaces the other. */
static int by_age(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->step != y->step) {
        return x->step < y->step ? 1 : -1;
    }
    return (int)x->state - (int)y->state;
}

/* Our entries of the folder. entries point into names; the caller frees both. */
static p4_rc read_folder(entry **entries, int64_t *count, char ***names, int64_t *name_count,
                         const char *folder)
{
    p4_rc rc = P4_OK;
    struct stat status;
    *entries = NULL;
    *names = NULL;
    *count = *name_count = 0;
    if (stat(folder, &status) != 0 && errno == ENOENT) {
        return P4_OK;
    }
    TRY(p4_dir_list(names, name_count, folder));
    *entries = p4_alloc((size_t)*name_count, sizeof **entries);
    TRY(*entries != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < *name_count; i++) {
        *count += read_name(&(*entries)[*count], (*names)[i]);
    }
    qsort(*entries, (size_t)*count, sizeof **entries, by_age);
done:
    return rc;
}

p4_rc p4_checkpoints_list(char ***paths, int64_t *count, const char *folder)
{
    p4_rc rc = P4_OK;
    entry *entries;
    char **names;
    int64_t found, name_count;
    *paths = NULL;
    *count = 0;
    TRY(read_folder(&entries, &found, &names, &name_count, folder));
    *paths = p4_alloc((size_t)found, sizeof **paths);
    TRY(*paths != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < found; i++) {
        if (entries[i].state != UNFINISHED) {
            (*paths)[*count] = p4_format("%s/%s", folder, entries[i].name);
            TRY((*paths)[*count] != NULL ? P4_OK : P4_E_SYSTEM);
            (*count)++;
        }
    }
done:
    free(entries);
    p4_names_free(names, name_count);
    return rc;
}

static char *path_of(const char *folder, int64_t step, const char *ending)
{
    return p4_format("%s/step-%lld%s", folder, (long long)step, ending);
}

void p4_checkpoint_owner(char owner[P4_CHECKPOINT_OWNER_BYTES])
{
    char host[65] = "unknown";
    (void)gethostname(host, sizeof host - 1);
    for (char *c = host; *c != '\0'; c++) {
        *c = *c == '/' ? '_' : *c;
    }
    snprintf(owner, P4_CHECKPOINT_OWNER_BYTES, "%s.%ld", host, (long)getpid());
}

char *p4_checkpoint_temporary(const char *folder, int64_t step, const char *owner)
{
    return p4_format("%s/step-%lld.%s.tmp", folder, (long long)step, owner);
}

/* Is "step-N.OWNER.tmp" of this owner? */
static bool is_of(const entry *e, const char *owner)
{
    const char *from = e->name + strcspn(e->name, "."), *end = strrchr(e->name, '.');
    size_t length = strlen(owner);
    return e->state == UNFINISHED && end > from && (size_t)(end - from) == length + 1 &&
           strncmp(from + 1, owner, length) == 0;
}

p4_rc p4_checkpoint_begin(const char *folder, const char *directory, const char *owner)
{
    p4_rc rc = P4_OK;
    entry *entries;
    char **names, *path = NULL;
    int64_t count, name_count;
    TRY(read_folder(&entries, &count, &names, &name_count, folder));
    for (int64_t i = 0; i < count; i++) {
        if (is_of(&entries[i], owner)) {
            free(path);
            path = p4_format("%s/%s", folder, entries[i].name);
            TRY(path != NULL ? p4_remove_tree(path) : P4_E_SYSTEM);
        }
    }
    TRY(p4_make_directories(directory));
done:
    free(path);
    free(entries);
    p4_names_free(names, name_count);
    return rc;
}

char *p4_checkpoint_part_path(const char *directory, int64_t rank)
{
    return p4_format("%s/part-%lld.h5", directory, (long long)rank);
}

/* Removes a directory under the name of an unfinished one, which a run that is killed meanwhile leaves for
 * the next to remove: without its manifest it would no longer be known as a checkpoint. */
static p4_rc remove_complete(const char *folder, const entry *e, const char *path)
{
    p4_rc rc = P4_OK;
    char *temporary = path_of(folder, e->step, ".tmp");
    TRY(temporary != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_remove_tree(temporary));
    if (rename(path, temporary) != 0) {
        rc = p4_fail_errno(path, "remove");
        goto done;
    }
    TRY(p4_remove_tree(temporary));
done:
    free(temporary);
    return rc;
}

/* Removes an entry of the folder, unless it is no checkpoint: other programs name their directories step-N
 * too. A checkpoint has a manifest from the moment that it has its name. */
static p4_rc remove_entry(const char *folder, const entry *e)
{
    p4_rc rc = P4_OK;
    char *path = p4_format("%s/%s", folder, e->name);
    char *manifest = p4_format("%s/%s/" P4_MANIFEST_FILE, folder, e->name);
    TRY(path != NULL && manifest != NULL ? P4_OK : P4_E_SYSTEM);
    if (e->state != UNFINISHED && !p4_file_exists(manifest)) {
        WARN("warning: %s: is no checkpoint of this program (it has no " P4_MANIFEST_FILE
             ") and is left alone",
             path);
    } else {
        rc = e->state == UNFINISHED ? p4_remove_tree(path) : remove_complete(folder, e, path);
    }
done:
    free(path);
    free(manifest);
    return rc;
}

static p4_rc check_hold(p4_hold *hold)
{
    return hold != NULL ? p4_hold_check(hold) : P4_OK;
}

p4_rc p4_checkpoints_prune(const char *folder, int64_t step, p4_hold *hold)
{
    p4_rc rc = P4_OK;
    entry *entries;
    char **names;
    int64_t count, name_count, kept = 0;
    TRY(read_folder(&entries, &count, &names, &name_count, folder));
    for (int64_t i = 0; i < count; i++) {
        if (entries[i].step <= step && entries[i].state == COMPLETE && kept < P4_CHECKPOINTS_KEPT) {
            kept++;
            continue;
        }
        TRY(check_hold(hold));
        TRY(remove_entry(folder, &entries[i]));
    }
done:
    free(entries);
    p4_names_free(names, name_count);
    return rc;
}

p4_rc p4_checkpoint_publish(const char *directory, const char *folder, const p4_manifest *manifest,
                            p4_hold *hold)
{
    p4_rc rc = P4_OK;
    char *path = path_of(folder, manifest->step, "");
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_manifest_write(manifest, directory));
    TRY(check_hold(hold));
    TRY(p4_publish_directory(directory, path));
done:
    free(path);
    return rc;
}

static p4_rc check_part(const p4_manifest_part *part, const char *path)
{
    p4_rc rc = P4_OK;
    struct stat status;
    if (stat(path, &status) != 0) {
        return p4_fail_errno(path, "find this part of the checkpoint");
    }
    CHECK((int64_t)status.st_size == part->bytes, "%s: has %lld bytes, expected %lld", path,
          (long long)status.st_size, (long long)part->bytes);
done:
    return rc;
}

p4_rc p4_checkpoint_check_parts(const p4_manifest *manifest, const char *directory)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; rc == P4_OK && i < manifest->part_count; i++) {
        char *path = p4_checkpoint_part_path(directory, manifest->parts[i].rank);
        rc = path != NULL ? check_part(&manifest->parts[i], path) : P4_E_SYSTEM;
        free(path);
    }
    return rc;
}

p4_rc p4_checkpoints_remove(const char *folder)
{
    p4_rc rc = P4_OK;
    entry *entries;
    char **names;
    int64_t count, name_count;
    TRY(read_folder(&entries, &count, &names, &name_count, folder));
    for (int64_t i = 0; i < count; i++) {
        TRY(remove_entry(folder, &entries[i]));
    }
    if (rmdir(folder) != 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST) {
        rc = p4_fail_errno(folder, "remove");
    }
done:
    free(entries);
    p4_names_free(names, name_count);
    return rc;
}
