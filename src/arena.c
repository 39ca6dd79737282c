#include "arena.h"

#include <assert.h>

void *p4_arena_take(p4_arena *arena, int64_t bytes)
{
    int64_t at = arena->used_bytes;
    arena->used_bytes += (bytes + 63) / 64 * 64;
    assert(arena->base == NULL || arena->used_bytes <= arena->capacity_bytes);
    return arena->base == NULL ? NULL : arena->base + at;
}
