/* buffer.h - pieces of text (borrowed bytes), buffers that grow, and a store of strings. All Local. */
#ifndef P4_TOK_BUFFER_H
#define P4_TOK_BUFFER_H

#include "src/leaf/base.h"

typedef struct p4_tok_text { /* borrowed bytes; a NUL does not end them */
    const char *data;
    size_t bytes;
} p4_tok_text;

typedef struct p4_tok_buffer { /* owned bytes */
    char *data;
    size_t bytes, capacity;
} p4_tok_buffer;

p4_rc p4_tok_buffer_reserve(p4_tok_buffer *buffer, size_t more);
p4_rc p4_tok_buffer_append(p4_tok_buffer *buffer, const char *data, size_t bytes);
/* Appends `text` with every `from` (not empty) replaced by `to`. */
p4_rc p4_tok_buffer_replace(p4_tok_buffer *buffer, p4_tok_text text, p4_tok_text from, p4_tok_text to);
void p4_tok_buffer_free(p4_tok_buffer *buffer);
/* The first `what` (not empty) in [at, end), or NULL. */
const char *p4_tok_find(const char *at, const char *end, p4_tok_text what);

enum { P4_TOK_STEPS_MAX = 32 }; /* primitive steps of a normalizer, pre-tokenizer or decoder */

/* Refuses a step of `part` that makes more than P4_TOK_GROWTH_MAX times the bytes of the text, beside 1 KiB:
 * a few Replace steps can multiply without end. */
enum { P4_TOK_GROWTH_MAX = 64 };
p4_rc p4_tok_growth_check(const char *source, const char *part, size_t before, size_t bytes);

/* NUL-terminated copies that live as long as the store, which does not move them: its capacity is set once.
 */
typedef struct p4_tok_strings {
    char *data;
    size_t bytes, capacity;
} p4_tok_strings;
p4_rc p4_tok_strings_create(p4_tok_strings *strings, size_t capacity);
p4_rc p4_tok_keep(p4_tok_strings *strings, p4_tok_text *kept, const char *data, size_t bytes);
void p4_tok_strings_free(p4_tok_strings *strings);

#endif
