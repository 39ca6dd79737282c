/* bpe.h - the model of tokenizer.json, byte-pair encoding: of all adjacent pairs with a merge, the one of
 * lowest rank, the leftmost of equals, is merged until none is left. A heap of (rank, position) makes that
 * O(n log n). */
#ifndef P4_TOK_BPE_H
#define P4_TOK_BPE_H

#include "io/tokenizer/ids.h"
#include "io/tokenizer/map.h"
#include "io/tokenizer/unigram.h"

#define P4_TOK_MARK "\xe2\x96\x81" /* U+2581, which SentencePiece vocabularies write for a space */

typedef struct p4_tok_merge { /* a slot of the merge table */
    uint64_t pair;            /* left id << 32 | right id; UINT64_MAX: free */
    uint32_t rank;
    int32_t id; /* of the token that the pair becomes */
} p4_tok_merge;

typedef struct p4_tok_bpe {
    const p4_tok_unigram *unigram; /* not NULL: this model encodes the pieces; vocab has its tokens */
    const char *source;            /* names the file in messages */
    p4_tok_map vocab;              /* tokens */
    p4_tok_map bytes;              /* byte-level with ignore_merges: the tokens as the bytes they stand for */
    p4_tok_merge *merges;
    size_t merge_slots;
    bool byte_level, byte_fallback, fuse_unk, ignore_merges;
    bool cuts_at_marks;    /* words, which begin with a mark, can be merged one by one */
    p4_tok_text unk_token; /* data NULL: none */
    int32_t unk_id;        /* -1: not in the vocabulary */
    int32_t byte_id[256];  /* byte-level: the symbol of a byte, -1: not in the vocabulary */
    int32_t fallback[256]; /* "<0xHH>", -1: not in the vocabulary */
} p4_tok_bpe;

p4_rc p4_tok_merges_create(p4_tok_bpe *bpe, size_t count); /* for `count` merges */
void p4_tok_merges_put(p4_tok_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id);
void p4_tok_bpe_free(p4_tok_bpe *bpe);

typedef struct p4_tok_symbol { /* of a piece being merged: a doubly linked list in an array */
    int32_t id;
    int32_t previous, next; /* -1: none */
    uint32_t rank;          /* of the merge with the next symbol; UINT32_MAX: none */
    int32_t merged_id;
} p4_tok_symbol;

enum {
    P4_TOK_CACHE_SLOTS = 1 << 16,
    P4_TOK_CACHE_BYTES = 30, /* longest piece and most ids that the cache keeps: an entry is one cache line */
    P4_TOK_CACHE_IDS = 8,
};
typedef struct p4_tok_cached { /* what a short piece was encoded to; bytes 0: free */
    uint8_t bytes, count;
    char piece[P4_TOK_CACHE_BYTES];
    int32_t ids[P4_TOK_CACHE_IDS];
} p4_tok_cached;

typedef struct p4_tok_bpe_scratch {
    p4_tok_symbol *symbols;
    uint64_t *heap; /* twice as many as symbols */
    size_t symbol_count, symbol_capacity;
    p4_tok_unigram_scratch unigram;
    p4_tok_cached *cache; /* [P4_TOK_CACHE_SLOTS] */
} p4_tok_bpe_scratch;
p4_rc p4_tok_bpe_scratch_create(p4_tok_bpe_scratch *scratch);
void p4_tok_bpe_scratch_free(p4_tok_bpe_scratch *scratch);

/* Appends the ids of one piece of valid UTF-8. Local. */
p4_rc p4_tok_bpe_encode(const p4_tok_bpe *bpe, p4_tok_bpe_scratch *scratch, p4_tok_text piece, p4_ids *ids);

#endif
