#include "src/leaf/space.h"

#include <stdlib.h>

p4_rc p4_space_need(p4_space *space, size_t bytes)
{
    if (bytes > space->bytes) {
        p4_space_free(space);
        space->data = p4_resize(NULL, bytes, 1);
        space->bytes = space->data != NULL ? bytes : 0;
    }
    return bytes <= space->bytes ? P4_OK : P4_E_SYSTEM;
}

void p4_space_free(p4_space *space)
{
    free(space->data);
    *space = (p4_space){0};
}
