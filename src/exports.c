#include "src/exports.h"

#include <stdio.h>
#include <string.h>

#include "src/config.h"

enum { OPTIONS_MAX = 4 };

static const struct {
    const char *name;
    const char *options[OPTIONS_MAX]; /* up to the first NULL */
} table[] = {
#define ROW(name, ...) {#name, {__VA_ARGS__}},
    P4_EXPORTS(ROW)
#undef ROW
};
enum { COUNT = sizeof table / sizeof table[0] };

const char *p4_exports_known(char buffer[256])
{
    size_t used = 0;
    for (int i = 0; i < COUNT; i++) {
        used += (size_t)snprintf(buffer + used, 256 - used, "%s%s", i > 0 ? ", " : "", table[i].name);
        for (int k = 0; k < OPTIONS_MAX && table[i].options[k] != NULL; k++) {
            used +=
                (size_t)snprintf(buffer + used, 256 - used, ", %s:%s", table[i].name, table[i].options[k]);
        }
    }
    return buffer;
}

size_t p4_exports_name_bytes(const char *entry)
{
    return strcspn(entry, ":");
}

const char *p4_exports_option(const char *entry)
{
    const char *colon = strchr(entry, ':');
    return colon != NULL ? colon + 1 : "";
}

static bool is_named(const char *entry, const char *name)
{
    size_t bytes = p4_exports_name_bytes(entry);
    return bytes == strlen(name) && strncmp(entry, name, bytes) == 0;
}

bool p4_exports_is_known(const char *entry)
{
    for (int i = 0; i < COUNT; i++) {
        if (is_named(entry, table[i].name)) {
            bool known = strchr(entry, ':') == NULL;
            for (int k = 0; k < OPTIONS_MAX && table[i].options[k] != NULL; k++) {
                known = known || strcmp(p4_exports_option(entry), table[i].options[k]) == 0;
            }
            return known;
        }
    }
    return false;
}

const char *p4_exports_find(const p4_list *list, const char *writer)
{
    const char *entry = p4_list_next(list, NULL);
    while (entry != NULL && !is_named(entry, writer)) {
        entry = p4_list_next(list, entry);
    }
    return entry;
}
