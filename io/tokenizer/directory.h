/* directory.h - the tokenizer of a model directory as the text of one tokenizer.json. Local. */
#ifndef P4_TOK_DIRECTORY_H
#define P4_TOK_DIRECTORY_H

#include "src/leaf/base.h"

enum { P4_TOK_FILE_BYTES_MAX = 1 << 28 };

/* Reads tokenizer.json, else tokenizer.model, else vocab.json and merges.txt, and what AutoTokenizer of
 * transformers 5 takes from the files beside it: the class (classes.h), the added tokens (adopt.h),
 * add_bos_token and add_eos_token. *json is the file's own text where nothing is changed; the caller frees it
 * and *source, the file that messages name. Local. */
p4_rc p4_tok_directory_read(char **json, size_t *bytes, char **source, const char *directory);

#endif
