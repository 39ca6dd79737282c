/* ids.h - a growing list of token ids. All Local. */
#ifndef P4_IDS_H
#define P4_IDS_H

#include "src/leaf/base.h"

typedef struct p4_ids {
    int32_t *ids; /* heap */
    int64_t count, capacity;
} p4_ids;

p4_rc p4_ids_append(p4_ids *ids, const int32_t *more, int64_t count);
void p4_ids_free(p4_ids *ids);
/* Reallocates, with room to grow, so that `more` ids fit beyond count. */
p4_rc p4_ids_grow(p4_ids *ids, int64_t more);

/* Makes room for `more` ids beyond count: called for every piece of a text. */
static inline p4_rc p4_ids_reserve(p4_ids *ids, int64_t more)
{
    return ids->capacity - ids->count >= more ? P4_OK : p4_ids_grow(ids, more);
}

#endif
