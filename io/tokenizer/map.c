#include "io/tokenizer/map.h"

#include <stdlib.h>

size_t p4_tok_slots_for(size_t count)
{
    size_t slots = 16;
    while (slots / 2 < count) {
        slots *= 2;
    }
    return slots;
}

p4_rc p4_tok_map_create(p4_tok_map *map, size_t count)
{
    map->slots = p4_tok_slots_for(count);
    map->keys = p4_alloc(map->slots, sizeof *map->keys);
    map->values = p4_alloc(map->slots, sizeof *map->values);
    return map->keys == NULL || map->values == NULL ? P4_E_SYSTEM : P4_OK;
}

void p4_tok_map_free(p4_tok_map *map)
{
    free(map->keys);
    free(map->values);
    *map = (p4_tok_map){0};
}

bool p4_tok_map_put(p4_tok_map *map, p4_tok_text key, int32_t value)
{
    size_t slot = p4_tok_map_slot(map, key.data, key.bytes);
    if (map->keys[slot].data != NULL) {
        return false;
    }
    map->keys[slot] = key;
    map->values[slot] = value;
    return true;
}
