/* gguf_file.h - the container GGUF, version 3: keys with values, tensors with their types and places, data.
 */
#ifndef P4_GGUF_FILE_H
#define P4_GGUF_FILE_H

#include "io/tokenizer/buffer.h"

enum {
    P4_GGUF_NAME_BYTES = 64,
    P4_GGUF_ALIGNMENT = 32, /* of each tensor's data: the format's own where it names none */
};

/* Numbers of the format. */
typedef enum p4_gguf_type {
    P4_GGUF_F32 = 0,
    P4_GGUF_F16 = 1,
    P4_GGUF_TQ1_0 = 34,
    P4_GGUF_TQ2_0 = 35,
    P4_GGUF_I2_S = 36, /* of bitnet.cpp alone: llama.cpp gives this number to no type */
    P4_GGUF_Q2_0 = 42,
} p4_gguf_type;
typedef enum p4_gguf_value {
    P4_GGUF_VALUE_U32 = 4,
    P4_GGUF_VALUE_I32 = 5,
    P4_GGUF_VALUE_F32 = 6,
    P4_GGUF_VALUE_BOOL = 7,
    P4_GGUF_VALUE_TEXT = 8,
    P4_GGUF_VALUE_LIST = 9,
} p4_gguf_value;

typedef struct p4_gguf_tensor {
    char name[P4_GGUF_NAME_BYTES];
    p4_gguf_type type;
    bool vector;
    int64_t rows, cols; /* a vector is [1, n] */
    int64_t stacked;    /* matrices in a third dimension, which divide the rows; 0: there is none */
    int64_t bytes;      /* of its data, without padding */
} p4_gguf_tensor;

/* The part before the data. Begins empty, {.arch = ...}. A key that starts with "." gets the architecture
 * before it. What fails is remembered: p4_gguf_finish returns it. All Local. */
typedef struct p4_gguf {
    const char *arch;
    p4_tok_buffer keys, head;
    int64_t key_count;
    p4_rc rc;
} p4_gguf;

void p4_gguf_put_u32(p4_gguf *g, const char *key, int64_t value);
void p4_gguf_put_f32(p4_gguf *g, const char *key, double value);
void p4_gguf_put_bool(p4_gguf *g, const char *key, bool value);
void p4_gguf_put_text(p4_gguf *g, const char *key, const char *value);
/* A list: this, then its elements with one of p4_gguf_add_*. */
void p4_gguf_put_list(p4_gguf *g, const char *key, p4_gguf_value of, int64_t count);
void p4_gguf_add_i32(p4_gguf *g, int32_t value);
void p4_gguf_add_f32(p4_gguf *g, float value);
void p4_gguf_add_text(p4_gguf *g, const char *data, size_t bytes);

/* Bytes of zeros behind `bytes` of data. */
int64_t p4_gguf_padding(int64_t bytes);
/* g->head: everything before the data, padded. The tensors' data must follow in this order, each padded. */
p4_rc p4_gguf_finish(p4_gguf *g, const p4_gguf_tensor *tensors, int64_t count);
void p4_gguf_free(p4_gguf *g);

#endif
