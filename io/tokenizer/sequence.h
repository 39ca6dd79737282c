/* sequence.h - walking a part of tokenizer.json (normalizer, pre_tokenizer, ...), which is one component or a
 * Sequence of them. */
#ifndef P4_TOK_SEQUENCE_H
#define P4_TOK_SEQUENCE_H

#include "io/json/read.h"
#include "io/tokenizer/tokenizer.h"

enum { P4_TOK_WHERE_BYTES = 128 }; /* a place in the file, for messages */

/* Reads one component: `where` is its place in the file, `type` its "type". */
typedef p4_rc p4_tok_component_reader(p4_tokenizer *tokenizer, const char *where, const cJSON *component,
                                      const char *type);
/* Calls `read` for the part `key` of the file if it is there, or for each component of it if it is a
 * Sequence, which lists them under `list_key`. Local. */
p4_rc p4_tok_walk(p4_tokenizer *tokenizer, const cJSON *root, const char *key, const char *list_key,
                  p4_tok_component_reader *read);
/* The refusal of a component. Local. */
p4_rc p4_tok_unsupported(const p4_tokenizer *tokenizer, const char *where, const char *type,
                         const char *supported);

#endif
