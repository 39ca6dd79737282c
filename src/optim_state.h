/* optim_state.h - masters and optimizer state of single tensors, under the tensor's name: what a checkpoint
 * saves and another number of ranks reads back. */
#ifndef P4_OPTIM_STATE_H
#define P4_OPTIM_STATE_H

#include "src/optim.h"

typedef enum p4_optim_part {
    P4_PART_MASTER,   /* fp32 */
    P4_PART_MOMENTUM, /* AdamW's first moment, Muon's momentum: fp32, or bf16 with half_state */
    P4_PART_VARIANCE, /* AdamW's second moment: the same form */
    P4_PART_AVERAGE,  /* Grokfast's average: the same form */
    P4_PART_SCALE,    /* learned scales, in the order of src/leaf/tensor.h: fp32, as the next two */
    P4_PART_SCALE_MOMENTUM,
    P4_PART_SCALE_VARIANCE,
    P4_PART_COUNT
} p4_optim_part;

const char *p4_optim_part_name(p4_optim_part part); /* "master": of a record in a file */
/* The part as an array [*rows, *cols] of elements: as the tensor, or an element for each of its scales.
 * Local.
 */
void p4_optim_part_shape(const p4_param *param, p4_optim_part part, int64_t *rows, int64_t *cols);
/* Bytes of this part of the tensor; 0: it is not held here, or has no such part. Local. */
int64_t p4_optim_part_bytes(const p4_optim *optim, const char *tensor, p4_optim_part part);
/* The same of parameter i; also of a layout alone (p4_optim_lay_out). Local. */
int64_t p4_optim_part_bytes_of(const p4_optim *optim, int64_t i, p4_optim_part part);
/* h_to [bytes] = the part, row-major. P4_E_STATE: it is not here or has another
 * size. Local. */
p4_rc p4_optim_get(const p4_optim *optim, const char *tensor, p4_optim_part part, void *h_to, int64_t bytes);
/* And back. Local. */
p4_rc p4_optim_set(p4_optim *optim, const char *tensor, p4_optim_part part, const void *h_from,
                   int64_t bytes);

#endif
