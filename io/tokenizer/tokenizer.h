/* tokenizer.h - text -> token ids exactly as a Hugging Face tokenizer.json says (docs/methods.md 5), and
 * back.
 *
 *   tokenizer.c         opening, encoding, decoding, look-ups
 *   directory.c         a model directory -> the text of one tokenizer.json: classes.c (the pipelines that
 *                       transformers builds itself), adopt.c (added tokens), sentencepiece.c
 * (tokenizer.model) load.c              tokenizer.json -> state.h: vocabulary, merges (load_unigram.c:
 * scores), added tokens load_normalizer.c, load_splitter.c, load_decoder.c, post.c      the same: the
 * components (sequence.c walks them, members.c reads what several have) unicode.c, added.c, normalize.c
 * (forms.c, charsmap.c), split.c, bpe.c or unigram.c      the way of a text pattern.c (translate.c), match.c
 * patterns decode.c            ids -> text buffer.c, map.c, ids.c, byte_alphabet.c      the leaves */
#ifndef P4_TOKENIZER_H
#define P4_TOKENIZER_H

#include "io/tokenizer/ids.h"

typedef struct p4_tokenizer p4_tokenizer;

/* Reads the tokenizer of a model directory as AutoTokenizer of transformers 5 does: tokenizer.json, else
 * tokenizer.model, else vocab.json and merges.txt, with tokenizer_config.json, added_tokens.json,
 * special_tokens_map.json and the model_type of config.json. What is not supported is refused by name; a
 * decoder that is not, only by p4_tokenizer_decode. The caller closes. Local. */
p4_rc p4_tokenizer_open(p4_tokenizer **tokenizer, const char *directory);
/* Whether a directory has a tokenizer: the first of its files that p4_tokenizer_open looks for. Local. */
bool p4_tokenizer_present(const char *directory);
/* The names of the files that p4_tokenizer_open reads where they are there. */
enum { P4_TOKENIZER_FILES = 7 };
extern const char *const p4_tokenizer_files[P4_TOKENIZER_FILES];
/* From text in memory; `source` names it in messages. Local. */
p4_rc p4_tokenizer_parse(p4_tokenizer **tokenizer, const char *json, size_t json_bytes, const char *source);
void p4_tokenizer_close(p4_tokenizer *tokenizer);

/* Memory for encoding: 4 MiB and what the texts need. A tokenizer is read-only after opening, so that threads
 * may share it; each needs scratch memory of its own. The caller frees before the tokenizer is closed. Local.
 */
typedef struct p4_tokenizer_scratch p4_tokenizer_scratch;
p4_rc p4_tokenizer_scratch_create(p4_tokenizer_scratch **scratch, const p4_tokenizer *tokenizer);
void p4_tokenizer_scratch_free(p4_tokenizer_scratch *scratch);

/* Appends the ids of `text`: UTF-8, in which invalid parts become U+FFFD by the rule of Python's
 * errors="replace"; the number of invalid bytes is added to *replaced unless that is NULL. Special tokens in
 * the text are recognised; the post-processor's ids (BOS, EOS) are put around it only with add_special. On
 * failure `ids` is as before. Local. */
p4_rc p4_tokenizer_encode(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, const char *text,
                          size_t bytes, bool add_special, p4_ids *ids, int64_t *replaced);

/* Ids -> text as the file's decoder says, special tokens included: a heap string that the caller frees, which
 * ends at the first NUL character. P4_E_INPUT: an id without a token, a decoder that is not supported. Local.
 */
p4_rc p4_tokenizer_decode(const p4_tokenizer *tokenizer, const int32_t *ids, int64_t count, char **text);

int64_t p4_tokenizer_vocab_count(const p4_tokenizer *tokenizer); /* largest id + 1 */
/* The id of a token, added tokens first; -1: unknown. */
int32_t p4_tokenizer_id(const p4_tokenizer *tokenizer, const char *token);
/* The text of tokenizer.json, or of the one that stands for the files of the directory. */
const char *p4_tokenizer_json(const p4_tokenizer *tokenizer);

#endif
