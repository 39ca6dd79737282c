/* parts.h - normalizer, pre_tokenizer and decoder of tokenizer.json as primitive steps. What these cannot
 * express is refused by name. */
#ifndef P4_TOK_PARTS_H
#define P4_TOK_PARTS_H

#include "io/json/read.h"
#include "io/tokenizer/tokenizer.h"

/* Fills in normalizer, splitter and bpe.byte_level. Local. */
p4_rc p4_tok_load_parts(p4_tokenizer *tokenizer, const cJSON *root);
/* Fills in the decoder, also when it is not supported: see p4_tok_decoder.refusal. Local. */
p4_rc p4_tok_load_decoder(p4_tokenizer *tokenizer, const cJSON *root);

#endif
