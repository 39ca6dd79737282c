/* demo.h - the demo's own data: small English stories from a grammar, and a byte-level BPE of their words. */
#ifndef P4_DEMO_H
#define P4_DEMO_H

#include <stdio.h>

#include "src/leaf/base.h"

/* A named set of alternatives in the notation that stories.c explains: "first|second|third". */
typedef struct p4_story_rule {
    const char *name, *text;
} p4_story_rule;

extern const p4_story_rule p4_story_rules[];
extern const size_t p4_story_rules_count;

/* Text that grows: `bytes` characters and a final NUL. Zeroed is empty; the owner frees `text`. */
typedef struct p4_text {
    char *text;
    size_t bytes, capacity;
} p4_text;
p4_rc p4_text_append(p4_text *text, const char *bytes, size_t byte_count);

/* Replaces *story by story number `stream` of this seed: ASCII, one or more paragraphs, no final newline. A
 * pure function of (seed, stream); choices are made of integers only, so it is the same everywhere. Local. */
p4_rc p4_story_make(p4_text *story, uint64_t seed, uint64_t stream);

/* Byte-level BPE as GPT-2 does it: the text is split by GPT-2's pattern, the pieces are byte strings, the
 * commonest pair of neighbours is merged again and again; of equally common pairs the one with the smaller
 * ids wins. Id 0 is the end of text, 1 to 256 are the bytes in the order of their printable stand-ins, then
 * come the merges: the order of the reference library's trainer. */
typedef struct p4_bpe_trainer p4_bpe_trainer;
p4_rc p4_bpe_open(p4_bpe_trainer **trainer);
void p4_bpe_close(p4_bpe_trainer *trainer);
/* Counts the pieces of one document (UTF-8). Local. */
p4_rc p4_bpe_feed(p4_bpe_trainer *trainer, const char *text, size_t bytes);
/* Learns merges until the vocabulary has vocab_count entries; fails when the text repeats too little. Once.
 * Local. */
p4_rc p4_bpe_learn(p4_bpe_trainer *trainer, int vocab_count);
/* Writes tokenizer.json. A failed write shows in ferror(file). Local. */
void p4_bpe_write(const p4_bpe_trainer *trainer, FILE *file);

#endif
