/* post.h - the ids around a text: the post_processor of tokenizer.json, and the two flags of
 * tokenizer_config.json that override it. */
#ifndef P4_TOK_POST_H
#define P4_TOK_POST_H

#include "io/json/read.h"
#include "io/tokenizer/tokenizer.h"

/* Fills in the special ids; the vocabulary and the added tokens must be there. Local. */
p4_rc p4_tok_load_post(p4_tokenizer *tokenizer, const cJSON *root);
/* Applies add_bos_token and add_eos_token of a tokenizer_config.json. Local. */
p4_rc p4_tok_apply_config(p4_tokenizer *tokenizer, const char *json, size_t bytes, const char *source);

#endif
