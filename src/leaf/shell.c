#include "src/leaf/shell.h"

#include <string.h>

#include "src/leaf/base.h"

char *p4_shell_word(const char *name)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-";
    static const char quote[] =
        "'\\''"; /* a quote ends the word's quotes, stands by itself, begins them again */
    const size_t bytes = strlen(name);
    if (bytes > 0 && name[strspn(name, plain)] == '\0') {
        return p4_strdup(name);
    }
    char *word = p4_alloc(4 * bytes + 3, 1), *to = word;
    if (word == NULL) {
        return NULL;
    }
    *to++ = '\'';
    for (const char *at = name; *at != '\0'; at++) {
        const size_t length = *at == '\'' ? sizeof quote - 1 : 1;
        memcpy(to, *at == '\'' ? quote : at, length);
        to += length;
    }
    *to++ = '\'';
    *to = '\0';
    return word;
}
