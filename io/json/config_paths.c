/* Relative paths of a configuration, as they are meant in the folder where the program was started. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file/anchor.h"
#include "io/json/config.h"

static bool anchor_one(char *field, const p4_config_row *row, const char *from)
{
    char made[P4_PATH_BYTES] = ""; /* all of it is copied: fields are compared whole */
    for (int i = 0; row->no_paths != NULL && row->no_paths[i] != NULL; i++) {
        if (strcmp(field, row->no_paths[i]) == 0) {
            return true;
        }
    }
    bool fits = p4_path_anchor(made, sizeof made, field, from);
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
        fits = p4_path_anchor(made, sizeof made, path, from) && p4_list_append(whole, made);
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
