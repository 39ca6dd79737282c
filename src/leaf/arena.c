#include "src/leaf/arena.h"

#include <assert.h>

void *p4_arena_take(p4_arena *arena, int64_t bytes)
{
    int64_t at = arena->used_bytes;
    if (__builtin_add_overflow(at, p4_ceil_div(bytes, 64) * 64, &arena->used_bytes)) {
        arena->used_bytes = INT64_MAX / 64 * 64; /* more than any device has: its allocation says so */
    }
    assert(arena->base == NULL || arena->used_bytes <= arena->capacity_bytes);
    return arena->base == NULL ? NULL : arena->base + at;
}
