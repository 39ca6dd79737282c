/* added.h - added tokens in text: the leftmost match, the longest at its place, with the token's own
 * conditions. All Local. */
#ifndef P4_TOK_ADDED_H
#define P4_TOK_ADDED_H

#include "io/tokenizer/map.h"

typedef struct p4_tok_added { /* an entry of added_tokens */
    p4_tok_text content;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} p4_tok_added;

/* The id that the reference gives the next added token, whatever a file says: that of the model's vocabulary,
 * or the next one behind the model's tokens and behind the added tokens before it. *last: the largest id of
 * an added token so far, -1 before the first one. */
int32_t p4_tok_added_id(int32_t *last, p4_tok_text content, const p4_tok_map *vocab, int32_t model_tokens);

typedef struct p4_tok_node { /* of a trie over bytes: first child, next sibling; 0: none */
    int32_t child, sibling;
    int32_t added; /* index of the added token that ends here, -1: none */
    unsigned char byte;
} p4_tok_node;

typedef struct p4_tok_trie {
    p4_tok_node *nodes; /* nodes[0] is not used */
    int32_t count, capacity;
    int32_t root[256]; /* node of a pattern's first byte */
} p4_tok_trie;

/* Of two equal patterns the first one counts. */
p4_rc p4_tok_trie_add(p4_tok_trie *trie, p4_tok_text pattern, int32_t added);
void p4_tok_trie_free(p4_tok_trie *trie);

/* Walks a text: added tokens, and the pieces between them. */
typedef struct p4_tok_scan {
    const p4_tok_trie *trie;
    const p4_tok_added *added;
    p4_tok_text text;
    size_t searched, emitted;    /* byte offsets: matching continues here; pieces up to here were returned */
    int32_t waiting;             /* added token to return next, -1: none */
    size_t space_from, space_to; /* the white space that rstrip saw last */
} p4_tok_scan;
void p4_tok_scan_start(p4_tok_scan *scan, const p4_tok_trie *trie, const p4_tok_added *added,
                       p4_tok_text text);
/* False at the end. *token: index of an added token, or -1 and *piece is text at byte *offset. */
bool p4_tok_scan_next(p4_tok_scan *scan, int32_t *token, p4_tok_text *piece, size_t *offset);

#endif
