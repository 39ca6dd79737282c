/* inspect_tensor.h - the elements of one tensor of model.h5, block by block: counted, and compared with
 * dequantized_fp16. For jobs/inspect*.c. */
#ifndef P4_INSPECT_TENSOR_H
#define P4_INSPECT_TENSOR_H

#include "io/h5/artifact.h"
#include "kernels/ops.h"

/* Rows of a tensor in memory. */
typedef struct p4_tensor_block {
    const p4_artifact_tensor *tensor;
    int64_t first_row, rows;
    p4_weight weight; /* [rows, cols]: ternary or fp16 */
    uint8_t *stored;  /* as in the file: heap, p4_tensor_block_bytes */
    uint8_t *codes;   /* 2-bit: heap */
    uint16_t *scale;  /* heap */
    int64_t block;    /* rows that there is room for */
} p4_tensor_block;

/* Takes memory for blocks of a few MB. p4_tensor_block_close must follow, after an error too. */
p4_rc p4_tensor_block_open(p4_tensor_block *block, const p4_artifact_tensor *tensor);
void p4_tensor_block_close(p4_tensor_block *block);
/* Reads the rows from first_row on, as many as fit, and converts them on `host`, a device of the CPU. */
p4_rc p4_tensor_block_read(p4_tensor_block *block, p4_artifact_reader *reader, p4_device *host,
                           int64_t first_row);

typedef struct p4_tensor_count {
    int64_t zeros, positive;  /* of trits */
    double largest;           /* of halves: magnitude */
    int64_t nonfinite;        /* of halves */
    int64_t differing;        /* elements that are not those of `fp16` */
    int64_t row, col;         /* of the first of them */
    uint16_t expected, found; /* fp16 bits there */
} p4_tensor_count;
/* Counts, and where fp16 is not NULL compares with the tensor of dequantized_fp16, a view of the whole
 * matrix. */
p4_rc p4_tensor_block_count(p4_tensor_count *count, const p4_tensor_block *block, const p4_weight *fp16,
                            int threads);

#endif
