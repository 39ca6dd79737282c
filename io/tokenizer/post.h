/* post.h - the ids around a text: the post_processor of tokenizer.json. */
#ifndef P4_TOK_POST_H
#define P4_TOK_POST_H

#include "io/json/read.h"
#include "io/tokenizer/tokenizer.h"

/* Fills in the special ids; the vocabulary and the added tokens must be there. Local. */
p4_rc p4_tok_load_post(p4_tokenizer *tokenizer, const cJSON *root);

#endif
