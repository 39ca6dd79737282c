/* parts.h - normalizer, pre_tokenizer and decoder of tokenizer.json as primitive steps. What these cannot
 * express is refused by name. All Local. */
#ifndef P4_TOK_PARTS_H
#define P4_TOK_PARTS_H

#include "io/json/read.h"
#include "io/tokenizer/tokenizer.h"

p4_rc p4_tok_load_normalizer(p4_tokenizer *tokenizer, const cJSON *root); /* load_normalizer.c */
/* Fills in splitter and bpe.byte_level. */
p4_rc p4_tok_load_splitter(p4_tokenizer *tokenizer, const cJSON *root); /* load_splitter.c */
/* Fills in the decoder, also when it is not supported: see p4_tok_decoder.refusal. */
p4_rc p4_tok_load_decoder(p4_tokenizer *tokenizer, const cJSON *root); /* load_decoder.c */

#endif
