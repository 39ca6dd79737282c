/* space.h - working memory that is used again and again, and grows when more is needed than any time before.
 */
#ifndef P4_SPACE_H
#define P4_SPACE_H

#include "src/leaf/base.h"

typedef struct p4_space { /* begins empty, {0}; p4_space_free */
    void *data;           /* aligned as malloc does */
    size_t bytes;
} p4_space;

/* At least `bytes` at space->data; what was there may be lost. Not zeroed. Local. */
p4_rc p4_space_need(p4_space *space, size_t bytes);
void p4_space_free(p4_space *space);

#endif
