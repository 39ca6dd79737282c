/* sentencepiece.h - a SentencePiece model (tokenizer.model) as the tree of a tokenizer.json. Local. */
#ifndef P4_TOK_SENTENCEPIECE_H
#define P4_TOK_SENTENCEPIECE_H

#include "io/json/read.h"
#include "io/tokenizer/classes.h"

/* The tree that transformers 5 builds of the model, for a class (its pipeline is put in by
 * p4_tok_class_apply) or, with NULL, by the model's own settings. `config` (tokenizer_config.json, may be
 * NULL) has the option legacy. The caller deletes *root with cJSON_Delete; it is NULL after an error.
 * `source` names the file in messages. */
p4_rc p4_tok_sentencepiece(cJSON **root, const void *model, size_t bytes, const p4_tok_class *chosen,
                           const cJSON *config, const char *source);

#endif
