/* charsmap.h - the table of replacements that a SentencePiece model carries (the normalizer Precompiled): a
 * double-array trie from UTF-8 sequences to offsets in a block of NUL-terminated replacements. All Local. */
#ifndef P4_TOK_CHARSMAP_H
#define P4_TOK_CHARSMAP_H

#include "io/tokenizer/buffer.h"

typedef struct p4_tok_charsmap {
    uint32_t *units; /* heap: [unit_count] the trie */
    size_t unit_count;
    char *replacements; /* heap: [replacement_bytes], a NUL at the end */
    size_t replacement_bytes;
} p4_tok_charsmap;

/* From the binary table, or its base64 text. Every place that the trie can lead to is checked when it is
 * used. `source` and `where` name the file and the place in messages. The caller frees. */
p4_rc p4_tok_charsmap_read(p4_tok_charsmap *map, const char *base64, const char *source, const char *where);
void p4_tok_charsmap_free(p4_tok_charsmap *map);

/* Appends `text`, which is valid UTF-8, with the replacements made: of a grapheme cluster of up to five bytes
 * as a whole if the table has it, otherwise of each character. */
p4_rc p4_tok_charsmap_apply(const p4_tok_charsmap *map, p4_tok_buffer *buffer, p4_tok_text text);

/* Base64 of `bytes` bytes: a heap string that the caller frees. NULL: out of memory. */
char *p4_tok_base64(const uint8_t *data, size_t bytes);

#endif
