#include "io/hf/hf_readers.h"

#include <string.h>

const p4_hf_reader *p4_hf_reader_find(const char *family)
{
    static const struct {
        const char *name;
        const p4_hf_reader *reader;
    } table[] = {
#define ENTRY(name) {#name, &p4_hf_reader_##name},
        P4_FAMILIES(ENTRY)
#undef ENTRY
    };
    for (size_t f = 0; f < sizeof table / sizeof table[0]; f++) {
        if (strcmp(table[f].name, family) == 0) {
            return table[f].reader;
        }
    }
    return NULL;
}
