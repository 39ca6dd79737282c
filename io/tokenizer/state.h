/* state.h - a tokenizer.json in memory: what the loaders (load.c, parts.c, post.c) fill in and tokenizer.c
 * runs. */
#ifndef P4_TOK_STATE_H
#define P4_TOK_STATE_H

#include "io/tokenizer/added.h"
#include "io/tokenizer/bpe.h"
#include "io/tokenizer/decode.h"
#include "io/tokenizer/normalize.h"
#include "io/tokenizer/split.h"
#include "io/tokenizer/tokenizer.h"
#include "io/tokenizer/unigram.h"

typedef struct p4_tok_special { /* ids that add_special puts around a text */
    int32_t *ids;
    int64_t count;
} p4_tok_special;

struct p4_tokenizer {
    char *source; /* named in messages */
    char *json;   /* the whole file */
    size_t json_bytes;
    p4_tok_strings strings; /* every string of the file that is kept; the parts below borrow them */

    p4_tok_text *token_text; /* [vocab_count], data NULL: no token has this id */
    int64_t vocab_count;
    int32_t model_tokens; /* the tokens of model.vocab */
    int32_t last_added;   /* the largest id of an added token so far; -1: none */

    p4_tok_added *added; /* added tokens */
    int32_t added_count;
    p4_tok_map added_ids;
    p4_tok_trie raw_trie, normal_trie; /* those matched before and after the normalizer */

    p4_tok_normalizer normalizer;
    p4_tok_splitter splitter;
    p4_tok_bpe bpe;
    p4_tok_unigram unigram; /* count 0: the model is BPE */
    p4_tok_special before, after;
    p4_tok_decoder decoder;
};

/* The id of a token, added tokens first; -1: unknown. Local. */
static inline int32_t p4_tok_id(const p4_tokenizer *tokenizer, const char *token, size_t bytes)
{
    int32_t id = p4_tok_map_find(&tokenizer->added_ids, token, bytes);
    return id >= 0 ? id : p4_tok_map_find(&tokenizer->bpe.vocab, token, bytes);
}

#endif
