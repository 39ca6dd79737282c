/* gguf_blocks.h - the blocks of numbers of a GGUF file that are read: floats, and the ternary blocks of
 * llama.cpp, each with its own scale. All Local. */
#ifndef P4_GGUF_BLOCKS_H
#define P4_GGUF_BLOCKS_H

#include "src/leaf/tensor.h"

typedef struct p4_gguf_block {
    uint32_t type;       /* ggml's number */
    const char *name;    /* "TQ2_0" */
    int elements, bytes; /* of a block */
    p4_dtype dtype;      /* P4_TERNARY: blocks of trits */
} p4_gguf_block;

/* NULL: the type is not read. */
const p4_gguf_block *p4_gguf_block_of(uint32_t type);

/* The trits of a block as u = t + 1, a byte each, [block->elements]; the fp16 bits of its scale. False: a
 * code stands for no trit. */
bool p4_gguf_block_trits(uint8_t *u, uint16_t *scale, const p4_gguf_block *block, const uint8_t *from);

#endif
