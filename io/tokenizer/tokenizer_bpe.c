/* tokenizer_bpe.c - hash tables, and byte-pair encoding: of all adjacent pairs with a merge the one of lowest
 * rank, the leftmost of equals, is merged, until none is left. A heap of (rank, position) makes that O(n log
 * n). */
#include <stdlib.h>

#include "io/tokenizer/tokenizer_internal.h"

static size_t slots_for(size_t count)
{
    size_t slots = 16;
    while (slots / 2 < count) {
        slots *= 2;
    }
    return slots;
}

p4_rc p4_tok_map_create(p4_tok_map *map, size_t count)
{
    map->slots = slots_for(count);
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

/* The slot that holds the key, or the free one where it belongs. */
static size_t map_slot(const p4_tok_map *map, const char *data, size_t bytes)
{
    size_t slot = (size_t)p4_tok_hash(data, bytes) & (map->slots - 1);
    while (map->keys[slot].data != NULL &&
           (map->keys[slot].bytes != bytes || memcmp(map->keys[slot].data, data, bytes) != 0)) {
        slot = (slot + 1) & (map->slots - 1);
    }
    return slot;
}

bool p4_tok_map_put(p4_tok_map *map, p4_tok_text key, int32_t value)
{
    size_t slot = map_slot(map, key.data, key.bytes);
    if (map->keys[slot].data != NULL) {
        return false;
    }
    map->keys[slot] = key;
    map->values[slot] = value;
    return true;
}

int32_t p4_tok_map_find(const p4_tok_map *map, const char *data, size_t bytes)
{
    if (map->slots == 0) {
        return -1;
    }
    size_t slot = map_slot(map, data, bytes);
    return map->keys[slot].data != NULL ? map->values[slot] : -1;
}

p4_rc p4_tok_merges_create(p4_tokenizer *tokenizer, size_t count)
{
    tokenizer->merge_slots = slots_for(count);
    tokenizer->merges = p4_alloc(tokenizer->merge_slots, sizeof *tokenizer->merges);
    if (tokenizer->merges == NULL) {
        return P4_E_SYSTEM;
    }
    for (size_t i = 0; i < tokenizer->merge_slots; i++) {
        tokenizer->merges[i].pair = UINT64_MAX;
    }
    return P4_OK;
}

static p4_tok_merge *merge_slot(const p4_tokenizer *tokenizer, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t h = pair * UINT64_C(0x9E3779B97F4A7C15);
    size_t slot = (size_t)(h ^ h >> 32) & (tokenizer->merge_slots - 1);
    while (tokenizer->merges[slot].pair != pair && tokenizer->merges[slot].pair != UINT64_MAX) {
        slot = (slot + 1) & (tokenizer->merge_slots - 1);
    }
    return &tokenizer->merges[slot];
}

void p4_tok_merges_put(p4_tokenizer *tokenizer, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    /* A pair listed twice has its last rank, as in the reference. */
    *merge_slot(tokenizer, left, right) =
        (p4_tok_merge){.pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, .rank = rank, .id = id};
}

p4_rc p4_tok_ids_reserve(p4_ids *ids, int64_t more)
{
    if (ids->capacity - ids->count >= more) {
        return P4_OK;
    }
    int64_t capacity = p4_max_i64(ids->count + more, ids->capacity + ids->capacity / 2 + 64);
    int32_t *grown = p4_resize(ids->ids, (size_t)capacity, sizeof *grown);
    if (grown == NULL) {
        return P4_E_SYSTEM;
    }
    ids->ids = grown;
    ids->capacity = capacity;
    return P4_OK;
}

/* --- the symbols of a piece --- */

static p4_rc reserve_symbols(p4_tokenizer_scratch *scratch, size_t count)
{
    if (count > INT32_MAX / 2) {
        return FAIL("%s: one piece of text has %zu bytes; at most %d can be encoded",
                    scratch->tokenizer->source, count, INT32_MAX / 2);
    }
    if (count <= scratch->symbol_capacity) {
        return P4_OK;
    }
    size_t capacity = count + count / 2 + 64;
    p4_tok_symbol *symbols = p4_resize(scratch->symbols, capacity, sizeof *symbols);
    if (symbols == NULL) {
        return P4_E_SYSTEM;
    }
    scratch->symbols = symbols;
    /* At most one entry a pair at the start, and a merge takes one out and puts at most two in. */
    uint64_t *heap = p4_resize(scratch->heap, 2 * capacity, sizeof *heap);
    if (heap == NULL) {
        return P4_E_SYSTEM;
    }
    scratch->heap = heap;
    scratch->symbol_capacity = capacity;
    return P4_OK;
}

static void push_symbol(p4_tokenizer_scratch *scratch, int32_t id)
{
    int32_t at = (int32_t)scratch->symbol_count++;
    scratch->symbols[at] =
        (p4_tok_symbol){.id = id, .previous = at - 1, .next = at + 1, .rank = P4_TOK_NO_RANK};
}

/* A character that is no token: its bytes' tokens, else the unknown token (a run is one of them with
 * fuse_unk), else nothing. The unknown token waits until a known character follows; the reference lets byte
 * tokens overtake it. */
static p4_rc push_unknown(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, p4_tok_text character,
                          bool *waiting)
{
    bool has_bytes = tokenizer->byte_fallback;
    for (size_t i = 0; i < character.bytes; i++) {
        has_bytes = has_bytes && tokenizer->fallback[(unsigned char)character.data[i]] >= 0;
    }
    if (has_bytes) {
        for (size_t i = 0; i < character.bytes; i++) {
            push_symbol(scratch, tokenizer->fallback[(unsigned char)character.data[i]]);
        }
        return P4_OK;
    }
    if (tokenizer->unk_token.data == NULL) {
        return P4_OK;
    }
    if (tokenizer->unk_id < 0) {
        return FAIL("%s: the text has \"%.*s\", which is no token, and neither is model.unk_token \"%.*s\"",
                    tokenizer->source, (int)character.bytes, character.data, (int)tokenizer->unk_token.bytes,
                    tokenizer->unk_token.data);
    }
    if (*waiting && !tokenizer->fuse_unk) {
        push_symbol(scratch, tokenizer->unk_id);
    }
    *waiting = true;
    return P4_OK;
}

static p4_rc split_into_symbols(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch,
                                p4_tok_text piece)
{
    p4_rc rc = P4_OK;
    bool waiting = false; /* an unknown token */
    char mapped[2];
    scratch->symbol_count = 0;
    /* A byte makes at most two symbols: those of its character in the byte alphabet. */
    TRY(reserve_symbols(scratch, tokenizer->byte_level ? 2 * piece.bytes : piece.bytes));
    for (size_t at = 0, length; at < piece.bytes; at += length) {
        p4_tok_text character = {piece.data + at, 1};
        int32_t id;
        length = 1;
        if (tokenizer->byte_level) {
            id = tokenizer->byte_id[(unsigned char)piece.data[at]];
            if (id < 0) {
                character = (p4_tok_text){mapped, p4_tok_byte_char((unsigned char)piece.data[at], mapped)};
            }
        } else {
            bool valid;
            character.bytes = length = p4_tok_sequence(character.data, piece.bytes - at, &valid);
            id = p4_tok_map_find(&tokenizer->vocab, character.data, length);
        }
        if (id < 0) {
            TRY(push_unknown(tokenizer, scratch, character, &waiting));
            continue;
        }
        if (waiting) {
            push_symbol(scratch, tokenizer->unk_id);
            waiting = false;
        }
        push_symbol(scratch, id);
    }
    if (waiting) {
        push_symbol(scratch, tokenizer->unk_id);
    }
    if (scratch->symbol_count > 0) {
        scratch->symbols[scratch->symbol_count - 1].next = -1;
    }
done:
    return rc;
}

/* --- merging --- */

static void heap_up(uint64_t *heap, size_t at)
{
    uint64_t entry = heap[at];
    while (at > 0 && heap[(at - 1) / 2] > entry) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = entry;
}

static void heap_down(uint64_t *heap, size_t count, size_t at)
{
    uint64_t entry = heap[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        child += child + 1 < count && heap[child + 1] < heap[child];
        if (heap[child] >= entry) {
            break;
        }
        heap[at] = heap[child];
    }
    heap[at] = entry;
}

/* Looks the merge of the symbol at `at` with its next up; true: there is one. */
static bool find_merge(const p4_tokenizer *tokenizer, p4_tok_symbol *symbols, int32_t at)
{
    p4_tok_symbol *left = &symbols[at];
    left->rank = P4_TOK_NO_RANK;
    if (left->next >= 0) {
        const p4_tok_merge *merge = merge_slot(tokenizer, left->id, symbols[left->next].id);
        if (merge->pair != UINT64_MAX) {
            left->rank = merge->rank;
            left->merged_id = merge->id;
        }
    }
    return left->rank != P4_TOK_NO_RANK;
}

static void merge_all(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch)
{
    p4_tok_symbol *symbols = scratch->symbols;
    uint64_t *heap = scratch->heap; /* rank << 32 | position */
    size_t count = 0;
    for (size_t i = 0; i < scratch->symbol_count; i++) {
        if (find_merge(tokenizer, symbols, (int32_t)i)) {
            heap[count++] = (uint64_t)symbols[i].rank << 32 | i;
        }
    }
    for (size_t i = count / 2; i-- > 0;) {
        heap_down(heap, count, i);
    }
    while (count > 0) {
        uint64_t top = heap[0];
        heap[0] = heap[--count];
        heap_down(heap, count, 0);
        int32_t at = (int32_t)(top & UINT32_MAX);
        p4_tok_symbol *left = &symbols[at];
        if (left->rank != top >> 32) {
            continue; /* one of the two has been merged since */
        }
        p4_tok_symbol *right = &symbols[left->next];
        left->id = left->merged_id;
        left->next = right->next;
        right->rank = P4_TOK_NO_RANK;
        right->id = -1;
        if (left->next >= 0) {
            symbols[left->next].previous = at;
        }
        if (find_merge(tokenizer, symbols, at)) {
            heap[count] = (uint64_t)left->rank << 32 | (uint32_t)at;
            heap_up(heap, count++);
        }
        if (left->previous >= 0 && find_merge(tokenizer, symbols, left->previous)) {
            heap[count] = (uint64_t)symbols[left->previous].rank << 32 | (uint32_t)left->previous;
            heap_up(heap, count++);
        }
    }
}

static p4_rc merge_piece(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, p4_tok_text piece,
                         p4_ids *ids)
{
    p4_rc rc = P4_OK;
    if (tokenizer->ignore_merges) {
        const p4_tok_map *whole = tokenizer->byte_level ? &tokenizer->bytes : &tokenizer->vocab;
        int32_t id = p4_tok_map_find(whole, piece.data, piece.bytes);
        if (id >= 0) {
            return p4_ids_append(ids, &id, 1);
        }
    }
    TRY(split_into_symbols(tokenizer, scratch, piece));
    merge_all(tokenizer, scratch);
    TRY(p4_tok_ids_reserve(ids, (int64_t)scratch->symbol_count));
    for (int32_t at = scratch->symbol_count > 0 ? 0 : -1; at >= 0; at = scratch->symbols[at].next) {
        ids->ids[ids->count++] = scratch->symbols[at].id;
    }
done:
    return rc;
}

/* Through the cache: text repeats its words. A slot keeps the piece that came last. */
static p4_rc cached_piece(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, p4_tok_text piece,
                          p4_ids *ids)
{
    p4_rc rc = P4_OK;
    if (piece.bytes > P4_TOK_CACHE_BYTES) {
        return merge_piece(tokenizer, scratch, piece, ids);
    }
    p4_tok_cached *slot = &scratch->cache[p4_tok_hash(piece.data, piece.bytes) & (P4_TOK_CACHE_SLOTS - 1)];
    if (slot->bytes == piece.bytes && memcmp(slot->piece, piece.data, piece.bytes) == 0) {
        TRY(p4_tok_ids_reserve(ids, P4_TOK_CACHE_IDS));
        memcpy(ids->ids + ids->count, slot->ids, sizeof slot->ids);
        ids->count += slot->count;
        return P4_OK;
    }
    int64_t before = ids->count;
    TRY(merge_piece(tokenizer, scratch, piece, ids));
    int64_t count = ids->count - before;
    if (count <= P4_TOK_CACHE_IDS) {
        slot->bytes = (uint8_t)piece.bytes;
        slot->count = (uint8_t)count;
        memcpy(slot->piece, piece.data, piece.bytes);
        if (count > 0) {
            memcpy(slot->ids, ids->ids + before, (size_t)count * sizeof *slot->ids);
        }
    }
done:
    return rc;
}

p4_rc p4_tok_piece(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, p4_tok_text piece,
                   p4_ids *ids)
{
    p4_rc rc = P4_OK;
    const p4_tok_text mark = {P4_TOK_MARK, 3};
    const char *at = piece.data, *end = piece.data + piece.bytes;
    while (tokenizer->cuts_at_marks && at < end) {
        /* A word: its marks, then everything up to the next mark. */
        const char *stop = at, *hit;
        while ((hit = p4_tok_find(stop, end, mark)) == stop) {
            stop += mark.bytes;
        }
        stop = hit == NULL ? end : hit;
        TRY(cached_piece(tokenizer, scratch, (p4_tok_text){at, (size_t)(stop - at)}, ids));
        at = stop;
    }
    if (at < end) {
        TRY(cached_piece(tokenizer, scratch, (p4_tok_text){at, (size_t)(end - at)}, ids));
    }
done:
    return rc;
}
