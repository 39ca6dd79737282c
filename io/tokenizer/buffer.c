#include "io/tokenizer/buffer.h"

#include <stdlib.h>
#include <string.h>

p4_rc p4_tok_buffer_reserve(p4_tok_buffer *buffer, size_t more)
{
    size_t want;
    if (__builtin_add_overflow(buffer->bytes, more, &want) || want > SIZE_MAX / 2) {
        return FAULT("out of memory: a text of more than %zu bytes", SIZE_MAX / 2);
    }
    if (want > buffer->capacity) {
        size_t capacity = want + want / 2;
        char *grown = p4_resize(buffer->data, capacity, 1);
        if (grown == NULL) {
            return P4_E_SYSTEM;
        }
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    return P4_OK;
}

p4_rc p4_tok_buffer_append(p4_tok_buffer *buffer, const char *data, size_t bytes)
{
    p4_rc rc = P4_OK;
    TRY(p4_tok_buffer_reserve(buffer, bytes + 1));
    if (bytes > 0) {
        memcpy(buffer->data + buffer->bytes, data, bytes);
        buffer->bytes += bytes;
    }
done:
    return rc;
}

const char *p4_tok_find(const char *at, const char *end, p4_tok_text what)
{
    while ((size_t)(end - at) >= what.bytes) {
        at = memchr(at, what.data[0], (size_t)(end - at) - what.bytes + 1);
        if (at == NULL || memcmp(at, what.data, what.bytes) == 0) {
            return at;
        }
        at++;
    }
    return NULL;
}

p4_rc p4_tok_buffer_replace(p4_tok_buffer *buffer, p4_tok_text text, p4_tok_text from, p4_tok_text to)
{
    p4_rc rc = P4_OK;
    const char *at = text.data, *end = text.data + text.bytes, *hit;
    while ((hit = p4_tok_find(at, end, from)) != NULL) {
        TRY(p4_tok_buffer_append(buffer, at, (size_t)(hit - at)));
        TRY(p4_tok_buffer_append(buffer, to.data, to.bytes));
        at = hit + from.bytes;
    }
    TRY(p4_tok_buffer_append(buffer, at, (size_t)(end - at)));
done:
    return rc;
}

void p4_tok_buffer_free(p4_tok_buffer *buffer)
{
    free(buffer->data);
    *buffer = (p4_tok_buffer){0};
}

p4_rc p4_tok_growth_check(const char *source, const char *part, size_t before, size_t bytes)
{
    if (bytes / P4_TOK_GROWTH_MAX > before + 1024 / P4_TOK_GROWTH_MAX) {
        return FAIL("%s: the %s turns a text of %zu bytes into %zu bytes or more; at most %d times as many "
                    "are supported",
                    source, part, before, bytes, P4_TOK_GROWTH_MAX);
    }
    return P4_OK;
}

p4_rc p4_tok_strings_create(p4_tok_strings *strings, size_t capacity)
{
    *strings = (p4_tok_strings){.data = p4_alloc(capacity, 1), .capacity = capacity};
    return strings->data != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_tok_keep(p4_tok_strings *strings, p4_tok_text *kept, const char *data, size_t bytes)
{
    if (bytes >= strings->capacity - strings->bytes) {
        return FAULT("the strings of a tokenizer need more than %zu bytes", strings->capacity);
    }
    char *to = strings->data + strings->bytes;
    memcpy(to, data, bytes);
    to[bytes] = '\0';
    strings->bytes += bytes + 1;
    *kept = (p4_tok_text){to, bytes};
    return P4_OK;
}

void p4_tok_strings_free(p4_tok_strings *strings)
{
    free(strings->data);
    *strings = (p4_tok_strings){0};
}
