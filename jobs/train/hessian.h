/* hessian.h - the matrices of the blocks quantized under H = X'X / N of their inputs: GPTQ, and coordinate
 * descent after it (docs/methods.md 1).
 *
 * Blocks follow one another (jobs/train/layers.h), each fed by the ternary blocks before it. Within a block
 * the slots follow one another: q | k | v, o, gate | up, down, each with H of the inputs that the ternary
 * slots before it produce. Memory is for H of one slot. All ranks sum H; the owner of a matrix solves it; all
 * ranks get its codes. */
#ifndef P4_HESSIAN_H
#define P4_HESSIAN_H

#include "jobs/train/quantize.h"

/* Fills what `packed` holds of the blocks' ternary matrices, on every rank. The plan has windows and
 * statistics. P4_E_INPUT: inputs of a slot that are not finite, a scale that fp16 cannot hold. Collective. */
p4_rc p4_hessian_quantize_blocks(p4_packed *packed, p4_compute *compute, const p4_original *original,
                                 const p4_quantize_plan *plan);
/* The device memory that this takes on this rank beside a layer-major pass (layers.h), bytes. Local. */
int64_t p4_hessian_bytes(const p4_compute *compute, const p4_original *original);

#endif
