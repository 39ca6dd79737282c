/* load.h - tokenizer.json -> p4_tokenizer: vocabulary, merges and added tokens here, the rest by parts.c and
 * post.c. */
#ifndef P4_TOK_LOAD_H
#define P4_TOK_LOAD_H

#include "io/json/read.h"
#include "io/tokenizer/tokenizer.h"

enum { P4_TOK_IDS_MAX = 1 << 22 }; /* the largest vocabulary accepted: four times the largest published */

/* Fills in a tokenizer whose source and json are set; all else is zero. After an error the caller closes it.
 * Local. */
p4_rc p4_tok_load(p4_tokenizer *tokenizer);
/* Vocabulary and scores of a model Unigram: load_unigram.c. Local. */
p4_rc p4_tok_load_unigram(p4_tokenizer *tokenizer, const cJSON *model);

#endif
