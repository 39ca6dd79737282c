#include "io/export/gguf_file.h"

#include <string.h>

enum { VERSION = 3 };

static void put(p4_gguf *g, p4_tok_buffer *to, const void *data, size_t bytes)
{
    if (g->rc == P4_OK) {
        g->rc = p4_tok_buffer_append(to, data, bytes);
    }
}

/* Little-endian, as all numbers of the format. */
static void put_number(p4_gguf *g, p4_tok_buffer *to, uint64_t value, int bytes)
{
    char digits[8];
    for (int i = 0; i < bytes; i++) {
        digits[i] = (char)(value >> 8 * i);
    }
    put(g, to, digits, (size_t)bytes);
}

static void put_string(p4_gguf *g, p4_tok_buffer *to, const char *data, size_t bytes)
{
    put_number(g, to, bytes, 8);
    put(g, to, data, bytes);
}

static uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void begin(p4_gguf *g, const char *key, p4_gguf_value type)
{
    size_t arch_bytes = key[0] == '.' ? strlen(g->arch) : 0, bytes = strlen(key);
    put_number(g, &g->keys, arch_bytes + bytes, 8);
    put(g, &g->keys, g->arch, arch_bytes);
    put(g, &g->keys, key, bytes);
    put_number(g, &g->keys, (uint64_t)type, 4);
    g->key_count++;
}

void p4_gguf_put_u32(p4_gguf *g, const char *key, int64_t value)
{
    begin(g, key, P4_GGUF_VALUE_U32);
    put_number(g, &g->keys, (uint64_t)value, 4);
}

void p4_gguf_put_f32(p4_gguf *g, const char *key, double value)
{
    begin(g, key, P4_GGUF_VALUE_F32);
    p4_gguf_add_f32(g, (float)value);
}

void p4_gguf_put_bool(p4_gguf *g, const char *key, bool value)
{
    begin(g, key, P4_GGUF_VALUE_BOOL);
    put_number(g, &g->keys, value, 1);
}

void p4_gguf_put_text(p4_gguf *g, const char *key, const char *value)
{
    begin(g, key, P4_GGUF_VALUE_TEXT);
    p4_gguf_add_text(g, value, strlen(value));
}

void p4_gguf_put_list(p4_gguf *g, const char *key, p4_gguf_value of, int64_t count)
{
    begin(g, key, P4_GGUF_VALUE_LIST);
    put_number(g, &g->keys, (uint64_t)of, 4);
    put_number(g, &g->keys, (uint64_t)count, 8);
}

void p4_gguf_add_i32(p4_gguf *g, int32_t value)
{
    put_number(g, &g->keys, (uint32_t)value, 4);
}

void p4_gguf_add_f32(p4_gguf *g, float value)
{
    put_number(g, &g->keys, float_bits(value), 4);
}

void p4_gguf_add_text(p4_gguf *g, const char *data, size_t bytes)
{
    put_string(g, &g->keys, data, bytes);
}

int64_t p4_gguf_padding(int64_t bytes)
{
    return (P4_GGUF_ALIGNMENT - bytes % P4_GGUF_ALIGNMENT) % P4_GGUF_ALIGNMENT;
}

p4_rc p4_gguf_finish(p4_gguf *g, const p4_gguf_tensor *tensors, int64_t count)
{
    static const char zeros[P4_GGUF_ALIGNMENT] = {0};
    int64_t offset = 0;
    put(g, &g->head, "GGUF", 4);
    put_number(g, &g->head, VERSION, 4);
    put_number(g, &g->head, (uint64_t)count, 8);
    put_number(g, &g->head, (uint64_t)g->key_count, 8);
    put(g, &g->head, g->keys.data, g->keys.bytes);
    for (int64_t i = 0; i < count; i++) {
        const p4_gguf_tensor *t = &tensors[i];
        put_string(g, &g->head, t->name, strlen(t->name));
        put_number(g, &g->head, t->vector ? 1 : t->stacked > 0 ? 3 : 2, 4);
        put_number(g, &g->head, (uint64_t)t->cols, 8); /* the fastest dimension comes first */
        if (!t->vector) {
            put_number(g, &g->head, (uint64_t)(t->rows / p4_max_i64(1, t->stacked)), 8);
        }
        if (t->stacked > 0) {
            put_number(g, &g->head, (uint64_t)t->stacked, 8);
        }
        put_number(g, &g->head, (uint64_t)t->type, 4);
        put_number(g, &g->head, (uint64_t)offset, 8);
        offset += t->bytes + p4_gguf_padding(t->bytes);
    }
    put(g, &g->head, zeros, (size_t)p4_gguf_padding((int64_t)g->head.bytes));
    return g->rc;
}

void p4_gguf_free(p4_gguf *g)
{
    p4_tok_buffer_free(&g->keys);
    p4_tok_buffer_free(&g->head);
}
