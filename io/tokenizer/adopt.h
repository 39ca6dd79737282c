/* adopt.h - the tokens that AutoTokenizer of transformers 5 adds to those of tokenizer.json:
 * added_tokens_decoder and the special tokens of tokenizer_config.json, added_tokens.json,
 * special_tokens_map.json. All Local. */
#ifndef P4_TOK_ADOPT_H
#define P4_TOK_ADOPT_H

#include "io/json/read.h"
#include "io/tokenizer/classes.h"

typedef struct p4_tok_sources { /* what a directory has; each may be NULL */
    cJSON *config;              /* tokenizer_config.json */
    cJSON *special_map;         /* special_tokens_map.json */
    cJSON *added;               /* added_tokens.json */
    const char *directory;
} p4_tok_sources;

/* Brings added_tokens of the tree `root` up to date. `chosen` (may be NULL) built the pipeline: of the tokens
 * of the file it keeps those that the others name. *changed: tokens were added, dropped, or got other
 * options. */
p4_rc p4_tok_adopt(cJSON *root, const p4_tok_sources *sources, const p4_tok_class *chosen, bool *changed);

#endif
