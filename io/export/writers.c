#include "io/export/writers.h"

#include <string.h>

#include "src/exports.h"

#define ROW(name, ...) &p4_writer_##name,
static const p4_writer *const table[] = {P4_EXPORTS(ROW)};
#undef ROW

const p4_writer *p4_writer_find(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i]->name, name) == 0) {
            return table[i];
        }
    }
    return NULL;
}
