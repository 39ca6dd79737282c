#include "io/tokenizer/ids.h"

#include <stdlib.h>
#include <string.h>

p4_rc p4_ids_grow(p4_ids *ids, int64_t more)
{
    int64_t capacity = p4_max_i64(ids->count + more, ids->capacity + ids->capacity / 2 + 64);
    int32_t *grown = p4_resize(ids->ids, (size_t)capacity, sizeof *grown);
    if (grown == NULL) {
        return P4_E_SYSTEM;
    }
    ids->ids = grown;
    ids->capacity = capacity;
    return P4_OK;
}

p4_rc p4_ids_append(p4_ids *ids, const int32_t *more, int64_t count)
{
    p4_rc rc = P4_OK;
    TRY(p4_ids_reserve(ids, count));
    if (count > 0) {
        memcpy(ids->ids + ids->count, more, (size_t)count * sizeof *more);
        ids->count += count;
    }
done:
    return rc;
}

void p4_ids_free(p4_ids *ids)
{
    free(ids->ids);
    *ids = (p4_ids){0};
}
