#include "io/file/anchor.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/phase4/types.h"

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

bool p4_path_anchor(char *to, size_t room, const char *path, const char *from)
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

char *p4_path_absolute(const char *path)
{
    char from[P4_PATH_BYTES], made[2 * P4_PATH_BYTES];
    bool known = getcwd(from, sizeof from) != NULL && p4_path_anchor(made, sizeof made, path, from);
    return p4_strdup(known ? made : path);
}
