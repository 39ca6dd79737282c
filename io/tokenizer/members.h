/* members.h - members of the components of tokenizer.json that several kinds of components have. All Local.
 */
#ifndef P4_TOK_MEMBERS_H
#define P4_TOK_MEMBERS_H

#include "io/json/read.h"
#include "io/tokenizer/buffer.h"
#include "io/tokenizer/tokenizer.h"

typedef enum p4_tok_scheme { P4_TOK_SCHEME_ALWAYS, P4_TOK_SCHEME_FIRST, P4_TOK_SCHEME_NEVER } p4_tok_scheme;

/* A string, kept with the tokenizer's strings. */
p4_rc p4_tok_keep_member(p4_tokenizer *tokenizer, p4_tok_text *kept, const char *where, const cJSON *object,
                         const char *key);
/* pattern: {"String": "x"} (*literal) or {"Regex": "x"}, not empty. */
p4_rc p4_tok_read_pattern(p4_tokenizer *tokenizer, p4_tok_text *pattern, bool *literal, const char *where,
                          const cJSON *part);
/* pattern and content of a Replace. */
p4_rc p4_tok_read_replace(p4_tokenizer *tokenizer, p4_tok_text *from, bool *literal, p4_tok_text *to,
                          const char *where, const cJSON *part);
/* replacement: the character that stands for a space in a Metaspace. */
p4_rc p4_tok_read_mark(p4_tokenizer *tokenizer, p4_tok_text *mark, const char *where, const cJSON *part);
/* prepend_scheme of a Metaspace; the older add_prefix_space false is "never", and may not contradict it. */
p4_rc p4_tok_read_scheme(const p4_tokenizer *tokenizer, p4_tok_scheme *chosen, const char *where,
                         const cJSON *part);

#endif
