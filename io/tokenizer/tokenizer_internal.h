/* tokenizer_internal.h - what the tokenizer's own files share; nothing else includes it.
 *
 *   tokenizer.c          the public functions: open, encode, look-ups
 *   tokenizer_json.c     tokenizer.json -> p4_tokenizer: vocabulary, merges, added tokens
 *   tokenizer_parts.c    its normalizer, pre_tokenizer and decoder
 *   tokenizer_post.c     its post_processor; tokenizer_config.json
 *   tokenizer_added.c    finding added tokens in text
 *   tokenizer_split.c    running the normalizer and the pre-tokenizer
 *   tokenizer_pattern.c  Oniguruma patterns -> PCRE2
 *   tokenizer_bpe.c      hash tables, the merge engine, the piece cache
 *   tokenizer_text.c     UTF-8, character classes, NFC
 *   tokenizer_decode.c   ids -> text */
#ifndef P4_TOKENIZER_INTERNAL_H
#define P4_TOKENIZER_INTERNAL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "io/tokenizer/tokenizer.h"

enum {
    P4_TOK_IDS_MAX = 1 << 22,      /* the largest vocabulary accepted: four times the largest published */
    P4_TOK_STEPS_MAX = 32,         /* primitive steps of a normalizer, pre-tokenizer or decoder */
    P4_TOK_ADDED_BYTES_MAX = 1024, /* of an added token: a text is searched for the longest at every place */
    P4_TOK_REPLACE_BYTES_MAX = 64, /* of what a Replace puts in */
    P4_TOK_GROWTH_MAX = 64,        /* times that a normalizer or decoder may lengthen a text, beside 1 KiB */
    P4_TOK_CACHE_SLOTS = 1 << 16,
    P4_TOK_CACHE_BYTES = 30, /* longest piece and most ids that the cache keeps: an entry is one cache line */
    P4_TOK_CACHE_IDS = 8,
};
#define P4_TOK_MARK "\xe2\x96\x81" /* U+2581, which SentencePiece vocabularies write for a space */
#define P4_TOK_NO_RANK UINT32_MAX

typedef struct p4_tok_text { /* borrowed bytes */
    const char *data;
    size_t bytes;
} p4_tok_text;

typedef struct p4_tok_buffer { /* owned bytes that grow */
    char *data;
    size_t bytes, capacity;
} p4_tok_buffer;

typedef struct p4_tok_map { /* bytes -> id, open addressing; keys are borrowed */
    p4_tok_text *keys;      /* [slots], data NULL: free */
    int32_t *values;
    size_t slots; /* a power of two, 0: an empty map */
} p4_tok_map;

typedef struct p4_tok_merge { /* a slot of the merge table */
    uint64_t pair;            /* left id << 32 | right id; UINT64_MAX: free */
    uint32_t rank;
    int32_t id; /* of the token that the pair becomes */
} p4_tok_merge;

typedef struct p4_tok_added {
    p4_tok_text content;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} p4_tok_added;

typedef struct p4_tok_node { /* of a trie over bytes: first child, next sibling; 0 is none */
    int32_t child, sibling;
    int32_t added; /* index of the added token that ends here, -1: none */
    unsigned char byte;
} p4_tok_node;

typedef struct p4_tok_trie {
    p4_tok_node *nodes; /* nodes[0] is not used */
    int32_t count, capacity;
    int32_t root[256]; /* node of a pattern's first byte */
} p4_tok_trie;

typedef enum p4_tok_action {
    P4_TOK_NFC,
    P4_TOK_PREPEND, /* `to` before the text */
    P4_TOK_PREFIX,  /* the same unless the text begins with it */
    P4_TOK_REPLACE, /* every `from` by `to` */
    P4_TOK_SPLIT    /* pieces at the matches of `pattern` */
} p4_tok_action;

typedef enum p4_tok_behavior {
    P4_TOK_ISOLATED,
    P4_TOK_REMOVED,
    P4_TOK_CONTIGUOUS,
    P4_TOK_WITH_PREVIOUS,
    P4_TOK_WITH_NEXT
} p4_tok_behavior;

typedef struct p4_tok_step {
    p4_tok_action action;
    p4_tok_text from, to;
    bool first_only; /* PREFIX: only the piece at the very start of the document */
    p4_tok_behavior behavior;
    bool invert; /* SPLIT: what lies between the matches is the delimiter */
    pcre2_code *pattern;
} p4_tok_step;

typedef struct p4_tok_steps {
    p4_tok_step step[P4_TOK_STEPS_MAX];
    int count;
} p4_tok_steps;

typedef enum p4_tok_decoding {
    P4_TOK_D_BYTE_LEVEL,
    P4_TOK_D_REPLACE,
    P4_TOK_D_BYTE_FALLBACK,
    P4_TOK_D_FUSE,
    P4_TOK_D_STRIP,
    P4_TOK_D_METASPACE
} p4_tok_decoding;

typedef struct p4_tok_decoder {
    p4_tok_decoding action;
    p4_tok_text from, to; /* REPLACE; STRIP and METASPACE: the character is `from` */
    int64_t start, stop;  /* STRIP: at most so many at either end */
    bool drop_first;      /* METASPACE: the first token's marks vanish */
} p4_tok_decoder;

typedef struct p4_tok_special { /* ids that add_special puts around the text */
    int32_t *ids;
    int64_t count;
} p4_tok_special;

struct p4_tokenizer {
    char *source; /* named in messages */
    char *json;
    size_t json_bytes;
    char *strings; /* every string of the file that is kept; borrowed by maps and steps */
    size_t strings_bytes, strings_capacity;

    p4_tok_map vocab; /* the model's tokens */
    p4_tok_map bytes; /* byte-level with ignore_merges: the tokens as the bytes they stand for */
    p4_tok_map added_ids;
    p4_tok_text *token_text; /* [vocab_count], data NULL: no token has this id */
    int64_t vocab_count;
    p4_tok_merge *merges;
    size_t merge_slots;

    bool byte_level, byte_fallback, fuse_unk, ignore_merges;
    bool cuts_at_marks;    /* words, which begin with a mark, can be merged one by one */
    p4_tok_text unk_token; /* data NULL: none */
    int32_t unk_id;        /* -1: not in the vocabulary */
    int32_t byte_id[256];  /* byte-level: the symbol of a byte, -1: not in the vocabulary */
    int32_t fallback[256]; /* "<0xHH>", -1: not in the vocabulary */

    p4_tok_added *added;
    int32_t added_count;
    p4_tok_trie raw_trie, normal_trie; /* added tokens matched before and after the normalizer */
    p4_tok_steps normalizer, pre_tokenizer;
    p4_tok_special before, after;
    p4_tok_decoder decoder[P4_TOK_STEPS_MAX];
    int decoder_count;
    bool has_decoder;
};

typedef struct p4_tok_cached { /* what a short piece was encoded to; bytes 0: free */
    uint8_t bytes, count;
    char piece[P4_TOK_CACHE_BYTES];
    int32_t ids[P4_TOK_CACHE_IDS];
} p4_tok_cached;

typedef struct p4_tok_symbol { /* of a piece being merged: a doubly linked list in an array */
    int32_t id;
    int32_t previous, next; /* -1: none */
    uint32_t rank;          /* of the merge with the next symbol, or P4_TOK_NO_RANK */
    int32_t merged_id;
} p4_tok_symbol;

struct p4_tokenizer_scratch {
    const p4_tokenizer *tokenizer;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    p4_tok_buffer clean, normal[2];
    p4_tok_buffer step[P4_TOK_STEPS_MAX];
    int32_t *code_points; /* NFC */
    size_t code_point_capacity;
    p4_tok_symbol *symbols;
    uint64_t *heap;
    size_t symbol_count, symbol_capacity; /* heap holds twice as many */
    p4_tok_cached *cache;
};

/* --- tokenizer_text.c --- */
/* The length of the character at the start of `data`, or, with *valid false, of the longest part of one that
 * is to be replaced by one U+FFFD. bytes > 0. */
size_t p4_tok_sequence(const char *data, size_t bytes, bool *valid);
/* *text: the same text, invalid parts replaced in a copy in `buffer`; *replaced grows by the bytes that were
 * invalid. */
p4_rc p4_tok_clean(p4_tok_text *text, p4_tok_buffer *buffer, int64_t *replaced);
size_t p4_tok_valid_bytes(const char *data, size_t bytes); /* length of the valid beginning */
/* The bytes of white space at the end or start of valid text; whether it ends or starts with a word
 * character. */
size_t p4_tok_space_at_end(const char *data, size_t bytes);
size_t p4_tok_space_at_start(const char *data, size_t bytes);
bool p4_tok_word_at_end(const char *data, size_t bytes);
bool p4_tok_word_at_start(const char *data, size_t bytes);
p4_rc p4_tok_nfc(p4_tok_text *text, p4_tok_buffer *buffer, p4_tokenizer_scratch *scratch);
/* The character that a byte-level vocabulary writes for a byte: one or two bytes of UTF-8 into `to`; the
 * count. */
size_t p4_tok_byte_char(unsigned char byte, char to[2]);
/* The inverse: the byte of the character at the start of valid text and its length; false: not of that
 * alphabet. */
bool p4_tok_char_byte(const char *data, size_t bytes, unsigned char *byte, size_t *length);

p4_rc p4_tok_buffer_reserve(p4_tok_buffer *buffer, size_t more);
p4_rc p4_tok_buffer_append(p4_tok_buffer *buffer, const char *data, size_t bytes);
/* Appends `text` with every `from` replaced by `to`. */
p4_rc p4_tok_buffer_replace(p4_tok_buffer *buffer, p4_tok_text text, p4_tok_text from, p4_tok_text to);
void p4_tok_buffer_free(p4_tok_buffer *buffer);
/* The first `what` (not empty) in [at, end), or NULL. */
const char *p4_tok_find(const char *at, const char *end, p4_tok_text what);

/* Whether a text of so many bytes may become `bytes` long: a few Replace steps can multiply without end. */
p4_rc p4_tok_growth_check(const p4_tokenizer *tokenizer, const char *part, size_t before, size_t bytes);

/* --- tokenizer_pattern.c --- */
/* Compiles an Oniguruma pattern, or with `literal` a plain string, with the same meaning or not at all. */
p4_rc p4_tok_pattern_compile(pcre2_code **code, p4_tok_text pattern, bool literal, const char *source,
                             const char *where);
extern const char *const p4_tok_pattern_gpt2;

/* --- tokenizer_added.c --- */
p4_rc p4_tok_trie_add(p4_tok_trie *trie, p4_tok_text pattern, int32_t added);
typedef struct p4_tok_scan { /* walks a text: added tokens and what lies between them */
    const p4_tok_trie *trie;
    const p4_tok_added *added;
    p4_tok_text text;
    size_t searched, emitted;    /* byte offsets: matching goes on here; pieces were handed out up to here */
    int32_t waiting;             /* added token to hand out next, -1: none */
    size_t space_from, space_to; /* the white space that rstrip saw last */
} p4_tok_scan;
void p4_tok_scan_start(p4_tok_scan *scan, const p4_tok_trie *trie, const p4_tok_added *added,
                       p4_tok_text text);
/* False at the end. *token: index of an added token, or -1 and *piece is text at byte *offset. */
bool p4_tok_scan_next(p4_tok_scan *scan, int32_t *token, p4_tok_text *piece, size_t *offset);

/* --- tokenizer_split.c --- */
p4_rc p4_tok_normalize(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, p4_tok_text *text);
/* Splits `text` and appends the ids of its pieces. at_start: it begins where the document does. */
p4_rc p4_tok_pre_tokenize(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, p4_tok_text text,
                          bool at_start, p4_ids *ids);

/* --- tokenizer_bpe.c --- */
p4_rc p4_tok_map_create(p4_tok_map *map, size_t count);               /* room for so many keys */
bool p4_tok_map_put(p4_tok_map *map, p4_tok_text key, int32_t value); /* false: there already, unchanged */
int32_t p4_tok_map_find(const p4_tok_map *map, const char *data, size_t bytes); /* -1: not there */
void p4_tok_map_free(p4_tok_map *map);
p4_rc p4_tok_merges_create(p4_tokenizer *tokenizer, size_t count);
void p4_tok_merges_put(p4_tokenizer *tokenizer, int32_t left, int32_t right, uint32_t rank, int32_t id);
p4_rc p4_tok_piece(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, p4_tok_text piece,
                   p4_ids *ids);
p4_rc p4_tok_ids_reserve(p4_ids *ids, int64_t more);

/* --- tokenizer_json.c --- */
struct cJSON;
p4_rc p4_tok_json_load(p4_tokenizer *tokenizer);
/* Members of an object. A key that stands there twice or has the wrong type is refused, and so is a missing
 * one where it is required. `where` is the object's place in the file, "" for the whole. */
p4_rc p4_tok_json_member(const struct cJSON **item, const char *source, const char *where,
                         const struct cJSON *object, const char *key, bool required);
p4_rc p4_tok_json_bool(bool *value, const char *source, const char *where, const struct cJSON *object,
                       const char *key, bool required);
p4_rc p4_tok_json_string(p4_tok_text *value, const char *source, const char *where,
                         const struct cJSON *object, const char *key, bool required);
p4_rc p4_tok_json_integer(int64_t *value, const char *source, const char *where, const struct cJSON *object,
                          const char *key, int64_t limit); /* 0 to limit - 1, required */
/* A copy of a string of the file that lives as long as the tokenizer. */
p4_rc p4_tok_keep(p4_tokenizer *tokenizer, p4_tok_text *kept, const char *data, size_t bytes);

p4_rc p4_tok_json_parse(struct cJSON **root, const char *json, size_t bytes, const char *source);

/* --- tokenizer_parts.c --- */
enum { P4_TOK_WHERE_BYTES = 128 }; /* a place in the file, for messages */
p4_rc p4_tok_parts_load(p4_tokenizer *tokenizer, const struct cJSON *root);
/* Calls `read` on the part `key` of the file, or on each part of it if it is a Sequence, listed under
 * `list_key`. */
typedef p4_rc p4_tok_part_reader(p4_tokenizer *tokenizer, const char *where, const struct cJSON *part,
                                 const char *type);
p4_rc p4_tok_walk(p4_tokenizer *tokenizer, const struct cJSON *root, const char *key, const char *list_key,
                  p4_tok_part_reader *read);
p4_rc p4_tok_unsupported(const p4_tokenizer *tokenizer, const char *where, const char *type,
                         const char *supported);

/* --- tokenizer_post.c --- */
/* The ids around a text; after the vocabulary and the added tokens. */
p4_rc p4_tok_post_load(p4_tokenizer *tokenizer, const struct cJSON *root);
/* add_bos_token and add_eos_token of tokenizer_config.json win over the post-processor. */
p4_rc p4_tok_config_apply(p4_tokenizer *tokenizer, const char *json, size_t bytes, const char *source);

static inline uint64_t p4_tok_mix(uint64_t a, uint64_t b)
{
    uint64_t h = (a ^ b) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ (h >> 29);
}

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

#endif
