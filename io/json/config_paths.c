/* Relative paths of a configuration, as they are meant in the folder where the program was started. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/json/config.h"

/* Is the next part of the path `part`? Then it begins behind that. */
static bool passes(const char **path, const char *part)
{
    size_t bytes = strlen(part);
    bool there = strncmp(*path, part, bytes) == 0 && ((*path)[bytes] == '/' || (*path)[bytes] == '\0');
    if (there) {
        *path += bytes;
        *path += strspn(*path, "/");
    }
    return there;
}

/* from: a folder without links in its name, so that ".." at the start of the path can be resolved. false: it
 * does not fit. */
static bool anchor(char *to, size_t room, const char *path, const char *from)
{
    size_t base = strlen(from);
    if (path[0] == '/' || path[0] == '\0') {
        return (size_t)snprintf(to, room, "%s", path) < room;
    }
    for (bool up = false; (up = passes(&path, "..")) || passes(&path, ".");) {
        while (up && base > 0 && from[--base] != '/') {
        }
    }
    base = base == 1 ? 0 : base; /* the root has its slash already */
    return (size_t)snprintf(to, room, "%.*s%s%s", (int)base, from, path[0] != '\0' || base == 0 ? "/" : "",
                            path) < room;
}

static bool anchor_one(char *field, const p4_config_row *row, const char *from)
{
    char made[P4_PATH_BYTES] = ""; /* all of it is copied: fields are compared whole */
    for (int i = 0; row->no_paths != NULL && row->no_paths[i] != NULL; i++) {
        if (strcmp(field, row->no_paths[i]) == 0) {
            return true;
        }
    }
    bool fits = anchor(made, sizeof made, field, from);
    memcpy(field, made, fits ? sizeof made : 0);
    return fits;
}

static bool anchor_list(p4_list *list, const char *from)
{
    char made[2 * P4_PATH_BYTES];
    const char *path = NULL;
    p4_list *whole = p4_alloc(1, sizeof *whole);
    bool fits = whole != NULL;
    while (fits && (path = p4_list_next(list, path)) != NULL) {
        fits = anchor(made, sizeof made, path, from) && p4_list_append(whole, made);
    }
    if (fits) {
        *list = *whole;
    }
    free(whole);
    return fits;
}

p4_rc p4_config_anchor(p4_config *config)
{
    p4_rc rc = P4_OK;
    char from[P4_PATH_BYTES];
    if (getcwd(from, sizeof from) == NULL) {
        return FAIL("the working directory is not known: %s", strerror(errno));
    }
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        char *field = (char *)config + row->offset;
        if (!row->holds_paths) {
            continue;
        }
        bool fits = row->type == P4_CONFIG_LIST   ? anchor_list((p4_list *)(void *)field, from)
                    : row->type == P4_CONFIG_SETS ? anchor_list(&((p4_sets *)(void *)field)->strings, from)
                                                  : anchor_one(field, row, from);
        if (!fits && rc == P4_OK) {
            rc = FAIL("key \"%s\": what it holds is too long as absolute paths", row->name);
        }
    }
    return rc;
}

p4_rc p4_config_print_anchored(const p4_config *config, char **json)
{
    p4_rc rc = P4_OK;
    p4_config *anchored = p4_alloc(1, sizeof *anchored);
    *json = NULL;
    TRY(anchored != NULL ? P4_OK : P4_E_SYSTEM);
    *anchored = *config;
    if (p4_config_anchor(anchored) != P4_OK) {
        WARN("warning: the configuration is recorded with relative paths: %s", p4_last_error());
        p4_error_clear();
    }
    TRY(p4_config_print(anchored, json));
done:
    free(anchored);
    return rc;
}
