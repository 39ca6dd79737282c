/* tokenizer.h - text -> token ids as a Hugging Face tokenizer.json says, exactly (docs/methods.md 5). */
#ifndef P4_TOKENIZER_H
#define P4_TOKENIZER_H

#include "src/leaf/base.h"

typedef struct p4_tokenizer p4_tokenizer;

typedef struct p4_ids {
    int32_t *ids; /* heap; grows */
    int64_t count, capacity;
} p4_ids;

/* Reads <directory>/tokenizer.json (and tokenizer_config.json's add_bos_token, add_eos_token when there).
 * Unsupported pieces are named and refused. The caller closes. Local. */
p4_rc p4_tokenizer_open(p4_tokenizer **tokenizer, const char *directory);
/* From text in memory; `source` names it in messages. Local. */
p4_rc p4_tokenizer_parse(p4_tokenizer **tokenizer, const char *json, size_t json_bytes, const char *source);
void p4_tokenizer_close(p4_tokenizer *tokenizer);

/* Appends the ids of `text` (UTF-8; what is invalid becomes U+FFFD by the rule of Python's errors="replace",
 * and the number of invalid bytes is added to *replaced when not NULL). Without the post-processor's BOS/EOS
 * unless add_special. Special tokens that stand in the text are recognised. On failure `ids` is as before.
 * Thread-safe: a tokenizer is read-only after opening; scratch memory (4 MiB and what the texts need) is per
 * p4_tokenizer_scratch. Local. */
typedef struct p4_tokenizer_scratch p4_tokenizer_scratch;
p4_rc p4_tokenizer_scratch_create(p4_tokenizer_scratch **scratch, const p4_tokenizer *tokenizer);
void p4_tokenizer_scratch_free(p4_tokenizer_scratch *scratch);
p4_rc p4_tokenizer_encode(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, const char *text,
                          size_t bytes, bool add_special, p4_ids *ids, int64_t *replaced);
void p4_ids_free(p4_ids *ids);
p4_rc p4_ids_append(p4_ids *ids, const int32_t *more, int64_t count);

/* Ids -> text as the decoder of the file says, special tokens included (heap string, caller frees; it ends at
 * the first NUL character). An id that is no token's is refused. Local. */
p4_rc p4_tokenizer_decode(const p4_tokenizer *tokenizer, const int32_t *ids, int64_t count, char **text);

int64_t p4_tokenizer_vocab_count(const p4_tokenizer *tokenizer); /* largest id + 1 */
int32_t p4_tokenizer_id(const p4_tokenizer *tokenizer,
                        const char *token); /* -1: unknown; added tokens first */
/* The whole tokenizer.json text, for model.h5. */
const char *p4_tokenizer_json(const p4_tokenizer *tokenizer);

#endif
