/* map.h - byte strings -> ids, by open addressing. All Local. */
#ifndef P4_TOK_MAP_H
#define P4_TOK_MAP_H

#include <string.h>

#include "io/tokenizer/buffer.h"

typedef struct p4_tok_map {
    p4_tok_text *keys; /* [slots] borrowed; data NULL: free */
    int32_t *values;   /* [slots] */
    size_t slots;      /* a power of two; 0: an empty map */
} p4_tok_map;

p4_rc p4_tok_map_create(p4_tok_map *map, size_t count);               /* for `count` keys */
bool p4_tok_map_put(p4_tok_map *map, p4_tok_text key, int32_t value); /* false: there already, unchanged */
void p4_tok_map_free(p4_tok_map *map);

/* The slots of a table for `count` entries, at most half full: a power of two. */
size_t p4_tok_slots_for(size_t count);

/* Inline from here on: encoding hashes every piece of a text, and looks up every character of some. */
static inline uint64_t p4_tok_mix(uint64_t a, uint64_t b)
{
    uint64_t h = (a ^ b) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ (h >> 29);
}

/* Eight bytes at a time: pieces of text are short, and every one is hashed. */
static inline uint64_t p4_tok_hash(const char *data, size_t bytes)
{
    uint64_t h = bytes, word = 0;
    for (; bytes > 8; data += 8, bytes -= 8) {
        memcpy(&word, data, 8);
        h = p4_tok_mix(h, word);
    }
    word = 0;
    for (size_t i = 0; i < bytes; i++) {
        word |= (uint64_t)(unsigned char)data[i] << (8 * i);
    }
    h = p4_tok_mix(h, word) * UINT64_C(0xD6E8FEB86659FD93);
    return h ^ (h >> 32);
}

/* The slot that holds the key, or the free one where it belongs. The map has slots. */
static inline size_t p4_tok_map_slot(const p4_tok_map *map, const char *data, size_t bytes)
{
    size_t slot = (size_t)p4_tok_hash(data, bytes) & (map->slots - 1);
    while (map->keys[slot].data != NULL &&
           (map->keys[slot].bytes != bytes || memcmp(map->keys[slot].data, data, bytes) != 0)) {
        slot = (slot + 1) & (map->slots - 1);
    }
    return slot;
}

/* The value of a key; -1: not there. */
static inline int32_t p4_tok_map_find(const p4_tok_map *map, const char *data, size_t bytes)
{
    if (map->slots == 0) {
        return -1;
    }
    size_t slot = p4_tok_map_slot(map, data, bytes);
    return map->keys[slot].data != NULL ? map->values[slot] : -1;
}

#endif
