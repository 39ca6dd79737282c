/* unigram.h - the model Unigram of tokenizer.json: of all ways to cut a piece into tokens, the one whose
 * scores (logarithms of probabilities) have the largest sum. All Local. */
#ifndef P4_TOK_UNIGRAM_H
#define P4_TOK_UNIGRAM_H

#include "io/tokenizer/added.h"
#include "io/tokenizer/ids.h"

typedef struct p4_tok_unigram {
    const char *source; /* names the file in messages */
    p4_tok_trie trie;   /* the tokens; what it says of one is its id */
    double *scores;     /* heap: [count] by id */
    int32_t count;      /* 0: the model is not this one */
    double least_score;
    int32_t unk_id; /* -1: none */
    bool byte_fallback;
    int32_t fallback[256]; /* "<0xHH>", -1: not in the vocabulary */
} p4_tok_unigram;
void p4_tok_unigram_free(p4_tok_unigram *unigram);

typedef struct p4_tok_end { /* the best way to a byte of the piece */
    double score;
    size_t start; /* of its last token; SIZE_MAX: there is no way */
    int32_t id;   /* -1: unknown */
} p4_tok_end;

typedef struct p4_tok_unigram_scratch { /* zeroed at first */
    p4_tok_end *ends;
    size_t capacity;
} p4_tok_unigram_scratch;
void p4_tok_unigram_scratch_free(p4_tok_unigram_scratch *scratch);

/* Appends the ids of one piece of valid UTF-8. A run of unknown characters is one unknown token, or with
 * byte_fallback the tokens of its bytes if all are there. */
p4_rc p4_tok_unigram_encode(const p4_tok_unigram *unigram, p4_tok_unigram_scratch *scratch, p4_tok_text piece,
                            p4_ids *ids);

#endif
