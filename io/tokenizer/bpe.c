#include "io/tokenizer/bpe.h"

#include <stdlib.h>

#include "io/tokenizer/byte_alphabet.h"
#include "io/utf8/utf8.h"

#define NO_RANK UINT32_MAX

p4_rc p4_tok_merges_create(p4_tok_bpe *bpe, size_t count)
{
    bpe->merge_slots = p4_tok_slots_for(count);
    bpe->merges = p4_alloc(bpe->merge_slots, sizeof *bpe->merges);
    if (bpe->merges == NULL) {
        return P4_E_SYSTEM;
    }
    for (size_t i = 0; i < bpe->merge_slots; i++) {
        bpe->merges[i].pair = UINT64_MAX;
    }
    return P4_OK;
}

static p4_tok_merge *merge_slot(const p4_tok_bpe *bpe, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t h = pair * UINT64_C(0x9E3779B97F4A7C15);
    size_t slot = (size_t)(h ^ h >> 32) & (bpe->merge_slots - 1);
    while (bpe->merges[slot].pair != pair && bpe->merges[slot].pair != UINT64_MAX) {
        slot = (slot + 1) & (bpe->merge_slots - 1);
    }
    return &bpe->merges[slot];
}

void p4_tok_merges_put(p4_tok_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    /* A pair listed twice has its last rank, as in the reference. */
    *merge_slot(bpe, left, right) =
        (p4_tok_merge){.pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, .rank = rank, .id = id};
}

void p4_tok_bpe_free(p4_tok_bpe *bpe)
{
    p4_tok_map_free(&bpe->vocab);
    p4_tok_map_free(&bpe->bytes);
    free(bpe->merges);
    *bpe = (p4_tok_bpe){0};
}

p4_rc p4_tok_bpe_scratch_create(p4_tok_bpe_scratch *scratch)
{
    *scratch = (p4_tok_bpe_scratch){.cache = p4_alloc(P4_TOK_CACHE_SLOTS, sizeof *scratch->cache)};
    return scratch->cache != NULL ? P4_OK : P4_E_SYSTEM;
}

void p4_tok_bpe_scratch_free(p4_tok_bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    p4_tok_unigram_scratch_free(&scratch->unigram);
    free(scratch->cache);
    *scratch = (p4_tok_bpe_scratch){0};
}

/* --- the symbols of a piece --- */

static p4_rc reserve_symbols(p4_tok_bpe_scratch *scratch, size_t count, const char *source)
{
    if (count > INT32_MAX / 2) {
        return FAIL("%s: one piece of text has %zu bytes; at most %d can be encoded", source, count,
                    INT32_MAX / 2);
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
    /* At most one entry a pair at the start; a merge removes one and adds at most two. */
    uint64_t *heap = p4_resize(scratch->heap, 2 * capacity, sizeof *heap);
    if (heap == NULL) {
        return P4_E_SYSTEM;
    }
    scratch->heap = heap;
    scratch->symbol_capacity = capacity;
    return P4_OK;
}

static void push_symbol(p4_tok_bpe_scratch *scratch, int32_t id)
{
    int32_t at = (int32_t)scratch->symbol_count++;
    scratch->symbols[at] = (p4_tok_symbol){.id = id, .previous = at - 1, .next = at + 1, .rank = NO_RANK};
}

/* A character that is not a token becomes the tokens of its bytes, or else the unknown token (one for a whole
 * run with fuse_unk), or else nothing. The unknown token is held back until a known character follows: in the
 * reference, byte tokens overtake it. */
static p4_rc push_unknown(const p4_tok_bpe *bpe, p4_tok_bpe_scratch *scratch, p4_tok_text character,
                          bool *waiting)
{
    bool has_bytes = bpe->byte_fallback;
    for (size_t i = 0; i < character.bytes; i++) {
        has_bytes = has_bytes && bpe->fallback[(unsigned char)character.data[i]] >= 0;
    }
    if (has_bytes) {
        for (size_t i = 0; i < character.bytes; i++) {
            push_symbol(scratch, bpe->fallback[(unsigned char)character.data[i]]);
        }
        return P4_OK;
    }
    if (bpe->unk_token.data == NULL) {
        return P4_OK;
    }
    if (bpe->unk_id < 0) {
        return FAIL("%s: the text has \"%.*s\", which is no token, and neither is model.unk_token \"%.*s\"",
                    bpe->source, (int)character.bytes, character.data, (int)bpe->unk_token.bytes,
                    bpe->unk_token.data);
    }
    if (*waiting && !bpe->fuse_unk) {
        push_symbol(scratch, bpe->unk_id);
    }
    *waiting = true;
    return P4_OK;
}

static p4_rc split_into_symbols(const p4_tok_bpe *bpe, p4_tok_bpe_scratch *scratch, p4_tok_text piece)
{
    p4_rc rc = P4_OK;
    bool waiting = false; /* an unknown token is held back */
    char mapped[4];
    scratch->symbol_count = 0;
    /* A byte makes at most two symbols: those of its character in the byte alphabet. */
    TRY(reserve_symbols(scratch, bpe->byte_level ? 2 * piece.bytes : piece.bytes, bpe->source));
    for (size_t at = 0, length; at < piece.bytes; at += length) {
        p4_tok_text character = {piece.data + at, 1};
        int32_t id;
        length = 1;
        if (bpe->byte_level) {
            id = bpe->byte_id[(unsigned char)piece.data[at]];
            if (id < 0) {
                character = (p4_tok_text){mapped, p4_tok_byte_char((unsigned char)piece.data[at], mapped)};
            }
        } else {
            bool valid;
            character.bytes = length = p4_utf8_next(character.data, piece.bytes - at, &valid);
            id = p4_tok_map_find(&bpe->vocab, character.data, length);
        }
        if (id < 0) {
            TRY(push_unknown(bpe, scratch, character, &waiting));
            continue;
        }
        if (waiting) {
            push_symbol(scratch, bpe->unk_id);
            waiting = false;
        }
        push_symbol(scratch, id);
    }
    if (waiting) {
        push_symbol(scratch, bpe->unk_id);
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

/* Looks up the merge of the symbol at `at` with the next one; true: there is one. */
static bool find_merge(const p4_tok_bpe *bpe, p4_tok_symbol *symbols, int32_t at)
{
    p4_tok_symbol *left = &symbols[at];
    left->rank = NO_RANK;
    if (left->next >= 0) {
        const p4_tok_merge *merge = merge_slot(bpe, left->id, symbols[left->next].id);
        if (merge->pair != UINT64_MAX) {
            left->rank = merge->rank;
            left->merged_id = merge->id;
        }
    }
    return left->rank != NO_RANK;
}

static void merge_all(const p4_tok_bpe *bpe, p4_tok_bpe_scratch *scratch)
{
    p4_tok_symbol *symbols = scratch->symbols;
    uint64_t *heap = scratch->heap; /* rank << 32 | position */
    size_t count = 0;
    for (size_t i = 0; i < scratch->symbol_count; i++) {
        if (find_merge(bpe, symbols, (int32_t)i)) {
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
        right->rank = NO_RANK;
        right->id = -1;
        if (left->next >= 0) {
            symbols[left->next].previous = at;
        }
        if (find_merge(bpe, symbols, at)) {
            heap[count] = (uint64_t)left->rank << 32 | (uint32_t)at;
            heap_up(heap, count++);
        }
        if (left->previous >= 0 && find_merge(bpe, symbols, left->previous)) {
            heap[count] = (uint64_t)symbols[left->previous].rank << 32 | (uint32_t)left->previous;
            heap_up(heap, count++);
        }
    }
}

static p4_rc merge_piece(const p4_tok_bpe *bpe, p4_tok_bpe_scratch *scratch, p4_tok_text piece, p4_ids *ids)
{
    p4_rc rc = P4_OK;
    if (bpe->unigram != NULL) {
        return p4_tok_unigram_encode(bpe->unigram, &scratch->unigram, piece, ids);
    }
    if (bpe->ignore_merges) {
        const p4_tok_map *whole = bpe->byte_level ? &bpe->bytes : &bpe->vocab;
        int32_t id = p4_tok_map_find(whole, piece.data, piece.bytes);
        if (id >= 0) {
            return p4_ids_append(ids, &id, 1);
        }
    }
    TRY(split_into_symbols(bpe, scratch, piece));
    merge_all(bpe, scratch);
    TRY(p4_ids_reserve(ids, (int64_t)scratch->symbol_count));
    for (int32_t at = scratch->symbol_count > 0 ? 0 : -1; at >= 0; at = scratch->symbols[at].next) {
        ids->ids[ids->count++] = scratch->symbols[at].id;
    }
done:
    return rc;
}

/* Text repeats its words: the ids of short pieces are cached. A slot holds the piece that used it last. */
static p4_rc cached_piece(const p4_tok_bpe *bpe, p4_tok_bpe_scratch *scratch, p4_tok_text piece, p4_ids *ids)
{
    p4_rc rc = P4_OK;
    if (piece.bytes > P4_TOK_CACHE_BYTES) {
        return merge_piece(bpe, scratch, piece, ids);
    }
    p4_tok_cached *slot = &scratch->cache[p4_tok_hash(piece.data, piece.bytes) & (P4_TOK_CACHE_SLOTS - 1)];
    if (slot->bytes == piece.bytes && memcmp(slot->piece, piece.data, piece.bytes) == 0) {
        TRY(p4_ids_reserve(ids, P4_TOK_CACHE_IDS));
        memcpy(ids->ids + ids->count, slot->ids, sizeof slot->ids);
        ids->count += slot->count;
        return P4_OK;
    }
    int64_t before = ids->count;
    TRY(merge_piece(bpe, scratch, piece, ids));
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

p4_rc p4_tok_bpe_encode(const p4_tok_bpe *bpe, p4_tok_bpe_scratch *scratch, p4_tok_text piece, p4_ids *ids)
{
    p4_rc rc = P4_OK;
    const p4_tok_text mark = {P4_TOK_MARK, 3};
    const char *at = piece.data, *end = piece.data + piece.bytes;
    while (bpe->cuts_at_marks && at < end) {
        /* A word: its marks, then everything up to the next mark. */
        const char *stop = at, *hit;
        while ((hit = p4_tok_find(stop, end, mark)) == stop) {
            stop += mark.bytes;
        }
        stop = hit == NULL ? end : hit;
        TRY(cached_piece(bpe, scratch, (p4_tok_text){at, (size_t)(stop - at)}, ids));
        at = stop;
    }
    if (at < end) {
        TRY(cached_piece(bpe, scratch, (p4_tok_text){at, (size_t)(end - at)}, ids));
    }
done:
    return rc;
}
