#include "io/tokenizer/unigram.h"

#include <stdlib.h>

#include "io/utf8/utf8.h"

static const double unknown_penalty = 10.0; /* below the least score of a token, as in SentencePiece */

void p4_tok_unigram_free(p4_tok_unigram *unigram)
{
    p4_tok_trie_free(&unigram->trie);
    free(unigram->scores);
    *unigram = (p4_tok_unigram){0};
}

void p4_tok_unigram_scratch_free(p4_tok_unigram_scratch *scratch)
{
    free(scratch->ends);
    *scratch = (p4_tok_unigram_scratch){0};
}

static p4_rc reserve(p4_tok_unigram_scratch *scratch, size_t count)
{
    if (count > scratch->capacity) {
        size_t capacity = count + count / 2 + 64;
        p4_tok_end *grown = p4_resize(scratch->ends, capacity, sizeof *grown);
        if (grown == NULL) {
            return P4_E_SYSTEM;
        }
        scratch->ends = grown;
        scratch->capacity = capacity;
    }
    return P4_OK;
}

static void offer(p4_tok_end *end, double score, size_t start, int32_t id)
{
    if (end->start == SIZE_MAX || score > end->score) {
        *end = (p4_tok_end){.score = score, .start = start, .id = id};
    }
}

/* The best way to each end of a token, from the front to the back. */
static void search(const p4_tok_unigram *unigram, p4_tok_end *ends, p4_tok_text piece)
{
    for (size_t i = 0; i <= piece.bytes; i++) {
        ends[i] = (p4_tok_end){.start = SIZE_MAX, .id = -1};
    }
    const p4_tok_trie *trie = &unigram->trie;
    const double unknown = unigram->least_score - unknown_penalty; /* one number: the last bit decides ties */
    for (size_t start = 0, length; start < piece.bytes; start += length) {
        bool valid, single = false;
        double here = ends[start].score;
        length = p4_utf8_next(piece.data + start, piece.bytes - start, &valid);
        int32_t node = trie->root[(unsigned char)piece.data[start]];
        for (size_t at = start + 1; node != 0; at++) {
            int32_t id = trie->nodes[node].added;
            if (id >= 0) {
                offer(&ends[at], here + unigram->scores[id], start, id);
                single = single || at == start + length;
            }
            if (at == piece.bytes) {
                break;
            }
            node = trie->nodes[node].child;
            while (node != 0 && trie->nodes[node].byte != (unsigned char)piece.data[at]) {
                node = trie->nodes[node].sibling;
            }
        }
        if (!single) {
            offer(&ends[start + length], here + unknown, start, -1);
        }
    }
}

/* The ids of the unknown characters [start, stop), last one first. */
static p4_rc push_unknown(const p4_tok_unigram *unigram, p4_tok_text piece, size_t start, size_t stop,
                          p4_ids *ids)
{
    p4_rc rc = P4_OK;
    bool has_bytes = unigram->byte_fallback;
    for (size_t i = start; i < stop; i++) {
        has_bytes = has_bytes && unigram->fallback[(unsigned char)piece.data[i]] >= 0;
    }
    for (size_t i = stop; has_bytes && i-- > start;) {
        TRY(p4_ids_append(ids, &unigram->fallback[(unsigned char)piece.data[i]], 1));
    }
    CHECK(has_bytes || unigram->unk_id >= 0,
          "%s: the text has \"%.*s\", which is no token, and model.unk_id names none", unigram->source,
          (int)(stop - start < 60 ? stop - start : 60), piece.data + start);
    if (!has_bytes) {
        TRY(p4_ids_append(ids, &unigram->unk_id, 1));
    }
done:
    return rc;
}

p4_rc p4_tok_unigram_encode(const p4_tok_unigram *unigram, p4_tok_unigram_scratch *scratch, p4_tok_text piece,
                            p4_ids *ids)
{
    p4_rc rc = P4_OK;
    int64_t first = ids->count;
    TRY(reserve(scratch, piece.bytes + 1));
    search(unigram, scratch->ends, piece);
    for (size_t stop = piece.bytes; stop > 0;) {
        p4_tok_end end = scratch->ends[stop];
        size_t start = end.start;
        /* The unknown token itself, written in the text, joins a run of unknown characters. */
        bool unknown = end.id < 0 || end.id == unigram->unk_id;
        bool whole = end.id >= 0; /* the run is one token, whose id stays */
        while (unknown && start > 0 &&
               (scratch->ends[start].id < 0 || scratch->ends[start].id == unigram->unk_id)) {
            start = scratch->ends[start].start;
            whole = false;
        }
        if (unknown && !whole) {
            TRY(push_unknown(unigram, piece, start, stop, ids));
        } else {
            TRY(p4_ids_append(ids, &end.id, 1));
        }
        stop = start;
    }
    for (int64_t i = first, j = ids->count - 1; i < j; i++, j--) {
        int32_t id = ids->ids[i];
        ids->ids[i] = ids->ids[j];
        ids->ids[j] = id;
    }
done:
    return rc;
}
