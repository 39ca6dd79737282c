/* gguf_tensors.h - the tensors of a model under the names, in the types and with the order of rows that
 * llama.cpp expects. */
#ifndef P4_GGUF_TENSORS_H
#define P4_GGUF_TENSORS_H

#include "io/export/gguf_arch.h"
#include "io/export/source.h"

/* The order of the rows of a matrix, or of the elements of its bias. */
typedef enum p4_gguf_order {
    P4_GGUF_AS_STORED,
    P4_GGUF_IN_PAIRS, /* element i and i + D/2 of each head become neighbors */
    P4_GGUF_BY_KIND,  /* stored by key/value head, each with its queries, key and value: all queries, keys,
                         values */
} p4_gguf_order;

typedef struct p4_gguf_part { /* where the data of a tensor comes from */
    int64_t param;            /* -1: `values` */
    int64_t step;             /* of a tensor with the matrices of all experts: from one's to the next one's */
    p4_gguf_order order;
    bool gain_offset; /* 1 is added: the model stores gains as their difference from 1 */
    float *values;    /* heap: computed, [cols] */
} p4_gguf_part;

/* Which blocks the ternary tensors get; a tensor that does not fill them is written as fp16. */
typedef enum p4_gguf_blocks {
    P4_GGUF_BLOCKS_BEST, /* TQ2_0 where the rows fill it, else Q2_0 */
    P4_GGUF_BLOCKS_TQ2_0,
    P4_GGUF_BLOCKS_TQ1_0,
    P4_GGUF_BLOCKS_Q2_0,
    P4_GGUF_BLOCKS_I2_S, /* of bitnet.cpp: matrices with one scale */
} p4_gguf_blocks;

typedef struct p4_gguf_tensors {
    int64_t count;
    p4_gguf_tensor *tensors;
    p4_gguf_part *parts;
    int64_t bytes; /* of all data with padding */
} p4_gguf_tensors;

/* Lists them. The caller frees. Local. */
p4_rc p4_gguf_list(p4_gguf_tensors *list, const p4_model *model, const p4_gguf_arch *gguf,
                   p4_gguf_blocks blocks);
void p4_gguf_list_free(p4_gguf_tensors *list);

int64_t p4_gguf_row_bytes(const p4_gguf_tensor *tensor);
/* What lies between the last row of tensor `index` and the padding: t->bytes minus the rows. Local. */
void p4_gguf_fill_tail(const p4_gguf_tensors *list, const p4_export_source *source, uint8_t tail[4],
                       int64_t index);
/* Rows [first, first + rows) of tensor `index`, made in `to`, or *made where they are, as the fill of
 * p4_stream. Several threads at once, each with a space of its own. Local. */
p4_rc p4_gguf_fill(const p4_gguf_tensors *list, const p4_export_source *source, p4_export_space *space,
                   uint8_t *to, const void **made, int64_t index, int64_t first, int64_t rows);
/* The rows that a piece of tensor `index` should begin at a multiple of, as p4_export_step. Local. */
p4_rc p4_gguf_step(const p4_gguf_tensors *list, const p4_export_source *source, int64_t *rows, int64_t index);

#endif
