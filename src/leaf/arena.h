/* arena.h - bump allocator over one block. A layout function takes all its arrays twice: first from an arena
 * without memory, which only counts, then from one of that size. */
#ifndef P4_ARENA_H
#define P4_ARENA_H

#include "src/leaf/base.h"

typedef struct p4_arena {
    char *base; /* NULL: count only, takes return NULL */
    int64_t used_bytes, capacity_bytes;
} p4_arena;

/* bytes rounded up to 64; content undefined; the arena keeps ownership. Local. */
void *p4_arena_take(p4_arena *arena, int64_t bytes);

#endif
